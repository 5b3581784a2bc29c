//! The upstream's answer: its head read strictly, translated, and its body streamed.

use std::mem;

use super::pump::{Heard, Pump};
use super::{Leg, NoAnswer, Oversight, Relay, Relayed, Review};
use crate::clock::Monotonic;
use crate::fault::{self, Stage};
use crate::http::{BodyDecoder, Field, Framing, Method, ResponseHead, sse, write};
use crate::limits::{
    COPY_BYTES_MAX, LONG_BUFFER_BYTES, RELAY_BUFFER_BYTES, UPSTREAM_HEAD_BYTES_MAX,
    UPSTREAM_INTERIM_MAX,
};
use crate::listener::{Downstream, answer};
use crate::net::{Stream, Timers};
use crate::reject::Reject;

/// A final response head, with what of the body came along.
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    /// The head, then body bytes.
    pub(super) input: Vec<u8>,
    head_bytes: usize,
    /// The answer ended where its framing says and the connection may stay open.
    complete: bool,
}

/// What the body is, as far as the relay cares.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Body {
    /// Streamed as it is.
    Json,
    /// Streamed with event boundaries tracked.
    Events,
    /// Nothing to send on.
    Withheld,
}

/// Reads up to the final head, past a bounded number of interim ones, with a fresh head and buffer.
pub(super) async fn read(
    stream: &mut Stream,
    (mut head, mut input): (ResponseHead, Vec<u8>),
    leg: &Leg<'_>,
    downstream: &mut Downstream,
    oversight: &impl Oversight,
    timers: &Timers,
    until: Monotonic,
) -> Result<Answered, NoAnswer> {
    let mut interim = 0;
    let mut pump = Pump::new(timers, leg.cancel_on_leave);
    loop {
        let parsed = head.parse(&input, leg.method).map_err(NoAnswer::Refused)?;
        match parsed {
            Some(length) if head.is_interim() => {
                // RFC 9110 §15.2: interim answers precede the final one; 101 would change the
                // protocol.
                interim += 1;
                if interim > UPSTREAM_INTERIM_MAX || head.status() == 101 {
                    return Err(NoAnswer::Refused(Reject::UpstreamMalformed));
                }
                input.drain(..length);
                head.reset();
                continue;
            }
            Some(head_bytes) => return Ok(Answered { head, input, head_bytes, complete: false }),
            None if input.len() > UPSTREAM_HEAD_BYTES_MAX => {
                return Err(NoAnswer::Refused(Reject::UpstreamMalformed));
            }
            None => {}
        }
        if input.capacity() == input.len() {
            input.reserve(RELAY_BUFFER_BYTES);
        }
        match pump.hear(stream, &mut input, downstream, until).await {
            Heard::Bytes => {}
            Heard::Tick => match oversight.review() {
                Review::Continue => {}
                Review::Cut(reject) => return Err(NoAnswer::Refused(reject)),
                // A stream without a head has no event boundary to wait for.
                Review::Finish => return Err(NoAnswer::Refused(Reject::GatewayDraining)),
            },
            Heard::End | Heard::Broken if input.is_empty() => return Err(NoAnswer::Silent),
            Heard::End | Heard::Broken => return Err(NoAnswer::Refused(Reject::UpstreamEof)),
            Heard::ClientLeft if pump.cancels() => {
                return Err(NoAnswer::Refused(Reject::RequestAborted));
            }
            // A legacy client that leaves cancels nothing (2025-11-25, transports, "Sending
            // Messages"): some servers send their head only with the finished answer.
            Heard::ClientLeft => {}
            Heard::Late => return Err(NoAnswer::Refused(Reject::UpstreamTimeout)),
        }
    }
}

impl Answered {
    /// The connection may serve another request: the answer ended exactly where it should, and no
    /// surplus bytes lie behind it (they would become somebody else's answer).
    pub(super) fn connection_reusable(&self) -> bool {
        self.complete
            && self.head.framing() != Framing::UntilClose
            && self.head.keep_alive()
            && self.input.is_empty()
    }

    /// Translates the head and streams the body.
    pub(super) async fn stream_to(
        &mut self,
        stream: &mut Stream,
        leg: &Leg<'_>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
        relay: &Relay,
    ) -> Result<Relayed, Reject> {
        let kind = self.kind(leg)?;
        let framing = self.head.framing();
        let (request, _) = downstream.head();
        let chunked = !matches!(framing, Framing::Length(_) | Framing::None);
        let close =
            oversight.last_answer() || !request.keep_alive() || (chunked && request.is_http_10());
        let mut out = relay.buffers.take();
        self.write_fields(kind, leg, oversight, &mut out)?;
        self.write_framing(kind, chunked && !request.is_http_10(), close, &mut out);
        let mut transfer = Transfer {
            decoder: BodyDecoder::new(framing, u64::MAX).map_err(|_| Reject::UpstreamMalformed)?,
            events: (kind == Body::Events).then(sse::EventTracker::new),
            kind,
            chunked: chunked && !downstream.head().0.is_http_10(),
            begin: self.head_bytes,
            whole: false,
            relayed: Relayed {
                status: self.head.status(),
                ends_by_close: chunked && downstream.head().0.is_http_10(),
                ..Relayed::default()
            },
        };
        // Nothing was sent yet: what is broken already is refused, not begun and cut.
        let done = transfer.decode(&mut self.input, &mut out)?;
        let mut pump = Pump::new(&relay.timers, leg.cancel_on_leave);
        self.complete = transfer
            .run(
                done,
                &mut pump,
                stream,
                &mut self.input,
                &mut out,
                leg,
                downstream,
                oversight,
                relay,
            )
            .await;
        relay.buffers.give(out);
        transfer.relayed.reusable =
            transfer.relayed.cut.is_none() && !close && !downstream.is_gone();
        Ok(transfer.relayed)
    }

    /// What the agent may see of this answer.
    fn kind(&self, leg: &Leg<'_>) -> Result<Body, Reject> {
        let status = self.head.status();
        match status {
            300..=399 => return Err(Reject::UpstreamRedirect),
            403 => return Err(Reject::UpstreamForbidden),
            _ => {}
        }
        let bytes = self.input.get(..self.head_bytes).unwrap_or_default();
        if self
            .head
            .field(bytes, Field::ContentEncoding)
            .is_some_and(|coding| coding != b"identity")
        {
            // We asked for none, and cannot judge what we cannot read.
            return Err(Reject::UpstreamContentType);
        }
        // MCP gives an accepted notification and an ended session no body (2025-11-25, transports,
        // "Sending Messages", "Session Management"), so nobody has to say what kind it is of.
        let bodiless = status == 202 || leg.method == Method::Delete;
        match self.head.field(bytes, Field::ContentType).map(media_type) {
            _ if self.head.framing() == Framing::None
                || self.head.framing() == Framing::Length(0) =>
            {
                Ok(Body::Withheld)
            }
            Some(kind) if kind.eq_ignore_ascii_case(b"application/json") => Ok(Body::Json),
            Some(kind) if kind.eq_ignore_ascii_case(b"text/event-stream") => Ok(Body::Events),
            // A plain-text or HTML error page: its status means something to clients (404 ends a
            // session), its text is not part of MCP.
            _ if status >= 400 || bodiless => Ok(Body::Withheld),
            _ => Err(Reject::UpstreamContentType),
        }
    }

    fn write_fields(
        &self,
        kind: Body,
        leg: &Leg<'_>,
        oversight: &impl Oversight,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let bytes = self.input.get(..self.head_bytes).unwrap_or_default();
        write::status_line(self.head.status(), out);
        for (name, value) in self.head.downstream_fields(bytes) {
            if name.eq_ignore_ascii_case(b"mcp-session-id") {
                let start = out.len();
                out.extend_from_slice(b"mcp-session-id: ");
                if oversight.name_session(value, out)? {
                    out.extend_from_slice(write::CRLF);
                } else {
                    out.truncate(start);
                }
            } else if !(kind == Body::Withheld && name.eq_ignore_ascii_case(b"content-type")) {
                write::header(name, value, out)?;
            }
        }
        out.extend_from_slice(b"x-content-type-options: nosniff\r\n");
        answer::cors(leg.origin, out);
        Ok(())
    }

    fn write_framing(&self, kind: Body, chunked: bool, close: bool, out: &mut Vec<u8>) {
        match self.head.framing() {
            // RFC 9110 §8.6: no Content-Length in a 204.
            _ if self.head.status() == 204 => {}
            _ if kind == Body::Withheld => write::content_length(0, out),
            Framing::Length(length) => write::content_length(length, out),
            Framing::None => write::content_length(0, out),
            Framing::Chunked | Framing::UntilClose if chunked => {
                out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            }
            Framing::Chunked | Framing::UntilClose => {}
        }
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(write::CRLF);
    }
}

/// One body under way.
struct Transfer {
    decoder: BodyDecoder,
    events: Option<sse::EventTracker>,
    kind: Body,
    chunked: bool,
    /// Where in the input the bytes begin that were not decoded yet: behind the head, at first.
    begin: usize,
    /// All of the input from `begin` on is body and goes to the agent as it lies there, behind
    /// `out`.
    whole: bool,
    relayed: Relayed,
}

/// How a step of the transfer ended.
enum Flow {
    Go,
    Done,
    Stop,
}

impl Transfer {
    /// Runs to the end of the body, of which `out` holds the head and what came along. True when
    /// the upstream's body is complete.
    #[expect(clippy::too_many_arguments, reason = "the two sides, their buffers and their judge")]
    async fn run(
        &mut self,
        mut done: bool,
        pump: &mut Pump<'_>,
        stream: &mut Stream,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        leg: &Leg<'_>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
        relay: &Relay,
    ) -> bool {
        pump.start_answer(leg.server);
        loop {
            if (!out.is_empty() || self.whole)
                && !self.send(input, out, downstream, pump.write_until(leg)).await
            {
                self.relayed.client_left = true;
                if leg.cancel_on_leave || self.resumable() {
                    return false;
                }
            }
            fault::point(Stage::Response, downstream.head().1);
            if done {
                return self.relayed.cut.is_none();
            }
            if let Flow::Stop = self.review(out, oversight) {
                return false;
            }
            if self.relayed.cut.is_some() {
                // The last words are in `out`.
                done = true;
                continue;
            }
            self.widen(input, out, relay);
            match self.listen(pump, stream, input, out, downstream, oversight).await {
                Flow::Go => {}
                Flow::Done => return true,
                Flow::Stop => return false,
            }
            done = match self.decode(input, out) {
                Ok(done) => done,
                Err(reject) => return self.cut(reject),
            };
        }
    }

    /// Writes what `decode` left for the agent. False when the agent is gone.
    async fn send(
        &mut self,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        downstream: &mut Downstream,
        until: Monotonic,
    ) -> bool {
        let head = mem::take(out);
        let written;
        if mem::take(&mut self.whole) {
            let body = mem::take(input);
            (written, *out, *input) = downstream.write_both(head, body, self.begin, until).await;
            input.clear();
            self.begin = 0;
        } else {
            (written, *out) = downstream.write(head, until).await;
        }
        out.clear();
        written
    }

    /// A long body goes through one long buffer instead of two usual ones.
    fn widen(&self, input: &mut Vec<u8>, out: &mut Vec<u8>, relay: &Relay) {
        let long = self.decoder.bytes_left().is_some_and(|left| left > RELAY_BUFFER_BYTES as u64);
        let fits = self.goes_whole() && input.is_empty() && input.capacity() < LONG_BUFFER_BYTES;
        if long && fits {
            relay.buffers.give(mem::replace(input, relay.long.take()));
            relay.buffers.give(mem::take(out));
        }
    }

    /// The body needs nothing around or between its bytes.
    fn goes_whole(&self) -> bool {
        !self.chunked && self.kind == Body::Json
    }

    async fn listen(
        &mut self,
        pump: &mut Pump<'_>,
        stream: &mut Stream,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
    ) -> Flow {
        let until = pump.answer_until();
        match pump.hear(stream, input, downstream, until).await {
            Heard::Bytes => Flow::Go,
            Heard::Tick => self.tick(pump, out, oversight),
            Heard::End => match self.decoder.end_of_input() {
                Ok(()) => {
                    self.finish(out);
                    let _ = downstream.write(mem::take(out), until).await;
                    Flow::Done
                }
                Err(_) => self.stop(Reject::UpstreamEof),
            },
            Heard::Broken => self.stop(Reject::UpstreamEof),
            Heard::Late => self.stop(Reject::UpstreamTimeout),
            Heard::ClientLeft => {
                self.relayed.client_left = true;
                if pump.cancels() || self.resumable() { Flow::Stop } else { Flow::Go }
            }
        }
    }

    /// Nothing arrived for a while.
    fn tick(&mut self, pump: &Pump<'_>, out: &mut Vec<u8>, oversight: &impl Oversight) -> Flow {
        // Only between events, and only where our own framing leaves room for it.
        if self.at_boundary() && self.chunked && pump.keepalive_due() {
            // A comment line keeps middleboxes and clients from giving up (WHATWG HTML §9.2.7).
            self.emit(b": keep-alive\n\n", out);
        }
        self.review(out, oversight)
    }

    /// Judges the open answer again, also between the events of a busy stream.
    fn review(&mut self, out: &mut Vec<u8>, oversight: &impl Oversight) -> Flow {
        match oversight.review() {
            Review::Cut(reject) => self.stop(reject),
            Review::Finish if self.at_boundary() && self.relayed.cut.is_none() => {
                if self.chunked && self.relayed.bytes_out > 0 {
                    self.emit(oversight.farewell(), out);
                }
                self.finish(out);
                self.relayed.cut = Some(Reject::GatewayDraining);
                Flow::Go
            }
            Review::Finish | Review::Continue => Flow::Go,
        }
    }

    /// The client can come back for the rest of this stream (2025-11-25, transports, "Resumability
    /// and Redelivery"). So the server is told at once that it left, which cancels nothing: as long
    /// as it believes the stream to be open, some servers answer the return with an empty one. A
    /// stream without event ids is read to its end instead, for servers that take an end for a
    /// cancellation.
    fn resumable(&self) -> bool {
        self.events.as_ref().is_some_and(sse::EventTracker::has_ids)
    }

    fn at_boundary(&self) -> bool {
        self.events.as_ref().is_some_and(sse::EventTracker::at_boundary)
    }

    /// Moves what has arrived from `input` to `out`, framed for the agent. True at the end of the
    /// body.
    fn decode(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Reject> {
        if self.relayed.cut.is_some() {
            return Ok(true);
        }
        let mut at = mem::take(&mut self.begin);
        let mut done = self.decoder.finished();
        while !done {
            let pending = input.get(at..).unwrap_or_default();
            let step = self.decoder.decode(pending).map_err(|_| Reject::UpstreamMalformed)?;
            let data = pending.get(step.data.clone()).unwrap_or_default();
            // Of a long body, which has a long buffer, no piece is copied.
            let long = data.len() > COPY_BYTES_MAX || input.capacity() >= LONG_BUFFER_BYTES;
            if data.len() == pending.len() && long && !data.is_empty() && self.goes_whole() {
                self.relayed.bytes_out += data.len() as u64;
                self.whole = true;
                self.begin = at;
                return Ok(step.done);
            }
            if let Some(events) = &mut self.events {
                events.feed(data)?;
            }
            self.emit(data, out);
            at += step.consumed;
            done = step.done;
            if step.consumed == 0 {
                break;
            }
        }
        input.drain(..at);
        if done {
            self.finish(out);
        }
        Ok(done)
    }

    fn emit(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if data.is_empty() || self.kind == Body::Withheld {
            return;
        }
        self.relayed.bytes_out += data.len() as u64;
        if self.chunked {
            write::chunk_header(data.len(), out);
            out.extend_from_slice(data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(data);
        }
    }

    fn finish(&self, out: &mut Vec<u8>) {
        if self.chunked && self.kind != Body::Withheld {
            out.extend_from_slice(write::LAST_CHUNK);
        }
    }

    fn stop(&mut self, reject: Reject) -> Flow {
        self.cut(reject);
        Flow::Stop
    }

    fn cut(&mut self, reject: Reject) -> bool {
        self.relayed.cut = Some(reject);
        false
    }
}

/// The media type without its parameters.
fn media_type(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

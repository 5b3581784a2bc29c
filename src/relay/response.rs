//! The upstream's answer: its head read strictly and translated.

use super::events::EventFilter;
use super::pump::{Heard, Pump};
use super::transfer::Transfer;
use super::{Filter, Leg, NoAnswer, Oversight, Relay, Relayed, Review};
use crate::clock::Monotonic;
use crate::http::head::is_other_charset;
use crate::http::{BodyDecoder, Field, Framing, Method, ResponseHead, sse, write};
use crate::limits::{RELAY_BUFFER_BYTES, UPSTREAM_HEAD_BYTES_MAX, UPSTREAM_INTERIM_MAX};
use crate::listener::{Downstream, answer};
use crate::net::{Stream, Timers};
use crate::reject::Reject;

/// A final response head, with what of the body came along.
pub(super) struct Answered {
    pub(super) head: ResponseHead,
    /// The head, then body bytes.
    pub(super) input: Vec<u8>,
    pub(super) head_bytes: usize,
    /// The answer ended where its framing says and the connection may stay open.
    pub(super) complete: bool,
}

/// What the body is, as far as the relay cares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
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
        let whole = final_head(&mut head, &mut input, leg.method, &mut interim);
        if let Some(head_bytes) = whole.map_err(NoAnswer::Refused)? {
            return Ok(Answered { head, input, head_bytes, complete: false });
        }
        if input.capacity() == input.len() {
            input.reserve(RELAY_BUFFER_BYTES);
        }
        match pump.hear(stream, &mut input, downstream, until).await {
            Heard::Bytes => {}
            Heard::Tick => match oversight.review() {
                // What there is to say waits for the stream; the review says so again.
                Review::Continue | Review::Say { .. } => {}
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

/// The length of the final head in `input`, once it is there whole; interim ones are dropped.
#[inline]
pub(super) fn final_head(
    head: &mut ResponseHead,
    input: &mut Vec<u8>,
    answered: Method,
    interim: &mut usize,
) -> Result<Option<usize>, Reject> {
    loop {
        match head.parse(input, answered)? {
            Some(length) if head.is_interim() => {
                // RFC 9110 §15.2: interim answers precede the final one; 101 would change the
                // protocol.
                *interim += 1;
                if *interim > UPSTREAM_INTERIM_MAX || head.status() == 101 {
                    return Err(Reject::UpstreamMalformed);
                }
                input.drain(..length);
                head.reset();
            }
            None if input.len() > UPSTREAM_HEAD_BYTES_MAX => return Err(Reject::UpstreamMalformed),
            whole => return Ok(whole),
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

    fn head_part(&self) -> &[u8] {
        self.input.get(..self.head_bytes).unwrap_or_default()
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
        let kind = kind(&self.head, self.head_part(), leg.method)?;
        let what = oversight.filter();
        let mut out = relay.buffers.take();
        self.write_fields(kind, leg, oversight, &mut out)?;
        if kind == Body::Json {
            let held = match what {
                Filter::Nothing => false,
                Filter::Strays => self.strays(stream, leg, downstream, oversight, relay).await?,
                Filter::List(_) | Filter::Replay => true,
            };
            if held {
                return self.filter_to(stream, leg, downstream, oversight, relay, out).await;
            }
        }
        let filters = kind == Body::Events && what != Filter::Nothing;
        let framing = self.head.framing();
        let (request, _) = downstream.head();
        // What is filtered has another length than the upstream said.
        let outward = if filters { Framing::UntilClose } else { framing };
        let chunked = !matches!(outward, Framing::Length(_) | Framing::None);
        let close =
            oversight.last_answer() || !request.keep_alive() || (chunked && request.is_http_10());
        self.write_framing(kind, outward, chunked && !request.is_http_10(), close, &mut out);
        let mut transfer = Transfer {
            decoder: BodyDecoder::new(framing, u64::MAX).map_err(|_| Reject::UpstreamMalformed)?,
            events: (kind == Body::Events).then(sse::EventTracker::new),
            filter: filters.then(|| Box::new(EventFilter::new(what))),
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
        let done = if filters {
            transfer.filtered(&mut self.input, &mut out, oversight).await?
        } else {
            transfer.take(&mut self.input, &mut out)?
        };
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

    fn write_framing(
        &self,
        kind: Body,
        framing: Framing,
        chunked: bool,
        close: bool,
        out: &mut Vec<u8>,
    ) {
        match framing {
            // RFC 9110 §8.6: no Content-Length in a 204.
            _ if self.head.status() == 204 => {}
            _ if kind == Body::Withheld => write::content_length(0, out),
            _ if chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Framing::Length(length) => write::content_length(length, out),
            Framing::None => write::content_length(0, out),
            Framing::Chunked | Framing::UntilClose => {}
        }
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(write::CRLF);
    }
}

/// What may be seen of an answer with this head.
pub(super) fn kind(head: &ResponseHead, bytes: &[u8], asked: Method) -> Result<Body, Reject> {
    let status = head.status();
    match status {
        300..=399 => return Err(Reject::UpstreamRedirect),
        403 => return Err(Reject::UpstreamForbidden),
        _ => {}
    }
    // In another encoding the same bytes are another message to who reads it.
    let written = head.field(bytes, Field::ContentType);
    // As nearly every server writes it.
    let is_json = written == Some(b"application/json".as_slice());
    let mut parameters = written.unwrap_or_default().split(|byte| *byte == b';').skip(1);
    if !is_json && parameters.any(is_other_charset) {
        return Err(Reject::UpstreamContentType);
    }
    if head.field(bytes, Field::ContentEncoding).is_some_and(|coding| coding != b"identity") {
        // We asked for none, and cannot judge what we cannot read.
        return Err(Reject::UpstreamContentType);
    }
    // MCP gives an accepted notification and an ended session no body (2025-11-25, transports,
    // "Sending Messages", "Session Management"), so nobody has to say what kind it is of.
    let bodiless = status == 202 || asked == Method::Delete;
    match written {
        _ if head.framing() == Framing::None || head.framing() == Framing::Length(0) => {
            Ok(Body::Withheld)
        }
        _ if is_json => Ok(Body::Json),
        Some(kind) if is_media(kind, b"application/json") => Ok(Body::Json),
        Some(kind) if is_media(kind, b"text/event-stream") => Ok(Body::Events),
        // A plain-text or HTML error page: its status means something to clients (404 ends a
        // session), its text is not part of MCP.
        _ if status >= 400 || bodiless => Ok(Body::Withheld),
        _ => Err(Reject::UpstreamContentType),
    }
}

/// Whether this is the media type, its parameters aside.
fn is_media(value: &[u8], wanted: &[u8]) -> bool {
    let bare = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    bare.eq_ignore_ascii_case(wanted)
}

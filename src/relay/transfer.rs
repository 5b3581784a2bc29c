//! The body of an answer on its way to the agent: framed anew, watched, and cut when it has to be.

use std::mem;

use super::events::EventFilter;
use super::pump::{Heard, Pump};
use super::response::Body;
use super::{Leg, Oversight, Relay, Relayed, Review};
use crate::clock::Monotonic;
use crate::fault::{self, Stage};
use crate::http::{BodyDecoder, sse, write};
use crate::limits::{COPY_BYTES_MAX, LONG_BUFFER_BYTES, RELAY_BUFFER_BYTES};
use crate::listener::Downstream;
use crate::net::Stream;
use crate::reject::Reject;

/// One body under way.
pub(super) struct Transfer {
    pub(super) decoder: BodyDecoder,
    pub(super) events: Option<sse::EventTracker>,
    /// Lists in these events are not for everybody.
    pub(super) filter: Option<Box<EventFilter>>,
    pub(super) kind: Body,
    pub(super) chunked: bool,
    /// Where in the input the bytes begin that were not decoded yet: behind the head, at first.
    pub(super) begin: usize,
    /// All of the input from `begin` on is body and goes to the agent as it lies there, behind
    /// `out`.
    pub(super) whole: bool,
    pub(super) relayed: Relayed,
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
    pub(super) async fn run(
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
        pump.start_answer(leg.to.server);
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
            if !out.is_empty() {
                // So are news, and they do not wait for the upstream's next word.
                continue;
            }
            self.widen(input, out, relay);
            match self.listen(pump, stream, input, out, downstream, oversight).await {
                Flow::Go => {}
                Flow::Done => return true,
                Flow::Stop => return false,
            }
            let taken = match self.filter {
                None => self.take(input, out),
                Some(_) => self.filtered(input, out, oversight).await,
            };
            done = match taken {
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
                    if let Some(filter) = &mut self.filter {
                        filter.end();
                    }
                    if let Err(reject) = self.pass(out, oversight).await {
                        return self.stop(reject);
                    }
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
        // Only between events, where an agent from whom one is held back always is, and only where
        // our own framing leaves room for it.
        let between = self.at_boundary() || self.filter.is_some();
        if between && self.chunked && pump.keepalive_due() {
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
            Review::Say { answered } => {
                if self.at_boundary() && self.may_add() && (!answered || self.has_data()) {
                    self.emit(oversight.news(), out);
                    oversight.told();
                }
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

    fn has_data(&self) -> bool {
        self.events.as_ref().is_some_and(sse::EventTracker::has_data)
    }

    /// Our own framing has room for more than the upstream said.
    const fn may_add(&self) -> bool {
        self.chunked || self.relayed.ends_by_close
    }

    fn at_boundary(&self) -> bool {
        self.events.as_ref().is_some_and(sse::EventTracker::at_boundary)
    }

    /// Moves what has arrived from `input` to `out`, framed for the agent. True at the end of the
    /// body.
    pub(super) fn take(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<bool, Reject> {
        let done = self.decode(input, out)?;
        if done && self.relayed.cut.is_none() && !self.whole {
            self.finish(out);
        }
        Ok(done)
    }

    /// The same through the filter.
    pub(super) async fn filtered(
        &mut self,
        input: &mut Vec<u8>,
        out: &mut Vec<u8>,
        oversight: &impl Oversight,
    ) -> Result<bool, Reject> {
        let done = self.decode(input, out)?;
        self.pass(out, oversight).await?;
        if done && self.relayed.cut.is_none() && !self.whole {
            self.finish(out);
        }
        Ok(done)
    }

    /// What has arrived goes to `out`, or to the filter.
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
            match &mut self.filter {
                None => self.emit(data, out),
                Some(filter) => filter.feed(data)?,
            }
            at += step.consumed;
            done = step.done;
            if step.consumed == 0 {
                break;
            }
        }
        input.drain(..at);
        if let Some(filter) = self.filter.as_mut().filter(|_| done) {
            // The body is complete, so nothing of it is held back any longer.
            filter.end();
        }
        Ok(done)
    }

    /// What the filter has whole goes on, as far as it may.
    async fn pass(&mut self, out: &mut Vec<u8>, oversight: &impl Oversight) -> Result<(), Reject> {
        let Some(filter) = &mut self.filter else { return Ok(()) };
        let mut passed = Vec::new();
        filter.pass(oversight, &mut passed).await?;
        self.emit(&passed, out);
        Ok(())
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

//! Lists on their way to the agent: held until they are whole, and sent on without what the agent
//! may not use (DESIGN §6). Whatever goes wrong here, no list goes out as it came.

use super::pump::{Heard, Pump};
use super::response::Answered;
use super::{Leg, Oversight, Relay, Relayed, Review};
use crate::http::{BodyDecoder, write};
use crate::limits::{LIST_BYTES_MAX, LIST_ITEMS_MAX, RELAY_BUFFER_BYTES};
use crate::listener::Downstream;
use crate::mcp::{Found, ListReader, may_hold_a_list};
use crate::net::Stream;
use crate::reject::Reject;

/// Appends `message` to `out` with what may be shown of its list. False, and nothing is appended:
/// it is no list, and may pass as it is.
///
/// # Errors
/// `UpstreamMalformed` for a message that could be read in two ways, and for a list over its
/// bounds; what the judge says.
pub(super) async fn filter(
    reader: &mut ListReader,
    message: &[u8],
    oversight: &impl Oversight,
    out: &mut Vec<u8>,
) -> Result<bool, Reject> {
    let Found::List { listed, items } = reader.read(message)? else { return Ok(false) };
    if items > LIST_ITEMS_MAX || message.len() > LIST_BYTES_MAX {
        return Err(Reject::UpstreamMalformed);
    }
    let names: Vec<&str> = reader.names().collect();
    let mut kept = Vec::with_capacity(names.len());
    oversight.keep(listed, items, &names, &mut kept).await?;
    reader.write(message, &kept, oversight.private_lists(), out);
    Ok(true)
}

impl Answered {
    /// Holds a whole JSON answer, filters it and sends it on behind the fields in `out`. Nothing is
    /// written before that is done, so every failure can still be answered.
    pub(super) async fn filter_to(
        &mut self,
        stream: &mut Stream,
        leg: &Leg<'_>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
        relay: &Relay,
        mut out: Vec<u8>,
    ) -> Result<Relayed, Reject> {
        let close = oversight.last_answer() || !downstream.head().0.keep_alive();
        let mut pump = Pump::new(&relay.timers, leg.cancel_on_leave);
        pump.start_answer(leg.to.server);
        let body = self.hold(&mut pump, stream, downstream, oversight).await?;
        let mut filtered = Vec::with_capacity(body.len() + SPARE_BYTES);
        let changed = filter(&mut ListReader::new(), &body, oversight, &mut filtered).await;
        let body = match changed {
            Ok(true) => filtered,
            Ok(false) => body,
            // As with an error page: the status means something to clients (405 to a GET, 404 ends
            // a session), a body that is no message does not.
            Err(Reject::UpstreamMalformed) if self.head.status() >= 400 => Vec::new(),
            Err(reject) => return Err(reject),
        };
        write::content_length(body.len() as u64, &mut out);
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(write::CRLF);
        let mut relayed = Relayed { status: self.head.status(), ..Relayed::default() };
        let mut rest = body.as_slice();
        loop {
            let (piece, after) = rest.split_at(rest.len().min(RELAY_BUFFER_BYTES));
            out.extend_from_slice(piece);
            let (written, returned) = downstream.write(out, pump.write_until(leg)).await;
            out = returned;
            out.clear();
            if !written {
                relayed.client_left = true;
                break;
            }
            relayed.bytes_out += piece.len() as u64;
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        relay.buffers.give(out);
        relayed.reusable = !close && !downstream.is_gone();
        Ok(relayed)
    }

    /// Whether the answer begins like a list that nobody asked for here. Waits for so much of it as
    /// to tell, which is all of most answers.
    pub(super) async fn strays(
        &mut self,
        stream: &mut Stream,
        leg: &Leg<'_>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
        relay: &Relay,
    ) -> Result<bool, Reject> {
        let mut pump = Pump::new(&relay.timers, leg.cancel_on_leave);
        pump.start_answer(leg.to.server);
        loop {
            let (sample, whole) = self.sample()?;
            if whole || sample.len() >= STRAY_BYTES {
                return Ok(may_hold_a_list(&sample));
            }
            match pump.hear(stream, &mut self.input, downstream, pump.answer_until()).await {
                Heard::Bytes => {}
                Heard::Tick => match oversight.review() {
                    Review::Cut(reject) => return Err(reject),
                    Review::Continue | Review::Finish | Review::Say { .. } => {}
                },
                Heard::End => return Ok(may_hold_a_list(&sample)),
                Heard::Broken => return Err(Reject::UpstreamEof),
                Heard::Late => return Err(Reject::UpstreamTimeout),
                Heard::ClientLeft if pump.cancels() => return Err(Reject::RequestAborted),
                Heard::ClientLeft => {}
            }
        }
    }

    /// What has arrived of the body, decoded, and whether that is all of it.
    fn sample(&self) -> Result<(Vec<u8>, bool), Reject> {
        let malformed = |_| Reject::UpstreamMalformed;
        let mut decoder = BodyDecoder::new(self.head.framing(), u64::MAX).map_err(malformed)?;
        let (mut sample, mut at) = (Vec::new(), self.head_bytes);
        while !decoder.finished() && sample.len() < STRAY_BYTES {
            let pending = self.input.get(at..).unwrap_or_default();
            let step = decoder.decode(pending).map_err(malformed)?;
            sample.extend_from_slice(pending.get(step.data.clone()).unwrap_or_default());
            at += step.consumed;
            if step.consumed == 0 {
                break;
            }
        }
        Ok((sample, decoder.finished()))
    }

    /// Reads the body to its end.
    async fn hold(
        &mut self,
        pump: &mut Pump<'_>,
        stream: &mut Stream,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
    ) -> Result<Vec<u8>, Reject> {
        let malformed = |_| Reject::UpstreamMalformed;
        let framing = self.head.framing();
        let mut decoder = BodyDecoder::new(framing, LIST_BYTES_MAX as u64).map_err(malformed)?;
        let mut body = Vec::new();
        let mut at = self.head_bytes;
        loop {
            while !decoder.finished() {
                let pending = self.input.get(at..).unwrap_or_default();
                let step = decoder.decode(pending).map_err(malformed)?;
                body.extend_from_slice(pending.get(step.data.clone()).unwrap_or_default());
                at += step.consumed;
                if step.consumed == 0 {
                    break;
                }
            }
            self.input.drain(..at);
            at = 0;
            if decoder.finished() {
                self.complete = true;
                return Ok(body);
            }
            match pump.hear(stream, &mut self.input, downstream, pump.answer_until()).await {
                Heard::Bytes => {}
                Heard::Tick => match oversight.review() {
                    Review::Cut(reject) => return Err(reject),
                    Review::Continue | Review::Finish | Review::Say { .. } => {}
                },
                Heard::End if decoder.end_of_input().is_ok() => return Ok(body),
                Heard::End | Heard::Broken => return Err(Reject::UpstreamEof),
                Heard::Late => return Err(Reject::UpstreamTimeout),
                Heard::ClientLeft if pump.cancels() => return Err(Reject::RequestAborted),
                Heard::ClientLeft => {}
            }
        }
    }
}

/// Within these bytes an answer that is a list names it: before its items stand ids, a cursor and
/// what a server says of itself.
const STRAY_BYTES: usize = 4096;
/// Room for `cacheScope`.
const SPARE_BYTES: usize = 32;

//! The bytes of a talk: the request out, the head of its answer in, then whatever comes.

use std::time::Duration;

use super::{Answer, Asked, Eye, Talk};
use crate::clock::Monotonic;
use crate::http::events::EventReader;
use crate::http::{BodyDecoder, Field, Framing, ResponseHead};
use crate::limits::{
    RELAY_BUFFER_BYTES, SESSION_UPSTREAM_ID_BYTES_MAX, TALK_EVENT_BYTES_MAX, TALK_JSON_BYTES_MAX,
    WATCH_CLIENT_AFTER_MS, WHEEL_TICK,
};
use crate::net::{Either, NetError, first};
use crate::reject::Reject;
use crate::relay::response::{Body, final_head, kind};
use crate::relay::send::{NoAnswer, join};

impl Talk<'_> {
    /// Writes the request and reads the head of its answer.
    pub(super) async fn ask(
        &mut self,
        asked: &Asked<'_>,
        eye: &mut impl Eye,
        until: Monotonic,
    ) -> Result<(), NoAnswer> {
        self.send(asked, until).await?;
        let mut head = self.relay.take_head();
        let read = self.read_head(&mut head, asked, eye, until).await;
        self.relay.release_head(head);
        read
    }

    async fn send(&mut self, asked: &Asked<'_>, until: Monotonic) -> Result<(), NoAnswer> {
        let until = until.min(self.ends_at);
        let stream = self.stream.as_mut().ok_or(NoAnswer::Refused(Reject::GatewayFault))?;
        let mut head = self.relay.write_own(asked).map_err(NoAnswer::Refused)?;
        let (written, head) = if join(&mut head, asked.body) {
            stream.write_all(head, until).await
        } else {
            let body = asked.body.to_vec();
            let (written, head, _) = stream.write_both(head, body, 0, until).await;
            (written, head)
        };
        self.relay.buffers.give_wiped(head);
        written.map_err(NoAnswer::from_write)
    }

    async fn read_head(
        &mut self,
        head: &mut ResponseHead,
        asked: &Asked<'_>,
        eye: &mut impl Eye,
        until: Monotonic,
    ) -> Result<(), NoAnswer> {
        let mut interim = 0;
        let length = loop {
            let whole = final_head(head, &mut self.input, asked.method, &mut interim);
            if let Some(length) = whole.map_err(NoAnswer::Refused)? {
                break length;
            }
            let heard = self.receive(eye, until).await.map_err(NoAnswer::Refused)?;
            match heard {
                Received::Bytes => {}
                _ if self.input.is_empty() => return Err(NoAnswer::Silent),
                Received::End | Received::Broken => {
                    return Err(NoAnswer::Refused(Reject::UpstreamEof));
                }
            }
        };
        self.status = head.status();
        self.take_head(head, length, asked).map_err(NoAnswer::Refused)
    }

    /// What the head means for what follows.
    fn take_head(
        &mut self,
        head: &ResponseHead,
        length: usize,
        asked: &Asked<'_>,
    ) -> Result<(), Reject> {
        let bytes = self.input.get(..length).unwrap_or_default();
        let body = match head.status() {
            // The refusal of a credential is told apart before anything else is looked at.
            401 => Body::Withheld,
            _ => kind(head, bytes, asked.method)?,
        };
        if let Some(id) = head.field(bytes, Field::McpSessionId) {
            let sound = !id.is_empty() && id.iter().all(u8::is_ascii_graphic);
            if !sound || id.len() > SESSION_UPSTREAM_ID_BYTES_MAX {
                return Err(Reject::UpstreamMalformed);
            }
            self.session = Some(id.into());
        }
        let framing = head.framing();
        self.keep_alive = head.keep_alive() && framing != Framing::UntilClose;
        let (answer, bytes_max) = match body {
            _ if head.status() == 202 => (Answer::Accepted, 0),
            Body::Json => (Answer::Json(Vec::new()), TALK_JSON_BYTES_MAX as u64),
            Body::Events => {
                (Answer::Events(Box::new(EventReader::new(TALK_EVENT_BYTES_MAX))), u64::MAX)
            }
            Body::Withheld => (Answer::Nothing, 0),
        };
        // A body that nobody reads is too long for this; its connection is not used again.
        let decoder = BodyDecoder::new(framing, bytes_max);
        let read = matches!(answer, Answer::Json(_) | Answer::Events(_));
        self.decoder = match decoder {
            Ok(decoder) => decoder,
            Err(_) if read => return Err(Reject::UpstreamTooLarge),
            Err(_) => {
                self.keep_alive = false;
                BodyDecoder::none()
            }
        };
        self.answer = answer;
        self.at = length;
        let now = self.relay.timers.now();
        (self.heard_at, self.idle) = (now, Duration::from_secs(asked.to.server.idle_seconds));
        self.ends_at = now.after(Duration::from_secs(asked.to.server.max_seconds));
        Ok(())
    }

    pub(super) fn deadline(&self) -> Monotonic {
        self.heard_at.after(self.idle).min(self.ends_at)
    }

    /// Reads on; all of `input` was taken. False at the orderly end.
    pub(super) async fn fill(
        &mut self,
        eye: &mut impl Eye,
        until: Monotonic,
    ) -> Result<bool, Reject> {
        self.input.clear();
        self.at = 0;
        match self.receive(eye, until).await? {
            Received::Bytes => Ok(true),
            Received::End => Ok(false),
            Received::Broken => Err(Reject::UpstreamEof),
        }
    }

    /// Waits for bytes. Most of them are here at once: for those, one read is all.
    async fn receive(&mut self, eye: &mut impl Eye, until: Monotonic) -> Result<Received, Reject> {
        let until = until.min(self.deadline());
        loop {
            let now = self.relay.timers.now();
            if now >= until {
                self.rest();
                return Err(Reject::UpstreamTimeout);
            }
            // A server that never falls silent must not keep the eye from looking.
            if now.micros_since(self.looked_at) >= TICK.as_micros() as u64 {
                self.looked_at = now;
                eye.look(false).await?;
            }
            if !self.slow {
                let soon = now.after(Duration::from_millis(WATCH_CLIENT_AFTER_MS));
                if let Some(received) = self.read(soon.min(until)).await? {
                    return Ok(received);
                }
                self.slow = true;
                self.rest();
                eye.look(false).await?;
                continue;
            }
            let tick = self.relay.timers.sleep_until(now.after(TICK).min(until));
            let stream = self.stream.as_ref().ok_or(Reject::GatewayFault)?;
            match first(stream.readable(), first(eye.stirs(), tick)).await {
                Either::Left(()) => {
                    let soon = self.relay.timers.now().after(2 * WHEEL_TICK);
                    if let Some(received) = self.read(soon).await? {
                        return Ok(received);
                    }
                    // Over TLS, what is there may be no plaintext yet.
                    self.rest();
                    eye.look(false).await?;
                }
                Either::Right(stirred) => eye.look(stirred == Either::Left(())).await?,
            }
        }
    }

    /// Gives back what holds nothing.
    pub(super) fn rest(&mut self) {
        if self.input.is_empty() && self.input.capacity() > 0 {
            self.relay.give(std::mem::take(&mut self.input));
        }
        if let Answer::Events(reader) = &mut self.answer {
            reader.rest();
        }
    }

    /// One read; `None` when nothing came by `until`.
    async fn read(&mut self, until: Monotonic) -> Result<Option<Received>, Reject> {
        let stream = self.stream.as_mut().ok_or(Reject::GatewayFault)?;
        let mut buffer = std::mem::take(&mut self.input);
        if buffer.capacity() == 0 {
            buffer = self.relay.buffers.take();
        } else if buffer.capacity() == buffer.len() {
            buffer.reserve(RELAY_BUFFER_BYTES);
        }
        let (result, buffer) = stream.read(buffer, until).await;
        self.input = buffer;
        Ok(match result {
            Ok(0) => Some(Received::End),
            Ok(_) => {
                self.heard_at = self.relay.timers.now();
                Some(Received::Bytes)
            }
            Err(NetError::Timeout) => None,
            Err(NetError::Closed | NetError::Io(_) | NetError::Tls) => Some(Received::Broken),
        })
    }
}

enum Received {
    Bytes,
    End,
    Broken,
}

const TICK: Duration = Duration::from_secs(1);

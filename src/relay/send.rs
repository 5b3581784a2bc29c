//! The way to the server: a connection, the head with its credential, the body behind it.

use std::time::Duration;

use zeroize::Zeroizing;

use super::talk::Asked;
use super::{Leg, Oversight, PoolKey, Relay, To, request, response};
use crate::clock::Monotonic;
use crate::http::ResponseHead;
use crate::limits::{COPY_BYTES_MAX, LONG_BUFFER_BYTES};
use crate::listener::Downstream;
use crate::net::dial::dial;
use crate::net::{NetError, Stream};
use crate::reject::Reject;

impl Relay {
    pub(super) async fn connect(
        &self,
        to: &To<'_>,
        pooled: bool,
        until_max: Monotonic,
    ) -> Result<(Stream, bool), Reject> {
        let now = self.timers.now();
        if pooled && let Some(stream) = self.pool.take(&key(to), now) {
            return Ok((stream, true));
        }
        if to.upstream.refused {
            return Err(Reject::UpstreamAddress);
        }
        if to.upstream.addresses.is_empty() {
            return Err(Reject::UpstreamConnect);
        }
        let tls = to.upstream.tls.as_deref().map(|tls| (tls, to.server.url.host.as_str()));
        if to.server.url.tls != tls.is_some() {
            return Err(Reject::UpstreamTls);
        }
        let until = now.after(Duration::from_millis(to.limits.connect_ms_max)).min(until_max);
        let stream = dial(&to.upstream.addresses, tls, &self.timers, until).await?;
        Ok((stream, false))
    }

    /// Writes the request and reads the final response head.
    pub(super) async fn exchange(
        &self,
        stream: &mut Stream,
        leg: &mut Leg<'_>,
        downstream: &mut Downstream,
        oversight: &impl Oversight,
    ) -> Result<response::Answered, NoAnswer> {
        let until = self.timers.now().after(Duration::from_secs(leg.to.server.timeout_seconds));
        let mut head = self.write_head(leg, downstream).map_err(NoAnswer::Refused)?;
        let written = if join(&mut head, leg.body) {
            let (written, returned) = stream.write_all(head, until).await;
            head = returned;
            written
        } else {
            let body = std::mem::take(leg.body);
            let (written, returned, body) = stream.write_both(head, body, 0, until).await;
            (head, *leg.body) = (returned, body);
            written
        };
        self.buffers.give_wiped(head);
        written.map_err(NoAnswer::from_write)?;
        let input = self.buffers.take();
        let head = self.take_head();
        response::read(stream, (head, input), leg, downstream, oversight, &self.timers, until).await
    }

    fn write_head(&self, leg: &Leg<'_>, downstream: &Downstream) -> Result<Vec<u8>, Reject> {
        // The credential is wiped also if this panics; else there is nothing left to wipe in here.
        let mut guarded = Zeroizing::new(self.buffers.take());
        let written = request::write_head(leg, downstream, &mut guarded);
        let head = std::mem::take(&mut *guarded);
        match written {
            Ok(()) => Ok(head),
            Err(reject) => {
                self.buffers.give_wiped(head);
                Err(reject)
            }
        }
    }

    pub(super) fn write_own(&self, asked: &Asked<'_>) -> Result<Vec<u8>, Reject> {
        let mut guarded = Zeroizing::new(self.buffers.take());
        let written = request::write_own(asked, &mut guarded);
        let head = std::mem::take(&mut *guarded);
        match written {
            Ok(()) => Ok(head),
            Err(reject) => {
                self.buffers.give_wiped(head);
                Err(reject)
            }
        }
    }

    /// Takes back a buffer of either kind.
    pub(super) fn give(&self, buffer: Vec<u8>) {
        let long = buffer.capacity() >= LONG_BUFFER_BYTES;
        if long { self.long.give(buffer) } else { self.buffers.give(buffer) }
    }

    pub(super) fn take_head(&self) -> ResponseHead {
        self.heads.with(Vec::pop).unwrap_or_default()
    }

    pub(super) fn release_head(&self, mut head: ResponseHead) {
        head.reset();
        self.heads.with(|heads| {
            if heads.len() < HEADS_KEPT_MAX {
                heads.push(head);
            }
        });
    }
}

/// Why there is no response head.
pub(super) enum NoAnswer {
    /// The connection ended before one byte of an answer.
    Silent,
    /// Anything else.
    Refused(Reject),
}

impl NoAnswer {
    pub(super) const fn from_write(error: NetError) -> Self {
        match error {
            NetError::Timeout => Self::Refused(Reject::UpstreamTimeout),
            NetError::Closed | NetError::Io(_) => Self::Silent,
            NetError::Tls => Self::Refused(Reject::UpstreamTls),
        }
    }

    pub(super) const fn reject(self) -> Reject {
        match self {
            Self::Silent => Reject::UpstreamEof,
            Self::Refused(reject) => reject,
        }
    }
}

/// Copies a short body behind its head, so that both share the event loop's system call with other
/// writes; false when it is long, or the head would have to move: that leaves a copy of the
/// credential behind.
pub(super) fn join(head: &mut Vec<u8>, body: &[u8]) -> bool {
    let fits = body.len() <= COPY_BYTES_MAX.min(head.capacity() - head.len());
    if fits {
        head.extend_from_slice(body);
    }
    fits
}

pub(super) fn key(to: &To<'_>) -> PoolKey {
    PoolKey { server: to.server_index, credential: to.credential_index, generation: to.generation }
}

const HEADS_KEPT_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RELAY_BUFFER_BYTES;
    use crate::net::Buffers;

    #[test]
    fn a_body_that_is_copied_never_moves_its_head() {
        let buffers = Buffers::new(RELAY_BUFFER_BYTES);
        let beside = RELAY_BUFFER_BYTES - COPY_BYTES_MAX;
        for (head_bytes, body_bytes, joined) in [
            (beside, COPY_BYTES_MAX, true),
            (beside + 1, COPY_BYTES_MAX, false),
            (100, COPY_BYTES_MAX + 1, false),
            (RELAY_BUFFER_BYTES, 0, true),
            (RELAY_BUFFER_BYTES, 1, false),
        ] {
            let mut head = buffers.take();
            head.resize(head_bytes, b'h');
            let place = (head.as_ptr(), head.capacity());
            assert_eq!(join(&mut head, &vec![b'b'; body_bytes]), joined);
            assert_eq!((head.as_ptr(), head.capacity()), place);
            assert_eq!(head.len(), head_bytes + if joined { body_bytes } else { 0 });
        }
    }
}

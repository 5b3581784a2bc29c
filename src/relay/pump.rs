//! Waits on the upstream while keeping an eye on the agent and the clock.
//!
//! Most answers arrive at once: for those, one read with a short deadline is all. Only an answer
//! that takes longer is waited for on both sockets, so that the quick case pays for no second
//! operation.

use std::time::Duration;

use crate::clock::Monotonic;
use crate::config::Server;
use crate::limits::{RELAY_BUFFER_BYTES, SSE_KEEPALIVE_SECONDS, WATCH_CLIENT_AFTER_MS, WHEEL_TICK};
use crate::listener::Downstream;
use crate::net::{Either, NetError, Stream, Timers, first};
use crate::relay::Leg;

pub(super) struct Pump<'a> {
    timers: &'a Timers,
    cancel_on_leave: bool,
    /// The answer takes its time: both sockets are watched.
    slow: bool,
    idle: Duration,
    heard_at: Monotonic,
    spoke_at: Monotonic,
    ends_at: Monotonic,
}

/// What [`Pump::hear`] heard.
pub(super) enum Heard {
    /// New bytes in the buffer.
    Bytes,
    /// The upstream closed in an orderly way.
    End,
    /// The upstream's connection broke.
    Broken,
    /// The deadline passed.
    Late,
    /// The agent closed.
    ClientLeft,
    /// About a second without any of these.
    Tick,
}

impl<'a> Pump<'a> {
    pub(super) fn new(timers: &'a Timers, cancel_on_leave: bool) -> Self {
        let now = timers.now();
        Self {
            timers,
            cancel_on_leave,
            slow: false,
            idle: Duration::ZERO,
            heard_at: now,
            spoke_at: now,
            ends_at: now,
        }
    }

    /// From here on the server's limits for an answer count.
    pub(super) fn start_answer(&mut self, server: &Server) {
        let now = self.timers.now();
        self.idle = Duration::from_secs(server.idle_seconds);
        self.ends_at = now.after(Duration::from_secs(server.max_seconds));
        self.heard_at = now;
        self.spoke_at = now;
    }

    pub(super) const fn cancels(&self) -> bool {
        self.cancel_on_leave
    }

    /// The earlier of the pause limit and the limit of the whole answer.
    pub(super) fn answer_until(&self) -> Monotonic {
        self.heard_at.after(self.idle).min(self.ends_at)
    }

    /// An agent that does not take what one write holds, at most 64 KiB, in this time is cut
    /// (case V06).
    pub(super) fn write_until(&mut self, leg: &Leg<'_>) -> Monotonic {
        let now = self.timers.now();
        self.spoke_at = now;
        now.after(Duration::from_millis(leg.to.limits.stall_ms_max))
    }

    pub(super) fn keepalive_due(&self) -> bool {
        let silent = self.timers.now().micros_since(self.spoke_at);
        silent >= SSE_KEEPALIVE_SECONDS * 1_000_000
    }

    /// Waits for the next thing to happen; upstream bytes are appended to `input`.
    pub(super) async fn hear(
        &mut self,
        stream: &mut Stream,
        input: &mut Vec<u8>,
        downstream: &mut Downstream,
        until: Monotonic,
    ) -> Heard {
        let now = self.timers.now();
        if now >= until {
            return Heard::Late;
        }
        if !self.slow {
            let soon = now.after(Duration::from_millis(WATCH_CLIENT_AFTER_MS));
            let heard = self.read(stream, input, soon.min(until)).await;
            self.slow = matches!(heard, Heard::Tick);
            return heard;
        }
        let tick = now.after(TICK).min(until);
        let client_or_tick = first(downstream.stirs(), self.timers.sleep_until(tick));
        match first(stream.readable(), client_or_tick).await {
            Either::Left(()) => {
                let soon = self.timers.now().after(2 * WHEEL_TICK);
                self.read(stream, input, soon).await
            }
            Either::Right(Either::Left(())) => {
                if downstream.take_pending(self.timers).await {
                    Heard::ClientLeft
                } else {
                    Heard::Tick
                }
            }
            Either::Right(Either::Right(())) => Heard::Tick,
        }
    }

    async fn read(&mut self, stream: &mut Stream, input: &mut Vec<u8>, until: Monotonic) -> Heard {
        let mut buffer = std::mem::take(input);
        if buffer.capacity() == buffer.len() {
            buffer.reserve(RELAY_BUFFER_BYTES);
        }
        let (result, buffer) = stream.read(buffer, until).await;
        *input = buffer;
        match result {
            Ok(0) => Heard::End,
            Ok(_) => {
                self.heard_at = self.timers.now();
                Heard::Bytes
            }
            Err(NetError::Timeout) => Heard::Tick,
            Err(NetError::Closed | NetError::Io(_) | NetError::Tls) => Heard::Broken,
        }
    }
}

const TICK: Duration = Duration::from_secs(1);

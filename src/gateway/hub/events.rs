//! An event stream of our own making, framed for the agent (WHATWG HTML §9.2; RFC 9112 §7.1).

use std::mem;
use std::time::Duration;

use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::gateway::route;
use crate::http::write;
use crate::limits::SSE_KEEPALIVE_SECONDS;
use crate::listener::{Downstream, answer};
use crate::relay::Relayed;
use crate::shard::Shard;

/// One stream under way. What is put into it waits in a buffer until [`Events::send`].
pub(super) struct Events {
    out: Vec<u8>,
    /// False for HTTP/1.0, where the stream ends with its connection.
    chunked: bool,
    close: bool,
    bytes_out: u64,
    spoke_at: Monotonic,
    stall: Duration,
    client_left: bool,
}

impl Events {
    /// A stream with its head, nothing of which is sent yet.
    pub(super) fn begin(shard: &Shard, downstream: &Downstream, exchange: &Exchange) -> Self {
        let (head, _) = downstream.head();
        let chunked = !head.is_http_10();
        let close = !head.keep_alive() || !chunked || shard.draining();
        let config = &exchange.world.snapshot.config;
        let mut out = Vec::with_capacity(512);
        write::status_line(200, &mut out);
        out.extend_from_slice(b"content-type: text/event-stream\r\ncache-control: no-store\r\n");
        out.extend_from_slice(b"x-content-type-options: nosniff\r\n");
        answer::cors(route::cors_origin(downstream, config), &mut out);
        if chunked {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        if close {
            out.extend_from_slice(b"connection: close\r\n");
        }
        out.extend_from_slice(write::CRLF);
        Self {
            out,
            chunked,
            close,
            bytes_out: 0,
            spoke_at: shard.timers.now(),
            stall: Duration::from_millis(config.limits.stall_ms_max),
            client_left: false,
        }
    }

    /// Adds whole events or comments.
    pub(super) fn put(&mut self, events: &[u8]) {
        if events.is_empty() {
            return;
        }
        self.bytes_out += events.len() as u64;
        if self.chunked {
            write::chunk_header(events.len(), &mut self.out);
            self.out.extend_from_slice(events);
            self.out.extend_from_slice(write::CRLF);
        } else {
            self.out.extend_from_slice(events);
        }
    }

    /// Adds a comment when the stream was silent for so long that somebody might give it up.
    pub(super) fn keep_alive(&mut self, now: Monotonic) {
        if now.micros_since(self.spoke_at) >= SSE_KEEPALIVE_SECONDS * 1_000_000 {
            self.put(b": keep-alive\n\n");
        }
    }

    /// Adds the end of the body.
    pub(super) fn end(&mut self) {
        if self.chunked {
            self.out.extend_from_slice(write::LAST_CHUNK);
        }
    }

    /// Sends what was put. False when the agent is gone, or does not take it in time (case V06).
    pub(super) async fn send(&mut self, shard: &Shard, downstream: &mut Downstream) -> bool {
        if self.out.is_empty() {
            return !self.client_left;
        }
        self.spoke_at = shard.timers.now();
        let until = self.spoke_at.after(self.stall);
        let (written, mut out) = downstream.write(mem::take(&mut self.out), until).await;
        out.clear();
        // A silent stream holds no buffer.
        self.client_left |= !written;
        written
    }

    /// The agent closed.
    pub(super) const fn left(&mut self) {
        self.client_left = true;
    }

    /// What came of it; `complete` when the end was sent.
    pub(super) fn relayed(&self, downstream: &Downstream, complete: bool) -> Relayed {
        Relayed {
            status: 200,
            bytes_out: self.bytes_out,
            client_left: self.client_left,
            reusable: complete && !self.close && !self.client_left && !downstream.is_gone(),
            ends_by_close: !self.chunked,
            ..Relayed::default()
        }
    }
}

//! One agent's connection: reads heads and bodies within their limits and deadlines.
//!
//! An idle connection holds no buffer; a request's bytes are read once into `input` and stay there
//! until the request is over, so that spans of the head remain valid.

use std::net::IpAddr;
use std::time::Duration;

use super::Inputs;
use crate::clock::Monotonic;
use crate::http::{BodyDecoder, Framing, RequestHead};
use crate::limits::{
    INPUT_BYTES, LEAN_INPUT_BYTES, LONG_BUFFER_BYTES, Limits, PIPELINE_BYTES_MAX, WHEEL_TICK,
    WHEEL_TICK_MS,
};
use crate::net::{Either, NetError, Stream, Timers, Wiped, first};
use crate::reject::Reject;

/// A connection from an agent.
pub struct Downstream {
    stream: Stream,
    /// Bytes read and not yet consumed. INVARIANT: while a request is handled, it starts with the
    /// head. Wiped, because a bearer token is in there.
    input: Wiped,
    head: RequestHead,
    /// Length of the current head; 0 between requests.
    head_bytes: usize,
    /// Bytes of `input` that belong to the current request, its body included as far as read.
    used: usize,
    /// How far the current body was read.
    body: Body,
    /// The peer said that it will send no more; it may still be reading.
    silent: bool,
    /// The stream broke.
    gone: bool,
    /// [`Downstream::waits`] saw that there is something to read.
    woken: bool,
    /// It sent a request before, so another one is near.
    busy: bool,
    /// Since when it waits for its next request.
    idle_since: Monotonic,
}

enum Body {
    /// Nobody asked for it yet.
    Unasked,
    /// Being read.
    Rest(BodyDecoder),
    /// Read to its end, or there is none.
    Done,
}

/// What [`Downstream::wakes`] found.
pub enum Wake {
    /// Something to read a head from.
    Ready,
    /// Nothing yet, and no buffer is held any more.
    Silent,
    /// Closed, or broken.
    Gone,
}

/// What [`Downstream::next_head`] found.
pub enum Next {
    /// A whole head; see [`Downstream::head`].
    Request,
    /// Closed or idle for too long, between requests: nothing to answer.
    Quiet,
}

impl Downstream {
    /// Wraps a connection whose TLS handshake, if any, is done.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self {
            idle_since: stream.timers().now(),
            stream,
            input: Wiped::new(),
            head: RequestHead::new(),
            head_bytes: 0,
            used: 0,
            body: Body::Done,
            silent: false,
            gone: false,
            woken: false,
            busy: false,
        }
    }

    /// The peer's address, IPv4-mapped ones as IPv4.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.stream.peer().ip().to_canonical()
    }

    /// The name that the client asked for in its TLS handshake.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.stream.server_name()
    }

    /// The current head and the bytes that its spans point into.
    #[must_use]
    pub fn head(&self) -> (&RequestHead, &[u8]) {
        (&self.head, self.input.get(..self.head_bytes).unwrap_or_default())
    }

    /// Waits for the first bytes of the next request for as long as the connection is busy: its
    /// next request is near, so it is read straight away, as one operation. One that stays silent,
    /// or finds no place among those that wait like this, gives its memory back; a new one is
    /// silent if it does not speak at once, or few of those a second would keep everybody from a
    /// place.
    pub async fn wakes(&mut self, timers: &Timers, limits: &Limits, inputs: &Inputs) -> Wake {
        self.forget_request();
        self.idle_since = timers.now();
        if !self.input.is_empty() || std::mem::take(&mut self.woken) {
            return Wake::Ready;
        }
        if !timers.leaving() {
            if let Some(_place) = inputs.place() {
                inputs.widen(&mut self.input);
                let patience = if self.busy { BUSY } else { AT_ONCE };
                let idle = Duration::from_millis(limits.idle_ms_max);
                let soon = timers.now().after(patience.min(idle));
                match self.fill(usize::MAX, soon).await {
                    Err(NetError::Timeout) => {}
                    Ok(1..) => return Wake::Ready,
                    Ok(0) | Err(NetError::Closed | NetError::Io(_) | NetError::Tls) => {
                        self.gone = true;
                        return Wake::Gone;
                    }
                }
            }
            if self.stream.holds_bytes() {
                // A request has begun, though all of it that came is a part of a TLS record: from
                // here on it has the time of a head, no longer that of an idle connection.
                return Wake::Ready;
            }
        }
        inputs.release(&mut self.input);
        self.head.release();
        Wake::Silent
    }

    /// Waits without a buffer, after [`Wake::Silent`]. False when nothing came in time.
    pub async fn waits(&mut self, timers: &Timers, idle: Duration) -> bool {
        let until = self.idle_since.after(idle);
        let mut waited = first(self.stream.readable(), timers.idle_until(until)).await;
        if waited == Either::Right(()) && timers.leaving() {
            // What is already on its way is still served; silence is not waited for any longer.
            let last = timers.sleep_until(timers.now().after(LAST_CALL));
            waited = first(self.stream.readable(), last).await;
        }
        self.woken = waited == Either::Left(());
        self.woken
    }

    /// Reads the next head.
    ///
    /// # Errors
    /// The head's fault, `RequestTimeout` or `RequestAborted`; the connection cannot go on after
    /// it.
    pub async fn next_head(
        &mut self,
        timers: &Timers,
        limits: &Limits,
        inputs: &Inputs,
    ) -> Result<Next, Reject> {
        let begun = timers.now();
        let until = begun.after(Duration::from_millis(limits.head_ms_max));
        loop {
            if let Some(length) = self.head.parse(&self.input)? {
                self.head_bytes = length;
                self.used = length;
                self.body = Body::Unasked;
                self.stream.be_lean(false);
                return Ok(Next::Request);
            }
            match self.fill_head(inputs, begun.after(AT_ONCE).min(until), until).await {
                Ok(0) | Err(NetError::Closed | NetError::Io(_) | NetError::Tls) => {
                    self.gone = true;
                    return if self.input.is_empty() {
                        Ok(Next::Quiet)
                    } else {
                        Err(Reject::RequestAborted)
                    };
                }
                Ok(_) => {}
                Err(NetError::Timeout) => return Err(Reject::RequestTimeout),
            }
        }
    }

    /// Prepares reading the current request's body.
    ///
    /// # Errors
    /// `RequestBodyTooLarge` when the declared length alone says so.
    pub fn expect_body(&mut self, bytes_max: usize) -> Result<(), Reject> {
        let decoder = BodyDecoder::new(self.head.framing(), bytes_max as u64)?;
        self.body = if decoder.finished() { Body::Done } else { Body::Rest(decoder) };
        Ok(())
    }

    /// Reads the rest of the body, appending it to `body`.
    ///
    /// # Errors
    /// The framing's fault, `RequestBodyTooLarge`, `RequestTimeout` after a pause of
    /// `stall_ms_max`,
    /// `RequestAborted` when the peer closes in the middle.
    pub async fn read_body(
        &mut self,
        timers: &Timers,
        limits: &Limits,
        body: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let begun = timers.now();
        while let Body::Rest(decoder) = &mut self.body {
            let step = decoder.decode(self.input.get(self.used..).unwrap_or_default())?;
            let pending = self.input.get(self.used..).unwrap_or_default();
            body.extend_from_slice(pending.get(step.data.clone()).unwrap_or_default());
            self.used += step.consumed;
            if step.done {
                self.body = Body::Done;
                break;
            }
            if step.consumed > 0 && self.used < self.input.len() {
                continue;
            }
            // Not only each pause is bounded but the whole: what is judged must not be hours old.
            let stall = Duration::from_millis(limits.stall_ms_max);
            let slowest = Duration::from_secs(body.len() as u64 / BODY_BYTES_PER_SECOND_MIN);
            let until = timers.now().after(stall).min(begun.after(2 * stall + slowest));
            match self.fill_body(body, until).await {
                Ok(0) | Err(NetError::Closed | NetError::Io(_) | NetError::Tls) => {
                    self.gone = true;
                    return Err(Reject::RequestAborted);
                }
                Ok(_) => {}
                Err(NetError::Timeout) => return Err(Reject::RequestTimeout),
            }
        }
        Ok(())
    }

    /// True when what is left of the body is so little that reading it away is worth a connection.
    #[must_use]
    pub fn body_is_short(&self) -> bool {
        let declared = match (&self.body, self.head.framing()) {
            (Body::Done, _) | (_, Framing::None) => 0,
            (_, Framing::Length(length)) => length,
            (_, Framing::Chunked | Framing::UntilClose) => return false,
        };
        // The client that expects a 100 may send the body or not (RFC 9110 §10.1.1): the next bytes
        // are ambiguous.
        declared == 0 || (declared <= DISCARD_BYTES_MAX && !self.head.expects_continue())
    }

    /// Reads away what is left of the body, so that the next request begins where it should. False
    /// when that takes too long or is too much: the connection must be closed.
    pub async fn discard_body(&mut self, timers: &Timers) -> bool {
        if matches!(self.body, Body::Done) {
            return true;
        }
        if !self.body_is_short() {
            return false;
        }
        if matches!(self.body, Body::Unasked)
            && self.expect_body(DISCARD_BYTES_MAX as usize).is_err()
        {
            return false;
        }
        let quick = Limits { stall_ms_max: DISCARD_MS_MAX, ..Limits::default() };
        self.read_body(timers, &quick, &mut Vec::new()).await.is_ok()
    }

    /// Writes `bytes` and gives the buffer back. False when the client is gone.
    pub async fn write(&mut self, bytes: Vec<u8>, until: Monotonic) -> (bool, Vec<u8>) {
        if self.gone {
            return (false, bytes);
        }
        let (result, bytes) = self.stream.write_all(bytes, until).await;
        self.gone |= result.is_err();
        (result.is_ok(), bytes)
    }

    /// Writes `head`, then `body` from `begin` on, as one, and gives both buffers back. False when
    /// the client is gone.
    pub async fn write_both(
        &mut self,
        head: Vec<u8>,
        body: Vec<u8>,
        begin: usize,
        until: Monotonic,
    ) -> (bool, Vec<u8>, Vec<u8>) {
        if self.gone {
            return (false, head, body);
        }
        let (result, head, body) = self.stream.write_both(head, body, begin, until).await;
        self.gone |= result.is_err();
        (result.is_ok(), head, body)
    }

    /// Waits until the client says something or leaves; [`Downstream::take_pending`] then tells
    /// which. Once a full head's worth of pipelined bytes is kept, the client is no longer watched.
    /// May be dropped at any time.
    pub async fn stirs(&self) {
        if self.gone || self.silent || self.pipeline_room() == 0 {
            std::future::pending::<()>().await;
        }
        self.stream.readable().await;
    }

    /// Reads what `stirs` announced and keeps it for the next request. True when the client is
    /// gone.
    pub async fn take_pending(&mut self, timers: &Timers) -> bool {
        // Over TLS, bytes may have arrived that are no plaintext: the short deadline ends that
        // read.
        let until = timers.now().after(WHEEL_TICK);
        match self.fill(self.pipeline_room(), until).await {
            Ok(0) => self.silent = true,
            Err(NetError::Closed | NetError::Io(_) | NetError::Tls) => self.gone = true,
            Ok(_) | Err(NetError::Timeout) => {}
        }
        self.gone || self.silent
    }

    /// True once no further request can come.
    #[must_use]
    pub const fn is_gone(&self) -> bool {
        self.gone || self.silent
    }

    /// Ends the connection so that an answer already written reaches the peer: our side is closed,
    /// then what the peer still sends is read for a moment (a reset would discard the answer, RFC
    /// 9112 §9.6).
    pub async fn close(self, timers: &Timers) {
        drop(self.input);
        if !self.gone {
            self.stream.close(timers.now().after(LINGER)).await;
        }
    }

    /// Ends the connection in the middle of an answer; the peer sees that something is missing.
    pub fn abort(self) {
        self.stream.abort();
    }

    /// Bytes behind the current request that may still be read while it is answered.
    fn pipeline_room(&self) -> usize {
        PIPELINE_BYTES_MAX.saturating_sub(self.input.len() - self.used.min(self.input.len()))
    }

    /// Reads at most `bytes_max` bytes into `input`.
    async fn fill(&mut self, bytes_max: usize, until: Monotonic) -> Result<usize, NetError> {
        self.input.grow(MIN_READ_BYTES);
        let input = self.input.take();
        let (result, input) = self.stream.read_some(input, bytes_max, until).await;
        self.input.put(input);
        result
    }

    /// Reads on within a head. Mostly all of it is there by `soon`, and most of the body with it:
    /// for that there is ample room, and a place. Who finds none, or sends on after that, has as
    /// long as a head may take, and little more memory than what it sent, or thousands of slow ones
    /// would hold a lot.
    async fn fill_head(
        &mut self,
        inputs: &Inputs,
        soon: Monotonic,
        until: Monotonic,
    ) -> Result<usize, NetError> {
        if self.stream.timers().now() < soon
            && let Some(_place) = inputs.place()
        {
            inputs.widen(&mut self.input);
            match self.fill(usize::MAX, soon).await {
                Err(NetError::Timeout) if soon < until => {}
                result => return result,
            }
        }
        inputs.narrow(&mut self.input);
        self.stream.be_lean(true);
        self.fill(usize::MAX, until).await
    }

    /// Reads on. What is left of a body of declared length goes straight into `body`, and nothing
    /// that comes after it; every other framing goes through `input`, to be decoded.
    async fn fill_body(&mut self, body: &mut Vec<u8>, until: Monotonic) -> Result<usize, NetError> {
        let plain = match &mut self.body {
            Body::Rest(decoder) if self.used >= self.input.len() => {
                decoder.bytes_left().map(|left| (decoder, left))
            }
            Body::Unasked | Body::Rest(_) | Body::Done => None,
        };
        let Some((decoder, left)) = plain else {
            self.make_room();
            if self.input.capacity() < INPUT_BYTES {
                self.input.grow(INPUT_BYTES.saturating_sub(self.input.len()));
            }
            return self.fill(usize::MAX, until).await;
        };
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let mut taken = std::mem::take(body);
        let before = taken.len();
        taken.reserve(left.min(LONG_BUFFER_BYTES));
        let (result, taken) = self.stream.read_some(taken, left, until).await;
        *body = taken;
        decoder.decode(body.get(before..).unwrap_or_default()).map_err(|_| NetError::Closed)?;
        result
    }

    /// Body bytes already handed out need not be kept; the head must.
    fn make_room(&mut self) {
        if self.used > self.head_bytes {
            self.input.cut(self.head_bytes..self.used);
            self.used = self.head_bytes;
        }
    }

    fn forget_request(&mut self) {
        self.busy |= self.used > 0;
        self.input.cut(0..self.used);
        self.used = 0;
        self.head_bytes = 0;
        self.body = Body::Done;
        self.head.reset();
    }
}

const MIN_READ_BYTES: usize = 1024;
/// A connection that was silent for this long is idle, and gives its buffer back.
const BUSY: Duration = Duration::from_millis(200);
/// A connection whose head is not whole by then is slow; a new one that has not begun is idle.
const AT_ONCE: Duration = Duration::from_millis(2 * WHEEL_TICK_MS);
/// Slower than this over the whole body is too slow.
const BODY_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
const DISCARD_BYTES_MAX: u64 = 64 * 1024;
const DISCARD_MS_MAX: u64 = 500;
/// An idle connection stays open for this long when the gateway drains.
const LAST_CALL: Duration = Duration::from_millis(200);
const LINGER: Duration = Duration::from_secs(1);

const _: () = assert!(2 * MIN_READ_BYTES <= LEAN_INPUT_BYTES);

#[cfg(test)]
mod tests;

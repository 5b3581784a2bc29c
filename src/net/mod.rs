//! Sockets: the event loop, deadlines, streams, TLS, listening, dialling and idle upstream
//! connections.
//!
//! monoio is used here, in `worker.rs` and in `supervisor/control.rs` only, so that a driver can be
//! replaced; `mapped.rs` names its stream. Three rules hold everywhere in this room, because
//! breaking them loses bytes or descriptors:
//!
//! 1. A read or write in flight is never dropped. A deadline cancels it, and the operation is then
//!    awaited to its end ([`Stream`]). Readiness, connecting and sleeping may be dropped.
//! 2. A stream whose write ended early, or whose operation was dropped all the same, is dead.
//! 3. What the other side can make us hold is bounded, and an idle connection holds no buffer.

pub mod ask;
mod buffers;
pub mod client;
pub mod dial;
pub mod listen;
pub mod pairs;
pub mod pool;
pub mod proxy;
pub mod reply;
pub mod resolve;
pub mod runtime;
#[cfg(feature = "bench-internals")]
mod script;
mod session;
mod socket;
mod stream;
mod timers;
pub mod tls;
pub mod turns;
mod wheel;
mod wiped;
mod wire;

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind as catch};
use std::pin::pin;
use std::task::Poll;

pub use buffers::Buffers;
pub use stream::{Stream, accept_tls};
pub use timers::{Lag, Timers};
pub use wiped::Wiped;

#[cfg(test)]
pub(crate) mod tests;

/// Why a stream did not do what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetError {
    /// The peer is gone without an orderly end, or this side gave the stream up.
    Closed,
    /// What the kernel said.
    Io(std::io::ErrorKind),
    /// The deadline passed. Nothing that had arrived is lost.
    Timeout,
    /// The TLS peer broke the protocol, or proved to be someone else.
    Tls,
}

impl From<std::io::Error> for NetError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}

/// The answer of [`first`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first future ended first, or both were ready.
    Left(A),
    /// The second one did.
    Right(B),
}

/// Awaits whichever ends first and drops the other one. For futures that may be dropped only:
/// readiness, sleeping, local signals. Never for [`Stream::read`] or [`Stream::write_all`].
pub async fn first<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let mut a = pin!(a);
    let mut b = pin!(b);
    poll_fn(|context| {
        if let Poll::Ready(value) = a.as_mut().poll(context) {
            return Poll::Ready(Either::Left(value));
        }
        b.as_mut().poll(context).map(Either::Right)
    })
    .await
}

/// A future panicked; what it held was dropped, its message went to the panic hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

/// Runs `future` and turns a panic into an error, so that one connection ends and not the core.
///
/// # Errors
/// [`Panicked`] when the future panicked.
pub async fn catch_unwind<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| {
        // Asserted: shared state is changed only inside `CoreCell::with`, which ends the process
        // when it is unwound (DESIGN §4, panics); all else belongs to this future and is dropped
        // with it.
        match catch(AssertUnwindSafe(|| future.as_mut().poll(context))) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}

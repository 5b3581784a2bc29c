//! Panics on demand, for tests: a request that carries the header of this file panics at the stage
//! it names; another header moves the monotonic clock. Only with the cargo feature
//! `fault-injection`; without it every function here is empty, and the binary holds no trace of the
//! headers. A build without debug assertions, as what is shipped is, does not take the feature.

#[cfg(all(feature = "fault-injection", not(debug_assertions)))]
compile_error!("fault-injection lets any request panic: it is for tests, never for a release");

/// Where a panic can be asked for; the header's value is the variant in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The head is read.
    Head,
    /// Host, origin and path.
    Route,
    /// The token.
    Identity,
    /// The body, read as a message.
    Envelope,
    /// The decision.
    Policy,
    /// The upstream credential.
    Credential,
    /// The decision is in the audit ring, its outcome is not.
    Audit,
    /// A connection to the upstream is there.
    Relay,
    /// The answer is under way to the agent.
    Response,
    /// A refusal is about to be written.
    Answer,
    /// In the fetch of keys that this request waits for, on the control thread.
    Keys,
    /// In the policy thread, at its next reload: the thread ends.
    Compiler,
    /// In a task that nothing guards: the worker's thread ends.
    Worker,
}

/// Panics when `head`, the bytes of a request head, asks for it at `stage`.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub const fn point(_stage: Stage, _head: &[u8]) {}

/// True when `head` asks for a fault at `stage`.
#[cfg(not(feature = "fault-injection"))]
#[inline]
#[must_use]
pub const fn asked(_stage: Stage, _head: &[u8]) -> bool {
    false
}

/// Remembers that `head` asks for a fault at `stage`, which no request comes to.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub const fn arm(_stage: Stage, _head: &[u8]) {}

/// Panics, once, when a fault at `stage` was asked for.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub const fn strike(_stage: Stage) {}

/// Moves the monotonic clock forward by the seconds that `head` says.
#[cfg(not(feature = "fault-injection"))]
#[inline]
pub const fn move_clock(_head: &[u8]) {}

/// Microseconds by which the monotonic clock was moved.
#[cfg(not(feature = "fault-injection"))]
#[inline]
#[must_use]
pub const fn moved_micros() -> u64 {
    0
}

#[cfg(feature = "fault-injection")]
pub use injected::{arm, asked, move_clock, moved_micros, point, strike};

#[cfg(feature = "fault-injection")]
mod injected {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

    use super::Stage;

    /// Panics when `head`, the bytes of a request head, asks for it at `stage`.
    ///
    /// # Panics
    /// That is what it is for.
    #[expect(clippy::panic, reason = "the fault that a test asked for")]
    pub fn point(stage: Stage, head: &[u8]) {
        if asked(stage, head) {
            panic!("injected fault: {stage:?}");
        }
    }

    /// True when `head` asks for a fault at `stage`.
    #[must_use]
    pub fn asked(stage: Stage, head: &[u8]) -> bool {
        let wanted = NAMES.split(' ').nth(stage as usize).unwrap_or_default().as_bytes();
        head.split(|byte| *byte == b'\n')
            .any(|line| line.strip_prefix(HEADER).is_some_and(|value| value.trim_ascii() == wanted))
    }

    /// Remembers that `head` asks for a fault at `stage`, which no request comes to.
    pub fn arm(stage: Stage, head: &[u8]) {
        if asked(stage, head) {
            ARMED.fetch_or(1 << stage as u32, SeqCst);
        }
    }

    /// Panics, once, when a fault at `stage` was asked for.
    ///
    /// # Panics
    /// That is what it is for.
    #[expect(clippy::panic, reason = "the fault that a test asked for")]
    pub fn strike(stage: Stage) {
        let bit = 1 << stage as u32;
        if ARMED.fetch_and(!bit, SeqCst) & bit != 0 {
            panic!("injected fault: {stage:?}");
        }
    }

    /// Moves the monotonic clock forward by the seconds that `head` says.
    pub fn move_clock(head: &[u8]) {
        let mut lines = head.split(|byte| *byte == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(CLOCK_HEADER));
        let seconds = value.and_then(|value| std::str::from_utf8(value).ok()?.trim().parse().ok());
        if let Some(seconds) = seconds.map(|seconds: u32| u64::from(seconds)) {
            MOVED_MICROS.fetch_add(seconds * 1_000_000, SeqCst);
        }
    }

    /// Microseconds by which the monotonic clock was moved.
    #[must_use]
    pub fn moved_micros() -> u64 {
        MOVED_MICROS.load(SeqCst)
    }

    /// Time is the same on all threads.
    static MOVED_MICROS: AtomicU64 = AtomicU64::new(0);
    const CLOCK_HEADER: &[u8] = b"x-portcullis-fault-clock:";
    /// A bit for each stage: fetches and reloads run on other threads than the request, and they
    /// share nothing with it that could carry the wish.
    static ARMED: AtomicU32 = AtomicU32::new(0);
    const HEADER: &[u8] = b"x-portcullis-fault:";
    /// Of the stages, in their order. Written out: a request without a fault allocates nothing, as
    /// `tests/alloc_way.rs` counts in this build, too.
    const NAMES: &str = "head route identity envelope policy credential audit relay response \
                         answer keys compiler worker";
}

//! Deadlines of one core: the wheel, the task that turns it, and the cached time.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::wheel::{NEVER, Wheel};
use crate::clock::{Clock, Monotonic};
use crate::core_cell::CoreCell;
use crate::limits::{WHEEL_TICK, WHEEL_TICK_MS};

/// The timers of one core; a handle, cheap to clone. [`Timers::run`] must be spawned once, or no
/// deadline ever passes.
#[derive(Clone)]
pub struct Timers {
    core: Rc<Core>,
}

struct Core {
    clock: Clock,
    now: Cell<Monotonic>,
    lag: Cell<Lag>,
    wheel: CoreCell<Wheel>,
    leaving: Cell<bool>,
}

/// How late the event loop turned, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// At the last tick.
    pub last_micros: u64,
    /// The worst since [`Timers::take_lag`] was last called.
    pub max_micros: u64,
}

impl Timers {
    /// Timers that count from `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let core = Core {
            clock,
            now: Cell::new(clock.monotonic()),
            lag: Cell::default(),
            wheel: CoreCell::new(Wheel::new()),
            leaving: Cell::new(false),
        };
        let timers = Self { core: Rc::new(core) };
        timers.advance(&mut Vec::new());
        timers
    }

    /// The ticking task of this core; never ends.
    pub async fn run(self) {
        let mut ringing = Vec::new();
        loop {
            let before = self.core.clock.monotonic();
            monoio::time::sleep(WHEEL_TICK).await;
            let after = self.core.clock.monotonic();
            self.record(after.micros_since(before).saturating_sub(TICK_MICROS));
            self.advance(&mut ringing);
        }
    }

    /// The time at the last tick; no system call.
    #[must_use]
    pub fn now(&self) -> Monotonic {
        self.core.now.get()
    }

    /// The time now, read from the clock.
    #[must_use]
    pub fn exact(&self) -> Monotonic {
        self.core.clock.monotonic()
    }

    /// Ends at the first tick after `until`; may be dropped.
    pub async fn sleep_until(&self, until: Monotonic) {
        let alarm = Alarm::new(self.clone());
        alarm.arm(until);
        poll_fn(|context| alarm.poll(context)).await;
    }

    /// [`Timers::sleep_until`] for who waits for nothing in particular: it also ends when this core
    /// leaves. May be dropped.
    pub async fn idle_until(&self, until: Monotonic) {
        let alarm = Alarm::new(self.clone());
        alarm.arm(until);
        poll_fn(|context| {
            let rang = alarm.poll(context);
            if self.leaving() { Poll::Ready(()) } else { rang }
        })
        .await;
    }

    /// This core leaves: every [`Timers::idle_until`] ends, now and from now on. Costs nothing
    /// before: all sleepers are woken once, and those that wait for something go on sleeping.
    pub fn leave(&self) {
        self.core.leaving.set(true);
        let mut waking = Vec::new();
        self.core.wheel.with(|wheel| wheel.wake_all(&mut waking));
        waking.into_iter().for_each(Waker::wake);
    }

    /// True from [`Timers::leave`] on.
    #[must_use]
    pub fn leaving(&self) -> bool {
        self.core.leaving.get()
    }

    /// The lag of the last tick and the worst one so far.
    #[must_use]
    pub fn lag(&self) -> Lag {
        self.core.lag.get()
    }

    /// The same, and starts a new maximum.
    pub fn take_lag(&self) -> Lag {
        let lag = self.core.lag.get();
        self.core.lag.set(Lag { last_micros: lag.last_micros, max_micros: 0 });
        lag
    }

    fn record(&self, micros: u64) {
        let max = self.core.lag.get().max_micros.max(micros);
        self.core.lag.set(Lag { last_micros: micros, max_micros: max });
    }

    fn advance(&self, ringing: &mut Vec<Waker>) {
        let now = self.core.clock.monotonic();
        self.core.now.set(now);
        self.core.wheel.with(|wheel| wheel.advance(now.0 / TICK_MICROS, ringing));
        ringing.drain(..).for_each(Waker::wake);
    }
}

/// One alarm of the wheel, owned by a stream or a sleeper. At most one task waits on it.
pub(super) struct Alarm {
    timers: Timers,
    index: u32,
}

impl Alarm {
    pub(super) fn new(timers: Timers) -> Self {
        let index = timers.core.wheel.with(Wheel::create);
        Self { timers, index }
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// Rings at the first tick that is not before `until`.
    pub(super) fn arm(&self, until: Monotonic) {
        let due = if until.0 == u64::MAX { NEVER } else { until.0.div_ceil(TICK_MICROS) };
        self.timers.core.wheel.with(|wheel| wheel.arm(self.index, due));
    }

    pub(super) fn disarm(&self) {
        self.timers.core.wheel.with(|wheel| wheel.disarm(self.index));
    }

    pub(super) fn forget_waker(&self) {
        self.timers.core.wheel.with(|wheel| wheel.forget_waker(self.index));
    }

    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        let rang = self.timers.core.wheel.with(|wheel| wheel.rang(self.index, context.waker()));
        if rang { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.timers.core.wheel.with(|wheel| wheel.remove(self.index));
    }
}

/// A tick in the unit of [`Monotonic`].
const TICK_MICROS: u64 = WHEEL_TICK_MS * 1000;

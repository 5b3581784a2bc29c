//! Circuit breakers: an upstream that fails again and again is left alone for a while, so that what
//! it does not answer holds up nobody. Used on `/mcp` only, where others answer in its place.
//!
//! One server is in one of three states. Closed: requests go. Open: none goes until its pause is
//! over. Half open: one goes and tells, the others wait for what it says by being refused.

use std::rc::Rc;
use std::time::Duration;

use crate::clock::Monotonic;
use crate::core_cell::CoreCell;
use crate::limits::{BREAKER_FAILURES, BREAKER_PAUSE_MAX, BREAKER_PAUSE_MIN};
use crate::metrics::BreakerState as State;
use crate::reject::Reject;

/// The breakers of one core, by the server's index in one configuration.
#[derive(Clone, Default)]
pub struct Breakers(Rc<CoreCell<Table>>);

#[derive(Default)]
struct Table {
    /// Whose indices these are: another configuration begins with closed breakers.
    generation: u64,
    /// The latest moment that anybody told, for those who end without telling.
    now: Monotonic,
    servers: Vec<Breaker>,
}

#[derive(Clone, Copy)]
enum Breaker {
    /// After so many failures in a row, and so many answers in a row that were begun and not
    /// brought to an end.
    Closed { failures: u32, broken: u32 },
    /// None goes until then.
    Open { until: Monotonic, pause: Duration },
    /// One is on its way since its pause was over.
    HalfOpen { pause: Duration },
}

/// The server is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspended {
    /// From then on it is tried again; a moment that has passed while the one that tries it is on
    /// its way.
    pub until: Monotonic,
}

/// One request that may go to a server, and says what became of it. One that is dropped without a
/// word counts as a failure: whoever was to tell panicked.
#[must_use]
pub struct Trial {
    breakers: Breakers,
    server: u16,
    generation: u64,
    /// The one that a half-open breaker let through.
    probes: bool,
    told: bool,
}

impl Breakers {
    /// Whether a request may go to `server`, an index into the configuration `generation`.
    ///
    /// # Errors
    /// [`Suspended`] while its breaker is open, or somebody tries it already.
    pub fn enter(&self, server: u16, generation: u64, now: Monotonic) -> Result<Trial, Suspended> {
        let probes = self.0.with(|table| {
            table.renew(generation, now);
            let breaker = table.breaker(server);
            match *breaker {
                Breaker::Closed { .. } => Ok(false),
                Breaker::Open { until, pause } if until <= now => {
                    *breaker = Breaker::HalfOpen { pause };
                    Ok(true)
                }
                Breaker::Open { until, .. } => Err(Suspended { until }),
                Breaker::HalfOpen { .. } => Err(Suspended { until: now }),
            }
        })?;
        Ok(Trial { breakers: self.clone(), server, generation, probes, told: false })
    }

    /// Every server that was tried under the configuration `generation`, and its state.
    pub fn states(&self, generation: u64, mut each: impl FnMut(u16, State)) {
        let states: Vec<State> = self.0.with(|table| {
            if table.generation != generation {
                return Vec::new();
            }
            let state = |breaker: &Breaker| match breaker {
                Breaker::Closed { .. } => State::Closed,
                Breaker::Open { .. } => State::Open,
                Breaker::HalfOpen { .. } => State::HalfOpen,
            };
            table.servers.iter().map(state).collect()
        });
        // Outside the cell: whoever is told may look here again.
        for (server, state) in (0_u16..).zip(states) {
            each(server, state);
        }
    }

    /// What became of an answer after its head, which is all that a [`Trial`] waits for: `None`
    /// when it was whole. A server that begins answers and ends none is not well either.
    pub fn heard(&self, server: u16, generation: u64, why: Option<Reject>, now: Monotonic) {
        self.0.with(|table| {
            if table.generation != generation || why.is_some_and(|why| !is_blamed(why)) {
                return;
            }
            table.now = table.now.max(now);
            let breaker = table.breaker(server);
            if let Breaker::Closed { failures, broken } = *breaker {
                let broken = if why.is_some() { broken + 1 } else { 0 };
                *breaker = if broken >= BREAKER_FAILURES {
                    Breaker::opened(now)
                } else {
                    Breaker::Closed { failures, broken }
                };
            }
        });
    }

    fn tell(&self, trial: &Trial, word: Word, now: Option<Monotonic>) {
        self.0.with(|table| {
            if table.generation != trial.generation {
                return;
            }
            table.now = table.now.max(now.unwrap_or_default());
            let now = table.now;
            let breaker = table.breaker(trial.server);
            *breaker = breaker.after(word, trial.probes, now);
        });
    }
}

impl Table {
    fn renew(&mut self, generation: u64, now: Monotonic) {
        self.now = self.now.max(now);
        if self.generation != generation {
            self.generation = generation;
            self.servers.clear();
        }
    }

    fn breaker(&mut self, server: u16) -> &mut Breaker {
        let at = usize::from(server);
        if self.servers.len() <= at {
            self.servers.resize(at + 1, Breaker::CLOSED);
        }
        #[expect(clippy::indexing_slicing, reason = "resized to hold it a line above")]
        &mut self.servers[at]
    }
}

/// What became of a trial.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Answered,
    Failed,
    /// Nothing that says something of the server.
    Nothing,
}

impl Breaker {
    const CLOSED: Self = Self::Closed { failures: 0, broken: 0 };

    const fn opened(now: Monotonic) -> Self {
        Self::Open { until: now.after(BREAKER_PAUSE_MIN), pause: BREAKER_PAUSE_MIN }
    }

    fn after(self, word: Word, probes: bool, now: Monotonic) -> Self {
        match (self, word) {
            (Self::Closed { broken, .. }, Word::Answered) => Self::Closed { failures: 0, broken },
            (Self::Closed { failures, broken }, Word::Failed) => {
                let failures = failures + 1;
                if failures >= BREAKER_FAILURES {
                    Self::opened(now)
                } else {
                    Self::Closed { failures, broken }
                }
            }
            (Self::HalfOpen { .. }, Word::Answered) if probes => Self::CLOSED,
            (Self::HalfOpen { pause }, Word::Failed) if probes => {
                let pause = (2 * pause).min(BREAKER_PAUSE_MAX);
                Self::Open { until: now.after(pause), pause }
            }
            // The next one tries it.
            (Self::HalfOpen { pause }, Word::Nothing) if probes => Self::Open { until: now, pause },
            // One that left while the breaker was still closed says nothing of now.
            (Self::Closed { .. } | Self::Open { .. } | Self::HalfOpen { .. }, _) => self,
        }
    }
}

impl Trial {
    /// The server answered with this status. A 4xx is an answer: it says who asked wrongly.
    pub fn answered(mut self, status: u16, now: Monotonic) {
        let word = if status >= 500 { Word::Failed } else { Word::Answered };
        self.tell(word, Some(now));
    }

    /// It did not, or not so that we could take it. Only what is the server's fault counts.
    pub fn failed(mut self, why: Reject, now: Monotonic) {
        let word = if is_blamed(why) { Word::Failed } else { Word::Nothing };
        self.tell(word, Some(now));
    }

    fn tell(&mut self, word: Word, now: Option<Monotonic>) {
        if !std::mem::replace(&mut self.told, true) {
            self.breakers.clone().tell(self, word, now);
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.tell(Word::Failed, None);
    }
}

/// Whether this says that the server is not well: it cannot be reached, does not answer in time, or
/// answers with what is no answer.
#[must_use]
pub fn is_blamed(why: Reject) -> bool {
    matches!(
        why,
        Reject::UpstreamConnect
            | Reject::UpstreamTls
            | Reject::UpstreamMalformed
            | Reject::UpstreamEof
            | Reject::UpstreamTimeout
            | Reject::UpstreamContentType
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Monotonic = Monotonic(1_000_000_000);

    fn at(seconds: u64) -> Monotonic {
        START.after(Duration::from_secs(seconds))
    }

    fn fail(breakers: &Breakers, now: Monotonic) {
        let trial = breakers.enter(3, 1, now).expect("it may go");
        trial.failed(Reject::UpstreamTimeout, now);
    }

    fn state(breakers: &Breakers, server: u16) -> Option<State> {
        let mut found = None;
        let generation = breakers.0.with(|table| table.generation);
        breakers.states(generation + 1, |_, _| panic!("of another configuration"));
        breakers.states(generation, |number, state| {
            if number == server {
                found = Some(state);
            }
        });
        found
    }

    fn opened() -> Breakers {
        let breakers = Breakers::default();
        (0..BREAKER_FAILURES).for_each(|_| fail(&breakers, START));
        breakers
    }

    #[test]
    fn failures_in_a_row_open_it_and_no_others() {
        let breakers = Breakers::default();
        for _ in 0..10 {
            (1..BREAKER_FAILURES).for_each(|_| fail(&breakers, START));
            breakers.enter(3, 1, START).unwrap().answered(200, START);
        }
        for _ in 0..10 * BREAKER_FAILURES {
            breakers.enter(3, 1, START).unwrap().answered(404, START);
            breakers.enter(3, 1, START).unwrap().failed(Reject::UpstreamAuth, START);
            breakers.enter(3, 1, START).unwrap().failed(Reject::RequestAborted, START);
        }
        assert_eq!(state(&breakers, 3), Some(State::Closed));
        for left in (0..BREAKER_FAILURES).rev() {
            breakers.enter(3, 1, START).unwrap().answered(503, START);
            let closed =
                breakers.enter(3, 1, START).map(|trial| trial.failed(Reject::QuotaExceeded, START));
            assert_eq!(closed.is_ok(), left > 0, "{left} left");
        }
        assert_eq!(breakers.enter(3, 1, START).err(), Some(Suspended { until: at(1) }));
        assert_eq!(state(&breakers, 3), Some(State::Open));
        assert!(breakers.enter(2, 1, START).is_ok(), "another server is another matter");
    }

    #[test]
    fn one_at_a_time_tries_it_again_and_pauses_double_up_to_a_bound() {
        let breakers = opened();
        let mut now = at(0);
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            let until = now.after(Duration::from_secs(pause));
            assert_eq!(breakers.enter(3, 1, now).err(), Some(Suspended { until }));
            let just_before = Monotonic(until.0 - 1);
            assert!(breakers.enter(3, 1, just_before).is_err());
            now = until;
            let probe = breakers.enter(3, 1, now).expect("the pause is over");
            assert_eq!(state(&breakers, 3), Some(State::HalfOpen));
            assert_eq!(breakers.enter(3, 1, now).err(), Some(Suspended { until: now }));
            probe.failed(Reject::UpstreamConnect, now);
        }
        now = now.after(BREAKER_PAUSE_MAX);
        breakers.enter(3, 1, now).unwrap().answered(200, now);
        assert_eq!(state(&breakers, 3), Some(State::Closed));
        // It begins with the shortest pause again.
        (0..BREAKER_FAILURES).for_each(|_| fail(&breakers, now));
        let until = now.after(BREAKER_PAUSE_MIN);
        assert_eq!(breakers.enter(3, 1, now).err(), Some(Suspended { until }));
    }

    #[test]
    fn a_try_that_says_nothing_leaves_it_to_the_next_one() {
        let breakers = opened();
        let probe = breakers.enter(3, 1, at(1)).unwrap();
        probe.failed(Reject::RequestAborted, at(2));
        assert_eq!(state(&breakers, 3), Some(State::Open));
        let next = breakers.enter(3, 1, at(2)).expect("at once");
        next.answered(401, at(2));
        assert_eq!(state(&breakers, 3), Some(State::Closed));
    }

    #[test]
    fn whoever_is_dropped_has_failed() {
        let breakers = Breakers::default();
        for _ in 0..BREAKER_FAILURES {
            drop(breakers.enter(3, 1, START));
        }
        assert_eq!(state(&breakers, 3), Some(State::Open));
        drop(breakers.enter(3, 1, at(1)).unwrap());
        assert_eq!(breakers.enter(3, 1, at(1)).err(), Some(Suspended { until: at(3) }));
    }

    #[test]
    fn late_words_of_before_change_nothing() {
        let breakers = Breakers::default();
        let early: Vec<_> = (0..3).map(|_| breakers.enter(3, 1, START).unwrap()).collect();
        (0..BREAKER_FAILURES).for_each(|_| fail(&breakers, START));
        let mut early = early.into_iter();
        early.next().unwrap().answered(200, at(0));
        assert_eq!(state(&breakers, 3), Some(State::Open));
        let probe = breakers.enter(3, 1, at(1)).unwrap();
        early.next().unwrap().answered(200, at(1));
        early.next().unwrap().failed(Reject::UpstreamEof, at(1));
        assert_eq!(state(&breakers, 3), Some(State::HalfOpen));
        // Another configuration: another server may stand at this index.
        assert!(breakers.enter(3, 2, at(1)).is_ok());
        probe.failed(Reject::UpstreamEof, at(1));
        assert!(breakers.enter(3, 2, at(1)).is_ok());
        assert_eq!(state(&breakers, 3), Some(State::Closed));
    }

    #[test]
    fn answers_that_begin_and_do_not_end_open_it_too() {
        let breakers = Breakers::default();
        let broken = |why: Option<Reject>| {
            breakers.enter(3, 1, START).unwrap().answered(200, START);
            breakers.heard(3, 1, why, START);
        };
        for _ in 0..10 {
            (1..BREAKER_FAILURES).for_each(|_| broken(Some(Reject::UpstreamMalformed)));
            broken(None);
        }
        // Not the server's fault, or of another configuration.
        for _ in 0..BREAKER_FAILURES {
            broken(Some(Reject::RequestAborted));
            breakers.heard(3, 2, Some(Reject::UpstreamEof), START);
        }
        assert_eq!(state(&breakers, 3), Some(State::Closed));
        (0..BREAKER_FAILURES).for_each(|_| broken(Some(Reject::UpstreamEof)));
        assert_eq!(breakers.enter(3, 1, START).err(), Some(Suspended { until: at(1) }));
        // What was under way when it opened changes nothing.
        breakers.heard(3, 1, None, START);
        breakers.heard(3, 1, Some(Reject::UpstreamEof), START);
        assert_eq!(breakers.enter(3, 1, START).err(), Some(Suspended { until: at(1) }));
        breakers.enter(3, 1, at(1)).unwrap().answered(200, at(1));
        assert_eq!(state(&breakers, 3), Some(State::Closed));
    }
}

//! A reload: the new configuration or the new policies whole, or the old ones as they were.

use std::cell::{Cell, OnceCell, RefCell};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use monoio::io::AsyncReadRent;

use super::assemble::Assembly;
use super::compile::{Compiler, InForce, Made, Order, Product, What};
use super::control::{Control, adopt};
use super::watch::Seen;
use super::{notify, refresh};
use crate::config::Config;
use crate::event::Event;
use crate::judge::policy::PolicySet;
use crate::metrics::ReloadTrigger;
use crate::net::{Either, first};
use crate::worker::Report;

/// Reloads under way.
pub(super) struct Reloads {
    compiler: Compiler,
    orders: RefCell<Orders>,
    /// The last reload of everything was refused. New policies alone do not mend that: what else
    /// was to be read with it, certificates say, is not in force.
    whole_refused: Cell<bool>,
    /// Rung with every answer.
    told: Event,
}

/// What came of a reload; the faults when it is refused.
type Outcome = Result<Reloaded, Vec<String>>;

/// Who ordered what, and who waits for it.
#[derive(Default)]
struct Orders {
    /// Number of the last order.
    last: u64,
    /// Number of the last order of everything.
    last_whole: u64,
    /// Each order that somebody waits for. It is answered, so that nothing stays here.
    waiting: Vec<(u64, Rc<OnceCell<Outcome>>)>,
}

impl Orders {
    /// The number of a new order.
    const fn next(&mut self, what: What) -> u64 {
        self.last += 1;
        if matches!(what, What::Everything) {
            self.last_whole = self.last;
        }
        self.last
    }

    /// Where the outcome of the next order will be.
    fn outcome_of_next(&mut self) -> Rc<OnceCell<Outcome>> {
        let outcome = Rc::default();
        self.waiting.push((self.last + 1, Rc::clone(&outcome)));
        outcome
    }

    /// Answers the orders up to `number` that had no answer before. True when no order of
    /// everything is left, and this was the last.
    fn answer(&mut self, what: What, number: u64, outcome: &Outcome) -> bool {
        for (_, waits) in self.waiting.extract_if(.., |(waited, _)| *waited <= number) {
            let _ = waits.set(outcome.clone());
        }
        what == What::Everything && self.last_whole <= number
    }
}

/// What is in force after a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reloaded {
    pub(super) epoch: u64,
    /// Policies that decide.
    pub(super) policies: usize,
    /// Policies that are only recorded.
    pub(super) shadows: usize,
}

impl Reloaded {
    fn of(set: &PolicySet) -> Self {
        Self { epoch: set.epoch(), policies: set.len(), shadows: set.shadow_len() }
    }
}

impl Reloads {
    pub(super) fn new(compiler: Compiler) -> Self {
        Self {
            compiler,
            orders: RefCell::default(),
            whole_refused: Cell::new(false),
            told: Event::default(),
        }
    }

    /// The thread that frees what nobody has any more.
    pub(super) fn compiler(&self) -> &Compiler {
        &self.compiler
    }
}

impl Control {
    /// Orders a reload of everything.
    pub(super) fn order_reload(&self, trigger: ReloadTrigger) {
        if let Some(writer) = self.writer.borrow().as_ref() {
            writer.reopen();
        }
        notify::say("RELOADING=1");
        self.order(What::Everything, trigger);
    }

    fn order(&self, what: What, trigger: ReloadTrigger) {
        let number = self.reloads.orders.borrow_mut().next(what);
        if !self.reloads.compiler.make(Order { what, trigger, number }) {
            let faults = vec!["the policy thread is gone".to_owned()];
            self.refused(&faults);
            self.answered(what, number, &Err(faults));
        }
    }

    /// Reloads everything, and waits for what comes of it. `None` when it takes too long; it goes
    /// on all the same.
    pub(super) async fn reload_and_wait(&self) -> Option<Outcome> {
        let outcome = self.reloads.orders.borrow_mut().outcome_of_next();
        self.order_reload(ReloadTrigger::Request);
        let until = self.timers.now().after(RELOAD_WITHIN);
        loop {
            let seen = self.reloads.told.version();
            if let Some(outcome) = outcome.get() {
                return Some(outcome.clone());
            }
            match first(self.reloads.told.changed(seen), self.timers.sleep_until(until)).await {
                Either::Left(()) => {}
                Either::Right(()) => return None,
            }
        }
    }

    fn made(self: &Rc<Self>, made: Made) {
        let Made { order, generation, compiled_micros, result } = made;
        let Order { what, trigger, number } = order;
        if let Some(micros) = compiled_micros {
            self.process.policy_compile.record(micros);
        }
        let current = self.state.borrow().config_generation;
        // Indexes of servers and credentials are those of a configuration that is gone, and so may
        // be the faults.
        if what == What::Policies && generation != current {
            self.order(What::Policies, trigger);
            return;
        }
        let outcome = match result {
            Ok(Product::Everything(whole)) => {
                let (config, assembly, seen) = *whole;
                Ok(self.take(config, assembly, seen))
            }
            Ok(Product::Policies(set)) => Ok(self.take_policies(set)),
            Err(faults) => {
                if what == What::Everything {
                    self.reloads.whole_refused.set(true);
                }
                self.refused(&faults);
                Err(faults)
            }
        };
        self.process.count_reload(trigger, outcome.is_ok());
        self.answered(what, number, &outcome);
    }

    fn answered(&self, what: What, number: u64, outcome: &Outcome) {
        if self.reloads.orders.borrow_mut().answer(what, number, outcome) {
            notify::say("READY=1");
        }
        self.reloads.told.ring();
    }

    fn refused(&self, faults: &[String]) {
        for fault in faults {
            tracing::error!("{fault}");
        }
        self.process.set_reload(false);
        tracing::error!(faults = faults.len(), "reload refused; the old configuration stays");
    }

    fn take(self: &Rc<Self>, config: Config, assembly: Assembly, seen: Seen) -> Reloaded {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        for warning in assembly.warnings(&config) {
            tracing::warn!("{warning}");
        }
        let now = Reloaded::of(&assembly.policy);
        self.exact.prepare(&config.rate_limits);
        let (config, generation) = {
            let mut state = self.state.borrow_mut();
            state.adopt(config, assembly);
            (Arc::clone(&state.config), state.config_generation)
        };
        self.reloads.compiler.in_force(InForce { config, generation, seen });
        // The tasks of the old configuration look at once, and end.
        self.asked.ring();
        self.reloads.whole_refused.set(false);
        refresh::start(self, None);
        self.in_force(now);
        tracing::info!(epoch = now.epoch, "configuration reloaded");
        now
    }

    /// Keys, tokens, connections and credentials stay: they are of the configuration.
    fn take_policies(&self, set: Arc<PolicySet>) -> Reloaded {
        for warning in set.warnings() {
            tracing::warn!("{warning}");
        }
        let now = Reloaded::of(&set);
        self.state.borrow_mut().assembly.policy = set;
        self.in_force(now);
        tracing::info!(epoch = now.epoch, policies = now.policies, "policies reloaded");
        now
    }

    fn in_force(&self, now: Reloaded) {
        self.process.set_reload(!self.reloads.whole_refused.get());
        self.process.set_policy_epoch(now.epoch);
        self.publish();
    }
}

/// Takes what the policy thread makes. Without that thread nothing could be revoked any more, so
/// its end is the end of the process, as that of any other.
pub(super) async fn listen_to_compiler(
    control: Rc<Control>,
    made: Receiver<Made>,
    bell: UnixStream,
    reports: Sender<Report>,
) {
    if let Ok(mut bell) = adopt(bell) {
        let mut buffer = vec![0; 16];
        loop {
            let (result, returned) = bell.read(buffer).await;
            buffer = returned;
            if !matches!(result, Ok(count) if count > 0) {
                break;
            }
            while let Ok(made) = made.try_recv() {
                control.made(made);
            }
        }
    }
    let _ = reports.send(Report::Failed("the policy thread is gone".to_owned()));
}

/// How long a request for a reload waits for its answer.
const RELOAD_WITHIN: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(epoch: u64) -> Outcome {
        Ok(Reloaded { epoch, policies: 1, shadows: 0 })
    }

    /// Both results are handled before whoever waits runs.
    #[test]
    fn who_waits_gets_what_came_of_his_order_not_of_a_later_one() {
        let mut orders = Orders::default();
        let first = orders.outcome_of_next();
        assert_eq!(orders.next(What::Everything), 1);
        let second = orders.outcome_of_next();
        assert_eq!(orders.next(What::Everything), 2);
        // Seen by a look, ordered by nobody.
        orders.answer(What::Policies, 0, &taken(7));
        assert!(first.get().is_none());
        let refused: Outcome = Err(vec!["a fault".to_owned()]);
        assert!(!orders.answer(What::Everything, 1, &refused), "another one is under way");
        assert!(orders.answer(What::Everything, 2, &taken(9)));
        assert_eq!((first.get(), second.get()), (Some(&refused), Some(&taken(9))));
        assert!(orders.waiting.is_empty());
    }

    #[test]
    fn one_result_answers_all_that_it_was_made_for() {
        let mut orders = Orders::default();
        let waiting = [(); 3].map(|()| {
            let outcome = orders.outcome_of_next();
            orders.next(What::Everything);
            outcome
        });
        assert!(orders.answer(What::Everything, 3, &taken(2)));
        assert!(waiting.iter().all(|outcome| outcome.get() == Some(&taken(2))));
    }

    /// The end of the last reload of everything is told, although policies are made anew after it.
    #[test]
    fn policies_ordered_after_everything_do_not_keep_its_end_from_being_told() {
        let mut orders = Orders::default();
        let [first, second] = [(); 2].map(|()| orders.next(What::Everything));
        assert!(!orders.answer(What::Everything, first, &taken(2)));
        let anew = orders.next(What::Policies);
        assert!(orders.answer(What::Everything, second, &taken(4)));
        assert!(!orders.answer(What::Policies, anew, &taken(5)), "told once");
    }
}

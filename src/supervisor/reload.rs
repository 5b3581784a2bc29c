//! A reload: the new configuration or the new policies whole, or the old ones as they were.

use std::cell::{Cell, RefCell};
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

/// Reloads under way, and what came of the last one.
pub(super) struct Reloads {
    compiler: Compiler,
    /// Number of the last order.
    ordered: Cell<u64>,
    /// Orders up to this one are answered.
    answered: Cell<u64>,
    last: RefCell<Result<Reloaded, Vec<String>>>,
    /// The last reload of everything was refused. New policies alone do not mend that: what else
    /// was to be read with it, certificates say, is not in force.
    whole_refused: Cell<bool>,
    /// Rung with every answer.
    told: Event,
}

/// What is in force after a reload.
#[derive(Clone, Copy)]
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
    pub(super) fn new(compiler: Compiler, first: &PolicySet) -> Self {
        Self {
            compiler,
            ordered: Cell::new(0),
            answered: Cell::new(0),
            whole_refused: Cell::new(false),
            last: RefCell::new(Ok(Reloaded::of(first))),
            told: Event::default(),
        }
    }

    /// The thread that frees what nobody has any more.
    pub(super) fn compiler(&self) -> &Compiler {
        &self.compiler
    }
}

impl Control {
    /// Orders a reload of everything; its number.
    pub(super) fn order_reload(&self, trigger: ReloadTrigger) -> u64 {
        if let Some(writer) = self.writer.borrow().as_ref() {
            writer.reopen();
        }
        notify::say("RELOADING=1");
        self.order(What::Everything, trigger)
    }

    fn order(&self, what: What, trigger: ReloadTrigger) -> u64 {
        let number = self.reloads.ordered.get() + 1;
        self.reloads.ordered.set(number);
        if !self.reloads.compiler.make(Order { what, trigger, number }) {
            self.refused(&["the policy thread is gone".to_owned()]);
            self.answered(number, Err(vec!["the policy thread is gone".to_owned()]));
        }
        number
    }

    /// Reloads everything, and waits for what comes of it. `None` when it takes too long; it goes
    /// on all the same.
    pub(super) async fn reload_and_wait(&self) -> Option<Result<Reloaded, Vec<String>>> {
        let number = self.order_reload(ReloadTrigger::Request);
        let until = self.timers.now().after(RELOAD_WITHIN);
        loop {
            let seen = self.reloads.told.version();
            if self.reloads.answered.get() >= number {
                return Some(self.reloads.last.borrow().clone());
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
        let outcome = match result {
            // Indexes of servers and credentials are those of a configuration that is gone.
            Ok(Product::Policies(_)) if generation != current => {
                self.order(What::Policies, trigger);
                return;
            }
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
        self.answered(number, outcome);
        if what == What::Everything && self.reloads.ordered.get() <= number {
            notify::say("READY=1");
        }
    }

    fn answered(&self, number: u64, outcome: Result<Reloaded, Vec<String>>) {
        let before = self.reloads.answered.get();
        self.reloads.answered.set(before.max(number));
        *self.reloads.last.borrow_mut() = outcome;
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

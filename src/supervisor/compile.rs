//! The thread that reads and compiles what a reload asks for. It has the lowest priority there is:
//! a large policy set takes seconds, and neither requests nor keys wait for it.
//!
//! What it made is not in force yet: the control thread takes it, or throws it away when another
//! configuration came in between.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};

use super::assemble::{self, Assembly, Making};
use super::watch::{Seen, Watch};
use crate::clock::Clock;
use crate::config::{Config, Credential};
use crate::control::Snapshot;
use crate::fault::{self, Stage};
use crate::judge::policy::PolicySet;
use crate::limits::{POLICY_WATCH_EVERY, POLICY_YIELD_US};
use crate::metrics::ReloadTrigger;
use crate::net::tls::Ticketer;

/// How much is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The configuration with everything that it names.
    Everything,
    /// Its policies alone: tokens, connections and credentials stay.
    Policies,
}

/// Something to be made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) what: What,
    /// Who wants it.
    pub(super) trigger: ReloadTrigger,
    /// Answers carry it; 0 for what nobody ordered.
    pub(super) number: u64,
}

impl Order {
    /// One order for both: what is more, with who wants that, and the number of the newest.
    const fn and(self, newest: Self) -> Self {
        match (self.what, newest.what) {
            (What::Everything, What::Policies) => Self { number: newest.number, ..self },
            (What::Everything | What::Policies, What::Everything)
            | (What::Policies, What::Policies) => newest,
        }
    }
}

/// What the thread is told.
enum Word {
    /// Make this.
    Make(Order),
    /// This is in force now.
    InForce(InForce),
    /// Nobody else has it any more.
    Free(Arc<Snapshot>),
}

/// The configuration in force, as far as this thread has to know it.
pub(super) struct InForce {
    pub(super) config: Arc<Config>,
    /// Its number.
    pub(super) generation: u64,
    /// Its policy files as they were before they were read.
    pub(super) seen: Seen,
}

/// What came of an order.
pub(super) struct Made {
    /// The newest of the orders that it answers.
    pub(super) order: Order,
    /// The configuration that was in force when it was begun.
    pub(super) generation: u64,
    /// How long policies were read and compiled, whatever came of it; `None` when it did not come
    /// to that.
    pub(super) compiled_micros: Option<u64>,
    /// The policies, or every fault, each with its file and place.
    pub(super) result: Result<Product, Vec<String>>,
}

/// What can be taken.
pub(super) enum Product {
    Everything(Box<(Config, Assembly, Seen)>),
    Policies(Arc<PolicySet>),
}

/// The control thread's hold on it.
pub(super) struct Compiler {
    words: Sender<Word>,
}

/// What the thread is started with.
pub(super) struct Setup {
    pub(super) in_force: InForce,
    /// The policy set in force.
    pub(super) first: Arc<PolicySet>,
    pub(super) clock: Clock,
    pub(super) ticketer: Ticketer,
    pub(super) address: SocketAddr,
    pub(super) made: Sender<Made>,
    /// Rung for everything that was made; never blocks.
    pub(super) bell: UnixStream,
}

impl Compiler {
    /// Starts the thread; it ends when this is dropped.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(super) fn start(setup: Setup) -> Result<Self, String> {
        let (words, heard) = mpsc::channel();
        std::thread::Builder::new()
            .name("policy".to_owned())
            .spawn(move || Thread::new(setup).run(&heard))
            .map_err(|error| format!("the policy thread cannot be started: {error}"))?;
        Ok(Self { words })
    }

    /// Orders it. False when the thread is gone.
    pub(super) fn make(&self, order: Order) -> bool {
        self.words.send(Word::Make(order)).is_ok()
    }

    /// Tells what is in force from now on.
    pub(super) fn in_force(&self, now: InForce) {
        let _ = self.words.send(Word::InForce(now));
    }

    /// Has it freed: a set of 10,000 policies takes 61 ms.
    pub(super) fn free(&self, last: Arc<Snapshot>) {
        let _ = self.words.send(Word::Free(last));
    }
}

/// The thread's own.
struct Thread {
    config: Arc<Config>,
    generation: u64,
    watch: Watch,
    epoch: u64,
    /// See [`Made`].
    compiled_micros: Option<u64>,
    /// The newest set that was made: the next one takes over what did not change.
    newest: Arc<PolicySet>,
    clock: Clock,
    ticketer: Ticketer,
    address: SocketAddr,
    made: Sender<Made>,
    bell: UnixStream,
}

impl Thread {
    fn new(setup: Setup) -> Self {
        let Setup { in_force, first, ticketer, address, made, bell, clock } = setup;
        let (epoch, newest) = (first.epoch(), first);
        let InForce { config, generation, seen } = in_force;
        let watch = Watch::new(seen);
        let compiled_micros = None;
        Self {
            config,
            generation,
            watch,
            epoch,
            compiled_micros,
            newest,
            clock,
            ticketer,
            address,
            made,
            bell,
        }
    }

    fn run(mut self, heard: &Receiver<Word>) {
        // Of the thread alone: Linux keeps a priority for each (setpriority(2), NOTES).
        if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
            tracing::warn!("policies are compiled at the priority of requests: {error}");
        }
        loop {
            let word = if self.config.policy.watch {
                heard.recv_timeout(POLICY_WATCH_EVERY)
            } else {
                heard.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let mut order = None;
            match word {
                Ok(word) => self.hear(word, &mut order),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if self.watch.changed(&self.config.policy.directory) {
                        let trigger = ReloadTrigger::Watch;
                        order = Some(Order { what: What::Policies, trigger, number: 0 });
                    }
                }
            }
            // Orders that came meanwhile are one: the newest files answer all of them.
            while let Ok(word) = heard.try_recv() {
                self.hear(word, &mut order);
            }
            if let Some(order) = order
                && !self.answer(order)
            {
                return;
            }
        }
    }

    fn hear(&mut self, word: Word, order: &mut Option<Order>) {
        match word {
            Word::Make(newest) => {
                *order = Some(order.map_or(newest, |before| before.and(newest)));
            }
            Word::InForce(InForce { config, generation, seen }) => {
                self.config = config;
                self.generation = generation;
                self.watch = Watch::new(seen);
            }
            Word::Free(snapshot) => drop(snapshot),
        }
    }

    /// False when nobody takes it any more.
    fn answer(&mut self, order: Order) -> bool {
        fault::strike(Stage::Compiler);
        // Never used twice, also by what is thrown away.
        self.epoch += 1;
        self.compiled_micros = None;
        let make = std::panic::AssertUnwindSafe(|| match order.what {
            What::Everything => self.everything(),
            What::Policies => self.policies(),
        });
        let result = std::panic::catch_unwind(make)
            .unwrap_or_else(|_| Err(vec!["the policy thread panicked over it".to_owned()]));
        let (generation, compiled_micros) = (self.generation, self.compiled_micros);
        let made = Made { order, generation, compiled_micros, result };
        let taken = self.made.send(made).is_ok();
        // A full pipe has been rung already.
        let _ = self.bell.write(&[1]);
        taken
    }

    fn everything(&mut self) -> Result<Product, Vec<String>> {
        let path: PathBuf = self.config.path.clone();
        let mut config = Config::load(&path).map_err(|faults| super::lines(&faults))?;
        super::state::same_sockets(&self.config, &config)?;
        config.bound(self.address);
        // Before the files are read: what changes from here on is seen as a change.
        let seen = Seen::of(&config.policy.directory);
        let policies = self.compile(&config);
        let told = policies.is_err() && same_terms(&self.config, &config);
        let assembly = match Assembly::make(&config, policies, &self.ticketer) {
            Ok(assembly) => assembly,
            Err(faults) => {
                if told {
                    // Of the policies, too: the next look would tell them again.
                    self.watch = Watch::new(seen);
                }
                return Err(faults);
            }
        };
        self.newest = Arc::clone(&assembly.policy);
        Ok(Product::Everything(Box::new((config, assembly, seen))))
    }

    fn policies(&mut self) -> Result<Product, Vec<String>> {
        self.watch.loaded(&self.config.policy.directory);
        let set = self.compile(&Arc::clone(&self.config))?;
        self.newest = Arc::clone(&set);
        Ok(Product::Policies(set))
    }

    fn compile(&mut self, config: &Config) -> Result<Arc<PolicySet>, Vec<String>> {
        let began = self.clock.monotonic();
        let (epoch, before) = (self.epoch, Some(&*self.newest));
        let mut pause = pauses(self.clock);
        let made = assemble::policies(config, Making { epoch, before, pause: &mut pause });
        self.compiled_micros = Some(self.clock.monotonic().micros_since(began));
        made
    }
}

/// True when policies that are at fault under one are so under the other: the same files, and all
/// that they may name is there alike.
fn same_terms(one: &Config, other: &Config) -> bool {
    let servers = |config: &Config| -> Vec<String> {
        config.servers.iter().map(|server| server.name.clone()).collect()
    };
    let methods = |config: &Config| -> Vec<String> {
        config.methods.iter().map(|method| method.name.clone()).collect()
    };
    let credentials = |config: &Config| -> Vec<(String, Vec<usize>)> {
        let named = |known: &Credential| (known.name.clone(), known.servers.clone());
        config.credentials.iter().map(named).collect()
    };
    let rest = |config: &Config| {
        let policy = &config.policy;
        let (geoip, authzen) = (policy.geoip.is_some(), policy.authzen.is_some());
        (policy.directory.clone(), policy.timezone.clone(), geoip, authzen)
    };
    rest(one) == rest(other)
        && servers(one) == servers(other)
        && methods(one) == methods(other)
        && credentials(one) == credentials(other)
}

/// Yields, at most once per millisecond: whoever waits for this CPU has it then, although this
/// thread still has of its share.
fn pauses(clock: Clock) -> impl FnMut() {
    let mut last = clock.monotonic();
    move || {
        let now = clock.monotonic();
        if now.micros_since(last) >= POLICY_YIELD_US {
            std::thread::yield_now();
            last = clock.monotonic();
        }
    }
}

/// Nice values go from -20 to 19 (setpriority(2)).
const LOWEST_PRIORITY: i32 = 19;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_that_are_one_count_for_who_wanted_the_most() {
        let order = |what, trigger, number| Order { what, trigger, number };
        let parts = |order: Order| (order.what, order.trigger, order.number);
        let seen = order(What::Policies, ReloadTrigger::Watch, 0);
        let anew = order(What::Policies, ReloadTrigger::Watch, 3);
        let asked = order(What::Everything, ReloadTrigger::Signal, 2);
        let both = parts(seen.and(asked).and(anew));
        assert_eq!(both, (What::Everything, ReloadTrigger::Signal, 3));
        assert_eq!(parts(seen.and(anew)), parts(anew));
        let later = order(What::Everything, ReloadTrigger::Request, 4);
        assert_eq!(parts(asked.and(later)), parts(later));
    }
}

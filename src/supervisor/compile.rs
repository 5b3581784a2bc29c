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
use crate::config::Config;
use crate::control::Snapshot;
use crate::fault::{self, Stage};
use crate::judge::policy::PolicySet;
use crate::limits::{POLICY_WATCH_EVERY, POLICY_YIELD_US};
use crate::net::tls::Ticketer;

/// How much is made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The configuration with everything that it names.
    Everything,
    /// Its policies alone: tokens, connections and credentials stay.
    Policies,
}

/// What the thread is told.
enum Word {
    /// Make this; answers carry the number.
    Make { what: What, number: u64 },
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
    /// The newest order that it answers; 0 for what nobody ordered.
    pub(super) number: u64,
    pub(super) what: What,
    /// The configuration that was in force when it was begun.
    pub(super) generation: u64,
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
    pub(super) fn make(&self, what: What, number: u64) -> bool {
        self.words.send(Word::Make { what, number }).is_ok()
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
        Self { config, generation, watch, epoch, newest, clock, ticketer, address, made, bell }
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
                        order = Some((What::Policies, 0));
                    }
                }
            }
            // Orders that came meanwhile are one: the newest files answer all of them.
            while let Ok(word) = heard.try_recv() {
                self.hear(word, &mut order);
            }
            if let Some((what, number)) = order
                && !self.answer(what, number)
            {
                return;
            }
        }
    }

    fn hear(&mut self, word: Word, order: &mut Option<(What, u64)>) {
        match word {
            Word::Make { what, number } => {
                let everything = what == What::Everything
                    || order.is_some_and(|(before, _)| before == What::Everything);
                let what = if everything { What::Everything } else { What::Policies };
                *order = Some((what, number));
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
    fn answer(&mut self, what: What, number: u64) -> bool {
        fault::strike(Stage::Compiler);
        // Never used twice, also by what is thrown away.
        self.epoch += 1;
        let make = std::panic::AssertUnwindSafe(|| match what {
            What::Everything => self.everything(),
            What::Policies => self.policies(),
        });
        let result = std::panic::catch_unwind(make)
            .unwrap_or_else(|_| Err(vec!["the policy thread panicked over it".to_owned()]));
        let made = Made { number, what, generation: self.generation, result };
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
        let (epoch, before) = (self.epoch, Some(&*self.newest));
        let mut pause = pauses(self.clock);
        let making = Making { epoch, before, pause: &mut pause };
        let assembly = Assembly::make(&config, making, &self.ticketer)?;
        self.newest = Arc::clone(&assembly.policy);
        Ok(Product::Everything(Box::new((config, assembly, seen))))
    }

    fn policies(&mut self) -> Result<Product, Vec<String>> {
        self.watch.loaded(&self.config.policy.directory);
        let mut faults = Vec::new();
        let (epoch, before) = (self.epoch, Some(&*self.newest));
        let mut pause = pauses(self.clock);
        let making = Making { epoch, before, pause: &mut pause };
        let set = assemble::policies(&self.config, making, &mut faults).ok_or(faults)?;
        self.newest = Arc::clone(&set);
        Ok(Product::Policies(set))
    }
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

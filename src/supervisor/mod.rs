//! Starts the gateway and watches over it: checks everything before a port is opened, starts the
//! workers, the control thread and the audit writer, and ends the process when one of them is lost.

mod assemble;
mod compile;
mod control;
mod decider;
mod doors;
mod listener;
mod notify;
mod refresh;
mod reload;
mod state;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use crate::ablation;
use crate::audit::Writer;
use crate::bus;
use crate::cli::say;
use crate::clock::Clock;
use crate::config::Config;
use crate::control::{Asker, Slot};
use crate::judge::policy::PolicySet;
use crate::metrics::{Meter, ProcessCounters};
use crate::net::pairs;
use crate::net::runtime::{self, Ring};
use crate::net::tls::Ticketer;
use crate::quota::Exact;
use crate::shard::Parts;
use crate::worker::{self, Assignment, Report};

use assemble::{Assembly, Making};

/// Checks a configuration and everything it names, without opening a port. Answers its warnings.
///
/// # Errors
/// Every fault, each with its file and place.
pub fn check(path: &Path) -> Result<Vec<String>, Vec<String>> {
    let config = Config::load(path).map_err(|faults| lines(&faults))?;
    let ticketer = Ticketer::new().map_err(|fault| vec![fault])?;
    let policies = assemble::policies(&config, first(&mut || {}));
    let assembly = Assembly::make(&config, policies, &ticketer)?;
    let warnings = config.warnings.iter().map(ToString::to_string);
    Ok(warnings.chain(assembly.warnings(&config)).collect())
}

/// The policies of a configuration, checked like those of a gateway that starts.
///
/// # Errors
/// Every fault, each with its file and place.
pub fn policies(config: &Config) -> Result<Arc<PolicySet>, Vec<String>> {
    if config.policy.authzen.is_some() {
        let path = config.path.display();
        return Err(vec![format!(
            "{path}: [policy.authzen] decides, and there are no policies here"
        )]);
    }
    assemble::policies(config, first(&mut || {}))
}

/// Runs the gateway until it is told to end.
#[must_use]
pub fn run(config: Config, clock: Clock) -> ExitCode {
    init_log();
    for warning in &config.warnings {
        say(&format!("warning: {warning}"));
    }
    match ablation::at_start() {
        Ok(warnings) => warnings.iter().for_each(|warning| say(warning)),
        Err(fault) => {
            say(&fault);
            return ExitCode::from(crate::cli::EX_CONFIG);
        }
    }
    match start(config, clock) {
        Ok(running) => running.watch(),
        Err(faults) => {
            faults.iter().for_each(|fault| say(fault));
            ExitCode::from(crate::cli::EX_CONFIG)
        }
    }
}

/// A gateway whose workers accept.
struct Running {
    reports: Receiver<Report>,
    workers: usize,
    control: control::Handle,
}

fn start(mut config: Config, clock: Clock) -> Result<Running, Vec<String>> {
    let one = |fault: String| vec![fault];
    let (ring, why) = runtime::choose(config.cores.driver).map_err(one)?;
    if let Some(why) = why {
        say(&why);
    }
    let cpus = choose_cpus(&config).map_err(one)?;
    let ticketer = Ticketer::new().map_err(one)?;
    let (seen, mut assembly) = first_assembly(&config, &ticketer)?;
    let listeners = listener::open(&config, cpus.len()).map_err(one)?;
    let address = listeners.address;
    config.bound(address);
    assembly.bound(&config)?;
    let admin_socket = TcpListener::bind(config.admin.address)
        .map_err(|error| vec![format!("[admin] {}: {error}", config.admin.address)])?;
    let cores: Vec<u32> = (0..).take(cpus.len()).collect();
    let audit = Writer::start(&config.audit, &cores, clock).map_err(one)?;
    audit.notes.iter().for_each(|note| say(note));

    let (reports_in, reports) = mpsc::channel();
    let (asks_in, asks) = mpsc::channel();
    let (first_round, first_answers) = mpsc::channel();
    let (bells, near) = control::doorbells(cpus.len()).map_err(one)?;
    let (outbox, inboxes) = bus::channels(near);
    let (ask_bell, ask_far) = control::pair().map_err(one)?;
    let config = Arc::new(config);
    let slot = Slot::new(Arc::new(assembly.snapshot(&config)));
    let meters: Vec<Meter> = (0..cpus.len()).map(Meter::new).collect();
    let exact = Exact::of(&config.rate_limits);
    let scheme = if config.listen.tls.is_some() { "https" } else { "http" };
    let control = control::Setup {
        clock,
        ring,
        config: Arc::clone(&config),
        assembly,
        seen,
        ticketer,
        slot: Arc::clone(&slot),
        outbox,
        asks,
        ask_bell: ask_far,
        admin: admin_socket,
        writer: audit.writer,
        counters: meters.iter().map(Meter::share).collect(),
        process: Arc::new(ProcessCounters::default()),
        exact: Arc::clone(&exact),
        reports: reports_in.clone(),
        address,
        first_round,
    };
    let control = control::start(control).map_err(one)?;
    // Keys from a file are there at once: whoever connects meanwhile waits in the backlog instead
    // of being refused. For a slow issuer nobody of another one is kept waiting.
    wait_for_first_round(&first_answers, clock, ACCEPT_WITHIN);
    let parts = inboxes.into_iter().zip(audit.rings).zip(meters).zip(bells).zip(mail(&cpus)?);
    for ((((((inbox, audit), meter), doorbell), mail), cpu), (core, listeners)) in
        parts.zip(&cpus).zip((0_u16..).zip(listeners.per_worker))
    {
        let asker = Asker::new(asks_in.clone(), clone_bell(&ask_bell).map_err(one)?);
        let (slot, exact) = (Arc::clone(&slot), Arc::clone(&exact));
        let parts = Parts { core, clock, slot, audit, meter, exact, inbox, asker, mail };
        let reports = reports_in.clone();
        spawn(Assignment { cpu: Some(*cpu), ring, listeners, doorbell, parts, reports })
            .map_err(one)?;
    }
    wait_until_ready(&reports, cpus.len()).map_err(one)?;
    wait_for_first_round(&first_answers, clock, FIRST_ROUND_WITHIN);
    announce(scheme, address, cpus.len(), ring, &control);
    Ok(Running { reports, workers: cpus.len(), control })
}

impl Running {
    /// Waits for the end. A worker that fails ends the process at once: a core less would leave its
    /// listener collecting connections that nobody accepts.
    fn watch(self) -> ExitCode {
        let mut left = self.workers;
        while left > 0 {
            match self.reports.recv() {
                Ok(Report::Ready) => {}
                Ok(Report::Drained) => left -= 1,
                Ok(Report::Failed(words)) => {
                    say(&format!("{words}; ending the process"));
                    return ExitCode::from(EX_SOFTWARE);
                }
                Err(_) => return ExitCode::from(EX_SOFTWARE),
            }
        }
        if self.control.finish() {
            ExitCode::SUCCESS
        } else {
            say("not every audit record could be written; the rest is in the ring files");
            ExitCode::from(EX_SOFTWARE)
        }
    }
}

fn wait_until_ready(reports: &Receiver<Report>, workers: usize) -> Result<(), String> {
    for _ in 0..workers {
        match reports.recv_timeout(START_WITHIN) {
            Ok(Report::Ready) => {}
            Ok(Report::Failed(words)) => return Err(words),
            Ok(Report::Drained) | Err(_) => return Err("a worker did not start".to_owned()),
        }
    }
    Ok(())
}

/// Keys and addresses are asked for once before the gateway calls itself ready, so that the first
/// requests need not fail. What does not answer `within` that time is reported by `/readyz`.
fn wait_for_first_round(answers: &Receiver<()>, clock: Clock, within: Duration) {
    let until = clock.monotonic().after(within);
    loop {
        let left = until.micros_since(clock.monotonic());
        match answers.recv_timeout(Duration::from_micros(left)) {
            Ok(()) => {}
            // Disconnected: every task had its first answer. Timeout: that was the time.
            Err(_) => return,
        }
    }
}

fn announce(
    scheme: &str,
    address: SocketAddr,
    workers: usize,
    ring: Ring,
    control: &control::Handle,
) {
    say(&format!("event loop: {ring}"));
    say(&format!("listening on {scheme}://{address} with {workers} workers"));
    say(&format!("admin on http://{}", control.admin));
    notify::say("READY=1");
}

fn spawn(assignment: Assignment) -> Result<(), String> {
    let name = format!("worker-{}", assignment.parts.core);
    std::thread::Builder::new()
        .name(name)
        .spawn(move || worker::run(assignment))
        .map(|_| ())
        .map_err(|error| format!("a worker cannot be started: {error}"))
}

fn choose_cpus(config: &Config) -> Result<Vec<usize>, String> {
    let allowed = runtime::allowed_cpus();
    let Some(wanted) = &config.cores.cpus else { return Ok(allowed) };
    match wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        None => Ok(wanted.clone()),
        Some(cpu) => Err(format!(
            "[cores] cpus: CPU {cpu} is not in the allowed mask {allowed:?}; \
             leave it out, or widen AllowedCPUs= or the cpuset"
        )),
    }
}

/// The pairs between the workers: before their threads start, so that none of them has to wait for
/// another.
fn mail(cpus: &[usize]) -> Result<Vec<Vec<pairs::End>>, Vec<String>> {
    let cores = u16::try_from(cpus.len()).map_err(|_| vec!["too many CPUs".to_owned()])?;
    pairs::between(cores).map_err(|error| {
        vec![format!("no descriptors for mail between {cores} workers: {error}; see LimitNOFILE=")]
    })
}

fn clone_bell(
    bell: &std::os::unix::net::UnixStream,
) -> Result<std::os::unix::net::UnixStream, String> {
    bell.try_clone().map_err(|error| format!("no descriptor for a doorbell: {error}"))
}

fn init_log() {
    let log = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .finish();
    // A second gateway in one process (tests) keeps the first one's log.
    let _ = tracing::subscriber::set_global_default(log);
}

/// What the gateway starts with; what changes in the policy files from here on is seen as a change.
fn first_assembly(
    config: &Config,
    ticketer: &Ticketer,
) -> Result<(watch::Seen, Assembly), Vec<String>> {
    let seen = watch::Seen::of(&config.policy.directory);
    let policies = assemble::policies(config, first(&mut || {}));
    let assembly = Assembly::make(config, policies, ticketer)?;
    for warning in assembly.warnings(config) {
        say(&format!("warning: {warning}"));
    }
    Ok((seen, assembly))
}

/// The first set of a process; nobody waits for anything else yet.
fn first(pause: &mut dyn FnMut()) -> Making<'_> {
    Making { epoch: FIRST_EPOCH, before: None, pause }
}

fn lines(faults: &impl ToString) -> Vec<String> {
    faults.to_string().lines().map(str::to_owned).collect()
}

const FIRST_EPOCH: u64 = 1;
const ACCEPT_WITHIN: Duration = Duration::from_millis(250);
const FIRST_ROUND_WITHIN: Duration = Duration::from_secs(4);
const START_WITHIN: Duration = Duration::from_secs(10);
/// sysexits: internal software error.
const EX_SOFTWARE: u8 = 70;

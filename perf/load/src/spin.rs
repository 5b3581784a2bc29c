//! `load spin`: keeps CPUs awake with threads that run only when nothing else wants to.

use std::process::Command;

use rustix::thread::{CpuSet, gettid, sched_setaffinity};

use crate::args::SpinArgs;
use crate::fault::{Doing, Fault};

/// `load spin`: returns only when a spinner could not be set up.
pub(crate) fn spin(args: &SpinArgs) -> Result<(), Fault> {
    let spinners: Vec<_> = args
        .cpus
        .iter()
        .map(|cpu| {
            let cpu = usize::from(*cpu);
            std::thread::spawn(move || settle(cpu).map(|()| forever()))
        })
        .collect();
    for spinner in spinners {
        match spinner.join() {
            Ok(Err(fault)) => return Err(fault),
            Ok(Ok(never)) => match never {},
            Err(_) => return Err(Fault::new("a spinner ended")),
        }
    }
    Ok(())
}

/// Puts this thread on its CPU and behind everything else.
fn settle(cpu: usize) -> Result<(), Fault> {
    let mut set = CpuSet::new();
    if cpu >= CpuSet::MAX_CPU {
        return Err(Fault::new(format!("--cpus {cpu}: there is no such CPU")));
    }
    set.set(cpu);
    sched_setaffinity(None, &set)
        .doing(&format!("--cpus {cpu}: not a CPU this process may use"))?;
    let thread = gettid().as_raw_nonzero().get();
    // There is no safe door to sched_setscheduler(2); util-linux has one.
    let status = Command::new("chrt")
        .args(["--idle", "--pid", "0", &thread.to_string()])
        .status()
        .doing("chrt: install util-linux")?;
    // Without the policy a spinner would take half of the CPU from what is measured: rather none.
    if status.success() && is_idle(thread)? {
        return Ok(());
    }
    Err(Fault::new("chrt could not set SCHED_IDLE"))
}

/// Whether the scheduler has this thread as SCHED_IDLE: field 41 of its stat.
fn is_idle(thread: i32) -> Result<bool, Fault> {
    let path = format!("/proc/self/task/{thread}/stat");
    let stat = std::fs::read_to_string(&path).doing(&path)?;
    let policy = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(38));
    Ok(policy == Some(SCHED_IDLE))
}

fn forever() -> std::convert::Infallible {
    loop {
        std::hint::spin_loop();
    }
}

const SCHED_IDLE: &str = "5";

//! The event loop: which driver the kernel gives us, and how a core runs on it.
//!
//! Ladder: io_uring with cooperative task work (18 % less CPU than monoio's default flags), plain
//! io_uring, epoll. Each step is tried for real, and a step down is said in plain words with its
//! cure. Deferred task work and a polling kernel thread are left out: the first stalls under monoio
//! 0.2, the second panics in it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};
use rustix::io::Errno;
use rustix::thread::CpuSet;

use crate::config::Driver;

/// An event loop that this machine can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// io_uring with `IORING_SETUP_COOP_TASKRUN` (Linux 5.19).
    Coop,
    /// io_uring without flags.
    Plain,
    /// epoll.
    Epoll,
}

impl fmt::Display for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Coop => "io_uring (cooperative)",
            Self::Plain => "io_uring",
            Self::Epoll => "epoll",
        })
    }
}

/// Picks the best event loop that `driver` allows, by running one of each kind.
/// The second value says in plain words why it is not a better one, and what would change that.
///
/// # Errors
/// A refusal to start, with its cure, when the loop that was asked for cannot run.
pub fn choose(driver: Driver) -> Result<(Ring, Option<String>), String> {
    pick(driver, probe)
}

/// Runs `future` to its end on this thread. The future is polled as the loop's own one; tasks that
/// it spawns end with it.
///
/// # Errors
/// What the kernel said when the loop could not be set up.
pub fn block_on<F: Future>(ring: Ring, future: F) -> io::Result<F::Output> {
    let mut flags = io_uring::IoUring::builder();
    match ring {
        Ring::Coop => {
            flags.setup_coop_taskrun();
            uring(flags, future)
        }
        Ring::Plain => uring(flags, future),
        Ring::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            Ok(runtime.block_on(future))
        }
    }
}

/// Starts a task on this core. A task that may panic goes through [`super::catch_unwind`].
pub fn spawn(future: impl Future<Output = ()> + 'static) {
    drop(monoio::spawn(future));
}

/// Lets the other tasks of this core run. The driver looks for events between rounds of tasks,
/// which need not be after every turn. For tasks: the future given to [`block_on`] is polled again
/// at once.
pub async fn turn() {
    let mut waited = false;
    poll_fn(|context| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// The CPUs this process may run on, ascending; empty when the kernel does not say.
#[must_use]
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps the calling thread on one CPU.
///
/// # Errors
/// What the kernel said; a CPU outside the allowed mask is `InvalidInput`.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set)?;
    Ok(())
}

fn pick(
    driver: Driver,
    probe: impl Fn(Ring) -> io::Result<()>,
) -> Result<(Ring, Option<String>), String> {
    if driver == Driver::Epoll {
        probe(Ring::Epoll).map_err(|error| format!("epoll cannot run: {error}"))?;
        return Ok((Ring::Epoll, None));
    }
    let Err(coop) = probe(Ring::Coop) else { return Ok((Ring::Coop, None)) };
    let Err(plain) = probe(Ring::Plain) else {
        let note = format!(
            "io_uring runs without cooperative task work ({coop}), which costs about a fifth \
             more CPU; \
             Linux 5.19 or newer has it"
        );
        return Ok((Ring::Plain, Some(note)));
    };
    let sysctl = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
    let why = explain(&plain, sysctl.as_deref().map(str::trim));
    if driver == Driver::IoUring {
        return Err(format!("[cores] driver = \"io_uring\", but {why}; or set driver = \"auto\""));
    }
    probe(Ring::Epoll).map_err(|error| format!("{why}; and epoll cannot run either: {error}"))?;
    Ok((Ring::Epoll, Some(format!("running on epoll: {why}"))))
}

/// What keeps io_uring from running, and what to do about it.
fn explain(error: &io::Error, sysctl: Option<&str>) -> String {
    let number = error.raw_os_error().map(Errno::from_raw_os_error);
    match (number, sysctl) {
        (Some(Errno::PERM), Some(value @ ("1" | "2"))) => format!(
            "the kernel refuses io_uring (sysctl kernel.io_uring_disabled = {value}): set it to 0, \
             or to 1 with our group in kernel.io_uring_group"
        ),
        (Some(Errno::PERM | Errno::ACCESS), _) => "io_uring is refused (EPERM), most likely by a \
             seccomp filter of the container runtime or of systemd: allow io_uring_setup, \
             io_uring_enter and io_uring_register"
            .to_owned(),
        (Some(Errno::NOSYS), _) => {
            "this kernel has no io_uring (ENOSYS): run Linux 5.19 or newer".to_owned()
        }
        (Some(Errno::INVAL), _) => {
            "this kernel's io_uring is too old (EINVAL): run Linux 5.19 or newer".to_owned()
        }
        (Some(Errno::NOMEM), _) => "io_uring may not lock enough memory (ENOMEM): raise \
             LimitMEMLOCK (ulimit -l) to 64 MiB, or run Linux 5.12 or newer"
            .to_owned(),
        (Some(Errno::MFILE | Errno::NFILE), _) => {
            "no file descriptor is left for io_uring: raise LimitNOFILE (ulimit -n)".to_owned()
        }
        (Some(_) | None, _) => format!("io_uring cannot run ({error})"),
    }
}

/// Sets a loop up as a core would and lets it wait once.
fn probe(ring: Ring) -> io::Result<()> {
    if ring != Ring::Epoll {
        // Operations as well as setup: an early kernel has a ring without the ones we need.
        check_operations()?;
    }
    block_on(ring, async { monoio::time::sleep(Duration::from_millis(1)).await })
}

fn check_operations() -> io::Result<()> {
    let ring = io_uring::IoUring::new(2)?;
    let mut known = io_uring::Probe::new();
    ring.submitter().register_probe(&mut known)?;
    use io_uring::opcode::{AsyncCancel, Close, Connect, PollAdd, Recv, Send, Timeout};
    let needed = [
        AsyncCancel::CODE,
        Close::CODE,
        Connect::CODE,
        PollAdd::CODE,
        Recv::CODE,
        Send::CODE,
        Timeout::CODE,
    ];
    if needed.into_iter().all(|operation| known.is_supported(operation)) {
        return Ok(());
    }
    Err(Errno::NOSYS.into())
}

fn uring<F: Future>(flags: io_uring::Builder, future: F) -> io::Result<F::Output> {
    let mut runtime = RuntimeBuilder::<IoUringDriver>::new()
        .with_entries(RING_ENTRIES)
        .uring_builder(flags)
        .enable_timer()
        .build()?;
    Ok(runtime.block_on(future))
}

/// Submission entries; when they are all in use monoio submits early, so this is no bound.
const RING_ENTRIES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(rings: &'static [Ring], errno: Errno) -> impl Fn(Ring) -> io::Result<()> {
        move |ring| if rings.contains(&ring) { Err(errno.into()) } else { Ok(()) }
    }

    #[test]
    fn this_machine_runs_what_it_says() {
        for driver in [Driver::Auto, Driver::Epoll] {
            let (ring, _) = choose(driver).unwrap();
            assert_eq!(block_on(ring, async { 7 }).unwrap(), 7);
        }
    }

    #[test]
    fn the_ladder_steps_down_and_says_why() {
        use Ring::{Coop, Epoll, Plain};
        assert_eq!(pick(Driver::Auto, failing(&[], Errno::PERM)), Ok((Coop, None)));
        let (ring, note) = pick(Driver::Auto, failing(&[Coop], Errno::INVAL)).unwrap();
        assert_eq!(ring, Plain);
        assert!(note.unwrap().contains("5.19"));
        let (ring, note) = pick(Driver::Auto, failing(&[Coop, Plain], Errno::NOSYS)).unwrap();
        assert_eq!(ring, Epoll);
        assert!(note.unwrap().contains("running on epoll"));
        let all = failing(&[Coop, Plain, Epoll], Errno::MFILE);
        assert!(pick(Driver::Auto, all).unwrap_err().contains("epoll cannot run either"));
        assert_eq!(pick(Driver::Epoll, failing(&[Coop], Errno::PERM)), Ok((Epoll, None)));
    }

    #[test]
    fn r07_r08_io_uring_that_was_asked_for_is_refused_with_its_cure() {
        let refused = pick(Driver::IoUring, failing(&[Ring::Coop, Ring::Plain], Errno::NOMEM));
        assert!(refused.unwrap_err().contains("LimitMEMLOCK"));
        for (errno, sysctl, word) in [
            (Errno::PERM, Some("2"), "kernel.io_uring_disabled = 2"),
            (Errno::PERM, Some("0"), "seccomp"),
            (Errno::PERM, None, "seccomp"),
            (Errno::NOSYS, None, "no io_uring"),
            (Errno::NOMEM, Some("0"), "LimitMEMLOCK"),
            (Errno::MFILE, Some("0"), "LimitNOFILE"),
            (Errno::IO, Some("0"), "cannot run"),
        ] {
            let words = explain(&errno.into(), sysctl);
            assert!(words.contains(word), "{words}");
        }
    }

    #[test]
    fn a_thread_stays_on_the_cpu_it_was_pinned_to() {
        let cpus = allowed_cpus();
        assert!(!cpus.is_empty());
        let cpu = cpus[0];
        std::thread::spawn(move || {
            pin(cpu).unwrap();
            assert_eq!(allowed_cpus(), [cpu]);
            assert!(pin(CpuSet::MAX_CPU).is_err());
        })
        .join()
        .unwrap();
    }
}

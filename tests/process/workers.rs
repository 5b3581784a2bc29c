//! One pinned thread per core with its own listener, its event loop, and what happens when
//! descriptors run out.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit};

use crate::gateway::{Gateway, Setup};
use crate::upstream::Upstream;
use crate::wait::eventually;

#[test]
fn each_worker_is_pinned_to_a_cpu_of_its_own_and_serves() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    let pinned = pinned_cpus(&gateway);
    assert_eq!(pinned, allowed_cpus(), "one worker per allowed CPU");
    assert_eq!(listening_sockets(&gateway), pinned.len(), "one listener per worker");
    let words = format!("with {} workers", pinned.len());
    assert!(gateway.said().contains(&words), "{}", gateway.said());
    // The kernel spreads connections over the listeners by their ports.
    gateway.wait_until_ready();
    let client = gateway.client();
    eventually("every core has served a request", || {
        assert_eq!(client.once(&client.call("echo")).status, 200);
        let records = gateway.stage().audit();
        let cores: BTreeSet<u64> = records.iter().filter_map(|r| r["core"].as_u64()).collect();
        cores.len() == pinned.len()
    });
}

#[test]
fn a_list_of_cpus_is_followed_and_a_cpu_outside_the_mask_is_refused() {
    let upstream = Upstream::echo();
    let last = *allowed_cpus().last().unwrap();
    let setup = Setup::new(upstream.address).cores(&format!("cpus = \"{last}\""));
    let gateway = setup.start();
    assert_eq!(pinned_cpus(&gateway), [last]);
    assert!(gateway.said().contains("with 1 workers"));
    let (code, words) = setup.cores("cpus = \"1000\"").refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("CPU 1000 is not in the allowed mask"), "{words}");
}

#[test]
fn the_allowed_mask_of_a_cpuset_is_respected() {
    let upstream = Upstream::echo();
    let last = *allowed_cpus().last().unwrap();
    let mask = last.to_string();
    let gateway = Setup::new(upstream.address).launcher(&["taskset", "-c", &mask]).start();
    assert_eq!(pinned_cpus(&gateway), [last]);
}

#[test]
fn a_second_gateway_on_the_same_port_is_refused_in_words() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).start();
    let mut second = Setup::new(upstream.address);
    second.address = gateway.address.to_string();
    let (code, words) = second.refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains(&format!("[listen] address {}", gateway.address)), "{words}");
    assert!(words.contains("in use"), "{words}");
}

#[test]
fn every_driver_serves() {
    let upstream = Upstream::echo();
    for (driver, name) in [("epoll", "epoll"), ("io_uring", "io_uring"), ("auto", "io_uring")] {
        let cores = format!("driver = \"{driver}\"");
        let gateway = Setup::new(upstream.address).cores(&cores).start();
        assert!(gateway.said().contains(&format!("event loop: {name}")), "{}", gateway.said());
        gateway.wait_until_ready();
        let client = gateway.client();
        assert_eq!(client.once(&client.call("echo")).status, 200);
        gateway.stop();
    }
}

#[test]
fn r07_without_io_uring_auto_says_so_and_serves_and_io_uring_refuses() {
    let upstream = Upstream::echo();
    let without = ["python3", "-c", WITHOUT_IO_URING];
    let gateway = Setup::new(upstream.address).launcher(&without).start();
    let said = gateway.said();
    assert!(said.contains("event loop: epoll"), "{said}");
    assert!(said.contains("running on epoll: io_uring is refused (EPERM)"), "{said}");
    assert!(said.contains("allow io_uring_setup"), "the cure: {said}");
    gateway.wait_until_ready();
    let client = gateway.client();
    assert_eq!(client.once(&client.call("echo")).status, 200);

    let setup = Setup::new(upstream.address).launcher(&without).cores("driver = \"io_uring\"");
    let (code, words) = setup.refused();
    assert_eq!(code, 78, "{words}");
    assert!(words.contains("[cores] driver = \"io_uring\", but io_uring is refused"), "{words}");
    assert!(words.contains("allow io_uring_setup"), "{words}");
}

#[test]
fn v04_accept_survives_a_want_of_descriptors_without_spinning_and_recovers() {
    let upstream = Upstream::echo();
    for driver in ["auto", "epoll"] {
        let cores = format!("driver = \"{driver}\"");
        let gateway = Setup::new(upstream.address).cores(&cores).start();
        gateway.wait_until_ready();
        let client = gateway.client();
        assert_eq!(client.once(&client.call("echo")).status, 200);
        limit_descriptors(&gateway, descriptors(&gateway) + 6);
        let crowd: Vec<_> = (0..40).map(|_| client.open()).collect();
        gateway.wait_until_said("cannot accept connections");
        // A window of measurement, not a wait for something.
        let (ticks, began) = (gateway.cpu_ticks(), Instant::now());
        thread::sleep(Duration::from_secs(1));
        let used = Duration::from_millis((gateway.cpu_ticks() - ticks) * 10);
        assert!(used < began.elapsed() / 20, "{used:?} of CPU within {:?}", began.elapsed());
        drop(crowd);
        let mut wire = client.open();
        wire.send(&client.call("echo"));
        assert_eq!(wire.answer().status, 200, "it recovers");
        let lines = gateway
            .said()
            .lines()
            .filter(|line| line.contains("cannot accept connections"))
            .count();
        let seconds = began.elapsed().as_secs() as usize + 2;
        let cores = allowed_cpus().len();
        assert!(lines <= (seconds + 1) * cores, "{lines} lines about it in {seconds} s");
    }
}

/// CPUs of the worker threads, one each.
fn pinned_cpus(gateway: &Gateway) -> Vec<usize> {
    let mut cpus = Vec::new();
    for (name, status) in threads(gateway) {
        let line = status.lines().find(|line| line.starts_with("Cpus_allowed_list:")).unwrap();
        let list = line.split_once(':').unwrap().1.trim();
        if name.starts_with("worker-") {
            cpus.push(list.parse().unwrap_or_else(|_| panic!("{name} may run on {list}")));
        }
    }
    cpus.sort_unstable();
    cpus
}

/// Name and status of each thread.
fn threads(gateway: &Gateway) -> Vec<(String, String)> {
    let folder = format!("/proc/{}/task", gateway.pid().as_raw_nonzero());
    let tasks = fs::read_dir(folder).unwrap();
    tasks
        .map(|task| {
            let path = task.unwrap().path();
            let read = |name: &str| fs::read_to_string(path.join(name)).unwrap();
            (read("comm").trim().to_owned(), read("status"))
        })
        .collect()
}

fn allowed_cpus() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Sockets that listen on the gateway's address (state 0A in proc_net(5)).
fn listening_sockets(gateway: &Gateway) -> usize {
    let port = format!(":{:04X}", gateway.address.port());
    let table = gateway.proc_file("net/tcp");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[1].ends_with(&port) && fields[3] == "0A").count()
}

fn descriptors(gateway: &Gateway) -> u64 {
    let folder = format!("/proc/{}/fd", gateway.pid().as_raw_nonzero());
    fs::read_dir(folder).unwrap().count() as u64
}

fn limit_descriptors(gateway: &Gateway, count: u64) {
    let limit = Rlimit { current: Some(count), maximum: Some(1024) };
    rustix::process::prlimit(Some(gateway.pid()), Resource::Nofile, limit).unwrap();
}

/// Starts its arguments under a seccomp filter (seccomp(2), cBPF) that answers `io_uring_setup`,
/// which has the number 425 on every architecture, with EPERM.
const WITHOUT_IO_URING: &str = r#"
import ctypes, os, struct, sys
def op(code, jt, jf, k): return struct.pack("HBBI", code, jt, jf, k)
program = (op(0x20, 0, 0, 0) + op(0x15, 0, 1, 425)
    + op(0x06, 0, 0, 0x00050001) + op(0x06, 0, 0, 0x7fff0000))
code = ctypes.create_string_buffer(program, len(program))
class Filter(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("code", ctypes.c_void_p)]
prog = Filter(4, ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(prog), 0, 0) == 0, ctypes.get_errno()
os.execv(sys.argv[1], sys.argv[1:])
"#;

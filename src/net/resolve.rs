//! Names to addresses, for the control thread: `getaddrinfo` blocks, so it runs on a few threads of
//! its own. Workers never resolve; they are given addresses.

use std::io::Write;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Either, Timers, first};
use crate::clock::Monotonic;

/// A small pool of resolving threads. A lookup that hangs keeps its thread; when all hang and the
/// queue is full, further lookups fail at once.
#[derive(Clone)]
pub struct Resolver {
    jobs: SyncSender<Job>,
}

/// Why a name has no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// Too many lookups are waiting.
    Busy,
    /// The name is not known, or the resolver failed.
    Unknown,
    /// No answer before the deadline.
    Timeout,
}

struct Job {
    host: String,
    port: u16,
    answer: Answer,
    doorbell: UnixStream,
}

type Answer = Arc<Mutex<Option<Vec<SocketAddr>>>>;

impl Resolver {
    /// Starts the threads; they end when the last handle is gone.
    ///
    /// # Errors
    /// A thread could not be started.
    pub fn new() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..THREADS {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("resolver".to_owned()).spawn(move || serve(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// The addresses of `host`, at most 16, in the system's order (RFC 6724). Not judged yet: see
    /// [`crate::address::permitted`].
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(
        &self,
        host: &str,
        port: u16,
        timers: &Timers,
        until: Monotonic,
    ) -> Result<Vec<SocketAddr>, ResolveError> {
        let (near, far) = UnixStream::pair().map_err(|_| ResolveError::Busy)?;
        let answer = Answer::default();
        let job = Job { host: host.to_owned(), port, answer: Arc::clone(&answer), doorbell: far };
        self.jobs.try_send(job).map_err(|_| ResolveError::Busy)?;
        near.set_nonblocking(monoio::utils::is_legacy()).map_err(|_| ResolveError::Busy)?;
        let near = monoio::net::UnixStream::from_std(near).map_err(|_| ResolveError::Busy)?;
        // Readable when the thread has rung, and also when it died with the job.
        if let Either::Right(()) = first(near.readable(false), timers.sleep_until(until)).await {
            return Err(ResolveError::Timeout);
        }
        let found = answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        found.filter(|addresses| !addresses.is_empty()).ok_or(ResolveError::Unknown)
    }
}

fn serve(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut job) = job else { return };
        let found = (job.host.as_str(), job.port).to_socket_addrs();
        let addresses = found.map(|found| found.take(ADDRESSES_MAX).collect()).ok();
        *job.answer.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
        // Nobody listens any more when the deadline has passed.
        let _ = job.doorbell.write_all(&[1]);
    }
}

/// Threads; also the number of lookups that may hang at once.
const THREADS: usize = 4;
/// Lookups that wait for a thread.
const QUEUE_MAX: usize = 64;
/// Addresses of one name.
const ADDRESSES_MAX: usize = 16;

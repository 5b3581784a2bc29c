//! The end of a process that serves until told otherwise: SIGTERM, SIGINT, or the end of standard input.

use std::io::Read;
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::fault::{Doing, Fault};
use crate::poll::Poll;

/// Holds the receiving end of the signals.
pub(crate) struct Stop {
    signals: UnixStream,
    signal_key: u64,
    input_key: u64,
}

impl Stop {
    /// Registers both ways under two keys of the caller's.
    pub(crate) fn new(poll: &Poll, signal_key: u64, input_key: u64) -> Result<Self, Fault> {
        let (signals, sender) = UnixStream::pair().doing("signal pipe")?;
        for signal in [SIGTERM, SIGINT] {
            let sender = sender.try_clone().doing("signal pipe")?;
            signal_hook::low_level::pipe::register(signal, sender).doing("signal handler")?;
        }
        poll.watch_input(&signals, signal_key).doing("epoll on the signal pipe")?;
        match poll.watch_input(std::io::stdin(), input_key) {
            // Standard input is a file or /dev/null: it never "closes", so only signals stop the process.
            Ok(()) | Err(Errno::PERM | Errno::BADF) => {}
            Err(error) => return Err(Fault::new(format!("epoll on standard input: {error}"))),
        }
        Ok(Self { signals, signal_key, input_key })
    }

    /// Whether an event with this key means the end.
    pub(crate) fn is_asked(&mut self, key: u64) -> bool {
        let mut bytes = [0; 512];
        if key == self.signal_key {
            return self.signals.read(&mut bytes).is_ok_and(|count| count > 0);
        }
        key == self.input_key
            && std::io::stdin().lock().read(&mut bytes).map_or(true, |count| count == 0)
    }
}

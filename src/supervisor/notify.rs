//! Words to systemd (sd_notify protocol): one datagram to `$NOTIFY_SOCKET`, nothing when it is not
//! set.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::config::source::{Environment, ProcessEnvironment};

/// Sends `words`. A service manager that does not listen is no fault of the gateway.
pub(super) fn say(words: &str) {
    let Some(path) = ProcessEnvironment.variable("NOTIFY_SOCKET") else { return };
    let bytes = path.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    if let (Ok(socket), Ok(address)) = (UnixDatagram::unbound(), address) {
        let _ = socket.send_to_addr(words.as_bytes(), &address);
    }
}

/// How often systemd wants to hear `WATCHDOG=1`: half of `WatchdogSec=`.
pub(super) fn watchdog() -> Option<Duration> {
    let micros = ProcessEnvironment.variable("WATCHDOG_USEC")?;
    let micros: u64 = micros.to_str()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros / 2))
}

//! Listening sockets: our own, shared by address, or passed by systemd.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{Stream, Timers, runtime};
use crate::clock::Monotonic;
use crate::limits::ACCEPT_BACKOFF_MS;

/// Opens a listening socket. With `reuse_port` every core opens its own on the same address; the
/// supervisor makes sure that no second process does. `[::]` takes IPv4, too.
///
/// # Errors
/// What the kernel said.
pub fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = bound(address, reuse_port)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Shows that nobody listens on `address`, without listening there: who connected in that moment
/// would be reset when the socket is closed.
///
/// # Errors
/// What the kernel said; in use by another process is among it.
pub fn probe(address: SocketAddr) -> io::Result<()> {
    bound(address, false).map(drop)
}

fn bound(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Said, not left to net.ipv6.bindv6only.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Takes a socket that was passed to this process, after a look at what it is.
///
/// # Errors
/// In words: it is not a listening TCP socket.
pub fn adopt(passed: OwnedFd, name: &str) -> Result<TcpListener, String> {
    let socket = Socket::from(passed);
    let stream = socket.r#type().ok() == Some(Type::STREAM);
    let internet = matches!(socket.domain().ok(), Some(Domain::IPV4 | Domain::IPV6));
    if !stream || !internet || !socket.is_listener().unwrap_or(false) {
        return Err(format!("the passed socket \"{name}\" is not a listening TCP socket"));
    }
    Ok(socket.into())
}

/// Which passed descriptors carry `name`, from the values of `LISTEN_PID`, `LISTEN_FDS` and
/// `LISTEN_FDNAMES` (sd_listen_fds): numbers from 3 on, in order.
///
/// # Errors
/// In words: none was passed to this process, or none has that name.
pub fn passed(
    name: &str,
    own_pid: u32,
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
) -> Result<Vec<i32>, String> {
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
    if number(pid) != Some(own_pid) {
        return Err(format!("no socket was passed to this process, but \"{name}\" is configured"));
    }
    let count = number(count).filter(|count| *count <= PASSED_MAX).unwrap_or(0);
    let names: Vec<&str> = names.unwrap_or_default().split(':').collect();
    let found: Vec<i32> = (0..count)
        .filter(|index| names.get(*index as usize) == Some(&name))
        .map(|index| PASSED_FIRST + index as i32)
        .collect();
    if found.is_empty() {
        return Err(format!("no passed socket is named \"{name}\" (FileDescriptorName=)"));
    }
    Ok(found)
}

/// Accepts connections on one core.
///
/// The loop waits for readiness, and the socket is then taken by a plain non-blocking call: nothing
/// is in flight that a shutdown could lose, and descriptors close on exec with every driver.
pub struct Acceptor {
    listener: TcpListener,
    /// The same socket as the event loop knows it.
    ready: monoio::net::TcpListener,
    timers: Timers,
    in_a_row: u32,
    short: Shortage,
}

/// How often accepting failed for want of descriptors or memory (case V04).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shortage {
    /// Failures so far; one per back-off.
    pub count: u64,
    /// When it was last told to the log.
    said: Option<Monotonic>,
}

impl Acceptor {
    /// Takes a listening socket; call it on the core that will accept.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn new(listener: TcpListener, timers: Timers) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let ready = monoio::net::TcpListener::from_std(listener.try_clone()?)?;
        Ok(Self { listener, ready, timers, in_a_row: 0, short: Shortage::default() })
    }

    /// The next connection, without TLS. May be dropped: a connection that was not returned stays
    /// in the backlog. When descriptors or memory are short it backs off instead of spinning.
    ///
    /// # Errors
    /// Only what makes the listener unusable.
    pub async fn accept(&mut self) -> io::Result<Stream> {
        loop {
            if self.in_a_row >= ACCEPTS_PER_TURN {
                self.in_a_row = 0;
                runtime::turn().await;
            }
            match self.listener.accept() {
                Ok((socket, peer)) => {
                    self.in_a_row += 1;
                    if let Ok(stream) = self.adopt(socket, peer) {
                        return Ok(stream);
                    }
                    // It is gone already, or descriptors are short: the next accept will tell.
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Failures for want of descriptors or memory.
    #[must_use]
    pub fn shortage(&self) -> Shortage {
        self.short
    }

    fn adopt(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<Stream> {
        // io_uring waits by itself; epoll needs calls that do not.
        socket.set_nonblocking(monoio::utils::is_legacy())?;
        Stream::new(monoio::net::TcpStream::from_std(socket)?, peer, self.timers.clone())
    }

    async fn recover(&mut self, error: io::Error) -> io::Result<()> {
        let Some(errno) = Errno::from_io_error(&error) else { return Err(error) };
        if errno == Errno::AGAIN {
            self.in_a_row = 0;
            return self.ready.readable(false).await;
        }
        if SHORT.contains(&errno) {
            self.short.count += 1;
            self.say(&error);
            let pause = Duration::from_millis(ACCEPT_BACKOFF_MS);
            self.timers.sleep_until(self.timers.exact().after(pause)).await;
            return Ok(());
        }
        if BROKEN_LISTENER.contains(&errno) {
            return Err(error);
        }
        // What is left belongs to that one connection, which died in the backlog (accept(2),
        // NOTES).
        self.in_a_row += 1;
        Ok(())
    }

    fn say(&mut self, error: &io::Error) {
        let now = self.timers.exact();
        if self.short.said.is_none_or(|before| now.micros_since(before) >= LOG_PAUSE_MICROS) {
            self.short.said = Some(now);
            let count = self.short.count;
            tracing::warn!(%error, count, "cannot accept connections; trying again");
        }
    }
}

/// True when `listener` shares its address by `SO_REUSEPORT`.
#[must_use]
pub fn shares_port(listener: &TcpListener) -> bool {
    SockRef::from(listener).reuse_port().unwrap_or(false)
}

/// Out of descriptors or memory.
const SHORT: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
/// Not a listening socket (any more).
const BROKEN_LISTENER: [Errno; 5] =
    [Errno::BADF, Errno::FAULT, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP];
/// Connections that the kernel holds for us; it cuts this to net.core.somaxconn.
const BACKLOG: i32 = 4096;
/// Connections taken before the other tasks of the core get a turn.
const ACCEPTS_PER_TURN: u32 = 32;
/// The first passed descriptor (sd_listen_fds).
const PASSED_FIRST: i32 = 3;
/// More passed sockets than this are a mistake.
const PASSED_MAX: u32 = 1024;
/// At most one log line a second (case V04).
const LOG_PAUSE_MICROS: u64 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passed_sockets_are_found_by_name() {
        let own = Some("7");
        let found = |fds, names| passed("web", 7, own, Some(fds), Some(names));
        assert_eq!(found("3", "web:admin:web"), Ok(vec![3, 5]));
        assert_eq!(found("1", "web:web"), Ok(vec![3]), "a name without a descriptor is nothing");
        for (pid, fds, names) in [
            (Some("8"), Some("1"), Some("web")),
            (None, Some("1"), Some("web")),
            (own, None, Some("web")),
            (own, Some("1"), Some("unknown")),
            (own, Some("1"), None),
            (own, Some("-1"), Some("web")),
            (own, Some("4000000000"), Some("web")),
        ] {
            assert!(passed("web", 7, pid, fds, names).is_err(), "{pid:?} {fds:?} {names:?}");
        }
    }

    #[test]
    fn only_a_listening_tcp_socket_is_adopted() {
        let listener = bind("127.0.0.1:0".parse().unwrap(), false).unwrap();
        assert!(adopt(listener.try_clone().unwrap().into(), "web").is_ok());
        let idle = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(adopt(idle.into(), "web").unwrap_err().contains("\"web\""));
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(adopt(udp.into(), "web").is_err());
        let (unix, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(adopt(unix.into(), "web").is_err());
    }

    #[test]
    fn an_address_is_shared_only_when_asked() {
        let shared = bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let address = shared.local_addr().unwrap();
        assert!(shares_port(&shared));
        assert!(bind(address, true).is_ok());
        assert_eq!(bind(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}

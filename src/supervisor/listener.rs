//! The listening sockets: one of its own for each worker, or those that systemd passed.

use std::net::{SocketAddr, TcpListener};

use crate::config::source::{Environment, ProcessEnvironment};
use crate::config::{Config, ListenAddress};
use crate::net::listen;

/// Sockets, already bound.
pub(super) struct Listeners {
    /// Real address, the port filled in.
    pub(super) address: SocketAddr,
    /// Position = worker.
    pub(super) per_worker: Vec<Vec<TcpListener>>,
}

/// Opens or takes over the sockets.
pub(super) fn open(config: &Config, workers: usize) -> Result<Listeners, String> {
    match &config.listen.address {
        ListenAddress::Socket(address) => bind(*address, workers),
        ListenAddress::Passed(name) => passed(name, workers),
    }
}

fn bind(wanted: SocketAddr, workers: usize) -> Result<Listeners, String> {
    let fault = |error: std::io::Error| format!("[listen] address {wanted}: {error}");
    // SO_REUSEPORT would let a second gateway take half of our connections in silence; a socket
    // without it shows whether the address is free.
    listen::probe(wanted).map_err(fault)?;
    let first = listen::bind(wanted, true).map_err(fault)?;
    let address = first.local_addr().map_err(fault)?;
    let mut per_worker = vec![vec![first]];
    while per_worker.len() < workers {
        per_worker.push(vec![listen::bind(address, true).map_err(fault)?]);
    }
    Ok(Listeners { address, per_worker })
}

/// One passed socket is accepted on by all workers; of more, socket i belongs to worker i mod N, so
/// that none is ever without an acceptor (DESIGN §4).
fn passed(name: &str, workers: usize) -> Result<Listeners, String> {
    let variable =
        |name: &str| ProcessEnvironment.variable(name).and_then(|value| value.into_string().ok());
    let (pid, count, names) =
        (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
    let own = std::process::id();
    let numbers = listen::passed(name, own, pid.as_deref(), count.as_deref(), names.as_deref())?;
    let descriptors = crate::mapped::passed_descriptors(&numbers)?;
    let adopt = |descriptor| listen::adopt(descriptor, name);
    let sockets = descriptors.into_iter().map(adopt).collect::<Result<Vec<TcpListener>, _>>()?;
    let address = match sockets.first().map(TcpListener::local_addr) {
        Some(Ok(address)) => address,
        Some(Err(error)) => return Err(format!("the passed socket \"{name}\": {error}")),
        None => return Err(format!("no passed socket is named \"{name}\"")),
    };
    let mut per_worker: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
    if let [only] = sockets.as_slice() {
        for own in &mut per_worker {
            own.push(only.try_clone().map_err(|error| error.to_string())?);
        }
    } else {
        let slots = per_worker.len().max(1);
        for (index, socket) in sockets.into_iter().enumerate() {
            if let Some(own) = per_worker.get_mut(index % slots) {
                own.push(socket);
            }
        }
    }
    Ok(Listeners { address, per_worker })
}

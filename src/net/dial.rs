//! Connecting to an upstream. Names are resolved elsewhere; exactly the given addresses are
//! dialled.

use std::net::SocketAddr;
use std::time::Duration;

use monoio::net::TcpStream;

use super::stream::connect_tls;
use super::tls::ClientTls;
use super::{Either, NetError, Stream, Timers, first};
use crate::address::{Terms, reach};
use crate::clock::Monotonic;
use crate::reject::Reject;

/// Connects to the first address that answers, TLS handshake for `host` included, before `until`.
///
/// The addresses come from [`crate::address::permitted`]. Each gets its share of the time left, so
/// that one which swallows packets does not use it all up. TLS is tried once, on the first
/// connection: a peer that cannot prove its name is not asked again elsewhere.
///
/// # Errors
/// [`Reject::UpstreamAddress`] when there is no address, or one that nobody may dial (cases O07,
/// O08), [`Reject::UpstreamConnect`], [`Reject::UpstreamTls`] (case S05) or
/// [`Reject::UpstreamTimeout`].
pub async fn dial(
    addresses: &[SocketAddr],
    tls: Option<(&ClientTls, &str)>,
    timers: &Timers,
    until: Monotonic,
) -> Result<Stream, Reject> {
    // Whether private ones are trusted was judged before; what nobody may have is judged again.
    let terms = Terms { trust_private: true, tls: tls.is_some() };
    if addresses.is_empty() || addresses.iter().any(|a| !terms.allow(reach(a.ip()))) {
        return Err(Reject::UpstreamAddress);
    }
    let stream = connect(addresses, timers, until).await?;
    let Some((tls, host)) = tls else { return Ok(stream) };
    connect_tls(stream, tls, host, until).await.map_err(|error| match error {
        NetError::Timeout => Reject::UpstreamTimeout,
        NetError::Closed | NetError::Io(_) | NetError::Tls => Reject::UpstreamTls,
    })
}

async fn connect(
    addresses: &[SocketAddr],
    timers: &Timers,
    until: Monotonic,
) -> Result<Stream, Reject> {
    let mut reject = Reject::UpstreamConnect;
    let mut left = addresses.len() as u64;
    for &address in addresses {
        let now = timers.exact();
        if now >= until {
            return Err(Reject::UpstreamTimeout);
        }
        let share = Duration::from_micros(until.micros_since(now) / left).max(ATTEMPT_MIN);
        left = left.saturating_sub(1).max(1);
        let deadline = now.after(share).min(until);
        let attempt = TcpStream::connect_addr(address);
        reject = match first(attempt, timers.sleep_until(deadline)).await {
            Either::Left(Ok(tcp)) => match Stream::new(tcp, address, timers.clone()) {
                Ok(stream) => return Ok(stream),
                Err(_) => Reject::UpstreamConnect,
            },
            Either::Left(Err(_)) => Reject::UpstreamConnect,
            Either::Right(()) => Reject::UpstreamTimeout,
        };
    }
    Err(reject)
}

/// An address gets at least this long, as far as the deadline allows.
const ATTEMPT_MIN: Duration = Duration::from_millis(250);

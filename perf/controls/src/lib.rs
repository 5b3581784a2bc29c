//! What both controls share: the command line, the listener, and what is rewritten in a request.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};
use socket2::{Domain, Protocol, Socket, Type};

/// What the command line asks for.
#[derive(Debug)]
pub struct Options {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where requests go.
    pub upstream: SocketAddr,
    /// What requests are given.
    pub rewrite: Rewrite,
}

/// The fields that every request is given.
#[derive(Debug)]
pub struct Rewrite {
    host: HeaderValue,
    key: HeaderValue,
}

impl Options {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// What is wrong, and the usage.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        read(arguments).map_err(|fault| format!("{fault}\n{USAGE}"))
    }

    /// Opens the listener; what is set on it holds for connections that are accepted from it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn listener(&self) -> std::io::Result<TcpListener> {
        let (domain, protocol) = (Domain::for_address(self.listen), Some(Protocol::TCP));
        let socket = Socket::new(domain, Type::STREAM, protocol)?;
        socket.set_reuse_address(true)?;
        // Without it a large answer waits 40 ms for an acknowledgement that the peer delays.
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_user_timeout(Some(STALLED_MAX))?;
        socket.set_nonblocking(true)?;
        socket.bind(&self.listen.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    }
}

impl Rewrite {
    /// Takes the client's credentials out and puts ours in.
    pub fn request(&self, fields: &mut HeaderMap) {
        fields.remove(AUTHORIZATION);
        fields.remove(CONNECTION);
        fields.insert(X_API_KEY, self.key.clone());
        fields.insert(HOST, self.host.clone());
    }
}

/// Clients at a time; one more is closed at once.
pub const CLIENTS_MAX: usize = 16 * 1024;
/// Rest after an accept that failed for want of descriptors or memory.
pub const ACCEPT_REST: Duration = Duration::from_millis(10);

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut listen, mut upstream, mut key) = (None, None, "control-key".to_owned());
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: no value"))?;
        match name.as_str() {
            "--listen" => listen = Some(address(&value)?),
            "--upstream" => upstream = Some(address(&value)?),
            "--key" => key = value,
            _ => return Err(format!("{name}: unknown")),
        }
    }
    let upstream = upstream.ok_or("--upstream is missing")?;
    let field = |value: String| HeaderValue::try_from(value).map_err(|error| error.to_string());
    let rewrite = Rewrite { host: field(upstream.to_string())?, key: field(key)? };
    Ok(Options { listen: listen.ok_or("--listen is missing")?, upstream, rewrite })
}

fn address(value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| format!("{value}: not an address with a port"))
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const STALLED_MAX: Duration = Duration::from_secs(30);
const BACKLOG: i32 = 4096;
const USAGE: &str = "usage: RELAY --listen ADDR --upstream ADDR [--key WORD]";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn addresses_are_needed() {
        assert_eq!(parse("--listen 127.0.0.1:1 --upstream [::1]:2").unwrap().upstream.port(), 2);
        for line in
            ["", "--listen 127.0.0.1:1", "--upstream 127.0.0.1:1", "--listen x", "--fast yes"]
        {
            assert!(parse(line).unwrap_err().contains("usage"), "{line}");
        }
    }

    #[test]
    fn credentials_are_exchanged() {
        let options = parse("--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --key ours").unwrap();
        let mut fields = HeaderMap::new();
        fields.append(AUTHORIZATION, HeaderValue::from_static("Bearer theirs"));
        fields.append(X_API_KEY, HeaderValue::from_static("theirs"));
        fields.append(X_API_KEY, HeaderValue::from_static("theirs too"));
        options.rewrite.request(&mut fields);
        assert!(!fields.contains_key(AUTHORIZATION));
        assert_eq!(fields.get_all(X_API_KEY).iter().collect::<Vec<_>>(), ["ours"]);
        assert_eq!(fields[HOST], "127.0.0.1:2");
    }
}

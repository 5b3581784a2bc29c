//! The command line of both relays.

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::sockets::RECEIVE_BYTES;

/// What the command line asks for. The switches from `flags` on change how the kernel is reached
/// and nothing that a peer can see.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where requests go.
    pub upstream: SocketAddr,
    /// The credential that requests are given.
    pub key: String,
    /// How the ring runs its task work.
    pub flags: Flags,
    /// How bytes are received.
    pub recv: Recv,
    /// How connections are accepted.
    pub accept: Shots,
    /// Whether sockets are direct descriptors.
    pub files: Files,
    /// How what waits for a socket is sent.
    pub send: Send,
    /// Whether the ring itself is reached by a registered descriptor.
    pub ring_fd: Files,
    /// Whether a single receive tries at once or waits for readiness first.
    pub try_first: bool,
    /// Bytes of one receive into memory that is submitted with it.
    pub receive_bytes: usize,
    /// Provided buffers: how many.
    pub buffers: u16,
    /// Provided buffers: bytes of each.
    pub buffer_bytes: u32,
}

/// Task work of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// As the kernel has it: by interrupting the thread.
    None,
    /// `IORING_SETUP_COOP_TASKRUN`: at the next crossing into the kernel.
    Coop,
    /// `IORING_SETUP_DEFER_TASKRUN` and `SINGLE_ISSUER`: when completions are asked for.
    Defer,
    /// No ring: epoll (the monoio relay only).
    Epoll,
}

/// How bytes are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recv {
    /// One completion per submission, into a buffer that is submitted with it.
    Single,
    /// One completion per submission, into a provided buffer.
    Provided,
    /// Completions until it is cancelled, into provided buffers.
    Multishot,
}

/// How long an accept lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shots {
    /// One completion per submission.
    Single,
    /// Completions until it is cancelled.
    Multishot,
}

/// Descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Files {
    /// Looked up in the process's table with every operation.
    Plain,
    /// Registered with the ring.
    Registered,
}

/// How what waits for a socket is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Send {
    /// One send at a time; a body that came with its head is copied behind the new head.
    Plain,
    /// All that waits in one `sendmsg`; large bodies are not copied.
    Vectored,
    /// All that waits as a chain of linked sends; large bodies are not copied.
    Linked,
}

impl Options {
    /// Reads the arguments behind the program's name.
    ///
    /// # Errors
    /// What is wrong, and the usage.
    pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        read(arguments).map_err(|fault| format!("{fault}\n{USAGE}"))
    }
}

fn read(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut listen, mut upstream) = (None, None);
    let unset = SocketAddr::from(([0, 0, 0, 0], 0));
    let mut options = Options { listen: unset, upstream: unset, ..defaults() };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name}: no value"))?;
        match name.as_str() {
            "--listen" => listen = Some(address(&value)?),
            "--upstream" => upstream = Some(address(&value)?),
            "--key" => options.key = key(value)?,
            "--flags" => options.flags = one(&name, &value, FLAGS)?,
            "--recv" => options.recv = one(&name, &value, RECVS)?,
            "--accept" => options.accept = one(&name, &value, SHOTS)?,
            "--files" => options.files = one(&name, &value, FILES)?,
            "--ring-fd" => options.ring_fd = one(&name, &value, FILES)?,
            "--send" => options.send = one(&name, &value, SENDS)?,
            "--try-first" => options.try_first = one(&name, &value, SWITCH)?,
            "--receive" => options.receive_bytes = receive(&value)?,
            "--buffers" => (options.buffers, options.buffer_bytes) = buffers(&value)?,
            _ => return Err(format!("{name}: unknown")),
        }
    }
    options.listen = listen.ok_or("--listen is missing")?;
    options.upstream = upstream.ok_or("--upstream is missing")?;
    Ok(options)
}

/// The plainest ring that monoio also has.
fn defaults() -> Options {
    let unset = SocketAddr::from(([0, 0, 0, 0], 0));
    Options {
        listen: unset,
        upstream: unset,
        key: "control-key".to_owned(),
        flags: Flags::Coop,
        recv: Recv::Single,
        accept: Shots::Single,
        files: Files::Plain,
        send: Send::Plain,
        ring_fd: Files::Plain,
        try_first: true,
        receive_bytes: RECEIVE_BYTES,
        buffers: 256,
        buffer_bytes: 32 * 1024,
    }
}

fn address(value: &str) -> Result<SocketAddr, String> {
    value.parse().map_err(|_| format!("{value}: not an address with a port"))
}

fn key(value: String) -> Result<String, String> {
    let visible = value.bytes().all(|byte| byte.is_ascii_graphic());
    if visible { Ok(value) } else { Err("--key: visible ASCII only".to_owned()) }
}

fn receive(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(bytes) if (4096..=1 << 20).contains(&bytes) => Ok(bytes),
        _ => Err(format!("--receive {value}: not from 4096 to 1048576")),
    }
}

fn buffers(value: &str) -> Result<(u16, u32), String> {
    let fault =
        || format!("{value}: not COUNTxBYTES (a power of two up to 32768; 4096 to 1048576)");
    let (count, bytes) = value.split_once('x').ok_or_else(fault)?;
    let (count, bytes) = (count.parse::<u16>(), bytes.parse::<u32>());
    match (count, bytes) {
        (Ok(count), Ok(bytes))
            if count.is_power_of_two() && count <= 32_768 && (4096..=1 << 20).contains(&bytes) =>
        {
            Ok((count, bytes))
        }
        _ => Err(fault()),
    }
}

fn one<T: Copy>(name: &str, value: &str, words: &[(&str, T)]) -> Result<T, String> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == value) {
        return Ok(*meaning);
    }
    let mut fault = format!("{name} {value}: not one of");
    for (word, _) in words {
        // Writing to a string does not fail.
        let _ = write!(fault, " {word}");
    }
    Err(fault)
}

const FLAGS: &[(&str, Flags)] = &[
    ("none", Flags::None),
    ("coop", Flags::Coop),
    ("defer", Flags::Defer),
    ("epoll", Flags::Epoll),
];
const RECVS: &[(&str, Recv)] =
    &[("single", Recv::Single), ("provided", Recv::Provided), ("multishot", Recv::Multishot)];
const SHOTS: &[(&str, Shots)] = &[("single", Shots::Single), ("multishot", Shots::Multishot)];
const FILES: &[(&str, Files)] = &[("plain", Files::Plain), ("registered", Files::Registered)];
const SENDS: &[(&str, Send)] =
    &[("plain", Send::Plain), ("vectored", Send::Vectored), ("linked", Send::Linked)];
const SWITCH: &[(&str, bool)] = &[("on", true), ("off", false)];
const USAGE: &str = "usage: RELAY --listen ADDR --upstream ADDR [--key WORD] \
[--flags none|coop|defer] [--receive BYTES]
ring-relay also: [--recv single|provided|multishot] [--accept single|multishot]
  [--files plain|registered] [--send plain|vectored|linked] [--ring-fd plain|registered] [--try-first on|off]
  [--buffers COUNTxBYTES]
monoio-relay also: [--flags epoll]";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_switch_is_read() {
        let line = "--listen 127.0.0.1:1 --upstream [::1]:2 --key k --flags defer --recv multishot \
            --accept multishot --files registered --send linked --ring-fd registered \
            --try-first off --receive 65536 --buffers 64x4096";
        let options = parse(line).unwrap();
        assert_eq!((options.listen.port(), options.upstream.port()), (1, 2));
        assert_eq!((options.flags, options.send), (Flags::Defer, Send::Linked));
        assert_eq!((options.recv, options.accept), (Recv::Multishot, Shots::Multishot));
        assert_eq!((options.files, options.ring_fd), (Files::Registered, Files::Registered));
        assert_eq!((options.buffers, options.buffer_bytes), (64, 4096));
        assert_eq!(options.receive_bytes, 65_536);
        assert!(!options.try_first && options.key == "k");
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for line in [
            "",
            "--listen 127.0.0.1:1",
            "--listen 127.0.0.1:1 --upstream nowhere",
            "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --flags",
            "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --flags some",
            "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --buffers 3x4096",
            "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --buffers 4x1",
            "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --receive 0",
            "--listen 127.0.0.1:1 --upstream 127.0.0.1:2 --speed high",
        ] {
            assert!(parse(line).unwrap_err().contains("usage"), "{line}");
        }
    }
}

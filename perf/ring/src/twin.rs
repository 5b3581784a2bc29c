//! The same relay on monoio: one task per client, which waits for each step before the next.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use monoio::buf::IoBuf;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, LegacyDriver, RuntimeBuilder};

use crate::message::{Message, NO_ANSWER, Rewrite};
use crate::options::{Flags, Options};
use crate::sockets::{ACCEPT_REST_MS, CLIENTS_MAX};

/// Relays what comes to `listener` until the process ends; calls `ready` once it accepts.
///
/// # Errors
/// When the event loop that was asked for cannot be had.
pub fn run(
    listener: std::net::TcpListener,
    options: &Options,
    ready: impl FnOnce(),
) -> io::Result<()> {
    let mut flags = io_uring_06::IoUring::builder();
    match options.flags {
        Flags::None => {}
        Flags::Coop => {
            flags.setup_coop_taskrun();
        }
        Flags::Defer => {
            flags.setup_single_issuer().setup_defer_taskrun();
        }
        Flags::Epoll => {
            let mut runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
            return runtime.block_on(serve(listener, options, ready));
        }
    }
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES);
    let mut runtime = builder.uring_builder(flags).enable_timer().build()?;
    runtime.block_on(serve(listener, options, ready))
}

struct Shared {
    rewrite: Rewrite,
    upstream: SocketAddr,
    receive_bytes: usize,
    /// Upstream connections without a request, the last used one last.
    idle: RefCell<Vec<TcpStream>>,
}

async fn serve(
    listener: std::net::TcpListener,
    options: &Options,
    ready: impl FnOnce(),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let rewrite = Rewrite::new(&options.upstream.to_string(), &options.key);
    let idle = RefCell::new(Vec::new());
    let (upstream, receive_bytes) = (options.upstream, options.receive_bytes);
    let shared = Rc::new(Shared { rewrite, upstream, receive_bytes, idle });
    ready();
    loop {
        match listener.accept().await {
            // The tasks and this loop hold one each.
            Ok((client, _)) if Rc::strong_count(&shared) <= CLIENTS_MAX => {
                monoio::spawn(converse(client, Rc::clone(&shared)));
            }
            Ok((client, _)) => drop(client),
            Err(_) => monoio::time::sleep(Duration::from_millis(ACCEPT_REST_MS)).await,
        }
    }
}

/// A client's connection, from accept to close.
async fn converse(mut client: TcpStream, shared: Rc<Shared>) {
    let input = Vec::with_capacity(shared.receive_bytes);
    let mut buffers = Buffers { input, ..Buffers::default() };
    while let Some(true) = exchange(&mut client, &shared, &mut buffers).await {}
}

#[derive(Default)]
struct Buffers {
    /// What the last receive brought.
    input: Vec<u8>,
    /// What is to be sent.
    out: Vec<u8>,
    /// Bytes of the client's next request.
    kept: Vec<u8>,
}

/// One request and its response: whether the connection lives on; none when it broke.
async fn exchange(client: &mut TcpStream, shared: &Shared, buffers: &mut Buffers) -> Option<bool> {
    let mut request = Message::request();
    let mut upstream = None;
    let mut input = std::mem::take(&mut buffers.input);
    if buffers.kept.is_empty() {
        input = receive(client, input).await?;
    } else {
        input.clear();
        input.append(&mut buffers.kept);
    }
    loop {
        let taken = match request.take(&input, &shared.rewrite, &mut buffers.out) {
            Ok(taken) => taken,
            Err(fault) if upstream.is_none() => {
                let _ = client.write_all(fault.answer()).await;
                return None;
            }
            Err(_) => return None,
        };
        if taken.head {
            upstream = shared.upstream().await;
            if upstream.is_none() {
                let _ = client.write_all(NO_ANSWER).await;
                return None;
            }
        }
        buffers.kept.extend_from_slice(input.get(taken.used..).unwrap_or_default());
        if let Some(upstream) = &mut upstream {
            input = send(upstream, input, taken.body, &mut buffers.out).await?;
        }
        if taken.done {
            break;
        }
        input = receive(client, input).await?;
    }
    buffers.input = input;
    let mut upstream = upstream?;
    let reusable = answer(client, &mut upstream, shared, buffers, &request).await?;
    if reusable {
        shared.idle.borrow_mut().push(upstream);
    }
    Some(request.keep_alive() && reusable)
}

/// Relays the response; whether the upstream connection may serve another request.
async fn answer(
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    shared: &Shared,
    buffers: &mut Buffers,
    request: &Message,
) -> Option<bool> {
    let mut response = Message::response();
    response.restart(request.is_head_request());
    loop {
        let Some(input) = receive(upstream, std::mem::take(&mut buffers.input)).await else {
            if response.is_untouched() {
                let _ = client.write_all(NO_ANSWER).await;
            }
            return None;
        };
        let taken = response.take(&input, &shared.rewrite, &mut buffers.out).ok()?;
        let clean = taken.used == input.len() && response.keep_alive();
        buffers.input = send(client, input, taken.body, &mut buffers.out).await?;
        if taken.done {
            return Some(clean);
        }
    }
}

/// The next bytes; none when there are no more.
async fn receive(from: &mut TcpStream, memory: Vec<u8>) -> Option<Vec<u8>> {
    let (result, memory) = from.read(memory).await;
    result.ok().filter(|&length| length > 0).map(|_| memory)
}

/// Sends what `out` holds and then the body in `input`: in one write, when there is a head.
async fn send(
    to: &mut TcpStream,
    input: Vec<u8>,
    body: std::ops::Range<usize>,
    out: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    if !out.is_empty() {
        out.extend_from_slice(input.get(body).unwrap_or_default());
        let (result, mut memory) = to.write_all(std::mem::take(out)).await;
        result.ok()?;
        memory.clear();
        *out = memory;
        return Some(input);
    }
    if body.is_empty() {
        return Some(input);
    }
    let (result, memory) = to.write_all(input.slice(body)).await;
    result.ok()?;
    Some(memory.into_inner())
}

impl Shared {
    /// A connection to the upstream, a used one if there is one.
    async fn upstream(&self) -> Option<TcpStream> {
        let idle = self.idle.borrow_mut().pop();
        if idle.is_some() {
            return idle;
        }
        let stream = TcpStream::connect_addr(self.upstream).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(stream)
    }
}

/// As many as the ring of our own has.
const RING_ENTRIES: u32 = 4096;

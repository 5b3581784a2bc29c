//! Control: a relay of monoio-http's codecs on monoio. As a control only: that codec takes what a
//! gateway must refuse (conflicting lengths, endless heads and bodies), so it can stand on no path
//! that guards anything.

use std::cell::RefCell;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Response, StatusCode};
use monoio::io::sink::SinkExt;
use monoio::io::stream::Stream;
use monoio::net::{TcpListener, TcpStream};
use monoio::{IoUringDriver, RuntimeBuilder};
use monoio_http::common::error::HttpError;
use monoio_http::common::request::Request;
use monoio_http::h1::codec::decoder::FillPayload;
use monoio_http::h1::codec::{ClientCodec, ServerCodec};
use monoio_http::h1::payload::Payload;
use portcullis_controls::{ACCEPT_REST, CLIENTS_MAX, Options};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::from(64);
        }
    };
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("monoio-http-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> std::io::Result<()> {
    let mut flags = io_uring::IoUring::builder();
    flags.setup_coop_taskrun();
    let builder = RuntimeBuilder::<IoUringDriver>::new().with_entries(RING_ENTRIES);
    let mut runtime = builder.uring_builder(flags).enable_timer().build()?;
    runtime.block_on(serve(options))
}

/// The relay and its upstream connections without a request, the last used one last.
struct Relay {
    options: Options,
    idle: RefCell<Vec<ClientCodec<TcpStream>>>,
}

async fn serve(options: Options) -> std::io::Result<()> {
    let listener = options.listener()?;
    eprintln!("listening on {}", listener.local_addr()?);
    let listener = TcpListener::from_std(listener)?;
    let relay = Rc::new(Relay { options, idle: RefCell::new(Vec::new()) });
    loop {
        match listener.accept().await {
            Ok((stream, _)) if Rc::strong_count(&relay) <= CLIENTS_MAX => {
                let relay = Rc::clone(&relay);
                monoio::spawn(async move {
                    let mut client = ServerCodec::new(stream);
                    while let Some(Ok(request)) = client.next().await {
                        if relay.answer(&mut client, request).await.is_none() {
                            return;
                        }
                    }
                });
            }
            Ok((stream, _)) => drop(stream),
            Err(_) => monoio::time::sleep(ACCEPT_REST).await,
        }
    }
}

impl Relay {
    /// Relays a request and its answer; none when the client's connection is of no use any more.
    async fn answer(
        &self,
        client: &mut ServerCodec<TcpStream>,
        mut request: Request,
    ) -> Option<()> {
        // The codec needs somebody to read on while the body is consumed. It holds fixed bodies
        // whole in any case, so reading all of it first costs nothing more.
        client.fill_payload().await.ok()?;
        self.options.rewrite.request(request.headers_mut());
        without_framing(request.headers_mut());
        let Some(mut upstream) = self.upstream().await else {
            return no_answer(client).await;
        };
        if upstream.send_and_flush(request).await.is_err() {
            return no_answer(client).await;
        }
        let Some(Ok(mut response)) = upstream.next().await else {
            return no_answer(client).await;
        };
        without_framing(response.headers_mut());
        let closing = response.headers_mut().remove(CONNECTION).is_some();
        let (head, body) = response.into_parts();
        let response = Response::from_parts(head, body.with_io(&mut upstream));
        client.send_and_flush(response).await.ok()?;
        if !closing {
            self.idle.borrow_mut().push(upstream);
        }
        Some(())
    }

    /// A connection to the upstream, a used one if there is one.
    async fn upstream(&self) -> Option<ClientCodec<TcpStream>> {
        let idle = self.idle.borrow_mut().pop();
        if idle.is_some() {
            return idle;
        }
        let stream = TcpStream::connect_addr(self.options.upstream).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(ClientCodec::new(stream))
    }
}

async fn no_answer(client: &mut ServerCodec<TcpStream>) -> Option<()> {
    let mut response = Response::new(Payload::<Bytes, HttpError>::None);
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    client.send_and_flush(response).await.ok()
}

/// The encoder writes the framing of the body that it is given.
fn without_framing(fields: &mut HeaderMap) {
    fields.remove(CONTENT_LENGTH);
    fields.remove(TRANSFER_ENCODING);
}

/// As many as the other relays have.
const RING_ENTRIES: u32 = 4096;

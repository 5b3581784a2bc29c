//! Control: a relay of hyper's HTTP/1 server and client on one thread of tokio.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::header::CONNECTION;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{Either, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use portcullis_controls::{ACCEPT_REST, CLIENTS_MAX, Options};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

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
            eprintln!("hyper-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
    LocalSet::new().block_on(&runtime, serve(options))
}

/// The relay and its upstream connections without a request, the last used one last.
struct Relay {
    options: Options,
    idle: RefCell<Vec<SendRequest<Incoming>>>,
}

/// The body of an answer. Its upstream connection takes another request once it is read, and goes
/// back to the others when this ends.
struct Answer {
    body: Incoming,
    upstream: Option<SendRequest<Incoming>>,
    relay: Rc<Relay>,
}

async fn serve(options: Options) -> std::io::Result<()> {
    let listener = TcpListener::from_std(options.listener()?)?;
    eprintln!("listening on {}", listener.local_addr()?);
    let relay = Rc::new(Relay { options, idle: RefCell::new(Vec::new()) });
    loop {
        match listener.accept().await {
            Ok((stream, _)) if Rc::strong_count(&relay) <= CLIENTS_MAX => {
                let relay = Rc::clone(&relay);
                spawn_local(async move {
                    let service = service_fn(|request| answer(Rc::clone(&relay), request));
                    let serving =
                        server::Builder::new().serve_connection(TokioIo::new(stream), service);
                    // A client that breaks off is no fault of ours.
                    let _ = serving.await;
                });
            }
            Ok((stream, _)) => drop(stream),
            Err(_) => tokio::time::sleep(ACCEPT_REST).await,
        }
    }
}

async fn answer(
    relay: Rc<Relay>,
    request: Request<Incoming>,
) -> Result<Response<Either<Answer, Empty<Bytes>>>, Infallible> {
    Ok(match relay.forward(request).await {
        Some((response, upstream)) => response.map(|body| {
            let upstream = Some(upstream);
            Either::Left(Answer { body, upstream, relay })
        }),
        None => {
            let mut refusal = Response::new(Either::Right(Empty::new()));
            *refusal.status_mut() = StatusCode::BAD_GATEWAY;
            refusal
        }
    })
}

impl Relay {
    async fn forward(
        &self,
        mut request: Request<Incoming>,
    ) -> Option<(Response<Incoming>, SendRequest<Incoming>)> {
        self.options.rewrite.request(request.headers_mut());
        // An origin server is asked by path alone.
        let path = request.uri().path_and_query()?.clone();
        *request.uri_mut() = Uri::from(path);
        let mut upstream = self.upstream().await?;
        let mut response = upstream.send_request(request).await.ok()?;
        response.headers_mut().remove(CONNECTION);
        Some((response, upstream))
    }

    /// A connection to the upstream that can take a request, a used one if there is one.
    async fn upstream(&self) -> Option<SendRequest<Incoming>> {
        while let Some(mut upstream) = self.take_idle() {
            if upstream.ready().await.is_ok() {
                return Some(upstream);
            }
        }
        let stream = TcpStream::connect(self.options.upstream).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (upstream, connection) = client::handshake(TokioIo::new(stream)).await.ok()?;
        spawn_local(connection);
        Some(upstream)
    }

    /// No borrow of the list lasts over a wait.
    fn take_idle(&self) -> Option<SendRequest<Incoming>> {
        self.idle.borrow_mut().pop()
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A body that was not read to its end closes its connection; whoever waits for it then
        // learns so and takes another.
        self.relay.idle.borrow_mut().extend(self.upstream.take());
    }
}

//! A small HTTP/1.1 GET for the control thread: key sets and discovery documents.
//!
//! One request, one connection, no redirects (a redirect would leave the checked address), and the
//! whole answer is bounded in bytes and time.

use std::net::SocketAddr;

use super::dial::dial;
use super::tls::ClientTls;
use super::{NetError, Stream, Timers};
use crate::clock::Monotonic;
use crate::config::UpstreamUrl;
use crate::http::{BodyDecoder, Field, Method, ResponseHead, write};
use crate::limits::UPSTREAM_HEAD_BYTES_MAX;
use crate::reject::Reject;

/// What was answered, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599; a redirect is an answer like any other and is not followed.
    pub status: u16,
    /// `Cache-Control`, when there is one.
    pub cache_control: Option<String>,
    /// The body, without its transfer coding.
    pub body: Vec<u8>,
}

/// Fetches `url` from one of `addresses`, which were resolved from its host and permitted; `tls` is
/// needed for https.
///
/// # Errors
/// As [`dial`]; [`Reject::UpstreamTls`] for https without `tls`;
/// [`Reject::UpstreamTimeout`] when `until` passes; [`Reject::UpstreamEof`] when the
/// peer closes early; [`Reject::UpstreamMalformed`] when the answer is not HTTP, is coded, or its
/// body is longer than `bytes_max`.
pub async fn get(
    url: &UpstreamUrl,
    addresses: &[SocketAddr],
    tls: Option<&ClientTls>,
    bytes_max: usize,
    timers: &Timers,
    until: Monotonic,
) -> Result<Answer, Reject> {
    let secure = match (url.tls, tls) {
        (false, _) => None,
        (true, Some(tls)) => Some((tls, url.host.as_str())),
        (true, None) => return Err(Reject::UpstreamTls),
    };
    let mut stream = dial(addresses, secure, timers, until).await?;
    let mut request = Vec::with_capacity(512);
    write::request_line("GET", url.target.as_bytes(), &mut request)?;
    write::header(b"host", url.authority.as_bytes(), &mut request)?;
    write::header(b"accept", b"application/json", &mut request)?;
    write::header(b"user-agent", b"portcullis", &mut request)?;
    write::header(b"connection", b"close", &mut request)?;
    request.extend_from_slice(write::CRLF);
    stream.write_all(request, until).await.0.map_err(meaning)?;
    receive(&mut stream, bytes_max, until).await
}

async fn receive(
    stream: &mut Stream,
    bytes_max: usize,
    until: Monotonic,
) -> Result<Answer, Reject> {
    let (head, mut buf, end) = read_head(stream, Method::Get, until).await?;
    if head.field(&buf, Field::ContentEncoding).is_some() {
        // None was asked for (RFC 9110 §12.5.3), and none is undone here.
        return Err(Reject::UpstreamMalformed);
    }
    let cache_control = head.field(&buf, Field::CacheControl).map(String::from_utf8_lossy);
    let cache_control = cache_control.map(std::borrow::Cow::into_owned);
    let status = head.status();
    let decoder = BodyDecoder::new(head.framing(), bytes_max as u64);
    buf.drain(..end);
    let decoder = decoder.map_err(|_| Reject::UpstreamMalformed)?;
    let (body, _) = read_body(stream, decoder, buf, bytes_max, until).await?;
    Ok(Answer { status, cache_control, body })
}

/// The head of the answer to a request with the method `answered`: itself, all bytes read, and how
/// many of them are its own.
pub(super) async fn read_head(
    stream: &mut Stream,
    answered: Method,
    until: Monotonic,
) -> Result<(ResponseHead, Vec<u8>, usize), Reject> {
    let mut head = ResponseHead::new();
    let mut buf = Vec::with_capacity(READ_BYTES);
    loop {
        match head.parse(&buf, answered)? {
            Some(end) if head.is_interim() => {
                buf.drain(..end);
                head.next_after_interim()?;
            }
            Some(end) => return Ok((head, buf, end)),
            None if buf.len() > UPSTREAM_HEAD_BYTES_MAX => return Err(Reject::UpstreamMalformed),
            None if fill(stream, &mut buf, until).await? == 0 => return Err(Reject::UpstreamEof),
            None => {}
        }
    }
}

/// The body, and what came behind it.
pub(super) async fn read_body(
    stream: &mut Stream,
    mut decoder: BodyDecoder,
    mut buf: Vec<u8>,
    bytes_max: usize,
    until: Monotonic,
) -> Result<(Vec<u8>, Vec<u8>), Reject> {
    let mut body = Vec::new();
    while !decoder.finished() {
        let step = decoder.decode(&buf).map_err(|_| Reject::UpstreamMalformed)?;
        body.extend_from_slice(buf.get(step.data).unwrap_or_default());
        buf.drain(..step.consumed.min(buf.len()));
        if body.len() > bytes_max {
            return Err(Reject::UpstreamMalformed);
        }
        if step.done || step.consumed > 0 {
            continue;
        }
        if fill(stream, &mut buf, until).await? == 0 {
            decoder.end_of_input().map_err(|_| Reject::UpstreamEof)?;
            break;
        }
    }
    Ok((body, buf))
}

pub(super) async fn fill(
    stream: &mut Stream,
    buf: &mut Vec<u8>,
    until: Monotonic,
) -> Result<usize, Reject> {
    let mut taken = std::mem::take(buf);
    taken.reserve(READ_BYTES);
    let (result, taken) = stream.read(taken, until).await;
    *buf = taken;
    result.map_err(meaning)
}

pub(super) const fn meaning(error: NetError) -> Reject {
    match error {
        NetError::Timeout => Reject::UpstreamTimeout,
        NetError::Closed | NetError::Io(_) => Reject::UpstreamEof,
        NetError::Tls => Reject::UpstreamTls,
    }
}

/// One read.
const READ_BYTES: usize = 4096;

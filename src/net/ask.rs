//! A question to another service: one POST of JSON, one answer of JSON, over a connection that is
//! kept. Redirects are answers like any other (a redirect would leave the checked address), and
//! everything is bounded in bytes and time.

use super::client::{fill, meaning, read_body};
use super::{Stream, Wiped};
use crate::clock::Monotonic;
use crate::http::{BodyDecoder, Field, Framing, Method, ResponseHead, write};
use crate::limits::UPSTREAM_HEAD_BYTES_MAX;
use crate::reject::Reject;
use crate::secret::Secret;

/// One question.
#[derive(Clone, Copy)]
pub struct Post<'a> {
    /// `Host`.
    pub authority: &'a str,
    /// Origin form.
    pub target: &'a str,
    /// Written into `Authorization` (RFC 6750 §2.1), and nowhere else.
    pub bearer: Option<&'a Secret>,
    /// `X-Request-ID`; an answer that carries another one is another question's.
    pub request_id: &'a str,
    /// JSON.
    pub body: &'a [u8],
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The connection ended before one byte came: one that was kept may have been closed meanwhile,
    /// and the question may be asked again.
    Silent,
    /// Anything else.
    Failed(Reject),
}

impl From<Reject> for Unanswered {
    fn from(reject: Reject) -> Self {
        Self::Failed(reject)
    }
}

/// Asks over `stream`: the body of a 200 with `application/json`, and whether the connection may
/// carry another question.
///
/// # Errors
/// [`Unanswered`]; the connection must be closed.
pub async fn post(
    stream: &mut Stream,
    post: &Post<'_>,
    bytes_max: usize,
    until: Monotonic,
) -> Result<(Vec<u8>, bool), Unanswered> {
    // Wiped when it is dropped: a bearer token is in there.
    let mut request = Wiped::new();
    request.grow(HEAD_ROOM_BYTES + post.body.len() + post.bearer.map_or(0, Secret::len));
    let mut bytes = request.take();
    let written = write_request(post, &mut bytes);
    let sent = match written {
        Ok(()) => {
            let (sent, returned) = stream.write_all(bytes, until).await;
            bytes = returned;
            sent.map_err(meaning)
        }
        Err(reject) => Err(reject),
    };
    request.put(bytes);
    match sent {
        Ok(()) => {}
        Err(Reject::UpstreamEof) => return Err(Unanswered::Silent),
        Err(reject) => return Err(reject.into()),
    }
    receive(stream, post.request_id, bytes_max, until).await
}

fn write_request(post: &Post<'_>, out: &mut Vec<u8>) -> Result<(), Reject> {
    write::request_line("POST", post.target.as_bytes(), out)?;
    write::header(b"host", post.authority.as_bytes(), out)?;
    write::header(b"accept", b"application/json", out)?;
    write::header(b"content-type", b"application/json", out)?;
    write::header(b"user-agent", b"portcullis", out)?;
    write::header(b"x-request-id", post.request_id.as_bytes(), out)?;
    if let Some(bearer) = post.bearer {
        // Judged when it was read: it cannot end the line.
        out.extend_from_slice(b"authorization: Bearer ");
        out.extend_from_slice(bearer.expose());
        out.extend_from_slice(write::CRLF);
    }
    write::content_length(post.body.len() as u64, out);
    out.extend_from_slice(write::CRLF);
    out.extend_from_slice(post.body);
    Ok(())
}

async fn receive(
    stream: &mut Stream,
    request_id: &str,
    bytes_max: usize,
    until: Monotonic,
) -> Result<(Vec<u8>, bool), Unanswered> {
    let mut head = ResponseHead::new();
    let mut buf = Vec::new();
    let end = loop {
        match head.parse(&buf, Method::Post)? {
            Some(end) if head.is_interim() => {
                buf.drain(..end);
                head.next_after_interim()?;
            }
            Some(end) => break end,
            None if buf.len() > UPSTREAM_HEAD_BYTES_MAX => {
                return Err(Reject::UpstreamMalformed.into());
            }
            None => match fill(stream, &mut buf, until).await {
                Ok(1..) => {}
                Ok(0) | Err(Reject::UpstreamEof) if buf.is_empty() => {
                    return Err(Unanswered::Silent);
                }
                Ok(0) => return Err(Reject::UpstreamEof.into()),
                Err(reject) => return Err(reject.into()),
            },
        }
    };
    if !is_answer(&head, &buf, request_id) {
        return Err(Reject::UpstreamMalformed.into());
    }
    let framing = head.framing();
    let decoder = BodyDecoder::new(framing, bytes_max as u64);
    buf.drain(..end);
    let decoder = decoder.map_err(|_| Reject::UpstreamMalformed)?;
    let (body, rest) = read_body(stream, decoder, buf, bytes_max, until).await?;
    // Surplus bytes would be taken for the answer to the next question.
    let kept = head.keep_alive() && framing != Framing::UntilClose && rest.is_empty();
    Ok((body, kept))
}

/// A 200 in JSON, as it is, to this very question.
fn is_answer(head: &ResponseHead, buf: &[u8], request_id: &str) -> bool {
    let kind = head.field(buf, Field::ContentType).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let mut ids = head.fields(buf).filter(|(name, _)| name.eq_ignore_ascii_case(b"x-request-id"));
    head.status() == 200
        && kind.eq_ignore_ascii_case(b"application/json")
        && head.field(buf, Field::ContentEncoding).is_none()
        && ids.all(|(_, id)| id == request_id.as_bytes())
}

/// What a head takes beside the token.
const HEAD_ROOM_BYTES: usize = 1024;

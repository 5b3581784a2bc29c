//! One request over a connection of its own, and its answer read piece by piece: for a caller that
//! decides while it reads when it has enough. Nothing is followed, and every wait has its deadline;
//! how many bytes are too many is the caller's to say.

use super::client::{fill, meaning, read_head};
use super::{Stream, Wiped};
use crate::clock::Monotonic;
use crate::http::{BodyDecoder, Field, Method, ResponseHead};
use crate::reject::Reject;

/// An answer whose head has been read. Dropped, it closes the connection.
pub struct Reply {
    stream: Stream,
    head: ResponseHead,
    /// The bytes that `head` points into.
    head_bytes: Vec<u8>,
    decoder: BodyDecoder,
    /// Read, and not decoded yet.
    pending: Vec<u8>,
}

impl Reply {
    /// Sends `request`, whole and with `Connection: close`, and reads the head of the answer; both
    /// before `until`. `method` is the one that `request` has.
    ///
    /// # Errors
    /// [`Reject::UpstreamTimeout`]; [`Reject::UpstreamEof`] when the peer leaves;
    /// [`Reject::UpstreamMalformed`] when the answer is not HTTP.
    pub async fn to(
        mut stream: Stream,
        mut request: Wiped,
        method: Method,
        until: Monotonic,
    ) -> Result<Self, Reject> {
        let (sent, bytes) = stream.write_all(request.take(), until).await;
        // Wiped when it is dropped: a credential may be in there.
        request.put(bytes);
        sent.map_err(meaning)?;
        let (head, mut head_bytes, end) = read_head(&mut stream, method, until).await?;
        let pending = head_bytes.split_off(end.min(head_bytes.len()));
        let decoder = BodyDecoder::new(head.framing(), u64::MAX);
        let decoder = decoder.map_err(|_| Reject::UpstreamMalformed)?;
        Ok(Self { stream, head, head_bytes, decoder, pending })
    }

    /// 200 to 599; a redirect is an answer like any other.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The value of a field; of a repeated list field the first line.
    #[must_use]
    pub fn field(&self, field: Field) -> Option<&[u8]> {
        self.head.field(&self.head_bytes, field)
    }

    /// The next bytes of the body, without its transfer coding, never none of them; `None` at its
    /// end.
    ///
    /// # Errors
    /// As [`Reply::to`].
    pub async fn next(&mut self, until: Monotonic) -> Result<Option<Vec<u8>>, Reject> {
        while !self.decoder.finished() {
            let step = self.decoder.decode(&self.pending).map_err(|_| Reject::UpstreamMalformed)?;
            let data = self.pending.get(step.data).unwrap_or_default().to_vec();
            self.pending.drain(..step.consumed.min(self.pending.len()));
            if !data.is_empty() {
                return Ok(Some(data));
            }
            if step.done || step.consumed > 0 {
                continue;
            }
            if fill(&mut self.stream, &mut self.pending, until).await? == 0 {
                self.decoder.end_of_input().map_err(|_| Reject::UpstreamEof)?;
                break;
            }
        }
        Ok(None)
    }
}

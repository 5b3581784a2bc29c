//! The operations of one socket: each ends by its deadline, is awaited to its end, and loses
//! nothing.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::mem;
use std::pin::pin;
use std::task::Poll;

use monoio::buf::{IoBuf, IoBufMut};
use monoio::io::Canceller;
use rustix::io::Errno;

use super::NetError;
use super::timers::{Alarm, Timers};
use super::wire::Wire;
use crate::clock::Monotonic;
use crate::limits::WRITE_NOW_BYTES_MIN;

/// A socket with the one alarm and the one canceller that its operations share.
pub(super) struct Socket {
    pub(super) wire: Wire,
    pub(super) alarm: Alarm,
    canceller: Canceller,
    /// An operation failed, or is in flight, or was dropped in flight: no further one.
    pub(super) broken: bool,
}

impl Socket {
    pub(super) fn new(wire: Wire, timers: Timers) -> Self {
        Self { wire, alarm: Alarm::new(timers), canceller: Canceller::new(), broken: false }
    }

    /// Reads into `buf` behind what it holds, up to `end`, which is within its capacity.
    pub(super) async fn read(
        &mut self,
        buf: Vec<u8>,
        end: usize,
        until: Monotonic,
    ) -> (Result<usize, NetError>, Vec<u8>) {
        if self.broken {
            return (Err(NetError::Closed), buf);
        }
        self.broken = true;
        self.alarm.arm(until);
        let begin = buf.len();
        let handle = self.canceller.handle();
        let operation = self.wire.read(buf.slice_mut(begin..end), handle);
        let (result, slice) = to_its_end(operation, &self.alarm, &mut self.canceller).await;
        self.alarm.disarm();
        let result = result.map_err(meaning);
        self.broken = !matches!(result, Ok(_) | Err(NetError::Timeout));
        (result, slice.into_inner())
    }

    /// A small write is an operation of the event loop, which hands many of them to the kernel at
    /// once. A large one goes straight to the socket, where it mostly finds room: it carries the
    /// cost of its own system call, and two parts need no copy. What finds none is an operation.
    pub(super) async fn write_both(
        &mut self,
        mut head: Vec<u8>,
        mut body: Vec<u8>,
        begin: usize,
        until: Monotonic,
    ) -> (Result<(), NetError>, Vec<u8>, Vec<u8>) {
        let behind = body.get(begin..).unwrap_or_default();
        if self.broken {
            return (Err(NetError::Closed), head, body);
        }
        if head.is_empty() && behind.is_empty() {
            return (Ok(()), head, body);
        }
        self.broken = true;
        let batched = behind.is_empty() && head.len() < WRITE_NOW_BYTES_MIN;
        let now = if batched { Ok(0) } else { self.wire.write_now(&head, behind) };
        let sent = match now {
            Ok(sent) if sent == head.len() + behind.len() => {
                self.broken = false;
                return (Ok(()), head, body);
            }
            Ok(sent) => sent,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(error) => return (Err(meaning(error)), head, body),
        };
        self.alarm.arm(until);
        let mut result = Ok(());
        if sent < head.len() {
            (result, head) = self.write_rest(head, sent).await;
        }
        if result.is_ok() {
            let begin = begin + sent.saturating_sub(head.len());
            (result, body) = self.write_rest(body, begin).await;
        }
        self.alarm.disarm();
        self.broken = result.is_err();
        (result, head, body)
    }

    async fn write_rest(
        &mut self,
        mut buf: Vec<u8>,
        mut begin: usize,
    ) -> (Result<(), NetError>, Vec<u8>) {
        while begin < buf.len() {
            let end = buf.len();
            let handle = self.canceller.handle();
            let operation = self.wire.write(buf.slice(begin..end), handle);
            let (result, slice) = to_its_end(operation, &self.alarm, &mut self.canceller).await;
            buf = slice.into_inner();
            match result {
                Ok(0) => return (Err(NetError::Closed), buf),
                Ok(count) => begin += count,
                Err(error) => return (Err(meaning(error)), buf),
            }
        }
        (Ok(()), buf)
    }
}

/// Awaits `operation`; when the alarm rings it is cancelled, and still awaited: the kernel may have
/// finished it before it saw the cancellation, and then its bytes count.
async fn to_its_end<F: Future>(
    operation: F,
    alarm: &Alarm,
    canceller: &mut Canceller,
) -> F::Output {
    let mut operation = pin!(operation);
    let mut cancelled = false;
    poll_fn(|context| {
        if let Poll::Ready(output) = operation.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        if !cancelled && alarm.poll(context).is_ready() {
            cancelled = true;
            *canceller = mem::take(canceller).cancel();
        }
        Poll::Pending
    })
    .await
}

fn meaning(error: std::io::Error) -> NetError {
    if error.raw_os_error() == Some(Errno::CANCELED.raw_os_error()) {
        return NetError::Timeout;
    }
    error.into()
}

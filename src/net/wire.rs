//! What carries the bytes of a [`super::Stream`]: a socket, or for the bench `whole_way` a script.

use monoio::BufResult;
use monoio::buf::{Slice, SliceMut};
use monoio::io::{AsyncWriteRent, CancelHandle, CancelableAsyncReadRent, CancelableAsyncWriteRent};
use monoio::net::TcpStream;

#[cfg(feature = "bench-internals")]
use super::script::Script;

/// A TCP socket; with the feature `bench-internals` also a peer that is always ready.
pub(super) enum Wire {
    Tcp(TcpStream),
    #[cfg(feature = "bench-internals")]
    Script(Script),
}

impl Wire {
    /// Reads into the slice, as one operation of the event loop.
    pub(super) async fn read(
        &mut self,
        buf: SliceMut<Vec<u8>>,
        handle: CancelHandle,
    ) -> BufResult<usize, SliceMut<Vec<u8>>> {
        match self {
            Self::Tcp(tcp) => tcp.cancelable_read(buf, handle).await,
            #[cfg(feature = "bench-internals")]
            Self::Script(script) => script.read(buf),
        }
    }

    /// Writes the slice, or a part of it, as one operation of the event loop.
    pub(super) async fn write(
        &mut self,
        buf: Slice<Vec<u8>>,
        handle: CancelHandle,
    ) -> BufResult<usize, Slice<Vec<u8>>> {
        match self {
            Self::Tcp(tcp) => tcp.cancelable_write(buf, handle).await,
            #[cfg(feature = "bench-internals")]
            Self::Script(script) => script.write(buf),
        }
    }

    /// Writes what the socket takes at once of `head`, then of `body`.
    pub(super) fn write_now(&self, head: &[u8], body: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(tcp) => crate::mapped::send_now(tcp, head, body),
            #[cfg(feature = "bench-internals")]
            Self::Script(_) => Ok(head.len() + body.len()),
        }
    }

    /// Waits until a read would not block. May be dropped.
    pub(super) async fn readable(&self) {
        match self {
            // An error here is an error of the next read, which will say what it is.
            Self::Tcp(tcp) => drop(tcp.readable(false).await),
            #[cfg(feature = "bench-internals")]
            Self::Script(_) => {}
        }
    }

    /// Makes the coming close a reset.
    pub(super) fn reset_on_close(&self) {
        match self {
            Self::Tcp(tcp) => crate::mapped::reset_on_close(tcp),
            #[cfg(feature = "bench-internals")]
            Self::Script(_) => {}
        }
    }

    /// True when the peer sent nothing and did not close.
    pub(super) fn is_quiet(&self) -> bool {
        match self {
            Self::Tcp(tcp) => crate::mapped::is_quiet(tcp),
            #[cfg(feature = "bench-internals")]
            Self::Script(_) => true,
        }
    }

    /// Says that nothing more will be written; false when the socket is broken.
    pub(super) async fn shutdown(&mut self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.shutdown().await.is_ok(),
            #[cfg(feature = "bench-internals")]
            Self::Script(_) => true,
        }
    }
}

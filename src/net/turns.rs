//! One whole turn of the event loop: whatever the kernel has ready by then is taken up.
//!
//! A task that only yields (see [`super::runtime::turn`]) may run several times before the driver
//! looks for events, so it cannot tell turns apart. A byte that one hand sends and the other
//! receives comes by way of the driver, together with everything else that is ready.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;

use monoio::io::AsyncReadRent as _;

use super::runtime;

/// Counts the turns of the event loop that it is awaited on.
pub struct Turns {
    near: UnixStream,
    far: monoio::net::UnixStream,
    buffer: Vec<u8>,
    /// The pair failed, which no kernel has a reason for; yielding is the next best thing.
    broken: bool,
}

impl Turns {
    /// For the event loop of this thread.
    ///
    /// # Errors
    /// What the kernel said when there was no pair of sockets to be had.
    pub fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(monoio::utils::is_legacy())?;
        let far = monoio::net::UnixStream::from_std(far)?;
        Ok(Self { near, far, buffer: vec![0; BUFFER_BYTES], broken: false })
    }

    /// Ends when the loop has looked for events once.
    pub async fn next(&mut self) {
        if self.broken {
            return runtime::turn().await;
        }
        let mut reading = pin!(self.far.read(std::mem::take(&mut self.buffer)));
        let mut sent = false;
        // The read waits before there is anything to read: epoll would find the byte without the
        // driver, and nothing would have turned.
        let read = poll_fn(|context| match reading.as_mut().poll(context) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending if !sent => {
                sent = (&self.near).write_all(&[1]).is_ok();
                if sent { Poll::Pending } else { Poll::Ready(None) }
            }
            Poll::Pending => Poll::Pending,
        })
        .await;
        match read {
            Some((Ok(_), buffer)) => self.buffer = buffer,
            Some((Err(_), _)) | None => self.broken = true,
        }
    }
}

/// Room for more bytes than are ever under way.
const BUFFER_BYTES: usize = 8;

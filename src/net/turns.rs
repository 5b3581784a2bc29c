//! One whole turn of the event loop: whatever the kernel has ready by then is taken up.
//!
//! A task that only yields (see [`super::runtime::turn`]) may run several times before the driver
//! looks for events, so it cannot tell turns apart. A byte that one hand sends and the other
//! receives comes by way of the driver, together with everything else that is ready.

use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;

use monoio::io::AsyncReadRent as _;

use super::runtime;

/// Counts the turns of the event loop that it is awaited on.
pub struct Turns {
    near: UnixStream,
    far: monoio::net::UnixStream,
    buffer: Vec<u8>,
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
        Ok(Self { near, far, buffer: vec![0; BUFFER_BYTES] })
    }

    /// Ends when the loop has looked for events once.
    pub async fn next(&mut self) {
        if (&self.near).write_all(&[1]).is_err() {
            return runtime::turn().await;
        }
        let (read, buffer) = self.far.read(std::mem::take(&mut self.buffer)).await;
        self.buffer = buffer;
        if read.is_err() {
            runtime::turn().await;
        }
    }
}

/// Room for more bytes than are ever under way.
const BUFFER_BYTES: usize = 8;

//! The one file with `unsafe`: a file mapped into memory and shared with it, as words; and the
//! descriptors that systemd passes by number.
//!
//! The mapping is handed out as atomic words, so two threads that use it can at worst read each
//! other's words in an odd order, never race in the language's sense; who may write which word, and
//! when, is said by the ring that lives in it (`audit::ring`).

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// A file whose bytes are this process' memory: what is stored here outlives the process, because
/// the kernel owns the pages (but not a power cut, unless somebody calls `fsync`).
pub struct Mapped {
    map: MmapRaw,
    words: usize,
}

impl Mapped {
    /// Maps the first `words` 64-bit words of `file`, which is made that long.
    ///
    /// The blocks are allocated here: a store into a hole of a full disk would be a SIGBUS, that
    /// is, a dead gateway instead of an error that can be told.
    ///
    /// # Errors
    /// No space, no right, or no memory. Truncating the file later is the one thing that this
    /// cannot survive; the directory must belong to the gateway alone.
    pub fn new(file: &File, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(WORD_BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        if bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        allocate(file, bytes as u64)?;
        let map = MmapOptions::new().len(bytes).map_raw(file)?;
        Ok(Self { map, words })
    }

    /// All words, in file order. A word is stored in the byte order of the machine.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` is readable and writable, `words * 8` bytes long (`new`), page aligned (so
        // aligned for 64-bit words) and lives as long as `self`. Every bit pattern is a valid
        // `AtomicU64`, and all access goes through atomics, in this process by this type alone.
        unsafe { std::slice::from_raw_parts(self.map.as_mut_ptr().cast::<AtomicU64>(), self.words) }
    }
}

fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        // Some file systems cannot reserve; writing what is missing does it as well.
        Err(Errno::OPNOTSUPP) => {
            let page = [0; 4096];
            let mut at = file.metadata()?.len();
            while at < bytes {
                let count = (bytes - at).min(page.len() as u64);
                file.write_all_at(page.get(..count as usize).unwrap_or_default(), at)?;
                at += count;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

const WORD_BYTES: usize = size_of::<AtomicU64>();

/// Takes ownership of descriptor `number`, which systemd passed to this process (sd_listen_fds).
/// Called once per number, before any other descriptor of this process can have it.
///
/// # Errors
/// In words: there is no such descriptor.
pub fn passed_descriptor(number: i32) -> Result<OwnedFd, String> {
    if number < FIRST_PASSED {
        return Err(format!("descriptor {number} cannot be a passed socket"));
    }
    // SAFETY: the number is borrowed for this one call, which fails on a descriptor that is not
    // open.
    let open = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(number) });
    open.map_err(|_| format!("descriptor {number} was announced by LISTEN_FDS but is not open"))?;
    let bit = u32::try_from(number).ok().and_then(|number| 1_u64.checked_shl(number)).unwrap_or(0);
    if bit == 0 || TAKEN.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(format!("descriptor {number} was taken already"));
    }
    // SAFETY: it is open, by the protocol of sd_listen_fds(3) nobody else in this process owns it,
    // and the bit above gives it away once only.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// True when nothing waits in `socket` and its peer has not closed: a look that takes nothing, one
/// system call that never waits.
pub fn is_quiet(socket: &impl AsRawFd) -> bool {
    // SAFETY: `socket` is borrowed for the whole call, so its descriptor stays open.
    let socket = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = rustix::net::recv(socket, &mut [0_u8; 1], flags);
    matches!(seen, Err(Errno::AGAIN))
}

/// Makes the coming close of `socket` a reset: the peer of an answer that was cut, and that has no
/// other sign of its end, must not take what it got for all of it.
pub fn reset_on_close(socket: &impl AsRawFd) {
    // SAFETY: `socket` is borrowed for the whole call, so its descriptor stays open.
    let socket = unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) };
    // A socket that refuses is gone already.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Passed descriptors that have an owner, by number.
static TAKEN: AtomicU64 = AtomicU64::new(0);
const FIRST_PASSED: i32 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn what_is_stored_is_in_the_file() {
        let path = std::env::temp_dir().join(format!("portcullis-mapped-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.unwrap();
        let map = Mapped::new(&file, 512).unwrap();
        map.words()[511].store(u64::from_ne_bytes(*b"the last"), Ordering::Release);
        drop(map);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 4096);
        assert_eq!(&bytes[4088..], b"the last");
    }

    #[test]
    fn an_empty_mapping_is_refused() {
        let file = File::open("/dev/null").unwrap();
        assert!(Mapped::new(&file, 0).is_err());
    }
}

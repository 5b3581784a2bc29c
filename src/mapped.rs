//! The one file with `unsafe`: a file mapped into memory and shared with it, as words; the
//! descriptors that systemd passes by number; and the descriptor of a stream whose type lends none.
//!
//! The mapping is handed out as atomic words, so two threads that use it can at worst read each
//! other's words in an odd order, never race in the language's sense; who may write which word, and
//! when, is said by the ring that lives in it (`audit::ring`).

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use monoio::net::TcpStream;
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, FdFlags};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

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

/// Takes ownership of the descriptors that systemd passed to this process (sd_listen_fds(3)), and
/// keeps them from programs that it may start. Succeeds once in the life of the process.
///
/// A passed descriptor came through `exec`, so it is not close-on-exec; whatever this process opens
/// itself is. That tells them apart: a wrong number cannot name one of ours.
///
/// # Errors
/// In words: which number is not open, was opened here or stands in the list twice; or that they
/// were taken before. Then none is taken.
pub fn passed_descriptors(numbers: &[i32]) -> Result<Vec<OwnedFd>, String> {
    let mut taken = PASSED_TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if *taken {
        return Err("the passed descriptors were taken already".to_owned());
    }
    for (index, &number) in numbers.iter().enumerate() {
        if numbers.iter().take(index).any(|earlier| *earlier == number) {
            return Err(format!("descriptor {number} is passed twice"));
        }
        came_through_exec(number)?;
    }
    *taken = true;
    // SAFETY: each was open a moment ago and came through `exec`, above the standard streams, so no
    // value in this process owns it and nothing closes it in between; the list names it once, and
    // the flag, under its lock, lets one list through in the life of the process.
    let own = |number: &i32| unsafe { OwnedFd::from_raw_fd(*number) };
    let owned: Vec<OwnedFd> = numbers.iter().map(own).collect();
    for descriptor in &owned {
        rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC)
            .map_err(|error| format!("a passed descriptor cannot be kept private: {error}"))?;
    }
    Ok(owned)
}

/// Asks the kernel by name, because a number that nobody owns cannot be borrowed.
fn came_through_exec(number: i32) -> Result<(), String> {
    if number < FIRST_PASSED {
        return Err(format!("descriptor {number} cannot be a passed socket"));
    }
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))
        .map_err(|_| format!("descriptor {number} was announced by LISTEN_FDS but is not open"))?;
    let flags = about.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok());
    match flags {
        Some(flags) if flags & OFlags::CLOEXEC.bits() == 0 => Ok(()),
        _ => Err(format!("descriptor {number} was not passed to this process")),
    }
}

/// True when nothing waits in `socket` and its peer has not closed: a look that takes nothing, one
/// system call that never waits.
pub fn is_quiet(socket: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let seen = rustix::net::recv(borrowed(socket), &mut [0_u8; 1], flags);
    matches!(seen, Err(Errno::AGAIN))
}

/// Sends as much of `head`, then of `body`, as the socket takes at once: one system call that never
/// waits. The kernel has copied the bytes when it returns, so nothing is lent to it.
///
/// # Errors
/// `WouldBlock` when the socket takes nothing now; else what the kernel said.
pub fn send_now(socket: &TcpStream, head: &[u8], body: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let socket = borrowed(socket);
    if body.is_empty() {
        return Ok(rustix::net::send(socket, head, flags)?);
    }
    let parts = [IoSlice::new(head), IoSlice::new(body)];
    Ok(rustix::net::sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags)?)
}

/// Makes the coming close of `socket` a reset: the peer of an answer that was cut, and that has no
/// other sign of its end, must not take what it got for all of it.
pub fn reset_on_close(socket: &TcpStream) {
    // A socket that refuses is gone already.
    let _ = rustix::net::sockopt::set_socket_linger(borrowed(socket), Some(Duration::ZERO));
}

/// monoio's stream has a descriptor but does not lend it.
fn borrowed(socket: &TcpStream) -> BorrowedFd<'_> {
    // SAFETY: the stream owns its descriptor until it is dropped or taken apart by value, neither
    // of which can happen while it is borrowed, and the answer borrows it for as long as it lives.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}

/// True once the passed descriptors have an owner.
static PASSED_TAKEN: Mutex<bool> = Mutex::new(false);
const FIRST_PASSED: i32 = 3;

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;
    use std::sync::atomic::Ordering;

    use super::*;

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

    /// One test, because it may succeed once in a process.
    #[test]
    fn passed_descriptors_are_taken_once_and_only_what_came_through_exec() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        // As exec leaves them: open, and not close-on-exec. Numbers beyond 64 are as good as any.
        let inherited = |from: i32| {
            let copy = rustix::io::fcntl_dupfd_cloexec(&socket, from).unwrap();
            rustix::io::fcntl_setfd(&copy, FdFlags::empty()).unwrap();
            copy.into_raw_fd()
        };
        let (low, high) = (inherited(50), inherited(100));
        assert!(high >= 100);
        let own = socket.as_raw_fd();
        for (numbers, told) in [
            (vec![low, own], "was not passed"),
            (vec![low, 1], "cannot be"),
            (vec![low, -1], "cannot be"),
            (vec![low, 1_000_000], "is not open"),
            (vec![low, high, low], "twice"),
        ] {
            let refused = passed_descriptors(&numbers).unwrap_err();
            assert!(refused.contains(told), "{numbers:?}: {refused}");
        }
        drop(socket);
        let taken = passed_descriptors(&[low, high]).unwrap();
        assert_eq!(taken.iter().map(AsRawFd::as_raw_fd).collect::<Vec<_>>(), [low, high]);
        for descriptor in &taken {
            assert_eq!(rustix::io::fcntl_getfd(descriptor).unwrap(), FdFlags::CLOEXEC);
        }
        for socket in taken {
            let socket = std::net::TcpListener::from(socket);
            assert_eq!(socket.local_addr().unwrap(), address);
        }
        assert!(passed_descriptors(&[]).unwrap_err().contains("already"));
    }
}

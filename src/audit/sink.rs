//! Where lines go: a file, a FIFO, or standard output. Nothing here waits: a reader that stalls
//! leaves the lines with the writer, and the records in the rings (case F12).

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::config::AuditSink;

/// An open sink.
pub(super) struct Sink {
    target: AuditSink,
    out: Out,
    /// A regular file: it can be read back, shortened and synced.
    regular: bool,
}

enum Out {
    File(File),
    /// Standard output under systemd is a socket, which cannot be opened anew.
    Socket(OwnedFd),
}

impl Sink {
    /// Opens `target`; a file is made when it is missing, and only ever appended to.
    pub(super) fn open(target: &AuditSink) -> io::Result<Self> {
        let out = match target {
            AuditSink::File(path) => Out::File(open_path(path)?),
            AuditSink::Stdout => open_stdout()?,
        };
        let regular = match &out {
            Out::File(file) => file.metadata()?.is_file(),
            Out::Socket(_) => false,
        };
        if let (Out::File(file), AuditSink::File(_), true) = (&out, target, regular) {
            // Two writers would take each other's lines back (see `take_back`).
            rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
                let told = "another process has locked the audit file";
                if error == Errno::WOULDBLOCK { io::Error::other(told) } else { error.into() }
            })?;
        }
        Ok(Self { target: target.clone(), out, regular })
    }

    /// Opens the path again (after a rotation). On an error the old file stays in use.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if self.is_in_place() {
            return Ok(());
        }
        *self = Self::open(&self.target)?;
        Ok(())
    }

    /// Writes `lines` from `*written` on. After an error `*written` says how far it came; call
    /// again with the same lines. A line that was cut in the middle is taken back where the sink
    /// can do so, so that the file always ends with a whole line.
    pub(super) fn append(&mut self, lines: &[u8], written: &mut usize) -> io::Result<()> {
        while let Some(rest) = lines.get(*written..).filter(|rest| !rest.is_empty()) {
            match self.write(rest) {
                Ok(0) => {
                    return Err(self.take_back(lines, written, io::ErrorKind::WriteZero.into()));
                }
                Ok(count) => *written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.take_back(lines, written, error)),
            }
        }
        Ok(())
    }

    /// Waits until the lines survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        match &self.out {
            Out::File(file) if self.regular => file.sync_data(),
            Out::File(_) | Out::Socket(_) => Ok(()),
        }
    }

    /// The last `bytes_max` bytes of the file, from a line's start, after a last line without an
    /// end was removed: it is a write that a dying process did not finish, and its record is still
    /// in the ring. Empty when the sink cannot be read back.
    pub(super) fn last_lines(&self, bytes_max: u64) -> io::Result<Vec<u8>> {
        let (Out::File(file), AuditSink::File(path), true) =
            (&self.out, &self.target, self.regular)
        else {
            return Ok(Vec::new());
        };
        let length = file.metadata()?.len();
        let start = length.saturating_sub(bytes_max);
        let mut bytes = Vec::new();
        let mut reader = File::open(path)?;
        reader.seek(SeekFrom::Start(start))?;
        reader.take(bytes_max).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < bytes.len() {
            if whole == 0 && start > 0 {
                // No line of ours is that long; end it rather than guess where it began.
                (&mut &*file).write_all(b"\n")?;
            } else {
                file.set_len(start + whole as u64)?;
            }
            bytes.truncate(whole);
        }
        if start > 0 {
            let first =
                bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            bytes.drain(..first);
        }
        Ok(bytes)
    }

    /// The path still names the open file. It must not be opened twice: it is locked.
    fn is_in_place(&self) -> bool {
        let (Out::File(file), AuditSink::File(path)) = (&self.out, &self.target) else {
            return true;
        };
        let same = |a: Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        file.metadata().ok().zip(std::fs::metadata(path).ok()).is_some_and(|(a, b)| same(a, b))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::File(file) => file.write(bytes),
            Out::Socket(socket) => {
                let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
                Ok(rustix::net::send(socket, bytes, flags)?)
            }
        }
    }

    fn take_back(&self, lines: &[u8], written: &mut usize, error: io::Error) -> io::Error {
        let Out::File(file) = &self.out else { return error };
        let done = lines.get(..*written).unwrap_or_default();
        let whole = done.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let excess = *written - whole;
        if !self.regular || excess == 0 {
            return error;
        }
        let shorter = file.metadata().ok().and_then(|now| now.len().checked_sub(excess as u64));
        if shorter.is_some_and(|length| file.set_len(length).is_ok()) {
            *written = whole;
        }
        error
    }
}

fn open_path(path: &Path) -> io::Result<File> {
    let fifo = std::fs::metadata(path).is_ok_and(|data| data.file_type().is_fifo());
    // A FIFO that is only written to cannot be opened before somebody reads it (fifo(7)).
    let access = if fifo { OFlags::RDWR } else { OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP;
    Ok(File::from(rustix::fs::open(path, flags, mode)?))
}

/// Standard output as a description of its own, so that "do not wait" is not set for everybody who
/// shares it. Where that is refused (a pipe of another user), writes may wait for its reader.
fn open_stdout() -> io::Result<Out> {
    let shared = io::stdout().as_fd().try_clone_to_owned()?;
    let file = File::from(shared);
    if file.metadata()?.file_type().is_socket() {
        return Ok(Out::Socket(file.into()));
    }
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::open(own, flags | OFlags::NOCTTY, Mode::empty()) {
        Ok(own) => Ok(Out::File(own.into())),
        Err(_) => Ok(Out::File(file)),
    }
}

//! The ring directory: one gateway at a time, one ring file per core, one file of parked decisions.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::ring::{HEADER_WORDS, RingFile};
use crate::limits::AUDIT_RING_BYTES;
use crate::mapped::Mapped;

/// The directory, locked for this process. The kernel frees the lock when the process dies.
pub(super) struct RingDirectory {
    path: PathBuf,
    _lock: File,
}

/// A ring file of an earlier process.
pub(super) enum Left {
    /// Nothing was ever in it.
    Blank,
    /// Not a ring of this format.
    Foreign,
    /// A ring.
    Ring(Box<RingFile>),
}

impl RingDirectory {
    /// Makes the directory when it is missing, and locks it.
    pub(super) fn lock(path: &Path) -> Result<Self, String> {
        let told = |error: io::Error| {
            format!(
                "the audit ring directory {} cannot be used: {error}; \
                 give it to the gateway's user or set [audit] ring_directory",
                path.display()
            )
        };
        fs::create_dir_all(path).map_err(told)?;
        let lock = open_private(&path.join(LOCK_NAME)).map_err(told)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(format!(
                "another gateway uses the audit ring directory {}; stop it, or give this one its \
                 own [audit] ring_directory",
                path.display()
            )),
            Err(error) => Err(told(error.into())),
        }
    }

    /// Ring files of earlier processes, by name.
    pub(super) fn rings(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(RING_PREFIX) && name.ends_with(RING_SUFFIX) {
                found.push(path);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Looks into the ring file at `path`.
    pub(super) fn look(&self, path: &Path) -> io::Result<Left> {
        let file = open_private(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if bytes == 0 {
            return Ok(Left::Blank);
        }
        if bytes % size_of::<u64>() != 0 || bytes > RING_FILE_BYTES_MAX {
            return Ok(Left::Foreign);
        }
        let map = Mapped::new(&file, bytes / size_of::<u64>())?;
        if RingFile::is_blank(&map) {
            return Ok(Left::Blank);
        }
        Ok(RingFile::open(map).map_or(Left::Foreign, |ring| Left::Ring(Box::new(ring))))
    }

    /// Makes an empty ring for `core`. No ring file of that name may be there.
    pub(super) fn create(&self, core: u32, instance: u64) -> Result<RingFile, String> {
        let path = self.path.join(format!("{RING_PREFIX}{core}{RING_SUFFIX}"));
        let words = HEADER_WORDS + AUDIT_RING_BYTES / size_of::<u64>();
        let made = open_new(&path).and_then(|file| {
            let map = Mapped::new(&file, words)?;
            RingFile::create(map, core, instance).ok_or_else(|| io::ErrorKind::InvalidInput.into())
        });
        made.map_err(|error| {
            format!(
                "the audit ring {} cannot be made: {error}; it needs {} MiB of disk",
                path.display(),
                words * size_of::<u64>() / (1024 * 1024) + 1
            )
        })
    }

    /// The file of parked decisions.
    pub(super) fn parked(&self) -> io::Result<File> {
        open_private(&self.path.join(PARKED_NAME))
    }
}

/// A link in our place would let its owner choose which file we overwrite.
fn open_private(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

fn open_new(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

const LOCK_NAME: &str = "rings.lock";
const PARKED_NAME: &str = "open-requests.slots";
const RING_PREFIX: &str = "core-";
const RING_SUFFIX: &str = ".ring";
/// Larger files are none of ours, whatever version wrote them.
const RING_FILE_BYTES_MAX: usize = 16 * AUDIT_RING_BYTES;

const _: () = assert!((AUDIT_RING_BYTES / size_of::<u64>()).is_power_of_two());

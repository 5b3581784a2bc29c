//! Whether the policy files changed, by looking at them.
//!
//! Looked at is exactly what would be read, links followed. So an editor's temporary file is none,
//! a directory that is deleted and made anew is seen, a link that is turned to another directory
//! is seen, and so is a file on a network file system, of all of which events of the kernel
//! (inotify(7)) tell something else or nothing.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::judge::policy::Sources;
use crate::limits::POLICY_READS_MAX;

/// The policy files as they were once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Paths in their order; of a directory that cannot be read, why.
    files: Result<Vec<(PathBuf, Option<Stamp>)>, io::ErrorKind>,
}

/// What changes when a file is written to or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Seen {
    /// Looks at the files of `directory`.
    pub(super) fn of(directory: &Path) -> Self {
        let stamped = |path: PathBuf| {
            let stamp = std::fs::metadata(&path).ok().as_ref().map(Stamp::of);
            (path, stamp)
        };
        let files = Sources::paths(directory).map_err(|error| error.kind());
        Self { files: files.map(|files| files.into_iter().map(stamped).collect()) }
    }
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Looks from time to time, and tells a change once, when it is over.
pub(super) struct Watch {
    /// What was read last.
    loaded: Seen,
    /// What the last look saw.
    last: Option<Seen>,
}

impl Watch {
    /// Nothing changed since `loaded`.
    pub(super) fn new(loaded: Seen) -> Self {
        Self { loaded, last: None }
    }

    /// Looks. True when the files are others than those that were read, and have been what they
    /// are since the look before: whoever copies several is let finish.
    pub(super) fn changed(&mut self, directory: &Path) -> bool {
        let now = Seen::of(directory);
        let settled = self.last.as_ref() == Some(&now);
        let other = self.loaded != now;
        self.last = Some(now);
        settled && other
    }

    /// They are about to be read.
    pub(super) fn loaded(&mut self, directory: &Path) {
        *self = Self::new(Seen::of(directory));
    }
}

/// Reads the files of `directory`, anew when they changed meanwhile: whoever copies several would
/// have half of them in force. `None` when they do not come to rest.
pub(super) fn steady<T>(directory: &Path, mut read: impl FnMut() -> T) -> Option<T> {
    let mut before = Seen::of(directory);
    for _ in 0..POLICY_READS_MAX {
        let made = read();
        let after = Seen::of(directory);
        if before == after {
            return Some(made);
        }
        before = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory of this test alone.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("portcullis-watch-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_change_is_told_once_and_only_when_it_is_over() {
        let folder = Folder::new("over");
        folder.write("a.cedar", "1");
        let mut watch = Watch::new(Seen::of(&folder.0));
        let look = |watch: &mut Watch| watch.changed(&folder.0);
        assert!(!look(&mut watch) && !look(&mut watch), "nothing happened");
        folder.write("a.cedar", "22");
        assert!(!look(&mut watch), "it may go on");
        folder.write("b.cedar", "3");
        assert!(!look(&mut watch), "it went on");
        assert!(look(&mut watch), "it is over");
        watch.loaded(&folder.0);
        assert!(!look(&mut watch) && !look(&mut watch), "told once");
    }

    #[test]
    fn what_changes_while_it_is_read_is_read_again() {
        let folder = Folder::new("steady");
        folder.write("permit.cedar", "1");
        let mut reads = 0;
        let read = steady(&folder.0, || {
            reads += 1;
            folder.write(&format!("forbid{reads}.cedar"), "2");
        });
        assert_eq!(read, None, "it never rests");
        assert_eq!(reads, POLICY_READS_MAX);

        let mut reads = 0;
        let read = steady(&folder.0, || {
            reads += 1;
            if reads == 1 {
                folder.write("late.cedar", "3");
            }
            folder.0.join("late.cedar").exists() && reads == 2
        });
        assert_eq!((read, reads), (Some(true), 2));
    }

    #[test]
    fn what_is_not_read_is_not_looked_at() {
        let folder = Folder::new("read");
        folder.write("a.cedar", "1");
        let before = Seen::of(&folder.0);
        for name in [".a.cedar.swp", "a.cedar~", ".#a.cedar", "README.md", "4913"] {
            folder.write(name, "x");
        }
        assert_eq!(Seen::of(&folder.0), before);
        for place in ["shadow", "schema.d", "library"] {
            fs::create_dir(folder.0.join(place)).unwrap();
        }
        folder.write("library/a.cedar", "1");
        assert_eq!(Seen::of(&folder.0), before);
        for name in ["shadow/a.cedar", "schema.d/a.cedarschema"] {
            folder.write(name, "1");
            assert_ne!(Seen::of(&folder.0), before, "{name}");
            fs::remove_file(folder.0.join(name)).unwrap();
            assert_eq!(Seen::of(&folder.0), before, "{name}");
        }
    }

    #[test]
    fn a_file_of_equal_length_a_deleted_directory_and_a_turned_link_are_seen() {
        let (one, two) = (Folder::new("one"), Folder::new("two"));
        one.write("a.cedar", "1");
        two.write("a.cedar", "1");
        let before = Seen::of(&one.0);
        one.write("new", "2");
        fs::rename(one.0.join("new"), one.0.join("a.cedar")).unwrap();
        assert_ne!(Seen::of(&one.0), before, "another file under the name");

        let link = one.0.join("link");
        std::os::unix::fs::symlink(&two.0, &link).unwrap();
        let before = Seen::of(&link);
        fs::remove_file(&link).unwrap();
        let gone = Seen::of(&link);
        assert_ne!(gone, before);
        assert_eq!(gone.files, Err(io::ErrorKind::NotFound));
        std::os::unix::fs::symlink(&one.0, &link).unwrap();
        assert_ne!(Seen::of(&link), before, "equal names and sizes, other files");
    }
}

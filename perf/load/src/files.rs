//! The limit of open files: a connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fault::{Doing, Fault};

/// Lets this process open as many connections, or says what forbids it.
pub(crate) fn allow(connections: u32) -> Result<(), Fault> {
    let needed = u64::from(connections) + FILES_BESIDES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < needed) {
        return Err(Fault::new(format!(
            "{connections} connections need {needed} open files, the limit is {maximum}: \
             raise it (ulimit -Hn)"
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).doing("open files")
}

/// As many files as this process may have: a server does not know how many connections will come.
pub(crate) fn raise() {
    let limit = getrlimit(Resource::Nofile);
    // Should it fail, accepting fails later, and says so.
    _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// Files this process has open besides its connections.
const FILES_BESIDES: u64 = 64;

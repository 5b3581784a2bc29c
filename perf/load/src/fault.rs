//! What stops a subcommand: one sentence for a person, with the cure in it.

use std::fmt;

/// A reason to stop. Errors of single requests are counted instead, see `tally.rs`.
#[derive(Debug)]
pub(crate) struct Fault(String);

impl Fault {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Says what was being done when an input or output error came.
pub(crate) trait Doing<T> {
    fn doing(self, what: &str) -> Result<T, Fault>;
}

impl<T, E: fmt::Display> Doing<T> for Result<T, E> {
    fn doing(self, what: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault::new(format!("{what}: {error}")))
    }
}

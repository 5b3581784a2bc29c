//! What is wrong with a configuration: all of it at once, each with its place and its cure.

use std::fmt;
use std::path::{Path, PathBuf};

/// One fault or warning. `Display` gives `FILE:LINE:COLUMN: key: what is wrong; what to do`.
///
/// The value of a key that holds or names a secret is never part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// Dotted path of the key, `toml` when the text is not TOML, `file` when it cannot be read.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, key, what, cure } = self;
        write!(f, "{}:{line}:{column}: {key}: {what}; {cure}", file.display())
    }
}

/// Everything wrong with one file, in the order of the text; never empty.
#[derive(Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Where a value or a table stands in the text, and what it is called.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Byte offset.
    pub(super) at: usize,
    /// Dotted path.
    pub(super) key: String,
}

impl Place {
    /// The same offset, for a key below this one.
    pub(super) fn below(&self, key: &str) -> Self {
        let key = if self.key.is_empty() { key.to_owned() } else { format!("{}.{key}", self.key) };
        Self { at: self.at, key }
    }
}

/// Collects faults and warnings while a text is read and checked.
pub(super) struct Report<'t> {
    path: &'t Path,
    text: &'t str,
    /// Offset of the first byte of each line: a file that is no TOML at all has very many faults.
    lines: Vec<usize>,
    faults: Vec<(usize, Fault)>,
    warnings: Vec<(usize, Fault)>,
    /// Tables (by offset) and keys whose value was unusable: they are not missing as well.
    broken: Vec<(usize, String)>,
}

impl<'t> Report<'t> {
    /// Starts with nothing wrong.
    pub(super) fn new(path: &'t Path, text: &'t str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = [0].into_iter().chain(after_newlines).collect();
        Self { path, text, lines, faults: Vec::new(), warnings: Vec::new(), broken: Vec::new() }
    }

    /// Adds a fault.
    pub(super) fn fault(
        &mut self,
        place: &Place,
        what: impl Into<String>,
        cure: impl Into<String>,
    ) {
        let fault = self.at(place, what.into(), cure.into());
        self.faults.push((place.at, fault));
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, place: &Place, what: impl Into<String>, cure: impl Into<String>) {
        let warning = self.at(place, what.into(), cure.into());
        self.warnings.push((place.at, warning));
    }

    /// Adds a fault for a required key that `table` lacks, unless its value was found unusable
    /// before.
    pub(super) fn missing(&mut self, table: &Place, key: &str, cure: impl Into<String>) {
        let place = table.below(key);
        if !self.broken.iter().any(|(at, broken)| *at == table.at && *broken == place.key) {
            self.fault(&place, "required, but missing", cure);
        }
    }

    /// Remembers that a key of `table` is there, but unusable.
    pub(super) fn broken(&mut self, table: &Place, key: &Place) {
        self.broken.push((table.at, key.key.clone()));
    }

    /// True when nothing is wrong so far.
    pub(super) const fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// `(faults, warnings)` in the order of the text.
    pub(super) fn finish(mut self) -> (Vec<Fault>, Vec<Fault>) {
        self.faults.sort_by_key(|(at, _)| *at);
        self.warnings.sort_by_key(|(at, _)| *at);
        let strip = |list: Vec<(usize, Fault)>| list.into_iter().map(|(_, fault)| fault).collect();
        (strip(self.faults), strip(self.warnings))
    }

    fn at(&self, place: &Place, what: String, cure: String) -> Fault {
        let line = self.lines.partition_point(|start| *start <= place.at);
        let start = line.checked_sub(1).and_then(|index| self.lines.get(index)).copied();
        let before = self.text.get(start.unwrap_or_default()..place.at).unwrap_or_default();
        let column = before.chars().count() + 1;
        Fault { file: self.path.to_owned(), line, column, key: place.key.clone(), what, cure }
    }
}

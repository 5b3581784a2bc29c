//! Policy files as they are read, what they are checked against, and how a fault is told.

use std::fmt;
use std::path::{Path, PathBuf};

use super::scanner;
use crate::limits;

/// What a policy set is checked against.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// Number of the new set; never used twice.
    pub epoch: u64,
    /// Names of the configured servers, by index.
    pub servers: &'a [&'a str],
    /// Configured credentials, by index.
    pub credentials: &'a [CredentialScope<'a>],
    /// Names of configured extension methods.
    pub methods: &'a [&'a str],
    /// IANA zone of `context.local`.
    pub timezone: &'a str,
    /// Whether there is a database of countries.
    pub geoip: bool,
}

/// A configured credential.
#[derive(Clone, Copy, Debug)]
pub struct CredentialScope<'a> {
    /// Its name, as in `@credential("name")`.
    pub name: &'a str,
    /// Indexes of the servers it may be sent to.
    pub servers: &'a [u16],
}

/// A policy file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Where it lies.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Everything that a policy directory holds, in the order of the names.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `*.cedar`: they decide.
    pub enforced: Vec<Source>,
    /// `shadow/*.cedar`: what they would deny is recorded, and nothing else.
    pub shadow: Vec<Source>,
    /// `schema.d/*.cedarschema`: types of the arguments of tools.
    pub schemas: Vec<Source>,
}

impl Sources {
    /// Paths of everything that would be read, in that order.
    ///
    /// # Errors
    /// The directory cannot be read. A folder in it that is not there holds nothing.
    pub fn paths(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
        let mut paths = list(directory, "cedar")?;
        for (folder, ending) in [("shadow", "cedar"), ("schema.d", "cedarschema")] {
            paths.extend(list(&directory.join(folder), ending).unwrap_or_default());
        }
        Ok(paths)
    }
}

/// Something wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the directory.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub cure: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, what, cure } = self;
        write!(f, "{}:{line}:{column}: {what}; {cure}", file.display())
    }
}

/// Faults as they are found, up to a bound.
#[derive(Default)]
pub(super) struct Faults(pub(super) Vec<Fault>);

impl Faults {
    pub(super) fn tell(&mut self, source: &Source, offset: usize, what: &str, cure: &str) {
        if self.0.len() < limits::POLICY_FAULTS_MAX {
            let (line, column) = scanner::place(&source.text, offset);
            let file = source.path.clone();
            let (what, cure) = (what.replace('\n', " "), cure.replace('\n', " "));
            self.0.push(Fault { file, line, column, what, cure });
        }
    }
}

/// Reads `*.cedar`, `shadow/*.cedar` and `schema.d/*.cedarschema` of `directory`, in the order of
/// their names.
pub(super) fn read(directory: &Path) -> Result<Sources, Vec<Fault>> {
    let whole = |file: &Path, what: String, cure: &str| Fault {
        file: file.to_owned(),
        line: 1,
        column: 1,
        what,
        cure: cure.to_owned(),
    };
    let mut faults = Vec::new();
    let mut sources = Sources::default();
    let folders = [
        (directory.to_owned(), "cedar", true, &mut sources.enforced),
        (directory.join("shadow"), "cedar", false, &mut sources.shadow),
        (directory.join("schema.d"), "cedarschema", false, &mut sources.schemas),
    ];
    let mut count = 0;
    for (folder, ending, required, to) in folders {
        let files = match list(&folder, ending) {
            Ok(files) => files,
            Err(error) if !required && error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                let what = format!("the policy directory cannot be read: {error}");
                let cure = if required {
                    "create it, or correct policy.directory"
                } else {
                    "correct its rights, or remove it"
                };
                faults.push(whole(&folder, what, cure));
                continue;
            }
        };
        count += files.len();
        if count > limits::POLICY_FILES_MAX {
            let what = format!("more than {} policy files", limits::POLICY_FILES_MAX);
            return Err(vec![whole(directory, what, "put several policies into one file")]);
        }
        for path in files {
            match read_one(&path) {
                Ok(text) => to.push(Source { path, text }),
                Err(what) => faults.push(whole(&path, what, "replace or remove the file")),
            }
        }
    }
    if faults.is_empty() { Ok(sources) } else { Err(faults) }
}

fn list(directory: &Path, ending: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // As the shell reads `*.cedar`: what begins with a dot is an editor's, not a policy.
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let path = entry.path();
        if !hidden && path.extension().is_some_and(|found| found == ending) {
            files.push(path);
        }
        if files.len() > limits::POLICY_FILES_MAX {
            break;
        }
    }
    files.sort();
    Ok(files)
}

fn read_one(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !size.is_file() {
        return Err("not a file".to_owned());
    }
    if size.len() > limits::POLICY_FILE_BYTES_MAX as u64 {
        return Err(format!("larger than {} bytes", limits::POLICY_FILE_BYTES_MAX));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

//! Secrets are read from a systemd credential, a file or (on loopback) the environment, never from
//! the configuration itself. This is the one file that reads the environment.

use std::ffi::OsString;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::SecretSource;
use crate::limits::SECRET_BYTES_MAX;
use crate::secret::Secret;

/// Environment variables; a trait so that tests need not change those of the process.
pub trait Environment {
    /// The value of `name`, if it is set.
    fn variable(&self, name: &str) -> Option<OsString>;
}

/// The environment of this process.
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<OsString> {
        std::env::var_os(name)
    }
}

/// Why a secret cannot be had. Holds no part of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// The file is not there, or the variable is not set.
    Absent,
    /// `$CREDENTIALS_DIRECTORY` is not set or not an absolute path.
    NoCredentialsDirectory,
    /// Opening or reading failed.
    Unreadable(ErrorKind),
    /// A folder, pipe or device, not a file.
    NotAFile,
    /// More than [`SECRET_BYTES_MAX`] bytes.
    TooLarge,
    /// Nothing in it.
    Empty,
    /// A control character, a space at an end or a byte outside ASCII: it cannot stand in a header.
    NotForHeaders,
}

impl fmt::Display for SecretFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("does not exist"),
            Self::NoCredentialsDirectory => {
                f.write_str("$CREDENTIALS_DIRECTORY is not set to an absolute path")
            }
            Self::Unreadable(kind) => write!(f, "cannot be read ({kind})"),
            Self::NotAFile => f.write_str("is not a regular file"),
            Self::TooLarge => write!(f, "is larger than {SECRET_BYTES_MAX} bytes"),
            Self::Empty => f.write_str("is empty"),
            Self::NotForHeaders => f.write_str(
                "holds a control character, a space at an end, or a byte outside ASCII, \
                 and so cannot stand in a header",
            ),
        }
    }
}

impl SecretSource {
    /// Reads the secret as it is now and trims one trailing newline (LF or CRLF).
    ///
    /// Blocks for one open and at most [`SECRET_BYTES_MAX`] bytes of a local regular file; a pipe
    /// or device is refused instead of waited for.
    ///
    /// # Errors
    /// See [`SecretFault`].
    pub fn read(&self) -> Result<Secret, SecretFault> {
        self.read_with(&ProcessEnvironment)
    }

    /// As [`SecretSource::read`], with the environment as an argument.
    ///
    /// # Errors
    /// See [`SecretFault`].
    pub fn read_with(&self, environment: &dyn Environment) -> Result<Secret, SecretFault> {
        let bytes = match self {
            Self::Credential(name) => {
                let directory = credentials_directory(environment)?;
                read_file(&directory.join(name))?
            }
            Self::File(path) => read_file(path)?,
            Self::Env(name) => read_variable(name, environment)?,
        };
        let trimmed = match bytes.strip_suffix(b"\n") {
            Some(rest) => rest.strip_suffix(b"\r").unwrap_or(rest),
            None => &bytes,
        };
        // Copied to its exact size: the read buffer is large and is wiped here.
        if trimmed.is_empty() { Err(SecretFault::Empty) } else { Ok(Secret::new(trimmed.to_vec())) }
    }

    /// As [`SecretSource::read`], for a secret that goes into a header or a query: visible ASCII
    /// with single bytes of space or tab only between (RFC 9110 §5.5), so that it can never end the
    /// field and begin another one.
    ///
    /// # Errors
    /// See [`SecretFault`].
    pub fn read_for_header(&self) -> Result<Secret, SecretFault> {
        self.read_for_header_with(&ProcessEnvironment)
    }

    /// As [`SecretSource::read_for_header`], with the environment as an argument.
    ///
    /// # Errors
    /// See [`SecretFault`].
    pub fn read_for_header_with(
        &self,
        environment: &dyn Environment,
    ) -> Result<Secret, SecretFault> {
        let secret = self.read_with(environment)?;
        if is_field_value(secret.expose()) { Ok(secret) } else { Err(SecretFault::NotForHeaders) }
    }
}

/// True when `bytes` may stand in a field value as a whole.
pub(crate) fn is_field_value(bytes: &[u8]) -> bool {
    let visible = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_graphic);
    visible(bytes.first())
        && visible(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t'))
}

fn credentials_directory(environment: &dyn Environment) -> Result<PathBuf, SecretFault> {
    let directory = environment.variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    directory.filter(|path| path.is_absolute()).ok_or(SecretFault::NoCredentialsDirectory)
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    // Without O_NONBLOCK, opening a pipe would wait for a writer. What was opened is looked at, not
    // the path: that could lead elsewhere a moment later.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(|_| SecretFault::NotAFile)?;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)
        .map_err(|error| fault(&error))?;
    if !file.metadata().map_err(|error| fault(&error))?.is_file() {
        return Err(SecretFault::NotAFile);
    }
    // Its final capacity at once: a vector that grows leaves unwiped pieces behind. The file's
    // length is only a hint, so one byte more than allowed is asked for and the rest never read.
    // One byte more of room keeps the last read, which finds the end, from growing it.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
    file.by_ref()
        .take(SECRET_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| fault(&error))?;
    bounded(bytes)
}

fn read_variable(
    name: &str,
    environment: &dyn Environment,
) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    let value = environment.variable(name).ok_or(SecretFault::Absent)?;
    bounded(Zeroizing::new(value.into_vec()))
}

fn bounded(bytes: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, SecretFault> {
    if bytes.len() > SECRET_BYTES_MAX { Err(SecretFault::TooLarge) } else { Ok(bytes) }
}

fn fault(error: &io::Error) -> SecretFault {
    if error.kind() == ErrorKind::NotFound {
        SecretFault::Absent
    } else {
        SecretFault::Unreadable(error.kind())
    }
}

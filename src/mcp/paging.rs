//! Lists of many servers as one: their order, its pages, and the answer that holds one.
//!
//! Servers come in byte order of their prefixes, items in byte order of their servers' own names,
//! so a place in the list is a prefix and a name, and stays one while lists change around it.

use super::catalog::Entry;
use super::handshake::PARTIAL;
use super::list::Listed;
use super::names;
use super::seal::{Keyring, Purpose};
use super::write;
use crate::clock::UnixSeconds;
use crate::limits::{CURSOR_SECONDS_MAX, PAGE_BYTES_MAX};
use crate::reject::Reject;

/// How far a client has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Prefix of the server whose item it saw last.
    pub prefix: String,
    /// That server's own name for it.
    pub name: String,
}

impl Place {
    /// Appends a cursor, of which only `bound` (see [`super::seal::bound_to`]) can make anything.
    ///
    /// # Errors
    /// Those of [`Keyring::seal`].
    pub fn seal(
        &self,
        keyring: &Keyring,
        listed: Listed,
        bound: &[u8; 32],
        now: UnixSeconds,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let mut plain = Vec::with_capacity(HEAD_BYTES + self.prefix.len() + self.name.len());
        plain.push(number(listed));
        plain.extend_from_slice(&now.0.to_be_bytes());
        plain.push(u8::try_from(self.prefix.len()).map_err(|_| Reject::GatewayFault)?);
        plain.extend_from_slice(self.prefix.as_bytes());
        plain.extend_from_slice(self.name.as_bytes());
        keyring.seal(Purpose::Cursor, &plain, bound, out)
    }

    /// What [`Place::seal`] made, within the last `CURSOR_SECONDS_MAX`, of the same list.
    ///
    /// # Errors
    /// [`Reject::CursorUnknown`], whatever the reason.
    pub fn open(
        keyring: &Keyring,
        listed: Listed,
        bound: &[u8; 32],
        now: UnixSeconds,
        cursor: &str,
    ) -> Result<Self, Reject> {
        let plain = keyring.open(Purpose::Cursor, cursor.as_bytes(), bound);
        let place = plain.and_then(|plain| Self::read(&plain, listed, now));
        place.ok_or(Reject::CursorUnknown)
    }

    fn read(plain: &[u8], listed: Listed, now: UnixSeconds) -> Option<Self> {
        let (of, rest) = plain.split_first()?;
        let (issued, rest) = rest.split_first_chunk()?;
        let (prefix_bytes, rest) = rest.split_first()?;
        let (prefix, name) = rest.split_at_checked(usize::from(*prefix_bytes))?;
        let issued = u64::from_be_bytes(*issued);
        // Another instance may have sealed it, whose clock is a little ahead.
        let age = now.0.saturating_sub(issued);
        let ahead = issued.saturating_sub(now.0);
        if *of != number(listed) || age > CURSOR_SECONDS_MAX || ahead > CURSOR_SECONDS_MAX {
            return None;
        }
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
        Some(Self { prefix: text(prefix)?, name: text(name)? })
    }

    /// Whether the item `name` of the server with `prefix` comes behind it.
    #[must_use]
    pub fn is_before(&self, prefix: &str, name: &str) -> bool {
        (self.prefix.as_str(), self.name.as_str()) < (prefix, name)
    }
}

/// A page under way.
pub struct Page {
    items_max: usize,
    items: Vec<u8>,
    count: usize,
    last: Place,
    full: bool,
    outer: String,
}

impl Page {
    /// An empty one, for up to `items_max` items and `PAGE_BYTES_MAX` bytes.
    #[must_use]
    pub fn new(items_max: usize) -> Self {
        Self {
            items_max,
            items: Vec::new(),
            count: 0,
            last: Place::default(),
            full: false,
            outer: String::new(),
        }
    }

    /// Appends an item of the server with `prefix`; false when it has no place on this page any
    /// more, which is full then. `server`: its name is to stand in the item, where a URI does not
    /// tell whose it is. There is always place for one item.
    pub fn put(&mut self, prefix: &str, entry: Entry<'_>, server: Option<&str>) -> bool {
        if self.full || self.count == self.items_max {
            self.full = true;
            return false;
        }
        let before = self.items.len();
        if self.count > 0 {
            self.items.push(b',');
        }
        match server {
            Some(server) => entry.write_of(server, &mut self.items),
            None => {
                self.outer.clear();
                names::compose(prefix, entry.name(), &mut self.outer);
                entry.write(&self.outer, &mut self.items);
            }
        }
        if self.count > 0 && self.items.len() > PAGE_BYTES_MAX {
            self.items.truncate(before);
            self.full = true;
            return false;
        }
        self.count += 1;
        prefix.clone_into(&mut self.last.prefix);
        entry.name().clone_into(&mut self.last.name);
        true
    }

    /// Whether something had no place on it.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// How many items it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where the next page begins, when there is one.
    #[must_use]
    pub fn next(&self) -> Option<&Place> {
        self.full.then_some(&self.last)
    }
}

/// Why a server has no part in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing<'a> {
    /// Its name. Only of servers that the asker may see.
    pub server: &'a str,
    /// What failed, in one word of the contract.
    pub reason: &'a str,
}

/// The answer to a list.
pub struct Answer<'a> {
    /// The agent's id, as it wrote it.
    pub id: &'a [u8],
    /// What is listed.
    pub listed: Listed,
    /// The page.
    pub page: &'a Page,
    /// The sealed cursor of the next one.
    pub next: Option<&'a [u8]>,
    /// Who is missing.
    pub missing: &'a [Missing<'a>],
    /// For an agent of 2026-07-28, which must be told how long it may keep the answer
    /// (server/utilities/caching), and that it is an answer (basic/index, "Results").
    pub ttl_ms: Option<u64>,
}

impl Answer<'_> {
    /// Appends the JSON-RPC message.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.page.items.len() + SPARE_BYTES);
        out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
        out.extend_from_slice(self.id);
        out.extend_from_slice(b",\"result\":{");
        if let Some(ttl_ms) = self.ttl_ms {
            // What is listed depends on who asks.
            out.extend_from_slice(b"\"resultType\":\"complete\",\"cacheScope\":\"private\",");
            out.extend_from_slice(b"\"ttlMs\":");
            out.extend_from_slice(ttl_ms.to_string().as_bytes());
            out.push(b',');
        }
        write::string(self.listed.member(), out);
        out.extend_from_slice(b":[");
        out.extend_from_slice(&self.page.items);
        out.push(b']');
        if let Some(next) = self.next {
            // Of the base64 alphabet.
            out.extend_from_slice(b",\"nextCursor\":\"");
            out.extend_from_slice(next);
            out.push(b'"');
        }
        if !self.missing.is_empty() {
            out.extend_from_slice(b",\"_meta\":{");
            write::string(PARTIAL, out);
            out.push(b':');
            write_partial(self.missing, out);
            out.push(b'}');
        }
        out.extend_from_slice(b"}}");
    }
}

/// Appends the value of `_meta["io.portcullis/partial"]`.
pub fn write_partial(missing: &[Missing<'_>], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, Missing { server, reason }) in missing.iter().enumerate() {
        out.extend_from_slice(if index > 0 { b",{\"server\":" } else { b"{\"server\":" });
        write::string(server, out);
        out.extend_from_slice(b",\"reason\":");
        write::string(reason, out);
        out.push(b'}');
    }
    out.push(b']');
}

const fn number(listed: Listed) -> u8 {
    match listed {
        Listed::Tools => 1,
        Listed::Prompts => 2,
        Listed::Resources => 3,
        Listed::Templates => 4,
    }
}

/// What a cursor holds before its two texts.
const HEAD_BYTES: usize = 10;
/// What an answer holds beside its items, about.
const SPARE_BYTES: usize = 512;

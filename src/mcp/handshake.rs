//! The handshakes of both eras: what we send to an upstream, what we read of its answer, and what
//! `/mcp` itself answers.
//!
//! `/mcp` is a server to agents and a client to upstreams, each in the revision of the other side.
//! Towards an upstream it declares what its agent declared and no more (2025-11-25 basic/lifecycle
//! "Capability Negotiation"), or the upstream would ask for what nobody can answer.

use super::capability::{ClientCapabilities, ServerCapabilities, era_of};
use super::era::{Era, MODERN_REVISIONS, REVISIONS};
use super::message::{Message, ResultKind, Said, is_id};
use super::span::{Malformed, Node, NodeKind};
use super::write;
use crate::limits::{HELLO_INFO_BYTES_MAX, HELLO_INSTRUCTIONS_BYTES_MAX};

/// The revision that we ask a legacy server for when no agent's choice is at hand, and that we
/// answer to a client that asks for one which `/mcp` does not serve.
pub const NEWEST_LEGACY: &str = "2025-11-25";

/// The modern revision that we speak.
pub const MODERN: &str = MODERN_REVISIONS[0];

/// The legacy revisions that `/mcp` serves. 2024-11-05 has another transport (HTTP+SSE), whose
/// clients do not get as far as this.
const SERVED_LEGACY: [&str; 3] = ["2025-03-26", "2025-06-18", NEWEST_LEGACY];

/// What an upstream is: the outcome of its handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The era of `revision`.
    pub era: Era,
    /// The revision to speak with it.
    pub revision: &'static str,
    /// What it offers.
    pub capabilities: ServerCapabilities,
    /// Its `instructions`, cut at [`HELLO_INSTRUCTIONS_BYTES_MAX`]; often empty.
    pub instructions: Box<str>,
    /// Its `serverInfo` as it wrote it, for `/status` only: it is self-reported, and nothing may
    /// depend on it (2026-07-28 basic/index). Empty when it said none, or more than
    /// [`HELLO_INFO_BYTES_MAX`].
    pub info: Box<[u8]>,
}

impl Hello {
    /// Reads the `result` of an `initialize`; `text` is what its nodes name places of.
    ///
    /// # Errors
    ///
    /// [`Malformed`] without capabilities or for members of the wrong type, and for a revision that
    /// is none or not a legacy one: a client that does not speak the server's choice has to
    /// disconnect (2025-11-25 basic/lifecycle "Version Negotiation").
    pub fn of_initialize(result: Node<'_>, text: &[u8]) -> Result<Self, Malformed> {
        let [revision, info] = result.pick(&["protocolVersion", "serverInfo"])?;
        let written = revision.and_then(Node::text).ok_or(Malformed)?;
        let known = REVISIONS.iter().find(|known| **known == written);
        let revision = known.filter(|known| era_of(known) == Era::Legacy).ok_or(Malformed)?;
        Self::read(result, revision, info, text)
    }

    /// Reads the `result` of a `server/discover`.
    ///
    /// # Errors
    ///
    /// As [`Hello::of_initialize`]; here the revision is one that we speak of `supportedVersions`.
    pub fn of_discover(result: Node<'_>, text: &[u8]) -> Result<Self, Malformed> {
        let [versions, meta] = result.pick(&["supportedVersions", "_meta"])?;
        let versions = versions.filter(|node| node.kind() == NodeKind::Array).ok_or(Malformed)?;
        let supports = |revision: &str| versions.elements().any(|it| it.text() == Some(revision));
        let revision = MODERN_REVISIONS.into_iter().rev().find(|it| supports(it));
        let info = match meta.filter(|meta| meta.kind() == NodeKind::Object) {
            Some(meta) => {
                let [info] = meta.pick(&[SERVER_INFO])?;
                info
            }
            None => None,
        };
        Self::read(result, revision.ok_or(Malformed)?, info, text)
    }

    fn read(
        result: Node<'_>,
        revision: &'static str,
        info: Option<Node<'_>>,
        text: &[u8],
    ) -> Result<Self, Malformed> {
        let [capabilities, instructions] = result.pick(&["capabilities", "instructions"])?;
        let capabilities = ServerCapabilities::read(capabilities.ok_or(Malformed)?)?;
        let instructions = match instructions {
            Some(node) => cut(node.text().ok_or(Malformed)?, HELLO_INSTRUCTIONS_BYTES_MAX),
            None => "",
        };
        let info = info
            .filter(|node| node.kind() == NodeKind::Object)
            .filter(|node| node.range().len() <= HELLO_INFO_BYTES_MAX)
            .and_then(|node| text.get(node.range()));
        Ok(Self {
            era: era_of(revision),
            revision,
            capabilities,
            instructions: instructions.into(),
            info: info.unwrap_or_default().into(),
        })
    }
}

/// What the answer to a handshake says about the era of its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It speaks the era that it was asked in.
    Speaks(Hello),
    /// It does not, or not with us: the other era is worth a try.
    OtherEra,
    /// Nothing: it is down, it refused us, or it made no sense. A denial or an outage must not turn
    /// into "speaks the other era".
    Silent,
}

impl Verdict {
    /// Judges an answer to our handshake `id` (JSON) in `asked`: its HTTP status, and the first
    /// message with an id in it, if any, which was read from `text`.
    ///
    /// Only a result is a proof. Servers refuse a handshake of the other era in many ways: 400 with
    /// codes of their own, 404, 405, or 200 with an error. What a server also says when it is ill
    /// (5xx, an internal error), busy (429) or guarded (401, 403) proves nothing.
    #[must_use]
    pub fn of(asked: Era, id: &[u8], status: u16, heard: Option<(&Message<'_>, &[u8])>) -> Self {
        let own = heard.filter(|(message, text)| match (message.said, message.id) {
            (Said::Result(_) | Said::Error { .. }, Some(written)) => is_id(written, text, id),
            (Said::Error { .. }, None) => true,
            (_, _) => false,
        });
        match (status, own.map(|(message, text)| (message.said, message.content, text))) {
            (200, Some((Said::Result(ResultKind::Complete), Some(result), text))) => {
                let hello = match asked {
                    Era::Legacy => Hello::of_initialize(result, text),
                    Era::Modern => Hello::of_discover(result, text),
                };
                hello.map_or(Self::Silent, Self::Speaks)
            }
            (_, Some((Said::Error { code: INTERNAL_ERROR }, ..))) => Self::Silent,
            (200, Some((Said::Error { .. }, ..))) | (400 | 404 | 405, _) => Self::OtherEra,
            (_, _) => Self::Silent,
        }
    }
}

/// What an agent's handshake, or any modern request, says about the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// The revision that is spoken from here on.
    pub revision: &'static str,
    /// What the agent can be asked for.
    pub capabilities: ClientCapabilities,
}

impl Introduced {
    /// Reads the whole `initialize` request at `root`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when `params` lack `protocolVersion` or `capabilities`, or hold them in a form
    /// that no revision knows.
    pub fn of_initialize(root: Node<'_>) -> Result<Self, Malformed> {
        let params = root.get("params").ok_or(Malformed)?;
        let [asked, capabilities] = params.pick(&["protocolVersion", "capabilities"])?;
        let revision = negotiate(asked.and_then(Node::text).ok_or(Malformed)?);
        let capabilities = ClientCapabilities::read(capabilities.ok_or(Malformed)?, revision)?;
        Ok(Self { revision, capabilities })
    }

    /// Reads `_meta` of the modern request at `root`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it lacks the client's capabilities, which every request has to hold
    /// (2026-07-28 basic/index "`_meta`"), or writes them in a form that no revision knows.
    pub fn of_modern(root: Node<'_>) -> Result<Self, Malformed> {
        let meta = root.get("params").and_then(|params| params.get("_meta")).ok_or(Malformed)?;
        let [capabilities] = meta.pick(&[CLIENT_CAPABILITIES])?;
        let capabilities = ClientCapabilities::read(capabilities.ok_or(Malformed)?, MODERN)?;
        Ok(Self { revision: MODERN, capabilities })
    }
}

/// The revision that `/mcp` speaks with a client that asks for `asked`: that one, or our newest
/// legacy one, with which the client may be content or leave (2025-11-25 basic/lifecycle "Version
/// Negotiation": the server MUST answer another version that it supports, SHOULD be its latest;
/// `initialize` itself is not part of the modern era, so its revision is no answer).
#[must_use]
pub fn negotiate(asked: &str) -> &'static str {
    SERVED_LEGACY.into_iter().find(|served| *served == asked).unwrap_or(NEWEST_LEGACY)
}

/// Writes our `initialize`; `id` is JSON.
pub fn write_initialize(
    id: &[u8],
    revision: &str,
    capabilities: ClientCapabilities,
    out: &mut Vec<u8>,
) {
    put(out, &[br#"{"jsonrpc":"2.0","id":"#, id, br#","method":"initialize","params":{"#]);
    put(out, &[br#""protocolVersion":""#, revision.as_bytes(), br#"","capabilities":"#]);
    capabilities.write(revision, out);
    put(out, &[br#","clientInfo":"#, IMPLEMENTATION, b"}}"]);
}

/// `notifications/initialized`, alike in all legacy revisions.
pub const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// Writes our `server/discover`; `id` is JSON.
pub fn write_discover(id: &[u8], capabilities: ClientCapabilities, out: &mut Vec<u8>) {
    put(out, &[br#"{"jsonrpc":"2.0","id":"#, id, br#","method":"server/discover","params":{"#]);
    put(out, &[br#""_meta":"#]);
    write_meta(capabilities, out);
    put(out, &[b"}}"]);
}

/// Writes the `_meta` of a modern request of our own (2026-07-28 basic/index "`_meta`").
pub fn write_meta(capabilities: ClientCapabilities, out: &mut Vec<u8>) {
    out.push(b'{');
    write_meta_members(capabilities, out);
    out.push(b'}');
}

/// Its members alone, to be put into an object that has others.
pub fn write_meta_members(capabilities: ClientCapabilities, out: &mut Vec<u8>) {
    let key = |key: &'static str| key.as_bytes();
    put(out, &[b"\"", key(PROTOCOL_VERSION), b"\":\"", MODERN.as_bytes(), b"\",\""]);
    put(out, &[key(CLIENT_INFO), b"\":", IMPLEMENTATION, b",\"", key(CLIENT_CAPABILITIES), b"\":"]);
    capabilities.write(MODERN, out);
}

/// What `/mcp` answers a handshake with.
pub struct Offer<'a> {
    /// The id of the request, as the client wrote it.
    pub id: &'a [u8],
    /// What the permitted servers offer together, within what `/mcp` serves.
    pub capabilities: ServerCapabilities,
    /// See [`join_instructions`].
    pub instructions: &'a str,
    /// `_meta["io.portcullis/partial"]`: an array of the servers that are missing, as JSON.
    pub partial: Option<&'a [u8]>,
}

impl Offer<'_> {
    /// Writes the answer to `initialize`.
    pub fn write_initialized(&self, revision: &str, out: &mut Vec<u8>) {
        self.open(out);
        put(out, &[br#""protocolVersion":""#, revision.as_bytes(), b"\","]);
        self.write_common(out);
        put(out, &[br#","serverInfo":"#, IMPLEMENTATION]);
        if let Some(partial) = self.partial {
            put(out, &[br#","_meta":{""#, PARTIAL.as_bytes(), b"\":", partial, b"}"]);
        }
        put(out, &[b"}}"]);
    }

    /// Writes the answer to `server/discover`. It may be kept by nobody: what a principal may see
    /// changes with policy, which has its own news (2026-07-28 server/utilities/caching: a `ttlMs`
    /// of 0 is stale at once).
    pub fn write_discovered(&self, out: &mut Vec<u8>) {
        self.open(out);
        put(out, &[br#""resultType":"complete","supportedVersions":["#]);
        for (number, revision) in MODERN_REVISIONS.iter().enumerate() {
            put(out, &[if number > 0 { b"," } else { b"" }, b"\"", revision.as_bytes(), b"\""]);
        }
        put(out, &[b"],"]);
        self.write_common(out);
        put(out, &[br#","ttlMs":0,"cacheScope":"private","_meta":{""#]);
        put(out, &[SERVER_INFO.as_bytes(), b"\":", IMPLEMENTATION]);
        if let Some(partial) = self.partial {
            put(out, &[b",\"", PARTIAL.as_bytes(), b"\":", partial]);
        }
        put(out, &[b"}}}"]);
    }

    fn open(&self, out: &mut Vec<u8>) {
        put(out, &[br#"{"jsonrpc":"2.0","id":"#, self.id, br#","result":{"#]);
    }

    fn write_common(&self, out: &mut Vec<u8>) {
        put(out, &[br#""capabilities":"#]);
        self.capabilities.write(out);
        if !self.instructions.is_empty() {
            put(out, &[br#","instructions":"#]);
            write::string(self.instructions, out);
        }
    }
}

/// Joins the instructions of several servers, each (prefix, text), to at most
/// [`HELLO_INSTRUCTIONS_BYTES_MAX`].
///
/// They are words of strangers in an agent's prompt: each text stands under its server's prefix and
/// is quoted line by line, so it cannot pass for the section of another; and each has the same
/// share of the room, so it cannot push another out. The text of a lone server without a prefix is
/// left as it is.
#[must_use]
pub fn join_instructions(servers: &[(&str, &str)]) -> String {
    if let [("", alone)] = servers {
        return cut(alone, HELLO_INSTRUCTIONS_BYTES_MAX).to_owned();
    }
    let speaking = || servers.iter().filter(|(_, text)| !text.trim().is_empty());
    let share = HELLO_INSTRUCTIONS_BYTES_MAX.checked_div(speaking().count()).unwrap_or_default();
    let mut joined = String::new();
    for (prefix, text) in speaking() {
        let mut section = format!("## {prefix}\n");
        for line in text.trim().split(is_line_end) {
            // A line that holds nothing but its mark has no space behind it.
            section.push_str(if line.is_empty() { ">" } else { "> " });
            section.push_str(line);
            section.push('\n');
        }
        joined.push_str(cut(&section, share));
        if !joined.ends_with('\n') {
            joined.pop();
            joined.push('\n');
        }
    }
    joined.truncate(joined.trim_end().len());
    joined
}

/// What some reader takes for the end of a line (Unicode UAX #14, mandatory breaks).
const fn is_line_end(character: char) -> bool {
    matches!(character, '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The longest beginning of `text` that has at most `bytes`.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// `clientInfo` and `serverInfo` of ours.
const IMPLEMENTATION: &[u8] =
    concat!(r#"{"name":"portcullis","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#).as_bytes();

/// JSON-RPC 2.0 §5.1.
const INTERNAL_ERROR: i64 = -32_603;
/// 2026-07-28 basic/index "`_meta`": on every request.
pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The same, optional there.
pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
/// The same, required.
pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The same, for what was `logging/setLevel`.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
/// The same, on results.
pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
/// Ours: which servers a result lacks, and why.
pub const PARTIAL: &str = "io.portcullis/partial";

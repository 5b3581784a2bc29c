//! A question, and the message that an agent would ask it with.

use std::net::{IpAddr, Ipv4Addr};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::address::Country;
use crate::clock::UnixSeconds;
use crate::judge::principal::{Parts, Principal};
use crate::mcp::{ASSUMED_REVISION, MODERN_REVISIONS, bodyless_revision};
use crate::reject::Reject;

/// A request that nobody made.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// Namespaced user id; `None` for a workload.
    pub user: Option<String>,
    /// Namespaced groups.
    pub groups: Vec<String>,
    /// Namespaced agent id.
    pub agent: String,
    /// The server; needed for everything but `connect`.
    pub server: Option<String>,
    /// MCP method, or `connect`.
    pub method: String,
    /// Tool, prompt, URI or task, where the method has one.
    pub name: Option<String>,
    /// What `name` is with `completion/complete`, where it could be either.
    pub reference: Option<Reference>,
    /// Where it comes from.
    pub ip: IpAddr,
    /// Country of that address; [`super::Bench::country`] looks it up.
    pub country: Option<Country>,
    /// When.
    pub at: UnixSeconds,
    /// Scopes of the token.
    pub scopes: Vec<String>,
    /// `acr` of the token.
    pub acr: Option<String>,
    /// `auth_time` of the token.
    pub auth_time: Option<UnixSeconds>,
    /// MCP revision that the client declares; without one the gateway assumes 2025-03-26. With
    /// `initialize` what it asks for, which the server may not speak.
    pub revision: Option<String>,
    /// By GET or DELETE, which bring no message and so no revision.
    pub(super) bodyless: bool,
    /// Arguments of a `tools/call`: one JSON object, as it is written.
    pub arguments: Option<String>,
}

/// What is completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// An argument of a prompt.
    Prompt,
    /// A variable of a resource template.
    Resource,
}

impl Asked {
    /// `method` by `agent` at a time, from loopback; nothing else is known.
    #[must_use]
    pub fn new(agent: &str, method: &str, at: UnixSeconds) -> Self {
        Self {
            user: None,
            groups: Vec::new(),
            agent: agent.to_owned(),
            server: None,
            method: method.to_owned(),
            name: None,
            reference: None,
            ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            country: None,
            at,
            scopes: Vec::new(),
            acr: None,
            auth_time: None,
            revision: None,
            bodyless: false,
            arguments: None,
        }
    }
}

/// Who asks, as a token would name them.
pub(super) fn principal(asked: &Asked) -> Principal {
    Principal::assemble(Parts {
        user: asked.user.clone(),
        agent: asked.agent.clone(),
        groups: asked.groups.clone(),
        scopes: asked.scopes.clone(),
        acr: asked.acr.clone(),
        auth_time: asked.auth_time.map(|at| at.0),
        ..Parts::default()
    })
}

/// `MCP-Protocol-Version`: with `initialize` the message alone says what is asked for.
pub(super) fn version(asked: &Asked) -> Option<&str> {
    asked.revision.as_deref().filter(|_| asked.method != INITIALIZE)
}

/// The revision of whatever brings a `connect` with it.
///
/// # Errors
/// `RpcVersion` for a revision that we do not speak.
pub(super) fn revision_of_connect(asked: &Asked) -> Result<Option<&'static str>, Reject> {
    if asked.bodyless {
        return Ok(None);
    }
    let declared = asked.revision.as_deref().map(str::as_bytes);
    bodyless_revision(declared).map(|(_, revision)| Some(revision))
}

/// `params._meta`, which a modern message needs.
fn meta(asked: &Asked) -> Option<Value> {
    let modern = version(asked).filter(|revision| MODERN_REVISIONS.contains(revision))?;
    Some(json!({
        "io.modelcontextprotocol/protocolVersion": modern,
        "io.modelcontextprotocol/clientCapabilities": {},
    }))
}

/// What an agent would send.
pub(super) fn message(asked: &Asked) -> Vec<u8> {
    let (method, name) = (asked.method.as_str(), asked.name.as_deref());
    let meta = meta(asked);
    let mut params = match name {
        None if method == INITIALIZE => {
            let revision = asked.revision.as_deref().unwrap_or(ASSUMED_REVISION);
            json!({"protocolVersion": revision})
        }
        None => json!({}),
        // What is written goes in as it is: a number or a key that is there twice is judged as the
        // gateway would judge it.
        Some(name) if method == TOOL => {
            let (name, arguments) = (json!(name), asked.arguments.as_deref().unwrap_or("{}"));
            let meta = meta.map(|meta| format!(r#","_meta":{meta}"#)).unwrap_or_default();
            return format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"{TOOL}",
                "params":{{"name":{name},"arguments":{arguments}{meta}}}}}"#
            )
            .into_bytes();
        }
        Some(name) if method.starts_with("prompts/") => json!({"name": name}),
        Some(name) if method.starts_with("resources/") => json!({"uri": name}),
        Some(name) if method.starts_with("tasks/") => json!({"taskId": name}),
        Some(uri) if method == LISTEN => json!({"notifications": {"resourceSubscriptions": [uri]}}),
        Some(name) => match reference(asked) {
            Some(Reference::Resource) => json!({"ref": {"type": "ref/resource", "uri": name}}),
            Some(Reference::Prompt) => json!({"ref": {"type": "ref/prompt", "name": name}}),
            // Refused before; the reader refuses it again.
            None => json!({}),
        },
    };
    if let (Some(meta), Some(fields)) = (meta, params.as_object_mut()) {
        fields.insert("_meta".to_owned(), meta);
    }
    let mut message = json!({"jsonrpc": "2.0", "method": method, "params": params});
    if !method.starts_with("notifications/")
        && let Some(fields) = message.as_object_mut()
    {
        fields.insert("id".to_owned(), 1.into());
    }
    message.to_string().into_bytes()
}

/// What is completed, as it is said or as it is plain; `None` for a name that could be either.
/// Every URI has a colon after its scheme (RFC 3986 §3), which a template (RFC 6570) may stand for.
pub(super) fn reference(asked: &Asked) -> Option<Reference> {
    let name = asked.name.as_deref().unwrap_or_default();
    let plain = if name.contains("://") {
        Some(Reference::Resource)
    } else if name.contains([':', '{']) {
        None
    } else {
        Some(Reference::Prompt)
    };
    asked.reference.or(plain)
}

/// A moment as RFC 3339 writes it, with its offset.
///
/// # Errors
/// In words, what is wrong with it.
pub fn moment(text: &str) -> Result<UnixSeconds, String> {
    let at: Timestamp = text
        .parse()
        .map_err(|_| format!("{text:?} is no time; write 2026-11-23T22:00:00+01:00"))?;
    u64::try_from(at.as_second()).map(UnixSeconds).map_err(|_| format!("{text:?} is before 1970"))
}

pub(super) const CONNECT: &str = "connect";
const INITIALIZE: &str = "initialize";
pub(super) const TOOL: &str = "tools/call";
pub(super) const COMPLETE: &str = "completion/complete";
pub(super) const LISTEN: &str = "subscriptions/listen";
/// Beginnings of the methods that name what they touch.
pub(super) const NAMED: [&str; 10] = [
    TOOL,
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    COMPLETE,
    "tasks/get",
    "tasks/cancel",
    "tasks/result",
    "tasks/update",
];

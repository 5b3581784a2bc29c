//! A modern agent in front of a legacy server.

use super::{Fault, Out, edited, is_bridged, is_cacheable, is_id, is_of_one_hop, raw};
use crate::mcp::Method;
use crate::mcp::capability::ClientCapabilities;
use crate::mcp::handshake::{Introduced, LOG_LEVEL};
use crate::mcp::message::{Message, Said, ServerMethod, ServerNote};
use crate::mcp::span::Node;
use crate::mcp::splice::Edits;
use crate::reject::Reject;

/// One request of a modern agent to a legacy server.
#[derive(Debug)]
pub struct ToLegacy {
    method: Method,
    /// The request's id as the agent wrote it.
    id: Vec<u8>,
    /// The id that it has upstream, and its progress token there.
    up_id: Vec<u8>,
    /// The agent's own token, as it wrote it.
    token: Option<Vec<u8>>,
    /// The least severe logs that the agent wants.
    logs: Option<Level>,
    capabilities: ClientCapabilities,
}

impl ToLegacy {
    /// Turns the agent's request around: `root` is the message in `text`, `up_id` a JSON string
    /// that no other request of the upstream session has. Writes what goes upstream to `out`.
    ///
    /// The protocol's members of `_meta` are cut out, and the `inputResponses` of a retry: a legacy
    /// server waits for none. What only lies beside them (`traceparent`, the agent's own) stays.
    ///
    /// # Errors
    ///
    /// `UpstreamEra` for a method that is not bridged. `StateForeign` for a retry with a state,
    /// since no legacy server gave one. `RpcInvalid` and `RpcParams` for what is no modern request.
    pub fn request(
        method: Method,
        root: Node<'_>,
        text: &[u8],
        up_id: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Self, Reject> {
        Self::turn(method, root, text, up_id, out).map_err(Fault::of_agent)
    }

    fn turn(
        method: Method,
        root: Node<'_>,
        text: &[u8],
        up_id: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        if !is_bridged(method) {
            return Err(Reject::UpstreamEra.into());
        }
        let introduced = Introduced::of_modern(root).map_err(|_| Reject::RpcParams)?;
        let of_agent = |_| Reject::RpcInvalid;
        let [id, params] = root.pick(&["id", "params"]).map_err(of_agent)?;
        let (id, params) = (id.ok_or(Reject::RpcInvalid)?, params.ok_or(Reject::RpcParams)?);
        let [meta, state, responses] =
            params.pick(&["_meta", "requestState", "inputResponses"]).map_err(of_agent)?;
        if state.is_some() {
            return Err(Reject::StateForeign.into());
        }
        let meta = meta.ok_or(Reject::RpcParams)?;
        let [token, logs] = meta.pick(&["progressToken", LOG_LEVEL]).map_err(of_agent)?;
        let logs = match logs {
            Some(level) => Some(level.text().and_then(Level::from_name).ok_or(Reject::RpcParams)?),
            None => None,
        };

        let mut edits = Edits::new();
        edits.put(id.range(), up_id)?;
        edits.remove_members(meta, is_of_one_hop)?;
        if let Some(token) = token {
            edits.put(token.range(), up_id)?;
        }
        if responses.is_some() {
            edits.remove_member(params, "inputResponses")?;
        }
        edits.apply(text, out)?;
        Ok(Self {
            method,
            id: raw(id, text)?.to_vec(),
            up_id: up_id.to_vec(),
            token: token.map(|token| raw(token, text).map(<[u8]>::to_vec)).transpose()?,
            logs,
            capabilities: introduced.capabilities,
        })
    }

    /// What the agent can be asked for, by its own word.
    #[must_use]
    pub const fn capabilities(&self) -> ClientCapabilities {
        self.capabilities
    }

    /// Turns one message of the upstream around: `message` was read from `text`.
    ///
    /// # Errors
    ///
    /// `UpstreamMalformed` for what cannot be edited in one way only; `UpstreamEra` for an error
    /// that asks for something which no modern agent is asked in this form (-32042).
    pub fn heard(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Reject> {
        let out = match message.said {
            Said::Result(_) => self.result(message, text),
            Said::Error { code } => self.error(code, message, text),
            Said::Request(method) => answered(method, message, text),
            Said::Notification(note) => self.notification(note, message, text),
        };
        out.map_err(Fault::of_upstream)
    }

    /// A legacy result is complete by itself: a member that has a meaning in the modern era has
    /// none in it, and is overwritten.
    fn result(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Fault> {
        let (Some(id), Some(result)) = (message.id, message.content) else {
            return Err(Reject::UpstreamMalformed.into());
        };
        if !is_id(id, text, &self.up_id) {
            return Ok(Out::Stray);
        }
        let mut edits = Edits::new();
        edits.put(id.range(), &self.id)?;
        if let Some(meta) = message.meta {
            edits.remove_members(meta, is_of_one_hop)?;
        }
        edits.set_member(result, "resultType", br#""complete""#)?;
        if is_cacheable(self.method) {
            // 2026-07-28 server/utilities/caching: 0 is stale at once. A legacy server says nothing
            // of how long its answer holds, or for whom.
            edits.set_member(result, "ttlMs", b"0")?;
            edits.set_member(result, "cacheScope", br#""private""#)?;
        }
        Ok(Out::Answer(edited(&edits, text)?))
    }

    fn error(&self, code: i64, message: &Message<'_>, text: &[u8]) -> Result<Out, Fault> {
        let Some(id) = message.id.filter(|id| is_id(*id, text, &self.up_id)) else {
            return Ok(Out::Stray);
        };
        let mut edits = Edits::new();
        edits.put(id.range(), &self.id)?;
        match code {
            // 2026-07-28 basic/index "Error Codes": a missing resource is an invalid parameter now.
            -32_002 => {
                let error = message.content.ok_or(Reject::UpstreamMalformed)?;
                edits.set_member(error, "code", b"-32602")?;
            }
            // 2025-11-25 client/elicitation: the user has to visit a page first. The modern era has
            // a result for that, whose hosts policy has to judge.
            -32_042 => return Err(Reject::UpstreamEra.into()),
            _ => {}
        }
        Ok(Out::Answer(edited(&edits, text)?))
    }

    fn notification(
        &self,
        note: ServerNote,
        message: &Message<'_>,
        text: &[u8],
    ) -> Result<Out, Fault> {
        let mut edits = Edits::new();
        match note {
            ServerNote::Progress => {
                let heard = message.about.progress_token;
                let ours = heard.filter(|token| is_id(*token, text, &self.up_id));
                let (Some(token), Some(own)) = (ours, &self.token) else {
                    return Ok(Out::Dropped);
                };
                edits.put(token.range(), own)?;
            }
            ServerNote::Message => {
                let level = message.content.and_then(|params| params.get("level"));
                let level = level.and_then(Node::text).and_then(Level::from_name);
                // 2026-07-28 server/utilities/logging: none without a `logLevel` in the request.
                match (self.logs, level) {
                    (Some(least), Some(level)) if level >= least => {}
                    (_, _) => return Ok(Out::Dropped),
                }
            }
            ServerNote::PromptsListChanged
            | ServerNote::ResourcesListChanged
            | ServerNote::ResourcesUpdated
            | ServerNote::ToolsListChanged => return Ok(Out::Changed(note)),
            ServerNote::Cancelled
            | ServerNote::ElicitationComplete
            | ServerNote::SubscriptionsAcknowledged
            | ServerNote::TasksStatus
            | ServerNote::Other => return Ok(Out::Dropped),
        }
        if let Some(meta) = message.meta {
            edits.remove_members(meta, is_of_one_hop)?;
        }
        Ok(Out::Down(edited(&edits, text)?))
    }
}

/// Our answer to a request of the server. We declared no capability, so it may ask for a sign of
/// life and nothing else (2025-11-25 basic/lifecycle "Operation").
pub(super) fn answered(
    method: ServerMethod,
    message: &Message<'_>,
    text: &[u8],
) -> Result<Out, Fault> {
    let id = raw(message.id.ok_or(Reject::UpstreamMalformed)?, text)?;
    let answer: &[u8] = match method {
        ServerMethod::Ping => br#"result":{}}"#,
        ServerMethod::ElicitationCreate
        | ServerMethod::RootsList
        | ServerMethod::SamplingCreateMessage
        | ServerMethod::Other => br#"error":{"code":-32601,"message":"Method not found"}}"#,
    };
    Ok(Out::Up([br#"{"jsonrpc":"2.0","id":"#, id, br#",""#, answer].concat()))
}

/// Severities of logs, the least severe first (RFC 5424 §6.2.1 as MCP names them).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "debug" => Self::Debug,
            "info" => Self::Info,
            "notice" => Self::Notice,
            "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" => Self::Critical,
            "alert" => Self::Alert,
            "emergency" => Self::Emergency,
            _ => return None,
        })
    }
}

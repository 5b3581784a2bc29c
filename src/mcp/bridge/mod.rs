//! Between the eras: one request of an agent to a server that does not speak the agent's era, and
//! what the server says while it answers.
//!
//! Sans-I/O. [`ToLegacy`] stands between a modern agent and a legacy server, [`ToModern`] between a
//! legacy agent and a modern server. Each turns the request around once, and then every message
//! that is heard for it. What is not bridged is refused ([`Reject::UpstreamEra`]), never guessed:
//! the agent could not tell what it lost.
//!
//! | | `ToLegacy` | `ToModern` |
//! |---|---|---|
//! | ids | ours upstream, the agent's below | the agent's all the way |
//! | `_meta` of the request | the protocol's members cut out | put in |
//! | results | `resultType`, `ttlMs`, `cacheScope` put in | cut out |
//! | errors | -32002 becomes -32602 | -3202x become what legacy clients know |
//! | `ping` of the server | answered here | (there is none) |
//! | other requests of the server | -32601: nothing was declared | (there are none) |
//! | progress | the agent's token is put back | as it is |
//! | logs | as the agent asked in `_meta` | as they are |
//! | news of lists | to the gateway only | to the gateway only |

pub mod asking;
mod same;
mod to_legacy;
mod to_modern;

pub use same::Same;
pub use to_legacy::ToLegacy;
pub use to_modern::ToModern;

use super::handshake::PARTIAL;
use super::message::{ServerNote, is_id};
use super::method::Method;
use super::span::Node;
use super::splice::{Edits, Unfit};
use crate::reject::Reject;

/// What becomes of one message of an upstream.
#[derive(Debug, PartialEq, Eq)]
pub enum Out {
    /// The agent's answer: nothing comes after it.
    Answer(Vec<u8>),
    /// A notification for the agent, before its answer.
    Down(Vec<u8>),
    /// Our answer to a request of the upstream, to be sent to it in a POST of its own.
    Up(Vec<u8>),
    /// A list or a resource of the server changed. An agent hears of it on its stream, not here.
    Changed(ServerNote),
    /// Nothing that this agent may see: it asked for no logs, or it is news of a kind that its era
    /// does not have.
    Dropped,
    /// An answer to nothing that was asked here. It goes nowhere, and is counted.
    Stray,
}

/// True for what can be asked of a server of the other era in this form. Lists are asked for by the
/// hub itself; they are here for a hub with one server.
#[must_use]
pub fn is_bridged(method: Method) -> bool {
    is_cacheable(method)
        || matches!(method, Method::CompletionComplete | Method::PromptsGet | Method::ToolsCall)
}

/// True for results that a modern server must say the lifetime of (2026-07-28
/// server/utilities/caching).
const fn is_cacheable(method: Method) -> bool {
    matches!(
        method,
        Method::PromptsList
            | Method::ResourcesList
            | Method::ResourcesRead
            | Method::ResourcesTemplatesList
            | Method::ToolsList
    )
}

/// True for members of `_meta` that mean something to one hop only: the protocol's own, which the
/// other era does not have, and the gateway's, which nobody else may write.
fn is_of_one_hop(key: &str) -> bool {
    key.starts_with("io.modelcontextprotocol/") || is_ours(key)
}

/// True for names of ours.
fn is_ours(key: &str) -> bool {
    PARTIAL.split_inclusive('/').next().is_some_and(|prefix| key.starts_with(prefix))
}

/// The text of `node`.
fn raw<'t>(node: Node<'_>, text: &'t [u8]) -> Result<&'t [u8], Reject> {
    text.get(node.range()).ok_or(Reject::GatewayFault)
}

/// `text` with `edits`.
fn edited(edits: &Edits<'_>, text: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut out = Vec::with_capacity(text.len() + EDITED_MORE_BYTES);
    edits.apply(text, &mut out)?;
    Ok(out)
}

/// What an edit usually adds, so that the text is copied once.
const EDITED_MORE_BYTES: usize = 512;

/// A refusal on its way out. A type of its own, so that `?` of edits works here and nowhere else.
enum Fault {
    Known(Reject),
    /// An edit that does not fit: two readers would read the message differently. Whose fault that
    /// is depends on whose message it is.
    Unfit,
}

impl Fault {
    const fn of_agent(self) -> Reject {
        match self {
            Self::Known(reject) => reject,
            Self::Unfit => Reject::RpcInvalid,
        }
    }

    const fn of_upstream(self) -> Reject {
        match self {
            Self::Known(reject) => reject,
            Self::Unfit => Reject::UpstreamMalformed,
        }
    }
}

impl From<Reject> for Fault {
    fn from(reject: Reject) -> Self {
        Self::Known(reject)
    }
}

impl From<Unfit> for Fault {
    fn from(_: Unfit) -> Self {
        Self::Unfit
    }
}

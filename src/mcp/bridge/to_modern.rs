//! A legacy agent in front of a modern server.

use super::{Fault, Out, edited, is_bridged, is_id, is_of_one_hop, raw};
use crate::mcp::Method;
use crate::mcp::capability::ClientCapabilities;
use crate::mcp::handshake::{write_meta, write_meta_members};
use crate::mcp::message::{Message, ResultKind, Said, ServerNote};
use crate::mcp::span::{Node, NodeKind};
use crate::mcp::splice::Edits;
use crate::reject::Reject;

/// One request of a legacy agent to a modern server.
///
/// The id and the progress token stay what they are: every POST stands alone, so they meet no
/// others (2026-07-28 streamable HTTP "Sending Messages to the Server").
#[derive(Debug)]
pub struct ToModern {
    method: Method,
    /// The request's id as the agent wrote it.
    id: Vec<u8>,
    /// Its progress token, if it has one.
    token: Option<Vec<u8>>,
}

impl ToModern {
    /// Turns the agent's request around: `root` is the message in `text`. Writes what goes upstream
    /// to `out`; the headers that go with it mirror it, as with any modern request.
    /// `capabilities` is what the agent declared, within what its hub carries.
    ///
    /// # Errors
    ///
    /// `UpstreamEra` for a method that is not bridged, and for a call that asks to become a task of
    /// 2025-11-25: the extension of that name is another protocol. `RpcInvalid` and `RpcParams` for
    /// what is no request.
    pub fn request(
        method: Method,
        root: Node<'_>,
        text: &[u8],
        capabilities: ClientCapabilities,
        out: &mut Vec<u8>,
    ) -> Result<Self, Reject> {
        Self::turn(method, root, text, capabilities, out).map_err(Fault::of_agent)
    }

    fn turn(
        method: Method,
        root: Node<'_>,
        text: &[u8],
        capabilities: ClientCapabilities,
        out: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        if !is_bridged(method) {
            return Err(Reject::UpstreamEra.into());
        }
        let of_agent = |_| Reject::RpcInvalid;
        let [id, params] = root.pick(&["id", "params"]).map_err(of_agent)?;
        let id = id.ok_or(Reject::RpcInvalid)?;
        let mut whole = Vec::new();
        write_meta(capabilities, &mut whole);
        let mut members = Vec::new();
        let in_params;
        let mut token = None;

        let mut edits = Edits::new();
        match params {
            Some(params) => {
                let [meta, task] = params.pick(&["_meta", "task"]).map_err(of_agent)?;
                if task.is_some() {
                    return Err(Reject::UpstreamEra.into());
                }
                match meta {
                    Some(meta) => {
                        let [own] = meta.pick(&["progressToken"]).map_err(of_agent)?;
                        token = own.map(|own| raw(own, text).map(<[u8]>::to_vec)).transpose()?;
                        rewrite_meta(meta, text, capabilities, &mut members)?;
                        edits.put(meta.range(), &members)?;
                    }
                    None => edits.insert_member(params, "_meta", &whole)?,
                }
            }
            None => {
                in_params = [br#"{"_meta":"#, &whole[..], b"}"].concat();
                edits.insert_member(root, "params", &in_params)?;
            }
        }
        edits.apply(text, out)?;
        Ok(Self { method, id: raw(id, text)?.to_vec(), token })
    }

    /// Turns one message of the upstream around: `message` was read from `text`.
    ///
    /// # Errors
    ///
    /// `UpstreamMalformed` for what cannot be edited in one way only, and for a request, which no
    /// modern server may send (2026-07-28 streamable HTTP "Receiving Messages"). `UpstreamEra` for
    /// a result that is not complete: a legacy agent would take it for one that is.
    pub fn heard(&self, message: &Message<'_>, text: &[u8]) -> Result<Out, Reject> {
        let out = match message.said {
            Said::Result(kind) => self.result(kind, message, text),
            Said::Error { code } => self.error(code, message, text),
            Said::Request(_) => Err(Reject::UpstreamMalformed.into()),
            Said::Notification(note) => self.notification(note, message, text),
        };
        out.map_err(Fault::of_upstream)
    }

    fn notification(
        &self,
        note: ServerNote,
        message: &Message<'_>,
        text: &[u8],
    ) -> Result<Out, Fault> {
        match note {
            ServerNote::Progress => {
                let (heard, own) = (message.about.progress_token, &self.token);
                if !heard.zip(own.as_ref()).is_some_and(|(heard, own)| is_id(heard, text, own)) {
                    return Ok(Out::Dropped);
                }
            }
            ServerNote::Message => {}
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
        let mut edits = Edits::new();
        if let Some(meta) = message.meta {
            edits.remove_members(meta, is_of_one_hop)?;
        }
        Ok(Out::Down(edited(&edits, text)?))
    }

    fn result(&self, kind: ResultKind, message: &Message<'_>, text: &[u8]) -> Result<Out, Fault> {
        let (Some(id), Some(result)) = (message.id, message.content) else {
            return Err(Reject::UpstreamMalformed.into());
        };
        if !is_id(id, text, &self.id) {
            return Ok(Out::Stray);
        }
        match kind {
            ResultKind::Complete => {}
            ResultKind::InputRequired | ResultKind::Task | ResultKind::Other => {
                return Err(Reject::UpstreamEra.into());
            }
        }
        let mut edits = Edits::new();
        edits.put(id.range(), &self.id)?;
        // 2025-11-25 server/tools "Structured Content": an object; later revisions allow any value.
        let structured =
            result.get("structuredContent").filter(|_| self.method == Method::ToolsCall);
        let odd = structured.is_some_and(|content| content.kind() != NodeKind::Object);
        edits.remove_members(result, |key| {
            matches!(key, "resultType" | "ttlMs" | "cacheScope")
                || odd && key == "structuredContent"
        })?;
        if let Some(meta) = message.meta {
            edits.remove_members(meta, is_of_one_hop)?;
        }
        Ok(Out::Answer(edited(&edits, text)?))
    }

    fn error(&self, code: i64, message: &Message<'_>, text: &[u8]) -> Result<Out, Fault> {
        let Some(id) = message.id.filter(|id| is_id(*id, text, &self.id)) else {
            return Ok(Out::Stray);
        };
        let mut edits = Edits::new();
        edits.put(id.range(), &self.id)?;
        // 2026-07-28 basic/index "Error Codes": three codes that a legacy client has never heard
        // of.
        let known: Option<&[u8]> = match code {
            // Our headers and our body differ: nothing that the agent did.
            -32_020 => Some(b"-32603"),
            // It lacks a capability, which it cannot declare any more.
            -32_021 => Some(b"-32602"),
            -32_022 => Some(b"-32600"),
            _ => None,
        };
        if let Some(known) = known {
            let error = message.content.ok_or(Reject::UpstreamMalformed)?;
            edits.set_member(error, "code", known)?;
        }
        Ok(Out::Answer(edited(&edits, text)?))
    }
}

/// The agent's `_meta` with the protocol's members of ours, and without any that the agent wrote
/// under such a name: to a legacy agent they mean nothing, to a modern server everything.
fn rewrite_meta(
    meta: Node<'_>,
    text: &[u8],
    capabilities: ClientCapabilities,
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    if meta.kind() != NodeKind::Object {
        return Err(Reject::RpcParams);
    }
    out.push(b'{');
    write_meta_members(capabilities, out);
    for member in meta.members().filter(|member| !is_of_one_hop(member.key)) {
        let member = member.key_range.start..member.value.range().end;
        out.push(b',');
        out.extend_from_slice(text.get(member).ok_or(Reject::GatewayFault)?);
    }
    out.push(b'}');
    Ok(())
}

//! Arguments that are mirrored into fields: compared where they come from the agent, written where
//! it speaks a revision that has none.

use std::borrow::Cow;

use super::greet::Speaker;
use super::resolve::Finder;
use crate::gateway::exchange::Exchange;
use crate::hub::catalog::Use;
use crate::mcp::capability::era_of;
use crate::mcp::catalog::{Params, agree, mirrored};
use crate::mcp::span::Document;
use crate::mcp::{Era, Listed, Method};
use crate::policy::Permit;
use crate::reject::Reject;
use crate::shard::Shard;

/// A field and its value.
type Field = (String, Vec<u8>);

/// Which tool of which server is called, and what the server speaks.
pub(super) struct ToolCall<'a> {
    pub(super) server: u16,
    pub(super) tool: &'a str,
    pub(super) revision: &'static str,
}

impl ToolCall<'_> {
    /// The fields `mcp-param-*` that go with the message of `exchange`, of which the agent sent
    /// `own`. What its server lists is looked at as far as it is remembered; for an agent of a
    /// legacy revision, which has no such fields, it is asked for.
    ///
    /// # Errors
    /// `RpcHeaderMismatch` for fields of the agent's that say something else than its arguments.
    pub(super) async fn fields<'f>(
        &self,
        shard: &Shard,
        exchange: &Exchange,
        speaker: &Speaker,
        permit: &Permit,
        own: &'f [Field],
    ) -> Result<Cow<'f, [Field]>, Reject> {
        let is_call = exchange.scratch.call.method() == Method::ToolsCall;
        if !is_call || era_of(self.revision) == Era::Legacy {
            return Ok(Cow::Borrowed(own));
        }
        let from_modern = era_of(speaker.revision) == Era::Modern;
        let asking = Finder { shard, exchange, speaker }.asking(self.server, Listed::Tools);
        let catalog = if from_modern {
            asking.remembered(permit)
        } else {
            match Box::pin(asking.known(Use::Routing)).await {
                Some((view, list)) => {
                    view.unsent(shard);
                    list.ok()
                }
                None => None,
            }
        };
        let entry = catalog.as_ref().and_then(|catalog| catalog.find(self.tool));
        let Some(Params::Known(params @ [_, ..])) = entry.map(|entry| entry.params()) else {
            return Ok(Cow::Borrowed(own));
        };
        let body = &exchange.scratch.body;
        let mut document = Document::new();
        let root = document.read(body).map_err(|_| Reject::GatewayFault)?;
        let arguments = root.get("params").and_then(|params| params.get("arguments"));
        if from_modern {
            agree(params, arguments, body, own)?;
            return Ok(Cow::Borrowed(own));
        }
        Ok(Cow::Owned(mirrored(params, arguments, body)))
    }
}

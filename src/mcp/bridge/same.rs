//! An agent and a server of the same era, with the hub between them.

use super::{Fault, Out, edited, is_id, is_ours, raw, to_legacy};
use crate::limits::INPUT_REQUESTS_MAX;
use crate::mcp::capability::ClientCapabilities;
use crate::mcp::era::Era;
use crate::mcp::message::{Message, ResultKind, Said, ServerMethod, ServerNote};
use crate::mcp::span::{Node, NodeKind};
use crate::mcp::splice::Edits;
use crate::reject::Reject;

/// One request of an agent to a server that speaks the agent's era.
///
/// Towards a legacy server the id and the progress token are ours: official servers give an answer
/// to whoever used its id last in the session, and several requests of an agent share one. Towards
/// a modern server each request stands alone, and both stay the agent's.
#[derive(Debug)]
pub struct Same {
    /// The request's id as the agent wrote it.
    id: Vec<u8>,
    /// The id that it has upstream, and its progress token there.
    up_id: Option<Vec<u8>>,
    /// The agent's own token, as it wrote it.
    token: Option<Vec<u8>>,
    /// What the server was told that the agent can be asked for.
    declared: ClientCapabilities,
}

impl Same {
    /// Writes what goes upstream to `out`: `root` is the message in `text`, `up_id` a JSON string
    /// that no other request of the upstream session has, for a legacy server.
    ///
    /// # Errors
    ///
    /// `RpcInvalid` for what is no request in one reading.
    pub fn request(
        root: Node<'_>,
        text: &[u8],
        up_id: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Self, Reject> {
        Self::turn(root, text, up_id, out).map_err(Fault::of_agent)
    }

    fn turn(
        root: Node<'_>,
        text: &[u8],
        up_id: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Self, Fault> {
        let of_agent = |_| Reject::RpcInvalid;
        let [id, params] = root.pick(&["id", "params"]).map_err(of_agent)?;
        let id = id.ok_or(Reject::RpcInvalid)?;
        let meta = match params {
            Some(params) => {
                let [meta] = params.pick(&["_meta"]).map_err(of_agent)?;
                meta
            }
            None => None,
        };
        let token = match meta {
            Some(meta) => {
                let [token] = meta.pick(&["progressToken"]).map_err(of_agent)?;
                token
            }
            None => None,
        };
        let mut edits = Edits::new();
        if let Some(up_id) = up_id {
            edits.put(id.range(), up_id)?;
            if let Some(token) = token {
                edits.put(token.range(), up_id)?;
            }
        }
        edits.apply(text, out)?;
        Ok(Self {
            id: raw(id, text)?.to_vec(),
            up_id: up_id.map(<[u8]>::to_vec),
            token: token.map(|token| raw(token, text).map(<[u8]>::to_vec)).transpose()?,
            declared: ClientCapabilities::default(),
        })
    }

    /// A modern server was told that the agent can be asked for this.
    #[must_use]
    pub fn declaring(self, declared: ClientCapabilities) -> Self {
        Self { declared, ..self }
    }

    /// Whether both are of the legacy era.
    #[must_use]
    pub const fn is_legacy(&self) -> bool {
        self.up_id.is_some()
    }

    /// The era of both.
    const fn era(&self) -> Era {
        if self.up_id.is_some() { Era::Legacy } else { Era::Modern }
    }

    /// Turns one message of the upstream around: `message` was read from `text`, `state` is its
    /// `requestState`, sealed, as JSON.
    ///
    /// # Errors
    ///
    /// `UpstreamMalformed` for what cannot be edited in one way only, for a request of a modern
    /// server, which may send none, and for a question that the agent did not say it can answer.
    /// `GatewayNotBuilt` for a task, which `/mcp` does not carry yet.
    pub fn heard(
        &self,
        message: &Message<'_>,
        text: &[u8],
        state: Option<&[u8]>,
    ) -> Result<Out, Reject> {
        self.turned(message, text, state).map_err(Fault::of_upstream)
    }

    fn turned(
        &self,
        message: &Message<'_>,
        text: &[u8],
        state: Option<&[u8]>,
    ) -> Result<Out, Fault> {
        match message.said {
            Said::Result(_) | Said::Error { .. } => self.answer(message, text, state),
            Said::Request(method) if self.era() == Era::Legacy => {
                to_legacy::answered(method, message, text)
            }
            // 2026-07-28 streamable HTTP "Receiving Messages".
            Said::Request(_) => Err(Reject::UpstreamMalformed.into()),
            Said::Notification(note) => self.notification(note, message, text),
        }
    }

    fn answer(
        &self,
        message: &Message<'_>,
        text: &[u8],
        state: Option<&[u8]>,
    ) -> Result<Out, Fault> {
        let own = self.up_id.as_ref().unwrap_or(&self.id);
        let Some(id) = message.id.filter(|id| is_id(*id, text, own)) else {
            return Ok(Out::Stray);
        };
        let mut edits = Edits::new();
        // Byte for byte as the agent wrote it, however the server spells it.
        edits.put(id.range(), &self.id)?;
        let given = message.about.request_state;
        match message.said {
            Said::Result(ResultKind::Task) => return Err(Reject::GatewayNotBuilt.into()),
            Said::Result(ResultKind::InputRequired) if self.era() == Era::Modern => {
                self.check_questions(message.about.input_requests)?;
                match (given, state) {
                    (Some(given), Some(state)) => edits.put(given.range(), state)?,
                    (None, _) => {}
                    (Some(_), None) => return Err(Reject::GatewayFault.into()),
                }
            }
            // A state of anything else is of no use to an agent, and would be nobody's.
            Said::Result(ResultKind::InputRequired) => {
                return Err(Reject::UpstreamMalformed.into());
            }
            Said::Result(_) if given.is_some() => return Err(Reject::UpstreamMalformed.into()),
            Said::Result(_) | Said::Error { .. } | Said::Request(_) | Said::Notification(_) => {}
        }
        if let Some(meta) = message.meta {
            edits.remove_members(meta, is_ours)?;
        }
        Ok(Out::Answer(edited(&edits, text)?))
    }

    /// Only what the agent said it can be asked for (2026-07-28 patterns/mrtr, "Server
    /// Requirements").
    fn check_questions(&self, questions: Option<Node<'_>>) -> Result<(), Reject> {
        let Some(questions) = questions else { return Ok(()) };
        if questions.kind() != NodeKind::Object || questions.members().count() > INPUT_REQUESTS_MAX
        {
            return Err(Reject::UpstreamMalformed);
        }
        for question in questions.members() {
            if !self.declared.hold(needed(question.value)?) {
                return Err(Reject::UpstreamMalformed);
            }
        }
        Ok(())
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
                let own = self.up_id.as_ref().or(self.token.as_ref());
                let heard = message.about.progress_token;
                let ours = heard.filter(|token| own.is_some_and(|own| is_id(*token, text, own)));
                let (Some(token), Some(own)) = (ours, &self.token) else {
                    return Ok(Out::Dropped);
                };
                edits.put(token.range(), own)?;
            }
            ServerNote::Message | ServerNote::ElicitationComplete | ServerNote::Other => {}
            ServerNote::PromptsListChanged
            | ServerNote::ResourcesListChanged
            | ServerNote::ResourcesUpdated
            | ServerNote::ToolsListChanged => return Ok(Out::Changed(note)),
            // Of requests, listens and tasks that are not this agent's to hear of here.
            ServerNote::Cancelled
            | ServerNote::SubscriptionsAcknowledged
            | ServerNote::TasksStatus => return Ok(Out::Dropped),
        }
        if let Some(meta) = message.meta {
            edits.remove_members(meta, is_ours)?;
        }
        Ok(Out::Down(edited(&edits, text)?))
    }
}

/// What an agent must have declared to be asked this.
fn needed(question: Node<'_>) -> Result<ClientCapabilities, Reject> {
    let malformed = |_| Reject::UpstreamMalformed;
    if question.kind() != NodeKind::Object {
        return Err(Reject::UpstreamMalformed);
    }
    let [method, params] = question.pick(&["method", "params"]).map_err(malformed)?;
    let mode = match params {
        Some(params) => {
            let [mode] = params.pick(&["mode"]).map_err(malformed)?;
            mode.and_then(Node::text)
        }
        None => None,
    };
    match method.and_then(Node::text).map(ServerMethod::from_name) {
        Some(ServerMethod::RootsList) => Ok(ClientCapabilities::ROOTS),
        Some(ServerMethod::SamplingCreateMessage) => Ok(ClientCapabilities::SAMPLING),
        Some(ServerMethod::ElicitationCreate) => Ok(match mode {
            None | Some("form") => ClientCapabilities::ELICITATION_FORM,
            Some(_) => ClientCapabilities::ELICITATION_URL,
        }),
        Some(ServerMethod::Ping | ServerMethod::Other) | None => Err(Reject::UpstreamMalformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcp::span::Document;

    const UP: &[u8] = br#""g7""#;

    fn asked(text: &str, up_id: Option<&[u8]>) -> (Same, String) {
        let mut document = Document::new();
        let root = document.read(text.as_bytes()).unwrap();
        let mut out = Vec::new();
        let same = Same::request(root, text.as_bytes(), up_id, &mut out).unwrap();
        (same, String::from_utf8(out).unwrap())
    }

    fn heard(same: &Same, text: &str) -> Result<Out, Reject> {
        let mut document = Document::new();
        let root = document.read(text.as_bytes()).unwrap();
        same.heard(&Message::read(root).unwrap(), text.as_bytes(), Some(br#""sealed""#))
    }

    fn answer(text: &str) -> Result<Out, Reject> {
        Ok(Out::Answer(text.as_bytes().to_vec()))
    }

    const CALL: &str = r#"{"jsonrpc":"2.0", "id" : "\u0061" ,"method":"tools/call",
        "params":{"name":"x","arguments":{"id":1,"progressToken":2},
        "_meta":{"progressToken": 5 }}}"#;

    #[test]
    fn a_legacy_server_sees_our_id_and_the_agent_its_own() {
        let (same, up) = asked(CALL, Some(UP));
        let expected = CALL.replace(r#""\u0061""#, r#""g7""#);
        assert_eq!(up, expected.replace(r#""progressToken": 5 "#, r#""progressToken": "g7" "#));
        let mine = r#"{"id": "\u0061","jsonrpc":"2.0","result":{"id":"g7","content":[]}}"#;
        let theirs = mine.replace(r#""\u0061""#, r#""g7""#);
        assert_eq!(heard(&same, &theirs), answer(mine));
        assert_eq!(
            heard(&same, &theirs.replace(r#""id": "g7""#, r#""id": "\u00677""#)),
            answer(mine)
        );
        for stray in [r#""a""#, "7", r#""g8""#, r#""\u0061""#] {
            let other = theirs.replace(r#""id": "g7""#, &format!(r#""id": {stray}"#));
            assert_eq!(heard(&same, &other), Ok(Out::Stray), "{other}");
        }
        let error = r#"{"jsonrpc":"2.0","error":{"code":-1,"message":"x"}}"#;
        assert_eq!(heard(&same, error), Ok(Out::Stray), "nobody knows whose it is");
    }

    #[test]
    fn a_modern_server_sees_what_the_agent_wrote() {
        let (same, up) = asked(CALL, None);
        assert_eq!(up, CALL);
        let theirs =
            r#"{"jsonrpc":"2.0","id":"a","result":{"_meta":{"x":1,"io.portcullis/partial":[]}}}"#;
        let mine = r#"{"jsonrpc":"2.0","id":"\u0061","result":{"_meta":{"x":1}}}"#;
        assert_eq!(heard(&same, theirs), answer(mine));
        let request = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
        assert_eq!(heard(&same, request), Err(Reject::UpstreamMalformed));
        let task = r#"{"jsonrpc":"2.0","id":"a","result":{"resultType":"task","taskId":"t"}}"#;
        assert_eq!(heard(&same, task), Err(Reject::GatewayNotBuilt));
        let state = r#"{"jsonrpc":"2.0","id":"a","result":{"requestState":"s"}}"#;
        assert_eq!(heard(&same, state), Err(Reject::UpstreamMalformed));
    }

    #[test]
    fn a_question_needs_an_agent_that_can_answer_it() {
        let same = asked(CALL, None).0.declaring(ClientCapabilities::ELICITATION_FORM);
        let result = |id: &str, questions: &str, state: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required",
                "inputRequests":{questions},"requestState":{state}}}}}"#
            )
        };
        let ok = r#"{"x":{"method":"elicitation/create","params":{"mode":"form"}}}"#;
        let sealed = result(r#""\u0061""#, ok, r#""sealed""#);
        assert_eq!(heard(&same, &result(r#""a""#, ok, r#""s\n""#)), answer(&sealed));
        for bad in [
            r#"{"x":{"method":"elicitation/create","params":{"mode":"url","url":"https://x"}}}"#,
            r#"{"x":{"method":"sampling/createMessage","params":{}}}"#,
            r#"{"x":{"method":"roots/list"}}"#,
            r#"{"x":{"method":"tools/call"}}"#,
            r#"{"x":{}}"#,
            r#"{"x":1}"#,
            "[]",
        ] {
            let asked = result(r#""a""#, bad, r#""s""#);
            assert_eq!(heard(&same, &asked), Err(Reject::UpstreamMalformed), "{bad}");
        }
        let (legacy, _) = asked(CALL, Some(UP));
        let theirs = result(r#""g7""#, "{}", r#""s""#);
        assert_eq!(heard(&legacy, &theirs), Err(Reject::UpstreamMalformed));
    }

    #[test]
    fn progress_comes_by_token_and_news_do_not_come_here() {
        let progress = |token: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":
                {{"progressToken":{token},"progress":1}}}}"#
            )
        };
        let (legacy, _) = asked(CALL, Some(UP));
        let (modern, _) = asked(CALL, None);
        let down = Ok(Out::Down(progress("5").into_bytes()));
        assert_eq!(heard(&legacy, &progress(r#""g7""#)), down);
        assert_eq!(heard(&legacy, &progress("5")), Ok(Out::Dropped));
        assert_eq!(heard(&modern, &progress("5")), down);
        assert_eq!(heard(&modern, &progress("6")), Ok(Out::Dropped));
        let note = |name: &str| {
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/{name}","params":{{}}}}"#)
        };
        for (name, expected) in [
            ("message", Out::Down(note("message").into_bytes())),
            ("of/an/extension", Out::Down(note("of/an/extension").into_bytes())),
            ("tools/list_changed", Out::Changed(ServerNote::ToolsListChanged)),
            ("cancelled", Out::Dropped),
            ("tasks/status", Out::Dropped),
        ] {
            assert_eq!(heard(&legacy, &note(name)), Ok(expected), "{name}");
        }
        let request = r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#;
        let refused =
            r#"{"jsonrpc":"2.0","id":9,"error":{"code":-32601,"message":"Method not found"}}"#;
        assert_eq!(heard(&legacy, request), Ok(Out::Up(refused.as_bytes().to_vec())));
    }
}

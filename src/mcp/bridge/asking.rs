//! Questions to the agent between the eras.
//!
//! A legacy server asks while it works: a request on the stream of the answer. A modern server ends
//! the request with `input_required` and expects it again, with what it asked for. So for a legacy
//! agent an `input_required` becomes requests, and what is answered goes into the same request sent
//! again ([`Asked`]); for a modern agent a request becomes an `input_required`, and what comes with
//! the retry goes up as the answer ([`input_required`], [`answer_of_retry`]).
//!
//! Only what the agent declared is asked of it. Where a page is to be visited ([`Question::url`]),
//! policy has a word before anybody is asked.

use super::{Fault, edited, is_of_one_hop, raw};
use crate::mcp::capability::ClientCapabilities as Client;
use crate::mcp::message::{Message, Said, ServerMethod};
use crate::mcp::span::{Node, NodeKind};
use crate::mcp::splice::Edits;
use crate::mcp::write;
use crate::reject::Reject;

/// What a modern server wants to know of a legacy agent before it goes on, and what it was told.
#[derive(Debug)]
pub struct Asked {
    questions: Vec<Question>,
    /// `requestState` as the server wrote it; it goes back byte for byte (2026-07-28
    /// basic/patterns/mrtr).
    state: Option<Vec<u8>>,
}

/// One question.
#[derive(Debug)]
pub struct Question {
    /// Its name among `inputRequests`, as the server wrote it.
    key: Vec<u8>,
    method: ServerMethod,
    /// `params` as JSON.
    params: Option<Vec<u8>>,
    url: Option<String>,
    /// The agent's result as JSON.
    answer: Option<Vec<u8>>,
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// Others are still to come.
    More,
    /// That was the last one: the request can be sent again.
    All,
    /// The agent refused, and what it refused has no form in which to say so.
    Refused,
}

impl Asked {
    /// Reads a result that is `input_required`: `message` was read from `text`, `declared` is what
    /// the agent can be asked for.
    ///
    /// # Errors
    ///
    /// `UpstreamMalformed` for questions that no schema knows, for more than [`QUESTIONS_MAX`], for
    /// what the agent never declared (2026-07-28 basic/index "`_meta`": a server must not rely on
    /// it), and for a result with neither a question nor a state.
    pub fn read(message: &Message<'_>, text: &[u8], declared: Client) -> Result<Self, Reject> {
        Self::try_read(message, text, declared).map_err(Fault::of_upstream)
    }

    fn try_read(message: &Message<'_>, text: &[u8], declared: Client) -> Result<Self, Fault> {
        let malformed = || Fault::from(Reject::UpstreamMalformed);
        let state = match message.about.request_state {
            Some(state) if state.kind() == NodeKind::String => Some(raw(state, text)?.to_vec()),
            Some(_) => return Err(malformed()),
            None => None,
        };
        let (mut questions, mut names) = (Vec::new(), Vec::new());
        if let Some(inputs) = message.about.input_requests {
            if inputs.kind() != NodeKind::Object {
                return Err(malformed());
            }
            for member in inputs.members() {
                let key = text.get(member.key_range.clone()).ok_or_else(malformed)?.to_vec();
                let question = Question::read(key, member.value, text)?;
                let repeated = names.contains(&member.key);
                let declared = question.needs().is_some_and(|needs| declared.hold(needs));
                if repeated || !declared || questions.len() >= QUESTIONS_MAX {
                    return Err(malformed());
                }
                names.push(member.key);
                questions.push(question);
            }
        }
        if questions.is_empty() && state.is_none() {
            Err(malformed())
        } else {
            Ok(Self { questions, state })
        }
    }

    /// The questions, in the server's order. None at all where the server only wants the request
    /// again, with its state.
    #[must_use]
    pub fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// Takes in what the agent answered to question `at`: `message` was read from `text`. An answer
    /// to no question, and a second one, change nothing.
    ///
    /// # Errors
    ///
    /// `RpcInvalid` for what is no answer.
    pub fn take(
        &mut self,
        at: usize,
        message: &Message<'_>,
        text: &[u8],
    ) -> Result<Answered, Reject> {
        if let Some(question) = self.questions.get_mut(at).filter(|it| it.answer.is_none()) {
            let result = match (message.said, message.content) {
                (Said::Result(_), Some(result)) => raw(result, text)?.to_vec(),
                (Said::Error { .. }, _) => match question.method {
                    // 2026-07-28 client/elicitation: dismissed without a choice.
                    ServerMethod::ElicitationCreate => br#"{"action":"cancel"}"#.to_vec(),
                    ServerMethod::Ping
                    | ServerMethod::RootsList
                    | ServerMethod::SamplingCreateMessage
                    | ServerMethod::Other => return Ok(Answered::Refused),
                },
                (_, _) => return Err(Reject::RpcInvalid),
            };
            question.answer = Some(result);
        }
        let all = self.questions.iter().all(|question| question.answer.is_some());
        Ok(if all { Answered::All } else { Answered::More })
    }

    /// Writes the request again, which `text` with `root` is as it went up before: with what was
    /// answered, with the server's state and under another `id` (2026-07-28 basic/patterns/mrtr:
    /// a retry is a request of its own).
    ///
    /// # Errors
    ///
    /// `GatewayFault` for a question without an answer, or a text that is no request.
    pub fn retry(
        &self,
        root: Node<'_>,
        text: &[u8],
        id: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let mut responses = vec![b'{'];
        for (at, question) in self.questions.iter().enumerate() {
            let answer = question.answer.as_deref().ok_or(Reject::GatewayFault)?;
            let comma: &[u8] = if at > 0 { b"," } else { b"" };
            for part in [comma, &question.key, b":", answer] {
                responses.extend_from_slice(part);
            }
        }
        responses.push(b'}');
        let own = root.get("id").zip(root.get("params")).ok_or(Reject::GatewayFault)?;
        let mut edits = Edits::new();
        let fits = edits.put(own.0.range(), id).and_then(|()| {
            if self.state.is_none() {
                // The state of an earlier round is not this one's.
                edits.remove_member(own.1, "requestState")?;
            }
            if !self.questions.is_empty() {
                edits.set_member(own.1, "inputResponses", &responses)?;
            }
            if let Some(state) = &self.state {
                edits.set_member(own.1, "requestState", state)?;
            }
            edits.apply(text, out)
        });
        fits.map_err(|_| Reject::GatewayFault)
    }
}

impl Question {
    fn read(key: Vec<u8>, node: Node<'_>, text: &[u8]) -> Result<Self, Fault> {
        let malformed = || Fault::from(Reject::UpstreamMalformed);
        if node.kind() != NodeKind::Object {
            return Err(malformed());
        }
        let [method, params] = node.pick(&["method", "params"]).map_err(|_| malformed())?;
        let method = method.and_then(Node::text).map(ServerMethod::from_name);
        let (url, params) = match params {
            Some(params) => (url_of(params)?, Some(cleaned(params, text)?)),
            None => (None, None),
        };
        Ok(Self { key, method: method.ok_or_else(malformed)?, params, url, answer: None })
    }

    /// What the agent must have declared; `None` for what nobody can be asked.
    fn needs(&self) -> Option<Client> {
        needed(self.method, self.url.is_some())
    }

    /// The page that the user is to visit, which policy judges by its host.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }

    /// Writes it as a request to a legacy agent; `id` is a JSON string of ours.
    pub fn write(&self, id: &[u8], out: &mut Vec<u8>) {
        let name: &[u8] = match self.method {
            ServerMethod::ElicitationCreate => b"elicitation/create",
            ServerMethod::RootsList => b"roots/list",
            ServerMethod::SamplingCreateMessage => b"sampling/createMessage",
            ServerMethod::Ping | ServerMethod::Other => b"ping",
        };
        for part in [&br#"{"jsonrpc":"2.0","id":"#[..], id, br#","method":""#, name, b"\""] {
            out.extend_from_slice(part);
        }
        match (&self.params, self.url.is_some()) {
            (Some(params), true) => {
                // 2025-11-25 client/elicitation "URL Mode": it has an id of its own there, which is
                // unique as that of the request is.
                out.extend_from_slice(br#","params":{"elicitationId":"#);
                out.extend_from_slice(id);
                out.push(b',');
                out.extend_from_slice(params.get(1..).unwrap_or_default());
            }
            (Some(params), false) => {
                out.extend_from_slice(br#","params":"#);
                out.extend_from_slice(params);
            }
            (None, _) => {}
        }
        out.push(b'}');
    }
}

/// Ends a modern agent's request `id` (JSON) with the request of a legacy server: `message` was
/// read from `text`, `declared` is what the agent can be asked for, `state` what it has to come
/// back with. The URL that the user is to visit, if any, is the answer.
///
/// # Errors
///
/// `UpstreamMalformed` for what is no such request, or asks for what the agent never declared: that
/// server is to be told -32601.
pub fn input_required(
    message: &Message<'_>,
    text: &[u8],
    declared: Client,
    (id, state): (&[u8], &str),
    out: &mut Vec<u8>,
) -> Result<Option<String>, Reject> {
    let malformed = Reject::UpstreamMalformed;
    let Said::Request(method) = message.said else { return Err(malformed) };
    let url = match message.content {
        Some(params) => url_of(params).map_err(Fault::of_upstream)?,
        None => None,
    };
    if !needed(method, url.is_some()).is_some_and(|needs| declared.hold(needs)) {
        return Err(malformed);
    }
    let params = message.content.map(|params| cleaned(params, text)).transpose();
    let key = format!("\"{QUESTION}\"").into_bytes();
    let params = params.map_err(Fault::of_upstream)?;
    let name = match method {
        ServerMethod::ElicitationCreate => "elicitation/create",
        ServerMethod::RootsList => "roots/list",
        ServerMethod::SamplingCreateMessage => "sampling/createMessage",
        ServerMethod::Ping | ServerMethod::Other => return Err(malformed),
    };
    for part in [
        &br#"{"jsonrpc":"2.0","id":"#[..],
        id,
        br#","result":{"resultType":"input_required","inputRequests":{"#,
        &key,
        br#":{"method":""#,
        name.as_bytes(),
        b"\"",
    ] {
        out.extend_from_slice(part);
    }
    if let Some(params) = params {
        out.extend_from_slice(br#","params":"#);
        out.extend_from_slice(&params);
    }
    out.extend_from_slice(br#"}},"requestState":"#);
    write::string(state, out);
    out.extend_from_slice(b"}}");
    Ok(url)
}

/// Writes the answer to the server's request `id` (JSON) from the retry that `root` is in `text`.
///
/// # Errors
///
/// `RpcParams` for a retry that does not answer what was asked.
pub fn answer_of_retry(
    root: Node<'_>,
    text: &[u8],
    id: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Reject> {
    let bad = |_| Reject::RpcParams;
    let params = root.get("params").ok_or(Reject::RpcParams)?;
    let [responses] = params.pick(&["inputResponses"]).map_err(bad)?;
    let [answer] = responses.ok_or(Reject::RpcParams)?.pick(&[QUESTION]).map_err(bad)?;
    let answer = answer.filter(|answer| answer.kind() == NodeKind::Object);
    let answer = raw(answer.ok_or(Reject::RpcParams)?, text)?;
    for part in [&br#"{"jsonrpc":"2.0","id":"#[..], id, br#","result":"#, answer, b"}"] {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// `None` for what an agent is never asked through a gateway.
const fn needed(method: ServerMethod, url: bool) -> Option<Client> {
    match (method, url) {
        (ServerMethod::ElicitationCreate, true) => Some(Client::ELICITATION_URL),
        (ServerMethod::ElicitationCreate, false) => Some(Client::ELICITATION_FORM),
        (ServerMethod::RootsList, false) => Some(Client::ROOTS),
        (ServerMethod::SamplingCreateMessage, false) => Some(Client::SAMPLING),
        (_, _) => None,
    }
}

/// `params.url` of the mode `url`; it must be there then, and nowhere else.
fn url_of(params: Node<'_>) -> Result<Option<String>, Fault> {
    let malformed = || Fault::from(Reject::UpstreamMalformed);
    let [mode, url] = params.pick(&["mode", "url"]).map_err(|_| malformed())?;
    match (mode.map(|mode| mode.text().ok_or_else(malformed)).transpose()?, url) {
        (Some("url"), Some(url)) => Ok(Some(url.text().ok_or_else(malformed)?.to_owned())),
        (None | Some("form"), None) => Ok(None),
        (_, _) => Err(malformed()),
    }
}

/// `params` without what means something to the other era or to a gateway only.
fn cleaned(params: Node<'_>, text: &[u8]) -> Result<Vec<u8>, Fault> {
    let malformed = || Fault::from(Reject::UpstreamMalformed);
    let [meta] = params.pick(&["_meta"]).map_err(|_| malformed())?;
    let start = params.range().start;
    let mut edits = Edits::new();
    edits.remove_member(params, "elicitationId")?;
    if let Some(meta) = meta.filter(|meta| meta.kind() == NodeKind::Object) {
        edits.remove_members(meta, is_of_one_hop)?;
    }
    // Of the whole text, so that the places of its nodes hold.
    let whole = edited(&edits, text)?;
    let tail = text.len() - params.range().end;
    let end = whole.len().checked_sub(tail).ok_or_else(malformed)?;
    Ok(whole.get(start..end).ok_or_else(malformed)?.to_vec())
}

/// Questions of one `input_required`.
pub const QUESTIONS_MAX: usize = 16;
/// What the one question of a legacy server is called among `inputRequests`.
const QUESTION: &str = "question";

//! What an upstream says in one message, to a gateway that has to understand it.
//!
//! `/mcp/{server}` passes messages on as they are. `/mcp` stands between ids, sessions and eras of
//! its own, so it must know what a message is before anybody hears it. The same rule holds as for
//! requests: what another parser could read differently is refused, or an answer could mean one
//! thing to us and another to the agent.

use super::span::{Malformed, Node, NodeKind};
use crate::limits::RPC_ID_BYTES_MAX;

/// One message of an upstream, and the values in it that a gateway has to look at or to change.
/// The nodes name places in the text that was read.
#[derive(Clone, Copy)]
pub struct Message<'d> {
    /// What it is.
    pub said: Said,
    /// Its id: always there in a request and in a result. An error may lack it, where the upstream
    /// could not read whose it is (JSON-RPC 2.0 §5).
    pub id: Option<Node<'d>>,
    /// `result`, `error` or `params`, whichever it has.
    pub content: Option<Node<'d>>,
    /// `_meta` of the content.
    pub meta: Option<Node<'d>>,
    /// `_meta["io.modelcontextprotocol/subscriptionId"]`: whose listen this belongs to.
    pub subscription: Option<Node<'d>>,
    /// What the content is about.
    pub about: About<'d>,
}

/// Members that only some messages have.
#[derive(Clone, Copy, Default)]
pub struct About<'d> {
    /// `result.requestState` of 2026-07-28: to be sent back byte for byte.
    pub request_state: Option<Node<'d>>,
    /// `result.inputRequests` of 2026-07-28: an object of requests to the client.
    pub input_requests: Option<Node<'d>>,
    /// The id of a task: of a result that made one, of a task itself, of a notification about one,
    /// or `_meta["io.modelcontextprotocol/related-task"].taskId`.
    pub task: Option<Node<'d>>,
    /// `params.progressToken` of `notifications/progress`.
    pub progress_token: Option<Node<'d>>,
    /// `params.requestId` of `notifications/cancelled`.
    pub request: Option<Node<'d>>,
    /// `params.uri` of `notifications/resources/updated`.
    pub uri: Option<Node<'d>>,
}

/// The kinds of messages that a server sends (JSON-RPC 2.0 §4, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// An answer.
    Result(ResultKind),
    /// An answer that is an error.
    Error {
        /// `error.code`
        code: i64,
    },
    /// A request to the client (legacy era only).
    Request(ServerMethod),
    /// A notification.
    Notification(ServerNote),
}

/// `result.resultType` (2026-07-28 basic/index "Results"). The list is open: what is unknown
/// passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResultKind {
    /// `complete`, or absent as in every legacy revision.
    Complete,
    /// `input_required`: the client is to ask its user, its model or its files first.
    InputRequired,
    /// `task`: the answer comes later (SEP-2663); a legacy result that holds a `task` is one too.
    Task,
    /// Of some extension.
    Other,
}

/// What a legacy server may ask a client (schema of each revision, `ServerRequest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerMethod {
    /// `elicitation/create`
    ElicitationCreate,
    /// `ping`
    Ping,
    /// `roots/list`
    RootsList,
    /// `sampling/createMessage`
    SamplingCreateMessage,
    /// Tasks of the client (2025-11-25, experimental), extensions, nonsense.
    Other,
}

/// What a server may tell a client (schema of each revision, `ServerNotification`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerNote {
    /// `notifications/cancelled`
    Cancelled,
    /// `notifications/elicitation/complete`
    ElicitationComplete,
    /// `notifications/message`
    Message,
    /// `notifications/progress`
    Progress,
    /// `notifications/prompts/list_changed`
    PromptsListChanged,
    /// `notifications/resources/list_changed`
    ResourcesListChanged,
    /// `notifications/resources/updated`
    ResourcesUpdated,
    /// `notifications/subscriptions/acknowledged`
    SubscriptionsAcknowledged,
    /// `notifications/tasks/status`
    TasksStatus,
    /// `notifications/tools/list_changed`
    ToolsListChanged,
    /// Of some extension.
    Other,
}

impl ServerMethod {
    /// The method of this exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "elicitation/create" => Self::ElicitationCreate,
            "ping" => Self::Ping,
            "roots/list" => Self::RootsList,
            "sampling/createMessage" => Self::SamplingCreateMessage,
            _ => Self::Other,
        }
    }
}

impl ServerNote {
    /// The notification of this exact name.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match name {
            "notifications/cancelled" => Self::Cancelled,
            "notifications/elicitation/complete" => Self::ElicitationComplete,
            "notifications/message" => Self::Message,
            "notifications/progress" => Self::Progress,
            "notifications/prompts/list_changed" => Self::PromptsListChanged,
            "notifications/resources/list_changed" => Self::ResourcesListChanged,
            "notifications/resources/updated" => Self::ResourcesUpdated,
            "notifications/subscriptions/acknowledged" => Self::SubscriptionsAcknowledged,
            "notifications/tasks/status" => Self::TasksStatus,
            "notifications/tools/list_changed" => Self::ToolsListChanged,
            _ => Self::Other,
        }
    }
}

impl<'d> Message<'d> {
    /// Reads the message whose outermost value is `root`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] for anything but one JSON-RPC 2.0 message in one possible reading: arrays (a
    /// batch: no revision's server may send one over HTTP but in answer to one, and we send none),
    /// a repeated or other-cased key among those that are read here, an id that is neither a string
    /// nor an integer or is too long to repeat, more or less than one of `method`, `result` and
    /// `error`, a `result`, `error`, `params` or `_meta` that is no object, an error without a
    /// code.
    pub fn read(root: Node<'d>) -> Result<Self, Malformed> {
        object(root)?;
        let [version, id, method, params, result, error] =
            root.pick(&["jsonrpc", "id", "method", "params", "result", "error"])?;
        if version.and_then(Node::text) != Some("2.0") {
            return Err(Malformed);
        }
        match (method, result, error) {
            (Some(method), None, None) => Self::of_method(method, id, params),
            (None, Some(result), None) if params.is_none() => Self::of_result(result, id),
            (None, None, Some(error)) if params.is_none() => Self::of_error(error, id),
            _ => Err(Malformed),
        }
    }

    fn of_method(
        method: Node<'d>,
        id: Option<Node<'d>>,
        params: Option<Node<'d>>,
    ) -> Result<Self, Malformed> {
        let name = method.text().ok_or(Malformed)?;
        let said = match id {
            Some(_) => Said::Request(ServerMethod::from_name(name)),
            None => Said::Notification(ServerNote::from_name(name)),
        };
        let mut message = Self::new(said, id.map(checked_id).transpose()?, params);
        let Some(params) = params else { return Ok(message) };
        object(params)?;
        let [meta, token, request, task, uri] =
            params.pick(&["_meta", "progressToken", "requestId", "taskId", "uri"])?;
        match said {
            Said::Notification(ServerNote::Progress) => message.about.progress_token = token,
            Said::Notification(ServerNote::Cancelled) => message.about.request = request,
            Said::Notification(ServerNote::TasksStatus) => message.about.task = task,
            Said::Notification(ServerNote::ResourcesUpdated) => message.about.uri = uri,
            Said::Result(_) | Said::Error { .. } | Said::Request(_) | Said::Notification(_) => {}
        }
        message.with_meta(meta)
    }

    fn of_result(result: Node<'d>, id: Option<Node<'d>>) -> Result<Self, Malformed> {
        object(result)?;
        let [kind, state, inputs, meta, task_id, task] = result.pick(&[
            "resultType",
            "requestState",
            "inputRequests",
            "_meta",
            "taskId",
            "task",
        ])?;
        let made = match task {
            Some(task) if task.kind() == NodeKind::Object => {
                let [id] = task.pick(&["taskId"])?;
                id
            }
            Some(_) | None => None,
        };
        let kind = match kind.map(|kind| kind.text().ok_or(Malformed)).transpose()? {
            None if made.is_some() => ResultKind::Task,
            None | Some("complete") => ResultKind::Complete,
            Some("input_required") => ResultKind::InputRequired,
            Some("task") => ResultKind::Task,
            Some(_) => ResultKind::Other,
        };
        let mut message = Self::new(Said::Result(kind), None, Some(result));
        message.id = Some(checked_id(id.ok_or(Malformed)?)?);
        message.about.request_state = state;
        message.about.input_requests = inputs;
        message.about.task = made.or(task_id);
        message.with_meta(meta)
    }

    fn of_error(error: Node<'d>, id: Option<Node<'d>>) -> Result<Self, Malformed> {
        object(error)?;
        let [code] = error.pick(&["code"])?;
        let code = code.and_then(Node::number_i64).ok_or(Malformed)?;
        // JSON-RPC 2.0 §5: null where the id could not be read.
        let id = id.filter(|id| id.kind() != NodeKind::Null);
        Ok(Self::new(Said::Error { code }, id.map(checked_id).transpose()?, Some(error)))
    }

    fn new(said: Said, id: Option<Node<'d>>, content: Option<Node<'d>>) -> Self {
        let about = About::default();
        Self { said, id, content, meta: None, subscription: None, about }
    }

    fn with_meta(mut self, meta: Option<Node<'d>>) -> Result<Self, Malformed> {
        let Some(meta) = meta else { return Ok(self) };
        object(meta)?;
        let [subscription, related] = meta.pick(&[SUBSCRIPTION, RELATED_TASK])?;
        self.meta = Some(meta);
        self.subscription = subscription;
        if let Some(related) = related {
            object(related)?;
            let [task] = related.pick(&["taskId"])?;
            self.about.task = self.about.task.or(task);
        }
        Ok(self)
    }
}

/// True when `node` of `text` is the id that was written as `id`, however it is spelled now.
pub(crate) fn is_id(node: Node<'_>, text: &[u8], id: &[u8]) -> bool {
    if text.get(node.range()) == Some(id) {
        return true;
    }
    // Equal strings have many spellings, on either side.
    let own = || serde_json::from_slice::<String>(id);
    node.text().is_some_and(|spelled| own().is_ok_and(|own| own == spelled))
}

/// An id that can be compared and repeated: a string or an integer (MCP basic/index "Messages").
fn checked_id(id: Node<'_>) -> Result<Node<'_>, Malformed> {
    let usable = match id.kind() {
        NodeKind::String => true,
        NodeKind::Number => id.number_i64().is_some() || id.number_u64().is_some(),
        NodeKind::Object | NodeKind::Array | NodeKind::True | NodeKind::False | NodeKind::Null => {
            false
        }
    };
    if usable && id.range().len() <= RPC_ID_BYTES_MAX { Ok(id) } else { Err(Malformed) }
}

fn object(node: Node<'_>) -> Result<(), Malformed> {
    if node.kind() == NodeKind::Object { Ok(()) } else { Err(Malformed) }
}

/// 2026-07-28 basic/patterns/subscriptions: on every message of a listen.
const SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// 2025-11-25 basic/utilities/tasks "Associating Task-Related Messages".
const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

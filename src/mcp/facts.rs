//! What is copied out of a parsed message before its nodes are forgotten.

use std::ops::Range;

use super::arguments::{Arguments, Doubt};
use super::envelope::{Kind, Known};
use super::era::Era;
use super::identifier::{self, Member};
use super::method::{Form, Method, Subject};
use super::planned;
use super::tree::{Tree, pick};
use crate::limits::{
    LISTEN_RESOURCES_MAX, LISTEN_TASKS_MAX, NAME_BYTES_MAX, REVISION_BYTES_MAX,
    RPC_METHOD_BYTES_MAX,
};
use crate::reject::Reject;

/// A range of [`Facts::arena`].
type Text = Range<usize>;

/// Kinds of lists whose changes somebody wants to hear of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListChanges {
    /// Of tools.
    pub tools: bool,
    /// Of prompts.
    pub prompts: bool,
    /// Of resources.
    pub resources: bool,
}

/// The facts of one message. Reused: `reset` keeps the memory.
pub(super) struct Facts {
    /// All copied strings, one after another.
    arena: String,
    pub(super) kind: Kind,
    pub(super) era: Era,
    pub(super) method: Method,
    method_name: Text,
    /// The id's place in the body.
    pub(super) id: Option<Range<usize>>,
    /// What the method's subject is called, when `params` says so.
    name: Option<Text>,
    /// What kind of thing `name` is.
    pub(super) subject: Subject,
    /// What a listen names: tasks, as many as `tasks` says, then `resourceSubscriptions`.
    listened: Vec<Text>,
    tasks: usize,
    pub(super) list_changes: ListChanges,
    /// Planned arguments as items, when the tool has a plan.
    arguments: Vec<u8>,
    planned: bool,
    doubt: Doubt,
    meta_revision: Option<Text>,
    initialize_revision: Option<Text>,
    requested: Option<Text>,
    traceparent: Option<Text>,
    /// `_meta` declares the client's capabilities.
    pub(super) capabilities: bool,
    /// The header's revision, or the assumed one.
    pub(super) revision: Option<&'static str>,
}

impl Facts {
    pub(super) fn new() -> Self {
        Self {
            arena: String::new(),
            kind: Kind::Notification,
            era: Era::Legacy,
            method: Method::Unknown,
            method_name: 0..0,
            id: None,
            name: None,
            subject: Subject::Server,
            listened: Vec::new(),
            tasks: 0,
            list_changes: ListChanges::default(),
            arguments: Vec::new(),
            planned: false,
            doubt: Doubt { decides: false, shadow: false },
            meta_revision: None,
            initialize_revision: None,
            requested: None,
            traceparent: None,
            capabilities: false,
            revision: None,
        }
    }

    pub(super) fn reset(&mut self) {
        let mut arena = std::mem::take(&mut self.arena);
        let mut listened = std::mem::take(&mut self.listened);
        let mut arguments = std::mem::take(&mut self.arguments);
        arena.clear();
        listened.clear();
        arguments.clear();
        *self = Self { arena, listened, arguments, ..Self::new() };
    }

    /// After a refusal nothing but the id may be believed.
    pub(super) fn forget_all_but_id(&mut self) {
        let id = self.id.take();
        self.reset();
        self.id = id;
    }

    /// The method table against the era, then what the method must name.
    pub(super) fn check_served(&self) -> Result<(), Reject> {
        if self.kind == Kind::Response {
            return Ok(());
        }
        if !self.method.served_in(self.era) {
            return Err(match (self.era, self.kind) {
                (Era::Modern, _) => Reject::RpcMethodModern,
                (Era::Legacy, Kind::Request) => Reject::RpcMethodLegacy,
                (Era::Legacy, Kind::Notification | Kind::Response) => Reject::PolicyStreamDenied,
            });
        }
        let named = match self.subject {
            Subject::Server | Subject::Subscriptions => true,
            Subject::Tool | Subject::Prompt | Subject::Resource | Subject::Task => {
                self.name.is_some()
            }
            // A reference that was found has become a prompt or a resource.
            Subject::Reference => false,
        };
        let asked = self.method != Method::Initialize || self.initialize_revision.is_some();
        if named && asked { Ok(()) } else { Err(Reject::RpcParams) }
    }

    pub(super) fn method_name(&self) -> &str {
        self.text(&self.method_name)
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| self.text(name))
    }

    pub(super) fn uris(&self) -> impl Iterator<Item = &str> {
        self.listened.iter().skip(self.tasks).map(|uri| self.text(uri))
    }

    pub(super) fn tasks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.listened.iter().take(self.tasks).map(|task| self.text(task))
    }

    pub(super) fn arguments(&self) -> Arguments<'_> {
        if self.planned { Arguments::doubted(&self.arguments, self.doubt) } else { Arguments::NONE }
    }

    pub(super) fn meta_revision(&self) -> Option<&str> {
        self.meta_revision.as_ref().map(|revision| self.text(revision))
    }

    /// The revision that `initialize` asks for, else the one of the header.
    pub(super) fn revision(&self) -> Option<&str> {
        let asked = self.initialize_revision.as_ref().map(|revision| self.text(revision));
        asked.or(self.revision)
    }

    pub(super) fn requested(&self) -> Option<&str> {
        self.requested.as_ref().map(|revision| self.text(revision))
    }

    pub(super) fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_ref().map(|value| self.text(value))
    }

    /// Keeps a refused revision for the answer, if it is one that can stand in one.
    pub(super) fn keep_requested(&mut self, header: &[u8]) {
        let header = header.trim_ascii();
        let plain = header.len() <= REVISION_BYTES_MAX && header.iter().all(u8::is_ascii_graphic);
        self.requested = match std::str::from_utf8(header) {
            Ok(text) if plain => Some(self.keep(text)),
            Ok(_) | Err(_) => None,
        };
    }

    /// Reads the top-level object of `tree`. The id first, so that a refusal can echo it.
    pub(super) fn read(
        &mut self,
        tree: Tree<'_, '_>,
        structurals: &[u32],
        body: &[u8],
        known: &impl Known,
    ) -> Result<(), Reject> {
        if !tree.is_object(0) {
            // A batch; no revision since 2025-06-18 has them, and each part would need its own
            // decision and answer (case M07).
            return Err(Reject::RpcInvalid);
        }
        self.id = find_id(tree, structurals, body)?;
        let [version, _, method, params, result, error] = pick(tree, 0, &TOP)?;
        if version.and_then(|at| tree.text(at)) != Some("2.0") {
            return Err(Reject::RpcInvalid);
        }
        let answers = usize::from(result.is_some()) + usize::from(error.is_some());
        match method {
            None => self.read_response(tree, answers, error, params),
            Some(_) if answers > 0 => Err(Reject::RpcInvalid),
            Some(method) => {
                let name = tree.text(method).ok_or(Reject::RpcInvalid)?;
                self.read_method(name, known)?;
                self.read_params(tree, params, known)
            }
        }
    }

    /// JSON-RPC 2.0 §5: either a result or an error, never both, never none.
    fn read_response(
        &mut self,
        tree: Tree<'_, '_>,
        answers: usize,
        error: Option<usize>,
        params: Option<usize>,
    ) -> Result<(), Reject> {
        self.kind = Kind::Response;
        let form_holds = error.is_none_or(|at| tree.is_object(at)) && params.is_none();
        if answers == 1 && self.id.is_some() && form_holds {
            Ok(())
        } else {
            Err(Reject::RpcInvalid)
        }
    }

    fn read_method(&mut self, name: &str, known: &impl Known) -> Result<(), Reject> {
        if name.len() > RPC_METHOD_BYTES_MAX || name.as_bytes().contains(&0) {
            return Err(Reject::RpcInvalid);
        }
        self.kind = if self.id.is_some() { Kind::Request } else { Kind::Notification };
        self.method_name = self.keep(name);
        self.method = Method::from_name(name);
        if self.method == Method::Unknown {
            self.method = known.extension(name).map_or(Method::Unknown, Method::Extension);
        }
        self.subject = self.method.subject();
        // A call without an id would be run by some servers although nobody waits for its answer.
        let allowed = match self.method.form() {
            Form::Request => self.kind == Kind::Request,
            Form::Notification => self.kind == Kind::Notification,
            Form::Either => true,
        };
        if allowed { Ok(()) } else { Err(Reject::RpcInvalid) }
    }

    fn read_params(
        &mut self,
        tree: Tree<'_, '_>,
        params: Option<usize>,
        known: &impl Known,
    ) -> Result<(), Reject> {
        let Some(params) = params else { return Ok(()) };
        if !tree.is_object(params) {
            return Err(Reject::RpcInvalid);
        }
        let [meta, name, uri, task, reference, notifications, version, arguments, ..] =
            pick(tree, params, &PARAMS)?;
        if let Some(meta) = meta {
            self.read_meta(tree, meta)?;
        }
        if let (Method::Initialize, Some(at)) = (self.method, version) {
            self.initialize_revision = Some(self.keep_bounded(tree, at, REVISION_BYTES_MAX)?);
        }
        let named = match self.subject {
            Subject::Server => None,
            Subject::Tool | Subject::Prompt => name,
            Subject::Resource => uri,
            Subject::Task => task,
            Subject::Reference => return self.read_reference(tree, reference),
            Subject::Subscriptions => return self.read_subscriptions(tree, notifications),
        };
        if let Some(at) = named {
            self.name = Some(self.keep_bounded(tree, at, NAME_BYTES_MAX)?);
        }
        let tool = name.filter(|_| self.method == Method::ToolsCall);
        if let Some(plan) = tool.and_then(|at| known.plan(tree.text(at)?)) {
            self.planned = true;
            self.doubt = planned::read(tree, arguments, plan, &mut self.arguments);
        }
        Ok(())
    }

    fn read_meta(&mut self, tree: Tree<'_, '_>, meta: usize) -> Result<(), Reject> {
        if !tree.is_object(meta) {
            return Err(Reject::RpcParams);
        }
        let [revision, capabilities, traceparent, ..] = pick(tree, meta, &META)?;
        if let Some(at) = revision {
            self.meta_revision = Some(self.keep_bounded(tree, at, REVISION_BYTES_MAX)?);
        }
        self.capabilities = capabilities.is_some_and(|at| tree.is_object(at));
        // Only recorded, never judged: one that is no trace context is left out.
        self.traceparent = match traceparent.and_then(|at| tree.text(at)) {
            Some(text) if text.len() <= TRACEPARENT_BYTES_MAX => Some(self.keep(text)),
            Some(_) | None => None,
        };
        Ok(())
    }

    /// `completion/complete`: what is completed discloses values of a prompt or resource.
    fn read_reference(
        &mut self,
        tree: Tree<'_, '_>,
        reference: Option<usize>,
    ) -> Result<(), Reject> {
        let Some(reference) = reference else { return Ok(()) };
        let [kind, name, uri] = pick(tree, reference, &REFERENCE)?;
        let (subject, named) = match kind.and_then(|at| tree.text(at)) {
            Some("ref/prompt") => (Subject::Prompt, name),
            Some("ref/resource") => (Subject::Resource, uri),
            Some(_) | None => return Err(Reject::RpcParams),
        };
        let at = named.ok_or(Reject::RpcParams)?;
        self.subject = subject;
        self.name = Some(self.keep_bounded(tree, at, NAME_BYTES_MAX)?);
        Ok(())
    }

    /// `subscriptions/listen`: every resource in it is as good as a read.
    fn read_subscriptions(
        &mut self,
        tree: Tree<'_, '_>,
        notifications: Option<usize>,
    ) -> Result<(), Reject> {
        let Some(notifications) = notifications else { return Ok(()) };
        if !tree.is_object(notifications) {
            return Err(Reject::RpcParams);
        }
        let [resources, tasks, prompts_changed, resources_changed, tools_changed] =
            pick(tree, notifications, &NOTIFICATIONS)?;
        // What is not `true` is at most more than was asked for, and no secret.
        let wanted = |at: Option<usize>| at.is_some_and(|at| tree.is_true(at));
        self.list_changes = ListChanges {
            tools: wanted(tools_changed),
            prompts: wanted(prompts_changed),
            resources: wanted(resources_changed),
        };
        if let Some(tasks) = tasks {
            self.read_tasks(tree, tasks)?;
        }
        let Some(resources) = resources else { return Ok(()) };
        if !tree.is_array(resources) {
            return Err(Reject::RpcParams);
        }
        for at in tree.elements(resources) {
            if self.listened.len() - self.tasks == LISTEN_RESOURCES_MAX {
                return Err(Reject::RpcParams);
            }
            let uri = self.keep_bounded(tree, at, NAME_BYTES_MAX)?;
            self.listened.push(uri);
        }
        Ok(())
    }

    /// Tasks in a listen, before its resources. Policies here judge that there are some; a remote
    /// decision point is asked about each.
    fn read_tasks(&mut self, tree: Tree<'_, '_>, tasks: usize) -> Result<(), Reject> {
        if !tree.is_array(tasks) {
            return Err(Reject::RpcParams);
        }
        for at in tree.elements(tasks) {
            if self.tasks == LISTEN_TASKS_MAX {
                return Err(Reject::RpcParams);
            }
            let task = self.keep_bounded(tree, at, NAME_BYTES_MAX)?;
            self.listened.push(task);
            self.tasks += 1;
        }
        Ok(())
    }

    /// Copies a string that is judged. A NUL in it ends the string for readers in C: they would act
    /// on another name than the one that was judged.
    fn keep_bounded(
        &mut self,
        tree: Tree<'_, '_>,
        at: usize,
        bytes_max: usize,
    ) -> Result<Text, Reject> {
        match tree.text(at) {
            Some(text) if text.len() <= bytes_max && !text.as_bytes().contains(&0) => {
                Ok(self.keep(text))
            }
            Some(_) | None => Err(Reject::RpcParams),
        }
    }

    fn keep(&mut self, text: &str) -> Text {
        let start = self.arena.len();
        self.arena.push_str(text);
        start..self.arena.len()
    }

    fn text(&self, range: &Text) -> &str {
        self.arena.get(range.clone()).unwrap_or_default()
    }
}

/// The top-level id. `Err` only for one that may not be echoed; a repeated one is none.
fn find_id(
    tree: Tree<'_, '_>,
    structurals: &[u32],
    body: &[u8],
) -> Result<Option<Range<usize>>, Reject> {
    let mut found = None;
    let mut of = 0;
    for (ordinal, (_, key, value)) in tree.members(0).enumerate() {
        of = ordinal + 1;
        if key == "id" && found.replace((ordinal, value)).is_some() {
            return Err(Reject::RpcInvalid);
        }
    }
    match found {
        Some((ordinal, value)) => {
            let member = Member { ordinal, of, value };
            identifier::locate(tree, member, structurals, body).map(Some)
        }
        None => Ok(None),
    }
}

/// Bytes of a `traceparent` (W3C Trace Context §3.2: 55 in version 00; later ones may be longer).
const TRACEPARENT_BYTES_MAX: usize = 128;

// Names that we read, then names that a policy or an upstream gives meaning to: none of them may
// come in another case.
const TOP: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];
const PARAMS: [&str; 15] = [
    "_meta",
    "name",
    "uri",
    "taskId",
    "ref",
    "notifications",
    "protocolVersion",
    "arguments",
    "argument",
    "capabilities",
    "inputResponses",
    "level",
    "requestId",
    "requestState",
    "task",
];
const META: [&str; 6] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "traceparent",
    "io.modelcontextprotocol/clientInfo",
    "io.modelcontextprotocol/logLevel",
    "progressToken",
];
const REFERENCE: [&str; 3] = ["type", "name", "uri"];
const NOTIFICATIONS: [&str; 5] = [
    "resourceSubscriptions",
    "taskIds",
    "promptsListChanged",
    "resourcesListChanged",
    "toolsListChanged",
];

//! The method table: everything that depends on a method's name stands in [`TABLE`] and nowhere
//! else.
//!
//! Only what a client sends is listed (schema of each revision, `ClientRequest` and
//! `ClientNotification`; tasks of the modern era: SEP-2663). What is not listed is not forwarded.

use super::era::Era;

/// A method that a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// `completion/complete`
    CompletionComplete,
    /// `initialize`
    Initialize,
    /// `logging/setLevel`
    LoggingSetLevel,
    /// `notifications/cancelled`
    NotificationsCancelled,
    /// `notifications/initialized`
    NotificationsInitialized,
    /// `notifications/progress`
    NotificationsProgress,
    /// `notifications/roots/list_changed`
    NotificationsRootsListChanged,
    /// `notifications/tasks/status`
    NotificationsTasksStatus,
    /// `ping`
    Ping,
    /// `prompts/get`
    PromptsGet,
    /// `prompts/list`
    PromptsList,
    /// `resources/list`
    ResourcesList,
    /// `resources/read`
    ResourcesRead,
    /// `resources/subscribe`
    ResourcesSubscribe,
    /// `resources/templates/list`
    ResourcesTemplatesList,
    /// `resources/unsubscribe`
    ResourcesUnsubscribe,
    /// `server/discover`
    ServerDiscover,
    /// `subscriptions/listen`
    SubscriptionsListen,
    /// `tasks/cancel`
    TasksCancel,
    /// `tasks/get`
    TasksGet,
    /// `tasks/list`
    TasksList,
    /// `tasks/result`
    TasksResult,
    /// `tasks/update`
    TasksUpdate,
    /// `tools/call`
    ToolsCall,
    /// `tools/list`
    ToolsList,
    /// A method of the configuration's `[[method]]` list, by its place there.
    Extension(u16),
    /// Neither known nor configured: never forwarded.
    Unknown,
}

/// Which messages carry the method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// With an id, answered.
    Request,
    /// Without an id.
    Notification,
    /// Extensions may be both.
    Either,
}

/// Where `params` names what the method touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Nothing but the server as a whole.
    Server,
    /// `params.name` is a tool.
    Tool,
    /// `params.name` is a prompt.
    Prompt,
    /// `params.uri` is a resource.
    Resource,
    /// `params.taskId`: routed by, not judged on but by a remote decision point; a task id can be a
    /// secret (SEP-2663).
    Task,
    /// `params.ref` is a prompt or a resource.
    Reference,
    /// `params.notifications.resourceSubscriptions` are resources.
    Subscriptions,
}

/// One line of the table.
#[derive(Clone, Copy)]
pub(super) struct Row {
    method: Method,
    name: &'static str,
    pub(super) form: Form,
    legacy: bool,
    modern: bool,
    pub(super) subject: Subject,
    /// `Mcp-Name` is required in the modern era (2026-07-28 streamable HTTP; SEP-2663 for tasks).
    pub(super) mirrored_name: bool,
    /// Repeating it changes nothing upstream, so it may be sent again after a broken connection.
    retryable: bool,
}

impl Method {
    /// The method of this exact name; MCP method names are case-sensitive (case M04).
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        TABLE.iter().find(|row| row.name == name).map_or(Self::Unknown, |row| row.method)
    }

    /// The name; for what has none of its own, a word for metrics. See `Call::method_name`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self.row() {
            Some(row) => row.name,
            None if self == Self::Unknown => "unknown",
            None => "extension",
        }
    }

    /// The method with this dense number; `None` for extensions, unknown ones and no method at all.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        TABLE.get(usize::from(id)).map(|row| row.method)
    }

    /// A dense number below [`METHOD_COUNT`], to index counters by.
    #[must_use]
    pub fn id(self) -> u8 {
        let known = TABLE.iter().position(|row| row.method == self);
        let place = match (self, known) {
            (_, Some(place)) => place,
            (Self::Extension(_), None) => TABLE.len(),
            (_, None) => TABLE.len() + 1,
        };
        u8::try_from(place).unwrap_or(u8::MAX)
    }

    /// True where the revisions of `era` have the method. Extensions are left to the upstream.
    #[must_use]
    pub fn served_in(self, era: Era) -> bool {
        match (self.row(), era) {
            (Some(row), Era::Legacy) => row.legacy,
            (Some(row), Era::Modern) => row.modern,
            (None, _) => matches!(self, Self::Extension(_)),
        }
    }

    /// True for the first message of a connection: a refusal of it must not look like "other era".
    #[must_use]
    pub fn is_handshake(self) -> bool {
        matches!(self, Self::Initialize | Self::ServerDiscover)
    }

    /// True for what may be sent again after the upstream broke before it answered.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        self.row().is_some_and(|row| row.retryable)
    }

    pub(super) fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.method == self)
    }

    pub(super) fn form(self) -> Form {
        self.row().map_or(Form::Either, |row| row.form)
    }

    pub(super) fn subject(self) -> Subject {
        self.row().map_or(Subject::Server, |row| row.subject)
    }
}

/// Shorthand that keeps one method on one line of the table.
const fn request(method: Method, name: &'static str, eras: (bool, bool), subject: Subject) -> Row {
    let (legacy, modern) = eras;
    let form = Form::Request;
    Row { method, name, form, legacy, modern, subject, mirrored_name: false, retryable: false }
}

const fn notification(method: Method, name: &'static str, eras: (bool, bool)) -> Row {
    Row { form: Form::Notification, ..request(method, name, eras, Subject::Server) }
}

/// With `Mcp-Name` in the modern era.
const fn named(row: Row) -> Row {
    Row { mirrored_name: true, ..row }
}

const fn retryable(row: Row) -> Row {
    Row { retryable: true, ..row }
}

/// How many values [`Method::id`] has: the table, `Extension`, `Unknown`.
pub const METHOD_COUNT: usize = TABLE.len() + 2;

const BOTH: (bool, bool) = (true, true);
const LEGACY: (bool, bool) = (true, false);
const MODERN: (bool, bool) = (false, true);

/// The most frequent first: the search is linear. The modern era cancels over HTTP by closing the
/// stream, but servers answer `notifications/cancelled` with 202, so it is in both.
const TABLE: [Row; 25] = {
    use Method as M;
    use Subject as S;
    [
        named(request(M::ToolsCall, "tools/call", BOTH, S::Tool)),
        retryable(request(M::ToolsList, "tools/list", BOTH, S::Server)),
        named(request(M::ResourcesRead, "resources/read", BOTH, S::Resource)),
        named(request(M::PromptsGet, "prompts/get", BOTH, S::Prompt)),
        retryable(request(M::Initialize, "initialize", LEGACY, S::Server)),
        notification(M::NotificationsInitialized, "notifications/initialized", LEGACY),
        retryable(request(M::ServerDiscover, "server/discover", MODERN, S::Server)),
        request(M::Ping, "ping", LEGACY, S::Server),
        retryable(request(M::ResourcesList, "resources/list", BOTH, S::Server)),
        retryable(request(M::ResourcesTemplatesList, "resources/templates/list", BOTH, S::Server)),
        retryable(request(M::PromptsList, "prompts/list", BOTH, S::Server)),
        request(M::SubscriptionsListen, "subscriptions/listen", MODERN, S::Subscriptions),
        request(M::ResourcesSubscribe, "resources/subscribe", LEGACY, S::Resource),
        request(M::ResourcesUnsubscribe, "resources/unsubscribe", LEGACY, S::Resource),
        request(M::CompletionComplete, "completion/complete", BOTH, S::Reference),
        request(M::LoggingSetLevel, "logging/setLevel", LEGACY, S::Server),
        named(request(M::TasksGet, "tasks/get", BOTH, S::Task)),
        named(request(M::TasksCancel, "tasks/cancel", BOTH, S::Task)),
        request(M::TasksResult, "tasks/result", LEGACY, S::Task),
        retryable(request(M::TasksList, "tasks/list", LEGACY, S::Server)),
        named(request(M::TasksUpdate, "tasks/update", MODERN, S::Task)),
        notification(M::NotificationsCancelled, "notifications/cancelled", BOTH),
        notification(M::NotificationsProgress, "notifications/progress", LEGACY),
        notification(M::NotificationsRootsListChanged, "notifications/roots/list_changed", LEGACY),
        notification(M::NotificationsTasksStatus, "notifications/tasks/status", LEGACY),
    ]
};

const _: () = assert!(METHOD_COUNT < u8::MAX as usize, "Method::id is one byte");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_ids_are_a_bijection() {
        let mut ids: Vec<u8> = TABLE.iter().map(|row| row.method.id()).collect();
        ids.extend([Method::Extension(7).id(), Method::Unknown.id()]);
        ids.sort_unstable();
        assert_eq!(ids, (0..METHOD_COUNT as u8).collect::<Vec<_>>());
        for row in &TABLE {
            assert_eq!(Method::from_name(row.name), row.method);
            assert_eq!(row.method.as_str(), row.name);
        }
    }

    #[test]
    fn m04_a_name_in_another_case_is_unknown() {
        for row in &TABLE {
            assert_eq!(Method::from_name(&row.name.to_uppercase()), Method::Unknown);
            assert_eq!(Method::from_name(&format!("{} ", row.name)), Method::Unknown);
        }
        assert!(!Method::Unknown.served_in(Era::Legacy) && !Method::Unknown.served_in(Era::Modern));
    }

    #[test]
    fn only_reading_is_retryable() {
        assert!(Method::ToolsList.is_retryable() && Method::Initialize.is_retryable());
        assert!(!Method::ToolsCall.is_retryable() && !Method::Extension(0).is_retryable());
    }
}

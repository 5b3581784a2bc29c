//! What random policies and questions are made of, here and where decisions are cached.

use std::collections::HashSet;

use cedar_policy as cedar;

use super::{PolicySet, QTarget, Question};
use crate::mcp::{Known, Plan};

/// A small generator of numbers (xorshift64*).
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % sides
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len())]
    }
}

pub(crate) const PRINCIPALS: &[&str] = &[
    "principal",
    "principal",
    "principal",
    "principal is User",
    "principal is Agent",
    "principal == User::\"alice\"",
    "principal == Agent::\"claude\"",
    "principal in Group::\"engineering\"",
    "principal is User in Group::\"ops\"",
    // The same name as another kind of entity.
    "principal == User::\"engineering\"",
    "principal == Agent::\"alice\"",
    "principal == User::\"bob\"",
    "principal in Agent::\"robot\"",
    "principal in Group::\"ops\"",
];
pub(crate) const ACTIONS: &[&str] = &[
    "action",
    "action",
    "action",
    "action == Action::\"connect\"",
    "action == Action::\"tools/call\"",
    "action in Action::\"use\"",
    "action in [Action::\"list\", Action::\"prompts/get\"]",
    "action in [Action::\"session\", Action::\"extension\"]",
    "action == Action::\"tools/list\"",
    "action in Action::\"resources/read\"",
];
pub(crate) const RESOURCES: &[&str] = &[
    "resource",
    "resource is Tool",
    "resource is Gateway",
    "resource in Server::\"github\"",
    "resource in Server::\"github\"",
    "resource in Server::\"github\"",
    "resource == Server::\"github\"",
    "resource is Tool in Server::\"jira\"",
    "resource == Tool::\"github/get\"",
    "resource == Tool::\"github/get\"",
    "resource in Tool::\"jira/get\"",
    "resource is Prompt in Server::\"github\"",
    "resource == Resource::\"jira/get\"",
    "resource is Server",
    "resource is Resource in Server::\"github\"",
    "resource == Prompt::\"github/get\"",
    "resource is Tool in Tool::\"github/a/b\"",
];
/// What every set may ask for.
pub(crate) const CONDITIONS: &[&str] = &[
    "",
    "",
    "",
    "",
    "when { context.scopes.contains(\"read\") }",
    "unless { context.scopes.contains(\"write\") }",
    "unless { context has acr && context.acr == \"gold\" }",
    "when { context.source.ip.isInRange(ip(\"10.0.0.0/8\")) }",
    "when { context.local.weekday <= 5 }",
    "unless { context.local.minute_of_day < 196 }",
    "when { context.now < datetime(\"2026-11-23T02:15:08Z\") }",
    "when { context.agent == Agent::\"claude\" }",
    "unless { context has auth_time && \
     context.now.durationSince(context.auth_time) < duration(\"1h\") }",
    "when { principal in Group::\"ops\" || principal == User::\"bob\" }",
    "unless { principal in Group::\"only-here\" }",
    "when { resource in Server::\"github\" }",
    "when { resource == Tool::\"github/get\" || action in Action::\"list\" }",
    "when { context has revision && context.revision like \"2025-*\" }",
    // Fails to evaluate for some and not for others.
    "when { context.local.minute_of_day * 99999999999999999 > 0 }",
    "unless { context.local.weekday + 9223372036854775807 < 0 }",
    "when { context.scopes.contains(\"read\") && 9223372036854775807 + context.local.weekday > 0 }",
];
/// What asks for a country.
pub(crate) const OF_COUNTRIES: &[&str] = &[
    "when { context.source has country && context.source.country == \"DE\" }",
    "unless { context has source.country }",
];
/// What asks for arguments of [`DECLARED`].
pub(crate) const OF_ARGUMENTS: &[&str] = &[
    "when { context.arguments has \"github/get\" && context.arguments[\"github/get\"] has path && \
     context.arguments[\"github/get\"].path like \"docs/*\" }",
    "unless { context.arguments has \"github/get\" && \
     context.arguments[\"github/get\"] has options.size && \
     context.arguments[\"github/get\"].options.size < 10 }",
    "when { context.arguments has \"github/get\" && context.arguments[\"github/get\"] has tags && \
     context.arguments[\"github/get\"].tags.contains(\"x\") }",
    "when { context.arguments has \"github/get\" }",
];
/// The same types as Cedar is told them.
pub(crate) const TYPES: &str = "{ \"github/get\"?: { path?: String, tags?: Set<String>, \
                     options?: { size?: Long }, other?: Bool } }";
/// The tool that has a type.
pub(crate) const DECLARED: &str = "@tool(\"github/get\") type Get = { path: String, tags: Set<String>, \
                        options: { size: Long }, other: Bool };";
/// Arguments as they are sent, what of the declared ones policies can hold, and the others.
pub(crate) const GIVEN: &[(&str, &str, &[&str])] = &[
    (r#"{}"#, r#"{}"#, &[]),
    (r#"{"path":"docs/a"}"#, r#"{"path":"docs/a"}"#, &[]),
    (r#"{"path":"etc","tags":["x","y","x"]}"#, r#"{"path":"etc","tags":["x","y"]}"#, &[]),
    (r#"{"options":{"size":9,"more":1}}"#, r#"{"options":{"size":9}}"#, &[]),
    (r#"{"options":{"size":10},"other":true}"#, r#"{"options":{"size":10},"other":true}"#, &[]),
    (r#"{"path":7,"tags":["z"]}"#, r#"{"tags":["z"]}"#, &["path"]),
    (r#"{"tags":null,"path":"docs/b"}"#, r#"{"path":"docs/b"}"#, &["tags"]),
    (r#"{"PATH":"docs/a","path":"docs/a"}"#, r#"{"path":"docs/a"}"#, &["path"]),
    (r#"{"options":{"size":1e0}}"#, r#"{"options":{}}"#, &["options"]),
    (r#"null"#, r#"{}"#, &["path", "tags", "options"]),
];
/// Action, server, target.
pub(crate) type What = (&'static str, Option<(u16, &'static str)>, QTarget<'static>);
pub(crate) const QUESTIONS: &[What] = &[
    ("connect", None, QTarget::Gateway),
    ("initialize", GITHUB, QTarget::Server),
    ("tools/list", JIRA, QTarget::Server),
    ("tools/call", GITHUB, QTarget::Tool("get")),
    ("tools/call", GITHUB, QTarget::Tool("get")),
    ("tools/call", GITHUB, QTarget::Tool("get")),
    ("tools/call", GITHUB, QTarget::Tool("a/b")),
    ("tools/call", JIRA, QTarget::Tool("get")),
    ("prompts/get", GITHUB, QTarget::Prompt("get")),
    ("resources/read", JIRA, QTarget::Resource("get")),
    ("com.example/thing", JIRA, QTarget::Server),
    ("resources/read", GITHUB, QTarget::Resource("x")),
    ("subscriptions/listen", GITHUB, QTarget::Server),
];
pub(crate) const GITHUB: Option<(u16, &str)> = Some((0, "github"));
pub(crate) const JIRA: Option<(u16, &str)> = Some((1, "jira"));

/// Calls of `github` are read by the plans of this set.
pub(crate) struct Planned<'s>(pub(crate) &'s PolicySet);

impl Known for Planned<'_> {
    fn extension(&self, _method: &str) -> Option<u16> {
        None
    }

    fn plan(&self, tool: &str) -> Option<&Plan> {
        self.0.plan(0, tool)
    }
}

/// Monday 2026-11-23 02:15:07 UTC, 03:15 in Berlin.
pub(crate) const NOW: u64 = 1_795_400_107;

pub(crate) fn uid(kind: &str, id: &str) -> cedar::EntityUid {
    cedar::EntityUid::from_type_name_and_id(kind.parse().unwrap(), cedar::EntityId::new(id))
}

/// Who asks and for what, as Cedar has it, with everything above them.
pub(crate) fn entities(question: &Question<'_>) -> [cedar::Entity; 2] {
    let subject = question.subject;
    let groups = subject.groups.iter().map(|group| uid("Group", group)).collect();
    let principal = match subject.user {
        Some(user) => cedar::Entity::new_no_attrs(uid("User", user), groups),
        None => cedar::Entity::with_uid(uid("Agent", subject.agent)),
    };
    let server = question.server.map_or("", |(_, name)| name);
    let inside = |kind: &str, name: &str| {
        let parents = HashSet::from([uid("Server", server)]);
        cedar::Entity::new_no_attrs(uid(kind, &format!("{server}/{name}")), parents)
    };
    let resource = match question.target {
        QTarget::Gateway => cedar::Entity::with_uid(uid("Gateway", "gateway")),
        QTarget::Server => cedar::Entity::with_uid(uid("Server", server)),
        QTarget::Tool(name) => inside("Tool", name),
        QTarget::Prompt(name) => inside("Prompt", name),
        QTarget::Resource(name) => inside("Resource", name),
    };
    [principal, resource]
}

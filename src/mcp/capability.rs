//! Capabilities: what a client can be asked for, and what a server offers.
//!
//! `/mcp` speaks for several servers and in front of clients of every revision, so both are held as
//! bits: a union is an OR, and nothing that an upstream writes into its capabilities reaches an
//! agent as text. What has no bit here is not declared and not offered (`experimental`,
//! `extensions`, `tasks`): nobody may rely on what `/mcp` does not carry.

use super::era::{Era, MODERN_REVISIONS};
use super::span::{Malformed, Node, NodeKind};

/// What a client declared that it can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientCapabilities(pub u16);

impl ClientCapabilities {
    /// `roots`
    pub const ROOTS: Self = Self(1);
    /// `roots.listChanged` (legacy)
    pub const ROOTS_CHANGED: Self = Self(1 << 1);
    /// `sampling`
    pub const SAMPLING: Self = Self(1 << 2);
    /// `sampling.context`, since 2025-11-25
    pub const SAMPLING_CONTEXT: Self = Self(1 << 3);
    /// `sampling.tools`, since 2025-11-25
    pub const SAMPLING_TOOLS: Self = Self(1 << 4);
    /// `elicitation.form`, which `elicitation` alone means too, since 2025-06-18
    pub const ELICITATION_FORM: Self = Self(1 << 5);
    /// `elicitation.url`, since 2025-11-25
    pub const ELICITATION_URL: Self = Self(1 << 6);

    /// All that there are.
    pub const ALL: Self = Self((1 << 7) - 1);

    /// These and `more`.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// True when all of `wanted` were declared.
    #[must_use]
    pub const fn hold(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// What both hold.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Reads `capabilities` of an `initialize`, or `_meta`'s `clientCapabilities`. `revision` says
    /// which words it may use: what a revision does not know was not declared in it.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it or one of its known members is no object, or for a repeated or
    /// other-cased key.
    pub fn read(node: Node<'_>, revision: &str) -> Result<Self, Malformed> {
        let [roots, sampling, elicitation] = objects(node, &["roots", "sampling", "elicitation"])?;
        let mut found = Self::default();
        if let Some(roots) = roots {
            let [changed] = roots.pick(&["listChanged"])?;
            found = found.with(Self::ROOTS);
            if changed.is_some_and(Node::is_true) {
                found = found.with(Self::ROOTS_CHANGED);
            }
        }
        if let Some(sampling) = sampling {
            let [tools, context] = objects(sampling, &["tools", "context"])?;
            found = found.with(Self::SAMPLING);
            found = found.with(Self::when(tools.is_some(), Self::SAMPLING_TOOLS));
            found = found.with(Self::when(context.is_some(), Self::SAMPLING_CONTEXT));
        }
        if let Some(elicitation) = elicitation {
            let [form, url] = objects(elicitation, &["form", "url"])?;
            // 2025-11-25 client/elicitation "Capabilities": an empty object means the form alone.
            found = found.with(Self::when(form.is_some() || url.is_none(), Self::ELICITATION_FORM));
            found = found.with(Self::when(url.is_some(), Self::ELICITATION_URL));
        }
        Ok(found.within(Self::known_in(revision)))
    }

    /// Writes them as an object in the words of `revision`.
    pub fn write(self, revision: &str, out: &mut Vec<u8>) {
        let declared = self.within(Self::known_in(revision));
        let mut members = Members::open(out);
        if declared.hold(Self::ROOTS) {
            let changed = declared.hold(Self::ROOTS_CHANGED);
            members.put("roots", if changed { r#"{"listChanged":true}"# } else { "{}" });
        }
        if declared.hold(Self::SAMPLING) {
            let tools = declared.hold(Self::SAMPLING_TOOLS).then_some("tools");
            let context = declared.hold(Self::SAMPLING_CONTEXT).then_some("context");
            members.put_flags("sampling", [tools, context]);
        }
        let (form, url) =
            (declared.hold(Self::ELICITATION_FORM), declared.hold(Self::ELICITATION_URL));
        if form || url {
            // The one word of 2025-06-18; later ones tell two modes apart.
            let told_apart = Self::known_in(revision).hold(Self::ELICITATION_URL);
            let form = (form && told_apart).then_some("form");
            members.put_flags("elicitation", [form, url.then_some("url")]);
        }
        members.close();
    }

    /// What `revision` has words for (its schema, `ClientCapabilities`).
    const fn known_in(revision: &str) -> Self {
        let first = Self::ROOTS.with(Self::ROOTS_CHANGED).with(Self::SAMPLING);
        match revision.as_bytes() {
            b"2025-06-18" => first.with(Self::ELICITATION_FORM),
            b"2025-11-25" => Self::ALL,
            // Nothing tells of changes there: every request stands alone.
            b"2026-07-28" => Self(Self::ALL.0 & !Self::ROOTS_CHANGED.0),
            // 2024-11-05 and 2025-03-26, and what is unknown gets no more than they had.
            _ => first,
        }
    }

    const fn when(declared: bool, capability: Self) -> Self {
        if declared { capability } else { Self(0) }
    }
}

/// What a server offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServerCapabilities(u16);

impl ServerCapabilities {
    /// `tools`
    pub const TOOLS: Self = Self(1);
    /// `tools.listChanged`
    pub const TOOLS_CHANGED: Self = Self(1 << 1);
    /// `prompts`
    pub const PROMPTS: Self = Self(1 << 2);
    /// `prompts.listChanged`
    pub const PROMPTS_CHANGED: Self = Self(1 << 3);
    /// `resources`
    pub const RESOURCES: Self = Self(1 << 4);
    /// `resources.listChanged`
    pub const RESOURCES_CHANGED: Self = Self(1 << 5);
    /// `resources.subscribe`
    pub const SUBSCRIBE: Self = Self(1 << 6);
    /// `completions`
    pub const COMPLETIONS: Self = Self(1 << 7);
    /// `logging`
    pub const LOGGING: Self = Self(1 << 8);
    /// `tasks` of 2025-11-25, or the extension of that name. Read, never written: a task id that an
    /// agent shows to `/mcp` would have to be judged on the tool that made it.
    pub const TASKS: Self = Self(1 << 9);

    /// True when all of `wanted` are offered.
    #[must_use]
    pub const fn hold(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// The union.
    #[must_use]
    pub const fn with(self, more: Self) -> Self {
        Self(self.0 | more.0)
    }

    /// What both hold.
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Reads `capabilities` of the result of an `initialize` or `server/discover`.
    ///
    /// # Errors
    ///
    /// [`Malformed`] when it or one of its known members is no object, or for a repeated or
    /// other-cased key.
    pub fn read(node: Node<'_>) -> Result<Self, Malformed> {
        let [tools, prompts, resources, completions, logging, tasks] =
            objects(node, &["tools", "prompts", "resources", "completions", "logging", "tasks"])?;
        let [extensions] = objects(node, &["extensions"])?;
        let mut found = Self::default();
        for (list, present, changed) in [
            (tools, Self::TOOLS, Self::TOOLS_CHANGED),
            (prompts, Self::PROMPTS, Self::PROMPTS_CHANGED),
            (resources, Self::RESOURCES, Self::RESOURCES_CHANGED),
        ] {
            let Some(list) = list else { continue };
            let [tells, subscribe] = list.pick(&["listChanged", "subscribe"])?;
            found = found.with(present);
            found = found.with(Self::when(tells.is_some_and(Node::is_true), changed));
            let subscribed = present == Self::RESOURCES && subscribe.is_some_and(Node::is_true);
            found = found.with(Self::when(subscribed, Self::SUBSCRIBE));
        }
        let extension = match extensions {
            Some(extensions) => objects(extensions, &["io.modelcontextprotocol/tasks"])?,
            None => [None],
        };
        let tasks = tasks.is_some() || extension.iter().any(Option::is_some);
        found = found.with(Self::when(completions.is_some(), Self::COMPLETIONS));
        found = found.with(Self::when(logging.is_some(), Self::LOGGING));
        Ok(found.with(Self::when(tasks, Self::TASKS)))
    }

    /// Writes them as an object. The four revisions that `/mcp` speaks spell them alike, but for
    /// tasks, which are not written.
    pub fn write(self, out: &mut Vec<u8>) {
        let mut members = Members::open(out);
        for (name, present, flags) in [
            ("tools", Self::TOOLS, [Self::TOOLS_CHANGED, Self::NEVER]),
            ("prompts", Self::PROMPTS, [Self::PROMPTS_CHANGED, Self::NEVER]),
            ("resources", Self::RESOURCES, [Self::RESOURCES_CHANGED, Self::SUBSCRIBE]),
        ] {
            if self.hold(present) {
                let [changed, subscribe] = flags.map(|flag| self.hold(flag));
                members.put(
                    name,
                    match (changed, subscribe) {
                        (false, false) => "{}",
                        (true, false) => r#"{"listChanged":true}"#,
                        (false, true) => r#"{"subscribe":true}"#,
                        (true, true) => r#"{"listChanged":true,"subscribe":true}"#,
                    },
                );
            }
        }
        for (name, present) in [("completions", Self::COMPLETIONS), ("logging", Self::LOGGING)] {
            if self.hold(present) {
                members.put(name, "{}");
            }
        }
        members.close();
    }

    const fn when(offered: bool, capability: Self) -> Self {
        if offered { capability } else { Self(0) }
    }

    /// A bit that nothing sets.
    const NEVER: Self = Self(1 << 15);
}

/// Which era a revision belongs to.
#[must_use]
pub fn era_of(revision: &str) -> Era {
    if MODERN_REVISIONS.contains(&revision) { Era::Modern } else { Era::Legacy }
}

/// The members of `node` that `keys` name; each must be an object where it is there at all. A null
/// or a bare `true` in such a place is no capability in any schema, and readers differ about it.
fn objects<'d, const N: usize>(
    node: Node<'d>,
    keys: &[&str; N],
) -> Result<[Option<Node<'d>>; N], Malformed> {
    let is_object = |node: Node<'_>| node.kind() == NodeKind::Object;
    if !is_object(node) {
        return Err(Malformed);
    }
    let found = node.pick(keys)?;
    if found.iter().flatten().all(|member| is_object(*member)) { Ok(found) } else { Err(Malformed) }
}

/// Writes the members of an object whose keys need no escapes.
struct Members<'o> {
    out: &'o mut Vec<u8>,
    started: usize,
}

impl<'o> Members<'o> {
    fn open(out: &'o mut Vec<u8>) -> Self {
        out.push(b'{');
        let started = out.len();
        Self { out, started }
    }

    fn put(&mut self, key: &str, json: &str) {
        if self.out.len() > self.started {
            self.out.push(b',');
        }
        for part in ["\"", key, "\":", json] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// An object of empty objects.
    fn put_flags(&mut self, key: &str, flags: [Option<&str>; 2]) {
        self.put(key, "");
        let mut inner = Members::open(self.out);
        for flag in flags.into_iter().flatten() {
            inner.put(flag, "{}");
        }
        inner.close();
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

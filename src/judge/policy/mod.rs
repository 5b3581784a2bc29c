//! Access policy (Cedar): which policies there are, which of them could apply to a question, and
//! what they say. Pure but for reading the directory; time and addresses come in as arguments.
//!
//! Cedar evaluates every policy of a set for every question (15,000 allocations at 1,000 policies),
//! so a [`PolicySet`] never shows it the whole set. Scopes are compiled into numbers when the set
//! is loaded; a question picks the slice of its server, action and resource, the scopes of that
//! slice are matched here, and Cedar sees only the conditions of what is left. That slices and the
//! whole set always agree is a test (`differential`).
//!
//! Default deny; a forbid wins; and unlike Cedar alone, an error while a condition is evaluated
//! denies, because a forbid that fails to evaluate must not let pass what it was written to stop.

mod arguments;
mod compile;
mod decide;
mod index;
mod key;
mod list;
mod load;
mod mentions;
mod rule;
mod scanner;
mod schema;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
mod trace;
mod warnings;

pub use decide::{CredentialChoice, More, StepUp, Verdict};
pub use index::Slice;
pub use load::{CredentialScope, Fault, Setting, Source, Sources};
pub use rule::RulePlace;
pub use schema::SCHEMA;
pub use trace::{Outcome, Reads, Traced, Unmet};

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::address::Country;
use crate::clock::UnixSeconds;
use crate::mcp::{Arguments, Plan};

/// Who asks, as far as policies see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Namespaced user id; `None` makes the agent the principal.
    pub user: Option<&'a str>,
    /// Namespaced agent id.
    pub agent: &'a str,
    /// Groups of the user. A workload has none.
    pub groups: &'a [String],
    /// Scopes of the token.
    pub scopes: &'a [String],
    /// `acr` of the token.
    pub acr: Option<&'a str>,
    /// `auth_time` of the token, in seconds since 1970.
    pub auth_time: Option<u64>,
    /// Names this identity in caches. INVARIANT: two subjects with equal digests have equal `user`,
    /// `agent` and `groups`; everything else that a policy reads is in the cache key by itself.
    pub digest: &'a [u8; 32],
}

/// What a question is about. Names are the bytes that go upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QTarget<'a> {
    /// The gateway itself; only `connect` is asked of it.
    Gateway,
    /// The server as a whole.
    Server,
    /// A tool of the server.
    Tool(&'a str),
    /// A prompt of the server.
    Prompt(&'a str),
    /// A resource (URI) of the server.
    Resource(&'a str),
}

/// What else is known about the request.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Address of the client; IPv4-mapped forms are converted here.
    pub source_ip: IpAddr,
    /// Time of the decision.
    pub now: UnixSeconds,
    /// Declared MCP revision.
    pub revision: Option<&'a str>,
    /// Where `source_ip` is, as the database of the configuration has it.
    pub country: Option<Country>,
    /// What the call is given, as far as policies ask for it.
    pub arguments: Arguments<'a>,
}

impl Context<'_> {
    /// A request of which nothing but address and time is known.
    #[must_use]
    pub const fn at(source_ip: IpAddr, now: UnixSeconds) -> Self {
        Self { source_ip, now, revision: None, country: None, arguments: Arguments::NONE }
    }
}

/// What a question is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// To do it.
    #[default]
    Call,
    /// To show it in a list, where what only a call can tell is not known (DESIGN §6).
    List,
    /// To show a resource template, of which not even the resource is known.
    Template,
}

/// One question to the policies.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who asks.
    pub subject: &'a Subject<'a>,
    /// MCP method, or `connect`.
    pub action: &'a str,
    /// Index and name of the server; `None` for the gateway only.
    pub server: Option<(u16, &'a str)>,
    /// What is asked for.
    pub target: QTarget<'a>,
    /// Circumstances.
    pub context: &'a Context<'a>,
    /// What for.
    pub mode: Mode,
}

/// A loaded, validated set of policies. Immutable; a reload makes another.
pub struct PolicySet {
    epoch: u64,
    rules: Vec<rule::Rule>,
    index: index::Index,
    names: rule::Names,
    actions: schema::Actions,
    types: schema::Types,
    /// Per server, which arguments of its tools are asked for.
    plans: Vec<arguments::Plans>,
    warnings: Vec<Fault>,
    basis: compile::Basis,
    zone: TimeZone,
    authorizer: cedar_policy::Authorizer,
}

impl PolicySet {
    /// Reads and checks `*.cedar`, `shadow/*.cedar` and `schema.d/*.cedarschema` of `directory`.
    ///
    /// # Errors
    /// Every fault of every file at once, and a directory without any policy: it would deny
    /// everything, and whoever mounts the wrong folder means something else. Nothing is loaded
    /// then.
    pub fn load(directory: &Path, setting: &Setting<'_>) -> Result<Self, Vec<Fault>> {
        let sources = Self::read(directory)?;
        Self::compile_after(None, sources, directory, setting, &mut || {})
    }

    /// Reads what `directory` holds, without looking into it.
    ///
    /// # Errors
    /// Every file that cannot be read.
    pub fn read(directory: &Path) -> Result<Sources, Vec<Fault>> {
        load::read(directory)
    }

    /// Checks and compiles `sources`. What `before` holds word for word, under an equal setting
    /// (but for the epoch), is taken over from there, so that little changes cost little. `pause`
    /// is called between two steps of far below a millisecond: a thread of low priority may yield
    /// in it.
    ///
    /// # Errors
    /// Those of [`PolicySet::load`].
    pub fn compile_after(
        before: Option<&Self>,
        sources: Sources,
        directory: &Path,
        setting: &Setting<'_>,
        pause: &mut dyn FnMut(),
    ) -> Result<Self, Vec<Fault>> {
        let set = compile::compile(before, &sources, directory, setting, pause)?;
        if set.is_empty() {
            let what = "there is no policy in it, so that everything would be denied";
            let cure = "add a *.cedar file; starter.cedar of the examples is one to begin with";
            let (file, what, cure) = (directory.to_owned(), what.to_owned(), cure.to_owned());
            return Err(vec![Fault { file, line: 1, column: 1, what, cure }]);
        }
        Ok(set)
    }

    /// Checks policies that were read already; `directory` names what has no file of its own.
    ///
    /// # Errors
    /// Every fault of every file at once.
    pub fn compile(
        sources: &[Source],
        directory: &Path,
        setting: &Setting<'_>,
    ) -> Result<Self, Vec<Fault>> {
        Self::compile_all(
            &Sources { enforced: sources.to_vec(), ..Sources::default() },
            directory,
            setting,
        )
    }

    /// The same with shadow policies and types of arguments.
    ///
    /// # Errors
    /// Every fault of every file at once.
    pub fn compile_all(
        sources: &Sources,
        directory: &Path,
        setting: &Setting<'_>,
    ) -> Result<Self, Vec<Fault>> {
        compile::compile(None, sources, directory, setting, &mut || {})
    }

    /// The number of this set; a cached decision belongs to one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How many policies decide.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.iter().filter(|rule| !rule.at.shadow).count()
    }

    /// How many policies are shadows.
    #[must_use]
    pub fn shadow_len(&self) -> usize {
        self.rules.len() - self.len()
    }

    /// What loads and may not be meant, in the order of the files; at most
    /// [`POLICY_WARNINGS_MAX`](crate::limits::POLICY_WARNINGS_MAX).
    #[must_use]
    pub fn warnings(&self) -> &[Fault] {
        &self.warnings
    }

    /// Where the policy `id` is written.
    #[must_use]
    pub fn place(&self, id: &str) -> Option<&RulePlace> {
        self.rules.iter().find(|rule| *rule.id == *id).map(|rule| &rule.at)
    }

    fn by_text(&self) -> HashMap<&str, &Arc<rule::Core>> {
        self.rules.iter().map(|rule| (&*rule.text, &rule.core)).collect()
    }

    /// Whether any policy asks for the country of the client.
    #[must_use]
    pub fn reads_country(&self) -> bool {
        self.rules.iter().any(|rule| rule.mentions.has(mentions::Mentions::COUNTRY))
    }

    /// Which arguments of a tool policies ask for.
    #[must_use]
    pub fn plan(&self, server: u16, tool: &str) -> Option<&Plan> {
        self.plans.get(usize::from(server))?.get(tool)
    }

    /// True when nothing can be permitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `credential` (index in the configuration) may be sent to `server`.
    #[must_use]
    pub fn credential_fits(&self, credential: u16, server: u16) -> bool {
        let known = self.basis.credentials.get(usize::from(credential));
        known.is_some_and(|(_, servers)| servers.contains(&server))
    }

    /// Whether `server` exists for this subject: some permit for something in it has a principal
    /// scope that matches, conditions aside, and no unconditional forbid takes the whole server
    /// away. It decides how a denial looks, never whether there is one.
    #[must_use]
    pub fn server_visible(&self, subject: &Subject<'_>, server: u16) -> bool {
        self.index.visible(server, &self.names.asker(subject))
    }
}

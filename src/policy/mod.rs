//! The enforcement point of one core: every request is judged here, and only here a [`Permit`] is
//! made.
//!
//! The gateway itself comes first (`connect`), then everything in the server that the message
//! touches; all of it must be permitted, and all of it must agree on one upstream credential. How a
//! denial looks depends on whether the server exists for this principal: what one may not see
//! answers like what is not there, so that nobody can list servers by asking.

mod cache;
pub mod kept;
pub mod remote;
mod shown;
#[cfg(test)]
mod tests;

pub use shown::Shown;

use std::rc::Rc;
use std::sync::Arc;

use crate::core_cell::CoreCell;
use crate::judge::policy::{
    Context, CredentialChoice, Mode, More, PolicySet, QTarget, Question, StepUp, Subject, Verdict,
};
use crate::limits::{DECISION_CACHE_ENTRIES_MAX, DECISION_KEY_BYTES_MAX, POLICY_TARGETS_MAX};
use crate::mcp::Listed;
use crate::reject::Reject;

/// Policy ids as they are recorded.
pub type PolicyIds = Rc<[Arc<str>]>;

/// How a message is answered, which decides how its denial looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `initialize` and `server/discover`: denied means that the server does not exist.
    Handshake,
    /// Any other request with an id.
    Request,
    /// What has no JSON-RPC answer: notifications, client responses, GET and DELETE.
    Stream,
}

/// What a request asks of one server.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub subject: &'a Subject<'a>,
    /// Index and name of the server.
    pub server: (u16, &'a str),
    /// MCP method; `initialize` for GET, DELETE and client responses.
    pub method: &'a str,
    /// How it is answered.
    pub form: Form,
    /// Circumstances.
    pub context: &'a Context<'a>,
    /// The server's own credential, used when no permit names one.
    pub default_credential: Option<u16>,
}

/// One thing that a message touches.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// What it is.
    pub target: QTarget<'a>,
    /// What is done to it, when that is not the message's method.
    pub action: Option<&'a str>,
}

impl<'a> From<QTarget<'a>> for Wanted<'a> {
    fn from(target: QTarget<'a>) -> Self {
        Self { target, action: None }
    }
}

/// A granted decision for one relay. Only this module makes one, it cannot be copied, and the relay
/// takes it by value: no request goes upstream without a decision of its own.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    server: u16,
    credential: Option<u16>,
    policies: PolicyIds,
    would_deny: Option<PolicyIds>,
    identity: [u8; 32],
}

impl Permit {
    /// Index of the server that may be reached.
    #[must_use]
    pub fn server(&self) -> usize {
        usize::from(self.server)
    }

    /// Index of the credential to send; `None` when the server has none and no policy names one.
    #[must_use]
    pub fn credential(&self) -> Option<usize> {
        self.credential.map(usize::from)
    }

    /// Ids of the permits that decided on the server.
    #[must_use]
    pub fn policies(&self) -> &[Arc<str>] {
        &self.policies
    }

    /// The same, shared: for the audit record, which outlives the permit.
    #[must_use]
    pub fn policies_shared(&self) -> PolicyIds {
        Rc::clone(&self.policies)
    }

    /// Ids of the shadow policies that would have denied it.
    #[must_use]
    pub fn would_deny(&self) -> Option<PolicyIds> {
        self.would_deny.clone()
    }

    /// Digest of the identity that was judged: the credential stage compares it with its own.
    #[must_use]
    pub fn identity(&self) -> &[u8; 32] {
        &self.identity
    }

    /// This grant for whoever asks, undecided: what a build that leaves decisions out goes on with.
    #[cfg(feature = "ablation")]
    pub(crate) fn made_out_to(&self, identity: &[u8; 32]) -> Self {
        let Self { server, credential, .. } = *self;
        let (policies, would_deny) = (self.policies_shared(), self.would_deny());
        Self { server, credential, policies, would_deny, identity: *identity }
    }
}

/// The gateway may be used; says nothing about any server.
#[derive(Debug)]
#[must_use]
pub struct Connected {
    policies: PolicyIds,
    pub(crate) would_deny: Option<PolicyIds>,
    epoch: u64,
}

impl Connected {
    /// Ids of the permits that decided.
    #[must_use]
    pub fn policies(&self) -> &[Arc<str>] {
        &self.policies
    }

    /// The same, shared: for the audit record.
    #[must_use]
    pub fn policies_shared(&self) -> PolicyIds {
        Rc::clone(&self.policies)
    }

    /// The policy set that decided.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// A refusal, with what the audit record says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// How it is answered.
    pub reject: Reject,
    /// Ids of the determining policies; none for a denial by default.
    pub policies: PolicyIds,
    /// A condition failed to evaluate; `policies` names where.
    pub error: bool,
    /// The policy set that decided.
    pub epoch: u64,
    /// With [`Reject::PolicyStepUp`]: what would do.
    pub step_up: Option<Box<StepUp>>,
}

impl Denial {
    /// A server that is not configured: the same answer as for one that is denied.
    #[must_use]
    pub fn unknown_server(set: &PolicySet) -> Self {
        Self::new(Reject::PolicyDenied, &Verdict::by_default(), set)
    }

    fn new(reject: Reject, verdict: &Verdict, set: &PolicySet) -> Self {
        let policies = Rc::clone(&verdict.policies);
        Self { reject, policies, error: verdict.error, epoch: set.epoch(), step_up: None }
    }

    /// More scope, a stronger or a fresher login would do for what was judged so far.
    fn step_up(lacks: StepUp, policies: PolicyIds, set: &PolicySet) -> Self {
        let (reject, step_up) = (Reject::PolicyStepUp, Some(Box::new(lacks)));
        Self { reject, policies, error: false, epoch: set.epoch(), step_up }
    }
}

/// What the enforcement point did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Decisions found in the cache.
    pub hits: u64,
    /// Decisions made anew and kept.
    pub misses: u64,
    /// Decisions that could not be kept: the key was too long, or nothing could ever apply.
    pub unkept: u64,
    /// Fresh decisions in which a condition failed to evaluate.
    pub errors: u64,
}

/// The policy enforcement point (NIST SP 800-207 §3) of one core.
pub struct Enforcer {
    state: CoreCell<State>,
}

struct State {
    cache: cache::Cache,
    /// The key under way; its memory stays for the next one.
    key: Vec<u8>,
    counts: Counts,
}

impl Default for Enforcer {
    fn default() -> Self {
        Self::new(DECISION_CACHE_ENTRIES_MAX)
    }
}

impl Enforcer {
    /// Room for about `entries` decisions.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self {
            state: CoreCell::new(State {
                cache: cache::Cache::new(entries),
                key: Vec::with_capacity(2 * DECISION_KEY_BYTES_MAX),
                counts: Counts::default(),
            }),
        }
    }

    /// Decides whether the gateway may be used at all.
    ///
    /// # Errors
    /// [`Reject::PolicyDenied`], [`Reject::PolicyStepUp`].
    #[inline]
    pub fn connect(
        &self,
        set: &PolicySet,
        subject: &Subject<'_>,
        context: &Context<'_>,
    ) -> Result<Connected, Denial> {
        let (target, mode) = (QTarget::Gateway, Mode::Call);
        let question = Question { subject, action: "connect", server: None, target, context, mode };
        let verdict = self.decide(set, &question);
        if let Some(lacks) = lacks(&verdict) {
            return Err(Denial::step_up(lacks.clone(), verdict.policies, set));
        }
        if !verdict.allow {
            return Err(Denial::new(Reject::PolicyDenied, &verdict, set));
        }
        let would_deny = shadows(&verdict);
        Ok(Connected { policies: verdict.policies, would_deny, epoch: set.epoch() })
    }

    /// Decides on one message: `connect` first, then everything that is `wanted`.
    ///
    /// # Errors
    /// [`Reject::PolicyDenied`] when the gateway or the server is denied; else, by [`Form`], one of
    /// [`Reject::PolicyCallNoPermit`], [`Reject::PolicyCallForbidden`] and
    /// [`Reject::PolicyStreamDenied`]; [`Reject::PolicyCredentialAmbiguous`] when the permits
    /// differ on the credential; [`Reject::PolicyStepUp`] when all of it is permitted or lacks only
    /// a better login; [`Reject::PolicyUnavailable`] when configuration and policies do
    /// not fit; [`Reject::RpcParams`] for more targets than one message may have.
    pub fn enforce<'a, W: Into<Wanted<'a>>>(
        &self,
        set: &PolicySet,
        ask: &Ask<'_>,
        wanted: impl IntoIterator<Item = W>,
    ) -> Result<Permit, Denial> {
        let mut granted: Option<Granted> = None;
        // A plain denial of anything wins over what a better login would do for the rest: who is
        // refused anyway is not sent to log in again.
        let (mut lacking, at_the_door) = match self.connect(set, ask.subject, ask.context) {
            Ok(connected) => (None, connected.would_deny),
            Err(denial) if denial.step_up.is_some() => (Some(denial), None),
            Err(denial) => return Err(denial),
        };
        for (count, wanted) in wanted.into_iter().enumerate() {
            if count >= POLICY_TARGETS_MAX {
                return Err(Denial::new(Reject::RpcParams, &Verdict::by_default(), set));
            }
            let next = match self.grant(set, ask, wanted.into()) {
                Ok(next) => next,
                Err(denial) if denial.step_up.is_some() => {
                    lacking = Some(both(lacking, denial));
                    continue;
                }
                Err(denial) => return Err(denial),
            };
            granted = Some(match granted {
                None => next,
                Some(before) => before.join(next, set)?,
            });
        }
        if let Some(denial) = lacking {
            return Err(denial);
        }
        // Nothing was asked for, so nothing was permitted.
        let Some(Granted { policies, credential, would_deny }) = granted else {
            return Err(Denial::new(Reject::PolicyUnavailable, &Verdict::by_default(), set));
        };
        let (server, _) = ask.server;
        // Load refuses policies that pair a credential with a foreign server, and so does the
        // configuration; this is the last look before a secret is fetched.
        if credential.is_some_and(|credential| !set.credential_fits(credential, server)) {
            let reject = Reject::PolicyUnavailable;
            return Err(Denial { policies, ..Denial::new(reject, &Verdict::by_default(), set) });
        }
        let would_deny = either(at_the_door, would_deny);
        Ok(Permit { server, credential, policies, would_deny, identity: *ask.subject.digest })
    }

    /// Whether an item of a list is for who asks: true when something that can be done with it may
    /// be permitted. `ask.method` and `ask.form` do not matter.
    pub fn shows(&self, set: &PolicySet, ask: &Ask<'_>, listed: Listed, name: &str) -> Shown {
        let Ask { subject, server, context, .. } = *ask;
        let (target, mode, actions): (_, _, &[&str]) = match listed {
            Listed::Tools => (QTarget::Tool(name), Mode::List, &["tools/call"]),
            Listed::Prompts => (QTarget::Prompt(name), Mode::List, &PROMPT_USES),
            Listed::Resources => (QTarget::Resource(name), Mode::List, &RESOURCE_USES),
            // A template stands for resources that nobody has named yet.
            Listed::Templates => (QTarget::Resource(""), Mode::Template, &RESOURCE_USES),
        };
        let mut shown = Shown::NoPermit;
        for action in actions {
            let question =
                Question { subject, action, server: Some(server), target, context, mode };
            let verdict = self.decide(set, &question);
            if verdict.allow {
                return Shown::Yes;
            }
            shown = shown.max(Shown::hidden_by(&verdict));
        }
        shown
    }

    /// Forgets all decisions. A new set needs no call of this: it has a new epoch.
    pub fn purge(&self) {
        self.state.with(|state| state.cache.forget());
    }

    /// Frees what was forgotten, looking at `budget` places at a time. Called with the core's
    /// timer; no decision depends on it.
    pub fn sweep(&self, budget: usize) {
        self.state.with(|state| state.cache.sweep(budget));
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.state.with(|state| state.counts)
    }

    /// Decisions whose memory is not freed.
    #[cfg(test)]
    fn kept(&self) -> usize {
        self.state.with(|state| state.cache.len())
    }

    fn grant(&self, set: &PolicySet, ask: &Ask<'_>, wanted: Wanted<'_>) -> Result<Granted, Denial> {
        let Ask { subject, server, context, .. } = *ask;
        let (target, mode) = (wanted.target, Mode::Call);
        let action = wanted.action.unwrap_or(ask.method);
        // `connect` is no MCP method; asked of a server it must not find a policy.
        if target == QTarget::Gateway || action == "connect" {
            return Err(Denial::new(Reject::PolicyDenied, &Verdict::by_default(), set));
        }
        let question = Question { subject, action, server: Some(server), target, context, mode };
        let verdict = self.decide(set, &question);
        if let Some(lacks) = lacks(&verdict) {
            return Err(Denial::step_up(lacks.clone(), verdict.policies, set));
        }
        if !verdict.allow {
            return Err(Denial::new(refusal(set, ask, &verdict), &verdict, set));
        }
        let credential = match verdict.credential {
            CredentialChoice::Default => ask.default_credential,
            CredentialChoice::Named(index) => Some(index),
            CredentialChoice::Ambiguous => {
                return Err(Denial::new(Reject::PolicyCredentialAmbiguous, &verdict, set));
            }
        };
        let would_deny = shadows(&verdict);
        Ok(Granted { policies: verdict.policies, credential, would_deny })
    }

    /// One decision, from the cache where it can be. Conditions are evaluated outside of the cell:
    /// a panic in there costs one connection, inside it would cost the process.
    fn decide(&self, set: &PolicySet, question: &Question<'_>) -> Verdict {
        let Some(slice) = set.slice(question) else {
            self.state.with(|state| state.counts.unkept += 1);
            return Verdict::by_default();
        };
        let (keep, found) = self.state.with(|state| {
            let keep = set.key(&slice, question, &mut state.key);
            let found = keep.then(|| state.cache.get(set.epoch(), &state.key)).flatten();
            state.counts.hits += u64::from(found.is_some());
            (keep, found)
        });
        if let Some(verdict) = found {
            return verdict;
        }
        let verdict = set.judge(&slice, question);
        self.state.with(|state| {
            state.counts.errors += u64::from(verdict.error);
            if keep {
                state.counts.misses += 1;
                // Nothing ran in between on this core, so the key is still this question's.
                state.cache.put(set.epoch(), &state.key, verdict.clone());
            } else {
                state.counts.unkept += 1;
            }
        });
        verdict
    }
}

/// What one target was granted.
struct Granted {
    policies: PolicyIds,
    credential: Option<u16>,
    would_deny: Option<PolicyIds>,
}

impl Granted {
    fn join(self, next: Self, set: &PolicySet) -> Result<Self, Denial> {
        let (mine, theirs) = (self.credential, next.credential);
        let policies = union(self.policies, &next.policies);
        if mine != theirs {
            let reject = Reject::PolicyCredentialAmbiguous;
            return Err(Denial { policies, ..Denial::new(reject, &Verdict::by_default(), set) });
        }
        let would_deny = either(self.would_deny, next.would_deny);
        Ok(Self { policies, credential: mine, would_deny })
    }
}

fn union(mine: PolicyIds, theirs: &PolicyIds) -> PolicyIds {
    if theirs.iter().all(|id| mine.contains(id)) {
        return mine;
    }
    let new = theirs.iter().filter(|id| !mine.contains(id));
    mine.iter().chain(new).map(Arc::clone).collect()
}

fn either(mine: Option<PolicyIds>, theirs: Option<PolicyIds>) -> Option<PolicyIds> {
    match (mine, theirs) {
        (Some(mine), Some(theirs)) => Some(union(mine, &theirs)),
        (mine, theirs) => mine.or(theirs),
    }
}

/// The shadow policies that would have denied what is permitted.
fn shadows(verdict: &Verdict) -> Option<PolicyIds> {
    let ids = &verdict.more.as_deref()?.would_deny;
    (!ids.is_empty()).then(|| Rc::clone(ids))
}

/// What a better login would bring; `None` when it would bring nothing.
fn lacks(verdict: &Verdict) -> Option<&StepUp> {
    verdict.more.as_deref().filter(|_| !verdict.allow)?.step_up.as_ref()
}

/// Two denials of one message, each of which a better login would lift.
fn both(before: Option<Denial>, next: Denial) -> Denial {
    let Some(mut joined) = before else { return next };
    joined.policies = union(joined.policies, &next.policies);
    if let (Some(mine), Some(theirs)) = (&mut joined.step_up, &next.step_up) {
        mine.join(theirs);
    }
    joined
}

/// How a denial of something in a server looks (contract, table of answers).
fn refusal(set: &PolicySet, ask: &Ask<'_>, verdict: &Verdict) -> Reject {
    let (server, _) = ask.server;
    if !set.server_visible(ask.subject, server) {
        return Reject::PolicyDenied;
    }
    let unrepresentable = verdict.more.as_deref().is_some_and(|more: &More| more.unrepresentable);
    match ask.form {
        Form::Request if unrepresentable => Reject::PolicyArgument,
        Form::Handshake => Reject::PolicyDenied,
        Form::Stream => Reject::PolicyStreamDenied,
        Form::Request if verdict.forbidden => Reject::PolicyCallForbidden,
        Form::Request => Reject::PolicyCallNoPermit,
    }
}

/// What a prompt is listed for.
pub const PROMPT_USES: [&str; 2] = ["prompts/get", "completion/complete"];
/// What a resource is listed for.
pub const RESOURCE_USES: [&str; 4] =
    ["resources/read", "resources/subscribe", "subscriptions/listen", "completion/complete"];

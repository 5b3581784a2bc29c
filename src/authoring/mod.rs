//! What authors of policies ask without a gateway: what would be decided ([`explain`]), and whether
//! it is what they meant ([`cases`]).
//!
//! There is no second evaluator: a question is written as the message that an agent would send, and
//! goes through the same reader and the same enforcement point as a request.

mod asked;
pub mod cases;
pub mod explain;
pub mod listing;
pub mod replay;
mod stream;
pub mod tools;
mod upstream;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::address::Country;
use crate::config::{Config, Faults};
use crate::gateway::{subject, wanted};
use crate::geo::GeoDb;
use crate::judge::policy::{Context, Mode, PolicySet, QTarget, Question, Reads, StepUp, Subject};
use crate::mcp::{ASSUMED_REVISION, Call, Known, Listed, Method, Mirrored, Plan, REVISIONS};
use crate::policy::{Ask, Denial, Enforcer, Form, Permit, Shown};
use crate::reject::Reject;
use crate::supervisor;

pub use asked::{Asked, Reference, moment};
use asked::{
    COMPLETE, CONNECT, LISTEN, NAMED, TOOL, message, principal, reference, revision_of_connect,
    version,
};

/// What is decided, as far as policies decide it. Rate limits and credentials come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It would be done.
    Permit,
    /// It would not.
    Deny,
    /// It would be, after a better login.
    StepUp,
}

impl Decision {
    /// The word for it, in cases and in output.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Deny => "deny",
            Self::StepUp => "step_up",
        }
    }
}

/// The answer to [`Asked`].
#[derive(Clone, Debug)]
pub struct Answer {
    /// What is decided.
    pub decision: Decision,
    /// The word of the audit record.
    pub reason: &'static str,
    /// Ids of the determining policies; none for a denial by default.
    pub policies: Vec<Arc<str>>,
    /// A condition failed to evaluate, in `policies`.
    pub error: bool,
    /// Name of the credential that would be sent.
    pub credential: Option<String>,
    /// Shadow policies that would have denied what is permitted.
    pub would_deny: Vec<Arc<str>>,
    /// What a better login would have to bring.
    pub step_up: Option<StepUp>,
    /// What it is decided on, as policies name it.
    pub on: String,
    /// Whether lists show it; `None` for what no list has.
    pub shown: Option<Shown>,
}

/// A configuration with its policies, to ask.
pub struct Bench {
    config: Config,
    set: Arc<PolicySet>,
    enforcer: Enforcer,
}

impl Bench {
    /// Reads a configuration with everything that it names, as `check` does.
    ///
    /// # Errors
    /// Every fault, each with its file and place.
    pub fn open(path: &Path) -> Result<Self, Vec<String>> {
        Self::open_with(path, None)
    }

    /// The same with policies of another directory.
    ///
    /// # Errors
    /// As [`Bench::open`].
    pub fn open_with(path: &Path, policies: Option<&Path>) -> Result<Self, Vec<String>> {
        let told = |faults: Faults| faults.0.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut config = Config::load(path).map_err(told)?;
        if let Some(directory) = policies {
            directory.clone_into(&mut config.policy.directory);
        }
        let set = supervisor::policies(&config)?;
        Ok(Self::with(config, set))
    }

    /// Other policies for a configuration.
    #[must_use]
    pub fn with(config: Config, set: Arc<PolicySet>) -> Self {
        Self { config, set, enforcer: Enforcer::new(DECISIONS_KEPT) }
    }

    /// The policies.
    #[must_use]
    pub fn set(&self) -> &PolicySet {
        &self.set
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `id (FILE:LINE)`.
    #[must_use]
    pub fn place(&self, id: &str) -> String {
        match self.set.place(id) {
            Some(at) => format!("{id} ({}:{})", at.file.display(), at.line),
            None => id.to_owned(),
        }
    }

    /// Where the database of the configuration has `ip`, if a policy looks at that.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn country(&self, ip: IpAddr) -> Result<Option<Country>, String> {
        let Some(path) = self.config.policy.geoip.as_ref().filter(|_| self.set.reads_country())
        else {
            return Ok(None);
        };
        let database = GeoDb::load(path).map_err(|fault| format!("{} {fault}", path.display()))?;
        Ok(database.country(ip))
    }

    /// Decides.
    ///
    /// # Errors
    /// In words, what makes the question one that no client could ask.
    pub fn judge(&self, asked: &Asked) -> Result<Answer, String> {
        self.sound(asked)?;
        if asked.method == CONNECT {
            return self.door(asked);
        }
        let principal = principal(asked);
        let subject = subject(&principal);
        let (at, server) = self.server(asked)?;
        let call = self.read(asked, at)?;
        let credential = |at: usize| self.config.credentials.get(at).map(|one| one.name.clone());
        let default = self.config.servers.get(usize::from(at)).and_then(|server| server.credential);
        let context =
            Context { arguments: call.arguments(), ..context(asked, revision(asked, &call)) };
        let ask = Ask {
            subject: &subject,
            server: (at, server),
            method: call.method_name(),
            form: form(&call),
            context: &context,
            default_credential: default.and_then(|at| u16::try_from(at).ok()),
        };
        let decided = self.enforcer.enforce(&self.set, &ask, call.wants().map(wanted));
        let mut answer = match &decided {
            Ok(permit) => Answer {
                policies: permit.policies().to_vec(),
                would_deny: permit.would_deny().map(|ids| ids.to_vec()).unwrap_or_default(),
                credential: Permit::credential(permit).and_then(credential),
                ..permitted()
            },
            Err(denial) => denied(denial),
        };
        let targets = call.targets().map(|target| entity(wanted((target, None)).target, server));
        answer.on = targets.collect::<Vec<_>>().join(" and ");
        answer.shown =
            listed(&call).map(|(listed, name)| self.enforcer.shows(&self.set, &ask, listed, name));
        Ok(answer)
    }

    /// How `connect` is decided, which comes before everything.
    ///
    /// # Errors
    /// As [`Bench::judge`].
    pub fn door(&self, asked: &Asked) -> Result<Answer, String> {
        self.sound(asked)?;
        let principal = principal(asked);
        let subject = subject(&principal);
        let call = self.called(asked)?;
        let context = match &call {
            Some((_, call)) => context(asked, revision(asked, call)),
            None => context(asked, connecting(asked)?),
        };
        Ok(match self.enforcer.connect(&self.set, &subject, &context) {
            Ok(connected) => Answer {
                policies: connected.policies().to_vec(),
                would_deny: connected
                    .would_deny
                    .as_ref()
                    .map(|ids| ids.to_vec())
                    .unwrap_or_default(),
                ..permitted()
            },
            Err(denial) => denied(&denial),
        })
    }

    /// What the answer may depend on, of all that the message touches and of `connect`.
    ///
    /// # Errors
    /// As [`Bench::judge`].
    pub fn reads(&self, asked: &Asked) -> Result<Reads, String> {
        let mut all = Reads::default();
        self.each_question(asked, |question| {
            let more = self.set.reads(question);
            all = Reads {
                scopes: all.scopes || more.scopes,
                acr: all.acr || more.acr,
                auth_time: all.auth_time || more.auth_time,
                country: all.country || more.country,
                arguments: all.arguments || more.arguments,
                time: all.time || more.time,
                resource: all.resource || more.resource,
            };
        })?;
        Ok(all)
    }

    /// Every question that is asked of the policies, `connect` first.
    fn each_question(
        &self,
        asked: &Asked,
        mut each: impl FnMut(&Question<'_>),
    ) -> Result<(), String> {
        self.sound(asked)?;
        let principal = principal(asked);
        let subject = &subject(&principal);
        let call = self.called(asked)?;
        let context = match &call {
            Some((_, call)) => context(asked, revision(asked, call)),
            None => context(asked, connecting(asked)?),
        };
        let (target, mode) = (QTarget::Gateway, Mode::Call);
        let (action, server) = (CONNECT, None);
        each(&Question { subject, action, server, target, context: &context, mode });
        let Some((server, call)) = &call else { return Ok(()) };
        let context = Context { arguments: call.arguments(), ..context };
        for touched in call.wants().map(wanted) {
            let (action, target) = (touched.action.unwrap_or(call.method_name()), touched.target);
            let server = Some(*server);
            each(&Question { subject, action, server, target, context: &context, mode });
        }
        Ok(())
    }

    /// The server and the message; `None` for `connect`, which comes with any message.
    fn called<'a>(&'a self, asked: &Asked) -> Result<Option<Called<'a>>, String> {
        if asked.method == CONNECT {
            return Ok(None);
        }
        let server = self.server(asked)?;
        let call = self.read(asked, server.0)?;
        Ok(Some((server, call)))
    }

    /// Reads what an agent would send, and its headers, as the gateway does.
    fn read(&self, asked: &Asked, server: u16) -> Result<Call, String> {
        let mut call = Call::new();
        call.read_by(&message(asked), &Reading { bench: self, server })
            .map_err(|reject| unaskable(asked, reject))?;
        let method = call.method_name().to_owned();
        // Encoded, since a name may be none that a header can hold as it is.
        let name = call.name().or(call.task_id());
        let name = name.map(|name| format!("=?base64?{}?=", STANDARD.encode(name)));
        let mirrored = Mirrored {
            protocol_version: version(asked).map(str::as_bytes),
            method: Some(method.as_bytes()),
            name: name.as_deref().map(str::as_bytes),
        };
        call.agree(&mirrored).map_err(|reject| unaskable(asked, reject))?;
        Ok(call)
    }

    /// What could not be asked at all is a mistake of who writes it, not a denial.
    fn sound(&self, asked: &Asked) -> Result<(), String> {
        if asked.agent.is_empty() {
            return Err("an agent is needed: every token has one".to_owned());
        }
        if asked.user.is_none() && !asked.groups.is_empty() {
            return Err("groups are of a user; a workload has none".to_owned());
        }
        let method = asked.method.as_str();
        if method == CONNECT {
            let named = asked.name.is_some() || asked.server.is_some();
            let what = "connect is asked of the gateway; it takes neither server nor name";
            return if named { Err(what.to_owned()) } else { Ok(()) };
        }
        let known = self.config.methods.iter().any(|known| known.name == method);
        if Method::from_name(method) == Method::Unknown && !known {
            return Err(format!("no method is called {method:?}, nor does [[method]] list it"));
        }
        let named = NAMED.iter().any(|named| method.starts_with(named));
        let optional = method == LISTEN;
        match &asked.name {
            None if named => Err(format!("{method} needs a name: that of what it touches")),
            Some(_) if !named && !optional => Err(format!("{method} takes no name")),
            Some(name) if method == COMPLETE && reference(asked).is_none() => {
                Err(format!("{name:?} may be a prompt or a resource: say which as its reference"))
            }
            _ if asked.reference.is_some() && method != COMPLETE => {
                Err(format!("{method} takes no reference; {COMPLETE} does"))
            }
            _ if asked.arguments.is_some() && method != TOOL => {
                Err(format!("{method} takes no arguments; {TOOL} does"))
            }
            _ => self.server(asked).map(|_| ()),
        }
    }

    fn server<'a>(&'a self, asked: &Asked) -> Result<(u16, &'a str), String> {
        let servers = || self.config.servers.iter().map(|server| server.name.as_str());
        let Some(wanted) = &asked.server else {
            return Err(format!("{} needs a server", asked.method));
        };
        (0_u16..).zip(servers()).find(|(_, name)| name == wanted).ok_or_else(|| {
            let known: Vec<&str> = servers().collect();
            format!("no server is called {wanted:?}; there are: {}", known.join(", "))
        })
    }
}

/// A server, by place and name, and what is asked of it.
type Called<'a> = ((u16, &'a str), Call);

/// Reads a message as the gateway does.
struct Reading<'a> {
    bench: &'a Bench,
    server: u16,
}

impl Known for Reading<'_> {
    fn extension(&self, method: &str) -> Option<u16> {
        let methods = &self.bench.config.methods;
        methods.iter().position(|known| known.name == method).and_then(|at| at.try_into().ok())
    }

    fn plan(&self, tool: &str) -> Option<&Plan> {
        self.bench.set.plan(self.server, tool)
    }
}

/// The revision that policies see.
fn revision<'a>(asked: &Asked, call: &'a Call) -> Option<&'a str> {
    call.revision().filter(|_| !asked.bodyless)
}

fn connecting(asked: &Asked) -> Result<Option<&'static str>, String> {
    revision_of_connect(asked).map_err(|reject| unaskable(asked, reject))
}

fn context<'a>(asked: &Asked, revision: Option<&'a str>) -> Context<'a> {
    Context { revision, country: asked.country, ..Context::at(asked.ip, asked.at) }
}

fn unaskable(asked: &Asked, reject: Reject) -> String {
    let revision = asked.revision.as_deref().unwrap_or(ASSUMED_REVISION);
    let code = reject.audit_code();
    let known = if reject == Reject::RpcVersion {
        format!("; the gateway speaks {}", REVISIONS.join(", "))
    } else {
        String::new()
    };
    format!("no client could ask this in revision {revision}: {code}{known}")
}

fn form(call: &Call) -> Form {
    use crate::mcp::Kind;
    match call.kind() {
        Kind::Request if call.method().is_handshake() => Form::Handshake,
        Kind::Request => Form::Request,
        Kind::Notification | Kind::Response => Form::Stream,
    }
}

/// The list in which it would stand.
fn listed(call: &Call) -> Option<(Listed, &str)> {
    use crate::mcp::Target;
    call.targets().find_map(|target| match target {
        Target::Tool(name) => Some((Listed::Tools, name)),
        Target::Prompt(name) => Some((Listed::Prompts, name)),
        Target::Resource(uri) => Some((Listed::Resources, uri)),
        Target::Server => None,
    })
}

fn permitted() -> Answer {
    Answer {
        decision: Decision::Permit,
        reason: "ok",
        policies: Vec::new(),
        error: false,
        credential: None,
        would_deny: Vec::new(),
        step_up: None,
        on: "Gateway::\"gateway\"".to_owned(),
        shown: None,
    }
}

fn entity(target: QTarget<'_>, server: &str) -> String {
    let of = |name: &str| format!("{server}/{name}");
    match target {
        QTarget::Gateway => "Gateway::\"gateway\"".to_owned(),
        QTarget::Server => format!("Server::{server:?}"),
        QTarget::Tool(name) => format!("Tool::{:?}", of(name)),
        QTarget::Prompt(name) => format!("Prompt::{:?}", of(name)),
        QTarget::Resource(uri) => format!("Resource::{:?}", of(uri)),
    }
}

fn denied(denial: &Denial) -> Answer {
    let lacks = denial.step_up.as_deref().cloned();
    let step_up = denial.reject == Reject::PolicyStepUp;
    Answer {
        decision: if step_up { Decision::StepUp } else { Decision::Deny },
        reason: denial.reject.audit_code(),
        policies: denial.policies.to_vec(),
        error: denial.error,
        step_up: lacks,
        ..permitted()
    }
}

/// Who asks, as policies name it.
fn who(subject: &Subject<'_>) -> String {
    let agent = subject.agent;
    match subject.user {
        None => format!("Agent::{agent:?}"),
        Some(user) if subject.groups.is_empty() => {
            format!("User::{user:?}, through Agent::{agent:?}")
        }
        Some(user) => {
            let groups: Vec<String> =
                subject.groups.iter().map(|group| format!("Group::{group:?}")).collect();
            format!("User::{user:?} in {}, through Agent::{agent:?}", groups.join(", "))
        }
    }
}

/// Asked once each; a cache would only cost memory.
const DECISIONS_KEPT: usize = 64;

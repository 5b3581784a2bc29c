//! From the text of policies to a [`PolicySet`], or to everything that is wrong with it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicyId, ValidationMode, Validator,
};
use jiff::tz::TimeZone;

use super::arguments::{Declared, Plans};
use super::decide::StepUp;
use super::load::{Fault, Faults, Setting, Source, Sources};
use super::mentions::{self, Mentions};
use super::rule::{self, GATEWAY, Names, Place, Rule, RulePlace};
use super::scanner::{self, Statement, Torn};
use super::schema::{self, Actions, Types, kind};
use super::{PolicySet, index, warnings};
use crate::limits::{self, PLAN_FIELDS_MAX};

/// Checks everything, and compiles it when nothing is wrong.
pub(super) fn compile<'a>(
    sources: &'a Sources,
    directory: &Path,
    setting: &'a Setting<'a>,
) -> Result<PolicySet, Vec<Fault>> {
    let outside = |what: String, cure: &str| {
        let (file, cure) = (directory.to_owned(), cure.to_owned());
        vec![Fault { file, line: 1, column: 1, what, cure }]
    };
    let zone = TimeZone::get(setting.timezone)
        .map_err(|error| outside(error.to_string(), "set policy.timezone to an IANA zone name"))?;
    let mut faults = Faults::default();
    let declared = Declared::read(&sources.schemas, setting.servers, &mut faults);
    let schema = schema::build(setting.methods, &declared.cedar_type(setting.servers))
        .map_err(|error| outside(error, "rename the [[method]] that the schema cannot hold"))?;
    let actions = Actions::new(&schema).map_err(|error| outside(error, "report this"))?;
    let types = Types::new().map_err(|error| outside(error, "report this"))?;
    let mut compiler = Compiler {
        setting,
        servers: setting.servers.iter().map(|name| Box::from(*name)).collect(),
        declared,
        validator: Validator::new(schema),
        actions,
        names: Names::default(),
        rules: Vec::new(),
        ids: HashMap::new(),
        shadow: false,
        faults,
    };
    for (sources, shadow) in [(&sources.enforced, false), (&sources.shadow, true)] {
        compiler.shadow = shadow;
        sources.iter().for_each(|source| compiler.file(source));
    }
    let plans = compiler.plans();
    if !compiler.faults.0.is_empty() {
        // One after another as they are read, not as they were found.
        let mut faults = compiler.faults.0;
        faults.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        return Err(faults);
    }
    let Compiler { servers, actions, names, rules, .. } = compiler;
    Ok(PolicySet {
        epoch: setting.epoch,
        index: index::Index::new(&rules, &actions, servers.len()),
        warnings: warnings::find(&rules, &actions),
        credentials: setting.credentials.iter().map(|one| one.servers.to_vec()).collect(),
        authorizer: cedar_policy::Authorizer::new(),
        rules,
        names,
        actions,
        types,
        servers,
        plans,
        zone,
    })
}

struct Compiler<'a> {
    setting: &'a Setting<'a>,
    servers: Vec<Box<str>>,
    declared: Declared,
    validator: Validator,
    actions: Actions,
    names: Names,
    rules: Vec<Rule>,
    /// Where each id was seen first: the file, and the byte offset in it.
    ids: HashMap<String, (&'a Source, usize)>,
    /// What is read now never decides.
    shadow: bool,
    faults: Faults,
}

/// A statement in its file.
#[derive(Clone, Copy)]
struct Spot<'a> {
    source: &'a Source,
    statement: Statement<'a>,
}

impl<'a> Compiler<'a> {
    fn file(&mut self, source: &'a Source) {
        let (statements, torn) = scanner::statements(&source.text);
        for statement in statements {
            if self.rules.len() >= limits::POLICIES_MAX {
                let what = format!("more than {} policies", limits::POLICIES_MAX);
                self.fault(source, statement.offset, &what, "join policies with lists or groups");
                return;
            }
            self.statement(Spot { source, statement });
        }
        match torn {
            Some(Torn::String(at)) => {
                self.fault(source, at, "this string never ends", "close it with a quote");
            }
            Some(Torn::Statement(at)) => {
                self.fault(source, at, "this policy never ends", "end it with a semicolon");
            }
            None => {}
        }
    }

    fn fault(&mut self, source: &Source, offset: usize, what: &str, cure: &str) {
        self.faults.tell(source, offset, what, cure);
    }

    /// A fault that Cedar found; its labels count from the start of the statement. The validator
    /// finds the same one again for each action it is about: the first is enough.
    fn cedar_fault(&mut self, spot: Spot<'_>, error: &DetailedError, cure: &str) {
        let inside = error.source_locations.first().map_or(0, |label| label.loc.start);
        let cure = error.help.as_deref().unwrap_or(cure);
        let at = spot.statement.offset + inside;
        let (line, column) = scanner::place(&spot.source.text, at);
        let told = self.faults.0.last().is_some_and(|last| {
            last.file == spot.source.path && (last.line, last.column) == (line, column)
        });
        if !told {
            self.fault(spot.source, at, &error.message, cure);
        }
    }

    fn statement(&mut self, spot: Spot<'a>) {
        let Spot { source, statement } = spot;
        if statement.text.len() > limits::POLICY_BYTES_MAX {
            let what = format!("a policy of more than {} bytes", limits::POLICY_BYTES_MAX);
            return self.fault(source, statement.offset, &what, "split it");
        }
        let depth = statement.depth();
        if depth.nesting > limits::POLICY_NESTING_MAX
            || depth.operators > limits::POLICY_OPERATORS_MAX
        {
            let (nesting, operators) = (limits::POLICY_NESTING_MAX, limits::POLICY_OPERATORS_MAX);
            let what =
                format!("a policy of more than {nesting} nested brackets or {operators} operators");
            let cure = "split it, or compare with a set: `[\"a\", \"b\"].contains(…)`";
            return self.fault(source, statement.offset, &what, cure);
        }
        let policy = match Policy::parse(None, statement.text) {
            Ok(policy) => policy,
            Err(errors) => {
                for error in errors.iter() {
                    self.cedar_fault(spot, &DetailedError::from(error), "correct the syntax");
                }
                return;
            }
        };
        let before = self.faults.0.len();
        let id = self.id(spot, &policy);
        self.annotations(spot, &policy);
        self.literals(spot, &policy);
        let read = match policy.to_pst() {
            Ok(form) => mentions::read(&form),
            Err(error) => {
                let what = error.to_string();
                return self.fault(source, statement.offset, &what, "write it more simply");
            }
        };
        self.context_use(spot, &read);
        let step_up = self.step_up(spot, &policy, read.mentions);
        if self.faults.0.len() > before {
            return;
        }
        let policy = policy.new_id(PolicyId::new(&id));
        let Some(alone) = self.validated(spot, &policy) else { return };
        let place = rule::place(&policy, &self.servers);
        let Some(credential) = self.credential(spot, &policy, &place) else { return };
        let permits = policy.effect() == Effect::Permit;
        for literal in policy.entity_literals() {
            self.names.learn(&literal);
        }
        self.rules.push(Rule {
            id: Arc::from(id),
            permits,
            who: self.names.who(&policy),
            actions: self.numbers(&policy),
            place,
            credential,
            step_up,
            mentions: read.mentions,
            arguments: read.arguments,
            at: self.place(spot, permits),
            text: Box::from(statement.text),
            condition: policy.has_non_scope_constraint().then_some(alone),
        });
    }

    fn place(&self, spot: Spot<'_>, permits: bool) -> RulePlace {
        let Spot { source, statement } = spot;
        let (line, column) = scanner::place(&source.text, statement.offset);
        let (file, shadow) = (Arc::from(source.path.as_path()), self.shadow);
        RulePlace { file, line, column, shadow, permits }
    }

    fn id(&mut self, spot: Spot<'a>, policy: &Policy) -> String {
        let Spot { source, statement } = spot;
        let Some(id) = policy.annotation("id") else {
            self.fault(source, statement.offset, "a policy without @id", "give it a unique @id");
            return String::new();
        };
        let at = statement.annotation("id");
        let unfit = id.is_empty() || id.chars().any(char::is_control);
        if unfit || id.len() > limits::POLICY_ID_BYTES_MAX {
            let cure = format!("use 1 to {} printable bytes", limits::POLICY_ID_BYTES_MAX);
            self.fault(source, at, "this @id cannot be recorded", &cure);
        }
        match self.ids.get(id) {
            Some((first, offset)) => {
                let (line, _) = scanner::place(&first.text, *offset);
                let first = first.path.display();
                let what = format!("@id \"{id}\" is taken by the policy at {first}:{line}");
                self.fault(source, at, &what, "give each policy its own @id");
            }
            None => {
                self.ids.insert(id.to_owned(), (source, at));
            }
        }
        id.to_owned()
    }

    fn annotations(&mut self, spot: Spot<'_>, policy: &Policy) {
        for (name, _) in policy.annotations() {
            let at = spot.statement.annotation(name);
            match name {
                "id" | "credential" | REQUIRE_SCOPE | REQUIRE_ACR | MAX_AGE => {}
                _ => {
                    let what = format!("unknown annotation @{name}");
                    let known =
                        "known are @id, @credential, @require_scope, @require_acr and @max_age";
                    self.fault(spot.source, at, &what, known);
                }
            }
        }
    }

    /// What a policy reads must be something that can be told apart, and had.
    fn context_use(&mut self, spot: Spot<'_>, read: &mentions::Read) {
        let Spot { source, statement } = spot;
        if read.whole {
            let (what, at) = ("`context` as a whole", statement.word("context"));
            self.fault(source, at, what, "name the attributes that it is about");
        }
        if read.country && !self.setting.geoip {
            let (what, at) = ("there is no database of countries", statement.word("country"));
            self.fault(source, at, what, "set policy.geoip to a MaxMind country database");
        }
        for named in &read.arguments {
            if let Err((what, cure)) = self.declared.check(named, self.setting.servers) {
                let word = named.path.last().map_or("arguments", |word| word);
                self.fault(source, statement.word(word), &what, &cure);
            }
        }
    }

    /// Which arguments are read out of calls.
    fn plans(&mut self) -> Vec<Plans> {
        let at = match self.declared.plans(&self.rules, self.setting.servers) {
            Ok(plans) => return plans,
            Err(at) => at,
        };
        if let Some(RulePlace { file, line, column, .. }) = self.rules.get(at).map(|one| &one.at) {
            let what = format!("with this, more than {PLAN_FIELDS_MAX} arguments of one tool");
            let cure = "ask for fewer of them".to_owned();
            let (file, line, column) = (file.to_path_buf(), *line, *column);
            self.faults.0.push(Fault { file, line, column, what, cure });
        }
        Vec::new()
    }

    /// What a forbid says would lift it (DESIGN §6). Its condition must look at the same thing:
    /// else it would hold on after the step, and the client would be sent round for ever.
    fn step_up(&mut self, spot: Spot<'_>, policy: &Policy, read: Mentions) -> Option<StepUp> {
        let mut step_up = StepUp::default();
        let mut found = false;
        for (name, mention, attribute) in STEPS {
            let Some(value) = policy.annotation(name) else { continue };
            found = true;
            let at = spot.statement.annotation(name);
            if policy.effect() == Effect::Permit {
                self.fault(spot.source, at, &format!("@{name} on a permit"), "write a forbid");
            }
            if !read.has(mention) {
                let what = format!("@{name} on a policy that does not look at it");
                let cure = format!("add a condition on context.{attribute}");
                self.fault(spot.source, at, &what, &cure);
            }
            let taken = match name {
                REQUIRE_SCOPE if is_scope(value) => {
                    step_up.scopes.push(Arc::from(value));
                    true
                }
                REQUIRE_ACR if is_scope(value) => {
                    step_up.acr.push(Arc::from(value));
                    true
                }
                MAX_AGE => {
                    step_up.max_age = value.parse().ok().filter(|age| *age <= MAX_AGE_MAX);
                    step_up.max_age.is_some() && value.bytes().all(|byte| byte.is_ascii_digit())
                }
                _ => false,
            };
            if !taken {
                let cure = "write one scope, one acr value, or seconds up to a year";
                self.fault(spot.source, at, &format!("this value of @{name} is not usable"), cure);
            }
        }
        found.then_some(step_up)
    }

    /// Entities that a policy names must exist as far as the configuration can tell: a typing error
    /// in the name of a server would otherwise make a forbid that never holds.
    fn literals(&mut self, spot: Spot<'_>, policy: &Policy) {
        let mut literals = policy.entity_literals();
        literals.sort_by_key(ToString::to_string);
        literals.dedup();
        for literal in literals {
            let Some(what) = self.unknown(&literal) else { continue };
            let at = spot.statement.word(literal.id().unescaped());
            let known = self.setting.servers.join(", ");
            let cure = format!("write Tool::\"<server>/<tool>\" and the like; servers: {known}");
            self.fault(spot.source, at, &what, &cure);
        }
    }

    fn unknown(&self, literal: &EntityUid) -> Option<String> {
        let id = literal.id().unescaped();
        let server = match kind::of(literal.type_name().basename()) {
            0 => return None,
            kind::GATEWAY => {
                return (id != GATEWAY)
                    .then(|| format!("{literal}: the one gateway is Gateway::\"gateway\""));
            }
            kind::SERVER => id,
            _ => match id.split_once('/') {
                Some((server, name)) if !name.is_empty() => server,
                _ => return Some(format!("{literal} does not say its server")),
            },
        };
        let Some(at) = self.servers.iter().position(|known| **known == *server) else {
            return Some(format!("{literal}: there is no [[server]] \"{server}\""));
        };
        let is_tool = kind::of(literal.type_name().basename()) == kind::TOOL;
        let tool = id.split_once('/').filter(|_| is_tool)?.1;
        (!self.declared.may_exist(at, tool))
            .then(|| format!("{literal}: schema.d knows all tools of \"{server}\", not this one"))
    }

    /// Strict validation; warnings are faults (DESIGN §6). The policy comes back alone in a set.
    fn validated(&mut self, spot: Spot<'_>, policy: &Policy) -> Option<cedar_policy::PolicySet> {
        let alone = match cedar_policy::PolicySet::from_policies([policy.clone()]) {
            Ok(alone) => alone,
            Err(error) => {
                let what = error.to_string();
                self.fault(spot.source, spot.statement.offset, &what, "correct the policy");
                return None;
            }
        };
        let result = self.validator.validate(&alone, ValidationMode::Strict);
        let cure = "see the schema, portcullis.cedarschema";
        for error in result.validation_errors() {
            self.cedar_fault(spot, &DetailedError::from(error), cure);
        }
        for warning in result.validation_warnings() {
            self.cedar_fault(spot, &DetailedError::from(warning), cure);
        }
        result.validation_passed_without_warnings().then_some(alone)
    }

    /// The credential of a permit. `None` after a fault.
    fn credential(
        &mut self,
        spot: Spot<'_>,
        policy: &Policy,
        place: &Place,
    ) -> Option<Option<u16>> {
        let Some(name) = policy.annotation("credential") else { return Some(None) };
        let (source, at) = (spot.source, spot.statement.annotation("credential"));
        if policy.effect() == Effect::Forbid {
            let cure = "move @credential to the permit";
            self.fault(source, at, "a forbid sends no credential", cure);
            return None;
        }
        let found = self.setting.credentials.iter().position(|known| known.name == name);
        let Some((index, known)) =
            found.and_then(|at| Some((u16::try_from(at).ok()?, self.setting.credentials.get(at)?)))
        else {
            let known: Vec<&str> = self.setting.credentials.iter().map(|one| one.name).collect();
            let cure = format!("configured are: {}", known.join(", "));
            let what = format!("there is no [[credential]] \"{name}\"");
            self.fault(source, at, &what, &cure);
            return None;
        };
        if place.kinds & kind::IN_SERVER == 0 {
            let what = "the gateway itself takes no credential";
            self.fault(source, at, what, "leave @credential out, or permit something in a server");
            return None;
        }
        // Pairing a credential with a server that it is not for is a fault here, so that no request
        // ever gets as far as the assertion before the header is written.
        let reached = (0..self.setting.servers.len()).filter_map(|at| u16::try_from(at).ok());
        let mut reached = reached.filter(|at| place.server.is_none_or(|only| only == *at));
        let Some(foreign) = reached.find(|at| !known.servers.contains(at)) else {
            return Some(Some(index));
        };
        let foreign = self.setting.servers.get(usize::from(foreign)).copied().unwrap_or_default();
        let what = format!("credential \"{name}\" is not for server \"{foreign}\"");
        let cure = "narrow the policy's scope with `resource in Server::\"…\"`, or add the server \
                    to the credential's `servers`";
        self.fault(source, at, &what, cure);
        None
    }

    fn numbers(&self, policy: &Policy) -> Vec<u16> {
        match policy.action_constraint() {
            ActionConstraint::Any => {
                (0..self.actions.len()).filter_map(|at| u16::try_from(at).ok()).collect()
            }
            ActionConstraint::In(listed) => self.actions.covered(&listed),
            ActionConstraint::Eq(one) => {
                self.actions.number(one.id().unescaped()).into_iter().collect()
            }
        }
    }
}

/// RFC 6749 §3.3, `scope-token`. An `acr` value stands in a list with spaces, too (RFC 9470 §3).
fn is_scope(value: &str) -> bool {
    let fits = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    (1..=STEP_BYTES_MAX).contains(&value.len()) && value.bytes().all(fits)
}

const REQUIRE_SCOPE: &str = "require_scope";
const REQUIRE_ACR: &str = "require_acr";
const MAX_AGE: &str = "max_age";
/// Annotation, what its policy must look at, and under which name.
const STEPS: [(&str, Mentions, &str); 3] = [
    (REQUIRE_SCOPE, Mentions::SCOPES, "scopes"),
    (REQUIRE_ACR, Mentions::ACR, "acr"),
    (MAX_AGE, Mentions::AUTH_TIME, "auth_time"),
];
/// Bytes of a scope or `acr` value.
const STEP_BYTES_MAX: usize = 256;
/// A year, in seconds.
const MAX_AGE_MAX: u64 = 31_536_000;

//! From the text of policies to a [`PolicySet`], or to everything that is wrong with it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{
    ActionConstraint, Effect, EntityUid, Policy, PolicyId, ValidationMode, Validator, pst,
};
use jiff::tz::TimeZone;

use super::arguments::{Declared, Plans};
use super::load::{Fault, Faults, Setting, Source, Sources};
use super::mentions::{self, Mentions};
use super::rule::{self, Core, GATEWAY, Names, Place, Rule, RulePlace};
use super::scanner::{self, Statement, Statements, Torn};
use super::schema::{self, Actions, Types, kind};
use super::{PolicySet, index, warnings};
use crate::limits::{self, PLAN_FIELDS_MAX, POLICY_NAMES_KEPT_MAX};

/// Checks everything, and compiles it when nothing is wrong. Policies that `before` holds word for
/// word, under the same setting, are taken from there; `pause` is called often.
pub(super) fn compile<'a>(
    before: Option<&'a PolicySet>,
    sources: &'a Sources,
    directory: &Path,
    setting: &'a Setting<'a>,
    pause: &mut dyn FnMut(),
) -> Result<PolicySet, Vec<Fault>> {
    let outside = |what: String, cure: &str| {
        let (file, cure) = (directory.to_owned(), cure.to_owned());
        vec![Fault { file, line: 1, column: 1, what, cure }]
    };
    let zone = TimeZone::get(setting.timezone)
        .map_err(|error| outside(error.to_string(), "set policy.timezone to an IANA zone name"))?;
    let mut faults = Faults::default();
    let declared = declared(before, sources, setting, &mut faults, pause);
    let build = |arguments: &str| {
        let schema = schema::build(setting.methods, arguments);
        schema.map_err(|error| outside(error, "rename the [[method]] that the schema cannot hold"))
    };
    let schema = build("{}")?;
    let asked = declared.asked(sources, setting.servers, pause);
    let on_arguments = Validator::new(build(&declared.cedar_type(setting.servers, &asked))?);
    pause();
    let actions = Actions::new(&schema).map_err(|error| outside(error, "report this"))?;
    let types = Types::new().map_err(|error| outside(error, "report this"))?;
    let basis = Basis::of(setting, declared);
    let before =
        before.filter(|set| set.basis == basis && set.names.len() <= POLICY_NAMES_KEPT_MAX);
    let mut compiler = Compiler {
        setting,
        basis,
        validator: Validator::new(schema),
        on_arguments,
        asked,
        actions,
        // Numbers of names are in the policies that are taken over: they must stay.
        names: before.map(|set| set.names.clone()).unwrap_or_default(),
        known: before.map(PolicySet::by_text).unwrap_or_default(),
        rules: Vec::new(),
        ids: HashMap::new(),
        shadow: false,
        faults,
    };
    for (sources, shadow) in [(&sources.enforced, false), (&sources.shadow, true)] {
        compiler.shadow = shadow;
        sources.iter().for_each(|source| compiler.file(source, pause));
    }
    let plans = compiler.plans();
    if !compiler.faults.0.is_empty() {
        // One after another as they are read, not as they were found.
        let mut faults = compiler.faults.0;
        faults.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        return Err(faults);
    }
    let Compiler { basis, actions, names, rules, .. } = compiler;
    Ok(PolicySet {
        epoch: setting.epoch,
        index: index::Index::new(&rules, &actions, basis.servers.len(), pause),
        warnings: warnings::find(&rules, &actions, pause),
        authorizer: cedar_policy::Authorizer::new(),
        rules,
        names,
        actions,
        types,
        basis,
        plans,
        zone,
    })
}

/// What `schema.d` says; taken from `before` when it said the same.
fn declared(
    before: Option<&PolicySet>,
    sources: &Sources,
    setting: &Setting<'_>,
    faults: &mut Faults,
    pause: &mut dyn FnMut(),
) -> Declared {
    let same = |set: &&PolicySet| {
        let servers = set.basis.servers.iter().map(|name| &**name);
        servers.eq(setting.servers.iter().copied()) && set.basis.declared.is_of(&sources.schemas)
    };
    match before.filter(same) {
        Some(set) => set.basis.declared.clone(),
        None => Declared::read(&sources.schemas, setting.servers, faults, pause),
    }
}

/// What policies are checked against, as far as the outcome depends on it: under an equal basis an
/// equal text is an equal policy.
#[derive(PartialEq, Eq)]
pub(super) struct Basis {
    /// Names of servers, by index.
    pub(super) servers: Vec<Box<str>>,
    /// Per credential its name, and the servers it may be sent to.
    pub(super) credentials: Vec<(Box<str>, Vec<u16>)>,
    methods: Vec<Box<str>>,
    geoip: bool,
    declared: Declared,
}

impl Basis {
    fn of(setting: &Setting<'_>, declared: Declared) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| Box::from(*name)).collect();
        let credentials = setting.credentials.iter();
        Self {
            servers: owned(setting.servers),
            credentials: credentials.map(|one| (one.name.into(), one.servers.to_vec())).collect(),
            methods: owned(setting.methods),
            geoip: setting.geoip,
            declared,
        }
    }
}

pub(super) struct Compiler<'a> {
    setting: &'a Setting<'a>,
    basis: Basis,
    validator: Validator,
    /// With the types of arguments: each costs every policy that it is shown to, so that only those
    /// which ask for arguments are checked against it.
    on_arguments: Validator,
    /// The tools whose types it has.
    asked: HashSet<String>,
    actions: Actions,
    names: Names,
    /// Policies of the set before, by their text.
    known: HashMap<&'a str, &'a Arc<Core>>,
    rules: Vec<Rule>,
    /// Where each id was seen first.
    ids: HashMap<String, Spot<'a>>,
    /// What is read now never decides.
    shadow: bool,
    faults: Faults,
}

/// A statement in its file.
#[derive(Clone, Copy)]
pub(super) struct Spot<'a> {
    pub(super) source: &'a Source,
    pub(super) statement: Statement<'a>,
}

impl<'a> Compiler<'a> {
    fn file(&mut self, source: &'a Source, pause: &mut dyn FnMut()) {
        let mut statements = Statements::new(&source.text);
        let file: Arc<Path> = Arc::from(source.path.as_path());
        let mut places = scanner::Places::new(&source.text);
        for statement in statements.by_ref() {
            if self.rules.len() >= limits::POLICIES_MAX {
                let what = format!("more than {} policies", limits::POLICIES_MAX);
                self.fault(source, statement.offset, &what, "join policies with lists or groups");
                return;
            }
            pause();
            let spot = Spot { source, statement };
            let Some(core) = self.taken_over(spot).or_else(|| self.statement(spot)) else {
                continue;
            };
            let ((line, column), file) = (places.at(statement.offset), Arc::clone(&file));
            let at = RulePlace { file, line, column, shadow: self.shadow, permits: core.permits };
            self.rules.push(Rule { at, core });
        }
        match statements.torn {
            Some(Torn::String(at)) => {
                self.fault(source, at, "this string never ends", "close it with a quote");
            }
            Some(Torn::Statement(at)) => {
                self.fault(source, at, "this policy never ends", "end it with a semicolon");
            }
            None => {}
        }
    }

    pub(super) fn fault(&mut self, source: &Source, offset: usize, what: &str, cure: &str) {
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

    /// The policy as the set before has it.
    fn taken_over(&mut self, spot: Spot<'a>) -> Option<Arc<Core>> {
        let core = self.known.get(spot.statement.text).copied()?;
        self.claim(spot, &core.id).then(|| Arc::clone(core))
    }

    /// Remembers whose the id is. False: it is taken.
    fn claim(&mut self, spot: Spot<'a>, id: &str) -> bool {
        let Some(first) = self.ids.get(id) else {
            self.ids.insert(id.to_owned(), spot);
            return true;
        };
        let (line, _) = scanner::place(&first.source.text, first.statement.annotation("id"));
        let first = first.source.path.display();
        let what = format!("@id \"{id}\" is taken by the policy at {first}:{line}");
        let at = spot.statement.annotation("id");
        self.fault(spot.source, at, &what, "give each policy its own @id");
        false
    }

    /// Checks a policy and compiles it. `None` after a fault.
    fn statement(&mut self, spot: Spot<'a>) -> Option<Arc<Core>> {
        let Spot { source, statement } = spot;
        if statement.text.len() > limits::POLICY_BYTES_MAX {
            let what = format!("a policy of more than {} bytes", limits::POLICY_BYTES_MAX);
            self.fault(source, statement.offset, &what, "split it");
            return None;
        }
        let depth = statement.depth();
        if depth.nesting > limits::POLICY_NESTING_MAX
            || depth.operators > limits::POLICY_OPERATORS_MAX
        {
            let (nesting, operators) = (limits::POLICY_NESTING_MAX, limits::POLICY_OPERATORS_MAX);
            let what =
                format!("a policy of more than {nesting} nested brackets or {operators} operators");
            let cure = "split it, or compare with a set: `[\"a\", \"b\"].contains(…)`";
            self.fault(source, statement.offset, &what, cure);
            return None;
        }
        let policy = match Policy::parse(None, statement.text) {
            Ok(policy) => policy,
            Err(errors) => {
                for error in errors.iter() {
                    self.cedar_fault(spot, &DetailedError::from(error), "correct the syntax");
                }
                return None;
            }
        };
        let before = self.faults.0.len();
        let id = self.id(spot, &policy);
        self.annotations(spot, &policy);
        self.literals(spot, &policy);
        let form = policy.to_pst().map_err(|error| error.to_string());
        let (read, condition) = match form.and_then(|form| Ok((mentions::read(&form), bare(form)?)))
        {
            Ok(read) => read,
            Err(what) => {
                self.fault(source, statement.offset, &what, "write it more simply");
                return None;
            }
        };
        self.context_use(spot, &read);
        let step_up = self.step_up(spot, &policy, read.mentions);
        if self.faults.0.len() > before {
            return None;
        }
        let policy = policy.new_id(PolicyId::new(&id));
        self.validated(spot, &policy, read.mentions)?;
        let place = rule::place(&policy, &self.basis.servers);
        let credential = self.credential(spot, &policy, &place)?;
        let permits = policy.effect() == Effect::Permit;
        for literal in policy.entity_literals() {
            self.names.learn(&literal);
        }
        Some(Arc::new(Core {
            id: Arc::from(id),
            permits,
            who: self.names.who(&policy),
            actions: self.numbers(&policy),
            place,
            credential,
            step_up,
            mentions: read.mentions,
            arguments: read.arguments,
            text: Box::from(statement.text),
            condition,
        }))
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
        self.claim(spot, id);
        id.to_owned()
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
            let mut checked = self.basis.declared.check(named, self.setting.servers);
            if let (Ok(()), Some(tool)) = (&checked, named.path.first())
                && !self.asked.contains(&**tool)
            {
                let what = format!("the name of tool \"{tool}\" has escapes in it");
                checked = Err((what, "write it as it is".to_owned()));
            }
            if let Err((what, cure)) = checked {
                let word = named.path.last().map_or("arguments", |word| word);
                self.fault(source, statement.word(word), &what, &cure);
            }
        }
    }

    /// Which arguments are read out of calls.
    fn plans(&mut self) -> Vec<Plans> {
        let at = match self.basis.declared.plans(&self.rules, self.setting.servers) {
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
        let Some(at) = self.basis.servers.iter().position(|known| **known == *server) else {
            return Some(format!("{literal}: there is no [[server]] \"{server}\""));
        };
        let is_tool = kind::of(literal.type_name().basename()) == kind::TOOL;
        let tool = id.split_once('/').filter(|_| is_tool)?.1;
        (!self.basis.declared.may_exist(at, tool))
            .then(|| format!("{literal}: schema.d knows all tools of \"{server}\", not this one"))
    }

    /// Strict validation; warnings are faults (DESIGN §6). `None` after a fault.
    fn validated(&mut self, spot: Spot<'_>, policy: &Policy, read: Mentions) -> Option<()> {
        let alone = match cedar_policy::PolicySet::from_policies([policy.clone()]) {
            Ok(alone) => alone,
            Err(error) => {
                let what = error.to_string();
                self.fault(spot.source, spot.statement.offset, &what, "correct the policy");
                return None;
            }
        };
        let asks = read.has(Mentions::ARGUMENTS);
        let validator = if asks { &self.on_arguments } else { &self.validator };
        let result = validator.validate(&alone, ValidationMode::Strict);
        let cure = "see the schema, portcullis.cedarschema";
        for error in result.validation_errors() {
            self.cedar_fault(spot, &DetailedError::from(error), cure);
        }
        for warning in result.validation_warnings() {
            self.cedar_fault(spot, &DetailedError::from(warning), cure);
        }
        result.validation_passed_without_warnings().then_some(())
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

/// The conditions of a policy without its scope, which is matched here: Cedar needs no entities
/// for it then. `None` when there are none.
fn bare(form: pst::Policy) -> Result<Option<cedar_policy::PolicySet>, String> {
    let body = form.body();
    if body.clauses().is_empty() {
        return Ok(None);
    }
    let (principal, action) = (pst::PrincipalConstraint::Any, pst::ActionConstraint::Any);
    let resource = pst::ResourceConstraint::Any;
    let bare = pst::Template::new(body.id.clone(), body.effect, principal, action, resource);
    let bare = bare.try_with_clauses(body.clauses().iter().cloned());
    let bare = pst::StaticPolicy::try_from(bare.map_err(|error| error.to_string())?);
    let bare = bare.map_err(|error| error.to_string())?;
    let bare = Policy::from_pst(bare.into()).map_err(|error| error.to_string())?;
    let alone = cedar_policy::PolicySet::from_policies([bare]);
    alone.map(Some).map_err(|error| error.to_string())
}

//! The decision on one question: scopes matched in numbers, conditions by Cedar.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use cedar_policy::{
    Context as CedarContext, Entities, Entity, EntityUid, Request, RestrictedExpression,
};
use jiff::{Timestamp, civil};

use super::index::Bucket;
use super::mentions::Mentions;
use super::rule::{Asker, GATEWAY, Rule};
use super::schema::uid;
use super::{Context, Mode, PolicySet, QTarget, Question, Slice};
use crate::address::Country;
use crate::clock::UnixSeconds;
use crate::mcp::{Item, Items};

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is permitted. With an ambiguous credential nothing may be sent all the same.
    pub allow: bool,
    /// Ids of the determining policies, in the order of the files: all satisfied permits, or all
    /// satisfied forbids, or those that failed to evaluate; none when nothing permits.
    pub policies: Rc<[Arc<str>]>,
    /// Which credential the satisfied permits name.
    pub credential: CredentialChoice,
    /// A forbid holds.
    pub forbidden: bool,
    /// A condition failed to evaluate, which denies.
    pub error: bool,
    /// What few verdicts have to say; `None` on the usual way.
    pub more: Option<Rc<More>>,
}

/// What few verdicts have to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct More {
    /// Denied, and this would do.
    pub step_up: Option<StepUp>,
    /// Ids of the shadow policies that would have denied what is permitted.
    pub would_deny: Rc<[Arc<str>]>,
    /// Denied because an argument has a value that policies cannot hold.
    pub unrepresentable: bool,
}

/// What a caller lacks (RFC 6750 §3.1, RFC 9470 §3). Lists are sorted, without repetitions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepUp {
    /// Scopes that are needed, all of them.
    pub scopes: Vec<Arc<str>>,
    /// Authentication context classes that are needed.
    pub acr: Vec<Arc<str>>,
    /// Oldest login that would do, in seconds.
    pub max_age: Option<u64>,
}

impl StepUp {
    /// Everything that either needs, in one.
    pub fn join(&mut self, other: &Self) {
        fn union(mine: &mut Vec<Arc<str>>, theirs: &[Arc<str>]) {
            mine.extend_from_slice(theirs);
            mine.sort_unstable();
            mine.dedup();
        }
        union(&mut self.scopes, &other.scopes);
        union(&mut self.acr, &other.acr);
        self.max_age = [self.max_age, other.max_age].into_iter().flatten().min();
    }
}

/// What the satisfied permits say about the credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialChoice {
    /// None is named: the server's own.
    Default,
    /// One is named: index in the configuration.
    Named(u16),
    /// Different ones are named.
    Ambiguous,
}

impl Verdict {
    /// Denied because nothing permits it.
    #[must_use]
    pub fn by_default() -> Self {
        Self {
            allow: false,
            policies: Rc::from([]),
            credential: CredentialChoice::Default,
            forbidden: false,
            error: false,
            more: None,
        }
    }
}

impl PolicySet {
    /// Decides `question`; no cache.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Verdict {
        match self.slice(question) {
            Some(slice) => self.judge(&slice, question),
            None => Verdict::by_default(),
        }
    }

    /// Decides `question` by its slice.
    #[must_use]
    pub fn judge(&self, slice: &Slice<'_>, question: &Question<'_>) -> Verdict {
        if question.mode != Mode::Call {
            return self.judge_shown(slice, question);
        }
        let asker = self.names.asker(question.subject);
        let mut conditions = Conditions::new(self, slice, question);
        let forbids = self.applicable(slice, &asker, question.target, |bucket| &bucket.forbids);
        if question.context.arguments.unrepresentable() {
            let permits = self.applicable(slice, &asker, question.target, |bucket| &bucket.permits);
            let asks = |rule: &&&Rule| rule.mentions.has(Mentions::ARGUMENTS);
            let blind: Vec<&Rule> = forbids.iter().chain(&permits).filter(asks).copied().collect();
            if !blind.is_empty() {
                let more = Some(Rc::new(More { unrepresentable: true, ..More::default() }));
                return Verdict { policies: ids(&blind), more, ..Verdict::by_default() };
            }
        }
        let (holding, failed) = conditions.sort(forbids);
        let lifted = || holding.iter().all(|rule| rule.step_up.is_some()) && failed.is_empty();
        let forbidden = !holding.is_empty();
        let may_step_up = forbidden && lifted();
        if forbidden && !may_step_up {
            let error = !failed.is_empty();
            return Verdict { policies: ids(&holding), forbidden, error, ..Verdict::by_default() };
        }
        let permits = self.applicable(slice, &asker, question.target, |bucket| &bucket.permits);
        let (granting, failed_permits) = conditions.sort(permits);
        if may_step_up {
            // Only who would be let in then is told what is missing (DESIGN §6).
            let sound = failed_permits.is_empty() && !granting.is_empty();
            let would_do = sound && choose(&granting) != CredentialChoice::Ambiguous;
            let more = would_do.then(|| Rc::new(lacking(&holding)));
            return Verdict { policies: ids(&holding), forbidden, more, ..Verdict::by_default() };
        }
        let failed = if failed.is_empty() { failed_permits } else { failed };
        if !failed.is_empty() {
            return Verdict { policies: ids(&failed), error: true, ..Verdict::by_default() };
        }
        if granting.is_empty() {
            return Verdict::by_default();
        }
        let credential = choose(&granting);
        let has_shadows = slice.buckets.iter().flatten().any(|bucket| !bucket.shadows.is_empty());
        let more = if has_shadows {
            let shadows = self.applicable(slice, &asker, question.target, |bucket| &bucket.shadows);
            // What they look at may have a value that cannot be expressed: theirs to fail by.
            would_deny(&mut Conditions::of_shadows(self, slice, question), shadows, &granting)
        } else {
            None
        };
        let policies = ids(&granting);
        Verdict { allow: true, policies, credential, more, ..Verdict::by_default() }
    }

    /// Policies of one kind whose whole scope matches, in the order of the files.
    pub(super) fn applicable(
        &self,
        slice: &Slice<'_>,
        asker: &Asker,
        target: QTarget<'_>,
        list: impl Fn(&Bucket) -> &[u32],
    ) -> Vec<&Rule> {
        let name = target.name();
        let mut found: Vec<u32> = Vec::new();
        for bucket in slice.buckets.iter().flatten() {
            let fits = |rule: &Rule| slice.fits(rule, asker, name);
            found.extend(list(bucket).iter().filter(|at| self.rule(**at).is_some_and(fits)));
        }
        found.sort_unstable();
        found.iter().filter_map(|at| self.rule(*at)).collect()
    }

    pub(super) fn rule(&self, at: u32) -> Option<&Rule> {
        self.rules.get(at as usize)
    }

    /// Wall time in the configured zone. `None` for a time that no calendar holds.
    pub(super) fn local(&self, now: UnixSeconds) -> Option<civil::DateTime> {
        Some(self.zone.to_datetime(timestamp(now.0)?))
    }
}

impl<'a> QTarget<'a> {
    /// The name of the tool or prompt, or the URI of the resource.
    #[must_use]
    pub fn name(self) -> Option<&'a str> {
        match self {
            Self::Gateway | Self::Server => None,
            Self::Prompt(name) | Self::Resource(name) | Self::Tool(name) => Some(name),
        }
    }
}

/// Evaluates conditions; what Cedar needs is built when the first condition needs it.
pub(super) struct Conditions<'q> {
    set: &'q PolicySet,
    slice: &'q Slice<'q>,
    question: &'q Question<'q>,
    /// What the conditions look at.
    read: Mentions,
    built: Option<Option<(Request, Entities)>>,
}

impl<'q> Conditions<'q> {
    pub(super) fn new(
        set: &'q PolicySet,
        slice: &'q Slice<'q>,
        question: &'q Question<'q>,
    ) -> Self {
        Self { set, slice, question, read: slice.mentions, built: None }
    }

    /// The same for shadow policies.
    pub(super) fn of_shadows(
        set: &'q PolicySet,
        slice: &'q Slice<'q>,
        question: &'q Question<'q>,
    ) -> Self {
        Self { read: slice.to_shadows, ..Self::new(set, slice, question) }
    }

    /// Those of `rules` that hold, and those that failed.
    pub(super) fn sort<'r>(&mut self, rules: Vec<&'r Rule>) -> (Vec<&'r Rule>, Vec<&'r Rule>) {
        let (mut holding, mut failed) = (Vec::new(), Vec::new());
        for rule in rules {
            match self.holds(rule) {
                Some(true) => holding.push(rule),
                Some(false) => {}
                None => failed.push(rule),
            }
        }
        (holding, failed)
    }

    pub(super) fn holds(&mut self, rule: &Rule) -> Option<bool> {
        let Some(alone) = &rule.condition else { return Some(true) };
        let (set, request, entities) = self.question_built()?;
        let response = set.authorizer.is_authorized(request, alone, entities);
        // Cedar skips a policy that fails; here it decides (DESIGN §6).
        if response.diagnostics().errors().next().is_some() {
            return None;
        }
        // A determining policy is one that holds, permit or forbid alike.
        Some(response.diagnostics().reason().next().is_some())
    }
}

impl Conditions<'_> {
    /// What Cedar needs. `None`: a value cannot be expressed.
    pub(super) fn question_built(&mut self) -> Option<(&PolicySet, &Request, &Entities)> {
        let (set, action, question) = (self.set, self.slice.action, self.question);
        let built =
            self.built.get_or_insert_with(|| set.cedar_question(action, self.read, question));
        built.as_ref().map(|(request, entities)| (set, request, entities))
    }
}

impl PolicySet {
    fn cedar_question(
        &self,
        action: u16,
        mentions: Mentions,
        question: &Question<'_>,
    ) -> Option<(Request, Entities)> {
        let action = self.actions.entity(action)?;
        let (principal, resource) = (self.principal(question), self.resource(question));
        // Only what conditions look at: what is in what would be computed anew for each question.
        let read = |some| mentions.has(some);
        let mut entities = Vec::new();
        // A workload has no groups.
        if read(Mentions::PRINCIPAL) && question.subject.user.is_some() {
            let groups = self.names.known_groups(question.subject);
            let parents = groups.map(|group| uid(&self.types.group, group)).collect();
            entities.push(Entity::new_no_attrs(principal.clone(), parents));
        }
        if let (true, Some((_, server))) = (read(Mentions::RESOURCE), question.server)
            && question.target.name().is_some()
        {
            let parents = HashSet::from([uid(&self.types.server, server)]);
            entities.push(Entity::new_no_attrs(resource.clone(), parents));
        }
        if read(Mentions::ACTION) {
            entities.push(action.clone());
        }
        let entities = if entities.is_empty() {
            Entities::empty()
        } else {
            Entities::from_entities(entities, None).ok()?
        };
        let context = self.cedar_context(mentions, question)?;
        let request = Request::new(principal, action.uid(), resource, context, None).ok()?;
        Some((request, entities))
    }

    fn principal(&self, question: &Question<'_>) -> EntityUid {
        match question.subject.user {
            Some(user) => uid(&self.types.user, user),
            None => uid(&self.types.agent, question.subject.agent),
        }
    }

    fn resource(&self, question: &Question<'_>) -> EntityUid {
        let types = &self.types;
        let server = question.server.map_or("", |(_, name)| name);
        let (entity_type, name) = match question.target {
            QTarget::Gateway => return uid(&types.gateway, GATEWAY),
            QTarget::Server => return uid(&types.server, server),
            QTarget::Tool(name) => (&types.tool, name),
            QTarget::Prompt(name) => (&types.prompt, name),
            QTarget::Resource(uri) => (&types.resource, uri),
        };
        // A server's name has no slash in it, so two pairs never make one id.
        let mut id = String::with_capacity(server.len() + 1 + name.len());
        id.push_str(server);
        id.push('/');
        id.push_str(name);
        uid(entity_type, &id)
    }

    /// Only what is mentioned; the rest cannot be seen by any of the policies. `None` when a
    /// value that is mentioned cannot be expressed, which denies.
    fn cedar_context(&self, read: Mentions, question: &Question<'_>) -> Option<CedarContext> {
        let Question { subject, context, .. } = *question;
        let mut pairs: Vec<(String, RestrictedExpression)> = Vec::with_capacity(8);
        let mut put = |name: &str, value| pairs.push((name.to_owned(), value));
        if read.has(Mentions::AGENT) {
            let agent = uid(&self.types.agent, subject.agent);
            put("agent", RestrictedExpression::new_entity_uid(agent));
        }
        if read.has(Mentions::SCOPES) {
            let scopes = subject.scopes.iter().map(|one| text(one));
            put("scopes", RestrictedExpression::new_set(scopes));
        }
        if let (true, Some(acr)) = (read.has(Mentions::ACR), subject.acr) {
            put("acr", text(acr));
        }
        if let (true, Some(at)) = (read.has(Mentions::AUTH_TIME), subject.auth_time) {
            put("auth_time", datetime(at)?);
        }
        if read.has(Mentions::SOURCE.and(Mentions::COUNTRY)) {
            let ip = || RestrictedExpression::new_ip(context.client_ip().to_string());
            let ip = read.has(Mentions::SOURCE).then(|| ("ip", ip()));
            let country = context.country.as_ref().filter(|_| read.has(Mentions::COUNTRY));
            let country = country.map(|country| ("country", text(Country::as_str(country))));
            put("source", record(ip.into_iter().chain(country))?);
        }
        if read.has(Mentions::NOW) {
            put("now", datetime(context.now.0)?);
        }
        if read.has(Mentions::LOCAL) {
            let (weekday, minute) = clock_face(self.local(context.now)?);
            let long = |value| RestrictedExpression::new_long(i64::from(value));
            let fields = [("weekday", long(weekday)), ("minute_of_day", long(minute))];
            put("local", record(fields)?);
        }
        if let (true, Some(revision)) = (read.has(Mentions::REVISION), context.revision) {
            put("revision", text(revision));
        }
        if read.has(Mentions::ARGUMENTS) {
            put("arguments", arguments(question)?);
        }
        CedarContext::from_pairs(pairs).ok()
    }
}

impl Context<'_> {
    /// The client's address, IPv4-mapped forms as IPv4: `::ffff:10.0.0.1` must not slip past a
    /// policy that names `10.0.0.0/8` (RFC 4291 §2.5.5.2).
    pub(super) fn client_ip(&self) -> IpAddr {
        self.source_ip.to_canonical()
    }
}

/// ISO weekday, 1 = Monday, and minute of the day.
pub(super) fn clock_face(local: civil::DateTime) -> (u16, u16) {
    let weekday = local.weekday().to_monday_one_offset().unsigned_abs();
    let hour = local.hour().unsigned_abs();
    let minute = local.minute().unsigned_abs();
    (u16::from(weekday), u16::from(hour) * 60 + u16::from(minute))
}

fn ids(rules: &[&Rule]) -> Rc<[Arc<str>]> {
    rules.iter().map(|rule| Arc::clone(&rule.id)).collect()
}

/// Which shadow policies would have denied what `granting` permits: forbids that hold, whatever
/// fails to evaluate, and permits that would make the credential ambiguous.
fn would_deny(
    conditions: &mut Conditions<'_>,
    shadows: Vec<&Rule>,
    granting: &[&Rule],
) -> Option<Rc<More>> {
    // What could not be read would deny, once these decide.
    let doubtful = conditions.question.context.arguments.unrepresentable_to_shadows();
    let (blind, shadows): (Vec<&Rule>, Vec<&Rule>) =
        shadows.into_iter().partition(|rule| doubtful && rule.mentions.has(Mentions::ARGUMENTS));
    let (holding, failed) = conditions.sort(shadows);
    let ambiguous = |rule: &Rule| {
        let both: Vec<&Rule> = granting.iter().copied().chain([rule]).collect();
        choose(&both) == CredentialChoice::Ambiguous && choose(granting) != choose(&both)
    };
    let mut denying: Vec<&Rule> = holding;
    denying.retain(|rule| !rule.permits || ambiguous(rule));
    denying.extend(failed);
    denying.extend(blind);
    let would_deny = ids(&denying);
    (!would_deny.is_empty()).then(|| Rc::new(More { would_deny, ..More::default() }))
}

/// Everything that would lift `forbids`.
fn lacking(forbids: &[&Rule]) -> More {
    let mut all = StepUp::default();
    forbids.iter().filter_map(|rule| rule.step_up.as_ref()).for_each(|one| all.join(one));
    More { step_up: Some(all), ..More::default() }
}

fn choose(granting: &[&Rule]) -> CredentialChoice {
    let mut named = granting.iter().filter_map(|rule| rule.credential);
    match named.next() {
        None => CredentialChoice::Default,
        Some(first) if named.all(|other| other == first) => CredentialChoice::Named(first),
        Some(_) => CredentialChoice::Ambiguous,
    }
}

/// What a call was given of its tool's planned arguments, under the name of the tool; nothing for
/// everything else.
fn arguments(question: &Question<'_>) -> Option<RestrictedExpression> {
    let (Some((_, server)), QTarget::Tool(tool), true) =
        (question.server, question.target, question.context.arguments.planned())
    else {
        return record([]);
    };
    let given = members(&mut question.context.arguments.items())?;
    let tool = format!("{server}/{tool}");
    record([(tool.as_str(), RestrictedExpression::new_record(given).ok()?)])
}

/// The items up to the end of their record. Its depth is that of a plan, which is bounded.
fn members(items: &mut Items<'_>) -> Option<HashMap<String, RestrictedExpression>> {
    let mut found = HashMap::new();
    while let Some(item) = items.next() {
        let Some((name, value)) = value(item, items) else {
            return (item == Item::End).then_some(found);
        };
        found.insert(name.to_owned(), value);
    }
    Some(found)
}

/// An item with what belongs to it; `None` for an end.
fn value<'a>(item: Item<'a>, items: &mut Items<'a>) -> Option<(&'a str, RestrictedExpression)> {
    Some(match item {
        Item::Bool(name, value) => (name, RestrictedExpression::new_bool(value)),
        Item::Long(name, value) => (name, RestrictedExpression::new_long(value)),
        Item::Text(name, value) => (name, text(value)),
        Item::Set(name) => {
            let mut found = Vec::new();
            while let Some((_, member)) = items.next().and_then(|item| value(item, items)) {
                found.push(member);
            }
            (name, RestrictedExpression::new_set(found))
        }
        Item::Record(name) => (name, RestrictedExpression::new_record(members(items)?).ok()?),
        Item::End => return None,
    })
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn record<'a>(
    fields: impl IntoIterator<Item = (&'a str, RestrictedExpression)>,
) -> Option<RestrictedExpression> {
    let fields: HashMap<String, _> =
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    RestrictedExpression::new_record(fields).ok()
}

fn timestamp(seconds: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

fn datetime(seconds: u64) -> Option<RestrictedExpression> {
    Some(RestrictedExpression::new_datetime(timestamp(seconds)?.to_string()))
}

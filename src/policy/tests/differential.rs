//! Slices, cache, reloads and the moved clock against Cedar's own answer over the whole set.
//!
//! The other side knows nothing of slices, keys, plans or scopes in numbers: Cedar gets every
//! policy, every entity and the whole context by way of JSON, checked against the schema, and only
//! what the design adds to Cedar's own answer is computed here.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy as cedar;

use super::super::*;
use super::lines::{Asker, CREDENTIALS, Line, looks_at, sound};
use crate::clock::UnixSeconds;
use crate::judge::policy::SCHEMA;
use crate::judge::policy::tests::random::{
    Dice, GITHUB, GIVEN, NOW, Planned, QUESTIONS, TYPES, What, entities, uid,
};
use crate::mcp::{Arguments, Call};

/// The same minute, one second on, the next minute, Saturday.
const MOMENTS: [u64; 5] = [NOW, NOW, NOW + 1, NOW + 60, NOW + 5 * 86_400];

/// What both sides are compared by.
#[derive(Debug, PartialEq, Eq, Default)]
struct Told {
    allow: bool,
    forbidden: bool,
    error: bool,
    unrepresentable: bool,
    ids: BTreeSet<String>,
    ambiguous: bool,
    credential: Option<u16>,
    step_up: Option<StepUp>,
    would_deny: BTreeSet<String>,
}

impl Told {
    fn of(verdict: &Verdict) -> Self {
        let names = |ids: &[Arc<str>]| ids.iter().map(ToString::to_string).collect();
        let more = verdict.more.as_deref();
        Self {
            allow: verdict.allow,
            forbidden: verdict.forbidden,
            error: verdict.error,
            unrepresentable: more.is_some_and(|more| more.unrepresentable),
            ids: names(&verdict.policies),
            ambiguous: verdict.credential == CredentialChoice::Ambiguous,
            credential: match verdict.credential {
                CredentialChoice::Named(at) => Some(at),
                CredentialChoice::Default | CredentialChoice::Ambiguous => None,
            },
            step_up: more.and_then(|more| more.step_up.clone()),
            would_deny: more.map(|more| names(&more.would_deny)).unwrap_or_default(),
        }
    }
}

/// Cedar with everything there is.
struct Whole<'l> {
    schema: &'l cedar::Schema,
    lines: &'l [Line],
    permits: cedar::PolicySet,
    forbids: cedar::PolicySet,
    shadows: cedar::PolicySet,
    /// The scopes alone.
    heads: cedar::PolicySet,
    listed_permits: cedar::PolicySet,
    listed_forbids: cedar::PolicySet,
}

/// Ids that hold, and ids that failed.
type Held = (BTreeSet<String>, BTreeSet<String>);

impl<'l> Whole<'l> {
    fn new(schema: &'l cedar::Schema, lines: &'l [Line]) -> Self {
        let set = |keep: &dyn Fn(&Line) -> Option<String>| {
            let mut set = cedar::PolicySet::new();
            for line in lines {
                if let Some(text) = keep(line) {
                    let policy = cedar::Policy::parse(None, text).unwrap();
                    set.add(policy.new_id(cedar::PolicyId::new(&line.id))).unwrap();
                }
            }
            set
        };
        let whole = |line: &Line| line.text(line.condition);
        let enforced = |line: &Line, permits: bool| !line.shadow && line.permits == permits;
        Self {
            schema,
            lines,
            permits: set(&|line| enforced(line, true).then(|| whole(line))),
            forbids: set(&|line| enforced(line, false).then(|| whole(line))),
            shadows: set(&|line| line.shadow.then(|| whole(line))),
            heads: set(&|line| Some(line.text(""))),
            listed_permits: set(&|line| {
                let text = if line.at_call_time() { line.text("") } else { whole(line) };
                enforced(line, true).then_some(text)
            }),
            listed_forbids: set(&|line| {
                (enforced(line, false) && !line.at_call_time()).then(|| whole(line))
            }),
        }
    }

    fn line(&self, id: &str) -> &Line {
        self.lines.iter().find(|line| line.id == id).unwrap()
    }

    fn ask(&self, set: &cedar::PolicySet, asked: &(cedar::Request, cedar::Entities)) -> Held {
        // Permits and forbids apart: Cedar names those that hold only of the side that decides.
        let (mut held, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for effect in [cedar::Effect::Permit, cedar::Effect::Forbid] {
            let of = set.policies().filter(|policy| policy.effect() == effect).cloned();
            let of = cedar::PolicySet::from_policies(of).unwrap();
            let response = cedar::Authorizer::new().is_authorized(&asked.0, &of, &asked.1);
            held.extend(response.diagnostics().reason().map(ToString::to_string));
            failed.extend(response.diagnostics().errors().map(|error| match error {
                cedar::AuthorizationError::PolicyEvaluationError(error) => {
                    error.policy_id().to_string()
                }
            }));
        }
        (held, failed)
    }

    fn chosen<'a>(&self, held: impl IntoIterator<Item = &'a String>) -> BTreeSet<u16> {
        let mut chosen = BTreeSet::new();
        for id in held {
            for (at, credential) in (0..).zip(CREDENTIALS) {
                if self.line(id).annotations.contains(credential.name) {
                    chosen.insert(at);
                }
            }
        }
        chosen
    }

    fn call(&self, asked: &(cedar::Request, cedar::Entities), doubtful: &[&str]) -> Told {
        let plain = Told::default();
        let asks = |shadows: bool| {
            let mut lines = self.lines.iter().filter(|line| shadows || !line.shadow);
            lines.any(|line| doubtful.iter().any(|argument| line.asks_for(argument)))
        };
        let applies = self.ask(&self.heads, asked).0;
        let blind = |shadow: bool| -> BTreeSet<String> {
            let asks =
                |line: &&Line| line.shadow == shadow && looks_at(line.condition, "arguments");
            let ids = self.lines.iter().filter(asks).map(|line| line.id.clone());
            ids.filter(|id| applies.contains(id)).collect()
        };
        if asks(false) && !blind(false).is_empty() {
            return Told { unrepresentable: true, ids: blind(false), ..plain };
        }
        let (forbidding, failed) = self.ask(&self.forbids, asked);
        let (granting, failed_permits) = self.ask(&self.permits, asked);
        let chosen = self.chosen(&granting);
        if !forbidding.is_empty() {
            let lifted = |id: &String| !self.line(id).annotations.is_empty();
            let would_do = forbidding.iter().all(lifted)
                && failed.is_empty()
                && failed_permits.is_empty()
                && !granting.is_empty()
                && chosen.len() < 2;
            let step_up = would_do.then(|| self.lacking(&forbidding));
            let error = !failed.is_empty();
            return Told { forbidden: true, error, ids: forbidding, step_up, ..plain };
        }
        let failed = if failed.is_empty() { failed_permits } else { failed };
        if !failed.is_empty() {
            return Told { error: true, ids: failed, ..plain };
        }
        if granting.is_empty() {
            return plain;
        }
        let blind = if asks(true) { blind(true) } else { BTreeSet::new() };
        let (held, failed) = self.ask(&self.shadows, asked);
        let denies = |id: &&String| {
            let both = self.chosen(granting.iter().chain([*id]));
            !self.line(id).permits || (both.len() > 1 && chosen.len() < 2)
        };
        let mut would_deny: BTreeSet<String> =
            held.iter().filter(|id| !blind.contains(*id)).filter(denies).cloned().collect();
        would_deny.extend(failed);
        would_deny.extend(blind);
        Told {
            allow: true,
            ids: granting,
            ambiguous: chosen.len() > 1,
            credential: chosen.first().copied().filter(|_| chosen.len() == 1),
            would_deny,
            ..plain
        }
    }

    fn lacking(&self, forbidding: &BTreeSet<String>) -> StepUp {
        let has = |what: &str| forbidding.iter().any(|id| self.line(id).annotations.contains(what));
        StepUp {
            scopes: has("@require_scope").then(|| Arc::from("write")).into_iter().collect(),
            acr: has("@require_acr").then(|| Arc::from("gold")).into_iter().collect(),
            max_age: has("@max_age").then_some(3600),
        }
    }

    fn list(&self, asked: &(cedar::Request, cedar::Entities)) -> Told {
        let (forbidding, failed) = self.ask(&self.listed_forbids, asked);
        let (forbidden, error) = (!forbidding.is_empty(), !failed.is_empty());
        if forbidden || error {
            return Told { forbidden, error, ..Told::default() };
        }
        let (granting, failed) = self.ask(&self.listed_permits, asked);
        let allow = !granting.is_empty();
        Told { allow, error: !allow && !failed.is_empty(), ..Told::default() }
    }
}

/// Cedar's question, with all entities and the whole context, checked against the schema.
fn asked(
    schema: &cedar::Schema,
    question: &Question<'_>,
    asker: &Asker,
    given: Option<&str>,
) -> (cedar::Request, cedar::Entities) {
    let [principal, resource] = entities(question);
    let now = jiff::Timestamp::from_second(i64::try_from(question.context.now.0).unwrap()).unwrap();
    let local = now.in_tz("Europe/Berlin").unwrap();
    let time = |at: jiff::Timestamp| serde_json::json!({ "__extn": { "fn": "datetime", "arg": at.to_string() } });
    let ip = asker.source_ip.strip_prefix("::ffff:").unwrap_or(asker.source_ip);
    let mut json = serde_json::json!({
        "agent": { "type": "Agent", "id": asker.agent },
        "scopes": asker.scopes,
        "source": { "ip": { "__extn": { "fn": "ip", "arg": ip } } },
        "now": time(now),
        "local": {
            "weekday": local.weekday().to_monday_one_offset(),
            "minute_of_day": i32::from(local.hour()) * 60 + i32::from(local.minute()),
        },
        "arguments": {},
    });
    if let Some(country) = &asker.country {
        json["source"]["country"] = country.as_str().into();
    }
    if let Some(acr) = asker.acr {
        json["acr"] = acr.into();
    }
    if let Some(at) = asker.auth_time {
        json["auth_time"] = time(jiff::Timestamp::from_second(i64::try_from(at).unwrap()).unwrap());
    }
    if let Some(revision) = asker.revision {
        json["revision"] = revision.into();
    }
    if let Some(given) = given {
        json["arguments"]["github/get"] = serde_json::from_str(given).unwrap();
    }
    let action = uid("Action", question.action);
    let context = cedar::Context::from_json_value(json, Some((schema, &action))).unwrap();
    let (who, what) = (principal.uid(), resource.uid());
    let request = cedar::Request::new(who, action, what, context, Some(schema)).unwrap();
    let entities = cedar::Entities::from_entities([principal, resource], Some(schema)).unwrap();
    (request, entities)
}

fn schema() -> cedar::Schema {
    let arguments = format!("type Arguments = {TYPES};");
    let text = SCHEMA.replace("type Arguments = {};", &arguments)
        + "action \"com.example/thing\" in [\"extension\"] appliesTo \
           { principal: [User, Agent], resource: [Server], context: Asked };";
    cedar::Schema::from_cedarschema_str(&text).unwrap().0
}

/// One question to both sides.
fn compare(
    enforcer: &Enforcer,
    set: &PolicySet,
    whole: &Whole<'_>,
    asker: &Asker,
    (action, server, target): What,
    (now, mode): (u64, Mode),
) -> (Told, String) {
    let mut call = Call::new();
    let is_get = server == GITHUB && target == QTarget::Tool("get");
    let (sent, held, doubtful) = GIVEN[asker.given];
    let is_call = is_get && mode == Mode::Call;
    if is_call {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get","arguments":{sent}}}}}"#
        );
        call.read_by(body.as_bytes(), &Planned(set)).unwrap();
    }
    let context = Context {
        source_ip: asker.source_ip.parse().unwrap(),
        country: asker.country,
        now: UnixSeconds(now),
        revision: asker.revision,
        arguments: if is_call { call.arguments() } else { Arguments::NONE },
    };
    let subject = asker.subject();
    let question = Question { subject: &subject, action, server, target, context: &context, mode };
    let ours = Told::of(&enforcer.decide(set, &question));
    let cedars = asked(whole.schema, &question, asker, is_call.then_some(held));
    let doubtful = if is_call { doubtful } else { &[] };
    let theirs = match mode {
        Mode::List => whole.list(&cedars),
        Mode::Call | Mode::Template => whole.call(&cedars, doubtful),
    };
    let lines = whole.lines.iter().map(|line| {
        let mark = if line.shadow { "shadow " } else { "" };
        format!("{mark}{}\n", line.text(line.condition))
    });
    let note = || format!("{question:?} {sent}\n{}", lines.collect::<String>());
    let note = if ours == theirs { String::new() } else { note() };
    assert_eq!(ours, theirs, "{note}");
    let kind = match mode {
        Mode::List => "list",
        Mode::Call | Mode::Template => "call",
    };
    (ours, kind.to_owned())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long the test runs, and from where")]
fn whatever_is_sliced_and_cached_is_what_the_whole_set_says() {
    let full = std::env::var("CI").is_ok_and(|value| value == "true");
    let (questions, schema) = (if full { 100_000 } else { 10_000 }, schema());
    let seed = std::env::var("PORTCULLIS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(0x9E37_79B9_7F4A_7C15);
    println!("seed {seed} (PORTCULLIS_SEED), {questions} questions");
    let (mut dice, mut asked, mut epoch) = (Dice(seed.max(1)), 0, 0);
    // Small, so that decisions are driven out as well.
    let enforcer = Enforcer::new(512);
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    while asked < questions {
        let size = 1 + dice.roll(60);
        let mut lines: Vec<Line> = (0..size).map(|at| Line::new(&mut dice, at)).collect();
        // A permit for everything, so that a set is never empty.
        let (annotations, head) = (String::new(), "principal is User, action, resource".to_owned());
        let id = "all".to_owned();
        lines.push(Line { id, shadow: false, permits: true, annotations, head, condition: "" });
        let mut before: Option<PolicySet> = None;
        for reload in 0..3 {
            epoch += 1;
            let set = sound(before.as_ref(), &mut lines, epoch);
            let whole = Whole::new(&schema, &lines);
            let askers: Vec<Asker> = (0..4).map(|_| Asker::new(&mut dice)).collect();
            for _ in 0..100 {
                let asker = &askers[dice.roll(askers.len())];
                let mode = if dice.roll(4) == 0 { Mode::List } else { Mode::Call };
                let (question, now) = (dice.pick(QUESTIONS), dice.pick(&MOMENTS));
                let (told, kind) = compare(&enforcer, &set, &whole, asker, question, (now, mode));
                asked += 1;
                for (what, is) in [
                    ("allowed", told.allow),
                    ("forbidden", told.forbidden),
                    ("failed", told.error),
                    ("unrepresentable", told.unrepresentable),
                    ("step-up", told.step_up.is_some()),
                    ("would deny", !told.would_deny.is_empty()),
                    ("ambiguous", told.ambiguous),
                    ("credential", told.credential.is_some()),
                ] {
                    *seen.entry(format!("{kind} {what}")).or_default() += usize::from(is);
                }
            }
            // The next set: some go, some come, one changes its kind.
            lines.retain(|line| line.id == "all" || dice.roll(4) != 0);
            let fresh = (0..dice.roll(8))
                .map(|at| Line::new(&mut dice_of(epoch, at), 100 * (reload + 1) + at));
            lines.extend(fresh.collect::<Vec<_>>());
            let at = dice.roll(lines.len());
            lines[at].shadow ^= lines[at].id != "all";
            lines[at].annotations.clear();
            before = Some(set);
        }
    }
    let counts = enforcer.counts();
    println!("{asked} questions, {epoch} sets, {counts:?}\n{seen:#?}");
    // The test proves something only when all answers came up often.
    for what in ["allowed", "forbidden", "failed"] {
        assert!(
            seen[&format!("call {what}")] > 200 && seen[&format!("list {what}")] > 50,
            "{what}"
        );
    }
    for what in ["unrepresentable", "step-up", "would deny", "ambiguous", "credential"] {
        assert!(seen[&format!("call {what}")] > 15, "{what}");
    }
    assert!(counts.hits > 500 && counts.misses > 500, "{counts:?}");
}

fn dice_of(epoch: u64, at: usize) -> Dice {
    Dice((epoch + 1).wrapping_mul(0x2545_F491_4F6C_DD1D) ^ (at as u64 + 1))
}

//! Slices against Cedar's own answer over the whole set, whole context, whole entities.

use std::collections::{BTreeSet, HashSet};

use cedar_policy as cedar;

use super::super::schema;
use super::random::{ACTIONS, CONDITIONS, Dice, PRINCIPALS, QUESTIONS, RESOURCES, entities, uid};
use super::*;

pub(super) fn policies(dice: &mut Dice, count: usize) -> Vec<String> {
    policies_with(dice, count, CONDITIONS, compiled)
}

/// The same with other conditions, as `compile` takes them.
pub(super) fn policies_with(
    dice: &mut Dice,
    count: usize,
    conditions: &[&str],
    compile: impl Fn(&str) -> Result<PolicySet, Vec<Fault>>,
) -> Vec<String> {
    let mut lines = Vec::new();
    while lines.len() < count {
        let effect = if dice.roll(4) == 0 { "forbid" } else { "permit" };
        let (who, what) = (dice.pick(PRINCIPALS), dice.pick(ACTIONS));
        let (on, condition) = (dice.pick(RESOURCES), dice.pick(conditions));
        let id = lines.len();
        lines.push(format!("@id(\"p{id}\") {effect} ({who}, {what}, {on}) {condition};"));
    }
    // Those that could never apply are faults; leave them out by their lines.
    if let Err(faults) = compile(&lines.join("\n")) {
        let bad: HashSet<usize> = faults.iter().map(|fault| fault.line as usize - 1).collect();
        let mut at = 0;
        lines.retain(|_| {
            at += 1;
            !bad.contains(&(at - 1))
        });
    }
    lines
}

pub(super) fn people(dice: &mut Dice) -> Who {
    let some = |dice: &mut Dice, from: &[&str]| -> Vec<String> {
        let mut kept: Vec<String> = from.iter().map(|one| (*one).to_owned()).collect();
        kept.retain(|_| dice.roll(2) == 0);
        kept
    };
    Who {
        user: [Some("alice"), Some("bob"), Some("engineering"), None][dice.roll(4)],
        agent: ["claude", "robot", "alice"][dice.roll(3)],
        groups: some(dice, &["engineering", "only-here", "ops", "unknown"]),
        scopes: some(dice, &["read", "write"]),
        acr: [None, Some("gold"), Some("tin")][dice.roll(3)],
        auth_time: [None, Some(NOW - 60), Some(NOW - 86_400)][dice.roll(3)],
    }
}

/// Cedar's answer, with everything there is and checked against the schema.
struct Whole {
    schema: cedar::Schema,
    policies: cedar::PolicySet,
}

impl Whole {
    fn new(lines: &[String]) -> Self {
        let mut policies = cedar::PolicySet::new();
        for line in lines {
            let policy = cedar::Policy::parse(None, line).unwrap();
            let id = cedar::PolicyId::new(policy.annotation("id").unwrap());
            policies.add(policy.new_id(id)).unwrap();
        }
        Self { schema: schema::build(setting(1).methods, "{}").unwrap(), policies }
    }

    /// (allow, forbidden, error) and the ids of what holds.
    fn answer(&self, q: &Question<'_>) -> (bool, bool, bool, BTreeSet<String>) {
        let [principal, resource] = entities(q);
        let action = uid("Action", q.action);
        let context = self.context(q, &action);
        let (who, what) = (principal.uid(), resource.uid());
        let request = cedar::Request::new(who, action, what, context, Some(&self.schema)).unwrap();
        let entities = [principal, resource];
        let entities = cedar::Entities::from_entities(entities, Some(&self.schema)).unwrap();
        let response = cedar::Authorizer::new().is_authorized(&request, &self.policies, &entities);
        let reasons: BTreeSet<String> =
            response.diagnostics().reason().map(ToString::to_string).collect();
        let error = response.diagnostics().errors().next().is_some();
        let cedar_allows = response.decision() == cedar::Decision::Allow;
        let forbidden = !cedar_allows && !reasons.is_empty();
        (cedar_allows && !error, forbidden, error, reasons)
    }

    /// The context by way of JSON, which is not the way it is built in `decide`.
    fn context(&self, q: &Question<'_>, action: &cedar::EntityUid) -> cedar::Context {
        let time = |at: u64| {
            let stamp = jiff::Timestamp::from_second(i64::try_from(at).unwrap()).unwrap();
            serde_json::json!({ "__extn": { "fn": "datetime", "arg": stamp.to_string() } })
        };
        let mut json = serde_json::json!({
            "agent": { "type": "Agent", "id": q.subject.agent },
            "scopes": q.subject.scopes,
            "source": { "ip": { "__extn": { "fn": "ip", "arg": "10.1.2.3" } } },
            "now": time(NOW),
            "local": { "weekday": 1, "minute_of_day": 195 },
            "arguments": {},
        });
        if let Some(acr) = q.subject.acr {
            json["acr"] = acr.into();
        }
        if let Some(at) = q.subject.auth_time {
            json["auth_time"] = time(at);
        }
        if let Some(revision) = q.context.revision {
            json["revision"] = revision.into();
        }
        cedar::Context::from_json_value(json, Some((&self.schema, action))).unwrap()
    }
}

#[test]
fn slices_answer_as_the_whole_set_does() {
    let (mut allowed, mut forbidden, mut failed) = (0, 0, 0);
    for seed in 1..=SETS {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let lines = policies(&mut dice, 12);
        let (set, whole) = (set(&lines.join("\n")), Whole::new(&lines));
        for _ in 0..6 {
            let who = people(&mut dice);
            let revision = [None, Some("2025-11-25"), Some("2026-07-28")][dice.roll(3)];
            let (subject, context) = (who.subject(), Context { revision, ..context() });
            for (action, server, target) in QUESTIONS {
                let question = Question {
                    subject: &subject,
                    action,
                    server: *server,
                    target: *target,
                    context: &context,
                    mode: Mode::Call,
                };
                let ours = set.decide(&question);
                let (allow, forbid, error, reasons) = whole.answer(&question);
                let note = format!("seed {seed}: {question:?}\n{}", lines.join("\n"));
                assert_eq!((ours.allow, ours.forbidden), (allow, forbid), "{note}");
                let ids: BTreeSet<String> = named(&ours).iter().map(ToString::to_string).collect();
                if error && !forbid {
                    assert!(ours.error, "{note}");
                } else {
                    assert_eq!(ids, reasons, "{note}");
                }
                if allow {
                    let seen = server.is_none_or(|(at, _)| set.server_visible(&subject, at));
                    assert!(seen, "what is permitted is visible: {note}");
                }
                allowed += usize::from(allow);
                forbidden += usize::from(forbid);
                failed += usize::from(ours.error);
            }
        }
    }
    // The test proves something only when all answers came up often.
    println!("{allowed} allowed, {forbidden} forbidden, {failed} failed");
    assert!(allowed > 100 && forbidden > 100 && failed > 100);
}

/// Policy sets of one run.
const SETS: u64 = 80;

//! `explain`: one decision, and why it is so. The lines are stable, for scripts may read them.

use jiff::{Timestamp, tz::TimeZone};

use super::{Answer, Asked, Bench, Decision, principal, who};
use crate::gateway::subject;
use crate::judge::policy::{Outcome, QTarget, StepUp, Unmet};
use crate::policy::Shown;

/// An explained decision.
#[derive(Debug, PartialEq, Eq)]
pub struct Explained {
    /// What is decided.
    pub decision: Decision,
    /// One fact each.
    pub lines: Vec<String>,
}

/// Decides, and says why.
///
/// # Errors
/// In words, what makes the question one that no client could ask.
pub fn explain(bench: &Bench, asked: &Asked) -> Result<Explained, String> {
    let answer = bench.judge(asked)?;
    let mut lines = vec![
        format!("decision: {} ({})", answer.decision.word(), answer.reason),
        format!("who: {}", who(&subject(&principal(asked)))),
        format!("what: {}", what(bench, asked, &answer)?),
    ];
    if asked.method != super::CONNECT {
        lines.push(format!("connect: {}", at_the_door(bench, asked)?));
    }
    lines.push(determining(bench, &answer));
    lines.extend(others(bench, asked, &answer)?);
    if answer.decision == Decision::Permit && asked.method != super::CONNECT {
        lines.push(format!("credential: {}", credential(bench, &answer)));
    }
    if let Some(lacks) = &answer.step_up {
        lines.push(format!("step-up: {}", needed(lacks)));
    }
    if !answer.would_deny.is_empty() {
        let ids = answer.would_deny.iter().map(|id| bench.place(id));
        lines.push(format!("shadow: would deny by {}", ids.collect::<Vec<_>>().join(", ")));
    }
    if let Some(shown) = answer.shown {
        let word = match shown {
            Shown::Yes => "shown",
            Shown::NoPermit => "hidden, because nothing permits it",
            Shown::Failed => "hidden, because a condition fails to evaluate",
            Shown::Forbidden => "hidden, because it is forbidden",
        };
        lines.push(format!("in lists: {word}"));
    }
    Ok(Explained { decision: answer.decision, lines })
}

fn what(bench: &Bench, asked: &Asked, answer: &Answer) -> Result<String, String> {
    let zone = bench.config().policy.timezone.as_str();
    let far = || "a time that no calendar holds".to_owned();
    let seconds = i64::try_from(asked.at.0).map_err(|_| far())?;
    let at = Timestamp::from_second(seconds).map_err(|_| far())?;
    let tz = TimeZone::get(zone).map_err(|_| format!("the time zone {zone} is not known here"))?;
    let local = at.to_zoned(tz);
    let weekday = local.weekday().to_monday_one_offset();
    let minute = i32::from(local.hour()) * 60 + i32::from(local.minute());
    let country = asked.country.map(|code| format!(" in {code}")).unwrap_or_default();
    Ok(format!(
        "{} on {}, {} (weekday {weekday}, minute {minute}, {zone}), from {}{country}",
        asked.method,
        answer.on,
        local.strftime("%Y-%m-%dT%H:%M:%S%:z"),
        asked.ip.to_canonical(),
    ))
}

/// How `connect` is decided, which comes before everything.
fn at_the_door(bench: &Bench, asked: &Asked) -> Result<String, String> {
    let answer = bench.door(asked)?;
    let places: Vec<String> = answer.policies.iter().map(|id| bench.place(id)).collect();
    Ok(match places.as_slice() {
        [] if answer.decision == Decision::Deny => "deny, because nothing permits it".to_owned(),
        [] => answer.decision.word().to_owned(),
        places => format!("{} by {}", answer.decision.word(), places.join(", ")),
    })
}

fn determining(bench: &Bench, answer: &Answer) -> String {
    let places: Vec<String> = answer.policies.iter().map(|id| bench.place(id)).collect();
    let places = places.join(", ");
    match answer.decision {
        _ if answer.error => format!("fails to evaluate, which denies: {places}"),
        Decision::Permit => format!("permitted by: {places}"),
        Decision::Deny if answer.policies.is_empty() => "permitted by: nothing".to_owned(),
        Decision::Deny if answer.reason == "credential_ambiguous" => {
            format!("permits that choose different credentials: {places}")
        }
        Decision::Deny | Decision::StepUp => format!("forbidden by: {places}"),
    }
}

/// What came of the policies that did not determine the answer, though their heads match.
fn others(bench: &Bench, asked: &Asked, answer: &Answer) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    bench.each_question(asked, |question| {
        for traced in bench.set().trace(question) {
            let named = answer.policies.iter().any(|id| **id == *traced.id);
            // What shadows would do is said by itself.
            if traced.place.shadow || (named && traced.outcome == Outcome::Held) {
                continue;
            }
            let place = bench.place(traced.id);
            lines.extend(match traced.outcome {
                Outcome::Elsewhere => None,
                // Of `connect`, which has a line of its own.
                Outcome::Held if question.target == QTarget::Gateway => None,
                Outcome::Held if traced.place.permits => Some(format!("would permit: {place}")),
                Outcome::Held => Some(format!("would forbid: {place}")),
                Outcome::Blind => {
                    Some(format!("an argument has a value that it cannot hold: {place}"))
                }
                Outcome::Failed(words) => Some(format!("fails: {place}: {words}")),
                Outcome::Unmet(part) => {
                    let Unmet { text, unless, line, column } = part;
                    let file = traced.place.file.display();
                    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    let id = traced.id;
                    Some(format!("did not hold: {id} ({file}:{line}:{column}): {text} is {unless}"))
                }
            });
        }
    })?;
    Ok(lines)
}

fn credential(bench: &Bench, answer: &Answer) -> String {
    let Some(name) = &answer.credential else { return "none".to_owned() };
    let known = bench.config().credentials.iter().find(|known| known.name == *name);
    let kind = known.map_or("", |known| known.kind.word());
    format!("{name} ({kind}); not fetched")
}

/// What a better login would have to bring.
fn needed(lacks: &StepUp) -> String {
    let mut parts = Vec::new();
    if !lacks.scopes.is_empty() {
        parts.push(format!("scope {}", lacks.scopes.join(" ")));
    }
    if !lacks.acr.is_empty() {
        parts.push(format!("acr {}", lacks.acr.join(" or ")));
    }
    if let Some(seconds) = lacks.max_age {
        parts.push(format!("a login within the last {seconds} s"));
    }
    parts.join(", and ")
}

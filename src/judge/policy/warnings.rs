//! What loads and may not be meant.

use super::index::CONNECT;
use super::load::Fault;
use super::mentions::Mentions;
use super::rule::{Rule, Who};
use super::schema::{Actions, kind};
use crate::limits::{POLICIES_ANYWHERE_MAX, POLICY_PAIRS_MAX, POLICY_WARNINGS_MAX};

/// Everything worth a warning, in the order of the files.
pub(super) fn find(rules: &[Rule], actions: &Actions, pause: &mut dyn FnMut()) -> Vec<Fault> {
    let mut found = Vec::new();
    credentials(rules, &mut found, pause);
    pause();
    anywhere(rules, actions, &mut found);
    moments(rules, &mut found);
    found.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    found.truncate(POLICY_WARNINGS_MAX);
    found
}

fn at(rule: &Rule, what: String, cure: &str) -> Fault {
    let (file, line, column) = (rule.at.file.to_path_buf(), rule.at.line, rule.at.column);
    Fault { file, line, column, what, cure: cure.to_owned() }
}

/// Permits that name different credentials and can hold together: the request would be refused as
/// `credential_ambiguous`.
fn credentials(rules: &[Rule], found: &mut Vec<Fault>, pause: &mut dyn FnMut()) {
    let choosing: Vec<&Rule> =
        rules.iter().filter(|rule| !rule.at.shadow && rule.credential.is_some()).collect();
    let pairs = choosing.iter().enumerate().flat_map(|(at, one)| {
        choosing.get(at + 1..).unwrap_or_default().iter().map(move |other| (*one, *other))
    });
    for (count, (one, other)) in pairs.take(POLICY_PAIRS_MAX).enumerate() {
        if count % PAIRS_AT_ONCE == 0 {
            pause();
        }
        if one.credential == other.credential || !overlap(one, other) {
            continue;
        }
        let (first, line) = (one.at.file.display(), one.at.line);
        let what = format!(
            "may hold together with \"{}\" at {first}:{line}, which names another credential",
            one.id
        );
        let cure = "requests that both permit are refused as credential_ambiguous: narrow one";
        found.push(at(other, what, cure));
        if found.len() >= POLICY_WARNINGS_MAX {
            return;
        }
    }
}

/// Whether the heads of two policies can match one question.
fn overlap(one: &Rule, other: &Rule) -> bool {
    let both =
        |one: Option<u16>, other: Option<u16>| one.is_none() || other.is_none() || one == other;
    let name = match (&one.place.name, &other.place.name) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => true,
    };
    one.place.kinds & other.place.kinds & kind::IN_SERVER != 0
        && both(one.place.server, other.place.server)
        && name
        && meet(one.who, other.who)
        && one.actions.iter().any(|action| other.actions.binary_search(action).is_ok())
}

/// Whether somebody can be both. Anybody may be in several groups.
fn meet(one: Who, other: Who) -> bool {
    match (one, other) {
        (Who::Nobody, _) | (_, Who::Nobody) => false,
        (Who::Anyone, _) | (_, Who::Anyone) => true,
        (Who::User(one), Who::User(other)) | (Who::Agent(one), Who::Agent(other)) => one == other,
        (one, other) => is_agent(one) == is_agent(other),
    }
}

fn is_agent(who: Who) -> bool {
    matches!(who, Who::Agents | Who::Agent(_))
}

/// Policies that stand in the slices of every server: each costs every fresh decision.
fn anywhere(rules: &[Rule], actions: &Actions, found: &mut Vec<Fault>) {
    let connect = actions.number(CONNECT);
    let mut all = rules.iter().filter(|rule| stands_anywhere(rule, connect));
    let first = all.next();
    let count = 1 + all.count();
    if let Some(rule) = first.filter(|_| count > POLICIES_ANYWHERE_MAX) {
        let what = format!("this and {} more policies name no server", count - 1);
        found.push(at(rule, what, "each is looked at for every server: name one where you can"));
    }
}

/// Whether a policy stands in the slices of every server.
pub(super) fn stands_anywhere(rule: &Rule, connect: Option<u16>) -> bool {
    rule.place.server.is_none()
        && rule.place.kinds & kind::IN_SERVER != 0
        && rule.actions.iter().any(|action| Some(*action) != connect)
}

/// A shadow policy that reads the clock makes each decision of its slice live one second only.
fn moments(rules: &[Rule], found: &mut Vec<Fault>) {
    let reads = |rule: &&Rule| rule.at.shadow && rule.mentions.has(Mentions::NOW);
    found.extend(rules.iter().filter(reads).map(|rule| {
        let what = "a shadow policy that looks at `context.now`".to_owned();
        let cure = "decisions beside it are kept for one second only; use context.local if you can";
        at(rule, what, cure)
    }));
}

/// Pairs that are looked at between two pauses.
const PAIRS_AT_ONCE: usize = 4096;

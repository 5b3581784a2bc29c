//! What loads and may not be meant.

use std::collections::HashSet;

use super::index::CONNECT;
use super::load::Fault;
use super::mentions::Mentions;
use super::rule::{Rule, Who};
use super::scanner::Statement;
use super::schema::{Actions, kind};
use crate::limits::{POLICIES_ANYWHERE_MAX, POLICY_PAIRS_MAX, POLICY_WARNINGS_MAX};

/// Everything worth a warning, in the order of the files.
pub(super) fn find(rules: &[Rule], actions: &Actions, pause: &mut dyn FnMut()) -> Vec<Fault> {
    let mut found = Vec::new();
    credentials(rules, &mut found, pause);
    pause();
    anywhere(rules, actions, &mut found);
    moments(rules, &mut found);
    steps(rules, &mut found, pause);
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
        if one.credential == other.credential || !overlap(one, other, kind::IN_SERVER) {
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

/// Whether the heads of two policies can match one question about one of `kinds`.
fn overlap(one: &Rule, other: &Rule, kinds: u8) -> bool {
    let both =
        |one: Option<u16>, other: Option<u16>| one.is_none() || other.is_none() || one == other;
    let name = match (&one.place.name, &other.place.name) {
        (Some(one), Some(other)) => one == other,
        (None, _) | (_, None) => true,
    };
    one.place.kinds & other.place.kinds & kinds != 0
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

/// Step-ups that may lift nothing, so that a client would be sent round for ever: what is asked for
/// is not what the condition looks for, or two forbids ask for different `acr` values, of which a
/// token has one.
fn steps(rules: &[Rule], found: &mut Vec<Fault>, pause: &mut dyn FnMut()) {
    let asking = rules.iter().filter_map(|rule| Some((rule, rule.step_up.as_ref()?)));
    let mut of_acr: Vec<(&Rule, &str, HashSet<String>)> = Vec::new();
    for (rule, step_up) in asking {
        pause();
        let strings = literals(&rule.text);
        let asked = step_up.scopes.iter().map(|scope| ("require_scope", scope));
        let asked = asked.chain(step_up.acr.iter().map(|acr| ("require_acr", acr)));
        for (name, value) in asked.filter(|(_, value)| !strings.contains(&***value)) {
            let what = format!("@{name}(\"{value}\") is not a string of its condition");
            found.push(at(rule, what, "the step may not lift it: write the same value in both"));
        }
        if let Some(age) = step_up.max_age.filter(|age| !names_age(&rule.text, *age)) {
            let what = format!("@max_age(\"{age}\") is not a time of its condition");
            found.push(at(rule, what, "the step may not lift it: write the same time in both"));
        }
        let acr = step_up.acr.first().filter(|_| !rule.at.shadow);
        of_acr.extend(acr.map(|acr| (rule, &**acr, strings)));
    }
    let pairs = of_acr.iter().enumerate().flat_map(|(at, one)| {
        of_acr.get(at + 1..).unwrap_or_default().iter().map(move |other| (one, other))
    });
    for (count, (one, other)) in pairs.take(POLICY_PAIRS_MAX).enumerate() {
        if count % PAIRS_AT_ONCE == 0 {
            pause();
        }
        let ((first, acr, mine), (second, asked, theirs)) = (one, other);
        // One that is in both conditions may do for both.
        let one_does = mine.contains(*asked) || theirs.contains(*acr);
        if acr == asked || one_does || !overlap(first, second, kind::ALL) {
            continue;
        }
        let (file, line) = (first.at.file.display(), first.at.line);
        let what = format!(
            "may hold together with \"{}\" at {file}:{line}, which asks for another acr",
            first.id
        );
        found.push(at(second, what, "a token has one acr: ask for the same, or narrow one"));
        if found.len() >= POLICY_WARNINGS_MAX {
            return;
        }
    }
}

/// The strings of the conditions of a policy.
fn literals(text: &str) -> HashSet<String> {
    let parts = Statement { text, offset: 0 }.parts();
    let texts = parts.into_iter().filter_map(|part| text.get(part.range));
    let found = texts.flat_map(|text| {
        let strings = Statement { text, offset: 0 };
        strings.strings().map(str::to_owned).collect::<Vec<_>>()
    });
    found.collect()
}

/// Whether the conditions of a policy have `age`, as a duration or as a number in some unit.
fn names_age(text: &str, age: u64) -> bool {
    let millis = age.saturating_mul(1000);
    let parts = Statement { text, offset: 0 }.parts();
    let mut texts = parts.into_iter().filter_map(|part| text.get(part.range));
    texts.any(|text| {
        let statement = Statement { text, offset: 0 };
        let number = |word: &str| word.parse::<u64>().ok();
        let is_age = |found: u64| {
            UNITS.iter().any(|(_, unit)| found.checked_mul(*unit).is_some_and(|it| it == millis))
        };
        statement.strings().any(|duration| duration_millis(duration) == Some(millis))
            || statement.words().filter_map(number).any(is_age)
    })
}

/// A duration as Cedar writes it: `1d2h3m4s5ms`.
fn duration_millis(text: &str) -> Option<u64> {
    let (mut rest, mut sum) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, behind) = rest.split_at_checked(digits)?;
        let letters = behind.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, after) = behind.split_at_checked(letters)?;
        let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
        sum = sum.checked_add(number.parse::<u64>().ok()?.checked_mul(*unit)?)?;
        rest = after;
    }
    Some(sum)
}

/// Units of Cedar's durations, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
/// Pairs that are looked at between two pauses.
const PAIRS_AT_ONCE: usize = 4096;

//! `policy test`: decisions that must come out as they are written down.
//!
//! Cases say when they are asked: a test that depends on the day it is run on is none.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::{Answer, Asked, Bench, Decision, Reference, moment};
use crate::address::Country;
use crate::clock::UnixSeconds;
use crate::limits::{POLICY_CASES_BYTES_MAX, POLICY_CASES_MAX};
use crate::policy::Shown;

/// The file; what stands above the cases holds for those that do not say otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    agent: Option<String>,
    server: Option<String>,
    at: Option<String>,
    ip: Option<IpAddr>,
    #[serde(default, rename = "case")]
    cases: Vec<Spanned<Case>>,
}

/// One `[[case]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    title: String,
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    agent: Option<String>,
    server: Option<String>,
    method: Option<String>,
    name: Option<String>,
    reference: Option<Reference>,
    at: Option<String>,
    ip: Option<IpAddr>,
    country: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
    acr: Option<String>,
    auth_time: Option<String>,
    revision: Option<String>,
    arguments: Option<Map<String, Value>>,
    expect: Expected,
    reason: Option<String>,
    policies: Option<Vec<String>>,
    credential: Option<String>,
    would_deny: Option<Vec<String>>,
    shown: Option<bool>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
enum Expected {
    Permit,
    Deny,
    StepUp,
}

impl Expected {
    const fn decision(self) -> Decision {
        match self {
            Self::Permit => Decision::Permit,
            Self::Deny => Decision::Deny,
            Self::StepUp => Decision::StepUp,
        }
    }
}

/// What came of a file of cases.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// A line for each case, in their order, and one for all.
    pub lines: Vec<String>,
    /// Whether every case holds.
    pub holds: bool,
}

/// Asks every case of the file at `path`.
///
/// # Errors
/// What is wrong with the file, as `FILE:LINE:COLUMN: what`. Then no case was asked.
pub fn run(bench: &Bench, path: &Path) -> Result<Outcome, Vec<String>> {
    let fault = |what: String| vec![format!("{}:1:1: {what}", path.display())];
    let size = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
    if size > POLICY_CASES_BYTES_MAX as u64 {
        return Err(fault(format!("larger than {POLICY_CASES_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    run_text(bench, &text, path)
}

/// The same for a text that was read already; `path` is what faults call it.
///
/// # Errors
/// As [`run`].
pub fn run_text(bench: &Bench, text: &str, path: &Path) -> Result<Outcome, Vec<String>> {
    let at = |offset: usize| {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", path.display())
    };
    let file: File = toml::from_str(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        vec![format!("{}: {}", at(start), error.message())]
    })?;
    if file.cases.is_empty() {
        return Err(vec![format!("{}: there is no [[case]] in it", at(0))]);
    }
    if file.cases.len() > POLICY_CASES_MAX {
        return Err(vec![format!("{}: more than {POLICY_CASES_MAX} cases", at(0))]);
    }
    let (mut asked, mut faults) = (Vec::new(), Vec::new());
    for case in &file.cases {
        let answered = question(&file, case.get_ref()).and_then(|asked| {
            let answer = bench.judge(&asked)?;
            match (case.get_ref().shown, answer.shown) {
                // Neither true nor false would say anything.
                (Some(_), None) => Err(format!("shown: {} names nothing of a list", asked.method)),
                _ => Ok(answer),
            }
        });
        match answered {
            Ok(answer) => asked.push((case.get_ref(), answer)),
            Err(what) => faults.push(format!("{}: {what}", at(case.span().start))),
        }
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut lines = Vec::new();
    let mut failed = 0;
    for (case, answer) in &asked {
        let wrong = differences(bench, case, answer);
        if wrong.is_empty() {
            lines.push(format!("ok {}", case.title));
        } else {
            failed += 1;
            lines.push(format!("FAILED {}: {}", case.title, wrong.join("; ")));
        }
    }
    lines.push(format!("{} of {} cases hold", asked.len() - failed, asked.len()));
    Ok(Outcome { lines, holds: failed == 0 })
}

fn question(file: &File, case: &Case) -> Result<Asked, String> {
    let agent = case.agent.as_ref().or(file.agent.as_ref());
    let agent = agent.ok_or("agent is missing: say who the client is")?;
    let at = case.at.as_ref().or(file.at.as_ref());
    let at = at.ok_or(
        "at is missing: a case says when it is asked, or the file for all of them; write \
         at = \"2026-11-23T22:00:00+01:00\"",
    )?;
    let method = case.method.as_deref().unwrap_or("tools/call");
    let mut asked = Asked::new(agent, method, moment(at)?);
    if method != "connect" {
        asked.server = case.server.clone().or_else(|| file.server.clone());
    } else if case.server.is_some() {
        return Err("connect is asked of the gateway, not of a server".to_owned());
    }
    asked.user.clone_from(&case.user);
    asked.groups.clone_from(&case.groups);
    asked.name.clone_from(&case.name);
    asked.reference = case.reference;
    asked.ip = case.ip.or(file.ip).unwrap_or(asked.ip);
    let country = |code: &String| {
        Country::new(code).ok_or_else(|| format!("{code:?} is no country; write two letters"))
    };
    asked.country = case.country.as_ref().map(country).transpose()?;
    asked.scopes.clone_from(&case.scopes);
    asked.acr.clone_from(&case.acr);
    let time: Option<Result<UnixSeconds, String>> = case.auth_time.as_deref().map(moment);
    asked.auth_time = time.transpose()?;
    asked.revision.clone_from(&case.revision);
    asked.arguments = case.arguments.as_ref().map(|map| Value::from(map.clone()).to_string());
    Ok(asked)
}

/// What of the answer is not as the case has it.
fn differences(bench: &Bench, case: &Case, answer: &Answer) -> Vec<String> {
    let mut wrong = Vec::new();
    let expected = case.expect.decision();
    if expected != answer.decision {
        let mut text = format!("expected {}, got {}", expected.word(), answer.decision.word());
        let _ = write!(text, " ({})", why(bench, answer));
        wrong.push(text);
    }
    if let Some(reason) = case.reason.as_deref().filter(|reason| *reason != answer.reason) {
        wrong.push(format!("expected reason {reason}, got {}", answer.reason));
    }
    let lists = [
        ("policies", &case.policies, &answer.policies),
        ("would_deny", &case.would_deny, &answer.would_deny),
    ];
    for (key, expected, got) in lists {
        let Some(expected) = expected else { continue };
        let mut wanted: Vec<&str> = expected.iter().map(String::as_str).collect();
        let mut found: Vec<&str> = got.iter().map(|id| &**id).collect();
        wanted.sort_unstable();
        found.sort_unstable();
        if wanted != found {
            wrong.push(format!("expected {key} {wanted:?}, got {found:?}"));
        }
    }
    if let Some(wanted) = &case.credential {
        // A case may say that none is sent.
        let got = answer.credential.as_deref().unwrap_or("none");
        if wanted != got {
            wrong.push(format!("expected credential {wanted}, got {got}"));
        }
    }
    let shown = answer.shown == Some(Shown::Yes);
    if let Some(wanted) = case.shown.filter(|wanted| *wanted != shown) {
        let word = |shown: bool| if shown { "shown" } else { "hidden" };
        wrong.push(format!("expected to be {}, is {}", word(wanted), word(shown)));
    }
    wrong
}

/// The reason of an answer, with the places of the policies that determined it.
pub(super) fn why(bench: &Bench, answer: &Answer) -> String {
    let places: Vec<String> = answer.policies.iter().map(|id| bench.place(id)).collect();
    match places.as_slice() {
        [] => answer.reason.to_owned(),
        places if answer.error => format!("a condition fails in {}", places.join(", ")),
        places => format!("{} by {}", answer.reason, places.join(", ")),
    }
}

//! `policy replay`: which past requests other policies would have decided otherwise.
//!
//! An audit record does not hold everything that a policy may look at: no arguments, no scopes, no
//! whole URI. Where the policies could look at what it lacks, the request is counted as not
//! decidable, with the cause; nothing is guessed.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::net::IpAddr;

use serde::Deserialize;

use super::{Asked, Bench, Decision, cases, moment};
use crate::address::Country;
use crate::limits::{AUDIT_NAME_BYTES_MAX, REPLAY_LINE_BYTES_MAX};

/// What of a record is looked at; there is more in it.
#[derive(Deserialize)]
struct Record {
    time: String,
    seq: Option<u64>,
    core: u64,
    event: String,
    decision: Option<String>,
    reason: Option<String>,
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
    agent: Option<String>,
    server: Option<String>,
    method: Option<String>,
    name: Option<String>,
    revision: Option<String>,
    source_ip: Option<IpAddr>,
    country: Option<String>,
    outcome: Option<String>,
}

/// What came of all records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests that would be decided as they were.
    pub alike: u64,
    /// Requests that would be decided otherwise.
    pub otherwise: u64,
    /// Requests of which the record does not say enough, by what is missing.
    pub undecidable: BTreeMap<&'static str, u64>,
    /// Records of what no policy decided: bad tokens, malformed messages, gaps.
    pub other: u64,
}

impl Totals {
    /// True when there were lines and none was a record: this is no audit file, and that nothing
    /// would be decided otherwise says nothing.
    #[must_use]
    pub fn is_of_no_audit(&self) -> bool {
        let records = self.alike + self.otherwise + self.other;
        let others = self.undecidable.keys().any(|why| *why != NO_RECORD);
        records == 0 && !others && !self.undecidable.is_empty()
    }

    /// One line each.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let asked = self.alike + self.otherwise;
        let mut lines =
            vec![format!("{} of {asked} requests would be decided otherwise", self.otherwise)];
        for (why, count) in &self.undecidable {
            lines.push(format!("{count} not decidable: {why}"));
        }
        if self.other > 0 {
            lines.push(format!("{} records of what no policy decided", self.other));
        }
        lines
    }
}

/// Asks about every record of `audit`; `each` hears of those that would be decided otherwise.
///
/// # Errors
/// `audit` cannot be read.
pub fn replay(
    bench: &Bench,
    mut audit: impl BufRead,
    mut each: impl FnMut(&str),
) -> io::Result<Totals> {
    let mut totals = Totals::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut audit).take(REPLAY_LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(totals);
        }
        if line.last() != Some(&b'\n') && line.len() >= REPLAY_LINE_BYTES_MAX {
            skip_line(&mut audit)?;
        }
        let Ok(record) = serde_json::from_slice::<Record>(&line) else {
            *totals.undecidable.entry(NO_RECORD).or_default() += 1;
            continue;
        };
        let Some(was) = decided(&record) else {
            totals.other += 1;
            continue;
        };
        match again(bench, &record) {
            Err(why) => *totals.undecidable.entry(why).or_default() += 1,
            Ok((now, _)) if now == was => totals.alike += 1,
            Ok((now, why)) => {
                totals.otherwise += 1;
                each(&told(&record, was, now, &why));
            }
        }
    }
}

fn skip_line(audit: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = audit.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (used, over) = end.map_or((buffer.len(), false), |at| (at + 1, true));
        audit.consume(used);
        if over {
            return Ok(());
        }
    }
}

/// What the policies of then decided; `None` when they were not asked, or were asked before and
/// this line only says how it went on.
fn decided(record: &Record) -> Option<Decision> {
    if record.event != "request" || record.outcome.as_deref() == Some("opened") {
        return None;
    }
    match (record.decision.as_deref()?, record.reason.as_deref()?) {
        // What failed afterwards does not undo the decision.
        ("permit", _) | (_, "quota" | "credential_unavailable" | "audit_unavailable") => {
            Some(Decision::Permit)
        }
        ("deny", "insufficient_scope") => Some(Decision::StepUp),
        ("deny", "no_permit" | "forbidden" | "stream_denied" | "argument_unrepresentable") => {
            Some(Decision::Deny)
        }
        (_, "credential_ambiguous") => Some(Decision::Deny),
        _ => None,
    }
}

/// What the policies of now decide, and why.
fn again(bench: &Bench, record: &Record) -> Result<(Decision, String), &'static str> {
    let asked = question(bench, record)?;
    let reads = bench.reads(&asked).map_err(|_| UNASKABLE)?;
    let lacks = [
        (reads.arguments, "arguments are not recorded"),
        (reads.scopes, "scopes are not recorded"),
        (reads.acr, "acr is not recorded"),
        (reads.auth_time, "auth_time is not recorded"),
        (reads.country && asked.country.is_none(), "the country is not recorded"),
        (reads.resource, "of a URI only a part is recorded"),
    ];
    if let Some((_, why)) = lacks.into_iter().find(|(lacks, _)| *lacks) {
        return Err(why);
    }
    let answer = bench.judge(&asked).map_err(|_| UNASKABLE)?;
    Ok((answer.decision, cases::why(bench, &answer)))
}

fn question(bench: &Bench, record: &Record) -> Result<Asked, &'static str> {
    let agent = record.agent.as_deref().ok_or("the agent is not recorded")?;
    let at = moment(&record.time).map_err(|_| NO_RECORD)?;
    let server = record.server.as_deref().ok_or("no server is recorded")?;
    let known = bench.config().servers.iter().any(|known| known.name == server);
    if !known {
        return Err("the server is not configured any more");
    }
    // Whoever may open a session may read its stream, answer on it and end it.
    let method = record.method.as_deref().unwrap_or("initialize");
    if method == super::LISTEN || method == super::COMPLETE {
        return Err("what it names is not recorded whole");
    }
    // The list ends with how many more there are, which no name of a group is taken for: a group
    // of that name makes a record undecidable, and no more.
    let cut = |group: &String| group.starts_with('\u{2026}') && group.ends_with(" more");
    if record.groups.last().is_some_and(cut) {
        return Err("not all groups are recorded");
    }
    // Cut between two characters, so up to three bytes before the bound.
    if record.name.as_ref().is_some_and(|name| name.len() + 3 >= AUDIT_NAME_BYTES_MAX) {
        return Err("the name is cut");
    }
    let mut asked = Asked::new(agent, method, at);
    asked.user.clone_from(&record.user);
    if record.user.is_some() {
        asked.groups.clone_from(&record.groups);
    }
    asked.server = Some(server.to_owned());
    asked.name.clone_from(&record.name);
    asked.ip = record.source_ip.ok_or("the address is not recorded")?;
    asked.country = record.country.as_deref().and_then(Country::new);
    asked.revision.clone_from(&record.revision);
    asked.bodyless = record.method.is_none() && record.revision.is_none();
    Ok(asked)
}

fn told(record: &Record, was: Decision, now: Decision, why: &str) -> String {
    let user = record.user.as_deref().or(record.agent.as_deref()).unwrap_or_default();
    let method = record.method.as_deref().unwrap_or("initialize");
    let server = record.server.as_deref().unwrap_or_default();
    let name = record.name.as_deref().map(|name| format!("/{name}")).unwrap_or_default();
    let seq = record.seq.unwrap_or_default();
    let line = format!(
        "{} {}/{seq} {user} {method} {server}{name}: {} -> {} ({why})",
        record.time,
        record.core,
        was.word(),
        now.word(),
    );
    // What agents call things is theirs: a line stays one line, and a terminal's its own.
    line.chars().map(|one| if one.is_control() { '\u{fffd}' } else { one }).collect()
}

const NO_RECORD: &str = "not a record";
const UNASKABLE: &str = "no client could ask this by the configuration of now";

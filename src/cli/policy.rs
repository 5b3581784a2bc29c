//! `explain` and `policy`: what authors of policies ask.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::{ConfigFile, EX_USAGE, print, say};
use crate::address::Country;
use crate::authoring::listing::{self, Listing};
use crate::authoring::{Asked, Bench, Decision, Reference, cases, explain, moment, replay, tools};
use crate::clock::{Clock, UnixSeconds};
use crate::config::Config;
use crate::limits::{POLICY_CASES_BYTES_MAX, SCHEMA_BYTES_MAX};

/// What is asked about.
#[derive(Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: ConfigFile,
    /// The user, as policies name it; leave it out for a workload
    #[arg(long, value_name = "U")]
    user: Option<String>,
    /// A group of the user; may be repeated
    #[arg(long, value_name = "G", requires = "user")]
    group: Vec<String>,
    /// The agent, as policies name it
    #[arg(long, value_name = "A")]
    agent: String,
    /// The server; left out only with `--method connect`
    #[arg(long, value_name = "S")]
    server: Option<String>,
    /// MCP method, or `connect`
    #[arg(long, value_name = "M", default_value = "tools/call")]
    method: String,
    /// Tool, prompt or URI
    #[arg(long, value_name = "N")]
    name: Option<String>,
    /// With `completion/complete`: `prompt` or `resource`, where the name could be either
    #[arg(long, value_name = "KIND", value_parser = reference)]
    reference: Option<Reference>,
    /// Address of the client
    #[arg(long, default_value = "127.0.0.1")]
    ip: IpAddr,
    /// Country of that address, two letters; looked up as the gateway does, if left out
    #[arg(long, value_name = "CC", value_parser = country)]
    country: Option<Country>,
    /// When; now, if left out
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    at: Option<UnixSeconds>,
    /// A scope of the token; may be repeated
    #[arg(long)]
    scope: Vec<String>,
    /// How strongly the user logged in
    #[arg(long)]
    acr: Option<String>,
    /// When the user logged in
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    auth_time: Option<UnixSeconds>,
    /// MCP revision that the client declares
    #[arg(long)]
    revision: Option<String>,
    /// Arguments of the tool: a file with one JSON object
    #[arg(long, value_name = "FILE")]
    arguments: Option<PathBuf>,
}

/// What can be done with policies.
#[derive(Subcommand)]
pub(super) enum Policy {
    /// Ask every case of a file, and tell which do not come out as expected
    Test(Test),
    /// Tell which requests of an audit file other policies would have decided otherwise
    Replay(Replay),
    /// Print types of a server's tools for schema.d, by what it answers to tools/list
    Schema(Schema),
}

#[derive(Args)]
pub(super) struct Test {
    #[command(flatten)]
    file: ConfigFile,
    /// Cases (TOML)
    cases: PathBuf,
}

#[derive(Args)]
pub(super) struct Replay {
    #[command(flatten)]
    file: ConfigFile,
    /// Audit records, one per line
    #[arg(long, value_name = "FILE")]
    audit: PathBuf,
    /// The policies to ask, in place of those of the configuration
    #[arg(long, value_name = "DIR")]
    policies: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Schema {
    #[command(flatten)]
    file: ConfigFile,
    /// The server; it is asked, with the credential that it has in the configuration
    #[arg(long, value_name = "S")]
    server: String,
    /// Do not ask it, but read all pages of its answer (JSON), one after the other; `-` for
    /// standard input
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
}

/// Exit code 0 for a permit, 1 for anything else.
pub(super) fn explained(arguments: &Explain) -> ExitCode {
    let bench = match open(&arguments.file) {
        Ok(bench) => bench,
        Err(code) => return code,
    };
    let answered = asked(arguments).and_then(|mut asked| {
        if asked.country.is_none() {
            asked.country = bench.country(asked.ip)?;
        }
        explain::explain(&bench, &asked)
    });
    match answered {
        Ok(explained) => {
            explained.lines.iter().for_each(|line| print(line));
            match explained.decision {
                Decision::Permit => ExitCode::SUCCESS,
                Decision::Deny | Decision::StepUp => ExitCode::FAILURE,
            }
        }
        Err(what) => {
            say(&what);
            ExitCode::from(EX_USAGE)
        }
    }
}

pub(super) fn run(command: &Policy) -> ExitCode {
    match command {
        Policy::Test(test) => tested(test),
        Policy::Replay(replay) => replayed(replay),
        Policy::Schema(schema) => described(schema),
    }
}

/// Exit code 0 when every request that can be decided is decided as it was.
fn replayed(wanted: &Replay) -> ExitCode {
    let bench = match Bench::open_with(&wanted.file.config, wanted.policies.as_deref()) {
        Ok(bench) => bench,
        Err(faults) => return refused(&faults),
    };
    let audit = File::open(&wanted.audit).map(BufReader::new);
    match audit.and_then(|audit| replay::replay(&bench, audit, print)) {
        Ok(totals) if totals.is_of_no_audit() => refused(&[format!(
            "{}: no line of it is an audit record; name a file that [audit] path has written",
            wanted.audit.display()
        )]),
        Ok(totals) => {
            totals.lines().iter().for_each(|line| print(line));
            if totals.otherwise == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => refused(&[format!("{}: {error}", wanted.audit.display())]),
    }
}

fn tested(test: &Test) -> ExitCode {
    let bench = match open(&test.file) {
        Ok(bench) => bench,
        Err(code) => return code,
    };
    match cases::run(&bench, &test.cases) {
        Ok(outcome) => {
            outcome.lines.iter().for_each(|line| print(line));
            if outcome.holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(faults) => refused(&faults),
    }
}

/// Policies are not read: they may need the types that are made here.
fn described(wanted: &Schema) -> ExitCode {
    let config = match Config::load(&wanted.file.config) {
        Ok(config) => config,
        Err(faults) => return refused(&[faults.to_string()]),
    };
    let answered = match &wanted.tools {
        Some(path) => saved(path).map(|answers| (answers, None)),
        None => listing::fetch(&config, &wanted.server).map(|listing| {
            let Listing { answers, pages, revision } = listing;
            let how = format!("{} answered in {pages} page(s), by MCP {revision}", wanted.server);
            (answers, Some(how))
        }),
    };
    let made = answered
        .map_err(|fault| vec![fault])
        .and_then(|(answers, how)| Ok((tools::schema(&config, &wanted.server, &answers)?, how)));
    match made {
        Ok((text, how)) => {
            how.iter().for_each(|how| say(how));
            print(text.trim_end());
            ExitCode::SUCCESS
        }
        Err(faults) => refused(&faults),
    }
}

/// What a server answered before; `-` for standard input.
fn saved(path: &Path) -> Result<String, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let from: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| fault(&error))?)
    };
    let mut answers = String::new();
    let bound = SCHEMA_BYTES_MAX as u64;
    let read = from.take(bound + 1).read_to_string(&mut answers).map_err(|error| fault(&error))?;
    if read as u64 > bound {
        return Err(fault(&format!("larger than {bound} bytes")));
    }
    Ok(answers)
}

fn open(file: &ConfigFile) -> Result<Bench, ExitCode> {
    Bench::open(&file.config).map_err(|faults| refused(&faults))
}

fn refused(faults: &[String]) -> ExitCode {
    faults.iter().for_each(|fault| say(fault));
    ExitCode::FAILURE
}

fn asked(arguments: &Explain) -> Result<Asked, String> {
    let now = || Clock::start().now().wall.seconds();
    let at = arguments.at.unwrap_or_else(now);
    let mut asked = Asked::new(&arguments.agent, &arguments.method, at);
    asked.user.clone_from(&arguments.user);
    asked.groups.clone_from(&arguments.group);
    asked.server.clone_from(&arguments.server);
    asked.name.clone_from(&arguments.name);
    asked.reference = arguments.reference;
    asked.ip = arguments.ip;
    asked.country = arguments.country;
    asked.scopes.clone_from(&arguments.scope);
    asked.acr.clone_from(&arguments.acr);
    asked.auth_time = arguments.auth_time;
    asked.revision.clone_from(&arguments.revision);
    asked.arguments = arguments.arguments.as_ref().map(object).transpose()?;
    Ok(asked)
}

/// The text of a file that holds one JSON object.
fn object(path: &PathBuf) -> Result<String, String> {
    let fault = |what: &dyn std::fmt::Display| format!("{}: {what}", path.display());
    let size = std::fs::metadata(path).map_err(|error| fault(&error))?.len();
    if size > POLICY_CASES_BYTES_MAX as u64 {
        return Err(fault(&format!("larger than {POLICY_CASES_BYTES_MAX} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fault(&error))?;
    let checked: Result<Map<String, Value>, _> = serde_json::from_str(&text);
    checked.map(|_| text).map_err(|error| fault(&error))
}

fn country(code: &str) -> Result<Country, String> {
    Country::new(code).ok_or_else(|| "write two letters".to_owned())
}

fn reference(word: &str) -> Result<Reference, String> {
    match word {
        "prompt" => Ok(Reference::Prompt),
        "resource" => Ok(Reference::Resource),
        _ => Err("write prompt or resource".to_owned()),
    }
}

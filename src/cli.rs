//! The command line: arguments, what they start, exit codes. No logic of its own.
//!
//! Exit codes follow sysexits: 0 done, 1 a fault found, 64 wrong usage, 78 configuration refused.

mod policy;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::clock::Clock;
use crate::config::Config;
use crate::{demo, devtoken, supervisor};

/// The open MCP identity gateway for Linux VMs.
#[derive(Parser)]
#[command(name = "portcullis", version = VERSION, about, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Gateway(ConfigFile),
    /// Check a configuration with its policies and print every fault as FILE:LINE:COLUMN
    Check(ConfigFile),
    /// Tell what would be decided on one request, and why: exit code 0 for a permit, 1 otherwise
    Explain(policy::Explain),
    /// Try out access policies
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Start a sample MCP server with a gateway in front, and show what each kind of caller gets
    Demo {
        /// End after the demonstration: exit code 0 when everything went as it must, 1 otherwise
        #[arg(long)]
        once: bool,
    },
    /// Make and read tokens for development
    #[command(subcommand)]
    Token(Token),
}

#[derive(Args)]
struct ConfigFile {
    /// The configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Token {
    /// Write a key with its jwks.json, or sign a token with such a key
    Mint(Mint),
    /// Print header and claims of a token read from standard input; the signature is not checked
    Decode,
}

#[derive(Args)]
struct Mint {
    /// Write a new key and jwks.json into this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["key", "issuer", "audience", "subject"])]
    init: Option<PathBuf>,
    /// The key that `--init` wrote
    #[arg(long, value_name = "FILE", required_unless_present = "init")]
    key: Option<PathBuf>,
    /// Claim `iss`
    #[arg(long, required_unless_present = "init")]
    issuer: Option<String>,
    /// Claim `aud`: the gateway's public_url
    #[arg(long, required_unless_present = "init")]
    audience: Option<String>,
    /// Claim `sub`
    #[arg(long, required_unless_present = "init")]
    subject: Option<String>,
    /// Another claim; may be repeated
    #[arg(long, value_name = "K=JSON")]
    claim: Vec<String>,
    /// Lifetime
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    expires: u64,
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EX_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Command::Gateway(file) => gateway(&file),
        Command::Check(file) => check(&file),
        Command::Explain(asked) => policy::explained(&asked),
        Command::Policy(command) => policy::run(&command),
        Command::Demo { once } => demo::run(once),
        Command::Token(Token::Mint(mint)) => report(token_mint(&mint)),
        Command::Token(Token::Decode) => report(token_decode()),
    }
}

fn gateway(file: &ConfigFile) -> ExitCode {
    match Config::load(&file.config) {
        Ok(config) => supervisor::run(config, Clock::start()),
        Err(faults) => {
            say(&faults.to_string());
            ExitCode::from(EX_CONFIG)
        }
    }
}

fn check(file: &ConfigFile) -> ExitCode {
    match supervisor::check(&file.config) {
        Ok(warnings) => {
            for warning in warnings {
                say(&format!("warning: {warning}"));
            }
            print("configuration and policies are sound");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            faults.iter().for_each(|fault| say(fault));
            ExitCode::FAILURE
        }
    }
}

fn token_mint(mint: &Mint) -> Result<String, String> {
    if let Some(directory) = &mint.init {
        let made = devtoken::init(directory).map_err(|fault| fault.to_string())?;
        return Ok(format!("{}\n{}", made.key.display(), made.jwks.display()));
    }
    let (Some(key), Some(issuer), Some(audience), Some(subject)) =
        (&mint.key, &mint.issuer, &mint.audience, &mint.subject)
    else {
        return Err("--key, --issuer, --audience and --subject belong together".to_owned());
    };
    let claims: Result<Vec<_>, _> = mint.claim.iter().map(|text| devtoken::claim(text)).collect();
    let request = devtoken::Request {
        issuer: issuer.clone(),
        audiences: vec![audience.clone()],
        subject: subject.clone(),
        claims: claims.map_err(|fault| fault.to_string())?,
        expires_seconds: mint.expires,
    };
    let key = devtoken::read_key(key).map_err(|fault| fault.to_string())?;
    let now = Clock::start().now().wall.seconds();
    devtoken::mint(&key, &request, now).map_err(|fault| fault.to_string())
}

fn token_decode() -> Result<String, String> {
    let mut token = String::new();
    std::io::stdin().read_line(&mut token).map_err(|error| error.to_string())?;
    devtoken::decode(token.trim()).map_err(|fault| fault.to_string())
}

fn report(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            say(&text);
            ExitCode::FAILURE
        }
    }
}

/// One line on standard output. A reader that left is no fault of ours.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// One line on standard error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const EX_USAGE: u8 = 64;
pub(crate) const EX_CONFIG: u8 = 78;

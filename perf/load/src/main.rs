//! `load`: the measuring instrument of the performance rig.
//!
//! One thread and one epoll instance per process, so that what it costs itself stays small and steady. What each
//! subcommand does stands in `args.rs`; what the figures mean and what they cannot show, in `README.md`.
//!
//! In the order of the flow: [`args`] are turned into a plan, [`link`]s (plain or TLS) carry bytes that
//! [`http`] frames and [`answer`] verifies, [`generate`] drives them by a [`schedule`], [`tally`] keeps the
//! figures and [`watch`] reads what the processes under test spent. [`upstream`] is the other end.

mod answer;
mod args;
mod clock;
mod fault;
mod files;
mod generate;
mod http;
mod idle;
mod link;
mod poll;
mod request;
mod schedule;
mod spin;
mod sse;
mod stop;
mod tally;
mod tls;
mod tokens;
mod upstream;
mod watch;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use args::{Command, Load};
use fault::Fault;

fn main() -> ExitCode {
    let load = match Load::try_parse() {
        Ok(load) => load,
        Err(error) => {
            let wrong = error.use_stderr();
            // Nothing is left to be told when standard output is gone.
            _ = error.print();
            return if wrong { ExitCode::from(64) } else { ExitCode::SUCCESS };
        }
    };
    let done = match load.command {
        Command::Upstream(args) => upstream::serve(&args),
        Command::Tokens(args) => tokens::mint(&args),
        Command::Run(args) => generate::run(&args),
        Command::Idle(args) => idle::hold(&args),
        Command::Handshakes(args) => generate::handshakes(&args),
        Command::Spin(args) => spin::spin(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            _ = writeln!(std::io::stderr(), "load: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// Writes one line to standard output at once.
fn say(line: &str) -> Result<(), Fault> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .map_err(|error| Fault::new(format!("cannot write to standard output: {error}")))
}

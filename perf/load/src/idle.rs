//! `load idle`: connections that were used once and then rest.

use serde_json::json;

use crate::args::{IdleArgs, RunArgs, To};
use crate::fault::Fault;
use crate::files;
use crate::generate::{self, Engine, Plan};

/// `load idle`.
pub(crate) fn hold(args: &IdleArgs) -> Result<(), Fault> {
    let To { target, tls_ca, server_name } = &args.to;
    let run = RunArgs {
        to: To { target: *target, tls_ca: tls_ca.clone(), server_name: server_name.clone() },
        connections: args.connections,
        ..generate::one_by_one(*target, &args.path, &args.host, args.tokens.clone())
    };
    files::allow(args.connections)?;
    let mut engine = Engine::new(Plan::new(&run)?)?;
    engine.open_all()?;
    engine.once_each()?;
    crate::say(&format!("READY {}", args.connections))?;
    let closed = engine.hold()?;
    crate::say(&json!({"held": args.connections, "closed_by_peer": closed}).to_string())
}

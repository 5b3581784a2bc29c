//! The admin listener: who is let in, and what is shown.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use super::control::Control;
use super::reload::Reloaded;
use crate::admin;
use crate::audit::Writer;
use crate::http::{Field, Method, host};
use crate::listener::{Downstream, Inputs, answer, downstream::Next};
use crate::net::listen::Acceptor;
use crate::net::{catch_unwind, runtime};

pub(super) async fn serve_admin(control: Rc<Control>, mut acceptor: Acceptor) {
    let open = Rc::new(());
    loop {
        let Ok(stream) = acceptor.accept().await else { return };
        if Rc::strong_count(&open) > ADMIN_CONNECTIONS_MAX {
            continue;
        }
        let control = Rc::clone(&control);
        let counted = Rc::clone(&open);
        runtime::spawn(async move {
            let _counted = counted;
            let _ = catch_unwind(serve_admin_connection(&control, stream)).await;
        });
    }
}

/// One request per connection; the listener is on loopback and bounded by its deadlines.
async fn serve_admin_connection(control: &Control, stream: crate::net::Stream) {
    let mut downstream = Downstream::new(stream);
    let limits = crate::limits::Limits::default();
    let head = downstream.next_head(&control.timers, &limits, &Inputs::new(0)).await;
    if matches!(head, Ok(Next::Request)) {
        let (head, bytes) = downstream.head();
        let path = String::from_utf8_lossy(head.target(bytes)).into_owned();
        let mut out = Vec::new();
        // A page that rebinds its name to loopback must not read this (DNS rebinding).
        let here =
            head.field(bytes, Field::Host).is_some_and(|name| host::host_allowed(name, &[], true));
        if !here {
            answer::document(
                421,
                b"text/plain",
                b"no-store",
                b"not a name of this machine\n",
                &mut out,
            );
        } else {
            let (status, kind, body) = match head.method() {
                Method::Get => control.answer(&path),
                Method::Post if path == RELOAD => {
                    let browser = head.field(bytes, Field::Origin).is_some();
                    let meant = head.fields(bytes).any(|(name, value)| {
                        name.eq_ignore_ascii_case(MEANT.0) && value == MEANT.1
                    });
                    if meant && !browser { reload(control).await } else { unmeant() }
                }
                Method::Post
                | Method::Connect
                | Method::Delete
                | Method::Head
                | Method::Options
                | Method::Other => (405, "text/plain", "GET, and POST /reload only\n".to_owned()),
            };
            answer::document(status, kind.as_bytes(), b"no-store", body.as_bytes(), &mut out);
        }
        let until = control.timers.now().after(Duration::from_secs(5));
        let _ = downstream.write(out, until).await;
    }
    downstream.close(&control.timers).await;
}

/// As SIGHUP does, but who asks is told what came of it.
async fn reload(control: &Control) -> (u16, &'static str, String) {
    let (status, answer) = match control.reload_and_wait().await {
        Some(Ok(now)) => {
            let Reloaded { epoch, policies, shadows } = now;
            (200, json!({"epoch": epoch, "policies": policies, "shadow_policies": shadows}))
        }
        Some(Err(faults)) => (422, json!({"error": "refused", "faults": faults})),
        None => (503, json!({"error": "not_in_time"})),
    };
    (status, "application/json", format!("{answer}\n"))
}

/// A page in a browser can have a POST sent to loopback, but not with a field of its own unless it
/// is allowed to, which it is not (Fetch Standard, CORS-safelisted request-header).
fn unmeant() -> (u16, &'static str, String) {
    (403, "text/plain", "say that you mean it: X-Portcullis: reload, and no Origin\n".to_owned())
}

impl Control {
    /// What the admin listener shows.
    fn answer(&self, path: &str) -> (u16, &'static str, String) {
        let state = self.state.borrow();
        let now = self.clock.monotonic();
        let mut not_ready = Vec::new();
        let mut providers = Vec::new();
        for (provider, keys) in state.config.trust_providers.iter().zip(&state.keys) {
            let usable = keys.usable(now);
            if usable.is_none() {
                not_ready.push(format!("no keys of trust provider {}", provider.name));
            }
            providers.push(admin::ProviderStatus {
                name: provider.name.clone(),
                keys: usable.map_or(0, crate::judge::keys::KeySet::count),
                age_seconds: usable.map(|_| now.micros_since(keys.fetched_at()) / 1_000_000),
            });
        }
        let set = &state.assembly.policy;
        let warnings: Vec<String> = set.warnings().iter().map(ToString::to_string).collect();
        let servers: Vec<String> =
            state.config.servers.iter().map(|server| server.name.clone()).collect();
        let writer = self.writer.borrow();
        if !writer.as_ref().is_some_and(Writer::healthy) {
            not_ready.push("the audit cannot be written".to_owned());
        }
        admin::answer(
            path,
            &admin::Status {
                version: env!("CARGO_PKG_VERSION"),
                commit: option_env!("PORTCULLIS_COMMIT").unwrap_or("unknown"),
                instance: writer.as_ref().map_or("", Writer::instance),
                driver: &self.ring.to_string(),
                uptime_seconds: now.0 / 1_000_000,
                workers: self.counters.len(),
                alive: self.alive.get(),
                draining: state.draining,
                not_ready: &not_ready,
                generation: state.generation,
                providers: &providers,
                servers: &servers,
                now,
                invalidations: false,
                cores: &self.counters,
                process: &self.process,
                policies: [set.len(), set.shadow_len()],
                policy_warnings: &warnings,
                method_name,
            },
        )
    }
}

/// The `method` label of a dense method number.
fn method_name(number: u8) -> &'static str {
    crate::mcp::Method::from_id(number).map_or("", crate::mcp::Method::as_str)
}

/// Monitoring needs a few.
const ADMIN_CONNECTIONS_MAX: usize = 64;
const RELOAD: &str = "/reload";
/// Without this field nothing is reloaded.
const MEANT: (&[u8], &[u8]) = (b"x-portcullis", b"reload");

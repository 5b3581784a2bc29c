//! What `/metrics`, `/livez`, `/readyz` and `/status` say: text out of counters, no socket.
//!
//! The listener is on loopback only and has no authentication (case K06), so nothing here may hold
//! a token, a claim, a header or a secret: every label is a configured name or a word of a closed
//! list.

mod exposition;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::json;

use self::exposition::{Exposition, Type};
use crate::clock::Monotonic;
use crate::metrics::{
    BreakerState, Counters, HISTOGRAM_BOUNDS, Histogram, ProcessCounters, SeenEra,
};

/// What the gateway knows of itself at one moment.
pub struct Status<'a> {
    /// Version of the package.
    pub version: &'a str,
    /// Commit it was built from.
    pub commit: &'a str,
    /// Name of this process in audit records.
    pub instance: &'a str,
    /// Which event loop serves, in plain words.
    pub driver: &'a str,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Workers that accept.
    pub workers: usize,
    /// False when a core did not move within the watchdog's time.
    pub alive: bool,
    /// True from SIGTERM on.
    pub draining: bool,
    /// Why requests cannot be served well, in plain words without names from requests; empty =
    /// ready.
    pub not_ready: &'a [String],
    /// Generation of the configuration in force.
    pub generation: u64,
    /// Trust providers.
    pub providers: &'a [ProviderStatus],
    /// Configured names of the servers.
    pub servers: &'a [String],
    /// The same clock as that of what the counters note.
    pub now: Monotonic,
    /// True when something tells the gateway of revocations; else the 60 s lifetimes alone bound
    /// them.
    pub invalidations: bool,
    /// Counters of each core.
    pub cores: &'a [Arc<Counters>],
    /// Counters of the process.
    pub process: &'a ProcessCounters,
    /// Policies that decide, and shadows.
    pub policies: [usize; 2],
    /// What was loaded of them and may not be meant.
    pub policy_warnings: &'a [String],
    /// Name of a method by its dense number, as counted in `requests_total`.
    pub method_name: fn(u8) -> &'static str,
}

/// One trust provider in `/status`.
pub struct ProviderStatus {
    /// Configured name.
    pub name: String,
    /// Keys in the set in use.
    pub keys: usize,
    /// Age of that set; `None` = there is none.
    pub age_seconds: Option<u64>,
}

/// Status, content type and body of `GET path` on the admin listener.
#[must_use]
pub fn answer(path: &str, status: &Status<'_>) -> (u16, &'static str, String) {
    match path {
        "/metrics" => (200, METRICS_TYPE, render_metrics(status)),
        "/livez" if status.alive => (200, TEXT_TYPE, "ok\n".to_owned()),
        "/livez" => (503, TEXT_TYPE, "a core does not move\n".to_owned()),
        "/readyz" => readiness(status),
        "/status" => (200, JSON_TYPE, render_status(status)),
        _ => (404, TEXT_TYPE, "not found\n".to_owned()),
    }
}

fn readiness(status: &Status<'_>) -> (u16, &'static str, String) {
    let mut body = String::new();
    if !status.alive {
        body.push_str("a core does not move\n");
    }
    if status.draining {
        body.push_str("draining\n");
    }
    for reason in status.not_ready {
        body.push_str(reason);
        body.push('\n');
    }
    if body.is_empty() { (200, TEXT_TYPE, "ok\n".to_owned()) } else { (503, TEXT_TYPE, body) }
}

/// The `/status` document.
#[must_use]
pub fn render_status(status: &Status<'_>) -> String {
    let sum = |read: fn(&Counters) -> u64| status.cores.iter().map(|core| read(core)).sum::<u64>();
    let cores: Vec<_> = status
        .cores
        .iter()
        .map(|core| {
            json!({
                "core": core.core,
                "connections": core.connections.get(),
                "inflight": core.inflight.get(),
                "loop_lag_us": core.loop_lag_micros.get(),
            })
        })
        .collect();
    let providers: Vec<_> = status
        .providers
        .iter()
        .map(|provider| {
            json!({
                "name": provider.name,
                "keys": provider.keys,
                "age_seconds": provider.age_seconds,
            })
        })
        .collect();
    let (code, _, _) = readiness(status);
    let [enforced, shadows] = status.policies;
    let mut text = json!({
        "version": status.version,
        "commit": status.commit,
        "instance": status.instance,
        "driver": status.driver,
        "uptime_seconds": status.uptime_seconds,
        "workers": status.workers,
        "alive": status.alive,
        "ready": code == 200,
        "draining": status.draining,
        "not_ready": status.not_ready,
        "config": {
            "generation": status.generation,
            "last_reload_successful": status.process.reload_successful(),
            "policy_epoch": status.process.policy_epoch(),
        },
        "policy": {
            "policies": enforced,
            "shadow_policies": shadows,
            "warnings": status.policy_warnings,
        },
        "trust_providers": providers,
        "servers": servers(status),
        "revocation": if status.invalidations { "pushed" } else { "by the 60 s lifetimes alone" },
        "connections": sum(|core| core.connections.get()),
        "inflight": sum(|core| core.inflight.get()),
        "cores": cores,
    })
    .to_string();
    text.push('\n');
    text
}

/// Each server, as the cores know it. What one of them cannot use is worth a look, so the worst of
/// them is told; of errors and eras the last.
fn servers(status: &Status<'_>) -> Vec<serde_json::Value> {
    let of = |name: &str| {
        let views = || status.cores.iter().flat_map(|core| core.servers());
        let views = || views().filter(|view| view.server == name);
        let breaker = views().map(|view| view.breaker).max().unwrap_or(BreakerState::Closed);
        let era = views().find_map(|view| view.era);
        let error = views().filter_map(|view| view.last_error).max_by_key(|(_, at)| *at);
        json!({
            "name": name,
            "era": era.map(SeenEra::as_str),
            "breaker": breaker.as_str(),
            "last_error": error.map(|(reason, at)| json!({
                "reason": reason,
                "age_seconds": status.now.micros_since(at) / 1_000_000,
            })),
        })
    };
    status.servers.iter().map(|name| of(name)).collect()
}

/// The Prometheus text exposition, format 0.0.4.
#[must_use]
pub fn render_metrics(status: &Status<'_>) -> String {
    let mut out = Exposition::new();
    requests(&mut out, status);
    per_core(&mut out, status.cores);
    caches(&mut out, status.cores);
    policies(&mut out, status.cores);
    upstreams(&mut out, status.cores);
    bus(&mut out, status.cores);
    process(&mut out, status);
    out.finish()
}

fn requests(out: &mut Exposition, status: &Status<'_>) {
    out.family("requests_total", Type::Counter, "Requests answered.");
    let mut total = std::collections::BTreeMap::new();
    let mut other = 0;
    for core in status.cores {
        for (label, count) in core.requests() {
            *total.entry(label).or_insert(0) += count;
        }
        other += core.requests_other();
    }
    for (label, count) in total {
        out.sample(
            &[
                ("server", &label.server),
                ("method", (status.method_name)(label.method)),
                ("decision", label.decision.as_str()),
                ("status", &label.status.to_string()),
            ],
            count,
        );
    }
    if other > 0 {
        let names = ["server", "method", "decision", "status"];
        out.sample(&names.map(|name| (name, "other")), other);
    }
    out.family("refusals_total", Type::Counter, "Requests refused, by the audit record's reason.");
    let refusals = status.cores.iter().flat_map(|core| core.refusals());
    labelled(out, "reason", refusals);
    out.family("pdp_requests_total", Type::Counter, "Questions to the remote decision point.");
    let sum = |pick: fn(&Counters) -> u64| status.cores.iter().map(|core| pick(core)).sum();
    out.sample(&[("outcome", "permit")], sum(|core| core.pdp_permits.get()));
    out.sample(&[("outcome", "deny")], sum(|core| core.pdp_denials.get()));
    out.sample(&[("outcome", "error")], sum(|core| core.pdp_errors.get()));
    let help = "Requests permitted by what the remote decision point answered a moment before.";
    out.family("pdp_kept_permits_total", Type::Counter, help);
    out.sample(&[], sum(|core| core.pdp_kept.get()));
    let cores = || status.cores.iter();
    let help = "Time until the remote decision point answered, or did not.";
    histogram(out, "pdp_request_seconds", help, cores().map(|core| &core.pdp_duration));
    let help = "Time that the gateway itself added to a request.";
    histogram(out, "request_overhead_seconds", help, cores().map(|core| &core.overhead));
    let help = "Time from the request head to the last byte of the answer.";
    histogram(out, "request_duration_seconds", help, cores().map(|core| &core.duration));
}

/// The parts added up.
fn histogram<'a>(
    out: &mut Exposition,
    name: &'static str,
    help: &str,
    parts: impl Iterator<Item = &'a Histogram>,
) {
    let mut counts = [0_u64; HISTOGRAM_BOUNDS.len() + 1];
    let mut sum = 0_u64;
    for part in parts {
        let (buckets, micros) = part.read();
        for (total, count) in counts.iter_mut().zip(buckets) {
            *total += count;
        }
        sum += micros;
    }
    out.histogram(name, help, &HISTOGRAM_BOUNDS, &counts, sum);
}

fn per_core(out: &mut Exposition, cores: &[Arc<Counters>]) {
    type Read = fn(&Counters) -> u64;
    let families: [(&'static str, Type, &str, Read); 6] = [
        ("connections", Type::Gauge, "Open downstream connections.", |c| c.connections.get()),
        ("inflight", Type::Gauge, "Requests in flight.", |c| c.inflight.get()),
        ("ring_enters_total", Type::Counter, "Kernel crossings of the event loop.", |c| {
            c.ring_enters.get()
        }),
        ("park_errors_total", Type::Counter, "Errors while the event loop waited.", |c| {
            c.park_errors.get()
        }),
        ("tls_handshake_failures_total", Type::Counter, "Failed downstream handshakes.", |c| {
            c.tls_handshake_failures.get()
        }),
        ("source_refusals_total", Type::Counter, "Connections without a PROXY header.", |c| {
            c.source_refusals.get()
        }),
    ];
    for (name, kind, help, read) in families {
        out.family(name, kind, help);
        for core in cores {
            out.sample(&[("core", &core.core.to_string())], read(core));
        }
    }
    out.family("loop_lag_seconds", Type::Gauge, "Longest recent delay of the event loop.");
    for core in cores {
        out.seconds(&[("core", &core.core.to_string())], core.loop_lag_micros.get());
    }
}

fn caches(out: &mut Exposition, cores: &[Arc<Counters>]) {
    let sum = |read: fn(&Counters) -> u64| cores.iter().map(|core| read(core)).sum::<u64>();
    out.family("token_cache_total", Type::Counter, "Tokens, by whether they were known.");
    out.sample(&[("outcome", "hit")], sum(|core| core.token_hits.get()));
    out.sample(&[("outcome", "miss")], sum(|core| core.token_misses.get()));
    out.family("decision_cache_total", Type::Counter, "Decisions, by whether they were at hand.");
    out.sample(&[("outcome", "hit")], sum(|core| core.decision_hits.get()));
    out.sample(&[("outcome", "miss")], sum(|core| core.decision_misses.get()));
    let help = "Upstream credentials, by whether they were at hand.";
    out.family("credential_cache_total", Type::Counter, help);
    out.sample(&[("outcome", "hit")], sum(|core| core.credential_hits.get()));
    out.sample(&[("outcome", "miss")], sum(|core| core.credential_misses.get()));
}

fn policies(out: &mut Exposition, cores: &[Arc<Counters>]) {
    let sum = |read: fn(&Counters) -> u64| cores.iter().map(|core| read(core)).sum::<u64>();
    let help = "Permitted requests that shadow policies would have denied.";
    out.family("shadow_denials_total", Type::Counter, help);
    out.sample(&[], sum(|core| core.shadow_denials.get()));
    let help = "Items of lists, by whether the agent was shown them.";
    out.family("list_items_total", Type::Counter, help);
    out.sample(&[("outcome", "shown")], sum(|core| core.items_shown.get()));
    out.sample(&[("outcome", "hidden")], sum(|core| core.items_hidden.get()));
}

fn upstreams(out: &mut Exposition, cores: &[Arc<Counters>]) {
    out.family("upstream_connections", Type::Gauge, "Open connections to upstreams.");
    let mut total = std::collections::BTreeMap::new();
    for view in cores.iter().flat_map(|core| core.servers()) {
        let entry: &mut (u64, u64, [u64; 3], u64) = total.entry(view.server).or_default();
        entry.3 += view.strays;
        entry.0 += view.active;
        entry.1 += view.idle;
        if let Some(cores) = entry.2.get_mut(view.breaker as usize) {
            *cores += 1;
        }
    }
    for (server, (active, idle, ..)) in &total {
        out.sample(&[("server", server), ("state", "active")], *active);
        out.sample(&[("server", server), ("state", "idle")], *idle);
    }
    out.family("stray_answers_total", Type::Counter, "Answers of upstreams that nobody asked for.");
    for (server, (.., strays)) in &total {
        out.sample(&[("server", server)], *strays);
    }
    let help = "Cores on which requests of /mcp to an upstream go, wait for one that tries, or do \
                not go.";
    out.family("upstream_breaker", Type::Gauge, help);
    for (server, (_, _, breakers, _)) in total {
        for (state, cores) in BreakerState::ALL.into_iter().zip(breakers) {
            out.sample(&[("server", server), ("state", state.as_str())], cores);
        }
    }
}

fn bus(out: &mut Exposition, cores: &[Arc<Counters>]) {
    out.family("bus_notices_total", Type::Counter, "Cross-core notices received.");
    let notices = cores.iter().flat_map(|core| core.notices());
    labelled(out, "kind", notices.map(|(kind, count)| (kind.as_str(), count)));
    let sum = |read: fn(&Counters) -> u64| cores.iter().map(|core| read(core)).sum::<u64>();
    let (received, dropped) = (sum(|c| c.mail_received.get()), sum(|c| c.mail_dropped.get()));
    let help = "Letters of other cores, by whether somebody waited for them.";
    out.family("mail_total", Type::Counter, help);
    out.sample(&[("outcome", "taken")], received.saturating_sub(dropped));
    out.sample(&[("outcome", "dropped")], dropped);
    let help = "Inboxes that overflowed and made their core forget everything.";
    out.family("bus_overflows_total", Type::Counter, help);
    out.sample(&[], cores.iter().map(|core| core.bus_overflows.get()).sum());
}

fn process(out: &mut Exposition, status: &Status<'_>) {
    out.family("jwks_refresh_total", Type::Counter, "Refreshes of an issuer's keys.");
    for (issuer, outcome, count) in status.process.jwks_refreshes() {
        out.sample(&[("issuer", &issuer), ("outcome", outcome.as_str())], count);
    }
    out.family("audit_records_total", Type::Counter, "Audit records.");
    let records = status.process.audit_records();
    labelled(out, "outcome", records.map(|(outcome, count)| (outcome.as_str(), count)));
    let compile = &status.process.policy_compile;
    let help = "Time in which policies were read and compiled, each time that they were.";
    histogram(out, "policy_compile_seconds", help, [compile].into_iter());
    let help = "Reloads of policies, alone or with the configuration.";
    out.family("policy_reloads_total", Type::Counter, help);
    for (trigger, [refused, taken]) in status.process.reloads() {
        for (outcome, count) in [("refused", refused), ("taken", taken)] {
            out.sample(&[("trigger", trigger.as_str()), ("outcome", outcome)], count);
        }
    }
    let help = "1 when the last reload was taken, and so was the last one that was not of policies \
                alone (or none happened), else 0.";
    out.family("config_last_reload_successful", Type::Gauge, help);
    out.sample(&[], u64::from(status.process.reload_successful()));
    out.family("policy_epoch", Type::Gauge, "The policy epoch in force.");
    out.sample(&[], status.process.policy_epoch());
    out.family("build_info", Type::Gauge, "Always 1.");
    out.sample(&[("version", status.version), ("commit", status.commit)], 1);
}

/// Samples with one label, the same value of it added up.
fn labelled<'a>(out: &mut Exposition, name: &str, samples: impl Iterator<Item = (&'a str, u64)>) {
    let mut total = std::collections::BTreeMap::new();
    for (value, count) in samples {
        *total.entry(value).or_insert(0) += count;
    }
    for (value, count) in total {
        out.sample(&[(name, value)], count);
    }
}

/// Content type of the text exposition.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";
const JSON_TYPE: &str = "application/json";

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::metrics::{
    AuditOutcome, BreakerState, Decision, Meter, NoticeKind, RefreshOutcome, ReloadTrigger, SeenEra,
};
use crate::reject::Reject;

/// A family as a strict reader of the format sees it.
#[derive(Default, Debug)]
struct Family {
    kind: String,
    /// Suffix, labels in order, value.
    samples: Vec<(String, Labels, f64)>,
}

type Labels = Vec<(String, String)>;

/// Reads format 0.0.4 and panics on everything that it does not allow.
fn strict(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n') && !text.contains('\r'));
    let mut families = BTreeMap::<String, Family>::new();
    let mut helped = BTreeSet::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(helped.insert(name.to_owned()), "HELP twice: {name}");
            assert!(!help.is_empty());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(helped.contains(name), "TYPE without HELP: {name}");
            assert!(matches!(kind, "counter" | "gauge" | "histogram"));
            let family = Family { kind: kind.to_owned(), samples: Vec::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "TYPE twice: {name}");
            current = name.to_owned();
        } else {
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "twice: {line}");
            let (name, labels, value) = sample(line);
            let suffix = name.strip_prefix(current.as_str());
            let suffix = suffix.unwrap_or_else(|| panic!("{name} is not grouped with {current}"));
            let family = families.get_mut(&current).unwrap();
            let suffixes: &[&str] = match family.kind.as_str() {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert_eq!(family.kind == "counter", name.ends_with("_total"), "{line}");
            family.samples.push((suffix.to_owned(), labels, value));
        }
    }
    families
}

fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap();
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap();
            assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
            let (value, after) = quoted(after);
            labels.push((label.to_owned(), value));
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap();
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '));
    (name.to_owned(), labels, value.parse().unwrap())
}

fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match letters.next().unwrap().1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                other => panic!("escape {other}"),
            }),
            other => value.push(other),
        }
    }
    panic!("not closed: {text}");
}

fn method_name(number: u8) -> &'static str {
    if number == 7 { "tools/call" } else { "unknown" }
}

struct Bench {
    meters: Vec<Meter>,
    cores: Vec<Arc<Counters>>,
    process: ProcessCounters,
    servers: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        let meters = vec![Meter::new(0), Meter::new(3)];
        let cores = meters.iter().map(Meter::share).collect();
        let servers = ["github", "idle"].map(str::to_owned).to_vec();
        Self { meters, cores, process: ProcessCounters::default(), servers }
    }

    fn status<'a>(
        &'a self,
        not_ready: &'a [String],
        providers: &'a [ProviderStatus],
    ) -> Status<'a> {
        Status {
            version: "0.1.0",
            commit: "abc",
            instance: "one",
            driver: "io_uring",
            uptime_seconds: 5,
            workers: 2,
            alive: true,
            draining: false,
            not_ready,
            generation: 4,
            providers,
            servers: &self.servers,
            now: Monotonic(9_500_000),
            invalidations: false,
            cores: &self.cores,
            process: &self.process,
            policies: [1, 0],
            policy_warnings: &[],
            method_name,
        }
    }

    fn busy() -> Self {
        let bench = Self::new();
        for meter in &bench.meters {
            meter.set_servers([Arc::from("github"), Arc::from("a\"b\\c\nd")].into_iter());
            meter.request(Some(0), 7, Decision::Permit, 200);
            meter.request(Some(1), 7, Decision::Error, 502);
            meter.request(None, 0, Decision::Deny, 401);
            meter.refusal(Reject::TokenMissing);
            meter.refusal(Reject::PolicyDenied);
            meter.refusal(Reject::PolicyCallNoPermit);
            meter.notice(NoticeKind::Published);
            meter.upstream_connections(0, 2, 3);
            let counters = meter.counters();
            for micros in [0, 1, 3, 2_000_000, u64::from(u32::MAX) * 2] {
                counters.overhead.record(micros);
            }
            counters.connections.add(9);
            counters.loop_lag_micros.set(1_500);
            counters.decision_hits.add(5);
            counters.items_hidden.add(3);
        }
        bench.meters[1].upstream_breaker(0, BreakerState::Open);
        bench.meters[1].stray_answer(0);
        bench.meters[0].upstream_era(0, SeenEra::Legacy);
        bench.meters[0].upstream_error(0, Reject::UpstreamTimeout, Monotonic(2_000_000));
        bench.meters[1].upstream_error(0, Reject::UpstreamConnect, Monotonic(7_000_000));
        bench.process.jwks_refresh("https://idp.example.com", RefreshOutcome::Changed);
        bench.process.audit(AuditOutcome::Written, 6);
        bench.process.set_policy_epoch(11);
        bench.process.count_reload(ReloadTrigger::Watch, false);
        bench.process.policy_compile.record(1_500_000);
        bench
    }
}

fn value(family: &Family, labels: &[(&str, &str)]) -> f64 {
    let labels: Vec<_> = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let found = family.samples.iter().find(|(_, have, _)| *have == labels);
    found.unwrap_or_else(|| panic!("{labels:?} not in {family:?}")).2
}

#[test]
fn the_exposition_is_valid_and_has_the_names_and_labels_of_the_contract() {
    let bench = Bench::busy();
    let families = strict(&render_metrics(&bench.status(&[], &[])));
    let expected = [
        ("requests_total", "server method decision status"),
        ("pdp_requests_total", "outcome"),
        ("pdp_kept_permits_total", ""),
        ("pdp_request_seconds", "le"),
        ("request_overhead_seconds", "le"),
        ("request_duration_seconds", "le"),
        ("refusals_total", "reason"),
        ("connections", "core"),
        ("inflight", "core"),
        ("jwks_refresh_total", "issuer outcome"),
        ("token_cache_total", "outcome"),
        ("decision_cache_total", "outcome"),
        ("credential_cache_total", "outcome"),
        ("upstream_connections", "server state"),
        ("stray_answers_total", "server"),
        ("upstream_breaker", "server state"),
        ("mail_total", "outcome"),
        ("bus_notices_total", "kind"),
        ("bus_overflows_total", ""),
        ("audit_records_total", "outcome"),
        ("loop_lag_seconds", "core"),
        ("ring_enters_total", "core"),
        ("park_errors_total", "core"),
        ("tls_handshake_failures_total", "core"),
        ("source_refusals_total", "core"),
        ("shadow_denials_total", ""),
        ("list_items_total", "outcome"),
        ("config_last_reload_successful", ""),
        ("policy_epoch", ""),
        ("policy_compile_seconds", "le"),
        ("policy_reloads_total", "trigger outcome"),
        ("build_info", "version commit"),
    ];
    let names: BTreeSet<_> =
        expected.iter().map(|(name, _)| format!("portcullis_{name}")).collect();
    assert_eq!(families.keys().cloned().collect::<BTreeSet<_>>(), names);
    for (name, labels) in expected {
        let family = &families[&format!("portcullis_{name}")];
        let (_, have, _) = &family.samples[0];
        let have: Vec<_> = have.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(have.join(" "), labels, "{name}");
    }
}

#[test]
fn cores_are_added_up_where_the_contract_has_no_core_label() {
    let bench = Bench::busy();
    let families = strict(&render_metrics(&bench.status(&[], &[])));
    let requests = &families["portcullis_requests_total"];
    let label = |server, method, decision, status| {
        [("server", server), ("method", method), ("decision", decision), ("status", status)]
    };
    assert_eq!(value(requests, &label("github", "tools/call", "permit", "200")), 2.0);
    assert_eq!(value(requests, &label("a\"b\\c\nd", "tools/call", "error", "502")), 2.0);
    assert_eq!(value(requests, &label("", "unknown", "deny", "401")), 2.0);
    let refusals = &families["portcullis_refusals_total"];
    assert_eq!(value(refusals, &[("reason", "no_permit")]), 4.0, "two rejects, one reason");
    assert_eq!(value(&families["portcullis_connections"], &[("core", "3")]), 9.0);
    assert_eq!(value(&families["portcullis_loop_lag_seconds"], &[("core", "0")]), 0.0015);
    let strays = &families["portcullis_stray_answers_total"];
    assert_eq!(value(strays, &[("server", "github")]), 1.0);
    let breakers = &families["portcullis_upstream_breaker"];
    let label = |state| [("server", "github"), ("state", state)];
    assert_eq!(value(breakers, &label("closed")), 1.0);
    assert_eq!(value(breakers, &label("half_open")), 0.0);
    assert_eq!(value(breakers, &label("open")), 1.0);
    let upstreams = &families["portcullis_upstream_connections"];
    assert_eq!(value(upstreams, &[("server", "github"), ("state", "idle")]), 6.0);
    assert_eq!(value(&families["portcullis_list_items_total"], &[("outcome", "hidden")]), 6.0);
    assert_eq!(value(&families["portcullis_policy_epoch"], &[]), 11.0);
    assert_eq!(value(&families["portcullis_config_last_reload_successful"], &[]), 1.0);
    let reloads = &families["portcullis_policy_reloads_total"];
    let label = |trigger, outcome| [("trigger", trigger), ("outcome", outcome)];
    assert_eq!(value(reloads, &label("watch", "refused")), 1.0);
    assert_eq!(value(reloads, &label("watch", "taken")), 0.0, "there before it counts");
    let compile = &families["portcullis_policy_compile_seconds"];
    assert_eq!(value(compile, &[("le", "+Inf")]), 1.0);
    assert_eq!(value(compile, &[("le", "1.048576")]), 0.0);
}

#[test]
fn histograms_are_cumulative_and_end_in_infinity() {
    let bench = Bench::busy();
    let families = strict(&render_metrics(&bench.status(&[], &[])));
    let family = &families["portcullis_request_overhead_seconds"];
    let buckets: Vec<_> =
        family.samples.iter().filter(|(suffix, ..)| suffix == "_bucket").collect();
    let bounds: Vec<f64> =
        buckets.iter().map(|(_, labels, _)| labels[0].1.parse().unwrap()).collect();
    assert_eq!(bounds.first(), Some(&0.000_001));
    assert_eq!(bounds.last(), Some(&f64::INFINITY));
    assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]));
    assert!(buckets.windows(2).all(|pair| pair[0].2 <= pair[1].2));
    assert_eq!(value(family, &[("le", "0.000001")]), 4.0);
    assert_eq!(value(family, &[("le", "0.000003")]), 6.0);
    assert_eq!(value(family, &[("le", "4294.967296")]), 8.0);
    assert_eq!(value(family, &[("le", "+Inf")]), 10.0);
    let last = |name: &str| family.samples.iter().find(|(suffix, ..)| suffix == name).unwrap().2;
    assert_eq!(last("_count"), 10.0);
    assert!((last("_sum") - 17_183.869_188).abs() < 1e-6, "{}", last("_sum"));
}

#[test]
fn nothing_counted_is_valid_too() {
    let bench = Bench::new();
    let families = strict(&render_metrics(&bench.status(&[], &[])));
    assert!(families["portcullis_requests_total"].samples.is_empty());
    assert_eq!(value(&families["portcullis_request_duration_seconds"], &[("le", "+Inf")]), 0.0);
}

#[test]
fn overflowed_labels_show_as_other() {
    let bench = Bench::new();
    for number in 0..(crate::limits::METRIC_REQUEST_SLOTS_MAX as u32 + 3) {
        bench.meters[0].request(None, (number >> 12) as u8, Decision::Deny, number as u16 & 0xfff);
    }
    let families = strict(&render_metrics(&bench.status(&[], &[])));
    let names = ["server", "method", "decision", "status"].map(|name| (name, "other"));
    assert_eq!(value(&families["portcullis_requests_total"], &names), 3.0);
}

#[test]
fn probes_answer_as_an_orchestrator_reads_them() {
    let bench = Bench::new();
    let reasons = ["no keys for corp".to_owned()];
    let sound = || bench.status(&[], &[]);
    let dead = Status { alive: false, ..sound() };
    let draining = Status { draining: true, ..sound() };
    let unready = bench.status(&reasons, &[]);
    for (status, path, code, body) in [
        (&sound(), "/livez", 200, "ok\n"),
        (&sound(), "/readyz", 200, "ok\n"),
        (&dead, "/livez", 503, "a core does not move\n"),
        (&dead, "/readyz", 503, "a core does not move\n"),
        (&draining, "/livez", 200, "ok\n"),
        (&draining, "/readyz", 503, "draining\n"),
        (&unready, "/livez", 200, "ok\n"),
        (&unready, "/readyz", 503, "no keys for corp\n"),
        (&sound(), "/", 404, "not found\n"),
        (&sound(), "/metrics/", 404, "not found\n"),
    ] {
        let answer = answer(path, status);
        assert_eq!((answer.0, answer.2.as_str()), (code, body), "{path}");
        assert_eq!(answer.1, "text/plain; charset=utf-8");
    }
    let metrics = answer("/metrics", &sound());
    assert_eq!((metrics.0, metrics.1), (200, "text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn status_is_json_and_says_what_bounds_revocation() {
    let bench = Bench::busy();
    let providers = [ProviderStatus { name: "corp".to_owned(), keys: 2, age_seconds: Some(30) }];
    bench.process.set_reload(false);
    let (code, kind, body) = answer("/status", &bench.status(&[], &providers));
    assert_eq!((code, kind), (200, "application/json"));
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(document["ready"], true);
    assert_eq!(document["connections"], 18);
    assert_eq!(document["config"]["last_reload_successful"], false);
    assert_eq!(document["config"]["policy_epoch"], 11);
    assert_eq!(document["trust_providers"][0]["age_seconds"], 30);
    assert_eq!(document["cores"][1]["core"], 3);
    let github = serde_json::json!({
        "name": "github",
        "era": "legacy",
        "breaker": "open",
        "last_error": {"reason": "upstream_connect", "age_seconds": 2},
    });
    assert_eq!(document["servers"][0], github, "the worst of its cores, and the last error");
    let idle = serde_json::json!(
        {"name": "idle", "era": null, "breaker": "closed", "last_error": null});
    assert_eq!(document["servers"][1], idle);
    assert_eq!(document["revocation"], "by the 60 s lifetimes alone");
}

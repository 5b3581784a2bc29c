//! The official conformance suite says the same through the gateway as at the upstream itself.

use std::collections::BTreeSet;

use crate::gateway::{Gateway, Setup, USER};
use crate::install::{Tools, tools};
use crate::process::Running;
use crate::suite;
use crate::{
    ends_with_a_true_record, everything, node, permit_all, serial, shim, upstream_saw_no_token,
};

/// Where the suite finds the one server.
#[derive(Clone, Copy, Debug)]
enum At {
    /// `/mcp/everything`.
    ItsOwn,
    /// `/mcp`, where the one server has no prefix.
    TheOne,
}

/// What the suite runs.
#[derive(Clone, Copy, Debug)]
enum Scenarios {
    /// What a revision requires.
    Required,
    /// All there are for a revision.
    All,
}

#[test]
fn conformance_2025_11_25_is_the_same_through_the_gateway() {
    conformance_is_the_same(At::ItsOwn, Scenarios::Required, "2025-11-25", 30, &[]);
}

#[test]
fn conformance_2026_07_28_is_the_same_through_the_gateway() {
    conformance_is_the_same(At::ItsOwn, Scenarios::Required, "2026-07-28", 37, NOT_OFFERED);
}

#[test]
fn conformance_2025_11_25_is_the_same_at_the_one_url() {
    conformance_is_the_same(At::TheOne, Scenarios::Required, "2025-11-25", 30, &[]);
}

#[test]
fn conformance_2026_07_28_is_the_same_at_the_one_url() {
    conformance_is_the_same(At::TheOne, Scenarios::Required, "2026-07-28", 37, NOT_OFFERED);
}

/// The suite has 27 scenarios and one for these.
#[test]
fn conformance_of_older_revisions_is_the_same_at_the_one_url() {
    conformance_is_the_same(At::TheOne, Scenarios::All, "2025-06-18", 27, &[]);
    conformance_is_the_same(At::TheOne, Scenarios::All, "2025-03-26", 1, &[]);
}

fn conformance_is_the_same(
    at: At,
    scenarios: Scenarios,
    revision: &str,
    count: usize,
    not_offered: &[&str],
) {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let run = |name: &str, url: &str| {
        let name = format!("{name}-{at:?}-{revision}");
        match scenarios {
            Scenarios::Required => suite::required(tools, &name, url, revision),
            Scenarios::All => suite::all(tools, &name, url, revision),
        }
    };
    let direct = run("direct", &format!("http://localhost:{port}/mcp"));
    assert!(direct.passed, "the upstream itself fails:{}", direct.summary);
    assert!(direct.checks.len() >= count, "{} scenarios", direct.checks.len());
    for (scenario, checks) in &direct.checks {
        let offered = !not_offered.iter().any(|prefix| scenario.starts_with(prefix));
        let failed = checks.keys().any(|(_, status)| status == "FAILURE");
        assert!(!(offered && failed), "{scenario} fails without a gateway: {checks:?}");
    }

    let (prefix, path) = match at {
        At::ItsOwn => (None, "/mcp/everything"),
        At::TheOne => (Some(""), "/mcp"),
    };
    let name = format!("{at:?}-{revision}");
    let gateway = Gateway::start(tools, &Setup { prefix, ..permit_all(&name, port) });
    let token = gateway.token_of(USER, "interop-agent", &gateway.url_of(path));
    let (_shim, shim) = shim(tools, gateway.port, Some(&token));
    let through = run("through", &format!("http://localhost:{shim}{path}"));
    let differences = suite::differences(&direct.checks, &through.checks);
    let differ: BTreeSet<_> =
        differences.iter().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    let not_yet = not_yet(at, revision);
    assert_eq!(differ, BTreeSet::from_iter(not_yet.iter().copied()), "{}", differences.join("\n"));
    assert!(through.passed || !not_yet.is_empty(), "{}", through.summary);
    upstream_saw_no_token(port);
    ends_with_a_true_record(gateway, &token);
}

/// Scenarios that need what `/mcp` does not offer yet (`src/manual/federation.md`): these differ,
/// and no others. What begins to be the same has to leave the list.
fn not_yet(at: At, revision: &str) -> &'static [&'static str] {
    match (at, revision) {
        (At::TheOne, "2025-06-18") => &[
            "logging-set-level",
            "resources-subscribe",
            "resources-unsubscribe",
            "tools-call-elicitation",
            "tools-call-sampling",
            "tools-call-with-logging",
        ],
        (At::TheOne, "2025-11-25") => &[
            "elicitation-sep1034-defaults",
            "elicitation-sep1330-enums",
            "logging-set-level",
            "resources-subscribe",
            "resources-unsubscribe",
            // Lists come as JSON at once, where the server alone sends them as events.
            "server-sse-multiple-streams",
            "server-sse-polling",
            "tools-call-elicitation",
            "tools-call-sampling",
            "tools-call-with-logging",
        ],
        // What servers announce about their lists (a SHOULD) does not reach the stream.
        (At::TheOne, "2026-07-28") => &["server-stateless"],
        _ => &[],
    }
}

/// The control of those above: what differs there, the gateway did and not the shim.
#[test]
fn conformance_is_the_same_through_the_shim_alone() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let (_upstream, port) = everything(tools);
    let (_shim, shim) = shim(tools, port, None);
    let at = |port: u16| format!("http://localhost:{port}/mcp");
    let direct = suite::required(tools, "control-direct", &at(port), "2025-11-25");
    let through = suite::required(tools, "control-shim", &at(shim), "2025-11-25");
    let differences = suite::differences(&direct.checks, &through.checks);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// mcp M1-M3, H2: in front of an upstream that looks at no header, every refusal is the gateway's
/// own.
#[test]
fn lax_upstream_is_guarded_by_the_gateway() {
    let _one = serial();
    let Some(tools) = tools() else { return };
    let mut lax = Running::start("lax", &tools.runs, node(tools, "lax.mjs").arg("0"));
    let port = lax.port();
    let gateway = Gateway::start(tools, &permit_all("lax", port));
    let (_shim, shim) = shim(tools, gateway.port, Some(&gateway.token(USER)));
    let direct = format!("http://localhost:{port}/mcp");
    let through = format!("http://localhost:{shim}/mcp/everything");
    for scenario in ["http-header-validation", "dns-rebinding-protection"] {
        let name = format!("lax-direct-{scenario}");
        let run = suite::scenario(tools, &name, &direct, scenario, "2026-07-28");
        let refused = suite::with_status(&run.checks, "FAILURE");
        assert!(!refused.is_empty(), "{scenario}: the upstream is not lax, so this proves nothing");
        let name = format!("lax-through-{scenario}");
        let run = suite::scenario(tools, &name, &through, scenario, "2026-07-28");
        for status in ["FAILURE", "WARNING", "SKIPPED"] {
            let bad = suite::with_status(&run.checks, status);
            assert!(bad.is_empty(), "{scenario}: {status}: {bad:?}");
        }
        assert!(
            !suite::with_status(&run.checks, "SUCCESS").is_empty(),
            "{scenario}: nothing was checked"
        );
    }
    custom_headers_are_not_worse(tools, &direct, &through);
}

/// mcp M3, M4: without the tool's schema the gateway cannot know which parameters are mirrored, so
/// a header that is missing stays the upstream's to refuse; whatever is accepted directly must be
/// accepted through it.
fn custom_headers_are_not_worse(tools: &Tools, direct: &str, through: &str) {
    let scenario = "http-custom-header-server-validation";
    let before = suite::scenario(tools, "lax-direct-custom", direct, scenario, "2026-07-28");
    let after = suite::scenario(tools, "lax-through-custom", through, scenario, "2026-07-28");
    let count = |run: &suite::Run, status| {
        let all = run.checks.values().flatten();
        all.filter(|((_, found), _)| found == status).map(|(_, n)| n).sum::<u32>()
    };
    assert!(count(&before, "SUCCESS") > 0, "{:?}", before.checks);
    assert!(count(&after, "SUCCESS") >= count(&before, "SUCCESS"), "{:?}", after.checks);
    assert!(count(&after, "FAILURE") <= count(&before, "FAILURE"), "{:?}", after.checks);
}

/// The tasks extension is not required, and no current SDK server offers it.
const NOT_OFFERED: &[&str] = &["tasks-"];

//! A decision from the cache: both questions of a `tools/call`, the permit included.

#![allow(missing_docs, reason = "criterion's macros make items without docs")]

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::clock::UnixSeconds;
use portcullis::judge::policy::{Context, PolicySet, QTarget, Setting, Source, Subject};
use portcullis::policy::{Ask, Enforcer, Form};

#[path = "support/counting.rs"]
mod counting;

/// One set that reads nothing of the context, and one that reads much of it.
const PLAIN: &str = r#"
@id("connect") permit (principal, action == Action::"connect", resource);
@id("use") permit (principal is User, action in Action::"use", resource in Server::"github");
"#;
const READING: &str = r#"
@id("connect") permit (principal, action == Action::"connect", resource)
when { context.agent == Agent::"claude" };
@id("use") permit (principal is User, action in Action::"use", resource in Server::"github")
when { context.scopes.contains("read") && context.local.weekday <= 7
    && context.source.ip.isInRange(ip("10.0.0.0/8")) };
"#;

fn set(text: &str) -> PolicySet {
    let setting = Setting {
        epoch: 1,
        servers: &["github"],
        credentials: &[],
        methods: &[],
        timezone: "Europe/Berlin",
        geoip: false,
    };
    let source = Source { path: "bench.cedar".into(), text: text.to_owned() };
    match PolicySet::compile(&[source], Path::new("."), &setting) {
        Ok(set) => set,
        Err(_) => std::process::abort(),
    }
}

fn warm(criterion: &mut Criterion) {
    let (groups, scopes) = (["staff".to_owned()], ["read".to_owned()]);
    let subject = Subject {
        user: Some("alice@example.com"),
        agent: "claude",
        groups: &groups,
        scopes: &scopes,
        acr: None,
        auth_time: None,
        digest: &[1; 32],
    };
    let now = UnixSeconds(1_795_400_107);
    let context =
        Context { revision: Some("2025-11-25"), ..Context::at([10, 0, 0, 1].into(), now) };
    let ask = Ask {
        subject: &subject,
        server: (0, "github"),
        method: "tools/call",
        form: Form::Request,
        context: &context,
        default_credential: None,
    };
    for (case, text) in [("plain", PLAIN), ("reading", READING)] {
        let (set, enforcer) = (set(text), Enforcer::default());
        let name = format!("policy_decide_warm/{case}");
        counting::report(&name, || {
            enforcer.enforce(black_box(&set), &ask, [QTarget::Tool("create_issue")]).is_ok()
        });
        criterion.bench_function(&name, |bench| {
            bench.iter(|| {
                enforcer.enforce(black_box(&set), &ask, [QTarget::Tool("create_issue")]).is_ok()
            });
        });
        // Two questions each time, and fresh answers only at the first.
        if enforcer.counts().misses != 2 {
            std::process::abort();
        }
    }
}

criterion_group!(benches, warm);
criterion_main!(benches);

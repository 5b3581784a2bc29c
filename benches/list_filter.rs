//! A list of a hundred tools in 30 KB on its way to an agent that may use two thirds of them: the
//! decisions, and reading and writing the list, apart.

#![allow(missing_docs, reason = "criterion's macros make items without docs")]

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::clock::UnixSeconds;
use portcullis::judge::policy::{Context, PolicySet, Setting, Source, Subject};
use portcullis::mcp::{ListReader, Listed};
use portcullis::policy::{Ask, Enforcer, Form, Shown};

/// All but `delete_…` may be used; in the second set conditions say so.
const PLAIN: &str = r#"
@id("use") permit (principal is User, action in Action::"use", resource in Server::"github");
"#;
const READING: &str = r#"
@id("use") permit (principal is User, action in Action::"use", resource in Server::"github")
when { context.agent == Agent::"claude" && context.local.weekday <= 7
    && context.source.ip.isInRange(ip("10.0.0.0/8")) };
"#;
const TOOLS: usize = 100;
const BODY_BYTES: usize = 30_000;

fn set(text: &str) -> PolicySet {
    let mut text = text.to_owned();
    for at in (0..TOOLS).step_by(3) {
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "@id(\"no-{at}\") forbid (principal, action == Action::\"tools/call\", \
             resource == Tool::\"github/tool_{at}\");"
        );
    }
    let setting = Setting {
        epoch: 1,
        servers: &["github"],
        credentials: &[],
        methods: &[],
        timezone: "Europe/Berlin",
        geoip: false,
    };
    let source = Source { path: "bench.cedar".into(), text };
    match PolicySet::compile(&[source], Path::new("."), &setting) {
        Ok(set) => set,
        Err(_) => std::process::abort(),
    }
}

fn body() -> Vec<u8> {
    let schema =
        r#"{"type":"object","properties":{"owner":{"type":"string"},"n":{"type":"number"}}}"#;
    let each = BODY_BYTES / TOOLS;
    let items = (0..TOOLS).map(|at| {
        let head = format!(r#"{{"name":"tool_{at}","inputSchema":{schema},"description":""#);
        let words = "a description ".repeat(each / 14);
        let left = each.saturating_sub(head.len() + 3);
        format!("{head}{}\"}}", words.get(..left).unwrap_or_default())
    });
    let items: Vec<String> = items.collect();
    let list = items.join(",");
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{list}],"nextCursor":"2"}}}}"#)
        .into_bytes()
}

/// How many of them are shown.
fn decide(enforcer: &Enforcer, set: &PolicySet, ask: &Ask<'_>, names: &[&str]) -> usize {
    let shows = |name: &&&str| enforcer.shows(set, ask, Listed::Tools, name) == Shown::Yes;
    names.iter().filter(shows).count()
}

fn list_filter(criterion: &mut Criterion) {
    let body = body();
    let mut reader = ListReader::new();
    if reader.read(&body).is_err() {
        std::process::abort();
    }
    let names: Vec<String> = reader.names().map(str::to_owned).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
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
    let context = Context::at([10, 0, 0, 1].into(), UnixSeconds(1_795_400_107));
    let ask = Ask {
        subject: &subject,
        server: (0, "github"),
        method: "",
        form: Form::Request,
        context: &context,
        default_credential: None,
    };
    for (case, text) in [("plain", PLAIN), ("reading", READING)] {
        let (set, enforcer) = (set(text), Enforcer::default());
        if decide(&enforcer, &set, &ask, &names) != 2 * TOOLS / 3 {
            std::process::abort();
        }
        criterion.bench_function(&format!("list_filter/decisions_warm/{case}"), |bench| {
            bench.iter(|| decide(&enforcer, black_box(&set), &ask, &names));
        });
        criterion.bench_function(&format!("list_filter/decisions_cold/{case}"), |bench| {
            bench.iter(|| {
                enforcer.purge();
                decide(&enforcer, black_box(&set), &ask, &names)
            });
        });
    }
    let kept: Vec<bool> = (0..TOOLS).map(|at| at % 3 != 0).collect();
    let mut out = Vec::with_capacity(body.len());
    criterion.bench_function("list_filter/read", |bench| {
        bench.iter(|| reader.read(black_box(&body)).is_ok());
    });
    criterion.bench_function("list_filter/read_and_write", |bench| {
        bench.iter(|| {
            out.clear();
            let read = reader.read(black_box(&body)).is_ok();
            reader.write(&body, &kept, true, &mut out);
            (read, out.len())
        });
    });
}

criterion_group!(benches, list_filter);
criterion_main!(benches);

//! 100 servers, and as many policies as asked for.

use std::fmt::Write;
use std::path::Path;

use portcullis::clock::UnixSeconds;
use portcullis::judge::policy::{
    Context, Mode, PolicySet, QTarget, Question, Setting, Source, Sources, Subject,
};

/// How many servers there are.
pub(crate) const SERVERS: usize = 100;
/// Tools of each server that policies name; what is measured is asked of the first.
pub(crate) const TOOL: &str = "t0";

/// One file per server, `per_server(server)` policies in each. Three in four name one of 25 tools,
/// the others the whole server; each is for one of 100 groups and has a condition.
pub(crate) fn sources(per_server: impl Fn(usize) -> usize) -> Sources {
    let mut enforced = vec![Source {
        path: "connect.cedar".into(),
        text: "@id(\"connect\") permit (principal, action == Action::\"connect\", resource);\n"
            .to_owned(),
    }];
    for server in 0..SERVERS {
        let mut text = String::new();
        for at in 0..per_server(server) {
            let place = if at % 4 == 3 {
                format!("resource in Server::\"s{server}\"")
            } else {
                format!("resource == Tool::\"s{server}/t{}\"", at % 25)
            };
            let group = at % 100;
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "@id(\"p{server}-{at}\") permit (principal in Group::\"g{group}\", \
                 action in Action::\"use\", {place}) when {{ context.scopes.contains(\"read\") }};"
            );
        }
        enforced.push(Source { path: format!("s{server:02}.cedar").into(), text });
    }
    Sources { enforced, ..Sources::default() }
}

/// Adds policies on the one tool that is asked for; all of them match.
pub(crate) fn candidates(sources: &mut Sources, count: usize) {
    let mut text = String::new();
    for at in 0..count {
        let _ = writeln!(
            text,
            "@id(\"c{at}\") permit (principal in Group::\"asked\", action in Action::\"use\", \
             resource == Tool::\"s0/asked\") when {{ context.scopes.contains(\"read\") }};"
        );
    }
    sources.enforced.push(Source { path: "candidates.cedar".into(), text });
}

/// Compiles, as a reload would.
pub(crate) fn compile(before: Option<&PolicySet>, sources: Sources) -> PolicySet {
    compile_with(before, sources, &mut || {})
}

/// The same; `pause` is called where the policy thread would let others run.
pub(crate) fn compile_with(
    before: Option<&PolicySet>,
    sources: Sources,
    pause: &mut dyn FnMut(),
) -> PolicySet {
    let names: Vec<String> = (0..SERVERS).map(|at| format!("s{at}")).collect();
    let servers: Vec<&str> = names.iter().map(String::as_str).collect();
    let setting = Setting {
        epoch: before.map_or(1, |set| set.epoch() + 1),
        servers: &servers,
        credentials: &[],
        methods: &[],
        timezone: "UTC",
        geoip: false,
    };
    match PolicySet::compile_after(before, sources, Path::new("."), &setting, pause) {
        Ok(set) => set,
        Err(_) => std::process::abort(),
    }
}

/// Whoever asks, on the way from the peer's address to the tool `name` of the first server.
pub(crate) fn with_question<T>(
    group: &str,
    name: &str,
    then: impl FnOnce(&Question<'_>) -> T,
) -> T {
    let (groups, scopes) = ([group.to_owned()], ["read".to_owned()]);
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
    then(&Question {
        subject: &subject,
        action: "tools/call",
        server: Some((0, "s0")),
        target: QTarget::Tool(name),
        context: &context,
        mode: Mode::Call,
    })
}

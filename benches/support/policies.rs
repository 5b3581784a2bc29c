//! Many policies, and one question about them.

use std::fmt::Write;
use std::path::Path;

use portcullis::clock::UnixSeconds;
use portcullis::judge::policy::{
    Context, Mode, PolicySet, QTarget, Question, Setting, Source, Subject, Verdict,
};

/// `count` policies over two servers; every second one has a condition.
pub(crate) fn many(count: usize) -> PolicySet {
    let mut text = String::from(
        "@id(\"connect\") permit (principal, action == Action::\"connect\", resource);\n",
    );
    for at in 1..count {
        let server = if at % 2 == 0 { "github" } else { "jira" };
        let condition = if at % 4 < 2 { "when { context.scopes.contains(\"read\") }" } else { "" };
        let group = at % 100;
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "@id(\"p{at}\") permit (principal in Group::\"g{group}\", action in Action::\"use\", \
             resource in Server::\"{server}\") {condition};"
        );
    }
    let setting = Setting {
        epoch: 1,
        servers: &["github", "jira"],
        credentials: &[],
        methods: &[],
        timezone: "UTC",
        geoip: false,
    };
    let source = Source { path: "bench.cedar".into(), text };
    match PolicySet::compile(&[source], Path::new("."), &setting) {
        Ok(set) => set,
        Err(_) => std::process::abort(),
    }
}

pub(crate) fn ask(set: &PolicySet, group: &str) -> Verdict {
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
    set.decide(&Question {
        subject: &subject,
        action: "tools/call",
        server: Some((0, "github")),
        target: QTarget::Tool("create_issue"),
        context: &context,
        mode: Mode::Call,
    })
}

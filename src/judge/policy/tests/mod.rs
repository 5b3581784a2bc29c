//! A table of policies and questions, and what the other test files share.

mod arguments;
mod differential;
mod edits;
mod faults;
pub(crate) mod random;
mod scale;
mod scan;
mod shadows;
mod shown;
mod steps;
mod traced;
mod warned;

use self::random::NOW;
use super::*;

pub(super) const SERVERS: [&str; 2] = ["github", "jira"];
pub(super) const CREDENTIALS: [CredentialScope<'static>; 4] = [
    CredentialScope { name: "github-user", servers: &[0] },
    CredentialScope { name: "github-bot", servers: &[0] },
    CredentialScope { name: "jira-user", servers: &[1] },
    CredentialScope { name: "both", servers: &[0, 1] },
];

pub(super) fn setting(epoch: u64) -> Setting<'static> {
    Setting {
        epoch,
        servers: &SERVERS,
        credentials: &CREDENTIALS,
        methods: &["com.example/thing"],
        timezone: "Europe/Berlin",
        geoip: false,
    }
}

pub(super) fn compiled(text: &str) -> Result<PolicySet, Vec<Fault>> {
    let source = Source { path: "p/a.cedar".into(), text: text.to_owned() };
    PolicySet::compile(&[source], Path::new("p"), &setting(1))
}

pub(super) fn set(text: &str) -> PolicySet {
    match compiled(text) {
        Ok(set) => set,
        Err(faults) => {
            let list: Vec<String> = faults.iter().map(ToString::to_string).collect();
            panic!("{}", list.join("\n"))
        }
    }
}

/// A subject with what it owns; `ask` makes the borrowed forms.
pub(super) struct Who {
    pub(super) user: Option<&'static str>,
    pub(super) agent: &'static str,
    pub(super) groups: Vec<String>,
    pub(super) scopes: Vec<String>,
    pub(super) acr: Option<&'static str>,
    pub(super) auth_time: Option<u64>,
}

impl Who {
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject {
            user: self.user,
            agent: self.agent,
            groups: &self.groups,
            scopes: &self.scopes,
            acr: self.acr,
            auth_time: self.auth_time,
            digest: &[7; 32],
        }
    }
}

pub(super) fn alice() -> Who {
    Who {
        user: Some("alice"),
        agent: "claude",
        groups: vec!["engineering".to_owned(), "staff".to_owned()],
        scopes: vec!["read".to_owned()],
        acr: Some("gold"),
        auth_time: Some(NOW - 600),
    }
}

pub(super) fn robot() -> Who {
    Who {
        user: None,
        agent: "robot",
        groups: vec!["engineering".to_owned()],
        scopes: vec![],
        acr: None,
        auth_time: None,
    }
}

pub(super) fn context() -> Context<'static> {
    let source_ip = "::ffff:10.1.2.3".parse().unwrap();
    Context { revision: Some("2025-11-25"), ..Context::at(source_ip, UnixSeconds(NOW)) }
}

pub(super) fn server(name: &str) -> Option<(u16, &str)> {
    let at = SERVERS.iter().position(|known| *known == name)?;
    Some((u16::try_from(at).unwrap(), name))
}

pub(super) fn decide(set: &PolicySet, who: &Who, action: &str, on: (&str, QTarget<'_>)) -> Verdict {
    let (subject, context) = (who.subject(), context());
    let question = Question {
        subject: &subject,
        action,
        server: server(on.0),
        target: on.1,
        context: &context,
        mode: Mode::Call,
    };
    set.decide(&question)
}

pub(super) fn named(verdict: &Verdict) -> Vec<&str> {
    verdict.policies.iter().map(|id| &**id).collect()
}

/// Case, who, method, server and target, allowed, determining ids.
type Row<'a> = (
    &'static str,
    &'a Who,
    &'static str,
    (&'static str, QTarget<'static>),
    bool,
    &'static [&'static str],
);

const CONTRACT: &str = r#"
@id("engineers-read") @credential("github-user")
permit (principal in Group::"engineering", action, resource in Server::"github");
@id("no-deletes")
forbid (principal, action == Action::"tools/call", resource == Tool::"github/delete_repository");
@id("who-may-connect")
permit (principal, action == Action::"connect", resource) when { context.agent == Agent::"claude" };
@id("robots-list")
permit (principal == Agent::"robot", action in Action::"list", resource in Server::"jira");
@id("all-read-docs")
permit (principal is User, action in [Action::"resources/read"],
    resource is Resource in Server::"jira");
@id("office-hours")
forbid (principal, action == Action::"prompts/get", resource in Server::"github")
unless { context.local.weekday <= 5 && context.local.minute_of_day >= 480 };
"#;

#[test]
fn contract_policies_decide_as_the_table_says() {
    use QTarget::{Gateway, Prompt, Resource, Server, Tool};
    let set = set(CONTRACT);
    let (alice, robot) = (alice(), robot());
    let mallory = Who { user: Some("mallory"), groups: vec![], ..robot_user() };
    let table: &[Row<'_>] = &[
        ("C01", &alice, "connect", ("", Gateway), true, &["who-may-connect"]),
        ("C02", &robot, "connect", ("", Gateway), false, &[]),
        ("C03", &alice, "tools/call", ("github", Tool("get")), true, &["engineers-read"]),
        (
            "C04",
            &alice,
            "tools/call",
            ("github", Tool("delete_repository")),
            false,
            &["no-deletes"],
        ),
        ("C05", &alice, "tools/call", ("jira", Tool("get")), false, &[]),
        ("C06", &alice, "initialize", ("github", Server), true, &["engineers-read"]),
        // A workload has no groups, whatever its token says.
        ("C07", &robot, "tools/call", ("github", Tool("get")), false, &[]),
        ("C08", &robot, "tools/list", ("jira", Server), true, &["robots-list"]),
        ("C09", &robot, "initialize", ("jira", Server), false, &[]),
        ("C10", &mallory, "resources/read", ("jira", Resource("f:///x")), true, &["all-read-docs"]),
        ("C11", &robot, "resources/read", ("jira", Resource("f:///x")), false, &[]),
        // 03:15 on a Monday in Berlin.
        ("C12", &alice, "prompts/get", ("github", Prompt("review")), false, &["office-hours"]),
        ("C13", &alice, "no/such", ("github", Server), false, &[]),
        // A group of actions is not a method.
        ("C14", &alice, "list", ("github", Server), false, &[]),
        ("C15", &alice, "com.example/thing", ("github", Server), true, &["engineers-read"]),
        ("C16", &alice, "tools/call", ("gitlab", Tool("get")), false, &[]),
        // Case counts: another name is another tool.
        ("C17", &alice, "Tools/Call", ("github", Tool("get")), false, &[]),
    ];
    for (case, who, action, on, allow, ids) in table {
        let verdict = decide(&set, who, action, *on);
        assert_eq!((verdict.allow, named(&verdict)), (*allow, ids.to_vec()), "{case}");
        assert!(!verdict.error, "{case}");
        let by_forbid = !allow && !ids.is_empty();
        assert_eq!(verdict.forbidden, by_forbid, "{case}");
    }
}

fn robot_user() -> Who {
    Who { user: Some("robot"), ..robot() }
}

#[test]
fn every_context_value_reaches_the_conditions() {
    let table: &[(&str, &str, bool)] = &[
        ("X01", r#"context.agent == Agent::"claude""#, true),
        ("X02", r#"context.scopes.contains("read")"#, true),
        ("X03", r#"context.scopes.contains("write")"#, false),
        ("X04", r#"context has acr && context.acr == "gold""#, true),
        (
            "X05",
            "context has auth_time && \
             context.now.durationSince(context.auth_time) <= duration(\"10m\")",
            true,
        ),
        (
            "X06",
            "context has auth_time && \
             context.now.durationSince(context.auth_time) < duration(\"10m\")",
            false,
        ),
        // The address came as ::ffff:10.1.2.3.
        ("X07", r#"context.source.ip.isInRange(ip("10.0.0.0/8"))"#, true),
        ("X08", r#"context.source.ip.isIpv4()"#, true),
        ("X09", r#"context.now == datetime("2026-11-23T02:15:07Z")"#, true),
        ("X10", "context.local.weekday == 1 && context.local.minute_of_day == 195", true),
        ("X11", r#"context has revision && context.revision == "2025-11-25""#, true),
        ("X12", r#"principal in Group::"staff""#, true),
        ("X13", r#"principal in Group::"other""#, false),
        ("X14", r#"resource in Server::"github" && action in Action::"use""#, true),
        ("X15", r#"resource in Server::"jira""#, false),
    ];
    for (case, condition, allow) in table {
        let text = format!(
            "@id(\"a\") permit (principal, action == Action::\"tools/call\", resource) \
             when {{ {condition} }};"
        );
        let on = ("github", QTarget::Tool("get"));
        let verdict = decide(&set(&text), &alice(), "tools/call", on);
        assert_eq!(verdict.allow, *allow, "{case}");
        assert!(!verdict.error, "{case}");
    }
}

#[test]
fn absent_optional_values_are_absent() {
    let text = r#"
        @id("none") permit (principal, action, resource)
        unless { context has acr || context has auth_time || context has revision };"#;
    let set = set(text);
    let (who, mut context) = (robot(), context());
    context.revision = None;
    let subject = who.subject();
    let question = Question {
        subject: &subject,
        action: "tools/list",
        server: server("github"),
        target: QTarget::Server,
        context: &context,
        mode: Mode::Call,
    };
    assert!(set.decide(&question).allow);
    let revision = Context { revision: Some("2025-11-25"), ..context };
    assert!(!set.decide(&Question { context: &revision, ..question }).allow);
}

#[test]
fn erring_conditions_deny_and_name_the_policy() {
    let permit = r#"@id("ok") permit (principal, action, resource);"#;
    let overflow = "context.local.minute_of_day * 9223372036854775807 > 0";
    let table = [
        (
            "E01",
            format!("@id(\"bad\") forbid (principal, action, resource) when {{ {overflow} }};"),
        ),
        (
            "E02",
            format!("@id(\"bad\") permit (principal, action, resource) when {{ {overflow} }};"),
        ),
    ];
    for (case, bad) in table {
        let set = set(&format!("{permit}\n{bad}"));
        let verdict = decide(&set, &alice(), "tools/list", ("github", QTarget::Server));
        assert!(!verdict.allow && verdict.error && !verdict.forbidden, "{case}");
        assert_eq!(named(&verdict), ["bad"], "{case}");
    }
    // A forbid that holds is the better answer, whatever else fails.
    let text = format!(
        "{permit} @id(\"no\") forbid (principal, action, resource); \
         @id(\"bad\") forbid (principal, action, resource) when {{ {overflow} }};"
    );
    let verdict = decide(&set(&text), &alice(), "tools/list", ("github", QTarget::Server));
    assert!(verdict.forbidden && verdict.error && !verdict.allow);
    assert_eq!(named(&verdict), ["no"]);
}

#[test]
fn a_value_that_cannot_be_expressed_denies_where_it_is_read() {
    let who = Who { auth_time: Some(u64::MAX), ..alice() };
    let on = ("github", QTarget::Server);
    let reads = set(r#"@id("a") permit (principal, action, resource);
           @id("b") forbid (principal, action, resource)
           when { context has auth_time && context.auth_time > context.now };"#);
    assert!(decide(&reads, &alice(), "tools/list", on).allow);
    let verdict = decide(&reads, &who, "tools/list", on);
    assert!(!verdict.allow && verdict.error);
    let blind = set(r#"@id("a") permit (principal, action, resource);"#);
    assert!(decide(&blind, &who, "tools/list", on).allow);
}

#[test]
fn credentials_of_satisfied_permits_must_agree() {
    use CredentialChoice::{Ambiguous, Default, Named};
    let text = r#"
        @id("plain") permit (principal, action == Action::"tools/list", resource);
        @id("user") @credential("github-user")
        permit (principal in Group::"engineering", action in Action::"use",
            resource in Server::"github");
        @id("user-too") @credential("github-user")
        permit (principal, action == Action::"tools/call", resource in Server::"github");
        @id("bot") @credential("github-bot")
        permit (principal, action == Action::"prompts/get", resource in Server::"github")
        when { context.scopes.contains("read") };
        @id("never") @credential("both")
        permit (principal, action == Action::"tools/call", resource)
        when { context.scopes.contains("root") };"#;
    let set = set(text);
    let table = [
        ("D01", "tools/list", QTarget::Server, Default, vec!["plain"]),
        ("D02", "tools/call", QTarget::Tool("x"), Named(0), vec!["user", "user-too"]),
        ("D03", "prompts/get", QTarget::Prompt("x"), Ambiguous, vec!["user", "bot"]),
    ];
    for (case, action, target, credential, ids) in table {
        let verdict = decide(&set, &alice(), action, ("github", target));
        assert_eq!((verdict.credential, named(&verdict)), (credential, ids), "{case}");
        assert!(verdict.allow, "{case}");
    }
    assert!(set.credential_fits(3, 1) && !set.credential_fits(0, 1) && !set.credential_fits(9, 0));
}

#[test]
fn a_server_is_visible_by_permits_and_hidden_by_whole_forbids() {
    let text = r#"
        @id("a") permit (principal in Group::"engineering", action == Action::"tools/call",
            resource == Tool::"github/get") when { context.scopes.contains("root") };
        @id("b") permit (principal == Agent::"robot", action, resource in Server::"jira");
        @id("c") permit (principal, action == Action::"connect", resource);
        @id("d") permit (principal == User::"bob", action, resource);
        @id("e") forbid (principal == User::"bob", action, resource in Server::"jira");
        @id("f") forbid (principal == User::"bob", action == Action::"tools/call",
            resource in Server::"github");
        @id("g") forbid (principal, action, resource in Server::"github")
            when { context.scopes.contains("read") };"#;
    let set = set(text);
    let bob = Who { user: Some("bob"), ..alice() };
    let nobody = Who { user: Some("nobody"), groups: vec![], ..alice() };
    let seen = |who: &Who| [0, 1, 2].map(|server| set.server_visible(&who.subject(), server));
    assert_eq!(seen(&alice()), [true, false, false]);
    assert_eq!(seen(&robot()), [false, true, false]);
    assert_eq!(seen(&bob), [true, false, false]);
    assert_eq!(seen(&nobody), [false, false, false]);
}

#[test]
fn a_server_index_of_another_configuration_is_denied() {
    let set = set(r#"@id("a") permit (principal, action, resource);"#);
    let (who, context) = (alice(), context());
    let subject = who.subject();
    let ask = |server| {
        let question = Question {
            subject: &subject,
            action: "tools/list",
            server,
            target: QTarget::Server,
            context: &context,
            mode: Mode::Call,
        };
        set.decide(&question).allow
    };
    assert!(ask(Some((1, "jira"))));
    assert!(!ask(Some((0, "jira"))));
    assert!(!ask(Some((2, "gitlab"))));
    assert!(!ask(None));
}

#[test]
fn the_shipped_policies_load_and_let_a_user_work() {
    let text = include_str!("../../../../conf/policies/starter.cedar");
    let set = set(text);
    for (action, target) in [
        ("initialize", QTarget::Server),
        ("notifications/initialized", QTarget::Server),
        ("server/discover", QTarget::Server),
        ("tools/list", QTarget::Server),
        ("tools/call", QTarget::Tool("get")),
        ("resources/read", QTarget::Resource("file:///x")),
        ("subscriptions/listen", QTarget::Server),
    ] {
        assert!(decide(&set, &alice(), action, ("github", target)).allow, "{action}");
        assert!(!decide(&set, &robot(), action, ("github", target)).allow, "{action}");
    }
    assert!(decide(&set, &alice(), "connect", ("", QTarget::Gateway)).allow);
    assert!(!decide(&set, &alice(), "com.example/thing", ("github", QTarget::Server)).allow);
}

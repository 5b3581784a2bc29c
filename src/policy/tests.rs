//! Enforcement, the look of denials, and the cache.

mod clock;
mod differential;
mod lines;

use std::path::Path;

use super::*;
use crate::clock::UnixSeconds;
use crate::judge::policy::{CredentialScope, Setting, Source};

/// Monday 2026-11-23 02:15:07 UTC.
const NOW: u64 = 1_795_400_107;

fn set(epoch: u64, text: &str) -> PolicySet {
    let credentials = [
        CredentialScope { name: "github-user", servers: &[0] },
        CredentialScope { name: "github-bot", servers: &[0] },
    ];
    let setting = Setting {
        epoch,
        servers: &["github", "jira"],
        credentials: &credentials,
        methods: &[],
        timezone: "UTC",
        geoip: false,
    };
    let source = Source { path: "a.cedar".into(), text: text.to_owned() };
    match PolicySet::compile(&[source], Path::new("."), &setting) {
        Ok(set) => set,
        Err(faults) => panic!("{faults:?}"),
    }
}

fn subject<'a>(user: &'a str, scopes: &'a [String], digest: &'a [u8; 32]) -> Subject<'a> {
    Subject {
        user: Some(user),
        agent: "claude",
        groups: &[],
        scopes,
        acr: None,
        auth_time: None,
        digest,
    }
}

fn at(second: u64) -> Context<'static> {
    let source_ip = "10.0.0.1".parse().unwrap();
    Context::at(source_ip, UnixSeconds(second))
}

fn ask<'a>(subject: &'a Subject<'a>, context: &'a Context<'a>, method: &'a str) -> Ask<'a> {
    Ask {
        subject,
        server: (0, "github"),
        method,
        form: Form::Request,
        context,
        default_credential: Some(0),
    }
}

fn ids(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(|id| &**id).collect()
}

const CONNECT: &str =
    "@id(\"connect\") permit (principal, action == Action::\"connect\", resource);\n";
const POLICIES: &str = r#"
@id("connect") permit (principal, action == Action::"connect", resource)
unless { principal == User::"outcast" };
@id("tools") permit (principal == User::"alice", action == Action::"tools/call",
    resource in Server::"github");
@id("no-deletes") forbid (principal, action, resource == Tool::"github/delete");
@id("outcast") permit (principal == User::"outcast", action, resource in Server::"github");
"#;

#[test]
fn denials_look_as_the_contract_says() {
    use Form::{Handshake, Request, Stream};
    let set = set(1, POLICIES);
    let enforcer = Enforcer::new(64);
    let context = at(NOW);
    let tool = QTarget::Tool("get");
    let server = QTarget::Server;
    let table = [
        ("N01", "outcast", 0, "tools/call", Request, tool, Reject::PolicyDenied, vec![]),
        ("N02", "mallory", 0, "tools/call", Request, tool, Reject::PolicyDenied, vec![]),
        ("N03", "mallory", 0, "initialize", Handshake, server, Reject::PolicyDenied, vec![]),
        ("N04", "alice", 0, "initialize", Handshake, server, Reject::PolicyDenied, vec![]),
        ("N05", "alice", 0, "tools/list", Request, server, Reject::PolicyCallNoPermit, vec![]),
        ("N06", "alice", 0, "no/such", Request, server, Reject::PolicyCallNoPermit, vec![]),
        (
            "N07",
            "alice",
            0,
            "tools/call",
            Request,
            QTarget::Tool("delete"),
            Reject::PolicyCallForbidden,
            vec!["no-deletes"],
        ),
        ("N08", "alice", 0, "initialize", Stream, server, Reject::PolicyStreamDenied, vec![]),
        ("N09", "alice", 1, "tools/call", Request, tool, Reject::PolicyDenied, vec![]),
        ("N10", "alice", 0, "connect", Request, server, Reject::PolicyDenied, vec![]),
        ("N11", "alice", 0, "connect", Request, QTarget::Gateway, Reject::PolicyDenied, vec![]),
    ];
    for (case, user, at, method, form, target, reject, policies) in table {
        // Twice: fresh and from the cache.
        for _ in 0..2 {
            let digest = [user.as_bytes()[0]; 32];
            let subject = subject(user, &[], &digest);
            let name = if at == 0 { "github" } else { "jira" };
            let ask = Ask { server: (at, name), form, ..ask(&subject, &context, method) };
            let denial = enforcer.enforce(&set, &ask, [target]).unwrap_err();
            assert_eq!(
                (denial.reject, ids(&denial.policies)),
                (reject, policies.clone()),
                "{case}"
            );
            assert!(!denial.error, "{case}");
        }
    }
    assert!(enforcer.counts().hits > 0);
    assert_eq!(Denial::unknown_server(&set).reject, Reject::PolicyDenied);
}

#[test]
fn a_permit_says_what_was_granted() {
    let set = set(9, POLICIES);
    let (enforcer, context, digest) = (Enforcer::new(64), at(NOW), [3; 32]);
    let subject = subject("alice", &[], &digest);
    let ask = ask(&subject, &context, "tools/call");
    let permit = enforcer.enforce(&set, &ask, [QTarget::Tool("get")]).unwrap();
    assert_eq!((permit.server(), permit.credential()), (0, Some(0)));
    assert_eq!((ids(permit.policies()), permit.identity()), (vec!["tools"], &digest));
    let connected = enforcer.connect(&set, &subject, &context).unwrap();
    assert_eq!((ids(connected.policies()), connected.epoch()), (vec!["connect"], 9));
}

#[test]
fn every_target_must_be_permitted_and_agree_on_the_credential() {
    let text = format!(
        "{CONNECT}{}",
        r#"
        @id("wide") permit (principal, action == Action::"resources/read",
            resource is Resource in Server::"github");
        @id("bot") @credential("github-bot")
        permit (principal, action, resource == Resource::"github/bot");
        @id("bot-too") @credential("github-bot")
        permit (principal, action, resource == Resource::"github/bot2");
        @id("user") @credential("github-user")
        permit (principal, action, resource == Resource::"github/bot2")
        when { context.scopes.contains("both") };
        @id("secret") forbid (principal, action, resource == Resource::"github/secret");"#
    );
    let set = set(1, &text);
    let (enforcer, context, digest) = (Enforcer::new(64), at(NOW), [3; 32]);
    let both = ["both".to_owned()];
    let (plain, scoped) = (subject("alice", &[], &digest), subject("alice", &both, &digest));
    let judge = |subject, default_credential, uris: &[&'static str]| {
        let ask = Ask { default_credential, ..ask(subject, &context, "resources/read") };
        enforcer.enforce(&set, &ask, uris.iter().map(|uri| QTarget::Resource(uri)))
    };
    let credential = |uris: &[&'static str]| judge(&plain, Some(0), uris).unwrap().credential();
    assert_eq!(credential(&["a", "b"]), Some(0));
    assert_eq!(credential(&["bot", "bot2"]), Some(1));
    let permit = judge(&plain, Some(0), &["bot", "bot2"]).unwrap();
    assert_eq!(ids(permit.policies()), ["wide", "bot", "bot-too"]);
    let denied = |subject, default, uris: &[&'static str]| {
        judge(subject, default, uris).map(|_| ()).unwrap_err().reject
    };
    assert_eq!(denied(&plain, Some(0), &["a", "secret", "b"]), Reject::PolicyCallForbidden);
    assert_eq!(denied(&plain, Some(0), &["a", "bot"]), Reject::PolicyCredentialAmbiguous);
    assert_eq!(denied(&scoped, Some(0), &["bot2"]), Reject::PolicyCredentialAmbiguous);
    // The default is the one that is named: they agree.
    assert_eq!(judge(&plain, Some(1), &["a", "bot"]).unwrap().credential(), Some(1));
    assert_eq!(judge(&plain, None, &["a"]).unwrap().credential(), None);
    // Nothing asked, nothing granted; and a default credential of no such server.
    assert_eq!(denied(&plain, Some(0), &[]), Reject::PolicyUnavailable);
    assert_eq!(denied(&plain, Some(7), &["a"]), Reject::PolicyUnavailable);
    let many = vec!["a"; POLICY_TARGETS_MAX + 1];
    assert_eq!(denied(&plain, Some(0), &many), Reject::RpcParams);
    assert!(judge(&plain, Some(0), &many[1..]).is_ok());
}

#[test]
fn ambiguous_denials_name_the_permits() {
    let text = format!(
        "{CONNECT}{}",
        r#"
        @id("bot") @credential("github-bot")
        permit (principal, action, resource in Server::"github");
        @id("user") @credential("github-user")
        permit (principal, action, resource in Server::"github");"#
    );
    let set = set(1, &text);
    let (enforcer, context, digest) = (Enforcer::new(64), at(NOW), [3; 32]);
    let subject = subject("alice", &[], &digest);
    let ask = ask(&subject, &context, "tools/list");
    let denial = enforcer.enforce(&set, &ask, [QTarget::Server]).unwrap_err();
    assert_eq!(denial.reject, Reject::PolicyCredentialAmbiguous);
    assert_eq!(ids(&denial.policies), ["bot", "user"]);
}

#[test]
fn erring_policies_are_counted_and_named() {
    let text = format!(
        "{CONNECT}{}",
        r#"@id("ok") permit (principal, action, resource);
        @id("bad") forbid (principal, action == Action::"tools/list", resource)
        when { 9223372036854775807 + context.local.weekday > 0 };"#
    );
    let set = set(1, &text);
    let (enforcer, context, digest) = (Enforcer::new(64), at(NOW), [3; 32]);
    let subject = subject("alice", &[], &digest);
    for _ in 0..2 {
        let ask = ask(&subject, &context, "tools/list");
        let denial = enforcer.enforce(&set, &ask, [QTarget::Server]).unwrap_err();
        assert_eq!((denial.reject, denial.error), (Reject::PolicyCallNoPermit, true));
        assert_eq!(ids(&denial.policies), ["bad"]);
    }
    assert_eq!(enforcer.counts().errors, 1);
}

#[test]
fn what_the_slice_reads_is_in_the_key() {
    // Each policy reads one thing; the second context or subject differs in that thing alone.
    let read = ["read".to_owned()];
    let plain =
        |digest| Subject { acr: Some("a"), auth_time: Some(5), ..subject("u", &read, digest) };
    let digest = [1; 32];
    let base = plain(&digest);
    let write = ["write".to_owned()];
    let split = ["re".to_owned(), "ad".to_owned()];
    let now = at(NOW);
    let other_ip = Context { source_ip: "10.0.0.2".parse().unwrap(), ..now };
    let revision = Context { revision: Some(""), ..now };
    let table: &[(&str, &str, Subject<'_>, Context<'_>)] = &[
        ("K01", "context.scopes.contains(\"read\")", Subject { scopes: &write, ..base }, now),
        ("K02", "context.scopes.contains(\"read\")", Subject { scopes: &split, ..base }, now),
        ("K03", "context has acr", Subject { acr: None, ..base }, now),
        ("K04", "context has acr && context.acr == \"a\"", Subject { acr: Some(""), ..base }, now),
        ("K05", "context has auth_time", Subject { auth_time: None, ..base }, now),
        ("K06", "context.source.ip == ip(\"10.0.0.1\")", base, other_ip),
        ("K07", "context.now == datetime(\"2026-11-23T02:15:07Z\")", base, at(NOW + 1)),
        ("K08", "context.local.minute_of_day == 135", base, at(NOW + 53)),
        ("K09", "context.local.weekday == 1", base, at(NOW + 86_400)),
        ("K10", "!(context has revision)", base, revision),
        ("K11", "context.agent == Agent::\"claude\"", Subject { agent: "x", ..base }, now),
        ("K12", "principal == User::\"u\"", Subject { digest: &[2; 32], user: None, ..base }, now),
    ];
    for (case, condition, other, later) in table {
        let text = format!(
            "{CONNECT}@id(\"a\") permit (principal, action == Action::\"tools/list\", resource) \
             when {{ {condition} }};"
        );
        let set = set(1, &text);
        let enforcer = Enforcer::new(64);
        let judge = |subject: &Subject<'_>, context: &Context<'_>| {
            enforcer.enforce(&set, &ask(subject, context, "tools/list"), [QTarget::Server]).is_ok()
        };
        assert!(judge(&base, &now), "{case}");
        let misses = enforcer.counts().misses;
        assert!(judge(&base, &now), "{case}");
        assert_eq!(enforcer.counts().misses, misses, "{case}: the same again is a hit");
        assert!(!judge(other, later), "{case}: a stale decision");
        assert!(judge(&base, &now), "{case}");
    }
}

#[test]
fn what_no_policy_reads_does_not_split_the_cache() {
    let set = set(1, &format!("{CONNECT}@id(\"a\") permit (principal, action, resource);"));
    let (enforcer, digest) = (Enforcer::new(64), [1; 32]);
    for second in 0..10 {
        let scopes = [second.to_string()];
        let subject = subject("u", &scopes, &digest);
        let context = Context { revision: Some("x"), ..at(NOW + second * 100_000) };
        let ask = ask(&subject, &context, "tools/list");
        assert!(enforcer.enforce(&set, &ask, [QTarget::Server]).is_ok());
    }
    assert_eq!((enforcer.counts().misses, enforcer.counts().hits, enforcer.kept()), (2, 18, 2));
}

#[test]
fn a_new_epoch_is_never_answered_by_an_old_decision() {
    let permits = format!("{CONNECT}@id(\"a\") permit (principal, action, resource);");
    let (old, new) = (set(1, &permits), set(2, CONNECT));
    let (enforcer, context, digest) = (Enforcer::new(64), at(NOW), [1; 32]);
    let subject = subject("u", &[], &digest);
    let judge = |set: &PolicySet| {
        let ask = ask(&subject, &context, "tools/list");
        enforcer.enforce(set, &ask, [QTarget::Server]).is_ok()
    };
    assert!(judge(&old) && judge(&old));
    assert!(!judge(&new));
    // A request that began before the reload is still judged by its own set, and leaves nothing.
    assert!(judge(&old));
    assert!(!judge(&new));
    assert_eq!(enforcer.kept(), 2);
    enforcer.purge();
    let misses = enforcer.counts().misses;
    assert!(!judge(&new));
    assert_eq!(enforcer.counts().misses, misses + 2, "what was purged is decided anew");
    enforcer.purge();
    enforcer.sweep(64);
    assert_eq!(enforcer.kept(), 0);
    assert!(!judge(&new));
}

#[test]
fn what_is_forgotten_is_freed_in_slices_and_by_no_request() {
    const PLACES: u16 = 4096;
    let key = |number: u16| number.to_le_bytes();
    let mut cache = cache::Cache::new(usize::from(PLACES));
    for number in 0..PLACES {
        cache.put(1, &key(number), Verdict::by_default());
    }
    let full = cache.len();
    assert!(full > 2048);
    // The first decision of a newer epoch takes one place, and frees what was in it at most.
    cache.put(2, &key(0), Verdict::by_default());
    assert!((full..=full + 1).contains(&cache.len()));
    for number in 0..PLACES {
        assert_eq!(cache.get(2, &key(number)).is_some(), number == 0);
    }
    let before = cache.len();
    cache.sweep(64);
    assert!((before - 64..before).contains(&cache.len()));
    // Another one, in the middle of that, begins a whole round from there.
    cache.put(3, &key(1), Verdict::by_default());
    for _ in 0..PLACES / 64 {
        cache.sweep(64);
    }
    assert_eq!(cache.len(), 1);
    assert!(cache.get(3, &key(1)).is_some());
    // Nothing is forgotten, so nothing goes.
    cache.sweep(usize::MAX);
    assert_eq!(cache.len(), 1);
}

/// Large enough for what other tests take meanwhile to be little. Were the tables written to at the
/// start, all of this would be resident.
#[test]
fn a_fresh_cache_takes_no_memory() {
    const TABLES_BYTES: usize = (1 << 24) * (2 * 8 + 8);
    let resident = || {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * rustix::param::page_size()
    };
    let before = resident();
    let mut cache = cache::Cache::new(1 << 24);
    assert!(cache.get(0, b"").is_none());
    cache.put(0, b"", Verdict::by_default());
    assert!(resident().saturating_sub(before) < TABLES_BYTES / 4);
    cache.forget();
    cache.sweep(1024);
    assert!(resident().saturating_sub(before) < TABLES_BYTES / 4);
}

#[test]
fn the_cache_is_bounded_and_long_keys_are_not_kept() {
    let set = set(1, &format!("{CONNECT}@id(\"a\") permit (principal, action, resource);"));
    let (enforcer, context, digest) = (Enforcer::new(64), at(NOW), [1; 32]);
    let subject = subject("u", &[], &digest);
    let judge = |name: &str| {
        let ask = ask(&subject, &context, "tools/call");
        enforcer.enforce(&set, &ask, [QTarget::Tool(name)]).is_ok()
    };
    for number in 0..1000 {
        assert!(judge(&number.to_string()));
    }
    assert!(enforcer.kept() <= 64 && enforcer.kept() > 32);
    let counts = enforcer.counts();
    let (long, longer) = ("x".repeat(DECISION_KEY_BYTES_MAX), "x".repeat(4096));
    assert!(judge(&long) && judge(&longer) && judge(&long));
    assert_eq!(enforcer.counts().unkept, counts.unkept + 3);
}

#[test]
fn the_least_recently_used_decision_of_a_set_goes_first() {
    let mut cache = cache::Cache::new(4);
    for key in 0..4_u8 {
        cache.put(1, &[key], Verdict::by_default());
    }
    assert!(cache.get(1, &[0]).is_some());
    cache.put(1, &[9], Verdict::by_default());
    assert!(cache.get(1, &[1]).is_none() && cache.get(1, &[0]).is_some());
    // An equal key takes the place of its own.
    cache.put(1, &[9], Verdict { forbidden: true, ..Verdict::by_default() });
    assert_eq!(cache.len(), 4);
    assert!(cache.get(1, &[9]).unwrap().forbidden && cache.get(1, &[2]).is_some());
    assert!(cache.get(2, &[9]).is_none());
}

/// What is listed is kept by its name only where names matter.
#[test]
fn a_long_list_of_one_slice_is_one_decision() {
    let names: Vec<String> = (0..1000).map(|at| format!("t{at}")).collect();
    let (none, context) = (Vec::new(), at(NOW));
    let alice = subject("alice", &none, &[1; 32]);
    let ask = ask(&alice, &context, "");
    let shown = |text: &str| {
        let (set, enforcer) = (set(1, text), Enforcer::new(16_384));
        let shows = |name: &String| enforcer.shows(&set, &ask, Listed::Tools, name) == Shown::Yes;
        let shown: Vec<bool> = names.iter().map(shows).collect();
        (shown, enforcer.counts().misses)
    };
    let all = r#"@id("a") permit (principal, action, resource in Server::"github")
        when { context.source.ip.isInRange(ip("10.0.0.0/8")) };"#;
    assert_eq!(shown(all), (vec![true; 1000], 1));
    let but = |name: &String| name != "t7";
    let one: Vec<bool> = names.iter().map(but).collect();
    let head = r#"@id("f") forbid (principal, action, resource == Tool::"github/t7");"#;
    assert_eq!(shown(&format!("{all}{head}")), (one.clone(), 2), "in a head");
    let condition = r#"@id("f") forbid (principal, action, resource)
        when { resource == Tool::"github/t7" };"#;
    assert_eq!(shown(&format!("{all}{condition}")), (one, 1000), "in a condition");
}

#[test]
fn what_hides_an_item_is_told() {
    let all = r#"@id("a") permit (principal, action, resource in Server::"github");"#;
    let forbid = |action: &str, condition: &str| {
        format!(
            r#"@id("f{action}") forbid (principal, action == Action::"{action}", resource)
            {condition};"#
        )
    };
    let fails = "when { context.local.minute_of_day * 9223372036854775807 + 1 > 0 }";
    let fails = fails.replace("+ 1", "+ 9223372036854775807");
    let (get, complete) = ("prompts/get", "completion/complete");
    let (none, context) = (Vec::new(), at(NOW));
    let alice = subject("alice", &none, &[1; 32]);
    let ask = ask(&alice, &context, "");
    for (text, expected) in [
        (all.replace("github", "jira"), Shown::NoPermit),
        (format!("{all}{}{}", forbid(get, &fails), forbid(complete, &fails)), Shown::Failed),
        (format!("{all}{}{}", forbid(get, ""), forbid(complete, &fails)), Shown::Forbidden),
        (format!("{all}{}{}", forbid(get, &fails), forbid(complete, "")), Shown::Forbidden),
        (format!("{all}{}", forbid(get, &fails)), Shown::Yes),
        (all.replace(";", &format!("{fails};")), Shown::Failed),
    ] {
        let (set, enforcer) = (set(1, &text), Enforcer::new(64));
        for _ in 0..2 {
            assert_eq!(enforcer.shows(&set, &ask, Listed::Prompts, "p"), expected, "{text}");
        }
    }
}

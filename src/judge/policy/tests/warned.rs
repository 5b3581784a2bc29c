//! What loads with a warning.

use super::*;
use crate::limits::POLICIES_ANYWHERE_MAX;

fn warned(enforced: &str, shadow: &str) -> Vec<String> {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
    let sources = Sources {
        enforced: vec![source("p/a.cedar", enforced)],
        shadow: vec![source("p/shadow/a.cedar", shadow)],
        ..Sources::default()
    };
    let set = PolicySet::compile_all(&sources, Path::new("p"), &setting(1)).ok().unwrap();
    set.warnings().iter().map(ToString::to_string).collect()
}

#[test]
fn credentials_that_may_meet_are_told() {
    let one = "@id(\"one\") @credential(\"github-user\")";
    let two = "@id(\"two\") @credential(\"github-bot\")";
    let head = |who: &str, action: &str, what: &str| {
        format!("permit (principal {who}, action {action}, resource {what});\n")
    };
    let github = "in Server::\"github\"";
    let tool = "== Tool::\"github/a\"";
    let all = head("", "", github);
    let table = [
        (&all, all.clone(), true),
        (&all, head("in Group::\"x\"", "== Action::\"tools/call\"", tool), true),
        (&head("in Group::\"x\"", "", github), head("in Group::\"y\"", "", github), true),
        (&head("== User::\"x\"", "", github), head("in Group::\"y\"", "", github), true),
        (&head("== User::\"x\"", "", github), head("== User::\"y\"", "", github), false),
        (&head("== User::\"x\"", "", github), head("== User::\"x\"", "", github), true),
        (&head("is User", "", github), head("is Agent", "", github), false),
        (&head("== Agent::\"x\"", "", github), head("is Agent", "", github), true),
        (&head("== Agent::\"x\"", "", github), head("== Agent::\"y\"", "", github), false),
        (&head("", "in Action::\"use\"", github), head("", "in Action::\"list\"", github), false),
        (&head("", "", tool), head("", "", "== Tool::\"github/b\""), false),
        (&head("", "", tool), head("", "", "is Prompt in Server::\"github\""), false),
    ];
    for (first, second, told) in table {
        let found = warned(&format!("{one} {first}{two} {second}"), "");
        assert_eq!(!found.is_empty(), told, "{first}{second}");
        if told {
            let text = "p/a.cedar:2:1: may hold together with \"one\" at p/a.cedar:1, which names";
            assert!(found[0].starts_with(text), "{found:?}");
        }
    }
    let same = two.replace("github-bot", "github-user");
    assert!(warned(&format!("{one} {all}{same} {all}"), "").is_empty());
    assert!(warned(&format!("{one} {all}"), &format!("{two} {all}")).is_empty(), "a shadow");
}

#[test]
fn many_policies_for_every_server_are_told() {
    let some = |count: usize, head: &str| -> String {
        (0..count).map(|at| format!("@id(\"p{at}\") permit ({head});\n")).collect()
    };
    let every = "principal, action, resource";
    assert!(warned(&some(POLICIES_ANYWHERE_MAX, every), "").is_empty());
    let found = warned(&some(POLICIES_ANYWHERE_MAX + 1, every), "");
    let text = format!("p/a.cedar:1:1: this and {POLICIES_ANYWHERE_MAX} more policies name no");
    assert!(found.len() == 1 && found[0].starts_with(&text), "{found:?}");
    let many = POLICIES_ANYWHERE_MAX + 1;
    for head in [
        "principal, action, resource in Server::\"github\"",
        "principal, action == Action::\"connect\", resource",
        "principal, action == Action::\"connect\", resource == Gateway::\"gateway\"",
    ] {
        assert!(warned(&some(many, head), "").is_empty(), "{head}");
    }
}

#[test]
fn shadows_that_look_at_the_clock_are_told() {
    let policy = "@id(\"a\") permit (principal, action, resource) when { CONDITION };";
    let now = policy.replace("CONDITION", "context.now < datetime(\"2030-01-01\")");
    let local = policy.replace("CONDITION", "context.local.weekday == 1");
    assert!(warned(&now, &local.replace("\"a\"", "\"b\"")).is_empty());
    let found = warned(&local, &now.replace("\"a\"", "\"b\""));
    assert!(
        found[0].starts_with("p/shadow/a.cedar:1:1: a shadow policy that looks at"),
        "{found:?}"
    );
}

/// A forbid on all of github that `condition` lifts.
fn step(annotation: &str, condition: &str) -> String {
    format!(
        "@id(\"s\") {annotation}\n\
         forbid (principal, action, resource in Server::\"github\") unless {{ {condition} }};\n"
    )
}

#[test]
fn steps_that_lift_nothing_are_told() {
    let scope = |value: &str| format!("context.scopes.contains({value})");
    let acr = r#"context has acr && context.acr == "phr""#;
    let age = |test: &str| {
        format!("context has auth_time && context.now.durationSince(context.auth_time){test}")
    };
    let table = [
        ("@require_scope(\"a\")", scope("\"a\""), None),
        ("@require_scope(\"a\")", scope("\"b\""), Some("@require_scope(\"a\") is not a string")),
        ("@require_acr(\"phr\")", acr.to_owned(), None),
        ("@require_acr(\"ph\")", acr.to_owned(), Some("@require_acr(\"ph\") is not a string")),
        ("@max_age(\"300\")", age(" <= duration(\"300s\")"), None),
        ("@max_age(\"300\")", age(" <= duration(\"5m\")"), None),
        ("@max_age(\"3660\")", age(" <= duration(\"1h1m\")"), None),
        ("@max_age(\"300\")", age(".toSeconds() <= 300"), None),
        ("@max_age(\"300\")", age(".toMinutes() <= 5"), None),
        ("@max_age(\"300\")", age(".toMilliseconds() <= 300000"), None),
        (
            "@max_age(\"300\")",
            age(" <= duration(\"60s\")"),
            Some("@max_age(\"300\") is not a time"),
        ),
        ("@max_age(\"300\")", age(".toSeconds() <= 60"), Some("@max_age(\"300\") is not a time")),
    ];
    for (annotation, condition, told) in table {
        let found = warned(&step(annotation, &condition), "");
        match told {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(told) => {
                let text = format!("p/a.cedar:1:1: {told}");
                assert!(found.len() == 1 && found[0].starts_with(&text), "{found:?}");
            }
        }
    }
}

#[test]
fn steps_that_no_token_has_both_are_told() {
    let one = |acr: &str, head: &str, more: &str| {
        format!(
            "@id(\"{acr}\") @require_acr(\"{acr}\") forbid ({head}) unless {{ context has acr && \
             [\"{acr}\"{more}].contains(context.acr) }};\n"
        )
    };
    let (all, bob) =
        ("principal, action, resource", "principal == User::\"bob\", action, resource");
    let alice = bob.replace("bob", "alice");
    let connect = "principal, action == Action::\"connect\", resource == Gateway::\"gateway\"";
    for (first, second, told) in [
        (one("a", all, ""), one("b", all, ""), true),
        (one("a", bob, ""), one("b", all, ""), true),
        (one("a", connect, ""), one("b", connect, ""), true),
        (one("a", bob, ""), one("b", &alice, ""), false),
        (one("a", all, ", \"b\""), one("b", all, ""), false),
        (one("a", all, ""), one("b", all, ", \"a\""), false),
        (one("a", all, ""), one("a", all, "").replace("@id(\"a", "@id(\"c"), false),
    ] {
        let found = warned(&format!("{first}{second}"), "");
        assert_eq!(!found.is_empty(), told, "{first}{second}{found:?}");
        if told {
            let text = "p/a.cedar:2:1: may hold together with \"a\" at p/a.cedar:1, which asks";
            assert!(found.len() == 1 && found[0].starts_with(text), "{found:?}");
        }
        let enforced = format!("@id(\"p\") permit ({all});{first}");
        assert!(warned(&enforced, &second.replace("@id(\"a", "@id(\"c")).is_empty(), "a shadow");
    }
}

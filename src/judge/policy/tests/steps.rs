//! Step-up: when a forbid may be lifted by a better login, and what is asked for then.

use super::*;

const CALL: (&str, QTarget<'static>) = ("github", QTarget::Tool("delete"));
const PERMIT: &str = r#"@id("use") permit (principal, action, resource in Server::"github");"#;
const SCOPE: &str = r#"@id("scope") @require_scope("delete") forbid (principal, action, resource)
    unless { context.scopes.contains("delete") };"#;
const LOGIN: &str = r#"@id("login") @require_acr("platinum") @max_age("300")
    forbid (principal, action, resource)
    unless { context has acr && context.acr == "platinum" && context has auth_time &&
        context.now.durationSince(context.auth_time) <= duration("300s") };"#;
const PLAIN: &str = r#"@id("plain") forbid (principal == User::"alice", action, resource);"#;
const FAILS: &str = r#"@id("fails") forbid (principal, action, resource)
    when { context.local.minute_of_day * 9223372036854775807 > 0 };"#;
const FAILING_PERMIT: &str = r#"@id("failing") permit (principal, action, resource)
    when { context.local.minute_of_day * 9223372036854775807 > 0 };"#;

fn answer(policies: &[&str], who: &Who) -> Verdict {
    decide(&set(&policies.join("\n")), who, "tools/call", CALL)
}

fn lacks(verdict: &Verdict) -> Option<&StepUp> {
    verdict.more.as_deref().and_then(|more| more.step_up.as_ref())
}

#[test]
fn everything_that_is_missing_is_asked_for_at_once() {
    let verdict = answer(&[PERMIT, SCOPE, LOGIN], &alice());
    assert!(!verdict.allow && verdict.forbidden && !verdict.error);
    assert_eq!(named(&verdict), ["scope", "login"]);
    let expected =
        StepUp { scopes: vec!["delete".into()], acr: vec!["platinum".into()], max_age: Some(300) };
    assert_eq!(lacks(&verdict), Some(&expected));
}

#[test]
fn whoever_took_the_step_is_let_in() {
    let who = Who {
        scopes: vec!["delete".to_owned()],
        acr: Some("platinum"),
        auth_time: Some(NOW - 300),
        ..alice()
    };
    let verdict = answer(&[PERMIT, SCOPE, LOGIN], &who);
    assert!(verdict.allow && verdict.more.is_none());
    let late = Who { auth_time: Some(NOW - 301), ..who };
    let verdict = answer(&[PERMIT, SCOPE, LOGIN], &late);
    assert_eq!(lacks(&verdict).map(|lacks| lacks.max_age), Some(Some(300)));
    let never = Who { auth_time: None, ..late };
    assert!(lacks(&answer(&[PERMIT, LOGIN], &never)).is_some(), "an absent login is an old one");
}

/// A step that would not help is not asked for: it would only tell an agent what would.
#[test]
fn no_step_is_asked_for_that_would_not_do() {
    let other = r#"@id("other") @credential("github-bot")
        permit (principal, action, resource in Server::"github");"#;
    let named_one = r#"@id("named") @credential("github-user")
        permit (principal, action, resource in Server::"github");"#;
    let table: [(&str, &[&str]); 6] = [
        ("nothing permits", &[SCOPE]),
        ("another forbid holds", &[PERMIT, SCOPE, PLAIN]),
        ("another forbid fails", &[PERMIT, SCOPE, FAILS]),
        ("a permit fails", &[PERMIT, SCOPE, FAILING_PERMIT]),
        ("the credential would be ambiguous", &[named_one, other, SCOPE]),
        ("only a failing permit", &[FAILING_PERMIT, SCOPE]),
    ];
    for (what, policies) in table {
        let verdict = answer(policies, &alice());
        assert!(!verdict.allow, "{what}");
        assert_eq!(lacks(&verdict), None, "{what}");
    }
    assert!(lacks(&answer(&[named_one, SCOPE], &alice())).is_some(), "one credential is fine");
}

#[test]
fn steps_join_into_one() {
    let one = |scope: &str, max_age| StepUp {
        scopes: vec![scope.into()],
        acr: vec!["x".into()],
        max_age,
    };
    let mut all = one("b", None);
    all.join(&one("a", Some(60)));
    all.join(&one("b", Some(30)));
    let expected =
        StepUp { scopes: vec!["a".into(), "b".into()], acr: vec!["x".into()], max_age: Some(30) };
    assert_eq!(all, expected);
}

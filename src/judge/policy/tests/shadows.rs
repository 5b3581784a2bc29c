//! Shadow policies: what they would have done is told, and changes nothing.

use super::differential::{people, policies};
use super::random::{Dice, QUESTIONS};
use super::*;

fn with_shadows(enforced: &str, shadow: &str) -> PolicySet {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
    let sources = Sources {
        enforced: vec![source("p/a.cedar", enforced)],
        shadow: vec![source("p/shadow/a.cedar", shadow)],
        ..Sources::default()
    };
    let set = PolicySet::compile_all(&sources, Path::new("p"), &setting(1));
    set.unwrap_or_else(|faults| panic!("{faults:?}"))
}

fn would_deny(enforced: &str, shadow: &str) -> (bool, Vec<String>) {
    let set = with_shadows(enforced, shadow);
    let verdict = decide(&set, &alice(), "tools/call", ("github", QTarget::Tool("get")));
    let ids = verdict.more.as_deref().map_or(&[][..], |more| &more.would_deny[..]);
    (verdict.allow, ids.iter().map(ToString::to_string).collect())
}

const PERMIT: &str = r#"@id("use") @credential("github-user")
    permit (principal, action, resource in Server::"github");"#;

#[test]
fn what_a_shadow_would_deny_is_told() {
    let fails = r#"@id("s") permit (principal, action, resource)
        when { context.local.minute_of_day * 9223372036854775807 > 0 };"#;
    let table: [(&str, &str, &[&str]); 7] = [
        ("a forbid", r#"@id("s") forbid (principal, action, resource);"#, &["s"]),
        ("what fails to evaluate", fails, &["s"]),
        (
            "another credential",
            r#"@id("s") @credential("github-bot")
                permit (principal, action, resource in Server::"github");"#,
            &["s"],
        ),
        ("a permit", r#"@id("s") permit (principal, action, resource);"#, &[]),
        (
            "the same credential",
            r#"@id("s") @credential("github-user")
                permit (principal, action, resource in Server::"github");"#,
            &[],
        ),
        (
            "a forbid that does not hold",
            r#"@id("s") forbid (principal, action, resource) when { context.local.weekday > 7 };"#,
            &[],
        ),
        (
            "a forbid for others",
            r#"@id("s") forbid (principal == User::"bob", action, resource);"#,
            &[],
        ),
    ];
    for (what, shadow, expected) in table {
        let (allow, ids) = would_deny(PERMIT, shadow);
        assert!(allow, "{what}");
        assert_eq!(ids, expected, "{what}");
    }
    let forbid = r#"@id("s") forbid (principal, action, resource);"#;
    assert_eq!(would_deny(r#"@id("x") forbid (principal, action, resource);"#, forbid).1.len(), 0);
}

#[test]
fn shadows_show_and_hide_nothing() {
    let forbid = r#"@id("s") forbid (principal, action, resource);"#;
    let set = with_shadows(PERMIT, forbid);
    assert!(set.server_visible(&alice().subject(), 0));
    let nothing = with_shadows(
        r#"@id("x") permit (principal == User::"bob", action, resource);"#,
        r#"@id("s") permit (principal, action, resource);"#,
    );
    assert!(!nothing.server_visible(&alice().subject(), 0));
}

/// A value that no calendar holds fails the shadow that looks at it, and nothing else.
#[test]
fn what_only_shadows_look_at_denies_nothing() {
    let enforced = r#"@id("use") permit (principal, action, resource)
        when { context.scopes.contains("read") };"#;
    let shadow = r#"@id("s") forbid (principal, action, resource)
        when { context has auth_time && context.auth_time > context.now };
        @id("t") forbid (principal, action, resource) when { context.scopes.contains("read") };"#;
    let who = Who { auth_time: Some(NOW * 1000), ..alice() };
    let (plain, shadowed) = (set(enforced), with_shadows(enforced, shadow));
    for (action, target) in [("connect", QTarget::Gateway), ("tools/call", QTarget::Tool("get"))] {
        let verdict = decide(&plain, &who, action, ("github", target));
        assert!(verdict.allow);
        let shadowed = decide(&shadowed, &who, action, ("github", target));
        let told = shadowed.more.as_deref().unwrap().would_deny.iter();
        assert_eq!(told.map(|id| &**id).collect::<Vec<_>>(), ["s", "t"], "{shadowed:?}");
        assert_eq!(Verdict { more: None, ..shadowed }, verdict);
    }
    let (subject, context) = (who.subject(), context());
    let question = Question {
        subject: &subject,
        action: "tools/call",
        server: server("github"),
        target: QTarget::Tool("get"),
        context: &context,
        mode: Mode::Call,
    };
    let traced = shadowed.trace(&question);
    let outcomes: Vec<&Outcome> = traced.iter().map(|one| &one.outcome).collect();
    assert!(
        matches!(outcomes[..], [Outcome::Held, Outcome::Failed(_), Outcome::Failed(_)]),
        "{outcomes:?}"
    );
}

/// Whatever the shadows are: the same answer, the same policies, the same credential.
#[test]
fn shadows_never_decide() {
    let mut told = 0;
    for seed in 1..=100_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let enforced = policies(&mut dice, 8).join("\n");
        let shadow = policies(&mut dice, 8).join("\n").replace("@id(\"p", "@id(\"s");
        let all_forbid = shadow.replace(" permit (", " forbid (");
        let shadow = if seed % 2 == 0 { shadow } else { all_forbid };
        let (plain, shadowed) = (set(&enforced), with_shadows(&enforced, &shadow));
        for _ in 0..3 {
            let who = people(&mut dice);
            for (action, server, target) in QUESTIONS {
                for mode in [Mode::Call, Mode::List] {
                    let (subject, context) = (who.subject(), context());
                    let question = Question {
                        subject: &subject,
                        action,
                        server: *server,
                        target: *target,
                        context: &context,
                        mode,
                    };
                    let (mut one, mut other) =
                        (plain.decide(&question), shadowed.decide(&question));
                    let note = format!("seed {seed}: {question:?}\n{enforced}\n-\n{shadow}");
                    let more = other.more.take();
                    told += usize::from(more.is_some_and(|more| !more.would_deny.is_empty()));
                    one.more = None;
                    assert_eq!(one, other, "{note}");
                }
            }
        }
    }
    assert!(told > 20, "{told}");
}

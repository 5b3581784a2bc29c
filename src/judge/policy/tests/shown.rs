//! Lists: what is shown, what is hidden, and that hidden is blocked.

use super::differential::{people, policies_with};
use super::random::{CONDITIONS, DECLARED, Dice, GITHUB, GIVEN, OF_ARGUMENTS, Planned, QUESTIONS};
use super::*;
use crate::mcp::{Arguments, Call};

fn shown(set: &PolicySet, who: &Who, target: QTarget<'_>, mode: Mode) -> Verdict {
    let (subject, context) = (who.subject(), context());
    let action = match target {
        QTarget::Tool(_) => "tools/call",
        QTarget::Prompt(_) => "prompts/get",
        QTarget::Resource(_) | QTarget::Server | QTarget::Gateway => "resources/read",
    };
    let server = server("github");
    set.decide(&Question { subject: &subject, action, server, target, context: &context, mode })
}

fn listed(text: &str, who: &Who) -> bool {
    shown(&set(text), who, QTarget::Tool("get"), Mode::List).allow
}

#[test]
fn what_only_a_call_can_tell_does_not_hide() {
    let permit = r#"@id("p") permit (principal, action, resource)"#;
    let forbid = r#"@id("f") forbid (principal, action, resource)"#;
    let needs = r#"when { context.scopes.contains("never") }"#;
    let recent = r#"when { context has auth_time && context.auth_time > context.now }"#;
    let strong = r#"when { context has acr && context.acr == "never" }"#;
    let office = r#"when { context.local.weekday > 7 }"#;
    let inside = r#"when { context.source.ip.isInRange(ip("192.0.2.0/24")) }"#;
    for needs in [needs, recent, strong] {
        assert!(listed(&format!("{permit} {needs};"), &alice()), "{needs}");
        let unless = needs.replace("when", "unless");
        assert!(listed(&format!("{permit}; {forbid} {unless};"), &alice()), "{unless}");
    }
    for known in [office, inside] {
        assert!(!listed(&format!("{permit} {known};"), &alice()), "{known}");
        let unless = known.replace("when", "unless");
        assert!(!listed(&format!("{permit}; {forbid} {unless};"), &alice()), "{unless}");
        assert!(listed(&format!("{permit}; {forbid} {known};"), &alice()), "{known}");
    }
    let head = permit.replace("principal,", "principal == User::\"bob\",");
    assert!(!listed(&format!("{head} {needs};"), &alice()), "its head must match all the same");
    assert!(!listed(&format!("{permit}; {forbid};"), &alice()));
    assert!(!listed("", &alice()));
}

#[test]
fn what_fails_to_evaluate_is_not_shown() {
    let permit = r#"@id("p") permit (principal, action, resource)"#;
    let fails = "when { context.local.minute_of_day * 9223372036854775807 > 0 }";
    assert!(!listed(&format!("{permit} {fails};"), &alice()));
    let forbid = r#"@id("f") forbid (principal, action, resource)"#;
    let set = set(&format!("{permit}; {forbid} {fails};"));
    let verdict = shown(&set, &alice(), QTarget::Tool("get"), Mode::List);
    assert!(!verdict.allow && verdict.error && !verdict.forbidden);
}

#[test]
fn a_template_is_shown_when_any_resource_may_be_read() {
    let template = |text: &str| {
        let set = set(text);
        shown(&set, &alice(), QTarget::Resource(""), Mode::Template).allow
    };
    let one = r#"@id("p") permit (principal, action, resource == Resource::"github/file:///a");"#;
    let all = r#"@id("p") permit (principal, action, resource in Server::"github")"#;
    assert!(template(one));
    assert!(template(&format!("{all};")));
    assert!(template(&format!(r#"{all} when {{ resource == Resource::"github/file:///a" }};"#)));
    let other = r#"@id("p") permit (principal, action, resource in Server::"jira");"#;
    assert!(!template(other));
    let tool = r#"@id("p") permit (principal, action, resource == Tool::"github/file:///a");"#;
    assert!(!template(tool));
    let f = r#"@id("f") forbid (principal, action, resource"#;
    assert!(template(&format!(r#"{all}; {f} == Resource::"github/file:///a");"#)));
    assert!(!template(&format!(r#"{all}; {f} in Server::"github");"#)));
    let of_bob = one.replace("principal,", "principal == User::\"bob\",");
    assert!(!template(&of_bob));
}

/// Whatever a call may bring, arguments too: what is hidden is denied.
#[test]
fn hidden_is_blocked() {
    let conditions = [CONDITIONS, OF_ARGUMENTS, OF_ARGUMENTS].concat();
    let (mut hidden, mut visible, mut templates) = (0, 0, (0, 0));
    for seed in 1..=150_u64 {
        let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let lines = policies_with(&mut dice, 10, &conditions, compiled_typed);
        let set = compiled_typed(&lines.join("\n")).unwrap_or_else(|faults| panic!("{faults:?}"));
        let given = given(&set);
        let none = [Arguments::NONE];
        for _ in 0..4 {
            let who = people(&mut dice);
            for (action, server, target) in QUESTIONS {
                let (subject, context) = (who.subject(), context());
                let question = Question {
                    subject: &subject,
                    action,
                    server: *server,
                    target: *target,
                    context: &context,
                    mode: Mode::List,
                };
                let note = || format!("seed {seed}\n{}", lines.join("\n"));
                let is_get = (*server, *target) == (GITHUB, QTarget::Tool("get"));
                if set.decide(&question).allow {
                    visible += 1;
                } else {
                    hidden += 1;
                    let given: Vec<Arguments<'_>> = given.iter().map(Call::arguments).collect();
                    let given = if is_get { given.as_slice() } else { &none };
                    blocked(&set, &who, &question, given, &note());
                }
                if !matches!(target, QTarget::Resource(_)) {
                    continue;
                }
                let template =
                    Question { target: QTarget::Resource(""), mode: Mode::Template, ..question };
                if set.decide(&template).allow {
                    templates.1 += 1;
                    continue;
                }
                templates.0 += 1;
                // Whatever it stands for, also what no policy names.
                for uri in ["get", "a/b", "file:///any"] {
                    let target = QTarget::Resource(uri);
                    blocked(&set, &who, &Question { target, ..template }, &none, &note());
                }
            }
        }
    }
    assert!(hidden > 500 && visible > 500, "{hidden} hidden, {visible} visible");
    assert!(templates.0 > 50 && templates.1 > 50, "{templates:?}");
}

/// With the type of `github/get`.
fn compiled_typed(text: &str) -> Result<PolicySet, Vec<Fault>> {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
    let sources = Sources {
        enforced: vec![source("p/a.cedar", text)],
        schemas: vec![source("p/schema.d/a.cedarschema", DECLARED)],
        ..Sources::default()
    };
    PolicySet::compile_all(&sources, Path::new("p"), &setting(1))
}

/// Calls of `github/get` as this set reads them, whatever is passed.
fn given(set: &PolicySet) -> Vec<Call> {
    let read = |(sent, _, _): &(&str, &str, &[&str])| {
        let mut call = Call::new();
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"get","arguments":{sent}}}}}"#
        );
        call.read_by(body.as_bytes(), &Planned(set)).unwrap();
        call
    };
    GIVEN.iter().map(read).collect()
}

/// No call of what `question` is about is allowed, whatever it brings.
fn blocked(
    set: &PolicySet,
    who: &Who,
    question: &Question<'_>,
    given: &[Arguments<'_>],
    note: &str,
) {
    for (call, arguments) in
        calls(who).iter().flat_map(|who| given.iter().map(move |one| (who, one)))
    {
        let subject = call.subject();
        let context = Context { arguments: *arguments, ..*question.context };
        let question =
            Question { subject: &subject, context: &context, mode: Mode::Call, ..*question };
        assert!(!set.decide(&question).allow, "{question:?} {note}");
    }
}

/// The same caller with every scope, login and age that policies here can tell apart.
fn calls(who: &Who) -> Vec<Who> {
    let scopes: [&[&str]; 3] = [&[], &["read"], &["read", "write"]];
    let mut all = Vec::new();
    for scopes in scopes {
        for acr in [None, Some("gold")] {
            for auth_time in [None, Some(NOW - 60), Some(NOW - 86_400)] {
                all.push(Who {
                    groups: who.groups.clone(),
                    scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                    acr,
                    auth_time,
                    ..*who
                });
            }
        }
    }
    all
}

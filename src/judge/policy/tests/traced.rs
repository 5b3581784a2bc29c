//! What is told about single policies.

use super::*;

fn traced(text: &str) -> Vec<(String, Outcome)> {
    let (set, who, context) = (set(text), alice(), context());
    let subject = who.subject();
    let all = set.trace(&call(&subject, &context));
    all.into_iter().map(|one| (one.id.to_owned(), one.outcome)).collect()
}

/// A call of `github/get`.
fn call<'a>(subject: &'a Subject<'a>, context: &'a Context<'a>) -> Question<'a> {
    Question {
        subject,
        action: "tools/call",
        server: server("github"),
        target: QTarget::Tool("get"),
        context,
        mode: Mode::Call,
    }
}

fn unmet(text: &str, unless: bool, line: u32, column: u32) -> Outcome {
    Outcome::Unmet(Unmet { text: text.to_owned(), unless, line, column })
}

const HEAD: &str = "@id(\"a\") permit (principal, action == Action::\"tools/call\", resource)";

#[test]
fn the_first_part_that_is_not_met_is_told() {
    let table: &[(&str, Outcome)] = &[
        ("", Outcome::Held),
        ("\nwhen { 1 == 1 && context.scopes.contains(\"read\") }", Outcome::Held),
        ("\nwhen { context.local.weekday == 2 }", unmet("context.local.weekday == 2", false, 2, 8)),
        (
            "\nwhen { 1 == 1 && context.local.weekday == 2 && context.local.weekday == 3 }",
            unmet("context.local.weekday == 2", false, 2, 18),
        ),
        // Comments and strings between.
        (
            "\nwhen { \"a && b\" == \"a && b\" && // && 1 == 4\n  context.scopes.contains(\"}\") }",
            unmet("context.scopes.contains(\"}\")", false, 3, 3),
        ),
        (
            "\nwhen { (1 == 1 && context.local.weekday == 2) && 1 == 1 }",
            unmet("(1 == 1 && context.local.weekday == 2)", false, 2, 8),
        ),
        (
            "\nwhen { context.local.weekday == 2 || context.local.weekday == 3 && 1 == 1 }",
            unmet(
                "context.local.weekday == 2 || context.local.weekday == 3 && 1 == 1",
                false,
                2,
                8,
            ),
        ),
        (
            "\nwhen { if 1 == 1 then context.local.weekday == 2 && 1 == 1 else 1 == 1 }",
            unmet("if 1 == 1 then context.local.weekday == 2 && 1 == 1 else 1 == 1", false, 2, 8),
        ),
        (
            "\nunless { context.local.weekday == 1 && 2 == 2 }",
            unmet("context.local.weekday == 1 && 2 == 2", true, 2, 10),
        ),
        (
            "\nwhen { 1 == 1 } unless { context.local.weekday == 1 }",
            unmet("context.local.weekday == 1", true, 2, 26),
        ),
        (
            "\nunless { context.local.weekday == 2 }\nwhen { context.local.weekday == 3 }",
            unmet("context.local.weekday == 3", false, 3, 8),
        ),
        (
            "when { context.scopes.contains(\"write\") }",
            unmet("context.scopes.contains(\"write\")", false, 1, 78),
        ),
    ];
    for (condition, outcome) in table {
        let text = format!("{HEAD} {condition};");
        assert_eq!(traced(&text), [("a".to_owned(), outcome.clone())], "{condition}");
    }
}

#[test]
fn heads_failures_and_shadows_are_told() {
    let text = "@id(\"who\") permit (principal == User::\"bob\", action, resource);\n\
        @id(\"other\") permit (principal, action == Action::\"tools/list\", resource);\n\
        @id(\"tool\") forbid (principal, action, resource == Tool::\"github/other\");\n\
        @id(\"bad\") forbid (principal, action, resource)\n\
        when { context.local.minute_of_day * 9223372036854775807 > 0 };\n\
        @id(\"kind\") permit (principal, action, resource is Prompt);";
    let found = traced(text);
    let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["who", "bad", "kind"], "the slice, in the order of the file");
    assert_eq!((&found[0].1, &found[2].1), (&Outcome::Elsewhere, &Outcome::Elsewhere));
    let Outcome::Failed(words) = &found[1].1 else { panic!("{:?}", found[1]) };
    assert!(words.contains("overflow"), "{words}");
    assert!(!words.contains('\n'));
    let nobody = traced("@id(\"a\") permit (principal, action == Action::\"connect\", resource);");
    assert!(nobody.is_empty());
}

#[test]
fn what_a_slice_reads_is_told() {
    let set = set("@id(\"a\") permit (principal, action == Action::\"tools/call\", resource)
        when { context.scopes.contains(\"x\") && context has acr && context.local.weekday == 1 };");
    let (who, context) = (alice(), context());
    let subject = who.subject();
    let question = call(&subject, &context);
    let reads = Reads { scopes: true, acr: true, time: true, ..Reads::default() };
    assert_eq!(set.reads(&question), reads);
    assert_eq!(set.reads(&Question { action: "tools/list", ..question }), Reads::default());
}

//! Arguments of tools: what may be declared, what may be asked for, and what is decided.

use super::*;
use crate::mcp::{Doubt, Field, Shape, Writer};

const TYPES: &str = r#"
@tool("github/create")
type Create = {
  path: String, count?: Long, "dry run": Bool, tags: Set<String>, options: Options,
  more: { a: Long, b: Long },
};
type Options = { deep: { x: __cedar::Long }, y?: String };
@tool("jira/create") @complete("jira")
type JiraCreate = { path: String };
"#;

fn sources(types: &str, enforced: &str, shadow: &str) -> Sources {
    let source = |path: &str, text: &str| Source { path: path.into(), text: text.to_owned() };
    Sources {
        enforced: vec![source("p/a.cedar", enforced)],
        shadow: vec![source("p/shadow/a.cedar", shadow)],
        schemas: vec![source("p/schema.d/a.cedarschema", types)],
    }
}

fn typed(types: &str, enforced: &str, shadow: &str) -> Result<PolicySet, Vec<String>> {
    let set =
        PolicySet::compile_all(&sources(types, enforced, shadow), Path::new("p"), &setting(1));
    set.map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

/// One permit of `tools/call` under `condition`.
fn permit(condition: &str) -> String {
    format!(
        "@id(\"a\") permit (principal, action == Action::\"tools/call\", resource)\n\
         when {{ {condition} }};"
    )
}

/// Asks for `context.arguments["github/create"].PATH` as DESIGN has it.
fn given(path: &str, test: &str) -> String {
    let tool = r#"context.arguments["github/create"]"#;
    format!(r#"context.arguments has "github/create" && {tool} has {path} && {tool}.{path}{test}"#)
}

fn ask(set: &PolicySet, tool: &str, arguments: Arguments<'_>) -> Verdict {
    let (who, context) = (alice(), Context { arguments, ..context() });
    set.decide(&Question {
        subject: &who.subject(),
        action: "tools/call",
        server: server("github"),
        target: QTarget::Tool(tool),
        context: &context,
        mode: Mode::Call,
    })
}

fn written(write: impl Fn(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Writer(&mut bytes));
    bytes
}

#[test]
fn every_shape_reaches_the_conditions() {
    let bytes = written(|items| {
        items.long("count", -7);
        items.bool("dry run", true);
        items.record("options");
        items.record("deep");
        items.long("x", 3);
        items.end();
        items.text("y", "why");
        items.end();
        items.text("path", "docs/a");
        items.set("tags");
        items.text("", "x");
        items.text("", "y");
        items.end();
    });
    let deep = r#"context.arguments has "github/create" &&
        context.arguments["github/create"] has options.deep.x &&
        context.arguments["github/create"].options.deep.x == 3"#;
    let dry = r#"context.arguments has "github/create" &&
        context.arguments["github/create"] has "dry run" &&
        context.arguments["github/create"]["dry run"]"#;
    let table = [
        (given("path", r#" like "docs/*""#), true),
        (given("path", r#" == "docs""#), false),
        (given("count", " < 0"), true),
        (given("count", " == 7"), false),
        (given("tags", r#".containsAll(["y", "x"])"#), true),
        (given("tags", r#".contains("z")"#), false),
        (given("options.y", r#" == "why""#), true),
        (given("more.a", " == 1"), false),
        (deep.to_owned(), true),
        (dry.to_owned(), true),
        (r#"context.arguments has "github/create""#.to_owned(), true),
        (r#"context.arguments has "jira/create""#.to_owned(), false),
        ("context has arguments".to_owned(), true),
    ];
    for (condition, allow) in table {
        let set =
            typed(TYPES, &permit(&condition), "").unwrap_or_else(|faults| panic!("{faults:?}"));
        let verdict = ask(&set, "create", Arguments::new(&bytes, false));
        assert_eq!((verdict.allow, verdict.error), (allow, false), "{condition}");
    }
    let has = typed(TYPES, &permit(&given("path", r#" != "x""#)), "").unwrap();
    let other = ask(&has, "other", Arguments::NONE);
    assert!(!other.allow && !other.error, "nothing is known of another tool");
    let absent = ask(&has, "create", Arguments::new(b"", false));
    assert!(!absent.allow && !absent.error, "what is absent is absent");
}

#[test]
fn a_plan_has_what_is_named_and_nothing_else() {
    let long = |name: &str, decides| Field { name: name.into(), shape: Shape::Long, decides };
    let a = permit(&format!("{} && {}", given("count", " == 1"), given("more.a", " == 1")));
    let shadow = permit(&given("more.b", " == 1")).replace("\"a\"", "\"s\"");
    let set = typed(TYPES, &a, &shadow).unwrap();
    let more = Shape::Record(vec![long("a", true), long("b", false)]);
    let more = Field { name: "more".into(), shape: more, decides: true };
    let fields = vec![long("count", true), more];
    assert_eq!(set.plan(0, "create"), Some(&Plan { fields, decides: true }));
    assert_eq!(
        (set.plan(1, "create"), set.plan(0, "x"), set.plan(9, "create")),
        (None, None, None)
    );
    let bare = typed(TYPES, &permit(r#"context.arguments has "jira/create""#), "").unwrap();
    assert_eq!(bare.plan(1, "create"), Some(&Plan { fields: vec![], decides: true }));
    let none = typed(TYPES, &permit("context.scopes.contains(\"read\")"), "").unwrap();
    assert_eq!(none.plan(0, "create"), None);
}

/// A call under way was read by the plan of its time: it stays when shadows come and go, and no
/// longer than what decides stays the same.
#[test]
fn shadows_do_not_change_how_a_call_is_read() {
    let plan = |enforced: &[String], shadow: &str| {
        let conditions = enforced
            .iter()
            .enumerate()
            .map(|(at, one)| permit(one).replace("\"a\"", &format!("\"a{at}\"")));
        let enforced: String = conditions.collect::<Vec<_>>().join("\n");
        let shadow = if shadow.is_empty() { String::new() } else { permit(shadow) };
        typed(TYPES, &enforced, &shadow).unwrap().plan(0, "create").cloned()
    };
    let no_arguments = "context.scopes.contains(\"read\")".to_owned();
    let (a, b) = (given("more.a", " == 1"), given("more.b", " == 1"));
    let (count, has) = (given("count", " == 1"), r#"context.arguments has "github/create""#);
    let alike = |new: &Option<Plan>, old: &Option<Plan>| {
        new.as_ref().is_none_or(|new| new.decides_as(old.as_ref()))
    };
    for enforced in [vec![no_arguments.clone()], vec![a.clone()], vec![a.clone(), count.clone()]] {
        let plain = plan(&enforced, "");
        for shadow in [&a, &b, &count, &has.to_owned()] {
            let shadowed = plan(&enforced, shadow);
            assert!(alike(&shadowed, &plain), "{enforced:?} + {shadow}");
            assert!(alike(&plain, &shadowed), "{enforced:?} - {shadow}");
        }
    }
    let of = |conditions: &[&String], shadow: &str| {
        plan(&conditions.iter().map(|one| (*one).clone()).collect::<Vec<_>>(), shadow)
    };
    let has = has.to_owned();
    for (new, old) in [
        (of(&[&a, &b], ""), of(&[&a], "")),
        (of(&[&a, &b], ""), of(&[&a], &b)),
        (of(&[&a, &count], ""), of(&[&a, &b], "")),
        (of(&[&a], ""), of(&[&no_arguments], &a)),
        (of(&[&has], ""), of(&[&no_arguments], "")),
        (of(&[&has], ""), of(&[&no_arguments], &has)),
    ] {
        assert!(!alike(&new, &old), "{new:?} {old:?}");
    }
}

#[test]
fn what_cannot_be_held_denies_where_it_is_asked_for_only() {
    let forbid = r#"@id("ok") permit (principal, action, resource);
        @id("f") forbid (principal in Group::"engineering", action, resource == Tool::"github/create")
        when { context.arguments has "github/create" &&
               context.arguments["github/create"] has count };"#;
    let set = typed(TYPES, forbid, "").unwrap();
    let doubtful = Arguments::new(b"", true);
    let verdict = ask(&set, "create", doubtful);
    assert!(!verdict.allow && !verdict.forbidden && !verdict.error);
    assert!(verdict.more.as_deref().is_some_and(|more| more.unrepresentable));
    assert_eq!(named(&verdict), ["f"]);
    assert!(ask(&set, "create", Arguments::new(b"", false)).allow);
    assert!(ask(&set, "other", doubtful).allow, "no policy asks for those of another tool");
    // Whom the policy is not about does not suffer from it.
    let (who, context) =
        (Who { groups: vec![], ..alice() }, Context { arguments: doubtful, ..context() });
    let question = Question {
        subject: &who.subject(),
        action: "tools/call",
        server: server("github"),
        target: QTarget::Tool("create"),
        context: &context,
        mode: Mode::Call,
    };
    assert!(set.decide(&question).allow);
}

#[test]
fn what_only_shadows_ask_for_never_denies() {
    let shadow = permit(&given("count", " == 1")).replace("permit", "forbid");
    let enforced = r#"@id("ok") permit (principal, action, resource);"#;
    let set = typed(TYPES, enforced, &shadow).unwrap();
    let doubt = Doubt { decides: false, shadow: true };
    let would = |arguments| {
        let verdict = ask(&set, "create", arguments);
        assert!(verdict.allow);
        verdict.more.as_deref().map_or(0, |more| more.would_deny.len())
    };
    assert_eq!(would(Arguments::doubted(b"", doubt)), 1);
    assert_eq!(would(Arguments::new(b"", false)), 0);
    let one = written(|items| items.long("count", 1));
    assert_eq!(would(Arguments::new(&one, false)), 1);
}

#[test]
fn keys_tell_arguments_apart_where_they_are_read() {
    let reads = typed(TYPES, &permit(&given("count", " == 1")), "").unwrap();
    let blind = typed(TYPES, r#"@id("a") permit (principal, action, resource);"#, "").unwrap();
    let (one, two) =
        (written(|items| items.long("count", 1)), written(|items| items.long("count", 2)));
    let doubt = Doubt { decides: false, shadow: true };
    let all = [
        Arguments::NONE,
        Arguments::new(b"", false),
        Arguments::new(b"", true),
        Arguments::doubted(b"", doubt),
        Arguments::new(&one, false),
        Arguments::new(&two, false),
    ];
    for (set, distinct) in [(&reads, all.len()), (&blind, 1)] {
        let keys: std::collections::HashSet<Vec<u8>> = all
            .iter()
            .map(|arguments| {
                let (who, mut key) = (alice(), Vec::new());
                let context = Context { arguments: *arguments, ..context() };
                let question = Question {
                    subject: &who.subject(),
                    action: "tools/call",
                    server: server("github"),
                    target: QTarget::Tool("create"),
                    context: &context,
                    mode: Mode::Call,
                };
                assert!(set.key(&set.slice(&question).unwrap(), &question, &mut key));
                key
            })
            .collect();
        assert_eq!(keys.len(), distinct);
    }
}

/// Types, condition, and the fault.
const FAULTS: &[(&str, &str, &str)] = &[
    ("entity E;", "true", "p/schema.d/a.cedarschema:1:1: an entity type; leave only types"),
    ("action a;", "true", "p/schema.d/a.cedarschema:1:1: an action; leave only types"),
    ("namespace N { type X = Long; }", "true", "error parsing schema"),
    ("namespace N { }; type X = Long;", "true", "error parsing schema"),
    ("type X = Long;\ntype X = String;", "true", "2:1: a type of this name is there"),
    ("type X = Long;\n type Y = Long", "true", "2:2: this never ends"),
    ("\n @tool(\"no/x\") type X = {};", "true", "2:16: type X: @tool(\"no/x\") does not name"),
    ("@tool(\"github\") type X = {};", "true", "type X: @tool(\"github\") does not name a tool"),
    ("@tool(\"github/\") type X = {};", "true", "does not name a tool of a server; write"),
    ("@complete(\"no\") type X = {};", "true", "there is no server \"no\"; servers: github, jira"),
    ("@tool(\"github/x\") type X = Long;", "true", "the arguments of a tool are a record"),
    ("@tool(\"github/x\") type X = { a: datetime };", "true", "`datetime` cannot be an argument"),
    ("@tool(\"github/x\") type X = { a: Set<Set<Long>> };", "true", "a set of sets or records"),
    ("@tool(\"github/x\") type X = { a: Y };", "true", "`Y` cannot be an argument"),
    ("@tool(\"github/x\") type X = { a: X };", "true", "nested deeper than 8 levels"),
    (
        "@tool(\"github/x\") type X = {};\n@tool(\"github/x\") type Y = {};",
        "true",
        "2:19: type Y: tool \"github/x\" has two types",
    ),
    (
        TYPES,
        "context.arguments[\"github/create\"] == {}",
        "p/a.cedar:2:26: a record of arguments as a whole",
    ),
    (
        TYPES,
        "context.arguments[\"github/create\"].more == {}",
        "p/a.cedar:2:43: a record of arguments as a whole",
    ),
    (
        TYPES,
        "(if true then context.arguments else context.arguments) has \"github/create\"",
        "`context.arguments` as a whole",
    ),
    (
        TYPES,
        "context.arguments has \"github/crate\"",
        "p/a.cedar:2:30: the arguments of tool \"github/crate\"",
    ),
    (
        TYPES,
        "context.arguments[\"github/create\"] has pathh",
        "p/a.cedar:2:47: \"pathh\" is not declared of tool \"github/create\"; declared are: count, dry run,",
    ),
    (TYPES, "context.arguments[\"github/create\"].path == 1", "p/a.cedar:2:8: "),
    (
        TYPES,
        "context.arguments has \"github/cre\\u{61}te\"",
        "the name of tool \"github/create\" has escapes in it; write it as it is",
    ),
    (
        TYPES,
        "context.arguments has \"github/create\" && \
         context.arguments[\"github/create\"].path == \"x\"",
        "p/a.cedar:2:49: for policy `a`, unable to guarantee safety of access to optional attribute",
    ),
    (
        TYPES,
        "resource == Tool::\"jira/other\"",
        "2:26: Tool::\"jira/other\": schema.d knows all tools of \"jira\", not this one",
    ),
];

#[test]
fn faults_say_where_and_what() {
    let mut missing = Vec::new();
    for (types, condition, fault) in FAULTS {
        let Err(faults) = typed(types, &permit(condition), "") else {
            panic!("loaded: {types} {condition}")
        };
        if !faults.iter().any(|found| found.contains(fault)) {
            missing.push((fault, faults));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(typed(TYPES, &permit("resource == Tool::\"jira/create\""), "").is_ok());
    assert!(typed(TYPES, &permit("resource == Prompt::\"jira/other\" || true"), "").is_ok());
    let names: Vec<String> = (0..33).map(|at| format!("f{at}: Long")).collect();
    let types = format!("@tool(\"github/create\") type X = {{ {} }};", names.join(", "));
    let asked = |count: usize| {
        let all: Vec<String> = (0..count).map(|at| given(&format!("f{at}"), " == 1")).collect();
        let each = all.iter().enumerate().map(|(at, one)| {
            permit(one).replace("\"a\"", &format!("\"p{at}\"")).replace('\n', " ")
        });
        typed(&types, &each.collect::<Vec<_>>().join("\n"), "")
    };
    assert!(asked(32).is_ok());
    let faults = asked(33).err().unwrap();
    assert!(
        faults[0].starts_with("p/a.cedar:33:1: with this, more than 32 arguments"),
        "{faults:?}"
    );
}

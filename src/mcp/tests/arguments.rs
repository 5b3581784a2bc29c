//! Planned arguments: what is copied, what cannot be, and what does not matter.

use super::super::{Arguments, Call, Field, Item, Known, Plan, Shape};
use crate::limits::{
    ARGUMENT_SET_MAX, ARGUMENT_TEXT_BYTES_MAX, ARGUMENTS_BYTES_MAX, PLAN_FIELDS_MAX,
};

struct Planned(Plan);

impl Known for Planned {
    fn extension(&self, _method: &str) -> Option<u16> {
        None
    }

    fn plan(&self, tool: &str) -> Option<&Plan> {
        (tool == "planned").then_some(&self.0)
    }
}

fn field(name: &str, shape: Shape) -> Field {
    Field { name: name.into(), shape, decides: true }
}

fn plan() -> Planned {
    let inner = vec![field("deep", Shape::Long), field("list", Shape::Set(Shape::Text.into()))];
    Planned(Plan {
        fields: vec![
            field("count", Shape::Long),
            field("dry_run", Shape::Bool),
            field("options", Shape::Record(inner)),
            field("path", Shape::Text),
            field("tags", Shape::Set(Shape::Text.into())),
        ],
        decides: true,
    })
}

/// What is read of a call of `tool` whose params go on with `rest`.
fn read_as(tool: &str, rest: &str, known: &Planned) -> Call {
    let body = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}"{rest}}}}}"#
    );
    let mut call = Call::new();
    call.read_by(body.as_bytes(), known).unwrap_or_else(|reject| panic!("{reject:?}: {body}"));
    call
}

fn read(arguments: &str) -> Call {
    read_as("planned", &format!(r#","arguments":{arguments}"#), &plan())
}

fn items(call: &Call) -> Vec<Item<'_>> {
    call.arguments().items().collect()
}

#[test]
fn only_planned_arguments_are_copied_in_the_order_of_the_plan() {
    let call = read(
        r#"{"path":"a\u00e9","other":[1,null,{"path":"x"}],"count":-7,"dry_run":true,
            "options":{"more":1.5,"list":["x","y"],"deep":0},"tags":[]}"#,
    );
    let expected = [
        Item::Long("count", -7),
        Item::Bool("dry_run", true),
        Item::Record("options"),
        Item::Long("deep", 0),
        Item::Set("list"),
        Item::Text("", "x"),
        Item::Text("", "y"),
        Item::End,
        Item::End,
        Item::Text("path", "aé"),
        Item::Set("tags"),
        Item::End,
    ];
    assert_eq!(items(&call), expected);
    assert!(!call.arguments().unrepresentable());
    let swapped = read(r#"{"dry_run":false,"count":9223372036854775807}"#);
    let same = read(r#"{ "count" : 9223372036854775807 , "dry_run" : false }"#);
    assert_eq!(swapped.arguments().bytes(), same.arguments().bytes());
}

#[test]
fn what_is_absent_is_absent_and_other_tools_have_no_plan() {
    for rest in ["", r#","arguments":{}"#, r#","arguments":{"other":{"path":null}}"#] {
        let call = read_as("planned", rest, &plan());
        let arguments = call.arguments();
        assert!(arguments.planned() && !arguments.unrepresentable(), "{rest}");
        assert_eq!(arguments.bytes(), b"", "{rest}");
    }
    let other = read_as("other", r#","arguments":{"path":1}"#, &plan());
    assert!(!other.arguments().planned() && !other.arguments().unrepresentable());
    let mut call = read(r#"{"path":"x"}"#);
    call.read(br#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#, |_| None).unwrap();
    assert!(!call.arguments().planned(), "nothing is left of the message before");
    assert_eq!(Arguments::NONE.bytes(), call.arguments().bytes());
}

#[test]
fn what_policies_cannot_hold_is_left_out_and_told() {
    let long = format!(r#"{{"path":"{}"}}"#, "x".repeat(ARGUMENT_TEXT_BYTES_MAX + 1));
    let many = format!(r#"{{"tags":[{}"x"]}}"#, r#""x","#.repeat(ARGUMENT_SET_MAX));
    for arguments in [
        "null",
        "[]",
        r#"["path"]"#,
        r#""path""#,
        "7",
        r#"{"path":null}"#,
        r#"{"path":1}"#,
        r#"{"path":["x"]}"#,
        r#"{"path":"a\u0000b"}"#,
        r#"{"count":1.0}"#,
        r#"{"count":1e2}"#,
        r#"{"count":9223372036854775808}"#,
        r#"{"count":"1"}"#,
        r#"{"count":true}"#,
        r#"{"dry_run":0}"#,
        r#"{"dry_run":"true"}"#,
        r#"{"tags":"x"}"#,
        r#"{"tags":["x",1]}"#,
        r#"{"tags":["x",null]}"#,
        r#"{"tags":[["x"]]}"#,
        r#"{"options":[]}"#,
        r#"{"options":"x"}"#,
        r#"{"Path":"x"}"#,
        r#"{"PATH":"x"}"#,
        r#"{"path\u0000":"x"}"#,
        r#"{"ta\u0067\u017f":[]}"#,
        &long,
        &many,
    ] {
        let call = read(arguments);
        assert!(call.arguments().unrepresentable(), "{arguments}");
        assert_eq!(call.arguments().bytes(), b"", "{arguments}");
    }
    // One that cannot be held does not hide the others.
    let call = read(r#"{"path":1,"count":2,"options":{"deep":"x","list":["y"],"Deep":1}}"#);
    assert!(call.arguments().unrepresentable());
    let list = [Item::Set("list"), Item::Text("", "y"), Item::End];
    let expected =
        [&[Item::Long("count", 2), Item::Record("options")], &list[..], &[Item::End]].concat();
    assert_eq!(items(&call), expected);
}

#[test]
fn it_is_bounded_as_a_whole() {
    let names: Vec<String> = (0..PLAN_FIELDS_MAX).map(|at| format!("f{at}")).collect();
    let fields = names.iter().map(|name| field(name, Shape::Text)).collect();
    let known = Planned(Plan { fields, decides: true });
    let value = "x".repeat(ARGUMENT_TEXT_BYTES_MAX);
    let some = |count: usize| {
        let members = names.iter().take(count).map(|name| format!(r#""{name}":"{value}""#));
        let members = members.collect::<Vec<_>>().join(",");
        read_as("planned", &format!(r#","arguments":{{{members}}}"#), &known)
    };
    let fits = ARGUMENTS_BYTES_MAX / (ARGUMENT_TEXT_BYTES_MAX + 16);
    assert!(!some(fits).arguments().unrepresentable());
    assert_eq!(some(fits).arguments().items().count(), fits);
    let call = some(fits + 1);
    assert!(call.arguments().unrepresentable());
    assert_eq!(call.arguments().items().count(), fits, "what fits is kept");
}

#[test]
fn what_shadows_ask_for_takes_no_room_from_what_decides() {
    let shadow = |name: &str| Field { decides: false, ..field(name, Shape::Text) };
    let count = ARGUMENTS_BYTES_MAX / (ARGUMENT_TEXT_BYTES_MAX + 16);
    let names: Vec<String> = (0..count).map(|at| format!("s{at}")).collect();
    let inner: Vec<Field> = names.iter().map(|name| shadow(name)).collect();
    let known = Planned(Plan {
        fields: vec![
            shadow("a"),
            field("b", Shape::Record(inner)),
            field("c", Shape::Text),
            shadow("d"),
        ],
        decides: true,
    });
    let value = "x".repeat(ARGUMENT_TEXT_BYTES_MAX);
    let members = names.iter().map(|name| format!(r#""{name}":"{value}""#));
    let members = members.collect::<Vec<_>>().join(",");
    let rest =
        format!(r#","arguments":{{"a":"{value}","b":{{{members}}},"c":"{value}","d":"{value}"}}"#);
    let call = read_as("planned", &rest, &known);
    assert!(!call.arguments().unrepresentable());
    assert!(call.arguments().unrepresentable_to_shadows());
    assert!(items(&call).contains(&Item::Text("c", &value)));
    assert!(!items(&call).iter().any(|item| matches!(item, Item::Text("a" | "d", _))));
    assert!(call.arguments().bytes().len() <= 2 * ARGUMENTS_BYTES_MAX);
}

#[test]
fn whoever_listens_to_tasks_must_be_allowed_to_get_them() {
    use super::super::Target;
    let listen = |notifications: &str| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"subscriptions/listen",
                "params":{{"notifications":{notifications}}}}}"#
        );
        let mut call = Call::new();
        call.read(body.as_bytes(), |_| None).map(|()| call)
    };
    let call = listen(r#"{"taskIds":["t"],"resourceSubscriptions":["u"],"toolsListChanged":true}"#);
    let call = call.unwrap();
    let wants: Vec<_> = call.wants().collect();
    let expected = [
        (Target::Server, None),
        (Target::Resource("u"), None),
        (Target::Server, Some("tasks/get")),
    ];
    assert_eq!(wants, expected);
    assert_eq!(call.tasks().collect::<Vec<_>>(), ["t"]);
    let call = listen(r#"{"resourceSubscriptions":["u","v"],"taskIds":["s","t"]}"#).unwrap();
    assert_eq!(call.tasks().collect::<Vec<_>>(), ["s", "t"]);
    assert!(call.wants().any(|(target, _)| target == Target::Resource("v")));
    assert_eq!(call.wants().count(), 4);
    let call = listen(r#"{"toolsListChanged":true}"#).unwrap();
    assert!(call.listens_for().tools && !call.listens_for().prompts);
    assert_eq!(call.tasks().count(), 0);
    for none in ["{}", r#"{"taskIds":[]}"#] {
        assert_eq!(listen(none).unwrap().wants().count(), 1, "{none}");
    }
    let many = format!(r#"{{"taskIds":[{}"t"]}}"#, r#""t","#.repeat(256));
    for bad in [
        r#"{"taskIds":"t"}"#,
        r#"{"taskIds":[1]}"#,
        r#"{"TaskIds":["t"]}"#,
        "{\"taskIds\":[\"\\u0000\"]}",
        &many,
    ] {
        assert!(listen(bad).is_err(), "{bad}");
    }
}

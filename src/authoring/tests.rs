use super::*;
use crate::clock::UnixSeconds;
use crate::judge::policy::{Setting, Source, Sources};
use crate::mcp::Kind;

/// Whatever an agent may send can be asked about, in a form that the gateway's own reader takes.
#[test]
fn every_method_can_be_asked_about() {
    let methods = (0..=u8::MAX).filter_map(Method::from_id);
    let mut seen = 0;
    for method in methods {
        let name = method.as_str();
        if Method::from_name(name) == Method::Unknown {
            continue;
        }
        let mut asked = Asked::new("agent", name, UnixSeconds(0));
        let named = NAMED.contains(&name);
        asked.name = named.then(|| "file:///a".to_owned());
        let mut call = Call::new();
        call.read(&message(&asked), |_| None).unwrap();
        assert_eq!(call.method(), method);
        assert_eq!(call.kind() == Kind::Notification, name.starts_with("notifications/"), "{name}");
        let touched = call.name().or(call.task_id());
        assert_eq!(touched, asked.name.as_deref(), "{name} names what it touches");
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn a_listen_names_what_it_listens_to() {
    let mut asked = Asked::new("agent", LISTEN, UnixSeconds(0));
    asked.name = Some("file:///a".to_owned());
    let mut call = Call::new();
    call.read(&message(&asked), |_| None).unwrap();
    assert_eq!(listed(&call), Some((Listed::Resources, "file:///a")));
}

#[test]
fn a_completion_is_of_a_prompt_or_of_a_resource() {
    use Reference::{Prompt, Resource};
    let table = [
        ("greet", None, Some(Listed::Prompts)),
        ("file:///{path}", None, Some(Listed::Resources)),
        ("file:///{path}", Some(Prompt), Some(Listed::Prompts)),
        ("greet", Some(Resource), Some(Listed::Resources)),
        ("urn:isbn:1", None, None),
        ("{+uri}", None, None),
        ("urn:isbn:1", Some(Resource), Some(Listed::Resources)),
        ("team:greet", Some(Prompt), Some(Listed::Prompts)),
    ];
    let bench = minimal();
    for (name, reference, list) in table {
        let mut asked = Asked::new("agent", COMPLETE, UnixSeconds(0));
        (asked.name, asked.reference) = (Some(name.to_owned()), reference);
        asked.server = Some("github".to_owned());
        assert_eq!(bench.judge(&asked).is_ok(), list.is_some(), "{name}");
        let Some(list) = list else { continue };
        let mut call = Call::new();
        call.read(&message(&asked), |_| None).unwrap();
        assert_eq!(listed(&call), Some((list, name)));
    }
    let mut asked = Asked::new("agent", "prompts/get", UnixSeconds(0));
    (asked.name, asked.reference) = (Some("greet".to_owned()), Some(Prompt));
    asked.server = Some("github".to_owned());
    assert!(bench.judge(&asked).unwrap_err().contains("takes no reference"));
}

/// What is in no list is neither shown nor hidden.
#[test]
fn shown_of_what_is_in_no_list_is_a_fault() {
    let ask = |case: &str, shown: bool| {
        let text = format!(
            "agent = \"cli\"\nserver = \"github\"\nat = \"2026-11-23T12:00:00Z\"\n[[case]]\n\
             title = \"it\"\nexpect = \"deny\"\nshown = {shown}\n{case}"
        );
        cases::run_text(&minimal(), &text, Path::new("cases.toml"))
    };
    assert!(ask("name = \"a\"", false).unwrap().holds);
    for case in ["method = \"tools/list\"", "method = \"tasks/get\"\nname = \"1\""] {
        for shown in [true, false] {
            let faults = ask(case, shown).unwrap_err();
            assert!(faults[0].starts_with("cases.toml:4:1: shown: "), "{case}: {faults:?}");
        }
    }
}

/// What the gateway refuses before policies are asked is no decision here either, and policies see
/// the revision that they see there.
#[test]
fn the_revision_is_judged_as_the_gateway_does() {
    let bench = seeing();
    let ask = |method: &str, name: Option<&str>, revision: Option<&str>| {
        let mut asked = Asked::new("agent", method, UnixSeconds(0));
        asked.server = (method != CONNECT).then(|| "github".to_owned());
        asked.name = name.map(str::to_owned);
        asked.revision = revision.map(str::to_owned);
        bench.judge(&asked).map(|answer| answer.policies.join(" "))
    };
    let (old, new) = ("2025-11-25", "2026-07-28");
    let call = |revision| ask(TOOL, Some(" a\u{e9}"), revision);
    assert_eq!(call(None), Ok("assumed".to_owned()));
    assert_eq!(call(Some(old)), Ok("old".to_owned()));
    assert_eq!(call(Some(new)), Ok("new".to_owned()));
    assert_eq!(ask("connect", None, None), Ok("assumed".to_owned()));
    assert_eq!(ask("connect", None, Some(new)), Ok("new".to_owned()));
    assert_eq!(ask(LISTEN, Some("file:///a"), Some(new)), Ok("new".to_owned()));
    // What `initialize` asks for is the server's to know.
    assert_eq!(ask("initialize", None, Some("1.0.0")), Ok("other".to_owned()));
    assert_eq!(ask("initialize", None, None), Ok("assumed".to_owned()));
    let refused = [
        (TOOL, Some("a"), Some("nonsense")),
        ("connect", None, Some("nonsense")),
        (LISTEN, Some("file:///a"), Some(old)),
        (LISTEN, Some("file:///a"), None),
        ("tasks/result", Some("1"), Some(new)),
    ];
    for (method, name, revision) in refused {
        let said = ask(method, name, revision).unwrap_err();
        let shown = revision.unwrap_or("2025-03-26");
        assert!(said.contains(&format!("no client could ask this in revision {shown}")), "{said}");
    }
    let mut got = Asked::new("agent", "initialize", UnixSeconds(0));
    (got.server, got.bodyless) = (Some("github".to_owned()), true);
    assert_eq!(*bench.judge(&got).unwrap().policies[0], *"without");
    assert_eq!(*bench.door(&got).unwrap().policies[0], *"without");
}

/// Permits by revision.
fn seeing() -> Bench {
    let permit = |id: &str, when: &str| {
        format!("@id(\"{id}\") permit (principal, action, resource) {when};\n")
    };
    let is = |id: &str, revision: &str| {
        permit(
            id,
            &format!("when {{ context has revision && context.revision == \"{revision}\" }}"),
        )
    };
    let text = [
        is("assumed", "2025-03-26"),
        is("old", "2025-11-25"),
        is("new", "2026-07-28"),
        is("other", "1.0.0"),
        permit("without", "unless { context has revision }"),
    ];
    let source = Source { path: "it".into(), text: text.concat() };
    let setting = Setting {
        epoch: 1,
        servers: &["github"],
        credentials: &[],
        methods: &[],
        timezone: "UTC",
        geoip: false,
    };
    let set = PolicySet::compile(&[source], Path::new("."), &setting).unwrap();
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    Bench::with(Config::load(&conf.join("minimal.toml")).unwrap(), Arc::new(set))
}

#[test]
fn times_are_rfc_3339_with_an_offset() {
    assert_eq!(moment("1970-01-01T01:00:01+01:00"), Ok(UnixSeconds(1)));
    for wrong in ["1969-12-31T23:59:59Z", "2026-11-23T22:00:00", "22:00", ""] {
        assert!(moment(wrong).is_err(), "{wrong}");
    }
}

/// Each file of the library is sound, and decides as its cases say; beside a policy that lets
/// workloads in, too, so that what denies them is what is tried.
#[test]
fn the_library_decides_as_its_cases_say() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let library = conf.join("policies/library");
    let read = |path: &Path| Source {
        path: path.to_owned(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    let everyone = "@id(\"everyone\") permit (principal is Agent, action, resource);";
    let cases = read(&library.join("cases.toml")).text;
    let (head, cases) = cases.split_once("[[case]]").unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(&library).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|ending| ending != "cedar") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let sources = [
            read(&conf.join("policies/starter.cedar")),
            Source { path: "everyone".into(), text: everyone.to_owned() },
            read(&path),
        ];
        let setting = Setting {
            epoch: 1,
            servers: &["github"],
            credentials: &[],
            methods: &[],
            timezone: "UTC",
            geoip: true,
        };
        let set = PolicySet::compile(&sources, &library, &setting).unwrap();
        let bench = Bench::with(Config::load(&conf.join("minimal.toml")).unwrap(), Arc::new(set));
        let own: Vec<&str> =
            cases.split("[[case]]").filter(|case| case.contains(&format!("\"{name}: "))).collect();
        assert!(own.len() > 1, "{name} is seen to permit and to deny");
        let text = format!("{head}[[case]]{}", own.join("[[case]]"));
        let outcome = cases::run_text(&bench, &text, &library).unwrap();
        assert!(outcome.holds, "{name}: {:#?}", outcome.lines);
        seen += own.len();
    }
    assert_eq!(seen, cases.split("[[case]]").count(), "every case belongs to a file");
}

fn minimal() -> Bench {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    Bench::open(&conf.join("minimal.toml")).unwrap()
}

const TOOLS: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[
  {"name":"send","description":"Sends.\n@tool(\"x\")","inputSchema":{"type":"object","properties":{
    "to":{"type":"array","items":{"type":"string"}},"amount":{"type":"integer"},"rate":{"type":"number"},
    "who":{"type":"object","properties":{"name":{"type":"string"},"any":{}}},
    "note":{"type":["string","null"]},"either":{"anyOf":[{"type":"string"}]},"it's \"odd\"":{"type":"boolean"}}}},
  {"name":"send!"},{"name":"Set","inputSchema":true}],"nextCursor":"2"}}
{"tools":[{"name":"list"}]}"#;

#[test]
fn types_are_made_of_what_a_server_answers() {
    let text = tools::schema(minimal().config(), "github", TOOLS).unwrap();
    let at = text.find("@complete").unwrap();
    let expected = r#"@complete("github")
type AllTools = {};

@tool("github/Set")
type Of_Set = {};

@tool("github/list")
type Of_list = {};

// In the server's own words: Sends. @tool("x")
@tool("github/send")
type Of_send = {
  "amount"?: Long,
  // either: a combined or referenced schema, which policies cannot hold
  "it's \"odd\""?: Bool,
  // note: a schema without one type, which policies cannot hold
  // rate: a number with a fraction, which policies cannot hold
  "to"?: Set<String>,
  "who"?: {
    // any: a schema without one type, which policies cannot hold
    "name"?: String,
  },
};

@tool("github/send!")
type Of_send_ = {};
"#;
    assert_eq!(&text[at..], expected);
}

/// What the types are for: a mistake in a policy is a fault when it is loaded.
#[test]
fn with_the_types_a_mistake_in_a_policy_is_a_fault() {
    let types = tools::schema(minimal().config(), "github", TOOLS).unwrap();
    let load = |tool: &str, condition: &str| {
        let text = format!(
            "@id(\"a\") permit (principal, action == Action::\"tools/call\", \
             resource == Tool::\"github/{tool}\") when {{ {condition} }};"
        );
        let source = |text: &str| Source { path: "it".into(), text: text.to_owned() };
        let sources = Sources {
            enforced: vec![source(&text)],
            schemas: vec![source(&types)],
            ..Sources::default()
        };
        let setting = Setting {
            epoch: 1,
            servers: &["github"],
            credentials: &[],
            methods: &[],
            timezone: "UTC",
            geoip: false,
        };
        PolicySet::compile_all(&sources, Path::new("."), &setting).is_ok()
    };
    let send = |attribute: &str, rest: &str| {
        let of = "context.arguments[\"github/send\"]";
        format!(
            "context has arguments && context.arguments has \"github/send\" && {of} has \
             {attribute} && {of}.{attribute} {rest}"
        )
    };
    assert!(load("send", &send("amount", "< 5")));
    assert!(!load("sent", "true"), "no such tool");
    assert!(!load("send", &send("amuont", "< 5")), "no such argument");
    assert!(!load("send", &send("amount", "== \"5\" && 1 < \"x\"")), "another type");
    assert!(!load("send", &send("rate", "< 5")), "one that policies cannot hold");
}

#[test]
fn what_is_no_whole_list_of_tools_makes_no_types() {
    let deep = "{\"type\":\"object\",\"properties\":{\"a\":".repeat(20) + "{}" + &"}}".repeat(20);
    let table = [
        ("", "there is no answer"),
        ("[]", "page 1: not an answer"),
        ("{\"error\":{\"code\":1}}", "it has no tools"),
        ("{\"tools\":[],\"nextCursor\":\"x\"}", "put all pages in"),
        ("{\"tools\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "tool \"a\" is there twice"),
        ("{\"tools\":[]} {", "page 2: not an answer"),
    ];
    for (answers, words) in table {
        let faults = tools::schema(minimal().config(), "github", answers).unwrap_err();
        assert!(faults[0].contains(words), "{answers}: {faults:?}");
    }
    let faults = tools::schema(minimal().config(), "gitlab", "{\"tools\":[]}").unwrap_err();
    assert!(faults[0].contains("there are: github"), "{faults:?}");
    let deep = format!("{{\"tools\":[{{\"name\":\"a\",\"inputSchema\":{deep}}}]}}");
    assert!(
        tools::schema(minimal().config(), "github", &deep).unwrap().contains("nested too deep")
    );
}

#[test]
fn tools_of_one_name_in_cedar_get_names_of_their_own() {
    let tools = r#"{"tools":[{"name":"a!"},{"name":"a?"},{"name":"a__2"},{"name":"a%"}]}"#;
    let text = tools::schema(minimal().config(), "github", tools).unwrap();
    for (tool, name) in [("a!", "a_"), ("a%", "a__2"), ("a?", "a__3"), ("a__2", "a__2_2")] {
        let expected = format!("@tool(\"github/{tool}\")\ntype Of_{name} = ");
        assert!(text.contains(&expected), "{expected}: {text}");
    }
}

#[test]
fn types_of_more_than_their_bounds_are_a_fault() {
    let of = |properties: &str| {
        let tool = format!(r#"{{"name":"a","inputSchema":{{"properties":{{{properties}}}}}}}"#);
        tools::schema(minimal().config(), "github", &format!("{{\"tools\":[{tool}]}}"))
    };
    let nested = |count: usize| {
        let fields: Vec<_> = (0..count).map(|at| format!("\"p{at}\":{{}}")).collect();
        format!("\"o\":{{\"type\":\"object\",\"properties\":{{{}}}}}", fields.join(","))
    };
    of(&nested(crate::limits::SCHEMA_PROPERTIES_MAX - 1)).unwrap();
    let faults = of(&nested(crate::limits::SCHEMA_PROPERTIES_MAX)).unwrap_err();
    assert_eq!(faults, ["tool \"a\" has more than 2000 arguments"]);
    let long = "x".repeat(crate::limits::SCHEMA_TEXT_BYTES_MAX);
    let faults = of(&format!("\"{long}\":{{\"type\":\"string\"}}")).unwrap_err();
    assert_eq!(faults, ["types of more than 4194304 bytes"]);
}

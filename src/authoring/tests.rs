use super::*;
use crate::judge::policy::{Setting, Source};
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
    for (name, list) in [("greet", Listed::Prompts), ("file:///{path}", Listed::Resources)] {
        let mut asked = Asked::new("agent", "completion/complete", UnixSeconds(0));
        asked.name = Some(name.to_owned());
        let mut call = Call::new();
        call.read(&message(&asked), |_| None).unwrap();
        assert_eq!(listed(&call), Some((list, name)));
    }
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

//! What is said between us and a remote decision point: OpenID AuthZEN, Authorization API 1.0.
//! Without I/O: bytes in, bytes out.
//!
//! Which error is safe: an answer that is not exactly what the standard says is no decision, and no
//! decision is no permit. So there is one boolean `decision`, as many answers as questions, and no
//! member named twice.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Upstream;
use crate::address::Country;
use crate::clock::UnixSeconds;
use crate::config::UpstreamUrl;
use crate::judge::json;
use crate::secret::Secret;

/// The decision point as the control thread knows it now.
#[derive(Clone)]
pub struct DecisionPoint {
    /// Where it is configured to be; an origin.
    pub url: UpstreamUrl,
    /// Its checked addresses, and how its certificate is verified.
    pub upstream: Upstream,
    /// Where questions go; nothing is permitted before that is known.
    pub endpoints: Endpoints,
    /// Sent in `Authorization`.
    pub bearer: Option<Arc<Secret>>,
    /// For everything about one request: connecting, asking, the answer.
    pub timeout: Duration,
    /// Requests of one core that may wait for it.
    pub in_flight_max: usize,
    /// For how long a permit is kept; zero: never.
    pub permit_ttl: Duration,
}

/// Where questions go (§9.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoints {
    /// Not known yet, or not to be believed.
    Unknown,
    /// Targets at the decision point's own origin.
    Known {
        /// For one question.
        evaluation: String,
        /// For several at once; `None` when they have to be asked one by one.
        evaluations: Option<String>,
    },
}

impl Endpoints {
    /// Where a decision point answers that publishes nothing about itself (§10.1): one question at
    /// a time.
    #[must_use]
    pub fn of_the_standard() -> Self {
        Self::Known { evaluation: EVALUATION.to_owned(), evaluations: None }
    }
}

/// Not what the standard says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad;

/// Who asks, and the circumstances; the same for all questions about one message.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The user; `None` for a workload, which is its agent.
    pub user: Option<&'a str>,
    /// Through which agent.
    pub agent: &'a str,
    /// From where.
    pub source_ip: IpAddr,
    /// From which country, as far as known.
    pub country: Option<Country>,
    /// When.
    pub now: UnixSeconds,
    /// MCP revision of the message.
    pub revision: Option<&'a str>,
}

/// One question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluation<'a> {
    /// MCP method, or `connect`.
    pub action: &'a str,
    /// `gateway`, `mcp_server`, `tool`, `prompt`, `resource`, `resource_template` or `task`.
    pub kind: &'static str,
    /// Its name; a URL for the first two.
    pub id: &'a str,
    /// The server that a tool, prompt, resource or task is of.
    pub server: Option<&'a str>,
}

/// One answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `decision`.
    pub permitted: bool,
    /// `context.credential`: the one to be sent upstream, by name.
    pub credential: Option<String>,
}

/// Questions as they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Questions {
    /// All in one request, and how many.
    Together(Vec<u8>, usize),
    /// One request each.
    OneByOne {
        /// As they are sent.
        bodies: Vec<Vec<u8>>,
        /// Also those behind a denied one are asked.
        to_the_end: bool,
    },
}

impl Questions {
    /// Writes `evaluations` in the way that `endpoints` take them.
    #[must_use]
    pub fn write(endpoints: &Endpoints, asker: &Asker<'_>, evaluations: &[Evaluation<'_>]) -> Self {
        let batches = matches!(endpoints, Endpoints::Known { evaluations: Some(_), .. });
        if batches {
            return Self::Together(write_many(asker, evaluations), evaluations.len());
        }
        let bodies = evaluations.iter().map(|one| write_one(asker, one)).collect();
        Self::OneByOne { bodies, to_the_end: false }
    }

    /// Each answer counts for itself: none of them makes the others needless.
    #[must_use]
    pub fn to_the_end(self) -> Self {
        match self {
            Self::Together(..) => self,
            Self::OneByOne { bodies, .. } => Self::OneByOne { bodies, to_the_end: true },
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        match self {
            Self::Together(_, count) => *count,
            Self::OneByOne { bodies, .. } => bodies.len(),
        }
    }
}

/// All that is asked but when, for who compares questions.
#[must_use]
pub fn timeless(asker: &Asker<'_>, evaluations: &[Evaluation<'_>]) -> Vec<u8> {
    several(asker, None, evaluations).to_string().into_bytes()
}

/// One question (§6.1).
fn write_one(asker: &Asker<'_>, one: &Evaluation<'_>) -> Vec<u8> {
    let (subject, context) = circumstances(asker, Some(asker.now));
    let (action, resource) = asked(one);
    json!({"subject": subject, "action": action, "resource": resource, "context": context})
        .to_string()
        .into_bytes()
}

/// Several questions of one asker (§7.1). All of them are evaluated, so that there is an answer to
/// each.
fn write_many(asker: &Asker<'_>, evaluations: &[Evaluation<'_>]) -> Vec<u8> {
    several(asker, Some(asker.now), evaluations).to_string().into_bytes()
}

fn several(asker: &Asker<'_>, now: Option<UnixSeconds>, evaluations: &[Evaluation<'_>]) -> Value {
    let (subject, context) = circumstances(asker, now);
    let evaluations: Vec<Value> = evaluations
        .iter()
        .map(|one| {
            let (action, resource) = asked(one);
            json!({"action": action, "resource": resource})
        })
        .collect();
    let options = json!({"evaluations_semantic": "execute_all"});
    json!({"subject": subject, "context": context, "evaluations": evaluations, "options": options})
}

fn circumstances(asker: &Asker<'_>, now: Option<UnixSeconds>) -> (Value, Value) {
    let time = now.and_then(|now| jiff::Timestamp::from_second(i64::try_from(now.0).ok()?).ok());
    let mut context = Map::new();
    context.insert("agent".to_owned(), asker.agent.into());
    context.insert("source_ip".to_owned(), asker.source_ip.to_string().into());
    if let Some(country) = asker.country {
        context.insert("country".to_owned(), country.as_str().into());
    }
    if let Some(time) = time {
        context.insert("time".to_owned(), time.to_string().into());
    }
    if let Some(revision) = asker.revision {
        context.insert("revision".to_owned(), revision.into());
    }
    let (id, kind) = match asker.user {
        Some(user) => (user, "user"),
        None => (asker.agent, "workload"),
    };
    let subject = json!({"type": "identity", "id": id, "properties": {"kind": kind}});
    (subject, Value::Object(context))
}

fn asked(one: &Evaluation<'_>) -> (Value, Value) {
    let mut resource = json!({"type": one.kind, "id": one.id});
    if let (Some(server), Some(members)) = (one.server, resource.as_object_mut()) {
        members.insert("properties".to_owned(), json!({"server": server}));
    }
    (json!({"name": one.action}), resource)
}

/// Reads the answer to one question (§6.2).
///
/// # Errors
/// Not one JSON object with a boolean `decision`.
pub fn read_one(body: &[u8]) -> Result<Answer, Bad> {
    answer(&json::object(body).map_err(|_| Bad)?)
}

/// Reads the answers to `count` questions (§7.2), in their order. A single `decision` beside them
/// is about none of them and is ignored, as there: some decision points always write one.
///
/// # Errors
/// As [`read_one`] for each; another number of answers, as of a decision point that stops early.
pub fn read_many(body: &[u8], count: usize) -> Result<Vec<Answer>, Bad> {
    let all = json::object(body).map_err(|_| Bad)?;
    let answers = all.get("evaluations").and_then(Value::as_array).ok_or(Bad)?;
    if answers.len() != count {
        return Err(Bad);
    }
    answers.iter().map(|one| answer(one.as_object().ok_or(Bad)?)).collect()
}

fn answer(members: &Map<String, Value>) -> Result<Answer, Bad> {
    let permitted = members.get("decision").and_then(Value::as_bool).ok_or(Bad)?;
    let credential = match members.get("context") {
        None => None,
        Some(Value::Object(context)) => match context.get("credential") {
            None => None,
            Some(Value::String(name)) => Some(name.clone()),
            Some(_) => return Err(Bad),
        },
        Some(_) => return Err(Bad),
    };
    Ok(Answer { permitted, credential })
}

/// Reads what the decision point publishes about itself (§9.2).
///
/// What is signed in there is not read, which §9.1.3 allows: TLS says whose document it is.
///
/// # Errors
/// It names another decision point than `url`, no endpoint, or one at another origin.
pub fn read_metadata(body: &[u8], url: &UpstreamUrl) -> Result<Endpoints, Bad> {
    let members = json::object(body).map_err(|_| Bad)?;
    let origin = url.origin();
    // §9.2.3: identical, or somebody else's metadata would be believed.
    if members.get("policy_decision_point").and_then(Value::as_str) != Some(origin.as_str()) {
        return Err(Bad);
    }
    let target = |name: &str| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => {
            let endpoint = UpstreamUrl::parse(text).map_err(|_| Bad)?;
            if endpoint.origin() == origin { Ok(Some(endpoint.target)) } else { Err(Bad) }
        }
        Some(_) => Err(Bad),
    };
    Ok(Endpoints::Known {
        evaluation: target("access_evaluation_endpoint")?.ok_or(Bad)?,
        evaluations: target("access_evaluations_endpoint")?,
    })
}

/// Where the decision point publishes about itself (§9.2).
pub const METADATA: &str = "/.well-known/authzen-configuration";
/// Where single questions go if nothing else is published.
const EVALUATION: &str = "/access/v1/evaluation";

#[cfg(test)]
mod tests {
    use super::*;

    fn asker() -> Asker<'static> {
        Asker {
            user: Some("ann@example.com"),
            agent: "claude",
            source_ip: "203.0.113.9".parse().unwrap(),
            country: Country::new("de"),
            now: UnixSeconds(1_790_000_000),
            revision: Some("2025-11-25"),
        }
    }

    const CONNECT: Evaluation<'static> = Evaluation {
        action: "connect",
        kind: "gateway",
        id: "https://gw.example.com",
        server: None,
    };
    const CALL: Evaluation<'static> =
        Evaluation { action: "tools/call", kind: "tool", id: "de\"lete", server: Some("github") };

    fn parsed(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn questions_have_the_form_of_the_standard() {
        let context = json!({
            "agent": "claude", "source_ip": "203.0.113.9", "country": "DE",
            "time": "2026-09-21T14:13:20Z", "revision": "2025-11-25",
        });
        let kind = json!({"kind": "user"});
        let subject = json!({"type": "identity", "id": "ann@example.com", "properties": kind});
        let call = json!({"type": "tool", "id": "de\"lete", "properties": {"server": "github"}});
        let one_by_one = Endpoints::of_the_standard();
        let Questions::OneByOne { bodies, to_the_end: false } =
            Questions::write(&one_by_one, &asker(), &[CONNECT, CALL])
        else {
            panic!("there is no endpoint for several");
        };
        let gateway = json!({"type": "gateway", "id": "https://gw.example.com"});
        let expected = json!({
            "subject": subject, "action": {"name": "connect"},
            "resource": gateway, "context": context,
        });
        assert_eq!(parsed(&bodies[0]), expected);
        assert_eq!(parsed(&bodies[1])["resource"], call);
        let both = Endpoints::Known {
            evaluation: "/one".to_owned(),
            evaluations: Some("/many".to_owned()),
        };
        let questions = Questions::write(&both, &asker(), &[CONNECT, CALL]);
        assert_eq!(questions.count(), 2);
        let Questions::Together(body, 2) = questions else { panic!("one request") };
        let expected = json!({
            "subject": subject, "context": context,
            "options": {"evaluations_semantic": "execute_all"},
            "evaluations": [
                {"action": {"name": "connect"}, "resource": gateway},
                {"action": {"name": "tools/call"}, "resource": call},
            ],
        });
        assert_eq!(parsed(&body), expected);
        // Of two questions that differ in their time alone, the rest is equal, and the rest is all.
        let mut rest = expected.clone();
        rest["context"].as_object_mut().unwrap().remove("time").unwrap();
        assert_eq!(parsed(&timeless(&asker(), &[CONNECT, CALL])), rest);
        let later = Asker { now: UnixSeconds(1_790_000_060), ..asker() };
        let words = |asker: &Asker<'_>| timeless(asker, &[CONNECT, CALL]);
        assert_eq!(words(&later), words(&asker()));
        assert_ne!(words(&Asker { agent: "other", ..asker() }), words(&asker()));
        // What is not known is absent.
        let bare = Asker { country: None, revision: None, ..asker() };
        let context = parsed(&write_one(&bare, &CALL))["context"].clone();
        let names: Vec<_> = context.as_object().unwrap().keys().cloned().collect();
        assert_eq!(names, ["agent", "source_ip", "time"]);
    }

    #[test]
    fn a_user_named_like_a_workload_is_another_subject() {
        let workload = Asker { user: None, ..asker() };
        let user = Asker { user: Some(workload.agent), ..asker() };
        let subject = |asker: &Asker<'_>| parsed(&write_one(asker, &CALL))["subject"].clone();
        let named =
            |kind: &str| json!({"type": "identity", "id": "claude", "properties": {"kind": kind}});
        assert_eq!(subject(&user), named("user"));
        assert_eq!(subject(&workload), named("workload"));
        // Together, and for who compares questions, they differ too.
        assert_ne!(write_many(&user, &[CALL]), write_many(&workload, &[CALL]));
        assert_ne!(timeless(&user, &[CALL]), timeless(&workload, &[CALL]));
    }

    #[test]
    fn only_a_boolean_decision_decides() {
        let yes = Answer { permitted: true, credential: None };
        assert_eq!(read_one(br#"{"decision":true}"#), Ok(yes.clone()));
        assert_eq!(read_one(br#"{"decision":false,"context":{"x":1}}"#), Ok(Answer::default()));
        let named = Answer { permitted: true, credential: Some("key".to_owned()) };
        let text = br#" {"decision":true,"context":{"credential":"key"},"more":[]} "#;
        assert_eq!(read_one(text), Ok(named));
        for bad in [
            "",
            "true",
            "[]",
            "{}",
            r#"{"decision":"true"}"#,
            r#"{"decision":1}"#,
            r#"{"decision":null}"#,
            r#"{"Decision":true}"#,
            r#"{"decision":false,"decision":true}"#,
            r#"{"decision":true}{}"#,
            r#"{"decision":true"#,
            r#"{"decision":true,"context":7}"#,
            r#"{"decision":true,"context":{"credential":7}}"#,
            r#"{"decision":true,"context":{"credential":"a","credential":"b"}}"#,
            "<html>",
        ] {
            assert_eq!(read_one(bad.as_bytes()), Err(Bad), "{bad}");
        }
    }

    /// Openid/authzen, `authorization-api-1_0.md`: §7.2, errors of single evaluations and the
    /// decision beside them.
    #[test]
    fn each_answer_is_judged_by_its_own_decision() {
        let error = r#"{"decision":false,"context":{"error":{"status":404,"message":"none"}}}"#;
        for beside in ["", "\"decision\":true,", "\"decision\":false,", "\"page\":{},"] {
            let text = format!("{{{beside}\"evaluations\":[{{\"decision\":true}},{error}]}}");
            let read = read_many(text.as_bytes(), 2).unwrap();
            let permitted: Vec<_> = read.iter().map(|one| one.permitted).collect();
            assert_eq!(permitted, [true, false], "{text}");
        }
        // What is not known is ignored (§10.1.1), however it is arranged.
        let text = br#"{"context":{"reason":{"en":"ok"},"x":[]},"y":null,"decision":true}"#;
        assert!(read_one(text).unwrap().permitted);
    }

    #[test]
    fn as_many_answers_as_questions() {
        let two = br#"{"evaluations":[{"decision":true},{"decision":false}]}"#;
        let read = read_many(two, 2).unwrap();
        assert_eq!(read.iter().map(|one| one.permitted).collect::<Vec<_>>(), [true, false]);
        for (text, count) in [
            (&two[..], 1),
            (two, 3),
            (br#"{"evaluations":[]}"#, 1),
            (br#"{"evaluations":{}}"#, 0),
            (br#"{"decision":true}"#, 1),
            (br#"{"decision":true,"evaluations":[]}"#, 1),
            (br#"{"decision":true,"evaluations":[{"decision":false},{}]}"#, 2),
            (br#"{"evaluations":[{"decision":true},{"context":{"error":{"status":500}}}]}"#, 2),
            (br#"{"evaluations":[{"decision":true},null]}"#, 2),
            (br#"{"evaluations":[true]}"#, 1),
            (br#"{"evaluations":[{"decision":true},{}]}"#, 2),
            (br#"{"evaluations":[{"decision":false}],"evaluations":[{"decision":true}]}"#, 1),
        ] {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(read_many(text, count), Err(Bad), "{count}: {shown}");
        }
    }

    #[test]
    fn metadata_is_the_decision_points_own() {
        let url = UpstreamUrl::parse("https://pdp.example.com:8443").unwrap();
        let text = |point: &str, one: &str, many: &str| {
            format!(
                r#"{{"policy_decision_point":{point},"access_evaluation_endpoint":{one}{many}}}"#
            )
        };
        let point = "\"https://pdp.example.com:8443\"";
        let one = "\"https://pdp.example.com:8443/a?b=1\"";
        let many = ",\"access_evaluations_endpoint\":\"https://pdp.example.com:8443/many\"";
        let read = |text: &str| read_metadata(text.as_bytes(), &url);
        let evaluation = "/a?b=1".to_owned();
        let expected =
            Endpoints::Known { evaluation: evaluation.clone(), evaluations: Some("/many".into()) };
        assert_eq!(read(&text(point, one, many)), Ok(expected));
        let expected = Endpoints::Known { evaluation, evaluations: None };
        assert_eq!(read(&text(point, one, "")), Ok(expected));
        for bad in [
            text("\"https://pdp.example.com:8443/\"", one, many),
            text("\"https://PDP.example.com:8443\"", one, many),
            text("\"https://other.example.com\"", one, many),
            text("null", one, many),
            text(point, "\"https://other.example.com/a\"", ""),
            text(point, "\"http://pdp.example.com:8443/a\"", ""),
            text(point, "\"/a\"", ""),
            text(point, "7", ""),
            text(point, one, ",\"access_evaluations_endpoint\":\"https://pdp.example.com/many\""),
            text(point, one, ",\"access_evaluations_endpoint\":null"),
            text(point, one, &format!("{many}{many}")),
            format!("{{\"policy_decision_point\":{point}}}"),
            String::new(),
        ] {
            assert_eq!(read(&bad), Err(Bad), "{bad}");
        }
    }

    /// Whether they are decided as expected is tested with a decision point, in `tests/interop`.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "where the data of others lies is told by CI")]
    fn our_writer_makes_the_requests_of_the_working_groups_gateway_scenario() {
        use std::path::{Path, PathBuf};
        let root = std::env::var("SHARED_DIR").map_or_else(
            |_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
            PathBuf::from,
        );
        let path = root.join("data/authzen/api-gateway-decisions.json");
        let Ok(text) = std::fs::read(&path) else {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{} is missing", path.display());
            println!("SKIPPED: {} is not there", path.display());
            return;
        };
        let all: Value = serde_json::from_slice(&text).unwrap();
        let cases = all["evaluation"].as_array().unwrap();
        assert_eq!(cases.len(), 25);
        for case in cases {
            let request = &case["request"];
            let text = |at: &str| request.pointer(at).and_then(Value::as_str).unwrap();
            let one = Evaluation {
                action: text("/action/name"),
                kind: "route",
                id: text("/resource/id"),
                server: None,
            };
            let asker = Asker { user: Some(text("/subject/id")), ..asker() };
            let mut written = parsed(&write_one(&asker, &one));
            // Ours alone: the scenario has no context, and knows no users and workloads.
            assert!(written.as_object_mut().unwrap().remove("context").is_some());
            assert!(written["subject"].as_object_mut().unwrap().remove("properties").is_some());
            assert_eq!(written, *request);
        }
    }
}

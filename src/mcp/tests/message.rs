//! What upstreams say: each kind, each fault, and generated messages judged a second time by
//! `serde_json` and the rules written again.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::message::{Message, ResultKind, Said, ServerMethod, ServerNote};
use super::super::span::{Document, Node};
use super::writer::Random;

/// What a message was read as: its kind, and the text of what was found in it.
#[derive(Debug, PartialEq)]
struct Seen {
    said: Said,
    found: [Option<Json>; 8],
}

fn read(text: &str) -> Option<Seen> {
    let mut document = Document::new();
    let message = Message::read(document.read(text.as_bytes()).ok()?).ok()?;
    let parsed = |node: Option<Node<'_>>| {
        node.map(|node| serde_json::from_str(&text[node.range()]).expect("a range is one value"))
    };
    let about = message.about;
    let found = [
        message.id,
        message.content,
        about.request_state,
        about.input_requests,
        about.task,
        about.progress_token,
        about.request,
        message.subscription,
    ]
    .map(parsed);
    Some(Seen { said: message.said, found })
}

fn said(text: &str) -> Option<Said> {
    read(text).map(|seen| seen.said)
}

/// An answer with id 1.
fn result(members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{{members}}}}}"#)
}

#[test]
fn every_kind_is_told_apart() {
    for (members, kind) in [
        ("", ResultKind::Complete),
        (r#""resultType":"complete","content":[]"#, ResultKind::Complete),
        (r#""resultType":"input_required","requestState":"s""#, ResultKind::InputRequired),
        (r#""resultType":"task","taskId":"t""#, ResultKind::Task),
        (r#""task":{"taskId":"t","status":"working"}"#, ResultKind::Task),
        (r#""task":"a tool's own word""#, ResultKind::Complete),
        (r#""resultType":"com.example/later""#, ResultKind::Other),
    ] {
        assert_eq!(said(&result(members)), Some(Said::Result(kind)), "{members}");
    }
    let error = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32042,"message":"m"}}"#;
    assert_eq!(said(error), Some(Said::Error { code: -32042 }));
    let request = r#"{"method":"sampling/createMessage","id":"s1","jsonrpc":"2.0","params":{}}"#;
    assert_eq!(said(request), Some(Said::Request(ServerMethod::SamplingCreateMessage)));
    let note = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    assert_eq!(said(note), Some(Said::Notification(ServerNote::ToolsListChanged)));
    let note = r#"{"jsonrpc":"2.0","method":"Notifications/tools/list_changed"}"#;
    assert_eq!(said(note), Some(Said::Notification(ServerNote::Other)));
}

#[test]
fn what_has_to_be_looked_at_is_found() {
    let text = |json: &str| Some(Json::Text(json.to_owned()));
    let seen = read(&result(
        r#""requestState":"a\u0062","resultType":"input_required","inputRequests":{}"#,
    ));
    let found = seen.expect("well-formed").found;
    assert_eq!(found[2], text("ab"));
    assert_eq!(found[3], Some(Json::Object(Vec::new())));
    let of = |params: &str, method: &str| {
        let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{{params}}}}}"#);
        read(&text).expect("well-formed").found
    };
    let progress = of(r#""progressToken":7,"progress":1"#, "notifications/progress");
    assert_eq!(progress[5], Some(Json::Integer(7)));
    let cancelled = of(r#""requestId":"g1""#, "notifications/cancelled");
    assert_eq!(cancelled[6], text("g1"));
    let listened = of(
        r#""_meta":{"io.modelcontextprotocol/subscriptionId":1}"#,
        "notifications/tools/list_changed",
    );
    assert_eq!(listened[7], Some(Json::Integer(1)));
    let related = of(
        r#""_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}},"progressToken":"p""#,
        "notifications/message",
    );
    assert_eq!(related[4], text("t"));
    assert_eq!(related[5], None, "a token is one of a progress notification only");
}

#[test]
fn what_could_be_read_differently_is_refused() {
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","result":{{}}}}"#, "x".repeat(1_024));
    let deep = result(&format!(r#""x":{}{}"#, "[".repeat(80), "]".repeat(80)));
    for bad in [
        r#"[{"jsonrpc":"2.0","id":1,"result":{}}]"#,
        r#""text""#,
        r"{}",
        r#"{"jsonrpc":"1.0","id":1,"result":{}}"#,
        r#"{"id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1e3,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":[1],"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"Id":2,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"Result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"message":""}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":[]}"#,
        r#"{"jsonrpc":"2.0","method":1}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":[]}"#,
        &result(r#""resultType":"complete","resulttype":"input_required""#),
        &result(r#""resultType":"complete","result\u0054ype":"input_required""#),
        &result(r#""resultType":1"#),
        &result(r#""_meta":[]"#),
        &result(r#""_meta":{"io.modelcontextprotocol/related-task":1}"#),
        &long,
        &deep,
    ] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn generated_messages_mean_to_serde_what_they_mean_to_us() {
    let mut random = Random::new(0x6d65_7373_6167_6531);
    let (mut good, mut bad) = (0, 0);
    for number in 0..40_000 {
        let text = generated(&mut random);
        let (ours, theirs) = (read(&text), judged(&text));
        assert_eq!(ours, theirs, "message {number}: {text}");
        if ours.is_some() { good += 1 } else { bad += 1 }
    }
    assert!(good > 4_000 && bad > 4_000, "{good} good, {bad} bad");
}

/// A message of which most members are right.
fn generated(random: &mut Random) -> String {
    let kind = random.below(3);
    let mut members = vec!["jsonrpc", ["method", "result", "error"][kind]];
    if kind > 0 || random.one_in(2) {
        members.push("id");
    }
    if kind == 0 && !random.one_in(4) {
        members.push("params");
    }
    if random.one_in(8) {
        members.push(["Id", "x", "params", "ERROR", "method", "id", "i\\u0064"][random.below(7)]);
    }
    for at in (1..members.len()).rev() {
        members.swap(at, random.below(at + 1));
    }
    let mut text = String::from("{");
    for (at, key) in members.into_iter().enumerate() {
        text.push_str(if at > 0 { "," } else { "" });
        text.push_str(&format!("{}\"{key}\"{}:", space(random), space(random)));
        let value = value_of(key, random);
        text.push_str(&format!("{}{value}{}", space(random), space(random)));
    }
    text.push('}');
    text
}

fn value_of(key: &str, random: &mut Random) -> String {
    const IDS: [&str; 7] = ["1", "\"a\"", "\"\\u0061\\\"\"", "-9", "null", "1.5", "{}"];
    const METHODS: [&str; 6] = [
        "\"ping\"",
        "\"notifications/progress\"",
        "\"notifications/cancelled\"",
        "\"notifications/tasks/status\"",
        "\"elicitation/create\"",
        "7",
    ];
    let among = |random: &mut Random, values: &[&str], good: usize| {
        let count = if random.one_in(12) { values.len() } else { good };
        values[random.below(count)].to_owned()
    };
    match key {
        "jsonrpc" => among(random, &["\"2.0\"", "\"2.1\"", "2.0"], 1),
        "id" | "Id" | "i\\u0064" => among(random, &IDS, 4),
        "method" => among(random, &METHODS, 5),
        "error" | "ERROR" => among(random, &[r#"{"code":-32601}"#, r#"{"code":1.5}"#, "{}"], 1),
        _ => object(random, 2),
    }
}

/// An object of members that mean something somewhere.
fn object(random: &mut Random, levels: usize) -> String {
    const KEYS: [&str; 13] = [
        "resultType",
        "requestState",
        "inputRequests",
        "_meta",
        "taskId",
        "task",
        "progressToken",
        "requestId",
        "uri",
        "io.modelcontextprotocol/subscriptionId",
        "io.modelcontextprotocol/related-task",
        "TaskId",
        "content",
    ];
    let mut text = String::from("{");
    for at in 0..random.below(5) {
        let good = if random.one_in(10) { KEYS.len() } else { 11 };
        let key = KEYS[random.below(good)];
        let value = match random.below(6) {
            0 if levels > 0 => format!("[{}]", object(random, levels - 1)),
            1 | 2 if levels > 0 => object(random, levels - 1),
            3 => "17".to_owned(),
            _ => ["\"complete\"", "\"input_required\"", "\"task\"", "\"t{\\\"\""][random.below(4)]
                .to_owned(),
        };
        let comma = if at > 0 { "," } else { "" };
        text.push_str(&format!("{comma}{}\"{key}\":{}{value}", space(random), space(random)));
    }
    text.push('}');
    text
}

fn space(random: &mut Random) -> &'static str {
    if random.one_in(9) { [" ", "\n", "\t ", "\r\n"][random.below(4)] } else { "" }
}

/// The rules once more, over a tree that forgets nothing.
fn judged(text: &str) -> Option<Seen> {
    let root: Json = serde_json::from_str(text).ok()?;
    let keys = ["jsonrpc", "id", "method", "params", "result", "error"];
    let [version, id, method, params, result, error] = root.exactly(keys)?;
    let usable = |id: &Json| matches!(id, Json::Text(_) | Json::Integer(_));
    if version != Some(&Json::Text("2.0".to_owned())) {
        return None;
    }
    let mut found: [Option<&Json>; 8] = [None; 8];
    let (said, content, meta) = match (method, result, error, params) {
        (Some(Json::Text(name)), None, None, params) => {
            if id.is_some_and(|id| !usable(id)) {
                return None;
            }
            found[0] = id;
            let said = match id {
                Some(_) => Said::Request(ServerMethod::from_name(name)),
                None => Said::Notification(ServerNote::from_name(name)),
            };
            let mut meta = None;
            if let Some(params) = params {
                let keys = ["_meta", "progressToken", "requestId", "taskId", "uri"];
                let [own, token, request, task, _] = params.exactly(keys)?;
                meta = own;
                match (id, name.as_str()) {
                    (None, "notifications/progress") => found[5] = token,
                    (None, "notifications/cancelled") => found[6] = request,
                    (None, "notifications/tasks/status") => found[4] = task,
                    _ => {}
                }
            }
            (said, params, meta)
        }
        (None, Some(result), None, None) => {
            found[0] = Some(id.filter(|id| usable(id))?);
            let keys = ["resultType", "requestState", "inputRequests", "_meta", "taskId", "task"];
            let [kind, state, inputs, meta, task, made] = result.exactly(keys)?;
            let made = match made {
                Some(made @ Json::Object(_)) => made.exactly(["taskId"])?[0],
                _ => None,
            };
            let kind = match kind {
                None if made.is_some() => ResultKind::Task,
                None => ResultKind::Complete,
                Some(Json::Text(word)) => match word.as_str() {
                    "complete" => ResultKind::Complete,
                    "input_required" => ResultKind::InputRequired,
                    "task" => ResultKind::Task,
                    _ => ResultKind::Other,
                },
                Some(_) => return None,
            };
            (found[2], found[3], found[4]) = (state, inputs, made.or(task));
            (Said::Result(kind), Some(result), meta)
        }
        (None, None, Some(error), None) => {
            let [code] = error.exactly(["code"])?;
            let Some(Json::Integer(code)) = code else { return None };
            found[0] = id.filter(|id| **id != Json::Null);
            if found[0].is_some_and(|id| !usable(id)) {
                return None;
            }
            (Said::Error { code: i64::try_from(*code).ok()? }, Some(error), None)
        }
        _ => return None,
    };
    found[1] = content;
    if let Some(meta) = meta {
        let [subscription, related] = meta.exactly([
            "io.modelcontextprotocol/subscriptionId",
            "io.modelcontextprotocol/related-task",
        ])?;
        found[7] = subscription;
        if let Some(related) = related {
            found[4] = found[4].or(related.exactly(["taskId"])?[0]);
        }
    }
    Some(Seen { said, found: found.map(Option::<&Json>::cloned) })
}

#[derive(Clone, Debug, PartialEq)]
enum Json {
    Null,
    Other,
    Integer(i128),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// The members of these names; none at all when this is no object, or when a member is repeated
    /// or spelled like one of them in another case.
    fn exactly<const N: usize>(&self, keys: [&str; N]) -> Option<[Option<&Json>; N]> {
        let Self::Object(members) = self else { return None };
        let alike = |key: &str| members.iter().filter(|it| it.0.eq_ignore_ascii_case(key)).count();
        if keys.iter().any(|key| alike(key) > 1) {
            return None;
        }
        let odd =
            |name: &String| keys.iter().any(|key| key != name && key.eq_ignore_ascii_case(name));
        if members.iter().any(|(name, _)| odd(name)) {
            return None;
        }
        Some(keys.map(|key| members.iter().find(|it| it.0 == key).map(|it| &it.1)))
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepAll)
    }
}

struct KeepAll;

impl<'de> Visitor<'de> for KeepAll {
    type Value = Json;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Json, E> {
        Ok(Json::Other)
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Integer(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Integer(number.into()))
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

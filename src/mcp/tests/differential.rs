//! Generated and damaged bodies, judged a second time by other means: `serde_json` with a visitor
//! that keeps every pair, and the rules written again over its tree.

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use simd_json::{Buffers, INPUT_PADDING, Tape, fill_tape, fill_tape_padded};

use super::super::{Call, Kind, Target};
use super::extension;
use super::writer::{Random, Writer, damage};
use crate::limits::JSON_DEPTH_MAX;

/// A JSON value that forgets nothing.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Other,
    Integer(i128),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KeepAll)
    }
}

struct KeepAll;

impl<'de> Visitor<'de> for KeepAll {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Other)
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Integer(number.into()))
    }
    /// `serde_json` reads the integer `-0` as a float, the one number where it differs from us.
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        let is_zero = number == 0.0 && number.is_sign_negative();
        Ok(if is_zero { Value::Integer(0) } else { Value::Other })
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Value::Object(members))
    }
}

impl Value {
    fn get(&self, key: &str) -> Option<&Value> {
        let Value::Object(members) = self else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    fn text(&self) -> Option<&str> {
        if let Value::Text(text) = self { Some(text) } else { None }
    }

    fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }

    fn depth(&self) -> usize {
        match self {
            Value::List(values) => 1 + values.iter().map(Value::depth).max().unwrap_or(0),
            Value::Object(members) => {
                1 + members.iter().map(|(_, value)| value.depth()).max().unwrap_or(0)
            }
            Value::Other | Value::Integer(_) | Value::Text(_) => 0,
        }
    }

    fn has_equal_keys(&self) -> bool {
        match self {
            Value::List(values) => values.iter().any(Value::has_equal_keys),
            Value::Object(members) => {
                let distinct: std::collections::BTreeSet<_> =
                    members.iter().map(|(key, _)| key).collect();
                distinct.len() < members.len()
                    || members.iter().any(|(_, value)| value.has_equal_keys())
            }
            Value::Other | Value::Integer(_) | Value::Text(_) => false,
        }
    }

    /// True when a key means a known name to a careless reader only.
    fn has_false_friend(&self, known: &str) -> bool {
        let Value::Object(members) = self else { return false };
        let fold = |text: &str| text.to_uppercase().to_lowercase();
        members.iter().any(|(key, _)| {
            let is_known = known.split(' ').any(|name| name == key);
            let folds = known.split(' ').any(|name| fold(name) == fold(key));
            key.contains('\0') || (!is_known && folds)
        })
    }
}

/// What both readings must agree on.
#[derive(Debug, PartialEq)]
struct Reading {
    kind: Kind,
    method: String,
    id: Option<Value>,
    name: Option<String>,
    targets: Vec<String>,
    meta_revision: Option<String>,
}

const TOP: &str = "jsonrpc id method params result error";
const PARAMS: &str = "_meta name uri taskId ref notifications protocolVersion arguments argument \
                      capabilities inputResponses level requestId requestState task";
const META: &str = "io.modelcontextprotocol/protocolVersion \
                    io.modelcontextprotocol/clientCapabilities io.modelcontextprotocol/clientInfo \
                    io.modelcontextprotocol/logLevel progressToken traceparent";
const REF: &str = "type name uri";
const LISTEN: &str =
    "resourceSubscriptions taskIds promptsListChanged resourcesListChanged toolsListChanged";

/// The rules again, for the few methods that the generator knows. `None` is a refusal.
fn second_reading(body: &[u8]) -> Option<Reading> {
    let root: Value = serde_json::from_slice(body).ok()?;
    if !root.is_object() || root.depth() > JSON_DEPTH_MAX || root.has_equal_keys() {
        return None;
    }
    if root.has_false_friend(TOP) || root.get("jsonrpc")?.text()? != "2.0" {
        return None;
    }
    let id = root.get("id").cloned();
    match &id {
        None | Some(Value::Integer(_) | Value::Text(_)) => {}
        Some(Value::Other | Value::List(_) | Value::Object(_)) => return None,
    }
    let answers = [root.get("result"), root.get("error")];
    let Some(method) = root.get("method") else {
        let whole = answers.iter().flatten().count() == 1
            && id.is_some()
            && root.get("params").is_none()
            && root.get("error").is_none_or(Value::is_object);
        let reading = Reading {
            kind: Kind::Response,
            method: String::new(),
            id,
            name: None,
            targets: vec!["Server".to_owned()],
            meta_revision: None,
        };
        return whole.then_some(reading);
    };
    if answers.iter().flatten().count() > 0 {
        return None;
    }
    second_request(method.text()?, root.get("params"), id)
}

fn second_request(method: &str, params: Option<&Value>, id: Option<Value>) -> Option<Reading> {
    if method.contains('\0') || method.len() > 256 {
        return None;
    }
    let is_note = method == "notifications/cancelled";
    let is_call = ["tools/call", "tools/list", "resources/read", "completion/complete", "ping"];
    let is_call = is_call.contains(&method) || method == "subscriptions/listen";
    if (is_note && id.is_some()) || (is_call && id.is_none()) {
        return None;
    }
    let kind = if id.is_some() { Kind::Request } else { Kind::Notification };
    let mut reading = Reading {
        kind,
        method: method.to_owned(),
        id,
        name: None,
        targets: Vec::new(),
        meta_revision: None,
    };
    let empty = Value::Object(Vec::new());
    let params = params.unwrap_or(&empty);
    if !params.is_object() || params.has_false_friend(PARAMS) {
        return None;
    }
    if let Some(meta) = params.get("_meta") {
        if !meta.is_object() || meta.has_false_friend(META) {
            return None;
        }
        let revision = meta.get("io.modelcontextprotocol/protocolVersion");
        reading.meta_revision = judged(revision, 64)?;
    }
    second_targets(method, params, &mut reading)?;
    Some(reading)
}

fn second_targets(method: &str, params: &Value, reading: &mut Reading) -> Option<()> {
    let empty = Value::Object(Vec::new());
    let (label, name) = match method {
        "tools/call" => ("Tool", judged(params.get("name"), 4096)?),
        "resources/read" => ("Resource", judged(params.get("uri"), 4096)?),
        "completion/complete" if params.get("ref").is_some() => {
            let reference = params.get("ref")?;
            if reference.has_false_friend(REF) {
                return None;
            }
            let (label, key) = match reference.get("type")?.text()? {
                "ref/prompt" => ("Prompt", "name"),
                "ref/resource" => ("Resource", "uri"),
                _ => return None,
            };
            reference.get(key)?;
            (label, judged(reference.get(key), 4096)?)
        }
        _ => ("Server", None),
    };
    let shown = name.clone().unwrap_or_default();
    reading.targets.push(match label {
        "Server" => label.to_owned(),
        _ => format!("{label}({shown:?})"),
    });
    reading.name = name;
    if method == "subscriptions/listen" {
        let listen = params.get("notifications").unwrap_or(&empty);
        if !listen.is_object() || listen.has_false_friend(LISTEN) {
            return None;
        }
        if let Some(tasks) = listen.get("taskIds") {
            let Value::List(tasks) = tasks else { return None };
            let bounded = |id: &Value| judged(Some(id), 4096).is_some();
            if tasks.len() > 256 || !tasks.iter().all(bounded) {
                return None;
            }
        }
        if let Some(list) = listen.get("resourceSubscriptions") {
            let Value::List(list) = list else { return None };
            for uri in list {
                let uri = judged(Some(uri), 4096)??;
                reading.targets.push(format!("Resource({uri:?})"));
            }
        }
    }
    Some(())
}

/// Outer `None`: refused. Inner `None`: absent.
fn judged(value: Option<&Value>, bytes_max: usize) -> Option<Option<String>> {
    let Some(value) = value else { return Some(None) };
    let text = value.text()?;
    (text.len() <= bytes_max && !text.contains('\0')).then(|| Some(text.to_owned()))
}

fn first_reading(call: &mut Call, body: &[u8]) -> Option<Reading> {
    call.read(body, extension).ok()?;
    let id = call.id_raw(body).map(|raw| serde_json::from_slice(raw).expect("an id is JSON"));
    Some(Reading {
        kind: call.kind(),
        method: call.method_name().to_owned(),
        id,
        name: call.name().map(str::to_owned),
        targets: call.targets().map(show).collect(),
        meta_revision: call.meta_revision().map(str::to_owned),
    })
}

fn show(target: Target<'_>) -> String {
    format!("{target:?}")
}

#[test]
fn two_readers_agree_on_generated_and_damaged_bodies() {
    let mut call = Call::new();
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..100_000_u64 {
        let (mut random, mut body) = Writer::message_of(Random::new(seed));
        if random.one_in(3) {
            damage(&mut random, &mut body);
        }
        let first = first_reading(&mut call, &body);
        let second = second_reading(&body);
        assert_eq!(first, second, "seed {seed}: {}", String::from_utf8_lossy(&body));
        if first.is_some() { accepted += 1 } else { refused += 1 }
    }
    // A generator that makes one kind only would show nothing.
    assert!(accepted > 15_000 && refused > 15_000, "{accepted} accepted, {refused} refused");
}

/// The parser has two doors: one copies the body once more. Ours reads our copy, with room behind
/// it, and must see what the other sees.
#[test]
fn the_parser_reads_a_padded_copy_as_it_reads_its_own() {
    let mut buffers = [Buffers::default(), Buffers::default()];
    let (mut accepted, mut refused) = (0, 0);
    let mut both = |body: &[u8]| {
        let [first, second] = &mut buffers;
        let (mut own, mut padded) = (body.to_vec(), body.to_vec());
        padded.extend_from_slice(&[b' '; INPUT_PADDING]);
        let (mut ours, mut theirs) = (Tape(Vec::new()), Tape(Vec::new()));
        let read = fill_tape_padded(&mut padded, body.len(), first, &mut ours).is_ok();
        let expected = fill_tape(&mut own, second, &mut theirs).is_ok();
        assert_eq!(read, expected, "{}", String::from_utf8_lossy(body));
        if read {
            assert_eq!(ours.0, theirs.0, "{}", String::from_utf8_lossy(body));
            assert_eq!(first.structural_indexes(), second.structural_indexes());
            accepted += 1;
        } else {
            refused += 1;
        }
    };
    for seed in 0..100_000_u64 {
        let (mut random, mut body) = Writer::message_of(Random::new(seed));
        if random.one_in(2) {
            damage(&mut random, &mut body);
        }
        both(&body);
    }
    // Short texts that end where the padding begins.
    const PIECES: &[u8] = b"{}[]\",:\\ntrue0-.1e ";
    for number in 0..PIECES.len().pow(4) {
        let (mut body, mut rest) = (Vec::new(), number);
        while rest > 0 {
            body.push(PIECES[rest % PIECES.len()]);
            rest /= PIECES.len();
        }
        both(&body);
    }
    assert!(accepted > 40_000 && refused > 40_000, "{accepted} accepted, {refused} refused");
}

/// Keys of few letters, of which many look alike at their ends and few are equal.
#[test]
fn keys_that_look_alike_are_told_apart_and_equal_ones_found() {
    let mut random = Random::new(7);
    let (mut equal, mut unequal) = (0, 0);
    for _ in 0..20_000 {
        let count = 2 + random.below(40);
        let keys: Vec<String> = (0..count)
            .map(|_| (0..random.below(7)).map(|_| ["a", "b", "\u{e9}"][random.below(3)]).collect())
            .collect();
        let has_equal = keys.iter().collect::<std::collections::BTreeSet<_>>().len() < count;
        let members: Vec<String> = keys.iter().map(|key| format!("\"{key}\":0")).collect();
        let body = super::request("ping", &format!("\"x\":{{{}}}", members.join(",")));
        assert_eq!(super::read(&body).1.is_err(), has_equal, "{body}");
        if has_equal { equal += 1 } else { unequal += 1 }
    }
    assert!(equal > 2_000 && unequal > 2_000, "{equal} with equal keys, {unequal} without");
}

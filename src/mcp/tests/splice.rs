//! Documents and edits, against serde_json as the second reader.

use serde_json::Value;

use super::super::span::{Document, Malformed, Node, NodeKind};
use super::super::splice::{EDITS_MAX, Edits, Unfit};
use super::writer::{Random, Writer, damage};

/// A value as the document has it.
fn value_of(node: Node<'_>, text: &[u8]) -> Value {
    match node.kind() {
        NodeKind::Object => {
            let members = node.members();
            Value::Object(members.map(|m| (m.key.to_owned(), value_of(m.value, text))).collect())
        }
        NodeKind::Array => node.elements().map(|element| value_of(element, text)).collect(),
        NodeKind::String => Value::String(node.text().unwrap().to_owned()),
        NodeKind::Number => serde_json::from_slice(&text[node.range()]).unwrap(),
        NodeKind::True => Value::Bool(true),
        NodeKind::False => Value::Bool(false),
        NodeKind::Null => Value::Null,
    }
}

/// Every place reads alone as what it stands for.
fn check_places(node: Node<'_>, text: &[u8]) {
    let raw = &text[node.range()];
    let alone: Value = serde_json::from_slice(raw).unwrap();
    assert_eq!(alone, value_of(node, text));
    assert!(!raw[0].is_ascii_whitespace() && !raw[raw.len() - 1].is_ascii_whitespace());
    for member in node.members() {
        let key: String = serde_json::from_slice(&text[member.key_range.clone()]).unwrap();
        assert_eq!(key, member.key);
        check_places(member.value, text);
    }
    node.elements().for_each(|element| check_places(element, text));
}

#[test]
fn a_document_is_what_another_reader_sees_and_each_place_is_right() {
    let mut document = Document::new();
    let (mut accepted, mut repeated, mut refused) = (0, 0, 0);
    for seed in 0..20_000_u64 {
        let (mut random, mut body) = Writer::message_of(Random::new(seed));
        if random.one_in(3) {
            damage(&mut random, &mut body);
        }
        if document.read(&body).is_err() {
            assert!(document.root().is_none());
            refused += 1;
            continue;
        }
        let root = document.root().unwrap();
        let second: Value = serde_json::from_slice(&body).unwrap_or_else(|error| {
            panic!("seed {seed}: {error}: {}", String::from_utf8_lossy(&body))
        });
        if document.repeats_a_key() {
            repeated += 1;
            continue;
        }
        assert_eq!(value_of(root, &body), second, "seed {seed}");
        if seed % 8 == 0 {
            check_places(root, &body);
        }
        accepted += 1;
    }
    let counts = format!("{accepted} accepted, {repeated} with a key twice, {refused} refused");
    assert!(accepted > 8_000 && repeated > 300 && refused > 1_000, "{counts}");
}

#[test]
fn single_values_and_space_around_them_have_their_places() {
    let mut document = Document::new();
    for (text, range, kind) in [
        (" 1 ", 1..2, NodeKind::Number),
        ("\n\"a\\u0062\"\t", 1..10, NodeKind::String),
        ("true", 0..4, NodeKind::True),
        (" false", 1..6, NodeKind::False),
        ("null ", 0..4, NodeKind::Null),
        (" { } ", 1..4, NodeKind::Object),
        ("[\r\n]", 0..4, NodeKind::Array),
        ("-1.5e3", 0..6, NodeKind::Number),
    ] {
        let root = document.read(text.as_bytes()).unwrap();
        assert_eq!((root.range(), root.kind()), (range, kind), "{text:?}");
    }
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert!(document.read(deep(64).as_bytes()).is_ok());
    for text in ["", " ", "{", "[1}", "{\"a\"}", "1 2", "\"a", "[\"\u{1}\"]", &deep(65)] {
        assert_eq!(document.read(text.as_bytes()).err(), Some(Malformed), "{text:?}");
        assert!(document.root().is_none());
    }
    assert_eq!(document.read(b"[\"\xff\"]").err(), Some(Malformed));
}

#[test]
fn values_are_what_they_are_and_keys_that_another_may_read_are_refused() {
    let mut document = Document::new();
    let text = br#"{"a":-1,"b":18446744073709551615,"c":1.5,"d":true,"e":"true","f":[],
        "g":36893488147419103232}"#;
    let root = document.read(text).unwrap();
    let [a, b, c, d, e, f, g, none] = root.pick(&["a", "b", "c", "d", "e", "f", "g", "h"]).unwrap();
    let signed = [a, b, c, d, g].map(|node| node.unwrap().number_i64());
    assert_eq!(signed, [Some(-1), None, None, None, None]);
    let unsigned = [a, b, c, e, g].map(|node| node.unwrap().number_u64());
    assert_eq!(unsigned, [None, Some(u64::MAX), None, None, None]);
    assert!(d.unwrap().is_true() && !e.unwrap().is_true() && none.is_none());
    assert!(f.unwrap().is_array() && f.unwrap().get("a").is_none());
    assert!(f.unwrap().pick(&["a"]).unwrap()[0].is_none());
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"A":1}"#,
        r#"{"a\u0000":1}"#,
        r#"{"x\u0000":1}"#,
    ] {
        let root = document.read(text.as_bytes()).unwrap();
        assert!(root.pick(&["a"]).is_err(), "{text}");
    }
    let root = document.read(r#"{"ta\u017f\u212as":1}"#.as_bytes()).unwrap();
    assert!(root.pick(&["tasks"]).is_err());
    let root = document.read(br#"{"x":{"a":1,"a":2},"a":0,"b":1}"#).unwrap();
    assert!(root.pick(&["a"]).is_ok());
    assert_eq!(root.get("x").and_then(|x| x.get("a")).and_then(Node::number_i64), Some(1));
    assert!(document.repeats_a_key());
}

#[test]
fn a_long_text_does_not_leave_its_memory_behind() {
    let mut document = Document::new();
    let numbers = format!("[{}0]", "0,".repeat(50_000));
    let text = format!("[\"{}\"]", "a".repeat(1 << 20));
    for long in [numbers, text] {
        assert!(document.read(long.as_bytes()).is_ok());
        assert!(document.kept_bytes() > crate::limits::BODY_BUFFER_KEPT_BYTES_MAX);
        document.forget();
        assert_eq!(document.kept_bytes(), 0);
        assert!(document.root().is_none());
    }
    assert!(document.read(b"[1]").is_ok());
}

fn edited(text: &str, edit: impl FnOnce(&mut Edits<'_>, Node<'_>)) -> String {
    let mut document = Document::new();
    let root = document.read(text.as_bytes()).unwrap();
    let mut edits = Edits::new();
    edit(&mut edits, root);
    let mut out = Vec::new();
    edits.apply(text.as_bytes(), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn members_come_and_go_with_their_commas() {
    let remove = |text: &str, keys: &[&str]| {
        edited(text, |edits, root| {
            let count = edits.remove_members(root, |key| keys.contains(&key)).unwrap();
            assert_eq!(count, keys.len());
        })
    };
    let text = r#"{ "a" : 1 , "b": [2] ,"c":{ } , "d" : "," }"#;
    for (keys, expected) in [
        (&["a"][..], r#"{ "b": [2] ,"c":{ } , "d" : "," }"#),
        (&["b"], r#"{ "a" : 1 ,"c":{ } , "d" : "," }"#),
        (&["d"], r#"{ "a" : 1 , "b": [2] ,"c":{ } }"#),
        (&["a", "b"], r#"{ "c":{ } , "d" : "," }"#),
        (&["c", "d"], r#"{ "a" : 1 , "b": [2] }"#),
        (&["a", "c"], r#"{ "b": [2] , "d" : "," }"#),
        (&["b", "d"], r#"{ "a" : 1 ,"c":{ } }"#),
        (&["a", "b", "c"], r#"{ "d" : "," }"#),
        (&["a", "b", "c", "d"], "{  }"),
        (&[], text),
    ] {
        assert_eq!(remove(text, keys), expected, "{keys:?}");
    }
    let insert = |text: &str| {
        edited(text, |edits, root| {
            edits.remove_member(root, "gone").unwrap();
            edits.insert_member(root, "n\"", b"1").unwrap();
            edits.set_member(root, "m", b"[]").unwrap();
        })
    };
    assert_eq!(insert("{}"), r#"{"n\"":1,"m":[]}"#);
    assert_eq!(insert(r#"{ "gone":0 }"#), r#"{  "n\"":1,"m":[]}"#);
    assert_eq!(insert(r#"{"x":0}"#), r#"{"x":0,"n\"":1,"m":[]}"#);
    assert_eq!(insert(r#"{"m":0,"gone":1,"gone":2}"#), r#"{"m":[],"n\"":1}"#);
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut document = Document::new();
    let text = br#"{"a":{"b":1},"c":[1],"d":1,"d":2}"#;
    let root = document.read(text).unwrap();
    let a = root.get("a").unwrap();
    let mut edits = Edits::new();
    assert_eq!(edits.put(a.range(), b"1"), Ok(()));
    for refused in [
        edits.put(a.range(), b"2"),
        edits.put(a.get("b").unwrap().range(), b"2"),
        edits.put(root.range(), b"2"),
        edits.insert_member(a, "x", b"1"),
        edits.insert_member(root.get("c").unwrap(), "x", b"1"),
        edits.insert_member(root, "c", b"1"),
        edits.set_member(root, "d", b"1"),
        edits.remove_member(a, "b").map(drop),
        edits.remove_member(root, "a").map(drop),
    ] {
        assert_eq!(refused, Err(Unfit));
    }
    assert_eq!(edits.insert_member(root, "x", b"1"), Ok(()));
    assert_eq!(edits.insert_member(root, "x", b"1"), Err(Unfit));
    assert_eq!(edits.remove_member(root, "d"), Err(Unfit), "removals come first");
    let mut out = b"before".to_vec();
    assert_eq!(edits.apply(&text[..20], &mut out), Err(Unfit));
    assert_eq!(out, b"before");

    let mut edits = Edits::new();
    for at in 0..EDITS_MAX {
        assert_eq!(edits.put(2 * at..2 * at + 1, b""), Ok(()));
    }
    assert_eq!(edits.put(40..41, b""), Err(Unfit));
}

/// A place in a value, by the way to it.
type Way = Vec<String>;

fn ways(node: Node<'_>, way: &Way, out: &mut Vec<Way>) {
    out.push(way.clone());
    let mut go = |step: String, node: Node<'_>| {
        let mut way = way.clone();
        way.push(step);
        ways(node, &way, out);
    };
    for member in node.members() {
        go(member.key.to_owned(), member.value);
    }
    for (at, element) in node.elements().enumerate() {
        go(at.to_string(), element);
    }
}

fn node_at<'d>(root: Node<'d>, way: &[String]) -> Node<'d> {
    way.iter().fold(root, |node, step| {
        node.get(step).unwrap_or_else(|| node.elements().nth(step.parse().unwrap()).unwrap())
    })
}

fn value_at<'v>(root: &'v mut Value, way: &[String]) -> &'v mut Value {
    way.iter().fold(root, |value, step| {
        if value.is_array() {
            value.get_mut(step.parse::<usize>().unwrap()).unwrap()
        } else {
            value.get_mut(step).unwrap()
        }
    })
}

/// What the edits did to the values they name, done to a value.
#[derive(Debug)]
enum Done {
    Put(Way, &'static str),
    Inserted(Way, &'static str, &'static str),
    Removed(Way, Vec<String>),
}

const NEW: [&str; 6] = ["1", "\"\\u00e9\\\"\"", " {\"name\":\"x\"} ", "[ ]", "null", "-2.5e3"];
const KEYS: [&str; 4] = ["_meta", "io.portcullis/server", "n\"\\\n", "name"];

/// Random edits of `root`; those that do not fit beside the others are left out.
fn edit_at_random(random: &mut Random, root: Node<'_>, edits: &mut Edits<'static>) -> Vec<Done> {
    let mut all = Vec::new();
    ways(root, &Vec::new(), &mut all);
    // What is put deeper could be nested too deep.
    all.retain(|way| way.len() < 60);
    let mut done = Vec::new();
    for _ in 0..=random.below(5) {
        let way = all[random.below(all.len())].clone();
        let node = node_at(root, &way);
        let new = NEW[random.below(NEW.len())];
        let kind = random.below(3);
        if kind == 0 {
            if edits.put(node.range(), new.as_bytes()).is_ok() {
                done.push(Done::Put(way, new));
            }
        } else if kind == 1 {
            let key = KEYS[random.below(KEYS.len())];
            if edits.insert_member(node, key, new.as_bytes()).is_ok() {
                done.push(Done::Inserted(way, key, new));
            }
        } else if node.is_object() && done.is_empty() {
            let mut gone: Vec<String> = node.members().map(|m| m.key.to_owned()).collect();
            gone.retain(|_| !random.one_in(3));
            let removed = edits.remove_members(node, |key| gone.iter().any(|one| one == key));
            assert_eq!(removed, Ok(gone.len()));
            done.push(Done::Removed(way, gone));
        }
    }
    done
}

fn apply_to(value: &mut Value, done: &[Done]) {
    // No edit stands inside another, so each way still leads where it led.
    for one in done {
        match one {
            Done::Put(way, new) => *value_at(value, way) = serde_json::from_str(new).unwrap(),
            Done::Inserted(way, key, new) => {
                let object = value_at(value, way).as_object_mut().unwrap();
                let old = object.insert((*key).to_owned(), serde_json::from_str(new).unwrap());
                assert_eq!(old, None);
            }
            Done::Removed(way, gone) => {
                let object = value_at(value, way).as_object_mut().unwrap();
                object.retain(|key, _| !gone.contains(key));
            }
        }
    }
}

/// Whether what stands between the touched places stands in `out`, too, in its order.
fn keeps(text: &[u8], out: &[u8], touched: &[std::ops::Range<usize>]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut pieces = Vec::new();
    for range in touched {
        pieces.push(&text[at..range.start]);
        at = range.end;
    }
    pieces.push(&text[at..]);
    let last = pieces.len() - 1;
    pieces.iter().enumerate().all(|(index, piece)| {
        let rest = &out[from..];
        let found = if index == 0 {
            rest.starts_with(piece).then_some(0)
        } else if index == last {
            rest.ends_with(piece).then(|| rest.len() - piece.len())
        } else if piece.is_empty() {
            Some(0)
        } else {
            rest.windows(piece.len()).position(|window| window == *piece)
        };
        found.is_some_and(|place| {
            from += place + piece.len();
            true
        })
    })
}

/// Where `done` touches the text, sorted: values that are put, objects' ends, and for removals the
/// whole inside of their object.
fn touched(root: Node<'_>, done: &[Done]) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<_> = done
        .iter()
        .map(|one| match one {
            Done::Put(way, _) => node_at(root, way).range(),
            Done::Inserted(way, ..) => {
                let end = node_at(root, way).range().end - 1;
                end..end
            }
            Done::Removed(way, _) => {
                let range = node_at(root, way).range();
                range.start + 1..range.end - 1
            }
        })
        .collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    let mut merged: Vec<std::ops::Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end || range.start == last.start => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// DESIGN §4: the spliced body equals the body edited as a value, and every byte outside the edits
/// is unchanged.
#[test]
fn a_spliced_text_is_the_edited_value_and_nothing_else_changes() {
    let bodies = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let (mut document, mut again) = (Document::new(), Document::new());
    let (mut tried, mut several, mut removals) = (0, 0, 0);
    for seed in 1_000_000..1_000_000 + bodies {
        let (mut random, body) = Writer::message_of(Random::new(seed));
        if document.read(&body).is_err() || document.repeats_a_key() {
            continue;
        }
        let root = document.root().unwrap();
        let mut expected = value_of(root, &body);
        let mut edits = Edits::new();
        let done = edit_at_random(&mut random, root, &mut edits);
        apply_to(&mut expected, &done);
        let mut out = Vec::new();
        edits.apply(&body, &mut out).unwrap();
        let context = || {
            let text = (String::from_utf8_lossy(&body), String::from_utf8_lossy(&out));
            format!("seed {seed}: {done:?}\n{}\n{}", text.0, text.1)
        };
        let second: Value =
            serde_json::from_slice(&out).unwrap_or_else(|e| panic!("{e} {}", context()));
        assert_eq!(second, expected, "{}", context());
        assert!(keeps(&body, &out, &touched(root, &done)), "{}", context());
        let read = again.read(&out).unwrap_or_else(|_| panic!("{}", context()));
        assert_eq!(value_of(read, &out), expected, "{}", context());
        tried += 1;
        several += usize::from(done.len() > 1);
        removals += usize::from(done.iter().any(|one| matches!(one, Done::Removed(..))));
    }
    let counts = format!("{tried} tried, {several} with several edits, {removals} with removals");
    assert!(tried > 15_000 && several > 4_000 && removals > 1_000, "{counts}");
}

/// The edits that the hub makes, in a body that is made to mislead a string search.
#[test]
fn look_alikes_stay_what_they_are() {
    let text = r#"{"params":{"arguments":{"name":"a_x","_meta":{"progressToken":7}},
        "x":"\"name\":\"a_x\"","\u006eame" : "a_\u0078" , "_meta":{ }},"name":"a_x","id":"a_x"}"#;
    let out = edited(text, |edits, root| {
        let params = root.get("params").unwrap();
        edits.put(params.get("name").unwrap().range(), b"\"x\"").unwrap();
        edits.set_member(params.get("_meta").unwrap(), "progressToken", b"8").unwrap();
        edits.put(root.get("id").unwrap().range(), b"\"g1\"").unwrap();
    });
    let expected = text
        .replace(r#""a_\u0078""#, "\"x\"")
        .replace("{ }", "{ \"progressToken\":8}")
        .replace(r#""id":"a_x""#, r#""id":"g1""#);
    assert_eq!(out, expected);
}

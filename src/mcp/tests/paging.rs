//! Pages of many servers' lists.

use serde_json::{Value, json};

use super::super::catalog::{Catalog, Gatherer};
use super::super::list::Listed;
use super::super::paging::{Answer, Missing, Page, Place};
use super::super::seal::{Keyring, bound_to};
use super::super::span::Document;
use crate::clock::UnixSeconds;
use crate::limits::{CURSOR_SECONDS_MAX, PAGE_BYTES_MAX};
use crate::reject::Reject;

const PAGE_ITEMS: usize = 256;

fn catalog(listed: Listed, items: &[Value]) -> Catalog {
    let text = json!({ listed.member(): items }).to_string();
    let mut document = Document::new();
    assert!(document.read(text.as_bytes()).is_ok());
    let mut gatherer = Gatherer::new(listed);
    let page = gatherer.page(&document, document.root().unwrap(), text.as_bytes());
    assert_eq!(page, Ok(None));
    gatherer.finish()
}

fn tools(names: impl IntoIterator<Item = String>, bytes: usize) -> Catalog {
    let items = names.into_iter().map(|name| json!({"name": name, "d": "x".repeat(bytes)}));
    catalog(Listed::Tools, &items.collect::<Vec<_>>())
}

/// All pages of `servers`, as a client walks them.
fn pages(servers: &[(&str, Catalog)]) -> Vec<Vec<Value>> {
    let mut from = Place::default();
    let mut all = Vec::new();
    loop {
        let mut page = Page::new(PAGE_ITEMS);
        'page: for (prefix, catalog) in servers {
            for entry in catalog.entries() {
                if from.is_before(prefix, entry.name()) && !page.put(prefix, entry, None) {
                    break 'page;
                }
            }
        }
        let answer = Answer {
            id: b"1",
            listed: Listed::Tools,
            page: &page,
            next: None,
            missing: &[],
            ttl_ms: None,
        };
        let mut out = Vec::new();
        answer.write(&mut out);
        let mut answer: Value = serde_json::from_slice(&out).unwrap();
        let Value::Array(items) = answer["result"]["tools"].take() else { panic!("{answer}") };
        assert_eq!(items.len(), page.len());
        all.push(items);
        match page.next() {
            Some(next) => from = next.clone(),
            None => return all,
        }
    }
}

#[test]
fn every_item_comes_once_in_order_over_all_pages() {
    let names = |count: usize| (0..count).map(|at| format!("t{}", at * 7919 % 10_007));
    let long = "n".repeat(80);
    let servers = [
        ("A", tools(names(300), 1)),
        ("a", tools([], 1)),
        ("a-b", tools(["_".to_owned(), String::new(), long.clone(), "\u{e9}".to_owned()], 1)),
        ("b", tools(names(2 * PAGE_ITEMS), 5000)),
    ];
    let all = pages(&servers);
    for (at, page) in all.iter().enumerate() {
        let full = page.len() == PAGE_ITEMS || at + 1 == all.len();
        assert!(full || page.len() * 5000 > PAGE_BYTES_MAX - 10_000, "page {at}: {}", page.len());
    }
    let mut expected = Vec::new();
    for (prefix, catalog) in &servers {
        for entry in catalog.entries() {
            let mut outer = String::new();
            super::super::names::compose(prefix, entry.name(), &mut outer);
            expected.push(outer);
        }
    }
    let seen: Vec<&str> = all.iter().flatten().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(seen, expected);
    assert_eq!((seen.len(), seen[300], seen[301]), (816, "a-b_", "a-b__"));
}

#[test]
fn a_page_has_its_bounds_and_always_place_for_one_item() {
    let exact = tools((0..PAGE_ITEMS).map(|at| format!("{at:04}")), 1);
    assert_eq!(pages(&[("a", exact)]).len(), 1, "no empty page behind a full one");
    let big = |at: usize| format!("{at}{}", "x".repeat(4000));
    let sizes: Vec<usize> =
        pages(&[("a", tools((0..40).map(big), 60_000))]).iter().map(Vec::len).collect();
    assert_eq!(sizes, [17, 17, 6]);
    assert_eq!(pages(&[]), [Vec::<Value>::new()]);
}

fn keyring(key: u8) -> Keyring {
    Keyring::new("https://gw.example.com", &[key; 32], None).unwrap()
}

#[test]
fn a_cursor_is_its_owners_of_one_list_and_for_a_while() {
    let (ours, owner) = (keyring(1), bound_to(&["iss", "alice", "agent"]));
    let place = Place { prefix: "a-b".to_owned(), name: "x\u{e9}".to_owned() };
    let now = UnixSeconds(1_000_000);
    let mut cursor = Vec::new();
    place.seal(&ours, Listed::Tools, &owner, now, &mut cursor).unwrap();
    let cursor = String::from_utf8(cursor).unwrap();
    assert!(cursor.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
    let open = |keyring: &Keyring, listed, bound: &[u8; 32], seconds: i64, cursor: &str| {
        let now = UnixSeconds(now.0.saturating_add_signed(seconds));
        Place::open(keyring, listed, bound, now, cursor)
    };
    let life = i64::try_from(CURSOR_SECONDS_MAX).unwrap();
    for seconds in [0, life, -60] {
        assert_eq!(open(&ours, Listed::Tools, &owner, seconds, &cursor), Ok(place.clone()));
    }
    let other = bound_to(&["iss", "bob", "agent"]);
    let mut torn = cursor.clone();
    torn.replace_range(20..21, if &cursor[20..21] == "A" { "B" } else { "A" });
    for refused in [
        open(&ours, Listed::Prompts, &owner, 0, &cursor),
        open(&ours, Listed::Tools, &other, 0, &cursor),
        open(&keyring(2), Listed::Tools, &owner, 0, &cursor),
        open(&ours, Listed::Tools, &owner, life + 1, &cursor),
        open(&ours, Listed::Tools, &owner, -life - 1, &cursor),
        open(&ours, Listed::Tools, &owner, 0, &torn),
        open(&ours, Listed::Tools, &owner, 0, &cursor[1..]),
        open(&ours, Listed::Tools, &owner, 0, ""),
        open(&ours, Listed::Tools, &owner, 0, "page-2"),
    ] {
        assert_eq!(refused, Err(Reject::CursorUnknown));
    }
}

#[test]
fn an_answer_says_what_its_revision_wants_and_who_is_missing() {
    let items = [json!({"uri": "a:1"}), json!({"uri": "b:1", "_meta": {"k": 1}})];
    let catalog = catalog(Listed::Resources, &items);
    let mut page = Page::new(PAGE_ITEMS);
    for entry in catalog.entries() {
        assert!(page.put("s", entry, Some("srv")));
    }
    let missing = [
        Missing { server: "one", reason: "upstream_timeout" },
        Missing { server: "two", reason: "upstream_malformed" },
    ];
    let mut answer = Answer {
        id: b"\"\\u0061\"",
        listed: Listed::Resources,
        page: &page,
        next: Some(b"c-_1"),
        missing: &missing,
        ttl_ms: Some(7),
    };
    let read = |answer: &Answer<'_>| {
        let mut out = Vec::new();
        answer.write(&mut out);
        serde_json::from_slice::<Value>(&out).unwrap()
    };
    assert_eq!(
        read(&answer),
        json!({"jsonrpc": "2.0", "id": "a", "result": {
            "resultType": "complete", "cacheScope": "private", "ttlMs": 7,
            "resources": [
                {"uri": "a:1", "_meta": {"io.portcullis/server": "srv"}},
                {"uri": "b:1", "_meta": {"k": 1, "io.portcullis/server": "srv"}},
            ],
            "nextCursor": "c-_1",
            "_meta": {"io.portcullis/partial": [
                {"server": "one", "reason": "upstream_timeout"},
                {"server": "two", "reason": "upstream_malformed"},
            ]},
        }})
    );
    answer = Answer { next: None, missing: &[], ttl_ms: None, ..answer };
    assert_eq!(read(&answer)["result"].as_object().unwrap().len(), 1, "the legacy form");
}

//! What the record says of a list of which nothing is shown: the strongest reason.

use serde_json::{Value, json};

use super::client::text;
use super::gateway::DRIVERS;
use super::list_streams::{session, stream};
use super::lists::{EVENTS, Framing, LISTS, WHOLE, answered, asked, framed, messages, start};

/// What the record says of a list of which nothing is shown, and what is answered.
#[test]
fn m14_an_empty_list_says_why_in_the_record() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let mut wanted = Vec::new();
        for list in &LISTS {
            for (user, sent, why) in [
                ("dora", list.sent(), "no_permit"),
                ("erin", list.sent(), "forbidden"),
                ("finn", list.sent(), "error"),
                ("dora", list.message(&[], json!({})), "upstream"),
                ("erin", list.message(&[], json!({})), "upstream"),
            ] {
                let post = asked(&gateway, user, list.method, false);
                let answer = answered(&gateway, &post, WHOLE, sent.to_string().as_bytes());
                assert_eq!(answer.json(), list.message(&[], json!({})), "{user} {driver:?}");
                let sent = sent["result"][list.member].as_array().unwrap().len();
                wanted.push(json!({"upstream": sent, "shown": 0, "empty": why}));
            }
        }
        let hidden: usize = LISTS.iter().map(|list| 3 * list.sent.len()).sum();
        let records = turn.records(&gateway, wanted.len());
        let found: Vec<_> = records.iter().map(|record| record["list"].clone()).collect();
        assert_eq!(found, wanted, "{driver:?}");
        let metrics = text(&gateway.page("/metrics").body);
        let counted = |outcome: &str, count: usize| {
            metrics.contains(&format!("list_items_total{{outcome=\"{outcome}\"}} {count}\n"))
        };
        assert!(counted("shown", 0) && counted("hidden", hidden), "{hidden}: {metrics}");
    }
}

/// The pages of `tools/list` that gina gets, and why nothing of each is shown.
const PAGES: [(&[&str], Option<&str>); 6] = [
    (&["Allowed", "all", "other"], Some("forbidden")),
    (&["other", "Allowed"], Some("error")),
    (&["other"], Some("no_permit")),
    (&[], Some("upstream")),
    (&["all", "allowed"], None),
    (&["other"], Some("no_permit")),
];

fn said(upstream: usize, shown: usize, empty: Option<&str>) -> Value {
    let mut said = json!({"upstream": upstream, "shown": shown});
    if let Some(why) = empty {
        said["empty"] = why.into();
    }
    said
}

/// Each page is a request of its own, with a record of its own: the strongest reason among its
/// items, whatever became of the pages before.
#[test]
fn each_page_of_a_list_says_why_it_is_empty() {
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let list = &LISTS[0];
        let mut wanted = Vec::new();
        for (at, (sent, why)) in PAGES.iter().enumerate() {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{{"cursor":"page{at}"}}}}"#
            );
            let post = asked(&gateway, "gina", list.method, false).body(body);
            let page = list.message(sent, json!({})).to_string();
            let answer = answered(&gateway, &post, WHOLE, page.as_bytes());
            let shown: &[&str] = if why.is_none() { &["allowed"] } else { &[] };
            assert_eq!(answer.json(), list.message(shown, json!({})), "page {at} {driver:?}");
            wanted.push(said(sent.len(), shown.len(), *why));
        }
        let records = turn.records(&gateway, wanted.len());
        let found: Vec<_> = records.iter().map(|record| record["list"].clone()).collect();
        assert_eq!(found, wanted, "{driver:?}");
    }
}

/// A stream that brings several pages is one record: their sums, and while nothing was shown the
/// strongest reason, in whatever order they came.
#[test]
fn a_stream_of_pages_says_the_strongest_reason() {
    let [forbidden, error, no_permit, upstream, shown, _] = PAGES;
    let streams = [
        vec![upstream, no_permit],
        vec![no_permit, upstream],
        vec![no_permit, error, upstream],
        vec![error, no_permit],
        vec![error, forbidden, no_permit],
        vec![forbidden, error, upstream],
        vec![forbidden, shown],
        vec![shown, forbidden, upstream],
    ];
    let reasons = ["no_permit", "no_permit", "error", "error", "forbidden", "forbidden"];
    for driver in DRIVERS {
        let gateway = start(driver);
        let turn = gateway.turn();
        let fields = format!("Mcp-Session-Id: {}\r\n", session(&gateway, "gina"));
        let mut wanted = vec![Value::Null];
        for (at, pages) in streams.iter().enumerate() {
            let event = |(sent, _): &(&[&str], Option<&str>)| {
                format!("data: {}\n\n", LISTS[0].message(sent, json!({})))
            };
            let events: String = pages.iter().map(event).collect();
            gateway.upstream.say(framed(EVENTS, Framing::Length, events.as_bytes()), false, 0);
            let answer = gateway.ask(&stream(&gateway, "gina", &fields));
            assert_eq!(messages(&text(&answer.body)).len(), pages.len(), "{driver:?} {at}");
            let sent = pages.iter().map(|(sent, _)| sent.len()).sum();
            let kept = pages.iter().filter(|(_, why)| why.is_none()).count();
            wanted.push(said(sent, kept, reasons.get(at).copied()));
        }
        let records = turn.records(&gateway, wanted.len());
        let found: Vec<_> = records.iter().map(|record| record["list"].clone()).collect();
        assert_eq!(found, wanted, "{driver:?}");
    }
}

//! Lists of servers, as they are kept.

use super::super::catalog::{Catalog, Gatherer, Params, Unusable, agree, mirrored};
use super::super::list::Listed;
use super::super::span::Document;
use crate::limits::{CATALOG_ITEM_BYTES_MAX, CATALOG_PAGES_MAX, LIST_ITEMS_MAX, NAME_BYTES_MAX};

fn page(gatherer: &mut Gatherer, text: &str) -> Result<Option<String>, Unusable> {
    let mut document = Document::new();
    let malformed = |_| Unusable::Malformed;
    document.read(text.as_bytes()).map_err(malformed)?;
    let result = document.root().unwrap().get("result").unwrap();
    gatherer.page(&document, result, text.as_bytes()).map(|next| next.map(str::to_owned))
}

fn gathered(listed: Listed, pages: &[&str]) -> Catalog {
    let mut gatherer = Gatherer::new(listed);
    for text in pages {
        let text = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{text}}}"#);
        page(&mut gatherer, &text).unwrap_or_else(|why| panic!("{why:?}: {text}"));
    }
    gatherer.finish()
}

fn written(catalog: &Catalog) -> Vec<String> {
    let each = catalog.entries().map(|entry| {
        let mut out = Vec::new();
        entry.write(&format!("p_{}", entry.name()), &mut out);
        String::from_utf8(out).unwrap()
    });
    each.collect()
}

fn owned(catalog: &Catalog) -> Vec<String> {
    let each = catalog.entries().map(|entry| {
        let mut out = Vec::new();
        entry.write_of("s", &mut out);
        String::from_utf8(out).unwrap()
    });
    each.collect()
}

#[test]
fn items_are_sorted_stay_as_they_came_and_get_another_name() {
    let catalog = gathered(
        Listed::Tools,
        &[
            r#"{"tools":[ {"title" : "name" ,"name":"b","x":{"name":"b"}} ,{"name":"a\u0062"}]}"#,
            r#"{"tools":[{"n":1.50e2,"name":"B","description":"\"name\":\"B\""},{"name":"b"}]}"#,
        ],
    );
    assert_eq!(catalog.entries().map(|entry| entry.name()).collect::<Vec<_>>(), ["B", "ab", "b"]);
    assert_eq!(
        written(&catalog),
        [
            r#"{"n":1.50e2,"name":"p_B","description":"\"name\":\"B\""}"#,
            r#"{"name":"p_ab"}"#,
            r#"{"title" : "name" ,"name":"p_b","x":{"name":"b"}}"#,
        ],
        "of one name the first counts"
    );
    assert_eq!((catalog.len(), catalog.repeated()), (3, 1));
    assert!(catalog.find("ab").is_some() && catalog.find("a").is_none());
    let prompts = gathered(Listed::Prompts, &[r#"{"prompts":[{"name":"x","uri":"y"}]}"#]);
    assert_eq!(written(&prompts), [r#"{"name":"p_x","uri":"y"}"#]);
}

#[test]
fn resources_keep_their_uri_and_may_say_whose_they_are() {
    let list =
        r#"[{"uri":"a:1","name":"x"},{"uri":"a:2","_meta":{"k":1}},{"_meta":{},"uri":"a:3"}]"#;
    let catalog = gathered(Listed::Resources, &[&format!(r#"{{"resources":{list}}}"#)]);
    let same = [
        r#"{"uri":"a:1","name":"x"}"#,
        r#"{"uri":"a:2","_meta":{"k":1}}"#,
        r#"{"_meta":{},"uri":"a:3"}"#,
    ];
    assert_eq!(written(&catalog), same);
    assert_eq!(
        owned(&catalog),
        [
            r#"{"_meta":{"io.portcullis/server":"s"},"uri":"a:1","name":"x"}"#,
            r#"{"uri":"a:2","_meta":{"io.portcullis/server":"s","k":1}}"#,
            r#"{"_meta":{"io.portcullis/server":"s"},"uri":"a:3"}"#,
        ]
    );
    let templates = r#"{"resourceTemplates":[{"uriTemplate":"a:{x}","name":"n"}]}"#;
    let catalog = gathered(Listed::Templates, &[templates]);
    assert_eq!(written(&catalog), [r#"{"uriTemplate":"a:{x}","name":"n"}"#]);
}

#[test]
fn names_that_are_ours_are_cut_out_of_what_servers_say() {
    let tools = r#"{"tools":[
        {"_meta":{"io.portcullis/server":"github","ui":1,"io.portcullis/x":2},"name":"a"},
        {"name":"b","_meta":null,"z":"io.portcullis/server"},
        {"name":"c","_meta":{"io.portcullis/partial":[]}}]}"#;
    assert_eq!(
        written(&gathered(Listed::Tools, &[tools])),
        [
            r#"{"_meta":{"ui":1},"name":"p_a"}"#,
            r#"{"name":"p_b","z":"io.portcullis/server"}"#,
            r#"{"name":"p_c","_meta":{}}"#,
        ]
    );
    let resources = r#"{"resources":[{"_meta":{"a":1,"io.portcullis/server":"x"},"uri":"a:1"},
        {"uri":"a:2","_meta":null}]}"#;
    assert_eq!(
        owned(&gathered(Listed::Resources, &[resources])),
        [
            r#"{"_meta":{"io.portcullis/server":"s","a":1},"uri":"a:1"}"#,
            r#"{"_meta":{"io.portcullis/server":"s"},"uri":"a:2"}"#,
        ]
    );
}

#[test]
fn a_legacy_agent_gets_no_schema_that_its_revision_does_not_have() {
    let tools = r#"{"tools":[{"name":"a","outputSchema":{"type":"array"},"_meta":null,"z":1},
        {"outputSchema":{"type":"object","x":[]},"name":"b"},
        {"outputSchema":true,"_meta":{"io.portcullis/x":1,"k":2},"name":"c"},{"name":"d"},
        {"name":"e","inputSchema":{"x-mcp-header":"x"}}]}"#;
    let text = format!(r#"{{"result":{tools}}}"#);
    let mut gatherer = Gatherer::new(Listed::Tools).for_legacy();
    assert_eq!(page(&mut gatherer, &text), Ok(None));
    assert_eq!(
        written(&gatherer.finish()),
        [
            r#"{"name":"p_a","z":1}"#,
            r#"{"outputSchema":{"type":"object","x":[]},"name":"p_b"}"#,
            r#"{"_meta":{"k":2},"name":"p_c"}"#,
            r#"{"name":"p_d"}"#,
        ]
    );
    let as_it_is = written(&gathered(Listed::Tools, &[tools]));
    assert_eq!(as_it_is[0], r#"{"name":"p_a","outputSchema":{"type":"array"},"z":1}"#);
}

#[test]
fn pages_go_on_by_any_cursor_and_the_strictest_page_counts() {
    let mut gatherer = Gatherer::new(Listed::Tools);
    let mut next =
        |rest: &str| page(&mut gatherer, &format!(r#"{{"result":{{"tools":[],{rest}}}}}"#));
    let first = next(r#""nextCursor":"","ttlMs":500,"cacheScope":"public""#);
    assert_eq!(first, Ok(Some(String::new())), "an empty cursor is one (M24)");
    let second = next(r#""nextCursor":"x\n","ttlMs":9000,"cacheScope":"public""#);
    assert_eq!(second, Ok(Some("x\n".to_owned())));
    assert_eq!(next(r#""nextCursor":null,"ttlMs":60,"cacheScope":"public""#), Ok(None));
    let catalog = gatherer.finish();
    assert_eq!((catalog.ttl_ms(), catalog.is_public()), (60, true));
    for (pages, ttl_ms, public) in [
        (&[r#"{"tools":[],"ttlMs":60,"cacheScope":"public"}"#, r#"{"tools":[]}"#][..], 0, false),
        (&[r#"{"tools":[],"ttlMs":60,"cacheScope":"private"}"#], 60, false),
        (&[r#"{"tools":[],"ttlMs":-1,"cacheScope":"Public"}"#], 0, false),
        (&[], 0, false),
    ] {
        let catalog = gathered(Listed::Tools, pages);
        assert_eq!((catalog.ttl_ms(), catalog.is_public()), (ttl_ms, public), "{pages:?}");
    }
}

#[test]
fn a_list_is_whole_or_refused() {
    use Unusable::{Malformed, TooLarge};
    let big = |bytes: usize| format!(r#"{{"tools":[{{"name":"a","d":"{}"}}]}}"#, "x".repeat(bytes));
    let named = |bytes: usize| format!(r#"{{"tools":[{{"name":"{}"}}]}}"#, "x".repeat(bytes));
    let many = |count: usize| {
        let items: Vec<String> = (0..count).map(|at| format!(r#"{{"name":"t{at}"}}"#)).collect();
        format!(r#"{{"tools":[{}]}}"#, items.join(","))
    };
    let frame = r#"{"name":"a","d":""}"#.len();
    for (result, expected) in [
        (r#"{"tools":{}}"#.to_owned(), Err(Malformed)),
        (r#"{"prompts":[]}"#.to_owned(), Err(Malformed)),
        (r#"{"Tools":[]}"#.to_owned(), Err(Malformed)),
        (r#"[]"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":"a"},{}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":1}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"Name":"a"}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":"a","NAME":"b"}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":"a","name":"b"}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":"a\u0000"}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":"a","_meta":[]}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[{"name":"a","x":{"y":1,"y":2}}]}"#.to_owned(), Err(Malformed)),
        (r#"{"tools":[],"nextCursor":1}"#.to_owned(), Err(Malformed)),
        (format!(r#"{{"tools":[],"nextCursor":"{}"}}"#, "x".repeat(5000)), Err(TooLarge)),
        (big(CATALOG_ITEM_BYTES_MAX - frame), Ok(None)),
        (big(CATALOG_ITEM_BYTES_MAX - frame + 1), Err(TooLarge)),
        (named(NAME_BYTES_MAX), Ok(None)),
        (named(NAME_BYTES_MAX + 1), Err(TooLarge)),
        (many(LIST_ITEMS_MAX), Ok(None)),
        (many(LIST_ITEMS_MAX + 1), Err(TooLarge)),
    ] {
        let text = format!(r#"{{"result":{result}}}"#);
        let read = page(&mut Gatherer::new(Listed::Tools), &text);
        assert_eq!(read, expected, "{}", &text[..text.len().min(200)]);
    }
}

#[test]
fn lists_without_end_come_to_one() {
    let mut gatherer = Gatherer::new(Listed::Tools);
    for at in 0..CATALOG_PAGES_MAX {
        let text = format!(r#"{{"result":{{"tools":[],"nextCursor":"{at}"}}}}"#);
        assert_eq!(page(&mut gatherer, &text), Ok(Some(at.to_string())));
    }
    let more = r#"{"result":{"tools":[]}}"#;
    assert_eq!(page(&mut gatherer, more), Err(Unusable::TooLarge));

    let mut gatherer = Gatherer::new(Listed::Tools);
    let circle = r#"{"result":{"tools":[],"nextCursor":"x"}}"#;
    assert_eq!(page(&mut gatherer, circle), Ok(Some("x".to_owned())));
    assert_eq!(page(&mut gatherer, circle), Err(Unusable::Malformed));

    let mut gatherer = Gatherer::new(Listed::Tools);
    let items = format!(r#"{{"name":"a","d":"{}"}},"#, "x".repeat(60_000)).repeat(35);
    let mut pages = 0;
    let end = loop {
        let items = items.trim_end_matches(',');
        let text = format!(r#"{{"result":{{"tools":[{items}],"nextCursor":"{pages}"}}}}"#);
        pages += 1;
        match page(&mut gatherer, &text) {
            Ok(_) => assert!(pages < 3),
            Err(why) => break why,
        }
    };
    assert_eq!((end, pages), (Unusable::TooLarge, 2), "4 MiB over all pages");
}

#[test]
fn what_is_mirrored_into_headers_is_known_or_known_to_be_wrong() {
    let params = |schema: &str| {
        let result = format!(r#"{{"tools":[{{"name":"a","inputSchema":{schema}}}]}}"#);
        let catalog = gathered(Listed::Tools, &[&result]);
        let entry = catalog.find("a").unwrap();
        match entry.params() {
            Params::Known(all) => {
                Some(all.iter().map(|p| format!("{}={}", p.header, p.path.join("."))).collect())
            }
            Params::Invalid => None::<Vec<String>>,
        }
    };
    let good = r#"{"type":"object","properties":{
        "region":{"type":"string","x-mcp-header":"Region"},
        "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"n"}}},
        "other":{"type":"number"}}}"#;
    assert_eq!(params(good), Some(vec!["Region=region".to_owned(), "n=deep.n".to_owned()]));
    assert_eq!(params(r#"{"type":"object"}"#), Some(vec![]));
    assert_eq!(params("true"), Some(vec![]));
    let one = |property: &str| format!(r#"{{"properties":{{"a":{property}}}}}"#);
    let many = (0..17).map(|at| format!(r#""p{at}":{{"type":"string","x-mcp-header":"h{at}"}}"#));
    for wrong in [
        one(r#"{"type":"number","x-mcp-header":"a"}"#),
        one(r#"{"type":["string"],"x-mcp-header":"a"}"#),
        one(r#"{"x-mcp-header":"a"}"#),
        one(r#"{"type":"string","x-mcp-header":1}"#),
        one(r#"{"type":"string","x-mcp-header":""}"#),
        one(r#"{"type":"string","x-mcp-header":"a b"}"#),
        one(r#"{"type":"string","x-mcp-header":"a\r\nb"}"#),
        one(r#"{"type":"array","items":{"type":"string","x-mcp-header":"a"}}"#),
        r#"{"x-mcp-header":"a"}"#.to_owned(),
        r#"{"properties":{"a":{"type":"string","x-mcp-header":"x"},
            "b":{"type":"string","x-mcp-header":"X"}}}"#
            .to_owned(),
        format!(r#"{{"properties":{{{}}}}}"#, many.collect::<Vec<_>>().join(",")),
    ] {
        assert_eq!(params(&wrong), None, "{wrong}");
    }
}

#[test]
fn what_is_mirrored_says_what_the_arguments_say() {
    let schema = r#"{"properties":{"region":{"type":"string","x-mcp-header":"Region"},
        "n":{"type":"integer","x-mcp-header":"N"},
        "deep":{"properties":{"on":{"type":"boolean","x-mcp-header":"on"}}}}}"#;
    let result = format!(r#"{{"tools":[{{"name":"a","inputSchema":{schema}}}]}}"#);
    let catalog = gathered(Listed::Tools, &[&result]);
    let Params::Known(params) = catalog.find("a").unwrap().params() else { panic!("invalid") };
    let whole = r#"{"region":"e\u00e9","n":42,"deep":{"on":true}}"#;
    let encoded = "=?base64?ZcOp?=";
    let good = [("region", encoded), ("n", "42"), ("on", "true")];
    let fields = |all: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
        all.iter().map(|(name, value)| (format!("mcp-param-{name}"), (*value).into())).collect()
    };
    let mut document = Document::new();
    let root = document.read(whole.as_bytes()).unwrap();
    assert_eq!(mirrored(params, Some(root), whole.as_bytes()), fields(&good));
    for (arguments, sent, agrees) in [
        (whole, &good[..], true),
        (whole, &[("region", encoded), ("n", "42.0"), ("on", "true"), ("other", "x")], true),
        (whole, &good[..2], false),
        (whole, &[("region", encoded), ("n", "43"), ("on", "true")], false),
        (whole, &[("region", encoded), ("n", "x"), ("on", "true")], false),
        (whole, &[("region", "e"), ("n", "42"), ("on", "true")], false),
        (whole, &[("region", encoded), ("n", "42"), ("on", "True")], false),
        (whole, &[("region", encoded), ("region", encoded), ("n", "42"), ("on", "true")], false),
        ("{}", &[], true),
        ("{}", &[("n", "42")], false),
        (r#"{"n":null,"deep":{}}"#, &[], true),
        (r#"{"n":null}"#, &[("n", "null")], false),
        (r#"{"n":9007199254740993}"#, &[("n", "9007199254740992")], false),
        (r#"{"n":9007199254740993}"#, &[("n", "9007199254740993")], true),
        (r#"{"n":1e2}"#, &[("n", "100")], true),
    ] {
        let root = document.read(arguments.as_bytes()).unwrap();
        let agreed = agree(params, Some(root), arguments.as_bytes(), &fields(sent));
        assert_eq!(agreed.is_ok(), agrees, "{arguments} {sent:?}");
    }
    assert_eq!(agree(params, None, b"", &[]), Ok(()));
}

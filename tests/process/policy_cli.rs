//! `explain`, `policy test` and `policy replay` as their users see them: lines, faults, exit codes.

use std::process::Command;

use serde_json::{Value, json};

use crate::gateway::{BINARY, Setup, Stage, api_key, server};
use crate::upstream::Upstream;

const POLICIES: &str = r#"@id("connect") permit (principal, action == Action::"connect", resource);
@id("session") permit (principal, action in [Action::"session", Action::"list"], resource);
@id("staff") @credential("key")
permit (principal in Group::"staff", action in Action::"use", resource in Server::"sample");
@id("no-deletes")
forbid (principal, action == Action::"tools/call", resource == Tool::"sample/delete")
unless { context.local.minute_of_day >= 540 && context.local.minute_of_day < 1020 };
@id("fresh") @max_age("600")
forbid (principal, action == Action::"tools/call", resource == Tool::"sample/pay")
unless { context has auth_time && context.auth_time >= context.now.offset(duration("-10m")) };
@id("broken")
forbid (principal, action == Action::"tools/call", resource == Tool::"sample/odd")
when { context.local.minute_of_day * 9000000000000000000 > 1 };
"#;
const SHADOW: &str = r#"@id("next") forbid (principal, action, resource == Tool::"sample/fork");
"#;

fn stage() -> Stage {
    let key = api_key("key", "[\"sample\"]", "header = \"X-Api-Key\"", "key.txt");
    let tables = server("sample", "http://127.0.0.1:9/mcp", "");
    let stage = Setup::with_tables(&format!("{tables}{key}")).policies(POLICIES).prepare();
    stage.write("key.txt", "secret-value");
    std::fs::create_dir_all(stage.path("policies/shadow")).unwrap();
    stage.write("policies/shadow/next.cedar", SHADOW);
    stage
}

/// Exit code, standard output, standard error.
pub(crate) fn run(stage: &Stage, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(BINARY).args(arguments).current_dir(stage.path("")).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn explain(stage: &Stage, more: &[&str]) -> (i32, String, String) {
    let at = ["--at", "2026-11-23T22:00:00Z"];
    let always = ["explain", "--config", "gateway.toml", "--agent", "cli"];
    run(stage, &[&always[..], &at, more].concat())
}

const ANN: [&str; 6] = ["--user", "ann", "--group", "staff", "--server", "sample"];

#[test]
fn explain_says_what_decides_and_where_it_is_written() {
    let stage = stage();
    let (code, said, _) = explain(&stage, &[&ANN[..], &["--name", "echo"]].concat());
    assert_eq!(code, 0, "{said}");
    let expected = [
        "decision: permit (ok)",
        r#"who: User::"ann" in Group::"staff", through Agent::"cli""#,
        "what: tools/call on Tool::\"sample/echo\", 2026-11-23T22:00:00+00:00 (weekday 1, \
         minute 1320, UTC), from 127.0.0.1",
        "connect: permit by connect (policies/all.cedar:1)",
        "permitted by: staff (policies/all.cedar:3)",
        "credential: key (api_key); not fetched",
        "in lists: shown",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    assert!(!said.contains("secret-value"));

    let (code, said, _) = explain(&stage, &[&ANN[..], &["--name", "delete"]].concat());
    assert_eq!(code, 1, "{said}");
    for line in ["decision: deny (forbidden)", "in lists: hidden, because it is forbidden"] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    assert!(said.contains("forbidden by: no-deletes (") && said.contains("all.cedar:5)"), "{said}");
    assert!(!said.contains("credential:"), "{said}");
    assert!(said.contains("would permit: staff (policies/all.cedar:3)"), "{said}");
    // By day: which part of which condition kept the forbid from holding.
    let always = ["explain", "--config", "gateway.toml", "--agent", "cli"];
    let by_day = ["--name", "delete", "--at", "2026-11-23T12:00:00Z"];
    let (code, said, _) = run(&stage, &[&always[..], &ANN, &by_day].concat());
    assert_eq!(code, 0, "{said}");
    let unmet = "did not hold: no-deletes (policies/all.cedar:7:10): \
                 context.local.minute_of_day >= 540 && context.local.minute_of_day < 1020 is true";
    assert!(said.lines().any(|line| line == unmet), "{said}");

    let (code, said, _) = explain(&stage, &[&ANN[..], &["--name", "pay"]].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("decision: step_up (insufficient_scope)"), "{said}");
    assert!(said.contains("step-up: a login within the last 600 s"), "{said}");
    let fresh = [&ANN[..], &["--name", "pay", "--auth-time", "2026-11-23T21:55:00Z"]].concat();
    assert_eq!(explain(&stage, &fresh).0, 0);

    let (code, said, _) = explain(&stage, &[&ANN[..], &["--name", "fork"]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("shadow: would deny by next (policies/shadow/next.cedar:1)"), "{said}");

    let (code, said, _) = explain(&stage, &[&ANN[..], &["--name", "odd"]].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("fails to evaluate, which denies: broken ("), "{said}");

    let future = [&ANN[..], &["--name", "echo", "--revision", "2031-01-01"]].concat();
    let (code, _, faults) = explain(&stage, &future);
    assert_eq!(code, 64, "{faults}");
    assert!(faults.contains("the gateway speaks 2024-11-05, 2025-03-26"), "{faults}");

    let stranger = ["--server", "sample", "--name", "echo"];
    let (code, said, _) = explain(&stage, &stranger);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("permitted by: nothing"), "{said}");

    let closed: Vec<&str> = POLICIES.lines().skip(1).collect();
    stage.write("policies/all.cedar", &closed.join("\n"));
    let (code, said, _) = explain(&stage, &[&ANN[..], &["--name", "echo"]].concat());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("connect: deny, because nothing permits it"), "{said}");
}

/// Arguments are read by the gateway's own reader: what it cannot hold, or refuses, is so here.
#[test]
fn explain_judges_arguments_as_the_gateway_does() {
    let stage = stage();
    std::fs::create_dir(stage.path("policies/schema.d")).unwrap();
    let schema = "@tool(\"sample/send\")\ntype Send = { amount: Long };\n";
    stage.write("policies/schema.d/sample.cedarschema", schema);
    let amount = r#"context.arguments["sample/send"]"#;
    let policy = format!(
        "@id(\"small\") forbid (principal, action, resource == Tool::\"sample/send\")\nunless {{ \
         context has arguments && context.arguments has \"sample/send\" && {amount} has amount \
         && {amount}.amount < 100 }};\n"
    );
    stage.write("policies/small.cedar", &policy);
    let table = [
        ("{\"amount\": 99, \"more\": [1.5]}", 0, "decision: permit (ok)"),
        ("{\"amount\": 100}", 1, "forbidden by: small (policies/small.cedar:1)"),
        ("{}", 1, "forbidden by: small"),
        ("{\"amount\": 1e1}", 1, "decision: deny (argument_unrepresentable)"),
        ("{\"amount\": 1, \"amount\": 2}", 64, ""),
        ("[1]", 64, ""),
    ];
    for (arguments, expected, line) in table {
        stage.write("a.json", arguments);
        let more = ["--name", "send", "--arguments", "a.json"];
        let (code, said, faults) = explain(&stage, &[&ANN[..], &more].concat());
        assert_eq!(code, expected, "{arguments}: {said}{faults}");
        assert!(said.contains(line), "{line}: {said}");
    }
    let case = "agent = \"cli\"\nserver = \"sample\"\nat = \"2026-11-23T12:00:00Z\"\n[[case]]\n\
                title = \"few\"\nuser = \"ann\"\ngroups = [\"staff\"]\nname = \"send\"\n\
                arguments = { amount = 5 }\nexpect = \"permit\"\n";
    stage.write("cases.toml", case);
    let test = ["policy", "test", "--config", "gateway.toml", "cases.toml"];
    let (code, said, faults) = run(&stage, &test);
    assert_eq!(code, 0, "{said}{faults}");
    stage.write("cases.toml", &case.replace("= 5 }", "= 500 }"));
    assert_eq!(run(&stage, &test).0, 1);
}

/// Where another machine decides nothing is answered here, least of all that all is denied.
#[test]
fn where_a_remote_point_decides_nothing_is_explained() {
    let stage = stage();
    let remote = "[policy.authzen]\nurl = \"http://127.0.0.1:9\"\ntrust_private_addresses = true";
    let told = stage.read("gateway.toml");
    let told = told.replace("[policy]\ndirectory = \"policies\"", remote);
    stage.write("gateway.toml", &told);
    stage.write("cases.toml", "");
    let test = ["policy", "test", "--config", "gateway.toml", "cases.toml"];
    let asked = [explain(&stage, &[&ANN[..], &["--name", "echo"]].concat()), run(&stage, &test)];
    for (code, said, faults) in asked {
        assert_eq!((code, said.as_str()), (1, ""), "{faults}");
        assert!(faults.contains("[policy.authzen] decides"), "{faults}");
    }
}

/// The country is that of the configuration's database, unless another is given.
#[test]
fn explain_looks_the_country_up_as_the_gateway_does() {
    let stage = stage();
    let database = crate::mmdb::encode(&[("198.51.100.0/24", &[("country", "DE")])]);
    std::fs::write(stage.path("countries.mmdb"), database).unwrap();
    let told = stage.read("gateway.toml");
    let told = told.replace("[policy]", "[policy]\ngeoip = \"countries.mmdb\"");
    stage.write("gateway.toml", &told);
    let rule = "@id(\"eu\") forbid (principal, action == Action::\"connect\", resource)\n\
                unless { context.source has country && context.source.country == \"DE\" };\n";
    stage.write("policies/eu.cedar", rule);
    let table: [(&[&str], i32, &str); 4] = [
        (&["--ip", "198.51.100.7"], 0, "from 198.51.100.7 in DE"),
        (&["--ip", "198.51.100.7", "--country", "US"], 1, "from 198.51.100.7 in US"),
        (&["--ip", "203.0.113.1"], 1, "from 203.0.113.1"),
        (&["--ip", "203.0.113.1", "--country", "DE"], 0, "from 203.0.113.1 in DE"),
    ];
    for (from, expected, end) in table {
        let (code, said, faults) = explain(&stage, &[&ANN[..], &["--name", "echo"], from].concat());
        assert_eq!(code, expected, "{said}{faults}");
        assert!(said.lines().any(|line| line.ends_with(end)), "{end}: {said}");
    }
}

/// What is printed lies in `schema.d` as it is, and a mistake is then a fault of `check`.
#[test]
fn policy_schema_prints_types_that_load() {
    let stage = stage();
    let answer = json!({"result": {"tools": [
        {"name": "echo", "inputSchema": {"properties": {"text": {"type": "string"}}}},
        {"name": "delete"}, {"name": "pay"}, {"name": "odd"}, {"name": "fork"},
    ]}});
    stage.write("tools.json", &answer.to_string());
    let always = ["policy", "schema", "--config", "gateway.toml", "--server", "sample"];
    let make = |tools: &str| run(&stage, &[&always[..], &["--tools", tools]].concat());
    let (code, said, faults) = make("tools.json");
    assert_eq!((code, faults.as_str()), (0, ""), "{said}");
    std::fs::create_dir(stage.path("policies/schema.d")).unwrap();
    stage.write("policies/schema.d/sample.cedarschema", &said);
    let check = || run(&stage, &["check", "--config", "gateway.toml"]);
    assert_eq!(check().0, 0, "{}", check().2);
    let mistaken = POLICIES.replace("sample/delete", "sample/delet");
    stage.write("policies/all.cedar", &mistaken);
    let (code, _, faults) = check();
    assert_eq!(code, 1);
    assert!(faults.contains("all.cedar:6:") && faults.contains("sample/delet"), "{faults}");
    stage.write("policies/all.cedar", POLICIES);
    let (code, said, faults) = make("gone.json");
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(faults.contains("gone.json: "), "{faults}");
}

#[test]
fn explain_refuses_what_no_client_could_ask() {
    let stage = stage();
    let table: [(&[&str], &str); 8] = [
        (&["--server", "other", "--name", "x"], "no server is called \"other\"; there are: sample"),
        (&["--server", "sample"], "tools/call needs a name"),
        (&["--name", "x"], "tools/call needs a server"),
        (&["--server", "sample", "--method", "tools/calls"], "no method is called"),
        (&["--server", "sample", "--method", "ping", "--name", "x"], "ping takes no name"),
        (&["--server", "sample", "--method", "connect"], "connect is asked of the gateway"),
        (&["--server", "sample", "--name", "x", "--at", "tonight"], "is no time"),
        (&["--server", "sample", "--name", "x", "--arguments", "gone.json"], "gone.json: "),
    ];
    for (more, words) in table {
        // The time of `explain` itself would be the second of two.
        let always = ["explain", "--config", "gateway.toml", "--agent", "cli", "--user", "ann"];
        let (code, said, faults) = run(&stage, &[&always[..], more].concat());
        assert_eq!(code, 64, "{more:?}: {said}{faults}");
        assert!(faults.contains(words), "{words}: {faults}");
        assert_eq!(said, "");
    }
    stage.write("policies/all.cedar", "@id(\"x\") permit (principal,");
    let (code, _, faults) = explain(&stage, &["--server", "sample", "--name", "x"]);
    assert_eq!(code, 1, "a fault in the policies is one as in check");
    assert!(faults.contains("all.cedar:1:"), "{faults}");
}

#[test]
fn policy_test_tells_each_case_that_does_not_hold() {
    let stage = stage();
    let head = "agent = \"cli\"\nserver = \"sample\"\nat = \"2026-11-23T22:00:00Z\"\n";
    let ann = "user = \"ann\"\ngroups = [\"staff\"]\n";
    let case = |title: &str, lines: &str| format!("[[case]]\ntitle = \"{title}\"\n{ann}{lines}\n");
    let good = [
        case("echo", "name = \"echo\"\nexpect = \"permit\"\ncredential = \"key\"\nshown = true"),
        case(
            "night",
            "name = \"delete\"\nexpect = \"deny\"\nreason = \"forbidden\"\nshown = false",
        ),
        case("day", "name = \"delete\"\nexpect = \"permit\"\nat = \"2026-11-23T12:00:00Z\""),
        case("stale", "name = \"pay\"\nexpect = \"step_up\"\npolicies = [\"fresh\"]"),
        case("fork", "name = \"fork\"\nexpect = \"permit\"\nwould_deny = [\"next\"]"),
        case("door", "method = \"connect\"\nexpect = \"permit\"\ncredential = \"none\""),
    ]
    .concat();
    let test = |text: &str| {
        stage.write("cases.toml", text);
        run(&stage, &["policy", "test", "--config", "gateway.toml", "cases.toml"])
    };
    let (code, said, faults) = test(&format!("{head}{good}"));
    assert_eq!((code, faults.as_str()), (0, ""), "{said}");
    assert_eq!(said.lines().last(), Some("6 of 6 cases hold"));
    assert_eq!(said.lines().filter(|line| line.starts_with("ok ")).count(), 6);

    // Each expectation that a case may have is seen to fail.
    let wrong: [(&str, &str); 7] = [
        (
            "name = \"delete\"\nexpect = \"permit\"",
            "expected permit, got deny (forbidden by no-del",
        ),
        ("name = \"pay\"\nexpect = \"deny\"", "expected deny, got step_up"),
        (
            "name = \"echo\"\nexpect = \"permit\"\nreason = \"no_permit\"",
            "expected reason no_permit",
        ),
        (
            "name = \"echo\"\nexpect = \"permit\"\npolicies = []",
            "expected policies [], got [\"staff",
        ),
        ("name = \"echo\"\nexpect = \"permit\"\ncredential = \"none\"", "expected credential none"),
        ("name = \"fork\"\nexpect = \"permit\"\nwould_deny = []", "expected would_deny []"),
        ("name = \"echo\"\nexpect = \"permit\"\nshown = false", "expected to be hidden, is shown"),
    ];
    for (lines, words) in wrong {
        let (code, said, _) = test(&format!("{head}{good}{}", case("wrong", lines)));
        assert_eq!(code, 1, "{lines}: {said}");
        assert!(said.contains(&format!("FAILED wrong: {words}")), "{words}: {said}");
        assert_eq!(said.lines().last(), Some("6 of 7 cases hold"));
    }
}

#[test]
fn a_fault_in_a_file_of_cases_has_its_place_and_nothing_is_asked() {
    let stage = stage();
    let head = "agent = \"cli\"\nserver = \"sample\"\nat = \"2026-11-23T22:00:00Z\"\n[[case]]\n";
    let table = [
        ("title = \"a\"\nname = \"x\"\nexpects = \"deny\"\n", "cases.toml:7:1: unknown field"),
        ("title = \"a\"\nname = \"x\"\nexpect = \"maybe\"\n", "cases.toml:7:10: unknown variant"),
        ("title = \"a\"\nexpect = \"deny\"\n", "cases.toml:4:1: tools/call needs a name"),
        (
            "title = \"a\"\nname = \"x\"\nat = \"now\"\nexpect = \"deny\"\n",
            "cases.toml:4:1: \"now\"",
        ),
        (
            "title = \"a\"\nname = \"x\"\nserver = \"y\"\nexpect = \"deny\"\n",
            "cases.toml:4:1: no serv",
        ),
        (
            "title = \"a\"\nname = \"x\"\ngroups = [\"g\"]\nexpect = \"deny\"\n",
            "cases.toml:4:1: groups",
        ),
    ];
    let test = |text: &str| {
        stage.write("cases.toml", text);
        run(&stage, &["policy", "test", "--config", "gateway.toml", "cases.toml"])
    };
    for (lines, words) in table {
        let (code, said, faults) = test(&format!("{head}{lines}"));
        assert_eq!((code, said.as_str()), (1, ""), "{lines}: {faults}");
        assert!(faults.contains(words), "{words}: {faults}");
    }
    for (text, words) in [("", "there is no [[case]]"), ("agent = \"x", "cases.toml:1:")] {
        let (code, said, faults) = test(text);
        assert_eq!((code, said.as_str()), (1, ""), "{faults}");
        assert!(faults.contains(words), "{words}: {faults}");
    }
    let timeless = head.replace("at = \"2026-11-23T22:00:00Z\"\n", "");
    let (code, _, faults) =
        test(&format!("{timeless}title = \"a\"\nname = \"x\"\nexpect = \"deny\"\n"));
    assert_eq!(code, 1);
    assert!(faults.contains("at is missing"), "{faults}");
}

/// What a gateway recorded is asked again, by the policies of then and by others.
#[test]
fn replay_tells_what_other_policies_would_have_decided_otherwise() {
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).policies(REPLAYED).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    for tool in ["echo", "drop", "never", "pay"] {
        assert_eq!(client.once(&client.call(tool)).status, 200);
    }
    client.once("GET /mcp/sample HTTP/1.1\r\nhost: gw.localhost\r\n\r\n");
    gateway.audited(5);
    let stage = gateway.stop();
    let replay = |policies: &str| {
        let always = ["policy", "replay", "--config", "gateway.toml", "--audit", "audit.jsonl"];
        run(&stage, &[&always[..], &["--policies", policies]].concat())
    };
    let (code, said, faults) = replay("policies");
    assert_eq!(code, 0, "{said}{faults}");
    let alike = "0 of 4 requests would be decided otherwise\n1 records of what no policy decided\n";
    assert_eq!(said, alike);

    // A forbid, a permit, and a condition on what no record holds.
    std::fs::create_dir(stage.path("next")).unwrap();
    let next = REPLAYED.replace("never", "drop");
    let scope = "@id(\"scope\") forbid (principal, action, resource == Tool::\"sample/pay\")\n\
                 unless { context.scopes.contains(\"pay\") };\n";
    stage.write("next/all.cedar", &format!("{next}{scope}"));
    let (code, said, _) = replay("next");
    assert_eq!(code, 1, "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let [first, second, totals, scopes, other] = lines[..] else { panic!("{said}") };
    // Two cores write when they do.
    let is_drop = first.contains("sample/drop");
    let (drop, never) = if is_drop { (first, second) } else { (second, first) };
    let end = " alice tools/call sample/drop: permit -> deny (forbidden by no (next/all.cedar:2))";
    assert!(drop.ends_with(end), "{drop}");
    let end = " alice tools/call sample/never: deny -> permit (ok by all (next/all.cedar:1))";
    assert!(never.ends_with(end), "{never}");
    assert_eq!(totals, "2 of 3 requests would be decided otherwise");
    assert_eq!(scopes, "1 not decidable: scopes are not recorded");
    assert_eq!(other, "1 records of what no policy decided");

    // Records that do not say enough, each for a reason of its own.
    let records = stage.audit();
    let permit = records.iter().find(|record| record["name"] == "echo").unwrap();
    let with = |key: &str, value: Value| {
        let mut record = permit.clone();
        record[key] = value;
        format!("{record}\n")
    };
    let long = "x".repeat(256);
    let lines = [
        with("groups", json!(["staff", "\u{2026} 3 more"])),
        with("name", json!(long)),
        with("server", json!("gone")),
        with("method", json!("completion/complete")),
        with("outcome", json!("opened")),
        format!("{}\n", "y".repeat(200_000)),
        "{\"half\": \n".to_owned(),
        with("user", json!("eve\u{1b}[2J")),
    ];
    stage.write("audit.jsonl", &lines.concat());
    let (code, said, _) = replay("policies");
    assert_eq!(code, 0, "{said}");
    let expected = [
        "0 of 1 requests would be decided otherwise",
        "2 not decidable: not a record",
        "1 not decidable: not all groups are recorded",
        "1 not decidable: the name is cut",
        "1 not decidable: the server is not configured any more",
        "1 not decidable: what it names is not recorded whole",
        "1 records of what no policy decided",
    ];
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
    // Not an audit file at all: that nothing would change says nothing.
    let saved = stage.read("audit.jsonl");
    stage.write("audit.jsonl", "{\"level\":\"INFO\"}\nlistening\n");
    let (code, said, faults) = replay("policies");
    assert_eq!((code, said.as_str()), (1, ""));
    assert!(faults.starts_with("audit.jsonl: no line of it is an audit record"), "{faults}");
    stage.write("audit.jsonl", "");
    assert_eq!(replay("policies").0, 0, "a file that was just rotated");
    stage.write("audit.jsonl", &saved);
    stage.write("next/all.cedar", &REPLAYED.replace("never", "echo"));
    let (_, said, _) = replay("next");
    assert!(said.contains("eve\u{fffd}[2J tools/call sample/echo: permit -> deny"), "{said}");
}

const REPLAYED: &str = r#"@id("all") permit (principal, action, resource);
@id("no") forbid (principal, action == Action::"tools/call", resource == Tool::"sample/never");
"#;

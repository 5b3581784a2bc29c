//! Policies with mistakes, from outside: at `check`, at the start, at a reload, and in a decision.

use std::fs;

use serde_json::json;

use crate::gateway::{PERMIT_ALL, Setup, Stage, api_key, server};
use crate::policy_cli::run;
use crate::upstream::Upstream;

/// What makes sound policies unsound.
enum Change {
    /// A file of policies beside those that are sound, by name and bytes.
    File(&'static str, &'static [u8]),
    /// A rule that asks for a country.
    Country,
    /// The same, with a database in `[policy]` that is not there.
    Geoip,
    /// The same, with a database that is none.
    Garbled,
    /// The policies are taken away.
    NoPolicies,
    /// Their directory, too.
    NoDirectory,
}

/// What is wrong, where, and what is told of it.
const FAULTS: &[(Change, &str, &str)] = &[
    (
        Change::File(
            "bad.cedar",
            b"@id(\"bad\") permit (principal, action, resource)\nwhen { context.colour == \"red\" };",
        ),
        "policies/bad.cedar:2:8: ",
        "attribute `colour` in context",
    ),
    (
        Change::File(
            "bad.cedar",
            b"@id(\"bad\") permit (principal, action, resource)\n\
              when { context.local.weekday == \"Monday\" };",
        ),
        "policies/bad.cedar:2:8: ",
        "the types Long and String are not compatible",
    ),
    (Change::File("bad.cedar", b"\n@id(\"bad\") permit (principal, action"), "policies/bad.cedar:2:1: ", "this policy never ends; end it with a semicolon"),
    (Change::File("bad.cedar", b"\n@id(\"bad\") permit (principal; action);"), "policies/bad.cedar:2:29: ", "unexpected token `;`"),
    (Change::File("bad.cedar", b"// \xff\xfe"), "policies/bad.cedar:1:1: ", "invalid utf-8 sequence"),
    (Change::Country, "policies/eu.cedar:2:29: ", "there is no database of countries; set policy.geoip"),
    (Change::Geoip, "gateway.toml:14:9: policy.geoip: ", "countries.mmdb\" is not a file"),
    (Change::Garbled, "[policy] geoip: ", "countries.mmdb is not a sound MaxMind database"),
    (Change::NoPolicies, "policies:1:1: ", "there is no policy in it, so that everything would be denied"),
    (Change::NoDirectory, "gateway.toml:14:13: policy.directory: ", "policies\" is not a folder"),
];

const COUNTRY: &str = "@id(\"eu\") forbid (principal, action, resource)\n\
                       unless { context.source has country && context.source.country == \"DE\" };\n";

impl Change {
    fn make(&self, stage: &Stage) {
        let geoip = || {
            let told = stage.read("gateway.toml");
            let told = told.replace("[policy]", "[policy]\ngeoip = \"countries.mmdb\"");
            stage.write("gateway.toml", &told);
        };
        match self {
            Self::File(name, bytes) => {
                fs::write(stage.path("policies").join(name), bytes).unwrap();
            }
            Self::Country => stage.write("policies/eu.cedar", COUNTRY),
            Self::Geoip => {
                stage.write("policies/eu.cedar", COUNTRY);
                geoip();
            }
            Self::Garbled => {
                stage.write("policies/eu.cedar", COUNTRY);
                stage.write("countries.mmdb", "no database");
                geoip();
            }
            Self::NoPolicies => fs::remove_file(stage.path("policies/all.cedar")).unwrap(),
            Self::NoDirectory => fs::remove_dir_all(stage.path("policies")).unwrap(),
        }
    }
}

/// Everything as it was.
fn mend(setup: &Setup, stage: &Stage) {
    let _ = fs::remove_dir_all(stage.path("policies"));
    let _ = fs::remove_file(stage.path("countries.mmdb"));
    fs::create_dir(stage.path("policies")).unwrap();
    stage.write("policies/all.cedar", PERMIT_ALL);
    stage.write("gateway.toml", &setup.configuration());
}

#[track_caller]
fn assert_told(faults: &str, place: &str, words: &str) {
    let of = |line: &&str| !line.starts_with("warning: ");
    let mut lines = faults.lines().filter(of);
    let told = lines.any(|line| line.contains(place) && line.contains(words));
    assert!(told, "no {place}{words} in:\n{faults}");
}

#[test]
fn each_mistake_has_its_place_and_nothing_starts_with_it() {
    let setup = Setup::new("127.0.0.1:9".parse().unwrap());
    let stage = setup.prepare();
    let (code, _, faults) = run(&stage, &["check", "--config", "gateway.toml"]);
    assert_eq!(code, 0, "{faults}");
    for (change, place, words) in FAULTS {
        change.make(&stage);
        for (command, refused) in [("check", 1), ("gateway", 78)] {
            let (code, said, faults) = run(&stage, &[command, "--config", "gateway.toml"]);
            assert_eq!((code, said.as_str()), (refused, ""), "{command}: {faults}");
            assert_told(&faults, place, words);
        }
        mend(&setup, &stage);
    }
}

#[test]
fn each_mistake_has_its_place_in_a_reload_and_the_old_policies_stay() {
    let upstream = Upstream::echo();
    let setup = Setup::new(upstream.address);
    let gateway = setup.start();
    gateway.wait_until_ready();
    let (stage, client) = (gateway.stage(), gateway.client());
    for (change, place, words) in FAULTS {
        // Each begins with a reload that went well, so that what is seen is of its own.
        let epoch = gateway.metric("portcullis_policy_epoch");
        change.make(stage);
        let before = gateway.said().len();
        gateway.reload();
        assert_told(&gateway.said()[before..], place, words);
        assert!(gateway.metric("portcullis_config_last_reload_successful") < 0.5, "{words}");
        assert!((gateway.metric("portcullis_policy_epoch") - epoch).abs() < 0.5, "{words}");
        assert!(client.once(&client.call("echo")).json()["result"].is_object(), "{words}");
        mend(&setup, stage);
        gateway.reload();
        assert!(gateway.metric("portcullis_config_last_reload_successful") > 0.5, "{words}");
    }
}

/// What fails to evaluate denies, whichever side it is on, and the record names it. What does not
/// look at it is decided as ever.
#[test]
fn a_policy_that_fails_to_evaluate_denies_and_names_itself() {
    let overflow = "context.local.minute_of_day * 9223372036854775807 + 9223372036854775807 > 0";
    let fails = |id: &str, effect: &str, tool: &str| {
        format!(
            "@id(\"{id}\") {effect} (principal, action == Action::\"tools/call\", \
             resource == Tool::\"sample/{tool}\")\nwhen {{ {overflow} }};\n"
        )
    };
    let policies = [
        "@id(\"door\") permit (principal, action == Action::\"connect\", resource);\n".to_owned(),
        "@id(\"all\") permit (principal, action, resource) unless { \
         resource == Tool::\"sample/grant\" };\n"
            .to_owned(),
        fails("torn-forbid", "forbid", "drop"),
        fails("torn-permit", "permit", "grant"),
    ];
    let upstream = Upstream::echo();
    let gateway = Setup::new(upstream.address).policies(&policies.concat()).start();
    gateway.wait_until_ready();
    let client = gateway.client();
    // Twice: the second is decided from the cache of its core, or on another core.
    for tool in ["drop", "grant", "echo", "drop", "grant", "echo"] {
        let answer = client.once(&client.call(tool)).json();
        assert_eq!(answer["error"]["code"] == 1403, tool != "echo", "{answer}");
        assert!(!answer.to_string().contains("torn"), "the agent is not told: {answer}");
    }
    assert_eq!(upstream.requests(), 2);
    for record in gateway.audited(6) {
        let named = match record["name"].as_str() {
            Some("drop") => ("deny", json!(["torn-forbid"])),
            Some("grant") => ("deny", json!(["torn-permit"])),
            _ => ("permit", json!(["all"])),
        };
        assert_eq!((record["decision"].as_str().unwrap(), record["policy"].clone()), named);
    }
}

/// Two permits that choose different credentials: refused, both are named, and the server hears
/// nothing.
#[test]
fn two_credentials_for_one_call_are_refused_and_both_permits_named() {
    let upstream = Upstream::echo();
    let key = |name: &str| api_key(name, "[\"sample\"]", "header = \"X-Api-Key\"", "key.txt");
    let tables = server("sample", &format!("http://{}/mcp", upstream.address), "");
    let policies = "@id(\"door\") permit (principal, action == Action::\"connect\", resource);\n\
         @id(\"as-bot\") @credential(\"bot\") permit (principal, action, \
         resource in Server::\"sample\");\n\
         @id(\"as-user\") @credential(\"user\") permit (principal, action, \
         resource == Tool::\"sample/pay\");\n";
    let setup = Setup::with_tables(&[tables, key("bot"), key("user")].concat()).policies(policies);
    let stage = setup.prepare();
    stage.write("key.txt", "key-of-the-server");
    let gateway = setup.start_on(stage);
    gateway.wait_until_ready();
    let client = gateway.client();
    assert_eq!(client.once(&client.call("echo")).status, 200);
    let refused = client.once(&client.call("pay"));
    assert_eq!((refused.status, refused.reason().as_str()), (403, "credential_ambiguous"));
    assert_eq!(upstream.requests(), 1);
    let records = gateway.audited(2);
    let of = |tool: &str| records.iter().find(|record| record["name"] == tool).unwrap();
    assert_eq!(of("echo")["credential"]["provider"], "bot");
    let pay = of("pay");
    assert_eq!(
        (pay["decision"].as_str(), pay["reason"].as_str()),
        (Some("deny"), Some("credential_ambiguous"))
    );
    let mut named: Vec<&str> =
        pay["policy"].as_array().unwrap().iter().filter_map(|id| id.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, ["as-bot", "as-user"], "{pay}");
}

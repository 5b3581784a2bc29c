//! The country of a client, where a policy asks for it, and the database that knows.

use std::fs;
use std::net::Ipv4Addr;

use serde_json::Value;

use super::client::{come_from, text};
use super::gateway::{DRIVERS, Gateway, until};
use super::source::{PROXY, count, one_record, start};
use super::table::Post;

/// A policy on countries, with a database of our own, behind a proxy that says who asks.
#[test]
fn a_policy_may_ask_for_the_country_of_the_client() {
    const COUNTRIES: &str = "@id(\"only-from-de\")\nforbid (principal, action == Action::\"tools/call\", \
                             resource) unless { context.source has country && \
                             context.source.country == \"DE\" };\n";
    let database = super::mmdb::encode(&[
        ("203.0.113.0/24", &[("country", "DE")]),
        ("198.51.100.0/24", &[("country", "US")]),
        ("192.0.2.0/24", &[("registered_country", "DE")]),
    ]);
    for driver in DRIVERS {
        let gateway = start(driver, "forwarded", |directory| {
            fs::write(directory.join("policies/countries.cedar"), COUNTRIES).unwrap();
            fs::write(directory.join("countries.mmdb"), &database).unwrap();
            let path = directory.join("gateway.toml");
            let toml = fs::read_to_string(&path).unwrap();
            let keys = "[policy]\ngeoip = \"countries.mmdb\"";
            fs::write(path, toml.replace("[policy]", keys)).unwrap();
        });
        come_from(PROXY);
        let from = |client: &str| {
            let post = Post::new(&gateway).field(&format!("Forwarded: for=\"{client}\""));
            gateway.ask(&post.bytes())
        };
        let allowed = |client: &str| {
            let answer = from(client);
            match answer.json().pointer("/error/code").and_then(Value::as_i64) {
                Some(1403) => false,
                None if answer.status == 200 => true,
                _ => panic!("neither permitted nor denied: {answer:?}"),
            }
        };
        let mut asked = 0;
        until("keys are there", || {
            asked += 1;
            from("203.0.113.9").status == 200
        });
        until("their records", || count(&gateway) == asked);
        for (client, country) in [
            ("203.0.113.9", Some("DE")),
            ("[::ffff:203.0.113.9]", Some("DE")),
            ("198.51.100.9", Some("US")),
            ("192.0.2.9", None),
            ("[2001:db8::1]", None),
        ] {
            let before = count(&gateway);
            assert_eq!(allowed(client), country == Some("DE"), "{client} on {driver:?}");
            let record = one_record(&gateway, before);
            assert_eq!(record.get("country").and_then(Value::as_str), country, "{record}");
        }
        // A torn file changes nothing; another one counts from the next request on.
        let path = gateway.directory.join("countries.mmdb");
        fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
        for (bytes, taken) in [
            (database[..database.len() - 1].to_vec(), false),
            (super::mmdb::encode(&[("198.51.100.0/24", &[("country", "DE")])]), true),
        ] {
            fs::write(&path, bytes).unwrap();
            reload(&gateway, taken);
            assert_eq!(allowed("203.0.113.9"), !taken, "on {driver:?}");
            assert_eq!(allowed("198.51.100.9"), taken, "on {driver:?}");
        }
        come_from(Ipv4Addr::LOCALHOST);
    }
}

/// No IPv6 client has a country then, whatever a policy forbids to countries: told by `check`, at
/// the start and at each reload.
#[test]
fn a_database_of_ipv4_alone_is_worth_a_warning() {
    let tell = "countries.mmdb is of IPv4 alone: no IPv6 client has a country";
    // The tree of IPv4 begins with its first bit: these are those of 203.0.113.0/24.
    let both = super::mmdb::encode(&[("cb00:7100::/24", &[("country", "DE")])]);
    let mut alone = both.clone();
    super::mmdb::make_ipv4(&mut alone);
    let driver = DRIVERS[0];
    let gateway = Gateway::start_with(driver, "", |directory| {
        fs::write(directory.join("countries.mmdb"), &alone).unwrap();
        let path = directory.join("gateway.toml");
        let toml = fs::read_to_string(&path).unwrap();
        fs::write(path, toml.replace("[policy]", "[policy]\ngeoip = \"countries.mmdb\"")).unwrap();
    });
    let told = || gateway.stderr().matches(tell).count();
    assert_eq!(told(), 1, "at the start: {}", gateway.stderr());
    let path = gateway.directory.join("countries.mmdb");
    fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_portcullis"));
        command.args(["check", "--config"]).arg(gateway.directory.join("gateway.toml"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr).matches(tell).count()
    };
    assert_eq!(check(), 1);
    // A refused one between them, so that neither value is from before.
    fs::write(&path, "torn").unwrap();
    reload(&gateway, false);
    fs::write(&path, &alone).unwrap();
    reload(&gateway, true);
    until("it is told again", || told() == 2);
    fs::write(&path, "torn").unwrap();
    reload(&gateway, false);
    fs::write(&path, &both).unwrap();
    reload(&gateway, true);
    assert_eq!((told(), check()), (2, 0), "nothing to warn of: {}", gateway.stderr());
}

fn reload(gateway: &Gateway, taken: bool) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    let line = format!("\nportcullis_config_last_reload_successful {}\n", u8::from(taken));
    // The first is refused and the second taken, so neither value is from before.
    until("the reload is over", || text(&gateway.page("/metrics").body).contains(&line));
}

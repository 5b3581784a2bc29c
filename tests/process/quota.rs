//! Rate limits over several cores: those that each counts for itself, and those that all count
//! together, also over reloads.

use std::collections::BTreeSet;

use crate::client::Client;
use crate::gateway::{Gateway, Setup, server};
use crate::upstream::Upstream;
use crate::wait::eventually;

const GRANTED: usize = 6;

/// A day for each request, so that nothing is granted anew while a test runs.
fn limit(name: &str, server: &str, more: &str) -> String {
    format!(
        "[[rate_limit]]\nname = \"{name}\"\nper = [\"user\"]\nserver = \"{server}\"\n\
         requests = {GRANTED}\nseconds = 86400\n{more}\n"
    )
}

fn servers(upstream: &Upstream) -> String {
    let url = format!("http://{}/mcp", upstream.address);
    ["shared", "own", "free"].map(|name| server(name, &url, "")).concat()
}

/// True when a call on a connection of its own is granted; a refusal is as it must be.
fn granted(client: &Client) -> bool {
    let answer = client.once(&client.call("echo"));
    if answer.status == 200 {
        return true;
    }
    assert_eq!((answer.status, &*answer.reason()), (429, "quota"), "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    // A seventh of them was granted so long ago at most.
    assert!((14_000..=14_400).contains(&seconds), "{seconds}");
    false
}

/// Asks until every core refused something; how many were granted.
fn used_up(gateway: &Gateway, client: &Client, server: &str, workers: usize) -> usize {
    let mut count = 0;
    eventually("every core has refused a call", || {
        count += usize::from(granted(client));
        let records = gateway.stage().audit();
        let refused = records.iter().filter(|it| it["reason"] == "quota" && it["server"] == server);
        let cores: BTreeSet<u64> = refused.filter_map(|it| it["core"].as_u64()).collect();
        cores.len() == workers
    });
    count
}

/// On how many cores it serves, by its own words.
pub(crate) fn workers(gateway: &Gateway) -> usize {
    let said = gateway.said();
    let words = said.split(" with ").nth(1).unwrap();
    words.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn all_cores_together_grant_an_exact_limit_once_and_each_of_them_any_other() {
    let upstream = Upstream::echo();
    let limits = limit("all", "shared", "exact = true") + &limit("each", "own", "");
    let gateway = Setup::with_tables(&(servers(&upstream) + &limits)).start();
    gateway.wait_until_ready();
    let workers = workers(&gateway);
    let client = gateway.client();
    let (shared, own) = (client.path("/mcp/shared"), client.path("/mcp/own"));
    assert_eq!(used_up(&gateway, &shared, "shared", workers), GRANTED);
    assert_eq!(used_up(&gateway, &own, "own", workers), workers * GRANTED);
    assert!(granted(&client.path("/mcp/free")), "which no limit covers");
    let records = gateway.stage().audit();
    let refused: Vec<_> = records.iter().filter(|it| it["reason"] == "quota").collect();
    assert!(
        refused
            .iter()
            .all(|it| { it["limit"] == if it["server"] == "shared" { "all" } else { "each" } })
    );
    // Somebody else has used up nothing.
    let bob = Client::new(gateway.address, &gateway.stage().token("bob", 600));
    assert!(granted(&bob.path("/mcp/shared")));
}

#[test]
fn a_reload_gives_nobody_a_new_burst_of_an_exact_limit() {
    let upstream = Upstream::echo();
    let without = Setup::with_tables(&servers(&upstream));
    let limits = limit("all", "shared", "exact = true");
    let with = Setup::with_tables(&(servers(&upstream) + &limits));
    let gateway = without.start();
    gateway.wait_until_ready();
    let workers = workers(&gateway);
    let client = gateway.client().path("/mcp/shared");
    let reload = |setup: &Setup| {
        gateway.stage().write("gateway.toml", &setup.configuration());
        gateway.reload();
        assert!(!gateway.said().contains("reload refused"), "{}", gateway.said());
        gateway.wait_until_ready();
    };
    assert!((0..=GRANTED).all(|_| granted(&client)), "no limit yet");
    reload(&with);
    assert_eq!(used_up(&gateway, &client, "shared", workers), GRANTED);
    reload(&with);
    assert!(!(0..8).any(|_| granted(&client)), "an equal limit counts on");
    reload(&without);
    assert!((0..=GRANTED).all(|_| granted(&client)), "the limit is gone");
    reload(&with);
    assert!(!(0..8).any(|_| granted(&client)), "and is back, as it was");
}

//! What 1,000 policies cost; the numbers are printed, the bounds are wide.

use std::fmt::Write;

use super::*;
use crate::clock::Clock;

#[test]
fn a_thousand_policies_load_and_decide() {
    let mut text = String::new();
    for at in 0..1000 {
        let server = SERVERS[at % 2];
        let condition = if at % 3 == 0 { "when { context.scopes.contains(\"read\") }" } else { "" };
        writeln!(
            text,
            "@id(\"p{at}\") permit (principal in Group::\"g{}\", action == Action::\"tools/call\", \
             resource == Tool::\"{server}/t{at}\") {condition};",
            at % 50
        )
        .unwrap();
    }
    let clock = Clock::start();
    let before = clock.monotonic();
    let set = set(&text);
    let loaded = clock.monotonic();
    let who = Who { groups: vec!["g0".to_owned()], ..alice() };
    let mut allowed = 0;
    for at in 0..1000 {
        let name = format!("t{at}");
        let on = (SERVERS[at % 2], QTarget::Tool(&name));
        allowed += usize::from(decide(&set, &who, "tools/call", on).allow);
    }
    let decided = clock.monotonic();
    println!(
        "1,000 policies: load {} µs, 1,000 decisions {} µs",
        loaded.micros_since(before),
        decided.micros_since(loaded)
    );
    assert_eq!((set.len(), allowed), (1000, 20));
}

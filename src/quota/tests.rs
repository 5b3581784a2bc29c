mod exact;

use super::*;
use crate::config::Per;

fn limit(per: Per, requests: u64, seconds: u64, burst: u64) -> RateLimit {
    RateLimit {
        name: "a".to_owned(),
        per,
        server: None,
        tool: None,
        requests,
        seconds,
        burst,
        exact: false,
    }
}

fn fresh(callers: usize) -> Quota {
    Quota::new(callers, Exact::of(&[]))
}

const USER: Per = Per { user: true, agent: false, server: false, tool: false };
const TOOL: Per = Per { user: false, agent: false, server: false, tool: true };

fn ann() -> Asker<'static> {
    Asker { user: Some("ann"), agent: "claude", server: "github", tool: Some("get") }
}

fn at(millis: u64) -> Monotonic {
    Monotonic(1_000_000_000 + millis * 1_000)
}

#[test]
fn a_burst_passes_then_the_rate() {
    let (quota, limits) = (fresh(64), [limit(USER, 60, 60, 3)]);
    let ask = |millis| quota.admit(&limits, &ann(), at(millis));
    for _ in 0..3 {
        assert_eq!(ask(0), Ok(()));
    }
    assert_eq!(ask(0), Err(Exceeded { limit: 0, retry_after_seconds: 1 }));
    assert_eq!(ask(999), Err(Exceeded { limit: 0, retry_after_seconds: 1 }), "refusals are free");
    assert_eq!(ask(1_000), Ok(()));
    assert!(ask(1_001).is_err());
    assert_eq!(ask(60_000), Ok(()), "idle time counts up to the burst");
    assert_eq!((ask(60_000), ask(60_000)), (Ok(()), Ok(())));
    assert!(ask(60_000).is_err());
}

/// As the manual says of the default: up to a burst more, once.
#[test]
fn the_first_minute_grants_nearly_twice_the_rate_and_the_next_ones_once() {
    let (quota, limits) = (fresh(64), [limit(USER, 60, 60, 60)]);
    let mut granted = [0; 3];
    for millis in (0..180_000).step_by(100) {
        for _ in 0..60 {
            granted[millis as usize / 60_000] +=
                u32::from(quota.admit(&limits, &ann(), at(millis)).is_ok());
        }
    }
    assert_eq!(granted, [119, 60, 60]);
    let (quota, limits) = (fresh(64), [limit(USER, 60, 60, 1)]);
    assert!(quota.admit(&limits, &ann(), at(0)).is_ok());
    assert!(quota.admit(&limits, &ann(), at(999)).is_err());
}

#[test]
fn retry_after_is_when_it_would_pass() {
    let (quota, limits) = (fresh(64), [limit(USER, 1, 3_600, 1)]);
    quota.admit(&limits, &ann(), at(0)).unwrap();
    let refused = quota.admit(&limits, &ann(), at(500)).unwrap_err();
    assert_eq!(refused.retry_after_seconds, 3_600, "rounded up");
    assert!(quota.admit(&limits, &ann(), at(3_599_999)).is_err());
    assert!(quota.admit(&limits, &ann(), at(3_600_000)).is_ok());
}

#[test]
fn callers_are_counted_apart_as_the_limit_says() {
    let bob = Asker { user: Some("bob"), ..ann() };
    let other_agent = Asker { agent: "cursor", ..ann() };
    let other_server = Asker { server: "jira", ..ann() };
    let other_tool = Asker { tool: Some("put"), ..ann() };
    let robot = Asker { user: None, agent: "ann", ..ann() };
    let each = |per: Per| {
        let (quota, limits) = (fresh(64), [limit(per, 1, 60, 1)]);
        quota.admit(&limits, &ann(), at(0)).unwrap();
        assert!(quota.admit(&limits, &ann(), at(0)).is_err());
        [bob, other_agent, other_server, other_tool, robot]
            .map(|asker| quota.admit(&limits, &asker, at(0)).is_ok())
    };
    assert_eq!(each(USER), [true, false, false, false, true]);
    assert_eq!(each(TOOL), [false, false, true, true, false]);
    let agent = Per { agent: true, ..Per::default() };
    assert_eq!(each(agent), [false, true, false, false, true]);
    let server = Per { server: true, ..Per::default() };
    assert_eq!(each(server), [false, false, true, false, false]);
    assert_eq!(each(Per { user: true, ..TOOL }), [true, false, true, true, true]);
}

#[test]
fn a_limit_covers_its_server_and_tool_only() {
    let quota = fresh(64);
    let limits = [RateLimit {
        server: Some("github".to_owned()),
        tool: Some("get".to_owned()),
        ..limit(USER, 1, 60, 1)
    }];
    quota.admit(&limits, &ann(), at(0)).unwrap();
    assert!(quota.admit(&limits, &ann(), at(0)).is_err());
    for other in [
        Asker { tool: Some("put"), ..ann() },
        Asker { tool: None, ..ann() },
        Asker { server: "jira", ..ann() },
    ] {
        for _ in 0..3 {
            assert!(quota.admit(&limits, &other, at(0)).is_ok(), "{other:?}");
        }
    }
    let listing = Asker { tool: None, ..ann() };
    for _ in 0..3 {
        assert!(quota.admit(&[limit(TOOL, 1, 60, 1)], &listing, at(0)).is_ok(), "no tool");
    }
}

#[test]
fn all_limits_must_grant_and_none_is_charged_when_one_refuses() {
    let quota = fresh(64);
    let second = RateLimit { name: "b".to_owned(), ..limit(TOOL, 10, 60, 10) };
    let limits = [limit(USER, 1, 10, 1), second];
    quota.admit(&limits, &ann(), at(0)).unwrap();
    for _ in 0..20 {
        assert_eq!(quota.admit(&limits, &ann(), at(1)).unwrap_err().limit, 0);
    }
    for granted in 0..9 {
        let bob = format!("bob{granted}");
        let bob = Asker { user: Some(&bob), ..ann() };
        assert!(quota.admit(&limits, &bob, at(1)).is_ok(), "{granted}");
    }
    let last = Asker { user: Some("carol"), ..ann() };
    assert_eq!(quota.admit(&limits, &last, at(1)).unwrap_err().limit, 1);
}

#[test]
fn a_changed_limit_counts_anew_and_an_equal_one_goes_on() {
    let quota = fresh(64);
    quota.admit(&[limit(USER, 1, 60, 1)], &ann(), at(0)).unwrap();
    assert!(quota.admit(&[limit(USER, 1, 60, 1)], &ann(), at(0)).is_err());
    assert!(quota.admit(&[limit(USER, 2, 60, 1)], &ann(), at(0)).is_ok());
    assert!(quota.admit(&[], &ann(), at(0)).is_ok());
}

/// Whoever owes more stays: a crowd of newcomers does not forgive a heavy caller.
#[test]
fn newcomers_do_not_push_out_who_owes_most() {
    let (quota, limits) = (fresh(WAYS), [limit(USER, 1_000, 1_000, 1_000)]);
    for _ in 0..1_000 {
        quota.admit(&limits, &ann(), at(0)).unwrap();
    }
    for number in 0..1_000 {
        let name = format!("made-up-{number}");
        quota.admit(&limits, &Asker { user: Some(&name), ..ann() }, at(0)).unwrap();
    }
    assert!(quota.admit(&limits, &ann(), at(0)).is_err());
}

/// A debt counts in requests of its own limit: names made up under a slow one, of which each owes a
/// day, do not forgive who has used up a fast one.
#[test]
fn newcomers_of_a_slow_limit_do_not_push_out_who_used_up_a_fast_one() {
    let quota = fresh(WAYS);
    let fast = RateLimit { server: Some("github".to_owned()), ..limit(USER, 100, 100, 100) };
    let limits = [fast, limit(TOOL, 1, 86_400, 1)];
    let listing = Asker { tool: None, ..ann() };
    for _ in 0..100 {
        quota.admit(&limits, &listing, at(0)).unwrap();
    }
    let refused = quota.admit(&limits, &listing, at(0));
    assert_eq!(refused, Err(Exceeded { limit: 0, retry_after_seconds: 1 }));
    for number in 0..1_000 {
        let tool = format!("made-up-{number}");
        let bob = Asker { user: Some("bob"), server: "jira", tool: Some(&tool), ..ann() };
        quota.admit(&limits, &bob, at(0)).unwrap();
    }
    assert_eq!(quota.admit(&limits, &listing, at(0)), refused);
    // What is paid by now is no debt: half of it is left.
    for number in 0..1_000 {
        let tool = format!("later-{number}");
        let bob = Asker { user: Some("bob"), server: "jira", tool: Some(&tool), ..ann() };
        quota.admit(&limits, &bob, at(50_000)).unwrap();
    }
    for _ in 0..50 {
        quota.admit(&limits, &listing, at(50_000)).unwrap();
    }
    assert!(quota.admit(&limits, &listing, at(50_000)).is_err());
}

/// The other way round: who used up a slow limit stays, although requests of a fast one come often.
#[test]
fn newcomers_of_a_fast_limit_do_not_push_out_who_used_up_a_slow_one() {
    let quota = fresh(WAYS);
    let slow = RateLimit { server: Some("github".to_owned()), ..limit(USER, 10, 86_400, 10) };
    let limits = [slow, limit(TOOL, 1_000, 1, 1_000)];
    let listing = Asker { tool: None, ..ann() };
    for _ in 0..10 {
        quota.admit(&limits, &listing, at(0)).unwrap();
    }
    for number in 0..1_000 {
        let tool = format!("made-up-{number}");
        let bob = Asker { user: Some("bob"), server: "jira", tool: Some(&tool), ..ann() };
        quota.admit(&limits, &bob, at(0)).unwrap();
    }
    assert!(quota.admit(&limits, &listing, at(0)).is_err());
}

/// A request of the fastest limits costs no part of a nanosecond: it is rounded up.
#[test]
fn a_rate_that_does_not_divide_a_second_is_rounded_against_the_caller() {
    for (requests, passing) in [(700_000_000, 500), (999_999, 0), (1_000_000_000, 1_000)] {
        let (quota, limits) = (fresh(64), [limit(USER, requests, 1, 1_000)]);
        let ask = |micros: u64| quota.admit(&limits, &ann(), Monotonic(micros)).is_ok();
        assert_eq!((0..2_000).filter(|_| ask(0)).count(), 1_000);
        assert_eq!((0..2_000).filter(|_| ask(1)).count(), passing, "{requests} per second");
    }
}

#[test]
fn the_largest_and_smallest_limits_hold() {
    let most = limit(USER, 1_000_000_000, 1, 1_000_000_000);
    let (quota, least) = (fresh(64), limit(USER, 1, 86_400, 1));
    assert!(quota.admit(&[most, least], &ann(), Monotonic(0)).is_ok());
    let least = limit(USER, 1, 86_400, 1);
    let refused = quota.admit(&[least], &ann(), Monotonic(0)).unwrap_err();
    assert_eq!(refused.retry_after_seconds, 86_400);
}

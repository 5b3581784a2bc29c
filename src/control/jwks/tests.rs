use super::*;
use crate::judge::testing::{TestKey, jwks, with};
use serde_json::json;

fn at(seconds: u64) -> Monotonic {
    Monotonic(seconds * 1_000_000)
}

fn document(kid: &str) -> Vec<u8> {
    jwks(&[with(&TestKey::ed().jwk(), json!({"kid": kid}))])
}

fn answer(document: &[u8], max_age: Option<u64>) -> Result<Fetched, FetchFault> {
    Ok(Fetched { document: document.to_vec(), max_age })
}

/// A refresher that fetched `document` at second 0.
fn loaded(document: &[u8], max_age: Option<u64>) -> Refresher {
    let mut refresher = Refresher::new(at(0));
    assert_eq!(refresher.poll(at(0)), Next::Fetch);
    assert_eq!(refresher.fetched(at(0), answer(document, max_age)), Outcome::Replaced);
    refresher
}

#[test]
fn f02_no_keys_at_the_start_and_back_off_until_there_are() {
    let mut refresher = Refresher::new(at(0));
    let mut now = at(0);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        assert_eq!(refresher.poll(now), Next::Fetch);
        assert_eq!(refresher.poll(now), Next::UnderWay);
        let outcome = refresher.fetched(now, Err(FetchFault::Unreachable));
        assert_eq!(outcome, Outcome::Kept(FetchFault::Unreachable));
        assert!(refresher.snapshot(now).usable(now).is_none());
        let Next::At(next) = refresher.poll(now) else { panic!("no pause") };
        pauses.push(next.micros_since(now) / 1_000_000);
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(refresher.poll(now), Next::Fetch);
    assert_eq!(refresher.fetched(now, answer(&document("a"), None)), Outcome::Replaced);
    assert!(refresher.snapshot(now).usable(now).is_some());
}

#[test]
fn freshness_is_clamped() {
    for (max_age, fresh) in [
        (None, 300),
        (Some(0), 60),
        (Some(59), 60),
        (Some(600), 600),
        (Some(86_400), 3_600),
        (Some(u64::MAX), 3_600),
    ] {
        let mut refresher = loaded(&document("a"), max_age);
        assert_eq!(refresher.poll(at(1)), Next::At(at(fresh)), "{max_age:?}");
        assert_eq!(refresher.poll(at(fresh)), Next::Fetch);
    }
}

#[test]
fn f03_stale_keys_serve_for_an_hour_and_no_longer() {
    let mut refresher = loaded(&document("a"), Some(600));
    let last = 600 + JWKS_STALE_SECONDS_MAX;
    let mut now = at(600);
    let mut fetches = 0;
    while now < at(last + 100) {
        match refresher.poll(now) {
            Next::Fetch => {
                fetches += 1;
                refresher.fetched(now, Err(FetchFault::Timeout));
            }
            Next::At(next) => now = next,
            Next::UnderWay => panic!("a fetch that never ends"),
        }
        let keys = refresher.snapshot(now);
        assert_eq!(keys.usable(now).is_some(), now < at(last), "{now:?}");
        assert_eq!(keys.generation(), 1);
    }
    assert!(fetches > 100, "{fetches}");
    // A snapshot that nobody renews ends by itself: the control thread may be gone.
    let left_alone = loaded(&document("a"), Some(600)).snapshot(at(0));
    assert!(left_alone.usable(at(last - 1)).is_some());
    assert!(left_alone.usable(at(last)).is_none());
}

#[test]
fn f04_f05_a_bad_document_never_replaces_a_good_one() {
    let good = document("a");
    let mut refresher = loaded(&good, None);
    let oct = jwks(&[json!({"kty": "oct", "k": "AAAA"})]);
    let many = jwks(&vec![json!({}); 10_000]);
    let huge = vec![b' '; 100_000];
    let mut now = at(300);
    for bad in [jwks(&[]), oct, many, huge, b"<html>".to_vec(), Vec::new()] {
        assert_eq!(refresher.poll(now), Next::Fetch);
        assert!(matches!(
            refresher.fetched(now, answer(&bad, Some(3_600))),
            Outcome::Kept(FetchFault::Keys(_))
        ));
        let keys = refresher.snapshot(now);
        assert_eq!((keys.generation(), keys.fetched_at()), (1, at(0)));
        assert!(keys.usable(now).is_some());
        now = now.after(seconds(60));
    }
    // A bad answer does not lengthen the good one's life.
    assert!(refresher.snapshot(now).usable(at(300 + JWKS_STALE_SECONDS_MAX)).is_none());
}

#[test]
fn the_generation_changes_with_the_content_only() {
    let (one, two) = (document("a"), document("b"));
    let mut refresher = loaded(&one, None);
    let mut step = |now, document: &[u8]| {
        assert_eq!(refresher.poll(now), Next::Fetch);
        let outcome = refresher.fetched(now, answer(document, None));
        (outcome, refresher.snapshot(now).generation())
    };
    assert_eq!(step(at(300), &one), (Outcome::Renewed, 1));
    assert_eq!(step(at(600), &two), (Outcome::Replaced, 2));
    assert_eq!(step(at(900), &one), (Outcome::Replaced, 3));
}

#[test]
fn freshness_counts_from_the_start_of_a_fetch() {
    let mut refresher = Refresher::new(at(0));
    assert_eq!(refresher.poll(at(0)), Next::Fetch);
    refresher.fetched(at(3), answer(&document("a"), Some(60)));
    assert_eq!(refresher.snapshot(at(3)).fetched_at(), at(0));
    assert_eq!(refresher.poll(at(3)), Next::At(at(60)));
}

#[test]
fn t06_ten_thousand_made_up_ids_cost_a_burst() {
    let good = document("a");
    let mut refresher = loaded(&good, Some(3_600));
    // All within 29 seconds: the burst and nothing more.
    let (mut fetches, mut throttled) = (0, 0);
    for id in 0..10_000_u64 {
        let now = Monotonic(at(40).0 + id * 2_900);
        match refresher.asked(now) {
            Asked::Fetch => {
                fetches += 1;
                assert_eq!(refresher.asked(now), Asked::Joined);
                assert_eq!(refresher.fetched(now, answer(&good, None)), Outcome::Renewed);
            }
            Asked::Throttled => throttled += 1,
            Asked::Joined => panic!("nothing is under way"),
        }
    }
    assert_eq!((fetches, throttled), (JWKS_REFETCH_BURST, 10_000 - JWKS_REFETCH_BURST));
    // One more per half minute, and never more than the burst saved up.
    assert_eq!(refresher.asked(at(70)), Asked::Fetch);
    refresher.fetched(at(70), answer(&good, None));
    assert_eq!(refresher.asked(at(99)), Asked::Throttled);
    assert_eq!(refresher.asked(at(100)), Asked::Fetch);
    refresher.fetched(at(100), answer(&good, None));
    let mut later = 0;
    while refresher.asked(at(100_000)) == Asked::Fetch {
        refresher.fetched(at(100_000), answer(&good, None));
        later += 1;
    }
    assert_eq!(later, JWKS_REFETCH_BURST);
}

#[test]
fn t06_over_hours_the_rate_holds() {
    let good = document("a");
    let mut refresher = loaded(&good, Some(3_600));
    let mut fetches = 0;
    for tick in 0..100_000_u64 {
        let now = Monotonic(at(40).0 + tick * 36_000);
        if refresher.asked(now) == Asked::Fetch {
            fetches += 1;
            refresher.fetched(now, answer(&good, None));
        }
    }
    // 3600 seconds.
    assert_eq!(fetches, 2 + 3_600 / 30 - 1);
}

#[test]
fn unknown_ids_are_pending_or_refused_by_the_age_of_the_set() {
    let good = document("a");
    let mut refresher = loaded(&good, Some(3_600));
    let verdict =
        |refresher: &Refresher, now, waited| refresher.snapshot(now).unknown_key(now, waited);
    assert_eq!(verdict(&refresher, at(5), false), UnknownKey::Ask);
    // The burst goes; the second one fails, so the set stays that of second 5.
    assert_eq!(refresher.asked(at(5)), Asked::Fetch);
    refresher.fetched(at(5), answer(&good, None));
    assert_eq!(verdict(&refresher, at(5), true), UnknownKey::Refuse);
    assert_eq!(refresher.asked(at(6)), Asked::Fetch);
    refresher.fetched(at(6), Err(FetchFault::Timeout));
    assert_eq!(verdict(&refresher, at(20), false), UnknownKey::Refuse);
    assert_eq!(verdict(&refresher, at(34), true), UnknownKey::Refuse);
    // A token is earned again at second 35.
    assert_eq!(verdict(&refresher, at(35), false), UnknownKey::Ask);
    assert_eq!(refresher.asked(at(36)), Asked::Fetch);
    refresher.fetched(at(36), Err(FetchFault::Timeout));
    assert_eq!(verdict(&refresher, at(36), true), UnknownKey::Pending);
    assert_eq!(verdict(&refresher, at(37), false), UnknownKey::Pending);
    assert_eq!(verdict(&refresher, at(65), false), UnknownKey::Ask);
}

#[test]
fn a_fetch_under_way_is_joined_by_everybody() {
    let mut refresher = loaded(&document("a"), None);
    assert_eq!(refresher.poll(at(300)), Next::Fetch);
    assert_eq!(refresher.asked(at(300)), Asked::Joined);
    assert_eq!(refresher.poll(at(301)), Next::UnderWay);
    assert_eq!(refresher.fetched(at(301), answer(&document("b"), None)), Outcome::Replaced);
    // Joining cost no token of the bucket.
    for _ in 0..JWKS_REFETCH_BURST {
        assert_eq!(refresher.asked(at(302)), Asked::Fetch);
        refresher.fetched(at(302), Err(FetchFault::Timeout));
    }
    assert_eq!(refresher.asked(at(302)), Asked::Throttled);
}

use std::collections::HashSet;

use super::*;
use crate::judge::principal::{Parts, Principal};
use crate::judge::testing::NOW;

fn verified() -> Rc<VerifiedToken> {
    Rc::new(VerifiedToken::of_principal(Principal::assemble(Parts::default()), NOW))
}

fn cache(entries: usize) -> TokenCache {
    TokenCache::new(Bounds { entries, bytes: 10_000_000 })
}

fn has<S: BuildHasher + Default>(cache: &mut TokenCache<S>, token: &[u8], now: u64) -> bool {
    cache.get(token, Monotonic(now), |_| true).is_some()
}

const LATER: Monotonic = Monotonic(1_000);

#[test]
fn only_the_same_bytes_hit() {
    let mut cache = cache(16);
    cache.insert(b"token-a", verified(), LATER);
    for other in [b"token-b".as_slice(), b"token-", b"token-a ", b"", b"TOKEN-A"] {
        assert!(!has(&mut cache, other, 0));
    }
    assert!(has(&mut cache, b"token-a", 0));
}

/// Every token hashes alike: only the full compare tells them apart.
#[derive(Default)]
struct Alike;

impl std::hash::Hasher for Alike {
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        7
    }
}

#[test]
fn an_equal_hash_is_no_hit() {
    let bounds = Bounds { entries: 16, bytes: 1_000_000 };
    let mut cache = TokenCache::<std::hash::BuildHasherDefault<Alike>>::new(bounds);
    cache.insert(b"token-a", verified(), LATER);
    cache.insert(b"token-b", verified(), Monotonic(10));
    assert!(!has(&mut cache, b"token-c", 0));
    assert!(!has(&mut cache, b"token-b", 10));
    assert!(has(&mut cache, b"token-a", 10));
    assert_eq!(cache.len(), 1);
}

#[test]
fn t25_an_entry_ends_at_its_time_and_is_gone() {
    let mut cache = cache(16);
    cache.insert(b"a", verified(), LATER);
    assert!(has(&mut cache, b"a", 999));
    assert!(!has(&mut cache, b"a", 1_000));
    assert_eq!((cache.len(), cache.bytes), (0, 0));
}

#[test]
fn an_entry_that_is_not_current_is_gone() {
    let mut cache = cache(16);
    cache.insert(b"a", verified(), LATER);
    assert!(cache.get(b"a", Monotonic(0), |_| false).is_none());
    assert_eq!(cache.len(), 0);
}

#[test]
fn the_bounds_hold_and_busy_entries_stay() {
    let mut cache = cache(8);
    for token in 0..8_u8 {
        cache.insert(&[token], verified(), LATER);
    }
    for token in 8..200_u8 {
        // Two are used all the time; the rest come, are used never, and go.
        assert!(has(&mut cache, &[0], 0) && has(&mut cache, &[1], 0));
        cache.insert(&[token], verified(), LATER);
        assert!(cache.len() <= 8 && cache.slots.len() <= 8);
    }
    let each = cost(&[0; 4], &verified());
    let mut narrow: TokenCache = TokenCache::new(Bounds { entries: 100, bytes: 2 * each + 1 });
    for token in 0..50_u8 {
        narrow.insert(&[token; 4], verified(), LATER);
        assert!(narrow.bytes <= 2 * each + 1 && narrow.len() <= 2);
        assert!(has(&mut narrow, &[token; 4], 0));
    }
    let wide = vec![9; 2 * each];
    narrow.insert(&wide, verified(), LATER);
    assert!(!has(&mut narrow, &wide, 0));
}

#[test]
fn the_same_token_again_replaces_its_entry() {
    let mut cache = cache(8);
    cache.insert(b"a", verified(), Monotonic(10));
    cache.insert(b"a", verified(), LATER);
    assert_eq!((cache.len(), cache.bytes), (1, cost(b"a", &verified())));
    assert!(has(&mut cache, b"a", 500));
}

#[test]
fn sweeping_wipes_what_is_old_and_nothing_else() {
    let mut cache = cache(100);
    for token in 0..60_u8 {
        cache.insert(&[token], verified(), Monotonic(u64::from(token)));
    }
    for _ in 0..3 {
        cache.sweep(Monotonic(30), 20);
    }
    assert_eq!(cache.len(), 29);
    assert!(!has(&mut cache, &[30], 0) && has(&mut cache, &[31], 0));
    cache.purge();
    assert_eq!((cache.len(), cache.bytes), (0, 0));
    assert!(!has(&mut cache, &[31], 0));
}

/// Against a plain model: whatever the cache answers, the model knows; slots and index stay one.
#[test]
fn random_work_keeps_the_structure() {
    let mut cache = cache(20);
    let mut inserted: HashSet<u8> = HashSet::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for step in 0..20_000_u64 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let token = (state >> 33) as u8 % 64;
        match (state >> 45) % 8 {
            0..=2 => {
                cache.insert(&[token], verified(), Monotonic(step + 50));
                inserted.insert(token);
            }
            3 => cache.sweep(Monotonic(step), 5),
            4 => {
                cache.get(&[token], Monotonic(step), |_| false);
                inserted.remove(&token);
            }
            _ => assert!(!has(&mut cache, &[token], step) || inserted.contains(&token)),
        }
        let live = cache.slots.iter().flatten().count();
        assert_eq!(cache.len(), live);
        assert_eq!(cache.bytes, live * cost(&[0], &verified()));
        assert_eq!(cache.free.len() + live, cache.slots.len());
        assert!(live <= 20);
    }
}

/// A tenth more tokens than places, each used once in a round: with the oldest going first nothing
/// would ever be found again.
#[test]
fn going_round_more_tokens_than_there_is_room_for_still_hits() {
    let mut cache = cache(200);
    let (mut hits, mut asked) = (0_u32, 0_u32);
    for round in 0..40 {
        for token in 0..220_u8 {
            let found = has(&mut cache, &[token], 0);
            if round >= 4 {
                asked += 1;
                hits += u32::from(found);
            }
            if !found {
                cache.insert(&[token], verified(), LATER);
            }
        }
    }
    assert!(hits * 2 > asked, "{hits} of {asked}");
}

#[test]
fn what_a_token_says_counts_as_well_as_its_length() {
    let groups = (0..1_000).map(|number| format!("group-{number}")).collect();
    let parts = Parts { groups, ..Parts::default() };
    let many = VerifiedToken::of_principal(Principal::assemble(parts), NOW);
    assert!(cost(b"a", &many) > cost(b"a", &verified()) + 1_000 * size_of::<String>());
}

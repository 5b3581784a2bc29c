//! Limits that all cores count together.

use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;

use super::*;

const CORES: usize = 4;

fn exact(requests: u64, seconds: u64, burst: u64) -> RateLimit {
    RateLimit { exact: true, ..limit(USER, requests, seconds, burst) }
}

/// Several cores' memories of the same limits.
fn cores(limits: &[RateLimit]) -> [Quota; CORES] {
    let exact = Exact::of(limits);
    [(); CORES].map(|()| Quota::new(4_096, Arc::clone(&exact)))
}

/// How often `ask` answers true on all cores at once, each asking `times`.
fn together(
    limits: &[RateLimit],
    times: usize,
    ask: impl Fn(&Quota, usize) -> bool + Sync,
) -> usize {
    let shared = Exact::of(limits);
    let (granted, start, ask) = (AtomicUsize::new(0), Barrier::new(CORES), &ask);
    thread::scope(|scope| {
        for _ in 0..CORES {
            let quota_of = Arc::clone(&shared);
            let (granted, start) = (&granted, &start);
            scope.spawn(move || {
                let quota = Quota::new(64, quota_of);
                start.wait();
                let here = (0..times).filter(|at| ask(&quota, *at)).count();
                granted.fetch_add(here, Relaxed);
            });
        }
    });
    granted.into_inner()
}

#[test]
fn what_one_core_grants_is_used_up_on_all_of_them() {
    let limits = [exact(60, 60, 3)];
    let [one, two, three, four] = cores(&limits);
    for core in [&one, &two, &three] {
        assert_eq!(core.admit(&limits, &ann(), at(0)), Ok(()));
    }
    for core in [&one, &two, &three, &four] {
        let refused = core.admit(&limits, &ann(), at(0));
        assert_eq!(refused, Err(Exceeded { limit: 0, retry_after_seconds: 1 }));
    }
    assert!(four.admit(&limits, &ann(), at(1_000)).is_ok());
    assert!(one.admit(&limits, &ann(), at(1_000)).is_err());
    // One whose clock was read earlier counts on from there.
    assert!(two.admit(&limits, &ann(), at(999)).is_err());
    let bob = Asker { user: Some("bob"), ..ann() };
    assert!(one.admit(&limits, &bob, at(0)).is_ok(), "callers are counted apart");
}

#[test]
fn an_equal_limit_goes_on_over_reloads_also_after_one_without_it() {
    let (limits, memory) = ([exact(1, 60, 1)], Exact::of(&[]));
    let core = Quota::new(64, Arc::clone(&memory));
    let refused = core.admit(&limits, &ann(), at(0)).unwrap_err();
    assert_eq!(refused.retry_after_seconds, 1, "nothing was prepared, nothing is granted");
    memory.prepare(&limits);
    core.admit(&limits, &ann(), at(0)).unwrap();
    for reload in [&[][..], &[limit(USER, 1, 60, 1)], &limits] {
        memory.prepare(reload);
        assert!(core.admit(&limits, &ann(), at(1)).is_err());
    }
    // Another rate, or one that each core counts for itself, is another limit.
    assert!(core.admit(&[exact(2, 60, 1)], &ann(), at(1)).is_ok());
    assert!(core.admit(&[limit(USER, 1, 60, 1)], &ann(), at(1)).is_ok());
}

/// At one moment the burst, neither more nor less, whatever the cores do to each other.
#[test]
fn all_cores_at_once_are_granted_exactly_the_burst() {
    let limits = [exact(1_000_000, 86_400, 5_000)];
    for _ in 0..5 {
        let admit = |quota: &Quota, _| quota.admit(&limits, &ann(), at(0)).is_ok();
        assert_eq!(together(&limits, 5_000, admit), 5_000);
    }
}

/// While time goes on: the burst, and what the time is worth.
#[test]
fn all_cores_at_once_are_granted_no_more_than_the_rate() {
    let limits = [exact(1_000, 1, 100)];
    let clock = AtomicU64::new(0);
    let admit = |quota: &Quota, _| {
        // Each try takes 10 µs: less than its share, so all of it is used up.
        let micros = clock.fetch_add(10, Relaxed);
        quota.admit(&limits, &ann(), Monotonic(1_000_000_000 + micros)).is_ok()
    };
    let granted = together(&limits, 20_000, admit);
    // One per millisecond that passed; at the very end of one, whoever asked may have come late.
    let most = 100 + clock.load(Relaxed) as usize / 1_000;
    assert!((most - 1..=most).contains(&granted), "{granted} of {most}");
}

/// Who comes for the first time on all cores at once has one place, not one per core.
#[test]
fn newcomers_on_all_cores_at_once_are_granted_once() {
    let limits = [exact(1, 86_400, 1)];
    let names: Vec<String> = (0..400).map(|number| format!("user-{number}")).collect();
    for _ in 0..20 {
        let admit = |quota: &Quota, at_name: usize| {
            let asker = Asker { user: names.get(at_name).map(String::as_str), ..ann() };
            quota.admit(&limits, &asker, at(0)).is_ok()
        };
        assert_eq!(together(&limits, names.len(), admit), names.len());
    }
}

/// What the narrow limit refuses the wide one does not count; but for requests that lost a race,
/// and then it is stricter.
#[test]
fn under_two_limits_at_once_the_narrow_one_holds_and_the_wide_one_forgets_what_it_refused() {
    let wide = RateLimit { name: "wide".to_owned(), ..exact(1_000_000, 86_400, 6_000) };
    let narrow = RateLimit { name: "narrow".to_owned(), ..exact(1_000, 86_400, 1_000) };
    let limits = [wide, narrow];
    let memory = Exact::of(&limits);
    let granted = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CORES {
            scope.spawn(|| {
                let quota = Quota::new(64, Arc::clone(&memory));
                let here = (0..5_000).filter(|_| quota.admit(&limits, &ann(), at(0)).is_ok());
                granted.fetch_add(here.count(), Relaxed);
            });
        }
    });
    assert_eq!(granted.into_inner(), 1_000);
    let quota = Quota::new(64, memory);
    let left = (0..6_000).filter(|_| quota.admit(&limits[..1], &ann(), at(0)).is_ok()).count();
    // A refusal is looked at before it is counted: only who looked before the last grant and
    // counted after it can be left over, one per core.
    assert!((5_000 - CORES..=5_000).contains(&left), "{left} of the wide limit are left");
}

/// Another core has used up the second limit since both were looked at.
#[test]
fn what_was_taken_of_one_limit_is_given_back_when_the_next_one_is_lost() {
    let second = RateLimit { name: "second".to_owned(), ..exact(1, 60, 1) };
    let limits = [exact(60, 60, 3), second];
    let memory = Exact::of(&limits);
    let now = 1_000_000_000;
    let bucket = |rate: &RateLimit| {
        let who = name(&memory.hashers, rate, &ann());
        Some(Bucket { who, paid_until: now + rate.interval(), interval: rate.interval() })
    };
    let looked_at = limits.each_ref().map(bucket);
    let mut counted = looked_at;
    assert_eq!(take(&limits, &mut counted, &memory, now), Ok(()));
    let first = looked_at[0].unwrap();
    assert_eq!(memory.paid_until(first.who), first.paid_until);
    let refused = take(&limits, &mut looked_at.clone(), &memory, now);
    assert_eq!(refused, Err(Exceeded { limit: 1, retry_after_seconds: 60 }));
    assert_eq!(memory.paid_until(first.who), first.paid_until, "counted once");
}

#[test]
fn an_exact_limit_and_one_of_the_core_count_both_or_neither() {
    for exact_first in [true, false] {
        let own = RateLimit { name: "own".to_owned(), ..limit(USER, 2, 86_400, 2) };
        let mut limits = vec![exact(3, 86_400, 3), own];
        if !exact_first {
            limits.reverse();
        }
        let [one, two, ..] = cores(&limits);
        let ask = |core: &Quota| core.admit(&limits, &ann(), at(0)).map_err(|it| it.limit);
        let (shared, own) = if exact_first { (0, 1) } else { (1, 0) };
        assert_eq!([ask(&one), ask(&one), ask(&one)], [Ok(()), Ok(()), Err(own)]);
        assert_eq!(ask(&two), Ok(()), "the refusal before was not counted");
        assert_eq!(ask(&two), Err(shared));
        // The core's own limit was not charged with that: it grants the one that is left.
        let only = [limits[own].clone()];
        assert_eq!(two.admit(&only, &ann(), at(0)), Ok(()));
        assert!(two.admit(&only, &ann(), at(0)).is_err());
    }
}

#[test]
fn exact_limits_alone_take_no_memory_of_the_core() {
    let own = RateLimit { server: Some("jira".to_owned()), ..limit(USER, 2, 60, 2) };
    let limits = [exact(2, 60, 2), own];
    let [core, ..] = cores(&limits);
    let bytes = |core: &Quota| core.state.with(|state| state.sets.len());
    core.admit(&limits, &ann(), at(0)).unwrap();
    assert_eq!(bytes(&core), 0);
    core.admit(&limits, &Asker { server: "jira", ..ann() }, at(0)).unwrap();
    assert_eq!(bytes(&core), 1_024);
}

/// Who uses up a limit on all cores stays with what he owes while newcomers come and go beside him:
/// four of five places are theirs.
#[test]
fn debtors_are_granted_no_more_than_the_burst_while_newcomers_push_each_other_out() {
    const BURST: u64 = 2_000;
    let limits = [exact(BURST, 86_400, BURST)];
    let memory = Exact::with_callers(5);
    memory.prepare(&limits);
    let (memory, start) = (Arc::new(memory), Barrier::new(CORES));
    let debtors = ["ann", "bob", "carol", "dave"].map(|user| Asker { user: Some(user), ..ann() });
    let granted = debtors.map(|_| AtomicU64::new(0));
    let ask = |quota: &Quota| {
        for (debtor, granted) in debtors.iter().zip(&granted) {
            let passed = quota.admit(&limits, debtor, at(0)).is_ok();
            granted.fetch_add(u64::from(passed), Relaxed);
        }
    };
    // They owe more than a newcomer before the first one comes.
    let first = Quota::new(64, Arc::clone(&memory));
    (0..10).for_each(|_| ask(&first));
    thread::scope(|scope| {
        for core in 0..CORES {
            let (quota_of, start, limits, ask) = (Arc::clone(&memory), &start, &limits, &ask);
            scope.spawn(move || {
                let quota = Quota::new(64, quota_of);
                start.wait();
                for number in 0..BURST {
                    ask(&quota);
                    let name = format!("made-up-{core}-{number}");
                    // Refused when the others were in between each time: not what is tested.
                    let _ = quota.admit(limits, &Asker { user: Some(&name), ..ann() }, at(0));
                }
            });
        }
    });
    assert_eq!(granted.map(AtomicU64::into_inner), [BURST; 4]);
}

/// As in the table of one core: whoever owes more stays.
#[test]
fn newcomers_do_not_push_out_who_owes_most() {
    let limits = [exact(1_000, 1_000, 1_000)];
    let memory = Exact::with_callers(1);
    memory.prepare(&limits);
    let quota = Quota::new(64, Arc::new(memory));
    for _ in 0..1_000 {
        quota.admit(&limits, &ann(), at(0)).unwrap();
    }
    for number in 0..1_000 {
        let name = format!("made-up-{number}");
        quota.admit(&limits, &Asker { user: Some(&name), ..ann() }, at(0)).unwrap();
    }
    assert!(quota.admit(&limits, &ann(), at(0)).is_err());
}

/// Random limits, callers, cores and times against the algorithm in its textbook form: a request
/// conforms when it is not earlier than its theoretical arrival time less the tolerance (ITU-T
/// I.371, Annex A).
#[test]
fn any_mix_of_limits_grants_what_the_model_grants() {
    let mut random = Random(seed());
    for round in 0..200 {
        let limits: Vec<RateLimit> = (0..1 + random.below(4))
            .map(|at| {
                let requests = 1 + random.below(20);
                let burst = 1 + random.below(requests);
                let made = limit(USER, requests, 1 + random.below(5), burst);
                RateLimit { name: format!("l{at}"), exact: random.below(2) == 0, ..made }
            })
            .collect();
        let quotas = cores(&limits);
        let mut arrivals: HashMap<(usize, Option<usize>, u64), u64> = HashMap::new();
        let mut now = 1_000_000_000;
        for step in 0..200 {
            now += random.below(400_000);
            let (core, user) = (random.below(CORES as u64) as usize, random.below(3));
            let name = format!("u{user}");
            let asker = Asker { user: Some(&name), ..ann() };
            let mut next = Vec::new();
            let mut conforms = true;
            for (at, rate) in limits.iter().enumerate() {
                let key = (at, (!rate.exact).then_some(core), user);
                let increment = (rate.seconds * 1_000_000_000).div_ceil(rate.requests);
                let arrival = arrivals.get(&key).copied().unwrap_or(0).max(now * 1_000);
                conforms &= now * 1_000 + increment * (rate.burst - 1) >= arrival;
                next.push((key, arrival + increment));
            }
            let granted = quotas[core].admit(&limits, &asker, Monotonic(now)).is_ok();
            assert_eq!(granted, conforms, "round {round}, step {step}, seed {}", random.0);
            if conforms {
                arrivals.extend(next);
            }
        }
    }
}

/// Printed with a failure; each run has its own.
fn seed() -> u64 {
    let seed = RandomState::new().hash_one(0);
    eprintln!("seed {seed}");
    seed
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }
}

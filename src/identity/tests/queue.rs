//! Who waits for a verification, and who does not have to. Counted in turns, not in time.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::limits::{KEYS_WAITING_MAX, VERIFY_PER_TURN_MAX, VERIFY_WAITING_MAX};

/// The core as it is while nothing but turns goes on: no deadline comes, nobody fetches.
#[derive(Clone, Copy)]
struct Patient<'a>(&'a Core);

impl Door for Patient<'_> {
    fn with_trust<R>(&self, read: impl FnOnce(&Trust<'_>) -> R) -> R {
        self.0.with_trust(read)
    }

    fn now(&self) -> Now {
        self.0.now()
    }

    fn ask(&self, provider: u16) {
        self.0.ask(provider);
    }

    async fn sleep_until(&self, _: Monotonic) {
        pending().await
    }
}

type Verdict = Result<Rc<VerifiedToken>, Reject>;
type Task<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;

fn ask<'a>(core: &'a Core, token: &str) -> Task<'a> {
    ask_on(core, token, "github")
}

fn ask_on<'a>(core: &'a Core, token: &str, server: &'a str) -> Task<'a> {
    let authorization = format!("Bearer {token}").into_bytes();
    Box::pin(async move {
        let audiences = Audiences::new(URL, Resource::Server(server));
        let (door, wait) = (Patient(core), Duration::from_secs(4));
        core.identity.verify(Some(&authorization), &audiences, &door, core.now(), wait).await
    })
}

fn poll(task: &mut Task<'_>) -> Option<Verdict> {
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => Some(verdict),
        Poll::Pending => None,
    }
}

/// Turns until the task ends, and how; `None` = not within `most`.
fn turns<'a>(core: &'a Core, task: &mut Task<'a>, most: usize) -> Option<(usize, Verdict)> {
    for turn in 0..=most {
        if let Some(verdict) = poll(task) {
            return Some((turn, verdict));
        }
        core.identity.new_turn();
    }
    None
}

/// A good token under which somebody else's signature stands.
fn forged(key: &TestKey, number: usize) -> String {
    let good = token(key, "k", json!({"sub": format!("u-{number}"), "exp": NOW.0 + 1_000_000}));
    format!("{}.{}", good.rsplit_once('.').unwrap().0, "A".repeat(86))
}

/// The connections of `crowd` attackers, each with a forged token of its own. As many wait as may;
/// the others were told that they may not.
fn besiege<'a>(core: &'a Core, key: &TestKey, crowd: usize) -> Vec<Task<'a>> {
    let mut tasks: Vec<_> = (0..crowd).map(|number| ask(core, &forged(key, number))).collect();
    tasks.retain_mut(|task| match poll(task) {
        None => true,
        Some(verdict) => {
            let reject = verdict.err();
            assert!(matches!(reject, Some(Reject::GatewayOverloaded | Reject::TokenSignature)));
            false
        }
    });
    assert_eq!(tasks.len(), VERIFY_WAITING_MAX);
    tasks
}

#[test]
fn a_known_token_is_renewed_within_two_turns_whatever_crowd_waits() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let known = token(&key, "k", long_lived());
    assert!(core.verify(&known).is_ok());
    let newcomer = token(&key, "k", with(&long_lived(), json!({"sub": "u-2"})));
    let mut crowd = besiege(&core, &key, 2_000);
    // Wiped, not only too old.
    core.after(CACHE_SECONDS_MAX);
    core.identity.sweep(core.now().mono, 100);
    assert_eq!(core.identity.remembered_count(), 0);
    let (turns_taken, verdict) = turns(&core, &mut ask(&core, &known), 2).unwrap();
    assert!(turns_taken >= 1 && verdict.is_ok());
    // A newcomer meets the same crowd, its ranks filled again, without that.
    while crowd.len() < VERIFY_WAITING_MAX + VERIFY_PER_TURN_MAX as usize {
        let mut one = ask(&core, &forged(&key, 5_000 + crowd.len()));
        let _ = poll(&mut one);
        crowd.push(one);
    }
    let verdict = poll(&mut ask(&core, &newcomer)).unwrap();
    assert_eq!(verdict.err(), Some(Reject::GatewayOverloaded));
}

#[test]
fn everybody_known_is_renewed_after_a_purge_or_with_another_configuration() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let known: Vec<_> = (0..VERIFY_WAITING_MAX + 100)
        .map(|number| token(&key, "k", json!({"sub": format!("u-{number}")})))
        .collect();
    for token in &known {
        assert!(core.verify(token).is_ok());
    }
    let _crowd = besiege(&core, &key, 2_000);
    for forget in 0..2 {
        match forget {
            0 => core.identity.purge(),
            _ => core.epoch.set(core.epoch.get() + 1),
        }
        // None is refused, though more wait than strangers may.
        let mut tasks: Vec<_> = known.iter().map(|token| ask(&core, token)).collect();
        let mut left = tasks.len();
        let most = known.len().div_ceil(VERIFY_PER_TURN_MAX as usize) + 2;
        for _ in 0..=most {
            tasks.retain_mut(|task| match poll(task) {
                None => true,
                Some(verdict) => {
                    assert!(verdict.is_ok());
                    left -= 1;
                    false
                }
            });
            core.identity.new_turn();
        }
        assert_eq!(left, 0);
    }
}

#[test]
fn junk_takes_no_place() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    core.identity.new_turn();
    let headed = |members: Value| key.token(&with(&header("k"), members), &claims());
    let junk = [
        ("x".to_owned(), Reject::TokenMalformed),
        ("a.b.c".to_owned(), Reject::TokenMalformed),
        (token(&key, "k", json!({"iss": "https://other.test"})), Reject::TokenIssuer),
        (headed(json!({"alg": "RS256"})), Reject::TokenAlgorithm),
        (headed(json!({"typ": "dpop+jwt"})), Reject::TokenType),
        (token(&key, "k", json!({"exp": NOW.0 - 3_600})), Reject::TokenExpired),
    ];
    let unknown = token(&key, "made-up", json!({}));
    let mut waiting = Vec::new();
    for _ in 0..VERIFY_WAITING_MAX {
        for (junk, wanted) in &junk {
            assert_eq!(poll(&mut ask(&core, junk)).unwrap().err(), Some(*wanted));
        }
        let mut task = ask(&core, &unknown);
        match poll(&mut task) {
            None => waiting.push(task),
            // Nor are the places of requests in flight all taken while the issuer is slow.
            Some(verdict) => assert_eq!(verdict.err(), Some(Reject::KeysPending)),
        }
    }
    assert_eq!(waiting.len(), KEYS_WAITING_MAX);
    // One question for all of them, and the whole turn is there for others.
    assert_eq!(core.asked.get(), 1);
    let fill_turn = |core: &Core, name: &str| {
        for number in 0..VERIFY_PER_TURN_MAX {
            let good = token(&key, "k", json!({"sub": format!("{name}-{number}")}));
            assert!(poll(&mut ask(core, &good)).unwrap().is_ok());
        }
    };
    fill_turn(&core, "a");
    // What is unknown to the newest keys, too, leaves the turn whole once more.
    core.identity.new_turn();
    core.after(100);
    core.answer();
    core.with_trust(|trust| core.identity.keys_published(trust));
    for task in &mut waiting {
        assert_eq!(poll(task).unwrap().err(), Some(Reject::TokenKeyUnknown));
    }
    fill_turn(&core, "b");
}

#[test]
fn a_token_that_comes_to_nothing_while_it_waits_gives_its_place_back() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    core.identity.new_turn();
    for number in 0..VERIFY_PER_TURN_MAX {
        let good = token(&key, "k", json!({"sub": format!("first-{number}")}));
        assert!(poll(&mut ask(&core, &good)).unwrap().is_ok());
    }
    let brief = |number| token(&key, "k", json!({"sub": format!("{number}"), "exp": NOW.0 + 10}));
    let mut brief: Vec<_> =
        (0..VERIFY_PER_TURN_MAX).map(|number| ask(&core, &brief(number))).collect();
    assert!(brief.iter_mut().all(|task| poll(task).is_none()));
    let mut last = ask(&core, &token(&key, "k", long_lived()));
    assert!(poll(&mut last).is_none());
    core.after(40);
    core.identity.new_turn();
    for task in &mut brief {
        assert_eq!(poll(task).unwrap().err(), Some(Reject::TokenExpired));
    }
    assert!(poll(&mut last).unwrap().is_ok(), "in the same turn");
}

#[test]
fn one_token_whose_key_two_wait_for_is_verified_once() {
    let (old, new) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&old, "k")]));
    core.after(100);
    let token = token(&new, "new", long_lived());
    let mut tasks = [ask(&core, &token), ask(&core, &token)];
    for task in &mut tasks {
        assert!(poll(task).is_none());
    }
    let before = core.identity.counts();
    *core.site.borrow_mut() = Ok(key_document(&[(&new, "new")]));
    core.answer();
    core.with_trust(|trust| core.identity.keys_published(trust));
    core.identity.new_turn();
    let [first, second] = tasks.each_mut().map(|task| poll(task).unwrap().ok().unwrap());
    assert!(Rc::ptr_eq(&first, &second));
    let after = core.identity.counts();
    assert_eq!((after.misses - before.misses, after.hits - before.hits), (1, 1));
}

#[test]
fn a_mark_is_for_this_very_token_and_admits_nobody() {
    let (old, new) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&old, "k")]));
    let known = token(&old, "k", json!({"exp": NOW.0 + 100}));
    assert!(core.verify(&known).is_ok());
    // The same id now names another key. What it signed is refused, mark or not, and new.
    *core.site.borrow_mut() = Ok(key_document(&[(&new, "k")]));
    core.answer();
    core.identity.purge();
    let crowd = besiege(&core, &old, 2_000);
    let (_, verdict) = turns(&core, &mut ask(&core, &known), 2).unwrap();
    assert_eq!(verdict.err(), Some(Reject::TokenSignature));
    // Refused once, it is a stranger's.
    drop(crowd);
    core.identity.new_turn();
    let _crowd = besiege(&core, &old, 2_000);
    for stranger in [known.clone(), forged(&old, 3_000), forged(&new, 3_001)] {
        let verdict = poll(&mut ask(&core, &stranger)).unwrap();
        assert_eq!(verdict.err(), Some(Reject::GatewayOverloaded));
    }
}

#[test]
fn a_changed_byte_or_an_expired_token_has_no_mark() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let known = token(&key, "k", json!({"exp": NOW.0 + 10}));
    assert!(core.verify(&known).is_ok());
    core.identity.purge();
    let mut bytes = known.clone().into_bytes();
    let at = bytes.len() - 20;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    let changed = String::from_utf8(bytes).unwrap();
    assert_eq!(core.refusal(&changed), Some(Reject::TokenSignature));
    let crowd = besiege(&core, &key, 2_000);
    let verdict = poll(&mut ask(&core, &changed)).unwrap();
    assert_eq!(verdict.err(), Some(Reject::GatewayOverloaded));
    // Over, but within the leeway: it still counts, and waits as any other.
    core.after(10);
    let verdict = poll(&mut ask(&core, &known)).unwrap();
    assert_eq!(verdict.err(), Some(Reject::GatewayOverloaded));
    drop(crowd);
    core.identity.new_turn();
    assert!(poll(&mut ask(&core, &known)).unwrap().is_ok());
    core.after(40);
    core.identity.new_turn();
    assert_eq!(poll(&mut ask(&core, &known)).unwrap().err(), Some(Reject::TokenExpired));
}

#[test]
fn a_token_sent_where_it_does_not_belong_loses_its_mark() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let known = token(&key, "k", long_lived());
    assert!(core.verify(&known).is_ok());
    core.identity.purge();
    let _crowd = besiege(&core, &key, 2_000);
    let (_, verdict) = turns(&core, &mut ask_on(&core, &known, "slack"), 2).unwrap();
    assert_eq!(verdict.err(), Some(Reject::TokenAudience));
    assert!(turns(&core, &mut ask_on(&core, &known, "slack"), 2).is_none());
}

#[test]
fn who_waited_for_keys_is_not_refused_when_they_come() {
    let (old, new) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&old, "k")]));
    core.after(100);
    let mut tasks: Vec<_> = (0..KEYS_WAITING_MAX)
        .map(|number| ask(&core, &token(&new, "new", json!({"sub": format!("u-{number}")}))))
        .collect();
    // They come over some time.
    for task in &mut tasks {
        core.identity.new_turn();
        assert!(poll(task).is_none());
    }
    let _crowd = besiege(&core, &old, 2_000);
    *core.site.borrow_mut() = Ok(key_document(&[(&old, "k"), (&new, "new")]));
    assert_eq!(core.refresher.borrow_mut().asked(core.now().mono), Asked::Fetch);
    core.answer();
    core.with_trust(|trust| core.identity.keys_published(trust));
    let most = tasks.len().div_ceil(VERIFY_PER_TURN_MAX as usize) + 2;
    for _ in 0..=most {
        tasks.retain_mut(|task| match poll(task) {
            None => true,
            Some(verdict) => {
                assert!(verdict.is_ok());
                false
            }
        });
        core.identity.new_turn();
    }
    assert_eq!(tasks.len(), 0);
}

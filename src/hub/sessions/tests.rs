use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Waker;
use std::time::Duration;

use super::*;

const NOW: Monotonic = Monotonic(1_000_000_000);

const SESSIONS_MAX: usize = 64;

fn key() -> SessionKey {
    SessionKey {
        client: Some(SessionMark([1; 16])),
        identity: [2; 32],
        server: 3,
        credential: Some(4),
        generation: 5,
        capabilities: ClientCapabilities::ROOTS,
    }
}

fn session(id: &[u8]) -> UpstreamSession {
    UpstreamSession::new(Some(id.to_vec()), "2025-11-25")
}

fn opening(sessions: &UpstreamSessions, key: &SessionKey, now: Monotonic) -> Opening {
    match sessions.enter(key, now) {
        Ok(Entered::Open(opening)) => opening,
        _ => panic!("there is one already"),
    }
}

fn waiting(sessions: &UpstreamSessions, key: &SessionKey) -> Waiting {
    match sessions.enter(key, NOW) {
        Ok(Entered::Wait(waiting)) => waiting,
        _ => panic!("nobody is opening it"),
    }
}

fn ready(sessions: &UpstreamSessions, key: &SessionKey, now: Monotonic) -> Rc<UpstreamSession> {
    match sessions.enter(key, now) {
        Ok(Entered::Ready(session)) => session,
        _ => panic!("it is not open"),
    }
}

fn open(sessions: &UpstreamSessions, key: &SessionKey, now: Monotonic) -> Rc<UpstreamSession> {
    opening(sessions, key, now).opened(session(b"s"), now)
}

fn end(sessions: &UpstreamSessions, client: u8) -> Vec<SessionKey> {
    sessions.end_client(SessionMark([client; 16])).into_iter().map(|(key, _)| key).collect()
}

#[test]
fn one_opens_and_the_others_wait_for_it() {
    let sessions = UpstreamSessions::default();
    let opener = opening(&sessions, &key(), NOW);
    let mut context = Context::from_waker(Waker::noop());
    let (mut first, mut second) =
        (pin!(waiting(&sessions, &key())), pin!(waiting(&sessions, &key())));
    assert!(first.as_mut().poll(&mut context).is_pending());
    let opened = opener.opened(session(b"one"), NOW);
    for waiter in [&mut first, &mut second] {
        let Poll::Ready(Ok(had)) = waiter.as_mut().poll(&mut context) else { panic!("no answer") };
        assert!(Rc::ptr_eq(&had, &opened));
    }
    assert!(Rc::ptr_eq(&ready(&sessions, &key(), NOW), &opened));
    let ids: Vec<_> = (0..3).map(|_| opened.next_id()).collect();
    assert_eq!(ids, [1, 2, 3]);
}

#[test]
fn nobody_else_gets_it() {
    let sessions = UpstreamSessions::default();
    let _mine = open(&sessions, &key(), NOW);
    for other in [
        SessionKey { client: None, ..key() },
        SessionKey { client: Some(SessionMark([9; 16])), ..key() },
        SessionKey { identity: [9; 32], ..key() },
        SessionKey { server: 9, ..key() },
        SessionKey { credential: None, ..key() },
        SessionKey { credential: Some(9), ..key() },
        SessionKey { generation: 9, ..key() },
        SessionKey { capabilities: ClientCapabilities::default(), ..key() },
    ] {
        assert!(matches!(sessions.enter(&other, NOW), Ok(Entered::Open(_))), "{other:?}");
    }
    assert_eq!(sessions.len(), 1, "an opening that was dropped leaves nothing behind");
}

#[test]
fn an_opener_that_fails_or_dies_leaves_nobody_hanging() {
    let sessions = UpstreamSessions::default();
    let mut context = Context::from_waker(Waker::noop());
    let opener = opening(&sessions, &key(), NOW);
    let mut waiter = pin!(waiting(&sessions, &key()));
    assert!(waiter.as_mut().poll(&mut context).is_pending());
    opener.failed(Reject::UpstreamTimeout);
    let Poll::Ready(Err(why)) = waiter.as_mut().poll(&mut context) else { panic!("it hangs") };
    assert_eq!(why, Reject::UpstreamTimeout);
    let opener = opening(&sessions, &key(), NOW);
    let mut waiter = pin!(waiting(&sessions, &key()));
    assert!(waiter.as_mut().poll(&mut context).is_pending());
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _opener = opener;
        panic!("while it opens");
    }));
    assert!(panicked.is_err());
    let Poll::Ready(Err(why)) = waiter.as_mut().poll(&mut context) else { panic!("it hangs") };
    assert_eq!(why, Reject::GatewayFault);
    assert!(matches!(sessions.enter(&key(), NOW), Ok(Entered::Open(_))), "the next one tries");
}

#[test]
fn a_forgotten_session_is_opened_anew_once() {
    let sessions = UpstreamSessions::default();
    let old = open(&sessions, &key(), NOW);
    sessions.forget(&key(), &old);
    let new = open(&sessions, &key(), NOW);
    // Another request, on its way with the old one, hears the same a moment later.
    sessions.forget(&key(), &old);
    assert!(Rc::ptr_eq(&ready(&sessions, &key(), NOW), &new));
}

#[test]
fn a_client_that_ends_ends_its_own_and_those_under_way() {
    let sessions = UpstreamSessions::default();
    let other = SessionKey { client: Some(SessionMark([8; 16])), ..key() };
    let modern = SessionKey { client: None, ..key() };
    let (second, stateless) =
        (SessionKey { server: 7, ..key() }, SessionKey { server: 8, ..key() });
    let _kept = (open(&sessions, &other, NOW), open(&sessions, &modern, NOW));
    let _ended = open(&sessions, &key(), NOW);
    opening(&sessions, &stateless, NOW).opened(UpstreamSession::new(None, "2025-06-18"), NOW);
    let under_way = opening(&sessions, &second, NOW);
    assert_eq!(end(&sessions, 1), [key()], "a server without sessions has none to end");
    let late = under_way.opened(session(b"late"), NOW);
    assert_eq!(late.id.as_deref(), Some(&b"late"[..]), "who waited for it has it");
    assert_eq!((end(&sessions, 1), sessions.len()), (Vec::new(), 2), "nobody else does");
    // An opening that was given up takes nothing away from the next one.
    let given_up = opening(&sessions, &key(), NOW);
    assert!(end(&sessions, 1).is_empty());
    let new = open(&sessions, &key(), NOW);
    drop(given_up);
    assert!(Rc::ptr_eq(&ready(&sessions, &key(), NOW), &new));
    // The word of another core.
    sessions.end_clients(|short| short == SessionMark([8; 16]).short());
    assert_eq!(sessions.len(), 2);
    assert!(end(&sessions, 8).is_empty());
}

#[test]
fn idle_ones_and_those_of_other_configurations_are_forgotten() {
    let sessions = UpstreamSessions::default();
    let held_key = SessionKey { server: 1, ..key() };
    open(&sessions, &key(), NOW);
    let held = open(&sessions, &held_key, NOW);
    let almost = Monotonic(NOW.after(HUB_SESSION_IDLE).0 - 1);
    sessions.sweep(5, almost);
    assert_eq!(sessions.len(), 2);
    sessions.sweep(5, NOW.after(HUB_SESSION_IDLE));
    assert_eq!(sessions.len(), 1, "one is held by a stream");
    drop(held);
    drop(ready(&sessions, &held_key, NOW.after(HUB_SESSION_IDLE)));
    sessions.sweep(5, NOW.after(HUB_SESSION_IDLE).after(Duration::from_secs(1)));
    assert_eq!(sessions.len(), 1, "it was just used");
    sessions.sweep(6, NOW.after(HUB_SESSION_IDLE));
    assert!(sessions.is_empty());
}

#[test]
fn the_one_that_was_not_used_for_longest_makes_room() {
    let sessions = UpstreamSessions::default();
    sessions.resize(SESSIONS_MAX);
    let numbered = |number: usize| {
        let mut identity = [0; 32];
        identity[..8].copy_from_slice(&number.to_be_bytes());
        SessionKey { identity, ..key() }
    };
    let later = |seconds: u64| NOW.after(Duration::from_secs(seconds));
    for number in 0..SESSIONS_MAX {
        open(&sessions, &numbered(number), later(1));
    }
    // The first one is used, so the oldest is the one that is made older.
    ready(&sessions, &numbered(0), later(2));
    ready(&sessions, &numbered(7), NOW);
    open(&sessions, &numbered(SESSIONS_MAX), later(3));
    assert_eq!(sessions.len(), SESSIONS_MAX);
    let held = end(&sessions, 1);
    assert!(!held.contains(&numbered(7)) && held.contains(&numbered(1)));
    assert_eq!((held.len(), sessions.len()), (SESSIONS_MAX, 0));
    // Only openings: nothing can make room, and nothing grows.
    let full = UpstreamSessions::default();
    full.resize(SESSIONS_MAX);
    let openings: Vec<_> =
        (0..SESSIONS_MAX).map(|number| opening(&full, &numbered(number), NOW)).collect();
    let refused = full.enter(&numbered(SESSIONS_MAX), NOW);
    assert!(matches!(refused, Err(Reject::GatewayOverloaded)));
    drop(openings);
    assert!(full.is_empty());
}

#[test]
fn fewer_places_take_away_what_was_not_used_for_longest() {
    let sessions = UpstreamSessions::default();
    let of = |server: u16| SessionKey { server, ..key() };
    for server in 0..4 {
        open(&sessions, &of(server), NOW.after(Duration::from_secs(server.into())));
    }
    ready(&sessions, &of(0), NOW.after(Duration::from_secs(9)));
    sessions.resize(2);
    let mut left = end(&sessions, 1);
    left.sort_unstable_by_key(|key| key.server);
    assert_eq!(left, [of(0), of(3)]);
}

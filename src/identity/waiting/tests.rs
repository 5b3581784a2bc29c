use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;

use super::*;
use crate::judge::testing::block_on;

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

fn poll<T>(task: &mut Task<T>) -> Option<T> {
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn seen(fetched_at: u64) -> Seen {
    Seen { epoch: 1, fetched_at: Monotonic(fetched_at) }
}

/// A waiter that counts its questions and never meets its deadline.
fn waiter(waiters: &Rc<KeyWaiters>, provider: u16, asked: &Rc<Cell<u32>>) -> Task<bool> {
    let (waiters, asked) = (Rc::clone(waiters), Rc::clone(asked));
    Box::pin(async move {
        let ask = || asked.set(asked.get() + 1);
        waiters.wait(provider, seen(5), ask, std::future::pending()).await
    })
}

#[test]
fn many_wait_for_one_question() {
    let (waiters, asked) = (Rc::new(KeyWaiters::default()), Rc::new(Cell::new(0)));
    let mut tasks: Vec<_> = (0..50).map(|_| waiter(&waiters, 3, &asked)).collect();
    let mut other = waiter(&waiters, 0, &asked);
    assert!(tasks.iter_mut().all(|task| poll(task).is_none()));
    assert!(tasks.iter_mut().all(|task| poll(task).is_none()));
    assert!(poll(&mut other).is_none());
    assert_eq!(asked.get(), 2);
    assert_eq!(waiters.lane(3, |lane| lane.wakers.len()), 50);
    waiters.answer(3);
    assert!(tasks.iter_mut().all(|task| poll(task) == Some(true)));
    assert!(poll(&mut other).is_none());
    // The next question is a new one.
    assert!(poll(&mut waiter(&waiters, 3, &asked)).is_none());
    assert_eq!(asked.get(), 3);
}

#[test]
fn only_news_about_the_keys_ends_a_wait() {
    let (waiters, asked) = (Rc::new(KeyWaiters::default()), Rc::new(Cell::new(0)));
    let mut task = waiter(&waiters, 0, &asked);
    assert!(poll(&mut task).is_none());
    // A policy change publishes a snapshot with the same keys.
    waiters.answer_changed(|_| Some(seen(5)));
    assert!(poll(&mut task).is_none());
    waiters.answer_changed(|_| Some(seen(6)));
    assert_eq!(poll(&mut task), Some(true));
    let mut task = waiter(&waiters, 0, &asked);
    assert!(poll(&mut task).is_none());
    // The provider is gone from the configuration.
    waiters.answer_changed(|_| None);
    assert_eq!(poll(&mut task), Some(true));
}

#[test]
fn a_lost_answer_costs_a_deadline_and_no_more() {
    let (waiters, asked) = (Rc::new(KeyWaiters::default()), Rc::new(Cell::new(0)));
    let ask = || asked.set(asked.get() + 1);
    assert!(!block_on(waiters.wait(0, seen(5), ask, async {})));
    assert!(!block_on(waiters.wait(0, seen(5), ask, async {})));
    assert_eq!(asked.get(), 2);
    assert_eq!(waiters.lane(0, |lane| lane.wakers.len()), 0);
}

#[test]
fn a_waiter_that_leaves_takes_its_waker_along() {
    let (waiters, asked) = (Rc::new(KeyWaiters::default()), Rc::new(Cell::new(0)));
    let mut gone = waiter(&waiters, 0, &asked);
    let mut stays = waiter(&waiters, 0, &asked);
    assert!(poll(&mut gone).is_none() && poll(&mut stays).is_none());
    drop(gone);
    assert_eq!(waiters.lane(0, |lane| lane.wakers.len()), 1);
    waiters.answer(0);
    assert_eq!(poll(&mut stays), Some(true));
}

/// Made-up key ids while an issuer is slow: those with known tokens keep their places.
#[test]
fn only_so_many_wait_for_one_issuer_and_for_all() {
    let (waiters, asked) = (Rc::new(KeyWaiters::default()), Rc::new(Cell::new(0)));
    let mut tasks: Vec<Task<bool>> = Vec::new();
    for provider in 0..4 {
        for _ in 0..KEYS_WAITING_MAX {
            tasks.push(waiter(&waiters, provider, &asked));
            assert_eq!(tasks.last_mut().and_then(poll), None);
        }
        // Refused at once, and the question under way is still the same.
        assert_eq!(poll(&mut waiter(&waiters, provider, &asked)), Some(false));
        assert_eq!(asked.get(), u32::from(provider) + 1);
    }
    assert_eq!(tasks.len(), KEYS_WAITING_ALL_MAX);
    assert_eq!(poll(&mut waiter(&waiters, 4, &asked)), Some(false));
    assert_eq!(asked.get(), 4);
    // One that leaves, or an answer, makes room.
    drop(tasks.remove(0));
    assert_eq!(poll(&mut waiter(&waiters, 4, &asked)), None);
    waiters.answer(0);
    assert_eq!(poll(&mut waiter(&waiters, 0, &asked)), None);
    assert!(4 * KEYS_WAITING_ALL_MAX <= crate::limits::Limits::default().inflight_per_core_max);
}

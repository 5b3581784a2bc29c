use std::cell::Cell;
use std::future::pending;
use std::pin::Pin;
use std::rc::Rc;

use super::*;
use crate::config::Driver;
use crate::net::runtime::{self, Ring};
use crate::net::turns::Turns;

type Task<T> = Pin<Box<dyn Future<Output = T>>>;

fn poll<T>(task: &mut Task<T>) -> Option<T> {
    match task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn admit(pace: &Rc<Pace>) -> Task<Result<(), Reject>> {
    admit_as(pace, Rank::Stranger)
}

fn admit_as(pace: &Rc<Pace>, rank: Rank) -> Task<Result<(), Reject>> {
    let pace = Rc::clone(pace);
    Box::pin(async move { pace.admit(rank, pending()).await })
}

/// A turn whose room is used up.
fn spent() -> Rc<Pace> {
    let pace = Rc::new(Pace::default());
    for _ in 0..VERIFY_PER_TURN_MAX {
        assert_eq!(poll(&mut admit(&pace)), Some(Ok(())));
    }
    pace
}

fn waiting(pace: &Pace) -> usize {
    pace.0
        .with(|queue| {
            [&queue.known, &queue.returning, &queue.strangers].map(|lane| lane.waiting.len())
        })
        .iter()
        .sum()
}

#[test]
fn a_turn_admits_its_budget_in_the_order_of_arrival() {
    let pace = Rc::new(Pace::default());
    let mut tasks: Vec<_> = (0..64).map(|_| admit(&pace)).collect();
    let mut done = 0;
    for turn in 0..64 / VERIFY_PER_TURN_MAX as usize {
        let admitted: Vec<_> = tasks.iter_mut().map(|task| poll(task).is_some()).collect();
        let now = VERIFY_PER_TURN_MAX as usize;
        // The first ones, and no others; polling again admits nobody.
        assert!(admitted.iter().take(now).all(|admitted| *admitted), "turn {turn}");
        assert!(!admitted.iter().skip(now).any(|admitted| *admitted), "turn {turn}");
        tasks.drain(..now);
        done += now;
        assert!(tasks.iter_mut().all(|task| poll(task).is_none()));
        // Who comes late does not pass those who wait.
        if !tasks.is_empty() {
            let mut late = admit(&pace);
            assert_eq!(poll(&mut late), None);
        }
        pace.new_turn();
    }
    assert_eq!((done, tasks.len(), waiting(&pace)), (64, 0, 0));
}

#[test]
fn the_queue_is_bounded_and_so_is_the_wait() {
    let pace = spent();
    let mut tasks: Vec<_> = (0..VERIFY_WAITING_MAX).map(|_| admit(&pace)).collect();
    assert!(tasks.iter_mut().all(|task| poll(task).is_none()));
    assert_eq!(poll(&mut admit(&pace)), Some(Err(Reject::GatewayOverloaded)));
    // Whoever leaves makes room, whose deadline passes is told so, and neither holds up others.
    drop(tasks.remove(0));
    let late = Rc::clone(&pace);
    let mut late: Task<_> = Box::pin(async move { late.admit(Rank::Stranger, async {}).await });
    assert_eq!(poll(&mut late), Some(Err(Reject::GatewayOverloaded)));
    assert_eq!(waiting(&pace), VERIFY_WAITING_MAX - 1);
    pace.new_turn();
    assert_eq!(poll(&mut tasks[0]), Some(Ok(())));
    assert_eq!(poll(&mut tasks[VERIFY_PER_TURN_MAX as usize]), None);
    drop(tasks);
    assert_eq!(waiting(&pace), 0);
}

#[test]
fn a_place_that_is_given_back_serves_the_next_one_in_the_same_turn() {
    let pace = spent();
    let (mut first, mut second) = (admit(&pace), admit(&pace));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    pace.give_back();
    assert_eq!(poll(&mut first), Some(Ok(())));
    assert_eq!(poll(&mut second), None);
}

#[test]
fn who_is_known_comes_before_who_returns_and_both_before_strangers() {
    let pace = spent();
    let mut strangers: Vec<_> = (0..VERIFY_WAITING_MAX).map(|_| admit(&pace)).collect();
    assert!(strangers.iter_mut().all(|task| poll(task).is_none()));
    assert_eq!(poll(&mut admit(&pace)), Some(Err(Reject::GatewayOverloaded)));
    // A full lane of strangers turns nobody else away.
    let per_turn = VERIFY_PER_TURN_MAX as usize;
    let mut returning: Vec<_> =
        (0..2 * VERIFY_WAITING_MAX).map(|_| admit_as(&pace, Rank::Returning)).collect();
    assert!(returning.iter_mut().all(|task| poll(task).is_none()));
    let mut known: Vec<_> = (0..per_turn).map(|_| admit_as(&pace, Rank::Known)).collect();
    assert!(known.iter_mut().all(|task| poll(task).is_none()));
    pace.new_turn();
    assert!(known.iter_mut().all(|task| poll(task) == Some(Ok(()))));
    assert!(returning.iter_mut().all(|task| poll(task).is_none()));
    for turn in 0..returning.len() / per_turn {
        pace.new_turn();
        let served = returning.iter_mut().skip(turn * per_turn).take(per_turn);
        assert!({ served }.all(|task| poll(task) == Some(Ok(()))), "turn {turn}");
        assert!(poll(&mut strangers[0]).is_none());
    }
    pace.new_turn();
    assert_eq!(poll(&mut strangers[0]), Some(Ok(())));
    drop((strangers, returning, known));
    assert_eq!(waiting(&pace), 0);
}

/// Wakes nobody, but counts that it should have.
struct Count(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn the_pacer_is_woken_when_a_turn_is_spent_and_only_then() {
    let pace = Rc::new(Pace::default());
    let count = std::sync::Arc::new(Count(0.into()));
    let woken = || count.0.load(std::sync::atomic::Ordering::Relaxed);
    let waker = Waker::from(std::sync::Arc::clone(&count));
    let ended = Rc::new(Cell::new(false));
    let mut pacer: Task<()> = {
        let (pace, ended) = (Rc::clone(&pace), Rc::clone(&ended));
        Box::pin(async move {
            pace.spent().await;
            ended.set(true);
        })
    };
    assert!(pacer.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    for _ in 1..VERIFY_PER_TURN_MAX {
        assert_eq!(poll(&mut admit(&pace)), Some(Ok(())));
        assert_eq!(woken(), 0);
    }
    assert_eq!(poll(&mut admit(&pace)), Some(Ok(())));
    assert_eq!(woken(), 1);
    assert!(pacer.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() && ended.get());
}

/// Counted in turns of the loop, not in time: whoever is known waits for a few verifications, not
/// for all sixty-four.
#[test]
fn newcomers_do_not_hold_up_who_is_known() {
    let (best, _) = runtime::choose(Driver::Auto).unwrap();
    for ring in [Ring::Epoll, best] {
        let between = runtime::block_on(ring, async {
            let (pace, done) = (Rc::new(Pace::default()), Rc::new(Cell::new(0_u32)));
            let (paced, mut turns) = (Rc::clone(&pace), Turns::new().unwrap());
            runtime::spawn(async move {
                loop {
                    paced.spent().await;
                    turns.next().await;
                    paced.new_turn();
                }
            });
            for _ in 0..64 {
                let (pace, done) = (Rc::clone(&pace), Rc::clone(&done));
                runtime::spawn(async move {
                    pace.admit(Rank::Stranger, pending()).await.unwrap();
                    done.set(done.get() + 1);
                });
            }
            // A known agent: every request of it is an event of the kernel's.
            let (mut known, mut between) = (Turns::new().unwrap(), Vec::new());
            while done.get() < 64 {
                let before = done.get();
                known.next().await;
                between.push(done.get() - before);
            }
            between
        })
        .unwrap();
        let worst = between.iter().max().copied().unwrap_or_default();
        assert!(worst <= 2 * VERIFY_PER_TURN_MAX, "{ring}: {between:?}");
    }
}

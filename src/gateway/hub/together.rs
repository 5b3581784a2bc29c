//! Several futures of one request, carried out at the same time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// The answers of all of `futures`, in their order, once the last one is there. None of them is
/// dropped before its end: each has a deadline of its own.
pub(super) async fn together<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<State<F>> = futures.map(|it| State::Running(Box::pin(it))).collect();
    poll_fn(|context| {
        let mut all = true;
        for state in &mut running {
            if let State::Running(future) = state {
                match future.as_mut().poll(context) {
                    Poll::Ready(answer) => *state = State::Done(answer),
                    Poll::Pending => all = false,
                }
            }
        }
        if all { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let done = |state| match state {
        State::Done(answer) => Some(answer),
        State::Running(_) => None,
    };
    running.into_iter().filter_map(done).collect()
}

enum State<F: Future> {
    /// Polled whenever any of them stirs: there are as many as there are servers.
    Running(Pin<Box<F>>),
    Done(F::Output),
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn all_run_at_once_and_answer_in_their_order() {
        let open = [const { Cell::new(false) }; 3];
        let waits = |at: usize| {
            let open = &open[at];
            poll_fn(move |_| if open.get() { Poll::Ready(at) } else { Poll::Pending })
        };
        let mut all = Box::pin(together((0..3).map(waits)));
        let mut context = Context::from_waker(Waker::noop());
        for at in [2, 0, 1] {
            assert_eq!(all.as_mut().poll(&mut context), Poll::Pending);
            open[at].set(true);
        }
        assert_eq!(all.as_mut().poll(&mut context), Poll::Ready(vec![0, 1, 2]));
    }
}

//! A connection without sockets, for the bench `whole_way` (feature `bench-internals`).
//!
//! What runs is [`super::serve`]'s own turn, with nothing left out but the kernel: both sides are
//! scripted peers that are always ready, so a turn ends at its first poll.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::{Turn, turn};
use crate::listener::Downstream;
use crate::net::Stream;
use crate::shard::Shard;

/// An agent that sends one request over and over, and a server that gives one answer.
pub struct WholeWay {
    shard: Rc<Shard>,
    downstream: Downstream,
}

impl WholeWay {
    /// `request` is a whole request with its body, `answer` a whole response of server `server`,
    /// which is sent the credential of index `credential`.
    #[must_use]
    pub fn new(
        shard: Rc<Shard>,
        request: Vec<u8>,
        answer: Vec<u8>,
        server: usize,
        credential: Option<usize>,
    ) -> Self {
        let generation = shard.world().snapshot.config_generation;
        let upstream = Stream::scripted(answer, shard.timers.clone());
        shard.relay.keep_idle(server, credential, generation, upstream);
        let downstream = Downstream::new(Stream::scripted(request, shard.timers.clone()));
        Self { shard, downstream }
    }

    /// Carries one request all the way. False when it was not answered as one that may be followed
    /// by another, or waited for anything.
    pub fn turn(&mut self) -> bool {
        let turn = pin!(turn(&self.shard, &mut self.downstream));
        matches!(turn.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Turn::Again))
    }
}

//! Connections that are used once and then rest, for `load idle`.

use crate::clock::{self, SECOND};
use crate::fault::Fault;
use crate::generate::engine::{Engine, OPEN_SECONDS_MAX, OPENING_MAX, Phase};
use crate::stop::Stop;

impl Engine {
    /// Sends one request over every connection and waits for the answers.
    pub(crate) fn once_each(&mut self) -> Result<(), Fault> {
        let begin = clock::now();
        let limit = begin + OPEN_SECONDS_MAX * SECOND;
        self.tally.open(begin, limit);
        self.phase = Phase::Draining;
        let mut ready = Vec::new();
        for index in 0..self.slots.len() {
            self.take_free(index);
            self.begin(index, clock::now());
            // A server is asked by a few at a time, so that none of its limits on a rush is met.
            while self.under_way >= OPENING_MAX && clock::now() < limit {
                self.turn(clock::now(), limit, &mut ready)?;
            }
        }
        while self.under_way > 0 && clock::now() < limit {
            self.turn(clock::now(), limit, &mut ready)?;
        }
        let answered = self.tally.requests();
        if answered == self.slots.len() as u64 {
            return Ok(());
        }
        Err(Fault::new(format!(
            "{answered} of {} connections were answered; errors: {:?}",
            self.slots.len(),
            self.tally.errors()
        )))
    }

    /// Keeps the connections until standard input closes; says how many the server ended meanwhile.
    pub(crate) fn hold(&mut self) -> Result<usize, Fault> {
        let mut stop = Stop::new(&self.poll, SIGNALS, INPUT)?;
        let (mut ready, mut closed) = (Vec::new(), 0);
        loop {
            self.poll.wait(None, &mut ready)?;
            for event in &ready {
                if matches!(event.key, SIGNALS | INPUT) {
                    if stop.is_asked(event.key) {
                        return Ok(closed);
                    }
                } else if event.ending {
                    closed += 1;
                    self.down(event.key as u32 as usize);
                }
            }
        }
    }
}

/// Keys of connections never have this upper half.
const SIGNALS: u64 = u64::MAX;
const INPUT: u64 = u64::MAX - 1;

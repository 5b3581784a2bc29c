//! Mail: what a client sends to one core and another one waits for. Its answer to a question of a
//! server, the cancelling of a call, its interest in a resource.
//!
//! This is the one place where data of a request leaves its core; the README names it as the
//! deviation that it is. Between every two cores there is a stream pair, made before the threads
//! start. What is on its way is bounded; a pair that is full refuses, and nobody waits. A frame
//! that cannot be read is our own fault, and ends the process: nobody else can write there.

mod frame;

use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use crate::core_cell::CoreCell;
use crate::event::Event;
use crate::limits::{MAIL_BODY_BYTES_MAX, MAIL_LETTERS_MAX};
use crate::net::pairs::{End, Incoming, Outgoing};
use crate::net::runtime;
use crate::reject::Reject;

pub use self::frame::{BrokenFrame, Frames, Letter, MailKind};

/// One core's letterboxes towards all others.
pub struct Post {
    core: u16,
    /// By the number of the core; its own is never used.
    boxes: Vec<Outbox>,
}

/// Letters that were not written out yet.
#[derive(Default)]
struct Outbox {
    queue: CoreCell<Queue>,
    rung: Event,
}

#[derive(Default)]
struct Queue {
    /// Whole frames.
    letters: VecDeque<Vec<u8>>,
    /// How many are on their way, the one that is being written included.
    number: usize,
    /// What their bodies have.
    bytes: usize,
}

/// Takes in what comes.
pub trait Addressee {
    /// One letter.
    fn deliver(&self, letter: Letter);
}

impl Post {
    /// The post of core number `core` of `cores`.
    #[must_use]
    pub fn new(core: u16, cores: u16) -> Rc<Self> {
        Rc::new(Self { core, boxes: (0..cores).map(|_| Outbox::default()).collect() })
    }

    /// How many cores there are.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.boxes.len() as u16
    }

    /// Puts a letter on its way to core `to`. Never waits. `body_bytes_max` bounds the bodies that
    /// are on their way there, together.
    ///
    /// # Errors
    /// `MailFull` when too much is on its way there; `GatewayFault` when there is no such core, or
    /// it is this one, which can be told without mail.
    pub fn send(&self, to: u16, letter: &Letter, body_bytes_max: usize) -> Result<(), Reject> {
        let outbox = self.boxes.get(usize::from(to)).filter(|_| to != self.core);
        let outbox = outbox.ok_or(Reject::GatewayFault)?;
        let bytes_max = body_bytes_max.min(MAIL_BODY_BYTES_MAX);
        outbox.queue.with(|queue| {
            let bytes = queue.bytes.saturating_add(letter.body.len());
            if queue.number >= MAIL_LETTERS_MAX || bytes > bytes_max {
                return Err(Reject::MailFull);
            }
            queue.bytes = bytes;
            queue.number += 1;
            queue.letters.push_back(letter.frame(self.core));
            Ok(())
        })?;
        outbox.rung.ring();
        Ok(())
    }

    /// Starts reading and writing on this core's ends. `broken` hears of what ends the process.
    ///
    /// # Errors
    /// What the kernel said of one of the ends.
    pub fn open(
        self: &Rc<Self>,
        ends: Vec<End>,
        addressee: &Rc<impl Addressee + 'static>,
        broken: impl Fn(String) + Clone + 'static,
    ) -> io::Result<()> {
        for end in ends {
            let to = end.to;
            let (incoming, outgoing) = end.open()?;
            let (addressee, gone) = (Rc::clone(addressee), broken.clone());
            runtime::spawn(async move {
                let words = read(to, incoming, &*addressee).await;
                gone(format!("mail from core {to}: {words}"));
            });
            let (post, gone) = (Rc::clone(self), broken.clone());
            runtime::spawn(async move {
                if let Some(error) = post.write(to, outgoing).await {
                    gone(format!("mail to core {to}: {error}"));
                }
            });
        }
        Ok(())
    }

    /// Writes what is put in, for as long as it can.
    async fn write(&self, to: u16, mut outgoing: Outgoing) -> Option<io::Error> {
        let outbox = self.boxes.get(usize::from(to))?;
        loop {
            let seen = outbox.rung.version();
            let Some(frame) = outbox.queue.with(|queue| queue.letters.pop_front()) else {
                outbox.rung.changed(seen).await;
                continue;
            };
            let body = frame.len() - frame::HEAD_BYTES;
            if let Err(error) = outgoing.write(frame).await {
                return Some(error);
            }
            // Only now: the other core may not take anything in.
            outbox.queue.with(|queue| {
                queue.number -= 1;
                queue.bytes -= body;
            });
        }
    }
}

/// Reads letters until something is wrong, and says what.
async fn read(from: u16, mut incoming: Incoming, addressee: &impl Addressee) -> String {
    let mut frames = Frames::new(from);
    let mut buffer = Vec::with_capacity(READ_BYTES);
    loop {
        buffer = match incoming.read(buffer).await {
            Ok(buffer) => buffer,
            Err(error) => return error.to_string(),
        };
        frames.push(&buffer);
        buffer.clear();
        loop {
            match frames.take() {
                Ok(Some(letter)) => addressee.deliver(letter),
                Ok(None) => break,
                Err(BrokenFrame) => return "a frame cannot be read".to_owned(),
            }
        }
    }
}

const READ_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod tests;

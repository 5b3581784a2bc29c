//! What completions mean.

use std::io;

use io_uring::cqueue;

use super::chunk::{Chunk, Memory};
use super::event::{Event, Handle, Outcome};
use super::{NUMBER_MASK, Operation, Ring};

impl Ring {
    /// What a completion means. It is the last of its operation unless the kernel announces more.
    pub(super) fn complete(&mut self, completion: &cqueue::Entry) -> Option<Event> {
        let number = usize::try_from(completion.user_data() & NUMBER_MASK).ok()?;
        let (result, more) = (completion.result(), cqueue::more(completion.flags()));
        if more {
            return match self.operations.get(number)? {
                Operation::Accept => Some(Event::Accepted { result: self.handle(result), more }),
                Operation::Receive { socket, .. } => {
                    let socket = *socket;
                    Some(self.received(socket, None, completion, more))
                }
                _ => None,
            };
        }
        let fine = result >= 0;
        match self.operations.try_remove(number)? {
            Operation::Accept => Some(Event::Accepted { result: self.handle(result), more }),
            Operation::Cancel | Operation::Option => None,
            Operation::Close { socket } => Some(Event::Closed { socket }),
            Operation::Connect { socket, address } => {
                drop(address);
                Some(Event::Connected { socket, fine })
            }
            Operation::Gather { socket, mut gather, bytes } => {
                while let Some(chunk) = gather.chunks.pop() {
                    self.give_back(chunk);
                }
                self.gathers.push(gather);
                Some(Event::Sent { socket, fine: usize::try_from(result) == Ok(bytes) })
            }
            Operation::Open { socket } => {
                Some(Event::Opened { socket, result: self.handle(result) })
            }
            Operation::Receive { socket, memory } => {
                Some(self.received(socket, memory, completion, more))
            }
            Operation::Rest { time } => {
                drop(time);
                Some(Event::Rested)
            }
            Operation::Send { socket, chunk } => {
                let fine = usize::try_from(result) == Ok(chunk.bytes().len());
                self.give_back(chunk);
                Some(Event::Sent { socket, fine })
            }
            Operation::Shut { socket } => Some(Event::Shut { socket }),
        }
    }

    fn handle(&self, result: i32) -> io::Result<Handle> {
        match u32::try_from(result) {
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
            Ok(slot) if self.direct => Ok(Handle::Direct(slot)),
            Ok(_) => Ok(Handle::Plain(result)),
        }
    }

    fn received(
        &mut self,
        socket: usize,
        memory: Option<Box<[u8]>>,
        completion: &cqueue::Entry,
        more: bool,
    ) -> Event {
        let lent =
            cqueue::buffer_select(completion.flags()).and_then(|id| self.pool.as_mut()?.take(id));
        let length = usize::try_from(completion.result());
        let memory = memory.map(Memory::Boxed).or(lent);
        let outcome = match (length, memory, -completion.result()) {
            (Ok(length @ 1..), Some(memory), _) => {
                Outcome::Bytes(Chunk { memory, range: 0..length })
            }
            (length, memory, fault) => {
                if let Some(memory) = memory {
                    self.give_back(Chunk { memory, range: 0..0 });
                }
                match (length, fault) {
                    (Ok(_), _) => Outcome::End,
                    (Err(_), libc::ENOBUFS) => Outcome::Starved,
                    (Err(_), libc::ECANCELED) => Outcome::Cancelled,
                    (Err(_), _) => Outcome::Failed,
                }
            }
        };
        Event::Received { socket, outcome, more }
    }
}

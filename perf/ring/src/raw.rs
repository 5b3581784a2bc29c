//! The ring: the one file with unsafe code. Everything that the kernel may touch while an operation
//! is under way belongs to the operation, and comes back with its last completion; so the rest of
//! the relay cannot reach memory that the kernel writes.
#![allow(unsafe_code, reason = "submitting to a ring is a promise about memory; see each SAFETY")]

mod chunk;
mod complete;
mod event;

use std::collections::VecDeque;
use std::io;
use std::mem::{self, ManuallyDrop};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::squeue::{Entry, Flags as EntryFlags};
use io_uring::types::{BufRingEntry, DestinationSlot, Fd, Fixed, Timespec};
use io_uring::{CompletionQueue, IoUring, SubmissionQueue, Submitter, opcode};
use slab::Slab;
use socket2::SockAddr;

use crate::options::{Files, Flags, Options, Recv, Shots};
use crate::sockets::{RECEIVE_BYTES, STALLED_MS_MAX};

pub use self::chunk::Chunk;
use self::chunk::Memory;
pub use self::event::{Event, Handle, Outcome};

/// A ring with the operations that are under way on it.
pub struct Ring {
    submitter: Submitter<'static>,
    submissions: SubmissionQueue<'static>,
    completions: CompletionQueue<'static>,
    /// INVARIANT: an operation stays here until its last completion was read. Never dropped with
    /// the ring: the kernel may still write into what operations hold.
    operations: ManuallyDrop<Slab<Operation>>,
    pool: Option<Pool>,
    direct: bool,
    receive: Recv,
    accept: Shots,
    receive_flags: u16,
    receive_bytes: usize,
    /// Memory to be used again, newest first, so that it is still in the cache.
    boxes: Vec<Box<[u8]>>,
    blanks: Vec<Vec<u8>>,
    #[allow(clippy::vec_box, reason = "the kernel holds their addresses")]
    gathers: Vec<Box<Gather>>,
    broken: Option<io::Error>,
    turn: u32,
}

enum Operation {
    Accept,
    Cancel,
    Close { socket: usize },
    Connect { socket: usize, address: Box<SockAddr> },
    Gather { socket: usize, gather: Box<Gather>, bytes: usize },
    Open { socket: usize },
    Option,
    Receive { socket: usize, memory: Option<Box<[u8]>> },
    Rest { time: Box<Timespec> },
    Send { socket: usize, chunk: Chunk },
    Shut { socket: usize },
}

/// A `sendmsg` under way. INVARIANT: `header` points to `parts` and these to `chunks`; the box does
/// not move while the kernel may read it.
struct Gather {
    header: libc::msghdr,
    parts: [libc::iovec; GATHER_MAX],
    chunks: Vec<Chunk>,
}

/// The provided buffers and the ring in which the kernel finds them. All of it is leaked: it lives
/// as long as the process, and so as long as the kernel may use it.
struct Pool {
    entries: *mut BufRingEntry,
    mask: u16,
    tail: u16,
    /// INVARIANT: a buffer is here while the kernel may write into it, and nobody looks at it.
    given: Vec<Option<&'static mut [u8]>>,
    available: usize,
}

/// One page of buffer entries; the kernel wants them aligned to it.
#[repr(C, align(4096))]
#[derive(Clone)]
struct Page([u8; 4096]);

impl Ring {
    /// Sets a ring up as `options` say. It is made to live as long as the process.
    ///
    /// # Errors
    /// When the kernel refuses a feature that was asked for; nothing is replaced in silence.
    pub fn new(options: &Options) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        match options.flags {
            Flags::None => {}
            Flags::Coop => {
                builder.setup_coop_taskrun();
            }
            Flags::Defer => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            Flags::Epoll => return Err(io::ErrorKind::Unsupported.into()),
        }
        let ring: &'static mut IoUring = Box::leak(Box::new(builder.build(RING_ENTRIES)?));
        let (mut submitter, submissions, completions) = ring.split();
        let direct = options.files == Files::Registered;
        if direct {
            register_files(&submitter)?;
        }
        if options.ring_fd == Files::Registered {
            submitter.register_ring_fd()?;
        }
        let pool = match options.recv {
            Recv::Single => None,
            Recv::Provided | Recv::Multishot => Some(Pool::new(&submitter, options)?),
        };
        Ok(Self {
            submitter,
            submissions,
            completions,
            operations: ManuallyDrop::new(Slab::with_capacity(1024)),
            pool,
            direct,
            receive: options.recv,
            accept: options.accept,
            receive_flags: if options.try_first { 0 } else { POLL_FIRST },
            receive_bytes: options.receive_bytes,
            boxes: Vec::new(),
            blanks: Vec::new(),
            gathers: Vec::new(),
            broken: None,
            turn: 0,
        })
    }

    /// Makes `listener` known: as a direct descriptor when these are asked for.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn adopt(&mut self, listener: RawFd) -> io::Result<Handle> {
        if self.direct {
            self.submitter.register_files_update(0, &[listener])?;
            return Ok(Handle::Direct(0));
        }
        Ok(Handle::Plain(listener))
    }

    /// Accepts one connection, or all that come.
    pub fn accept(&mut self, listener: Handle) {
        let entry = match self.accept {
            Shots::Single => {
                let none = std::ptr::null_mut();
                let slot = self.direct.then(DestinationSlot::auto_target);
                let accept = opcode::Accept::new(Fd(listener.number()), none, none.cast());
                let flags = if self.direct { 0 } else { libc::SOCK_CLOEXEC };
                accept.flags(flags).file_index(slot).build()
            }
            Shots::Multishot => {
                let flags = if self.direct { 0 } else { libc::SOCK_CLOEXEC };
                let accept = opcode::AcceptMulti::new(Fd(listener.number()));
                accept.flags(flags).allocate_file_index(self.direct).build()
            }
        };
        self.submit(listener.on(entry), Operation::Accept);
    }

    /// Asks for a TCP socket of the family of `address`.
    pub fn open(&mut self, socket: usize, address: &SockAddr) {
        let slot = self.direct.then(DestinationSlot::auto_target);
        let kind =
            if self.direct { libc::SOCK_STREAM } else { libc::SOCK_STREAM | libc::SOCK_CLOEXEC };
        let entry = opcode::Socket::new(address.domain().into(), kind, libc::IPPROTO_TCP)
            .file_index(slot)
            .build();
        self.submit(entry, Operation::Open { socket });
    }

    /// Connects an opened socket, with the terms that [`crate::sockets::listen`] gives the others.
    pub fn connect(&mut self, socket: usize, handle: Handle, address: SockAddr) {
        self.make_room(3);
        for (name, value) in [(libc::TCP_NODELAY, &NO_DELAY), (libc::TCP_USER_TIMEOUT, &STALLED)] {
            let value: *const libc::c_int = value;
            let entry = opcode::SetSockOpt::new(
                Fd(handle.number()),
                libc::IPPROTO_TCP.cast_unsigned(),
                name.cast_unsigned(),
                value.cast(),
                SOCKET_OPTION_BYTES,
            );
            // Linked: a connection without these terms is none.
            let entry = handle.on(entry.build()).flags(EntryFlags::IO_LINK);
            self.submit(entry, Operation::Option);
        }
        let address = Box::new(address);
        let entry =
            opcode::Connect::new(Fd(handle.number()), address.as_ptr().cast(), address.len());
        self.submit(handle.on(entry.build()), Operation::Connect { socket, address });
    }

    /// Receives once or until cancelled, as the ring was set up. What comes back cancels it, and
    /// nothing else: not even when its last completion was read meanwhile.
    pub fn receive(&mut self, socket: usize, handle: Handle) -> u64 {
        let fd = Fd(handle.number());
        if self.receive == Recv::Multishot {
            let entry = handle.on(opcode::RecvMulti::new(fd, POOL).build());
            return self.submit(entry, Operation::Receive { socket, memory: None });
        }
        if self.receive == Recv::Provided {
            let entry = opcode::Recv::new(fd, std::ptr::null_mut(), 0).buf_group(POOL);
            let entry = entry.ioprio(self.receive_flags).build().flags(EntryFlags::BUFFER_SELECT);
            return self.submit(handle.on(entry), Operation::Receive { socket, memory: None });
        }
        let mut memory = self.boxes.pop().unwrap_or_else(|| vec![0; self.receive_bytes].into());
        let length = u32::try_from(memory.len()).unwrap_or(u32::MAX);
        let entry = opcode::Recv::new(fd, memory.as_mut_ptr(), length).ioprio(self.receive_flags);
        let entry = handle.on(entry.build());
        self.submit(entry, Operation::Receive { socket, memory: Some(memory) })
    }

    /// Ends a receive; its last event still comes.
    pub fn cancel(&mut self, receive: u64) {
        let entry = opcode::AsyncCancel::new(receive).build();
        self.submit(entry, Operation::Cancel);
    }

    /// Sends all of `chunk`.
    pub fn send(&mut self, socket: usize, handle: Handle, chunk: Chunk) {
        self.send_linked(socket, handle, chunk, false);
    }

    /// Sends up to [`GATHER_MAX`] chunks of `waiting` one after the other, each linked to the next,
    /// and tells how many.
    pub fn send_chain(
        &mut self,
        socket: usize,
        handle: Handle,
        waiting: &mut VecDeque<Chunk>,
    ) -> usize {
        let count = waiting.len().min(GATHER_MAX);
        // A chain is one only within one submission.
        self.make_room(count);
        for (number, chunk) in waiting.drain(..count).enumerate() {
            self.send_linked(socket, handle, chunk, number + 1 < count);
        }
        count
    }

    fn send_linked(&mut self, socket: usize, handle: Handle, chunk: Chunk, linked: bool) {
        let bytes = chunk.bytes();
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(Fd(handle.number()), bytes.as_ptr(), length);
        // With WAITALL the kernel goes on after a short send by itself.
        let entry = handle.on(entry.flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL).build());
        let entry = if linked { entry.flags(EntryFlags::IO_LINK) } else { entry };
        self.submit(entry, Operation::Send { socket, chunk });
    }

    /// Sends up to [`GATHER_MAX`] chunks of `waiting` as one message.
    pub fn send_gathered(&mut self, socket: usize, handle: Handle, waiting: &mut VecDeque<Chunk>) {
        let mut gather = self.gathers.pop().unwrap_or_else(Gather::boxed);
        let count = waiting.len().min(GATHER_MAX);
        gather.chunks.extend(waiting.drain(..count));
        let bytes = gather.point();
        let header: *const libc::msghdr = &raw const gather.header;
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned();
        let entry = opcode::SendMsg::new(Fd(handle.number()), header).flags(flags).build();
        self.submit(handle.on(entry), Operation::Gather { socket, gather, bytes });
    }

    /// Shuts both directions, which ends what is under way on the socket.
    pub fn shut(&mut self, socket: usize, handle: Handle) {
        let entry = opcode::Shutdown::new(Fd(handle.number()), libc::SHUT_RDWR).build();
        self.submit(handle.on(entry), Operation::Shut { socket });
    }

    /// Gives the handle up.
    pub fn close(&mut self, socket: usize, handle: Handle) {
        let entry = match handle {
            Handle::Plain(descriptor) => opcode::Close::new(Fd(descriptor)).build(),
            Handle::Direct(slot) => opcode::Close::new(Fixed(slot)).build(),
        };
        self.submit(entry, Operation::Close { socket });
    }

    /// Says [`Event::Rested`] after so many milliseconds.
    pub fn rest(&mut self, milliseconds: u64) {
        let nanoseconds = u32::try_from(milliseconds % 1000 * 1_000_000).unwrap_or_default();
        let time = Box::new(Timespec::new().sec(milliseconds / 1000).nsec(nanoseconds));
        let entry = opcode::Timeout::new(&raw const *time).build();
        self.submit(entry, Operation::Rest { time });
    }

    /// Submits what was asked for and waits for at least one completion.
    ///
    /// # Errors
    /// When the ring cannot go on.
    pub fn wait(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        self.submissions.sync();
        match self.submitter.submit_and_wait(1) {
            // Busy: completions wait to be read, which is what comes next.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY)) => {
                return Err(error);
            }
            Ok(_) | Err(_) => self.submissions.sync(),
        }
        self.completions.sync();
        while let Some(completion) = self.completions.next() {
            events.extend(self.complete(&completion));
        }
        self.completions.sync();
        Ok(())
    }

    /// Provided buffers that the kernel has: a share of all, in percent. 100 without provided ones.
    #[must_use]
    pub fn available_percent(&self) -> usize {
        self.pool.as_ref().map_or(100, |pool| pool.available * 100 / pool.given.len().max(1))
    }

    /// Empty memory to write into.
    pub fn blank(&mut self) -> Vec<u8> {
        self.blanks.pop().unwrap_or_default()
    }

    /// Gives memory back that is not needed any more.
    pub fn give_back(&mut self, chunk: Chunk) {
        match chunk.memory {
            Memory::Boxed(memory) => self.boxes.push(memory),
            Memory::Lent { id, bytes } => {
                if let Some(pool) = &mut self.pool {
                    pool.give(id, bytes);
                }
            }
            Memory::Made(mut bytes) => {
                bytes.clear();
                self.blanks.push(bytes);
            }
        }
    }

    fn submit(&mut self, entry: Entry, operation: Operation) -> u64 {
        self.make_room(1);
        // Numbers are used again at once; the turn tells an operation from an earlier one, so that
        // a late cancel does not hit a stranger.
        self.turn = self.turn.wrapping_add(1);
        let number = self.operations.insert(operation) as u64;
        let number = u64::from(self.turn) << 32 | number & NUMBER_MASK;
        let entry = entry.user_data(number);
        // SAFETY: all that `entry` points to is static or owned by `operation`, on the heap, and
        // that stays in `operations` until its last completion. A full queue means that the kernel
        // took nothing although asked to; then `broken` is set and the loop ends.
        let pushed = unsafe { self.submissions.push(&entry) };
        if pushed.is_err() && self.broken.is_none() {
            self.broken = Some(io::ErrorKind::OutOfMemory.into());
        }
        number
    }

    /// Sees to it that `count` entries fit, by submitting what is there.
    fn make_room(&mut self, count: usize) {
        if self.submissions.capacity() - self.submissions.len() >= count {
            return;
        }
        self.submissions.sync();
        if let Err(error) = self.submitter.submit() {
            self.broken = Some(error);
        }
        self.submissions.sync();
    }
}

/// Registers as many direct descriptors as the process may have files.
fn register_files(submitter: &Submitter<'_>) -> io::Result<()> {
    let mut count = DIRECT_MAX;
    loop {
        match submitter.register_files_sparse(count) {
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) && count > DIRECT_MIN => {
                count /= 2;
            }
            other => return other,
        }
    }
}

impl Gather {
    fn boxed() -> Box<Self> {
        let part = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a message header is integers and pointers; all zero is an empty one.
        let header = unsafe { mem::zeroed() };
        Box::new(Self { header, parts: [part; GATHER_MAX], chunks: Vec::with_capacity(GATHER_MAX) })
    }

    /// Makes the header point to the chunks; how many bytes they are.
    fn point(&mut self) -> usize {
        let mut all = 0;
        for (part, chunk) in self.parts.iter_mut().zip(&self.chunks) {
            let bytes = chunk.bytes();
            all += bytes.len();
            *part =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = self.chunks.len();
        all
    }
}

impl Pool {
    fn new(submitter: &Submitter<'_>, options: &Options) -> io::Result<Self> {
        let count = usize::from(options.buffers);
        let pages = (count * mem::size_of::<BufRingEntry>()).div_ceil(mem::size_of::<Page>());
        let pages: &'static mut [Page] = vec![Page([0; 4096]); pages].leak();
        let entries: *mut BufRingEntry = pages.as_mut_ptr().cast();
        // SAFETY: the memory is aligned to a page, holds `count` entries, and is never freed.
        unsafe {
            submitter.register_buf_ring_with_flags(entries as u64, options.buffers, POOL, 0)?;
        }
        let bytes = usize::try_from(options.buffer_bytes).unwrap_or(RECEIVE_BYTES);
        let memory: &'static mut [u8] = vec![0; count * bytes].leak();
        let given = (0..count).map(|_| None).collect();
        let mut pool = Self { entries, mask: options.buffers - 1, tail: 0, given, available: 0 };
        for (id, buffer) in (0..options.buffers).zip(memory.chunks_exact_mut(bytes)) {
            pool.give(id, buffer);
        }
        Ok(pool)
    }

    /// Takes a buffer out that the kernel has filled.
    fn take(&mut self, id: u16) -> Option<Memory> {
        let bytes = self.given.get_mut(usize::from(id))?.take()?;
        self.available -= 1;
        Some(Memory::Lent { id, bytes })
    }

    /// Lends a buffer to the kernel.
    fn give(&mut self, id: u16, bytes: &'static mut [u8]) {
        let Some(place @ None) = self.given.get_mut(usize::from(id)) else { return };
        let (address, length) = (bytes.as_mut_ptr(), u32::try_from(bytes.len()).unwrap_or(0));
        *place = Some(bytes);
        self.available += 1;
        let at = usize::from(self.tail & self.mask);
        // SAFETY: `at` is within the registered entries. Entries from the tail on are ours until
        // the tail moves over them, and there are as many entries as buffers, so this one is not
        // in use. The kernel writes to entries never. The tail shares the first entry's memory,
        // in a field that the setters leave alone.
        unsafe {
            let entry = &mut *self.entries.add(at);
            entry.set_addr(address as u64);
            entry.set_len(length);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail is an aligned u16 within the first entry; the kernel only reads it, and
        // must see the entry before it sees the tail, hence the release.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}

/// Chunks in one gathered send or one chain.
pub const GATHER_MAX: usize = 16;

/// The part of an operation's name that says where it is kept.
const NUMBER_MASK: u64 = u32::MAX as u64;
/// Submission entries. A batch that is larger is submitted in parts.
const RING_ENTRIES: u32 = 4096;
/// Direct descriptors: clients and as many connections of ours.
const DIRECT_MAX: u32 = 32 * 1024;
const DIRECT_MIN: u32 = 256;
/// The group of provided buffers.
const POOL: u16 = 0;
/// `IORING_RECVSEND_POLL_FIRST`: wait for readiness before trying.
const POLL_FIRST: u16 = 1;
/// Values of socket options: read by the kernel when it gets to them.
static NO_DELAY: libc::c_int = 1;
static STALLED: libc::c_int = STALLED_MS_MAX.cast_signed();
const SOCKET_OPTION_BYTES: u32 = 4;

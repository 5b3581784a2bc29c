//! One JSON-RPC message: read, judged as to its form, and the few facts that decisions need.

use simd_json::{Buffers, INPUT_PADDING, Node, Tape, fill_tape_padded};

use super::arguments::{Arguments, Plan};
use super::era::{self, Era, MODERN_REVISIONS, Mirrored};
use super::facts::{Facts, ListChanges};
use super::method::{Method, Subject};
use super::tree::{Keys, Tree};
use crate::limits::{BODY_BUFFER_KEPT_BYTES_MAX, JSON_DEPTH_MAX};
use crate::reject::Reject;

/// What a message is (JSON-RPC 2.0 §4, §4.1, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A method with an id.
    Request,
    /// A method without an id.
    Notification,
    /// The client's answer to a request of the server (legacy era only).
    Response,
}

/// What policy judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target<'a> {
    /// The server as a whole.
    Server,
    /// A tool by name.
    Tool(&'a str),
    /// A prompt by name.
    Prompt(&'a str),
    /// A resource by URI.
    Resource(&'a str),
}

/// What a message is read by.
pub trait Known {
    /// The place of a configured extension method, by its exact name.
    fn extension(&self, method: &str) -> Option<u16>;

    /// Which arguments of a tool policies ask for.
    fn plan(&self, tool: &str) -> Option<&Plan>;
}

/// Extension methods only.
struct Extensions<F>(F);

impl<F: Fn(&str) -> Option<u16>> Known for Extensions<F> {
    fn extension(&self, method: &str) -> Option<u16> {
        self.0(method)
    }

    fn plan(&self, _tool: &str) -> Option<&Plan> {
        None
    }
}

/// A reusable reader of messages. When warm it allocates nothing for a usual message.
///
/// The way is [`Call::read`], then [`Call::agree`]; the facts mean something only after both said
/// `Ok`. The exceptions serve the answer to a refused message: [`Call::id_raw`] and
/// [`Call::requested`].
pub struct Call {
    buffers: Buffers,
    /// Empty between two calls of `read`: only its memory is kept.
    tape: Tape<'static>,
    /// The copy of the body that the parser may write to, with the room behind it that the parser
    /// may read past its end.
    scratch: Vec<u8>,
    keys: Keys,
    /// A mirrored name, decoded from base64.
    decoded: Vec<u8>,
    facts: Facts,
}

impl Default for Call {
    fn default() -> Self {
        Self::new()
    }
}

impl Call {
    /// An empty reader. Its buffers grow with the first messages.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: Buffers::with_max_depth(0, JSON_DEPTH_MAX),
            tape: Tape(Vec::new()),
            scratch: Vec::new(),
            keys: Keys::new(),
            decoded: Vec::new(),
            facts: Facts::new(),
        }
    }

    /// [`Call::read_by`] without any plan; `extension` answers the place of a configured extension
    /// method by its exact name.
    ///
    /// # Errors
    /// Those of [`Call::read_by`].
    pub fn read(
        &mut self,
        body: &[u8],
        extension: impl Fn(&str) -> Option<u16>,
    ) -> Result<(), Reject> {
        self.read_by(body, &Extensions(extension))
    }

    /// Judges the form of the whole body, and copies what is asked for out of it.
    ///
    /// # Errors
    ///
    /// `RpcParse` for what is not one JSON text in UTF-8 of bounded depth, `RpcInvalid` for what is
    /// not one unambiguous JSON-RPC 2.0 message, `RpcParams` for params that cannot be judged.
    pub fn read_by(&mut self, body: &[u8], known: &impl Known) -> Result<(), Reject> {
        self.facts.reset();
        let outcome = self.read_whole(body, known);
        if outcome.is_err() {
            self.facts.forget_all_but_id();
        }
        // Nodes are larger than what they stand for: a short body of many numbers needs more of
        // them than of anything else.
        let nodes = self.tape.0.capacity() * size_of::<Node<'static>>();
        if self.scratch.capacity().max(nodes) > BODY_BUFFER_KEPT_BYTES_MAX {
            self.buffers = Buffers::with_max_depth(0, JSON_DEPTH_MAX);
            self.tape = Tape(Vec::new());
            self.scratch = Vec::new();
        }
        outcome
    }

    /// Compares the mirrored headers with the body, and the method with the era's table.
    ///
    /// # Errors
    ///
    /// `RpcHeaderMismatch`, `RpcVersion` (then see [`Call::requested`]), `RpcInvalid`, `RpcParams`,
    /// `RpcMethodModern`, `RpcMethodLegacy`, and `PolicyStreamDenied` for a legacy notification
    /// that is not forwarded: it has no JSON-RPC answer, and a 404 would end the client's session.
    pub fn agree(&mut self, mirrored: &Mirrored<'_>) -> Result<(), Reject> {
        let Self { facts, decoded, .. } = self;
        let agreed = era::revision(mirrored.protocol_version, facts.meta_revision(), facts.kind);
        if let (Err(Reject::RpcVersion), Some(header)) = (agreed, mirrored.protocol_version) {
            facts.keep_requested(header);
        }
        let (era, revision) = agreed?;
        facts.era = era;
        facts.revision = Some(revision);

        let required = era == Era::Modern && facts.kind == Kind::Request;
        let method = (facts.kind != Kind::Response).then(|| facts.method_name());
        era::mirror(mirrored.method, method, required, None)?;
        let named = facts.method.row().is_some_and(|row| row.mirrored_name);
        era::mirror(mirrored.name, facts.name(), required && named, Some(decoded))?;

        // 2026-07-28 basic/index "_meta": both fields are required of every request.
        let declared = facts.meta_revision().is_some() && facts.capabilities;
        if required && !declared {
            return Err(Reject::RpcParams);
        }
        facts.check_served()
    }

    /// What the message is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.facts.kind
    }

    /// Its method; `Unknown` for a response.
    #[must_use]
    pub fn method(&self) -> Method {
        self.facts.method
    }

    /// The method's name as the body has it, unescaped; empty for a response.
    #[must_use]
    pub fn method_name(&self) -> &str {
        self.facts.method_name()
    }

    /// The id exactly as `body` writes it, when it is one that may be echoed.
    #[must_use]
    pub fn id_raw<'b>(&self, body: &'b [u8]) -> Option<&'b [u8]> {
        body.get(self.facts.id.clone()?)
    }

    /// The tool, prompt or URI that is judged. Not a task id: see [`Call::task_id`].
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.facts.name().filter(|_| self.facts.subject != Subject::Task)
    }

    /// The task id of `tasks/*`. It may work like a bearer secret (SEP-2663): never log it in
    /// clear.
    #[must_use]
    pub fn task_id(&self) -> Option<&str> {
        self.facts.name().filter(|_| self.facts.subject == Subject::Task)
    }

    /// The tasks that the message is about: of `tasks/*`, or all that a listen names.
    pub fn tasks(&self) -> impl Iterator<Item = &str> {
        self.task_id().into_iter().chain(self.facts.tasks())
    }

    /// Everything the message touches. All of it must be permitted; there is always at least one.
    pub fn targets(&self) -> impl Iterator<Item = Target<'_>> {
        std::iter::once(self.first_target()).chain(self.facts.uris().map(Target::Resource))
    }

    fn first_target(&self) -> Target<'_> {
        let name = self.facts.name().unwrap_or_default();
        match self.facts.subject {
            Subject::Tool => Target::Tool(name),
            Subject::Prompt => Target::Prompt(name),
            Subject::Resource => Target::Resource(name),
            Subject::Server | Subject::Task | Subject::Reference | Subject::Subscriptions => {
                Target::Server
            }
        }
    }

    /// Everything the message touches, as [`Call::targets`], with what is done to it when that is
    /// not the message's own method. Where it is about [`Call::tasks`], the server stands for them.
    pub fn wants(&self) -> impl Iterator<Item = (Target<'_>, Option<&'static str>)> {
        let mut first = Some(self.first_target());
        let mut uris = self.facts.uris();
        // Whoever listens to a task learns what `tasks/get` would tell. Its id is the upstream's
        // own here, so that the server is all there is to judge it on.
        let mut tasks = self.facts.tasks().len() > 0;
        std::iter::from_fn(move || {
            let target = first.take().or_else(|| uris.next().map(Target::Resource));
            if let Some(target) = target {
                return Some((target, None));
            }
            std::mem::take(&mut tasks).then_some((Target::Server, Some("tasks/get")))
        })
    }

    /// The arguments of a `tools/call` that policies ask for.
    #[must_use]
    pub fn arguments(&self) -> Arguments<'_> {
        self.facts.arguments()
    }

    /// Which lists a `subscriptions/listen` wants to hear of.
    #[must_use]
    pub fn listens_for(&self) -> ListChanges {
        self.facts.list_changes
    }

    /// The era that header and body agree on.
    #[must_use]
    pub fn era(&self) -> Era {
        self.facts.era
    }

    /// The revision: what `initialize` asks for, else the header's, else the assumed 2025-03-26.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.facts.revision()
    }

    /// After `RpcVersion`: the revision asked for, for `data.requested` beside
    /// [`MODERN_REVISIONS`] as `data.supported`. Visible ASCII, but not escaped for JSON.
    #[must_use]
    pub fn requested(&self) -> Option<&str> {
        self.facts.requested()
    }

    /// `params._meta.traceparent`, unchecked.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.facts.traceparent()
    }

    #[cfg(test)]
    pub(super) fn meta_revision(&self) -> Option<&str> {
        self.facts.meta_revision()
    }

    fn read_whole(&mut self, body: &[u8], known: &impl Known) -> Result<(), Reject> {
        if exceeds_depth(body) {
            return Err(Reject::RpcParse);
        }
        self.scratch.clear();
        self.scratch.reserve(body.len() + INPUT_PADDING);
        self.scratch.extend_from_slice(body);
        // White space, as a body may end in: nothing in it can be taken for a part of the message.
        self.scratch.extend_from_slice(&[b' '; INPUT_PADDING]);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = fill_tape_padded(&mut self.scratch, body.len(), &mut self.buffers, &mut tape);
        let outcome = match filled {
            Err(_) => Err(Reject::RpcParse),
            Ok(()) => {
                let tree = Tree::new(&tape.0);
                let structurals = self.buffers.structural_indexes();
                let read = self.facts.read(tree, structurals, body, known);
                if self.keys.are_unique(tree) { read } else { Err(Reject::RpcInvalid) }
            }
        };
        self.tape = tape.reset();
        outcome
    }
}

/// True when brackets are nested deeper than allowed. The parser has the same bound and the last
/// word, but it copies and indexes the whole body first; this costs a hostile body's sender more
/// than us (case M01).
fn exceeds_depth(body: &[u8]) -> bool {
    body.len() >= DEPTH_SCAN_BYTES_MIN && may_exceed_depth(body) && scan_exceeds_depth(body)
}

/// The quick look: counts brackets without regard to strings, in blocks that the compiler can
/// vectorise. Brackets in strings may make it say either answer wrongly; both are harmless, because
/// the exact scan or the parser follows.
fn may_exceed_depth(body: &[u8]) -> bool {
    /// `[` and `{`, `]` and `}` differ in this bit only.
    const CURLY: u8 = 0x20;
    let mut depth = 0_usize;
    for block in body.chunks(BLOCK_BYTES) {
        let (mut opening, mut closing) = (0_u8, 0_u8);
        for byte in block {
            opening = opening.wrapping_add(u8::from(byte | CURLY == b'{'));
            closing = closing.wrapping_add(u8::from(byte | CURLY == b'}'));
        }
        if depth + usize::from(opening) > JSON_DEPTH_MAX {
            return true;
        }
        depth = (depth + usize::from(opening)).saturating_sub(usize::from(closing));
    }
    false
}

/// The exact look, up to the byte that is too deep.
fn scan_exceeds_depth(body: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut escaped = false;
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Smaller bodies go to the parser at once: what it needs for them is bounded by little.
const DEPTH_SCAN_BYTES_MIN: usize = 16 * 1024;
/// Bytes of one block of the quick look; its counters are one byte each.
const BLOCK_BYTES: usize = 128;

const _: () = assert!(BLOCK_BYTES <= u8::MAX as usize, "a block's brackets must fit its counters");
const _: () = assert!(MODERN_REVISIONS.len() == 1, "the `_meta` rules are those of 2026-07-28");

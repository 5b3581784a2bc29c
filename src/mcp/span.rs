//! JSON as a tree that knows where each value stands in its text.
//!
//! What the hub changes in a message it changes at such a place, and nowhere else: a string search
//! finds look-alikes in arguments and descriptions. The parser works on a copy. Its tape says what
//! there is, the structural characters that it found say where: both are walked side by side, and
//! a text for which they disagree is refused.

use std::ops::Range;

use simd_json::{Buffers, INPUT_PADDING, Node as TapeNode, StaticNode, Tape, fill_tape_padded};

use super::tree::{Keys, Tree, folds_to};
use crate::limits::{BODY_BUFFER_KEPT_BYTES_MAX, JSON_DEPTH_MAX};

/// What is not one JSON text of bounded depth, or can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A reusable reader of JSON texts. When warm it allocates nothing for a usual message.
pub struct Document {
    buffers: Buffers,
    /// Empty between two texts: only its memory is kept.
    tape: Tape<'static>,
    /// The copy that the parser wrote to: unescaped strings stand in it.
    scratch: Vec<u8>,
    keys: Keys,
    /// In the order of the text.
    entries: Vec<Entry>,
    /// Containers that are open while the text is walked.
    open: Vec<usize>,
    repeats: bool,
}

/// One value or key.
struct Entry {
    value: Value,
    start: u32,
    end: u32,
    /// The index behind it and all that is in it.
    behind: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Value {
    /// With this many members.
    Object(u32),
    /// With this many elements.
    Array(u32),
    /// In `scratch`.
    Text {
        at: u32,
        bytes: u32,
    },
    Signed(i64),
    Unsigned(u64),
    /// Beyond 64 bits, or with a fraction.
    Float,
    Bool(bool),
    Null,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// `{}`
    Object,
    /// `[]`
    Array,
    /// `""`
    String,
    /// Any number.
    Number,
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
}

impl Default for Document {
    fn default() -> Self {
        Self::new()
    }
}

impl Document {
    /// An empty reader. Its buffers grow with the first texts.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: Buffers::with_max_depth(0, JSON_DEPTH_MAX),
            tape: Tape(Vec::new()),
            scratch: Vec::new(),
            keys: Keys::new(),
            entries: Vec::new(),
            open: Vec::new(),
            repeats: false,
        }
    }

    /// Reads one JSON text whole; what was read before is gone.
    ///
    /// # Errors
    /// What is not one JSON text in UTF-8 (RFC 8259), nested at most `JSON_DEPTH_MAX` deep.
    pub fn read(&mut self, text: &[u8]) -> Result<Node<'_>, Malformed> {
        self.forget();
        self.scratch.reserve(text.len() + INPUT_PADDING);
        self.scratch.extend_from_slice(text);
        // White space, as a text may end in: nothing in it can be taken for a part of it.
        self.scratch.extend_from_slice(&[b' '; INPUT_PADDING]);
        let copy = self.scratch.as_ptr().addr();
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled =
            fill_tape_padded(&mut self.scratch, text.len(), &mut self.buffers, &mut tape).is_ok();
        let placed = filled && {
            self.repeats = !self.keys.are_unique(Tree::new(&tape.0));
            let structurals = self.buffers.structural_indexes();
            let walk = Walk { text, copy, entries: &mut self.entries, open: &mut self.open };
            walk.place(&tape.0, structurals).is_some()
        };
        self.tape = tape.reset();
        if !placed {
            self.entries.clear();
        }
        self.root().ok_or(Malformed)
    }

    /// The value that was read last; `None` when it was malformed, or forgotten.
    #[must_use]
    pub fn root(&self) -> Option<Node<'_>> {
        (!self.entries.is_empty()).then_some(Node { document: self, at: 0 })
    }

    /// Whether some object, at any depth, has two keys that are equal after unescaping: readers
    /// differ in which of the two values counts (RFC 8259 §4).
    #[must_use]
    pub fn repeats_a_key(&self) -> bool {
        self.repeats
    }

    /// Forgets what was read last. A long text does not leave its memory behind.
    pub fn forget(&mut self) {
        self.scratch.clear();
        self.entries.clear();
        self.open.clear();
        self.repeats = false;
        if self.kept_bytes() > BODY_BUFFER_KEPT_BYTES_MAX {
            self.buffers = Buffers::with_max_depth(0, JSON_DEPTH_MAX);
            self.tape = Tape(Vec::new());
            self.scratch = Vec::new();
            self.entries = Vec::new();
        }
    }

    /// Bytes of the largest buffer.
    pub(super) fn kept_bytes(&self) -> usize {
        let nodes = self.tape.0.capacity() * size_of::<TapeNode<'static>>();
        let entries = self.entries.capacity() * size_of::<Entry>();
        self.scratch.capacity().max(nodes).max(entries)
    }
}

/// A text under way.
struct Walk<'w> {
    text: &'w [u8],
    /// The address of the parser's copy of it.
    copy: usize,
    entries: &'w mut Vec<Entry>,
    open: &'w mut Vec<usize>,
}

impl Walk<'_> {
    /// Gives every node of the tape its place.
    fn place(mut self, nodes: &[TapeNode<'_>], structurals: &[u32]) -> Option<()> {
        self.entries.reserve(nodes.len());
        let mut nodes = nodes.iter();
        for (index, start) in structurals.iter().enumerate() {
            let byte = *self.text.get(*start as usize)?;
            match byte {
                b',' | b':' => {}
                b'}' | b']' => self.close(byte, *start)?,
                _ => {
                    let next = structurals.get(index + 1).copied();
                    self.enter(nodes.next()?, byte, *start, next)?;
                }
            }
        }
        (nodes.next().is_none() && self.open.is_empty()).then_some(())
    }

    fn enter(
        &mut self,
        node: &TapeNode<'_>,
        byte: u8,
        start: u32,
        next: Option<u32>,
    ) -> Option<()> {
        let value = self.value(node)?;
        let at = self.entries.len();
        let (inside, opens) = match (node, byte) {
            (TapeNode::Object { count, .. }, b'{') | (TapeNode::Array { count, .. }, b'[') => {
                (*count, true)
            }
            (TapeNode::String(_), b'"') | (TapeNode::Static(_), b'-' | b'0'..=b'9') => (0, false),
            (TapeNode::Static(StaticNode::Bool(_) | StaticNode::Null), b't' | b'f' | b'n') => {
                (0, false)
            }
            (
                TapeNode::Object { .. }
                | TapeNode::Array { .. }
                | TapeNode::String(_)
                | TapeNode::Static(_),
                _,
            ) => return None,
        };
        let end = if opens {
            // Known when its bracket comes.
            self.open.push(at);
            start
        } else {
            let upto = next.map_or(self.text.len(), |next| next as usize);
            let raw = self.text.get(start as usize..upto)?.trim_ascii_end();
            start.checked_add(u32::try_from(raw.len()).ok()?)?
        };
        let behind = u32::try_from(at.checked_add(inside)?.checked_add(1)?).ok()?;
        self.entries.push(Entry { value, start, end, behind });
        Some(())
    }

    fn close(&mut self, bracket: u8, place: u32) -> Option<()> {
        let at = self.open.pop()?;
        let count = self.entries.len();
        let entry = self.entries.get_mut(at)?;
        let pairs = match entry.value {
            Value::Object(_) => bracket == b'}',
            Value::Array(_) => bracket == b']',
            Value::Text { .. }
            | Value::Signed(_)
            | Value::Unsigned(_)
            | Value::Float
            | Value::Bool(_)
            | Value::Null => false,
        };
        entry.end = place.checked_add(1)?;
        (pairs && entry.behind as usize == count).then_some(())
    }

    fn value(&self, node: &TapeNode<'_>) -> Option<Value> {
        Some(match node {
            TapeNode::Object { len, .. } => Value::Object(u32::try_from(*len).ok()?),
            TapeNode::Array { len, .. } => Value::Array(u32::try_from(*len).ok()?),
            TapeNode::String(text) => Value::Text {
                at: u32::try_from(text.as_ptr().addr().checked_sub(self.copy)?).ok()?,
                bytes: u32::try_from(text.len()).ok()?,
            },
            TapeNode::Static(StaticNode::I64(number)) => Value::Signed(*number),
            TapeNode::Static(StaticNode::U64(number)) => Value::Unsigned(*number),
            TapeNode::Static(StaticNode::F64(_)) => Value::Float,
            TapeNode::Static(StaticNode::Bool(value)) => Value::Bool(*value),
            TapeNode::Static(StaticNode::Null) => Value::Null,
        })
    }
}

/// One value of a [`Document`].
#[derive(Clone, Copy)]
pub struct Node<'d> {
    document: &'d Document,
    at: usize,
}

/// One member of an object.
#[derive(Clone)]
pub struct Member<'d> {
    /// Unescaped.
    pub key: &'d str,
    /// Of the key's bytes in the text, with its quotes.
    pub key_range: Range<usize>,
    /// Its value.
    pub value: Node<'d>,
}

impl<'d> Node<'d> {
    /// What it is.
    #[must_use]
    pub fn kind(self) -> NodeKind {
        match self.value() {
            Value::Object(_) => NodeKind::Object,
            Value::Array(_) => NodeKind::Array,
            Value::Text { .. } => NodeKind::String,
            Value::Signed(_) | Value::Unsigned(_) | Value::Float => NodeKind::Number,
            Value::Bool(true) => NodeKind::True,
            Value::Bool(false) => NodeKind::False,
            Value::Null => NodeKind::Null,
        }
    }

    /// Of its bytes in the text: with its quotes or brackets, without the white space around it.
    #[must_use]
    pub fn range(self) -> Range<usize> {
        self.entry().map_or(0..0, |entry| entry.start as usize..entry.end as usize)
    }

    /// A string, unescaped.
    #[must_use]
    pub fn text(self) -> Option<&'d str> {
        let Value::Text { at, bytes } = self.value() else { return None };
        let text = self.document.scratch.get(at as usize..)?.get(..bytes as usize)?;
        std::str::from_utf8(text).ok()
    }

    /// An integer that fits.
    #[must_use]
    pub fn number_i64(self) -> Option<i64> {
        match self.value() {
            Value::Signed(number) => Some(number),
            Value::Unsigned(number) => i64::try_from(number).ok(),
            Value::Object(_)
            | Value::Array(_)
            | Value::Text { .. }
            | Value::Float
            | Value::Bool(_)
            | Value::Null => None,
        }
    }

    /// A natural number that fits.
    #[must_use]
    pub fn number_u64(self) -> Option<u64> {
        match self.value() {
            Value::Signed(number) => u64::try_from(number).ok(),
            Value::Unsigned(number) => Some(number),
            Value::Object(_)
            | Value::Array(_)
            | Value::Text { .. }
            | Value::Float
            | Value::Bool(_)
            | Value::Null => None,
        }
    }

    /// Whether it is `true`; a string of that text is not.
    #[must_use]
    pub fn is_true(self) -> bool {
        self.value() == Value::Bool(true)
    }

    /// Whether it is an object.
    #[must_use]
    pub fn is_object(self) -> bool {
        self.kind() == NodeKind::Object
    }

    /// Whether it is an array.
    #[must_use]
    pub fn is_array(self) -> bool {
        self.kind() == NodeKind::Array
    }

    /// The value of the first member called `key`; `None` for what is no object, too. Where it
    /// matters that no other reader sees another value, take [`Node::pick`].
    #[must_use]
    pub fn get(self, key: &str) -> Option<Self> {
        self.members().find(|member| member.key == key).map(|member| member.value)
    }

    /// The values of `keys`, in that order; all absent for what is no object.
    ///
    /// # Errors
    /// A key of these that comes twice; and one that is of these to some other reader, though not
    /// to us: written in another case (Go's `encoding/json` folds as Unicode does), or with a NUL.
    pub fn pick<const N: usize>(self, keys: &[&str; N]) -> Result<[Option<Self>; N], Malformed> {
        let mut found = [None; N];
        for Member { key, value, .. } in self.members() {
            if let Some(place) = keys.iter().position(|known| *known == key) {
                let slot = found.get_mut(place).ok_or(Malformed)?;
                if slot.replace(value).is_some() {
                    return Err(Malformed);
                }
            } else if key.as_bytes().contains(&0) || keys.iter().any(|known| folds_to(key, known)) {
                return Err(Malformed);
            }
        }
        Ok(found)
    }

    /// The members of an object in the order of the text; none of anything else.
    #[must_use]
    pub fn members(self) -> Members<'d> {
        let left = if let Value::Object(members) = self.value() { members } else { 0 };
        Members { document: self.document, next: self.at + 1, left }
    }

    /// The elements of an array in the order of the text; none of anything else.
    #[must_use]
    pub fn elements(self) -> Elements<'d> {
        let left = if let Value::Array(elements) = self.value() { elements } else { 0 };
        Elements { document: self.document, next: self.at + 1, left }
    }

    fn entry(self) -> Option<&'d Entry> {
        self.document.entries.get(self.at)
    }

    fn value(self) -> Value {
        self.entry().map_or(Value::Null, |entry| entry.value)
    }

    fn behind(self) -> usize {
        self.entry().map_or(self.at, |entry| entry.behind as usize)
    }
}

/// See [`Node::members`].
#[derive(Clone)]
pub struct Members<'d> {
    document: &'d Document,
    next: usize,
    left: u32,
}

impl<'d> Iterator for Members<'d> {
    type Item = Member<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let name = Node { document: self.document, at: self.next };
        let value = Node { document: self.document, at: self.next + 1 };
        self.next = value.behind();
        Some(Member { key: name.text()?, key_range: name.range(), value })
    }
}

/// See [`Node::elements`].
#[derive(Clone)]
pub struct Elements<'d> {
    document: &'d Document,
    next: usize,
    left: u32,
}

impl<'d> Iterator for Elements<'d> {
    type Item = Node<'d>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let element = Node { document: self.document, at: self.next };
        self.next = element.behind();
        Some(element)
    }
}

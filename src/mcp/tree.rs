//! A filled simd-json tape, read as a tree without recursion, and the two key rules.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use simd_json::{Node, StaticNode};

use crate::limits::BODY_BUFFER_KEPT_BYTES_MAX;
use crate::reject::Reject;

/// The nodes of one document. Values are named by their index; an index that is not one answers
/// `None`, so a wrong index is a missing field and never a panic.
#[derive(Clone, Copy)]
pub(super) struct Tree<'t, 's> {
    nodes: &'t [Node<'s>],
}

impl<'t, 's> Tree<'t, 's> {
    pub(super) const fn new(nodes: &'t [Node<'s>]) -> Self {
        Self { nodes }
    }

    pub(super) fn node(self, at: usize) -> Option<&'t Node<'s>> {
        self.nodes.get(at)
    }

    /// The string at `at`, unescaped.
    pub(super) fn text(self, at: usize) -> Option<&'s str> {
        match self.node(at) {
            Some(Node::String(text)) => Some(text),
            Some(Node::Object { .. } | Node::Array { .. } | Node::Static(_)) | None => None,
        }
    }

    pub(super) fn is_object(self, at: usize) -> bool {
        matches!(self.node(at), Some(Node::Object { .. }))
    }

    pub(super) fn is_array(self, at: usize) -> bool {
        matches!(self.node(at), Some(Node::Array { .. }))
    }

    pub(super) fn is_true(self, at: usize) -> bool {
        matches!(self.node(at), Some(Node::Static(StaticNode::Bool(true))))
    }

    /// Keys of the object at `at` with the index of their values; empty for anything else.
    pub(super) fn members(self, at: usize) -> Members<'t, 's> {
        let left = match self.node(at) {
            Some(Node::Object { len, .. }) => *len,
            Some(Node::Array { .. } | Node::String(_) | Node::Static(_)) | None => 0,
        };
        Members { tree: self, next: at + 1, left }
    }

    /// Indexes of the elements of the array at `at`; empty for anything else.
    pub(super) fn elements(self, at: usize) -> impl Iterator<Item = usize> {
        let left = match self.node(at) {
            Some(Node::Array { len, .. }) => *len,
            Some(Node::Object { .. } | Node::String(_) | Node::Static(_)) | None => 0,
        };
        let mut next = at + 1;
        (0..left).map(move |_| {
            let element = next;
            next = self.behind(element);
            element
        })
    }

    /// The index behind the value at `at`, its inner values included.
    fn behind(self, at: usize) -> usize {
        match self.node(at) {
            Some(Node::Object { count, .. } | Node::Array { count, .. }) => at + count + 1,
            Some(Node::String(_) | Node::Static(_)) | None => at + 1,
        }
    }
}

/// See [`Tree::members`].
pub(super) struct Members<'t, 's> {
    tree: Tree<'t, 's>,
    next: usize,
    left: usize,
}

impl<'s> Iterator for Members<'_, 's> {
    /// Index of the key, the key, index of the value.
    type Item = (usize, &'s str, usize);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let at = self.next;
        let key = self.tree.text(at)?;
        self.next = self.tree.behind(at + 1);
        Some((at, key, at + 1))
    }
}

/// Finds equal keys. Memory is kept between documents.
pub(super) struct Keys {
    /// Keys of large objects only: (index of the object, index of the key). One table for all
    /// objects of a document, because clearing a table costs its capacity: cleared per object, one
    /// huge object would make every later one expensive.
    table: HashTable<(u32, u32)>,
    /// Keyed at random, so that nobody can choose keys that collide.
    hasher: RandomState,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { table: HashTable::new(), hasher: RandomState::new() }
    }

    /// True when no object of the document, at any depth, has two keys that are equal after
    /// unescaping. JSON leaves their meaning open (RFC 8259 §4) and parsers differ: ours would
    /// judge one, the upstream's would run the other (case M03).
    pub(super) fn are_unique(&mut self, tree: Tree<'_, '_>) -> bool {
        let unique = tree.nodes.iter().enumerate().all(|(at, node)| match node {
            Node::Object { len, .. } if *len > 1 => self.are_unique_in(tree, at, *len),
            Node::Object { .. } | Node::Array { .. } | Node::String(_) | Node::Static(_) => true,
        });
        if self.table.capacity() > TABLE_KEPT_MAX {
            self.table = HashTable::new();
        } else {
            self.table.clear();
        }
        unique
    }

    fn are_unique_in(&mut self, tree: Tree<'_, '_>, object: usize, len: usize) -> bool {
        if !may_repeat(tree, object) {
            true
        } else if len > PAIRWISE_MAX {
            self.insert_all(tree, object)
        } else {
            are_unique_pairwise(tree, object)
        }
    }

    fn insert_all(&mut self, tree: Tree<'_, '_>, object: usize) -> bool {
        let Ok(object_at) = u32::try_from(object) else { return false };
        let Self { table, hasher } = self;
        let text = |key: u32| tree.text(key as usize);
        for (key_at, key, _) in tree.members(object) {
            let Ok(key_at) = u32::try_from(key_at) else { return false };
            let entry = table.entry(
                hasher.hash_one((object_at, Some(key))),
                |&(in_object, other)| in_object == object_at && text(other) == Some(key),
                |&(in_object, other)| hasher.hash_one((in_object, text(other))),
            );
            match entry {
                hashbrown::hash_table::Entry::Occupied(_) => return false,
                hashbrown::hash_table::Entry::Vacant(vacant) => {
                    vacant.insert((object_at, key_at));
                }
            }
        }
        true
    }
}

/// The quick look. Equal keys have equal marks, so where no mark comes twice no key does; most
/// objects are small, and their keys differ in length or at an end.
fn may_repeat(tree: Tree<'_, '_>, object: usize) -> bool {
    let mut seen = 0_u64;
    for (_, key, _) in tree.members(object) {
        let end = |byte: Option<&u8>| byte.copied().map_or(0, usize::from);
        let (first, last) = (end(key.as_bytes().first()), end(key.as_bytes().last()));
        let mark = 1 << ((key.len() + 5 * first + 11 * last) % 64);
        if seen & mark != 0 {
            return true;
        }
        seen |= mark;
    }
    false
}

/// Small objects are most objects: comparing every pair is cheaper than hashing and needs no
/// memory.
fn are_unique_pairwise(tree: Tree<'_, '_>, object: usize) -> bool {
    let mut keys = [""; PAIRWISE_MAX];
    for (seen, (_, key, _)) in tree.members(object).enumerate() {
        let Some((earlier, rest)) = keys.split_at_mut_checked(seen) else { return false };
        if earlier.contains(&key) {
            return false;
        }
        if let Some(slot) = rest.first_mut() {
            *slot = key;
        }
    }
    true
}

/// Indexes of the values that `known` names in the object at `at`, in the order of `known`.
///
/// # Errors
///
/// `RpcInvalid` for a key that is a known name to some other reader but not to us: readers that
/// match keys without regard to case (Go's `encoding/json` folds as Unicode does), and readers in C
/// that end at a NUL.
pub(super) fn pick<const N: usize>(
    tree: Tree<'_, '_>,
    at: usize,
    known: &[&str; N],
) -> Result<[Option<usize>; N], Reject> {
    let mut found = [None; N];
    for (_, key, value) in tree.members(at) {
        match known.iter().position(|name| *name == key) {
            Some(place) => {
                if let Some(slot) = found.get_mut(place) {
                    *slot = Some(value);
                }
            }
            None if key.as_bytes().contains(&0) || known.iter().any(|name| folds_to(key, name)) => {
                return Err(Reject::RpcInvalid);
            }
            None => {}
        }
    }
    Ok(found)
}

/// True when `key` equals the ASCII `name` after folding. Besides ASCII letters only the characters
/// below fold to ASCII in any of the usual ways (simple and full case folding of Unicode
/// `CaseFolding.txt`, the Turkic rows, upper-casing and back).
pub(super) fn folds_to(key: &str, name: &str) -> bool {
    if key.is_ascii() {
        return key.eq_ignore_ascii_case(name);
    }
    let mut name = name.bytes();
    for character in key.chars() {
        let folded: &[u8] = match character {
            '\u{212a}' => b"k",
            '\u{17f}' => b"s",
            '\u{130}' | '\u{131}' => b"i",
            '\u{df}' | '\u{1e9e}' => b"ss",
            '\u{fb00}' => b"ff",
            '\u{fb01}' => b"fi",
            '\u{fb02}' => b"fl",
            '\u{fb03}' => b"ffi",
            '\u{fb04}' => b"ffl",
            '\u{fb05}' | '\u{fb06}' => b"st",
            _ if character.is_ascii() => {
                let byte = character as u8;
                if !name.next().is_some_and(|expected| expected.eq_ignore_ascii_case(&byte)) {
                    return false;
                }
                continue;
            }
            _ => return false,
        };
        for byte in folded {
            if !name.next().is_some_and(|expected| expected.eq_ignore_ascii_case(byte)) {
                return false;
            }
        }
    }
    name.next().is_none()
}

/// Keys of an object up to which every pair is compared: 120 comparisons, most of them of lengths.
const PAIRWISE_MAX: usize = 16;
/// Slots that the table keeps after a document.
const TABLE_KEPT_MAX: usize = BODY_BUFFER_KEPT_BYTES_MAX / 64;

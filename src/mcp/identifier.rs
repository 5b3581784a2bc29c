//! The exact bytes of the message's id.
//!
//! An answer of ours must echo the id as the client wrote it (JSON-RPC 2.0 §5), and a parsed id is
//! not that: `1.0`, `-0`, escapes. So its place in the original body is found along the structural
//! characters that the parser itself found, and then checked against the parsed value.

use std::ops::Range;

use simd_json::{Node, StaticNode};

use super::tree::Tree;
use crate::limits::RPC_ID_BYTES_MAX;
use crate::reject::Reject;

/// Which member of the top-level object.
#[derive(Clone, Copy)]
pub(super) struct Member {
    /// Its number, from 0.
    pub(super) ordinal: usize,
    /// How many members there are.
    pub(super) of: usize,
    /// The node of its value.
    pub(super) value: usize,
}

/// The place in `body` of the id, which is `member`.
///
/// # Errors
///
/// `RpcInvalid` for anything but a string or an integer (MCP 2026-07-28 basic/index "Messages"; an
/// id with a fraction would be echoed differently by every JSON library), and for one too long to
/// repeat. `GatewayFault` when the two views of the body disagree.
pub(super) fn locate(
    tree: Tree<'_, '_>,
    member: Member,
    structurals: &[u32],
    body: &[u8],
) -> Result<Range<usize>, Reject> {
    let node = tree.node(member.value).ok_or(Reject::GatewayFault)?;
    if !matches!(node, Node::String(_) | Node::Static(StaticNode::I64(_) | StaticNode::U64(_))) {
        return Err(Reject::RpcInvalid);
    }
    let range = member_value(structurals, body, member).ok_or(Reject::GatewayFault)?;
    if range.len() > RPC_ID_BYTES_MAX {
        return Err(Reject::RpcInvalid);
    }
    let written = body.get(range.clone()).ok_or(Reject::GatewayFault)?;
    if is_written_as(node, written) { Ok(range) } else { Err(Reject::GatewayFault) }
}

/// The range of the scalar value of one member of the top-level object, without the white space
/// behind it.
fn member_value(structurals: &[u32], body: &[u8], member: Member) -> Option<Range<usize>> {
    // Some clients write the id last: then the way from the end is the short one.
    let behind = member.of.checked_sub(member.ordinal + 1)?;
    let places = structurals.iter().enumerate();
    let colon = if member.ordinal <= behind {
        find_colon(places, body, member.ordinal, false)?
    } else {
        find_colon(places.rev(), body, behind, true)?
    };
    let start = *structurals.get(colon + 1)? as usize;
    let next = *structurals.get(colon + 2)? as usize;
    let raw = body.get(start..next)?;
    Some(start..start + raw.trim_ascii_end().len())
}

/// The index in the list of structurals of the colon that `commas` commas of the top-level object
/// come before, in the direction of the walk.
fn find_colon<'a>(
    places: impl Iterator<Item = (usize, &'a u32)>,
    body: &[u8],
    commas: usize,
    backwards: bool,
) -> Option<usize> {
    let mut depth = 0_usize;
    let mut seen = 0_usize;
    for (index, place) in places {
        // The parser may close its list with a place behind the body.
        let Some(byte) = body.get(*place as usize) else { continue };
        match (byte, backwards) {
            (b'{' | b'[', false) | (b'}' | b']', true) => depth += 1,
            (b'}' | b']', false) | (b'{' | b'[', true) => depth = depth.checked_sub(1)?,
            (b',', _) if depth == 1 => seen += 1,
            (b':', _) if depth == 1 && seen == commas => return Some(index),
            _ => {}
        }
    }
    None
}

/// True when `written` is how `node` was written.
fn is_written_as(node: &Node<'_>, written: &[u8]) -> bool {
    let text = match node {
        Node::String(text) => text,
        Node::Static(StaticNode::I64(number)) => {
            return std::str::from_utf8(written).is_ok_and(|raw| raw.parse() == Ok(*number));
        }
        Node::Static(StaticNode::U64(number)) => {
            return std::str::from_utf8(written).is_ok_and(|raw| raw.parse() == Ok(*number));
        }
        Node::Static(_) | Node::Object { .. } | Node::Array { .. } => return false,
    };
    let inner = written.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    match inner {
        // Rare and bounded by the length of an id; the one place that may allocate.
        Some(inner) if inner.contains(&b'\\') => {
            serde_json::from_slice::<String>(written).is_ok_and(|id| id == *text)
        }
        Some(inner) => inner == text.as_bytes(),
        None => false,
    }
}

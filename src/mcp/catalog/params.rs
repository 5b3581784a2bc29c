//! Arguments of tools that clients mirror into headers.

use crate::limits::CATALOG_PARAMS_MAX;
use crate::mcp::span::{Member, Node};

/// An argument that a client mirrors into a header (2026-07-28, transports, "Custom Headers from
/// Tool Parameters").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// What stands behind `Mcp-Param-`: a token.
    pub header: Box<str>,
    /// The way to it in the arguments.
    pub path: Box<[Box<str>]>,
}

/// Reads what a schema has mirrored into headers; false when it may not be used for that.
pub(super) fn read(schema: Node<'_>, params: &mut Vec<Param>) -> bool {
    let from = params.len();
    // Every annotation must be found on a chain of `properties`: one elsewhere breaks the rules,
    // and so does what only looks like one.
    let annotated = count_annotations(schema);
    if annotated == 0 {
        return true;
    }
    let mut path = Vec::new();
    let found = annotated <= CATALOG_PARAMS_MAX && walk_properties(schema, &mut path, params);
    let own = params.get(from..).unwrap_or_default();
    let twice = own.iter().enumerate().any(|(at, param)| {
        own.iter().take(at).any(|other| other.header.eq_ignore_ascii_case(&param.header))
    });
    found && own.len() == annotated && !twice
}

fn count_annotations(node: Node<'_>) -> usize {
    let below = node.members().map(|member| member.value).chain(node.elements());
    let here = node.members().filter(|member| member.key == ANNOTATION).count();
    here + below.map(count_annotations).sum::<usize>()
}

/// The depth of a document bounds it.
fn walk_properties<'d>(schema: Node<'d>, path: &mut Vec<&'d str>, params: &mut Vec<Param>) -> bool {
    let Some(properties) = schema.get("properties") else { return true };
    properties.members().all(|Member { key, value, .. }| {
        path.push(key);
        let taken = value.get(ANNOTATION).is_none_or(|header| {
            let Some(header) = header.text().filter(|header| is_token(header)) else {
                return false;
            };
            let kind = value.get("type").and_then(Node::text);
            if !matches!(kind, Some("string" | "integer" | "boolean")) {
                return false;
            }
            let path = path.iter().map(|step| Box::from(*step)).collect();
            params.push(Param { header: Box::from(header), path });
            true
        });
        let all = taken && walk_properties(value, path, params);
        path.pop();
        all
    })
}

/// RFC 9110 §5.6.2, short enough for a field name.
fn is_token(text: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=HEADER_BYTES_MAX).contains(&text.len()) && text.bytes().all(valid)
}

const ANNOTATION: &str = "x-mcp-header";
/// Bytes behind `Mcp-Param-`.
const HEADER_BYTES_MAX: usize = 128;

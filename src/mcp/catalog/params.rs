//! Arguments of tools that clients mirror into headers.

use crate::limits::CATALOG_PARAMS_MAX;
use crate::mcp::era::{field_value, mirror};
use crate::mcp::span::{Member, Node, NodeKind};
use crate::reject::Reject;

/// An argument that a client mirrors into a header (2026-07-28, transports, "Custom Headers from
/// Tool Parameters").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// What stands behind `Mcp-Param-`: a token.
    pub header: Box<str>,
    /// The way to it in the arguments.
    pub path: Box<[Box<str>]>,
}

impl Param {
    /// The name of its field, in lower case.
    #[must_use]
    pub fn field(&self) -> String {
        format!("mcp-param-{}", self.header.to_ascii_lowercase())
    }

    /// Its value in the arguments, as a field says it; `None` for one that is not there, is null,
    /// or is nothing that a field can say. `text` is what `arguments` were read from.
    fn said<'d>(&self, arguments: Option<Node<'d>>, text: &'d [u8]) -> Option<(&'d str, NodeKind)> {
        let node = self.path.iter().try_fold(arguments?, |node, key| node.get(key))?;
        let said = match node.kind() {
            NodeKind::String => node.text()?,
            NodeKind::True | NodeKind::False | NodeKind::Number => {
                std::str::from_utf8(text.get(node.range())?).ok()?
            }
            NodeKind::Object | NodeKind::Array | NodeKind::Null => return None,
        };
        Some((said, node.kind()))
    }
}

/// Compares what an agent mirrored, `fields` with names in lower case, with its arguments
/// (2026-07-28 streamable HTTP "Server Behavior for Custom Headers"). Fields of no parameter of the
/// tool are not for us.
///
/// # Errors
/// `RpcHeaderMismatch` for a field that is missing, there without its argument, there twice, or
/// another value; integers are compared as numbers.
pub fn agree(
    params: &[Param],
    arguments: Option<Node<'_>>,
    text: &[u8],
    fields: &[(String, Vec<u8>)],
) -> Result<(), Reject> {
    let mut decoded = Vec::new();
    for param in params {
        let name = param.field();
        let mut found = fields.iter().filter(|(field, _)| *field == name);
        let header = found.next().map(|(_, value)| value.as_slice());
        if found.next().is_some() {
            return Err(Reject::RpcHeaderMismatch);
        }
        let said = param.said(arguments, text);
        let same_number = match (said, header) {
            (Some((said, NodeKind::Number)), Some(header)) => is_same_number(said, header),
            _ => false,
        };
        if !same_number {
            mirror(header, said.map(|(said, _)| said), true, Some(&mut decoded))?;
        }
    }
    Ok(())
}

/// The fields that a client has to send for these arguments (2026-07-28 streamable HTTP "Client
/// Behavior").
#[must_use]
pub fn mirrored(
    params: &[Param],
    arguments: Option<Node<'_>>,
    text: &[u8],
) -> Vec<(String, Vec<u8>)> {
    let field = |param: &Param| {
        let (said, _) = param.said(arguments, text)?;
        let mut value = Vec::new();
        field_value(said, &mut value);
        Some((param.field(), value))
    };
    params.iter().filter_map(field).collect()
}

/// 42 is 42.0, and a number that no 64 bits hold is only itself.
fn is_same_number(said: &str, header: &[u8]) -> bool {
    let Ok(header) = std::str::from_utf8(header.trim_ascii()) else { return false };
    match (said.parse::<i128>(), header.parse::<i128>()) {
        (Ok(said), Ok(header)) => said == header,
        (Err(_), _) | (_, Err(_)) => {
            let numbers = (said.parse::<f64>(), header.parse::<f64>());
            let exact = |number: f64| number.abs() <= EXACT_MAX;
            matches!(numbers, (Ok(said), Ok(header)) if exact(said) && said == header)
        }
    }
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
/// Up to here every integer is a 64-bit float of its own.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

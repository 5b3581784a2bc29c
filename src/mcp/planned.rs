//! Copies the planned arguments of a call out of its message.
//!
//! What policies judge must be what the tool is given. So a value that policies cannot hold, and a
//! name that another reader could take for a planned one, makes the arguments unrepresentable,
//! which denies wherever a policy asks for them (DESIGN §6).

use simd_json::{Node, StaticNode};

use super::arguments::{Field, Plan, Shape, Writer};
use super::tree::{Tree, folds_to};
use crate::limits::{
    ARGUMENT_SET_MAX, ARGUMENT_TEXT_BYTES_MAX, ARGUMENTS_BYTES_MAX, PLAN_FIELDS_MAX,
};

/// Appends the planned ones of the value at `arguments` to `out`, in the order of the plan, so that
/// equal arguments are equal bytes. True: something planned is there that cannot be represented.
pub(super) fn read(
    tree: Tree<'_, '_>,
    arguments: Option<usize>,
    plan: &Plan,
    out: &mut Vec<u8>,
) -> bool {
    let Some(arguments) = arguments else { return false };
    let start = out.len();
    let mut reading = Reading { tree, writer: Writer(out), unrepresentable: false };
    // MCP schema, `CallToolRequestParams`: an object. What a server makes of anything else, nobody
    // knows.
    if tree.is_object(arguments) {
        reading.fields(arguments, &plan.fields);
    } else {
        reading.unrepresentable = true;
    }
    let unrepresentable = reading.unrepresentable;
    if out.len() - start > ARGUMENTS_BYTES_MAX {
        out.truncate(start);
        return true;
    }
    unrepresentable
}

struct Reading<'t, 's, 'v> {
    tree: Tree<'t, 's>,
    writer: Writer<'v>,
    unrepresentable: bool,
}

/// A value that policies cannot hold.
struct Unrepresentable;

impl Reading<'_, '_, '_> {
    /// The planned members of an object. One that cannot be represented is left out and remembered.
    /// Its depth is that of the plan, which is bounded.
    fn fields(&mut self, object: usize, fields: &[Field]) {
        let mut found = [None; PLAN_FIELDS_MAX];
        for (_, key, value) in self.tree.members(object) {
            match fields.iter().position(|field| *field.name == *key) {
                Some(at) => match found.get_mut(at) {
                    Some(place) => *place = Some(value),
                    None => self.unrepresentable = true,
                },
                None => {
                    let like = |field: &Field| folds_to(key, &field.name);
                    self.unrepresentable |= key.as_bytes().contains(&0) || fields.iter().any(like);
                }
            }
        }
        for (field, value) in fields.iter().zip(found) {
            let Some(value) = value else { continue };
            let before = self.writer.0.len();
            let written = self.value(&field.name, value, &field.shape);
            if written.is_err() || self.writer.0.len() > before + ARGUMENTS_BYTES_MAX {
                self.writer.0.truncate(before);
                self.unrepresentable = true;
            }
        }
    }

    fn value(&mut self, name: &str, at: usize, shape: &Shape) -> Result<(), Unrepresentable> {
        let node = self.tree.node(at).ok_or(Unrepresentable)?;
        match (shape, node) {
            (Shape::Bool, Node::Static(StaticNode::Bool(value))) => self.writer.bool(name, *value),
            (Shape::Long, Node::Static(StaticNode::I64(value))) => self.writer.long(name, *value),
            (Shape::Long, Node::Static(StaticNode::U64(value))) => {
                self.writer.long(name, i64::try_from(*value).map_err(|_| Unrepresentable)?);
            }
            (Shape::Text, Node::String(text)) => {
                // A NUL ends the string for readers in C: they would act on another value.
                if text.len() > ARGUMENT_TEXT_BYTES_MAX || text.as_bytes().contains(&0) {
                    return Err(Unrepresentable);
                }
                self.writer.text(name, text);
            }
            (Shape::Set(member), Node::Array { len, .. }) if *len <= ARGUMENT_SET_MAX => {
                self.writer.set(name);
                for element in self.tree.elements(at) {
                    self.value("", element, member)?;
                }
                self.writer.end();
            }
            (Shape::Record(fields), Node::Object { .. }) => {
                self.writer.record(name);
                self.fields(at, fields);
                self.writer.end();
            }
            (Shape::Bool | Shape::Long | Shape::Text | Shape::Set(_) | Shape::Record(_), _) => {
                return Err(Unrepresentable);
            }
        }
        Ok(())
    }
}

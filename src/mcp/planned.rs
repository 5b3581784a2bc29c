//! Copies the planned arguments of a call out of its message.
//!
//! What policies judge must be what the tool is given. So a value that policies cannot hold, and a
//! name that another reader could take for a planned one, makes the arguments unrepresentable,
//! which denies wherever a policy asks for them (DESIGN §6).

use simd_json::{Node, StaticNode};

use super::arguments::{Doubt, Field, Plan, Shape, Writer};
use super::tree::{Tree, folds_to};
use crate::limits::{
    ARGUMENT_SET_MAX, ARGUMENT_TEXT_BYTES_MAX, ARGUMENTS_BYTES_MAX, PLAN_FIELDS_MAX,
};

/// Appends the planned ones of the value at `arguments` to `out`, always in the same order, so that
/// equal arguments are equal bytes. Says what of the plan is there and cannot be represented.
pub(super) fn read(
    tree: Tree<'_, '_>,
    arguments: Option<usize>,
    plan: &Plan,
    out: &mut Vec<u8>,
) -> Doubt {
    let Some(arguments) = arguments else { return Doubt::default() };
    let end_max = out.len() + ARGUMENTS_BYTES_MAX;
    let (writer, doubt) = (Writer(out), Doubt::default());
    let mut reading = Reading { tree, writer, end_max, to_shadows: 0, doubt };
    // MCP schema, `CallToolRequestParams`: an object. What a server makes of anything else, nobody
    // knows.
    if tree.is_object(arguments) {
        reading.fields(arguments, &plan.fields);
    } else {
        plan.fields.iter().for_each(|field| reading.doubt(field));
    }
    reading.doubt
}

struct Reading<'t, 's, 'v> {
    tree: Tree<'t, 's>,
    writer: Writer<'v>,
    /// The length that the bytes written may reach, those for shadow policies alone aside.
    end_max: usize,
    /// Bytes of what only shadow policies ask for; up to twice the bound is written in all.
    to_shadows: usize,
    doubt: Doubt,
}

/// A value that policies cannot hold.
struct Unrepresentable;

impl Reading<'_, '_, '_> {
    fn doubt(&mut self, field: &Field) {
        let of = if field.decides { &mut self.doubt.decides } else { &mut self.doubt.shadow };
        *of = true;
    }

    /// The planned members of an object. One that cannot be represented is left out and remembered.
    /// Its depth is that of the plan, which is bounded.
    fn fields(&mut self, object: usize, fields: &[Field]) {
        let mut found = [None; PLAN_FIELDS_MAX];
        for (_, key, value) in self.tree.members(object) {
            let exact = fields.iter().position(|field| *field.name == *key);
            if let Some(place) = exact.and_then(|at| found.get_mut(at)) {
                *place = Some(value);
                continue;
            }
            let nul = key.as_bytes().contains(&0);
            let like = |field: &&Field| nul || exact.is_some() || folds_to(key, &field.name);
            fields.iter().filter(like).for_each(|field| self.doubt(field));
        }
        for decides in [true, false] {
            for (field, value) in fields.iter().zip(found) {
                if let Some(value) = value.filter(|_| field.decides == decides) {
                    self.field(field, value);
                }
            }
        }
    }

    fn field(&mut self, field: &Field, value: usize) {
        let (before, to_shadows) = (self.writer.0.len(), self.to_shadows);
        let written = self.value(&field.name, value, &field.shape);
        let after = self.writer.0.len();
        // What only shadow policies ask for takes no room from what decides.
        let counted = if field.decides { after - self.to_shadows } else { after };
        if written.is_err() || counted > self.end_max {
            self.writer.0.truncate(before);
            self.to_shadows = to_shadows;
            self.doubt(field);
        } else if !field.decides {
            self.to_shadows = to_shadows + (after - before);
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

//! The arguments of a tool call, as far as policies ask for them.
//!
//! Only what a [`Plan`] names is copied out of a message, in the same pass in which it is read, as
//! a flat sequence of [`Item`]s: it is at once what a decision is made from and what stands in the
//! key of a cached one.

/// What a planned argument may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `true` or `false`.
    Bool,
    /// An integer of 64 bits.
    Long,
    /// A string.
    Text,
    /// Values of one shape, in any order.
    Set(Box<Shape>),
    /// Named members.
    Record(Vec<Field>),
}

/// One planned argument, or member of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, as the message spells it.
    pub name: Box<str>,
    /// What it may be.
    pub shape: Shape,
    /// A policy that decides asks for it; else only shadow policies do.
    pub decides: bool,
}

/// Which arguments of one tool policies ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// A policy that decides asks for the tool; else only shadow policies do.
    pub decides: bool,
}

impl Plan {
    /// The shape of a top-level argument.
    #[must_use]
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        shape_of(&self.fields, name)
    }

    /// Whether arguments that were read by `before` tell policies that decide what they would if
    /// they had been read by this plan. What only shadow policies ask for does not matter.
    #[must_use]
    pub fn decides_as(&self, before: Option<&Self>) -> bool {
        !self.decides
            || before.is_some_and(|before| before.decides && alike(&self.fields, &before.fields))
    }
}

/// Whether what decides of two sorted lists is the same.
fn alike(mine: &[Field], theirs: &[Field]) -> bool {
    let deciding = |fields| <[Field]>::iter(fields).filter(|field: &&Field| field.decides);
    deciding(mine).count() == deciding(theirs).count()
        && deciding(mine).zip(deciding(theirs)).all(|(mine, theirs)| {
            mine.name == theirs.name
                && match (&mine.shape, &theirs.shape) {
                    (Shape::Record(mine), Shape::Record(theirs)) => alike(mine, theirs),
                    (mine, theirs) => mine == theirs,
                }
        })
}

/// The shape of the member `name` of a record.
pub(super) fn shape_of<'p>(fields: &'p [Field], name: &str) -> Option<&'p Shape> {
    fields.iter().find(|field| *field.name == *name).map(|field| &field.shape)
}

/// The planned arguments of one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arguments<'a> {
    bytes: &'a [u8],
    planned: bool,
    doubt: Doubt,
}

/// Which planned arguments are there with a value that policies cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Doubt {
    /// One that policies which decide ask for.
    pub decides: bool,
    /// One that only shadow policies ask for.
    pub shadow: bool,
}

impl<'a> Arguments<'a> {
    /// Of everything that is not a call of a planned tool.
    pub const NONE: Self =
        Self { bytes: &[], planned: false, doubt: Doubt { decides: false, shadow: false } };

    /// Of a call that was read by a plan: what a [`Writer`] wrote.
    #[must_use]
    pub const fn new(bytes: &'a [u8], unrepresentable: bool) -> Self {
        Self::doubted(bytes, Doubt { decides: unrepresentable, shadow: false })
    }

    /// The same, where shadow policies may ask for more than those that decide.
    #[must_use]
    pub const fn doubted(bytes: &'a [u8], doubt: Doubt) -> Self {
        Self { bytes, planned: true, doubt }
    }

    /// The items as they lie one after another: equal bytes are equal arguments.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// True when the tool has a plan, and the message was read by it.
    #[must_use]
    pub const fn planned(self) -> bool {
        self.planned
    }

    /// True when an argument that decides is there with a value that policies cannot hold.
    #[must_use]
    pub const fn unrepresentable(self) -> bool {
        self.doubt.decides
    }

    /// True when any planned argument is there with such a value, shadow policies' own included.
    #[must_use]
    pub const fn unrepresentable_to_shadows(self) -> bool {
        self.doubt.decides || self.doubt.shadow
    }

    /// The items in their order.
    #[must_use]
    pub const fn items(self) -> Items<'a> {
        Items { rest: self.bytes }
    }
}

/// One item. The name is that of the argument or member; members of a set have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// `true` or `false`.
    Bool(&'a str, bool),
    /// An integer.
    Long(&'a str, i64),
    /// A string.
    Text(&'a str, &'a str),
    /// Up to its [`Item::End`] follow the members of a set.
    Set(&'a str),
    /// Up to its [`Item::End`] follow the members of a record.
    Record(&'a str),
    /// The innermost set or record ends.
    End,
}

/// Writes items: a tag, the name with its length (16 bits), the value (a string with its length, 32
/// bits), all little-endian.
pub struct Writer<'v>(pub &'v mut Vec<u8>);

impl Writer<'_> {
    /// A truth value.
    pub fn bool(&mut self, name: &str, value: bool) {
        self.head(BOOL, name);
        self.0.push(u8::from(value));
    }

    /// An integer.
    pub fn long(&mut self, name: &str, value: i64) {
        self.head(LONG, name);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A string, far below 4 GiB.
    pub fn text(&mut self, name: &str, value: &str) {
        self.head(TEXT, name);
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
    }

    /// Begins a set.
    pub fn set(&mut self, name: &str) {
        self.head(SET, name);
    }

    /// Begins a record.
    pub fn record(&mut self, name: &str) {
        self.head(RECORD, name);
    }

    /// Ends what was begun last.
    pub fn end(&mut self) {
        self.0.push(END);
    }

    /// Names come from a plan and are far below 64 KiB.
    fn head(&mut self, tag: u8, name: &str) {
        self.0.push(tag);
        let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(name.as_bytes());
    }
}

/// See [`Arguments::items`]. Bytes that no [`Writer`] wrote end it early.
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Items<'a> {
    fn item(&mut self) -> Option<Item<'a>> {
        let [tag] = self.chunk()?;
        if tag == END {
            return Some(Item::End);
        }
        let length = u16::from_le_bytes(self.chunk()?);
        let name = self.string(usize::from(length))?;
        Some(match tag {
            BOOL => {
                let [value] = self.chunk()?;
                Item::Bool(name, value != 0)
            }
            LONG => Item::Long(name, i64::from_le_bytes(self.chunk()?)),
            TEXT => {
                let length = u32::from_le_bytes(self.chunk()?);
                Item::Text(name, self.string(usize::try_from(length).ok()?)?)
            }
            SET => Item::Set(name),
            RECORD => Item::Record(name),
            _ => return None,
        })
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn string(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        std::str::from_utf8(taken).ok()
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let item = self.item();
        if item.is_none() {
            self.rest = &[];
        }
        item
    }
}

const BOOL: u8 = 0;
const LONG: u8 = 1;
const TEXT: u8 = 2;
const SET: u8 = 3;
const RECORD: u8 = 4;
const END: u8 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_back_as_they_were_written() {
        let mut bytes = Vec::new();
        let mut writer = Writer(&mut bytes);
        writer.bool("b", true);
        writer.record("r");
        writer.long("n", i64::MIN);
        writer.set("s");
        writer.text("", "é");
        writer.text("", "");
        writer.end();
        writer.end();
        let expected = [
            Item::Bool("b", true),
            Item::Record("r"),
            Item::Long("n", i64::MIN),
            Item::Set("s"),
            Item::Text("", "é"),
            Item::Text("", ""),
            Item::End,
            Item::End,
        ];
        let arguments = Arguments::new(&bytes, false);
        assert_eq!(arguments.items().collect::<Vec<_>>(), expected);
        assert!(arguments.planned() && !Arguments::NONE.planned());
        for end in 0..bytes.len() {
            let cut: Vec<_> = Arguments::new(&bytes[..end], false).items().collect();
            assert!(expected.starts_with(&cut) && cut.len() < expected.len(), "cut at {end}");
        }
        assert_eq!(Arguments::new(&[9, 0, 0], false).items().next(), None);
    }

    #[test]
    fn a_plan_knows_its_fields_by_their_exact_names() {
        let fields = vec![Field { name: "path".into(), shape: Shape::Text, decides: true }];
        let plan = Plan { fields, decides: true };
        assert_eq!(plan.shape("path"), Some(&Shape::Text));
        assert_eq!(plan.shape("Path"), None);
    }
}

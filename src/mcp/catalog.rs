//! What one server lists, page after page, kept as the server wrote it.
//!
//! A list that is held for others is held whole or not at all: what is malformed or over a bound
//! costs the server its part, never some of its items. Items stay the server's own bytes but for
//! two things: the name, which has another form on `/mcp`, and `_meta` names that are ours alone.

mod params;

use std::ops::Range;

pub use self::params::{Param, agree, mirrored};
use super::list::Listed;
use super::names;
use super::span::{Document, Malformed, Member, Node, NodeKind};
use super::splice::Edits;
use super::write;
use crate::limits::{
    CATALOG_CURSOR_BYTES_MAX, CATALOG_ITEM_BYTES_MAX, CATALOG_PAGES_MAX, LIST_BYTES_MAX,
    LIST_ITEMS_MAX, NAME_BYTES_MAX,
};

/// Why a list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Not a list of that kind, or one that can be read in two ways.
    Malformed,
    /// Over one of the bounds.
    TooLarge,
}

impl From<Malformed> for Unusable {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// A name that two items of one server would have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ambiguous;

/// The names of `_meta` that only the gateway may write.
pub const OUR_META: &str = "io.portcullis/";
/// Which server an item or a request is of: `_meta["io.portcullis/server"]`.
pub const META_SERVER: &str = "io.portcullis/server";

/// Everything that one server lists of one kind.
pub struct Catalog {
    listed: Listed,
    /// Items one after another.
    text: Vec<u8>,
    names: String,
    /// Sorted by name, each name once.
    items: Vec<Item>,
    params: Vec<Param>,
    ttl_ms: u64,
    public: bool,
    repeated: usize,
}

struct Item {
    name: Range<usize>,
    raw: Range<usize>,
    hole: Hole,
    params: Option<Range<usize>>,
}

/// Where something of ours goes into an item, counted from its beginning.
#[derive(Clone, Copy)]
enum Hole {
    /// A tool's or prompt's name, which was taken out.
    Name(usize),
    /// Behind the bracket of `_meta`.
    Meta { at: usize, empty: bool },
    /// There is no `_meta`.
    NoMeta,
}

/// What a tool mirrors into headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Params<'c> {
    /// These arguments; mostly none.
    Known(&'c [Param]),
    /// Its schema breaks the rules for them: a client must not use it (2026-07-28, transports,
    /// "Schema Extension").
    Invalid,
}

/// One item of a [`Catalog`].
#[derive(Clone, Copy)]
pub struct Entry<'c> {
    catalog: &'c Catalog,
    item: &'c Item,
}

impl Catalog {
    /// What it lists.
    #[must_use]
    pub fn listed(&self) -> Listed {
        self.listed
    }

    /// How many items it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Items that came under a name that was there already. The first one counts.
    #[must_use]
    pub fn repeated(&self) -> usize {
        self.repeated
    }

    /// How long the server lets it be used, the shortest of all pages; 0 when it does not say.
    #[must_use]
    pub fn ttl_ms(&self) -> u64 {
        self.ttl_ms
    }

    /// Every page said that it is the same for everybody.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// Bytes that it holds, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let params = self.params.len() * (size_of::<Param>() + PARAM_BYTES);
        self.text.len() + self.names.len() + self.items.len() * size_of::<Item>() + params
    }

    /// Its items in byte order of their names (of resources their URIs).
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.items.iter().map(|item| Entry { catalog: self, item })
    }

    /// The item of that exact name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Entry<'_>> {
        let at = self.items.binary_search_by(|item| self.name(item).cmp(name)).ok()?;
        Some(Entry { catalog: self, item: self.items.get(at)? })
    }

    /// The item that a client means by `outer`, which may be cut, or be `plain` as it is (see
    /// [`names::Split::Hashed`]). Where two items would be called the same, it means neither.
    ///
    /// # Errors
    /// [`Ambiguous`]
    pub fn meant<'n>(
        &'n self,
        prefix: &str,
        outer: &str,
        plain: &str,
    ) -> Result<Option<Entry<'n>>, Ambiguous> {
        let mut all = self
            .find(plain)
            .into_iter()
            .chain(self.entries().filter(|entry| names::is_composed(prefix, entry.name(), outer)));
        match (all.next(), all.next()) {
            (one, None) => Ok(one),
            (_, Some(_)) => Err(Ambiguous),
        }
    }

    /// The names on `/mcp` that more than one item would have, sorted. One of the two is cut at
    /// least: names that are not are as different there as here.
    #[must_use]
    pub fn ambiguous(&self, prefix: &str) -> Vec<String> {
        if !self.entries().any(|entry| names::is_cut(prefix, entry.name())) {
            return Vec::new();
        }
        let mut hashed: Vec<String> = Vec::new();
        for entry in self.entries() {
            let mut outer = String::new();
            names::compose(prefix, entry.name(), &mut outer);
            if !prefix.is_empty() && names::may_be_hashed(&outer) {
                hashed.push(outer);
            }
        }
        hashed.sort_unstable();
        let mut twice: Vec<String> = hashed
            .windows(2)
            .filter_map(|pair| match pair {
                [one, other] if one == other => Some(one.clone()),
                _ => None,
            })
            .collect();
        twice.dedup();
        twice
    }

    fn name(&self, item: &Item) -> &str {
        self.names.get(item.name.clone()).unwrap_or_default()
    }
}

impl<'c> Entry<'c> {
    /// The server's own name for it; of resources the URI, of templates the template.
    #[must_use]
    pub fn name(self) -> &'c str {
        self.catalog.name(self.item)
    }

    /// What a call of this tool mirrors into headers.
    #[must_use]
    pub fn params(self) -> Params<'c> {
        let range = self.item.params.clone();
        let params = range.and_then(|range| self.catalog.params.get(range));
        params.map_or(Params::Invalid, Params::Known)
    }

    /// Appends the item. A tool or prompt is called `outer`; resources keep their URI.
    pub fn write(self, outer: &str, out: &mut Vec<u8>) {
        match self.item.hole {
            Hole::Name(at) => {
                let (head, tail) = self.raw().split_at_checked(at).unwrap_or_default();
                out.extend_from_slice(head);
                write::string(outer, out);
                out.extend_from_slice(tail);
            }
            Hole::Meta { .. } | Hole::NoMeta => out.extend_from_slice(self.raw()),
        }
    }

    /// Appends a resource or template with the name of its server in `_meta`: more than one has it.
    pub fn write_of(self, server: &str, out: &mut Vec<u8>) {
        let (at, before, behind) = match self.item.hole {
            Hole::Name(_) => return,
            Hole::Meta { at, empty } => (at, &b""[..], if empty { &b""[..] } else { b"," }),
            Hole::NoMeta => (1, &b"\"_meta\":{"[..], &b"},"[..]),
        };
        let (head, tail) = self.raw().split_at_checked(at).unwrap_or_default();
        out.extend_from_slice(head);
        out.extend_from_slice(before);
        write::string(META_SERVER, out);
        out.push(b':');
        write::string(server, out);
        out.extend_from_slice(behind);
        out.extend_from_slice(tail);
    }

    fn raw(self) -> &'c [u8] {
        self.catalog.text.get(self.item.raw.clone()).unwrap_or_default()
    }
}

/// Gathers the pages of one list.
pub struct Gatherer {
    catalog: Catalog,
    pages: usize,
    bytes: usize,
    cursor: Option<String>,
    for_legacy: bool,
    /// For items that are changed, and read again.
    again: Document,
}

impl Gatherer {
    /// Of no page yet.
    #[must_use]
    pub fn new(listed: Listed) -> Self {
        let catalog = Catalog {
            listed,
            text: Vec::new(),
            names: String::new(),
            items: Vec::new(),
            params: Vec::new(),
            ttl_ms: u64::MAX,
            public: true,
            repeated: 0,
        };
        Self {
            catalog,
            pages: 0,
            bytes: 0,
            cursor: None,
            for_legacy: false,
            again: Document::new(),
        }
    }

    /// The list of a modern server for an agent of a legacy revision, in which an `outputSchema`
    /// always describes an object (2025-11-25 schema, `Tool`): one that does not is left out. So is
    /// a tool whose arguments cannot be mirrored, which we would have to do for that agent.
    #[must_use]
    pub fn for_legacy(self) -> Self {
        Self { for_legacy: true, ..self }
    }

    /// Takes one page: `result` of the message `text`, which `document` holds. Answers the cursor
    /// of the next one, if there is one; any string is a cursor, the empty one, too.
    ///
    /// # Errors
    /// [`Unusable`]: then the list is over.
    pub fn page(
        &mut self,
        document: &Document,
        result: Node<'_>,
        text: &[u8],
    ) -> Result<Option<&str>, Unusable> {
        self.pages += 1;
        self.bytes += text.len();
        if self.pages > CATALOG_PAGES_MAX || self.bytes > LIST_BYTES_MAX {
            return Err(Unusable::TooLarge);
        }
        if document.repeats_a_key() || !result.is_object() {
            return Err(Unusable::Malformed);
        }
        let [list, next, ttl, scope] =
            result.pick(&[self.catalog.listed.member(), "nextCursor", "ttlMs", "cacheScope"])?;
        let list = list.filter(|list| list.is_array()).ok_or(Unusable::Malformed)?;
        for element in list.elements() {
            self.item(element, text)?;
        }
        let ttl_ms = ttl.and_then(Node::number_u64).unwrap_or(0);
        self.catalog.ttl_ms = self.catalog.ttl_ms.min(ttl_ms);
        self.catalog.public &= scope.and_then(Node::text) == Some("public");
        let next = match next.filter(|next| next.kind() != NodeKind::Null) {
            Some(next) => Some(next.text().ok_or(Unusable::Malformed)?),
            None => None,
        };
        if next.is_some_and(|next| next.len() > CATALOG_CURSOR_BYTES_MAX) {
            return Err(Unusable::TooLarge);
        }
        // It would go on in circles.
        if next.is_some() && self.cursor.as_deref() == next {
            return Err(Unusable::Malformed);
        }
        self.cursor = next.map(str::to_owned);
        Ok(self.cursor.as_deref())
    }

    /// All that was gathered.
    #[must_use]
    pub fn finish(self) -> Catalog {
        let mut catalog = self.catalog;
        if self.pages == 0 {
            catalog.ttl_ms = 0;
            catalog.public = false;
        }
        let mut items = std::mem::take(&mut catalog.items);
        // Stable: of equal names the first stays first.
        items.sort_by(|a, b| catalog.name(a).cmp(catalog.name(b)));
        let before = items.len();
        items.dedup_by(|later, first| catalog.name(later) == catalog.name(first));
        catalog.repeated = before - items.len();
        items.shrink_to_fit();
        catalog.items = items;
        catalog.text.shrink_to_fit();
        catalog.names.shrink_to_fit();
        catalog
    }

    fn item(&mut self, element: Node<'_>, text: &[u8]) -> Result<(), Unusable> {
        if self.catalog.items.len() == LIST_ITEMS_MAX {
            return Err(Unusable::TooLarge);
        }
        let raw = text.get(element.range()).ok_or(Unusable::Malformed)?;
        if raw.len() > CATALOG_ITEM_BYTES_MAX {
            return Err(Unusable::TooLarge);
        }
        let [meta, schema] = element.pick(&["_meta", "outputSchema"])?;
        let ours = |member: Member<'_>| member.key.starts_with(OUR_META);
        let (clean, null) = match meta.map(|meta| (meta.kind(), meta)) {
            None => (true, false),
            Some((NodeKind::Object, meta)) => (!meta.members().any(ours), false),
            Some((NodeKind::Null, _)) => (false, true),
            Some(_) => return Err(Unusable::Malformed),
        };
        let other = |schema: Node<'_>| schema.get("type").and_then(Node::text) != Some("object");
        let drops = self.for_legacy && schema.is_some_and(other);
        if clean && !drops {
            return self.catalog.take(element, raw, element.range().start, self.for_legacy);
        }
        let mut edits = Edits::new();
        let gone = |key: &str| drops && key == "outputSchema" || null && key == "_meta";
        let mut edited = edits.remove_members(element, gone);
        if let Some(meta) = meta.filter(|meta| meta.is_object()) {
            edited =
                edited.and_then(|_| edits.remove_members(meta, |key| key.starts_with(OUR_META)));
        }
        let mut whole = Vec::new();
        edited.and_then(|_| edits.apply(text, &mut whole)).map_err(|_| Unusable::Malformed)?;
        // Nothing before the element changed, and behind it nothing.
        let end = (element.range().end + whole.len()).checked_sub(text.len());
        let raw = end.and_then(|end| whole.get(element.range().start..end));
        let raw = raw.ok_or(Unusable::Malformed)?;
        let element = self.again.read(raw)?;
        self.catalog.take(element, raw, 0, self.for_legacy)
    }
}

impl Catalog {
    /// Takes an item in that may stay as it is; `raw` stands at `from` of the text of `element`.
    /// Where we mirror arguments ourselves (`mirrors`), a tool for which nobody can is left out.
    fn take(
        &mut self,
        element: Node<'_>,
        raw: &[u8],
        from: usize,
        mirrors: bool,
    ) -> Result<(), Unusable> {
        let [key] = self.listed.key();
        let [named, meta] = element.pick(&[key, "_meta"])?;
        let named = named.ok_or(Unusable::Malformed)?;
        let name = named.text().ok_or(Unusable::Malformed)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Unusable::TooLarge);
        }
        if name.as_bytes().contains(&0) {
            return Err(Unusable::Malformed);
        }
        let is_named = matches!(self.listed, Listed::Tools | Listed::Prompts);
        let schema = element.get("inputSchema").filter(|_| self.listed == Listed::Tools);
        let params_from = self.params.len();
        let valid = schema.is_none_or(|schema| params::read(schema, &mut self.params));
        if !valid {
            self.params.truncate(params_from);
            if mirrors {
                return Ok(());
            }
        }
        let place = named.range();
        let (start, end) = (place.start.wrapping_sub(from), place.end.wrapping_sub(from));
        let kept_from = self.text.len();
        let hole = if is_named {
            self.text.extend_from_slice(raw.get(..start).ok_or(Unusable::Malformed)?);
            self.text.extend_from_slice(raw.get(end..).ok_or(Unusable::Malformed)?);
            Hole::Name(start)
        } else {
            self.text.extend_from_slice(raw);
            meta.map_or(Hole::NoMeta, |meta| Hole::Meta {
                at: meta.range().start.wrapping_sub(from) + 1,
                empty: meta.members().next().is_none(),
            })
        };
        let name_from = self.names.len();
        self.names.push_str(name);
        self.items.push(Item {
            name: name_from..self.names.len(),
            raw: kept_from..self.text.len(),
            hole,
            params: valid.then_some(params_from..self.params.len()),
        });
        Ok(())
    }
}

/// What the texts of one parameter take, about.
const PARAM_BYTES: usize = 64;

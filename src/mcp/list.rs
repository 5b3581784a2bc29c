//! Lists of what a server has, as an upstream answers them: read, and written again with fewer
//! items.
//!
//! What is kept is copied from the upstream's own bytes, item by item; nothing is written anew but
//! what must change. The parser works on a copy. Its tape says what there is, and the structural
//! characters that it found say where: both are walked side by side. A list that two readers could
//! read in two ways is refused, because one of them might see an item that is not shown.

use std::ops::Range;

use simd_json::{Buffers, INPUT_PADDING, Node, Tape, fill_tape_padded};

use super::message::ServerNote;
use super::method::Method;
use super::tree::{Keys, Tree, pick};
use crate::limits::{BODY_BUFFER_KEPT_BYTES_MAX, JSON_DEPTH_MAX, NAME_BYTES_MAX};
use crate::reject::Reject;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listed {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
}

impl Listed {
    /// What `method` lists; `None` when it lists nothing.
    #[must_use]
    pub const fn of(method: Method) -> Option<Self> {
        if matches!(method, Method::ToolsList) {
            Some(Self::Tools)
        } else if matches!(method, Method::PromptsList) {
            Some(Self::Prompts)
        } else if matches!(method, Method::ResourcesList) {
            Some(Self::Resources)
        } else if matches!(method, Method::ResourcesTemplatesList) {
            Some(Self::Templates)
        } else {
            None
        }
    }

    /// What `note` says has changed.
    #[must_use]
    pub const fn changed_by(note: ServerNote) -> &'static [Self] {
        if matches!(note, ServerNote::ToolsListChanged) {
            &[Self::Tools]
        } else if matches!(note, ServerNote::PromptsListChanged) {
            &[Self::Prompts]
        } else if matches!(note, ServerNote::ResourcesListChanged) {
            // There is no notification for templates alone.
            &[Self::Resources, Self::Templates]
        } else {
            &[]
        }
    }

    /// The method that lists it.
    #[must_use]
    pub const fn method(self) -> &'static str {
        match self {
            Self::Tools => "tools/list",
            Self::Prompts => "prompts/list",
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
        }
    }

    /// The member of the result that holds the items (MCP schema, `ListToolsResult` and the like).
    pub(super) const fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }

    /// The member of an item that a policy knows it by.
    pub(super) const fn key(self) -> [&'static str; 1] {
        match self {
            Self::Tools | Self::Prompts => ["name"],
            Self::Resources => ["uri"],
            Self::Templates => ["uriTemplate"],
        }
    }
}

/// What a message of an upstream turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// No list: an error, a request, a notification, a result of another kind. It may pass.
    NotAList,
    /// A list of `listed`, with `items` items, named or not.
    List {
        /// Of what.
        listed: Listed,
        /// How many the upstream sent.
        items: usize,
    },
}

/// Whether a message may hold a list: one of the four members by its name, or a name that is
/// written with an escape. A look that costs little, where lists are not expected.
#[must_use]
pub fn may_hold_a_list(message: &[u8]) -> bool {
    let names = RESULT.map(str::as_bytes);
    let [lists @ .., _] = names;
    let escaped = |piece: &[u8]| piece.windows(ESCAPE.len()).any(|bytes| bytes == ESCAPE);
    message.split(|byte| *byte == b'"').any(|piece| lists.contains(&piece) || escaped(piece))
}

/// A reusable reader of lists.
pub struct ListReader {
    buffers: Buffers,
    /// Empty between two lists: only its memory is kept.
    tape: Tape<'static>,
    scratch: Vec<u8>,
    keys: Keys,
    /// Names of the items, one after another.
    arena: String,
    items: Vec<Item>,
    places: Places,
}

/// An item that has a name.
struct Item {
    /// In the body.
    raw: Range<usize>,
    /// In the arena.
    name: Range<usize>,
}

/// Where what may change stands in the body.
#[derive(Clone, Default)]
struct Places {
    /// Between the brackets of the list.
    inner: Range<usize>,
    /// Behind the opening bracket of the result.
    result: usize,
    /// The value of `cacheScope`, when there is one.
    scope: Option<Range<usize>>,
}

impl Default for ListReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ListReader {
    /// An empty reader. Its buffers grow with the first lists.
    #[must_use]
    pub fn new() -> Self {
        Self {
            buffers: Buffers::with_max_depth(0, JSON_DEPTH_MAX),
            tape: Tape(Vec::new()),
            scratch: Vec::new(),
            keys: Keys::new(),
            arena: String::new(),
            items: Vec::new(),
            places: Places::default(),
        }
    }

    /// Reads one JSON-RPC message. A list of any kind is one, whatever was asked for: some servers
    /// give an answer to whoever used its id last.
    ///
    /// # Errors
    /// `UpstreamMalformed` for what is not one JSON object of bounded depth, and for one that could
    /// be read in two ways: equal keys, keys that differ in case only from those that matter, a
    /// list that is no array, two lists in one result.
    pub fn read(&mut self, body: &[u8]) -> Result<Found, Reject> {
        self.forget();
        self.places = Places::default();
        self.scratch.clear();
        self.scratch.reserve(body.len() + INPUT_PADDING);
        self.scratch.extend_from_slice(body);
        self.scratch.extend_from_slice(&[b' '; INPUT_PADDING]);
        let mut tape = std::mem::replace(&mut self.tape, Tape(Vec::new())).reset();
        let filled = fill_tape_padded(&mut self.scratch, body.len(), &mut self.buffers, &mut tape);
        let found = match filled {
            Err(_) => None,
            Ok(()) => {
                let tree = Tree::new(&tape.0);
                let unique = self.keys.are_unique(tree);
                let way = Way { structurals: self.buffers.structural_indexes(), body, at: 0 };
                let mut reading = Reading {
                    tree,
                    arena: &mut self.arena,
                    items: &mut self.items,
                    places: &mut self.places,
                };
                reading.message(way).filter(|_| unique)
            }
        };
        self.tape = tape.reset();
        self.shrink();
        if found.is_none() {
            self.forget();
        }
        found.ok_or(Reject::UpstreamMalformed)
    }

    /// Names of the items that have one, in the upstream's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.items.iter().map(|item| self.name(item))
    }

    /// Appends `body`, which was read last, with those items only for which `kept` says so (in the
    /// order of [`ListReader::names`]; a missing answer is a no), sorted by name so that equal
    /// lists are equal whatever order the upstream had. `private` makes the answer one that only
    /// its asker may cache (MCP 2026-07-28, server/utilities/caching, `cacheScope`).
    pub fn write(&self, body: &[u8], kept: &[bool], private: bool, out: &mut Vec<u8>) {
        let mut shown: Vec<&Item> =
            self.items.iter().zip(kept).filter_map(|(item, kept)| kept.then_some(item)).collect();
        shown.sort_by(|a, b| self.name(a).cmp(self.name(b)));
        let Places { inner, result, scope } = &self.places;
        let mut at = 0;
        let copy = |out: &mut Vec<u8>, from: usize, to: usize| {
            out.extend_from_slice(body.get(from..to).unwrap_or_default());
        };
        if private && scope.is_none() {
            copy(out, at, *result);
            out.extend_from_slice(b"\"cacheScope\":\"private\",");
            at = *result;
        }
        let scope = scope.as_ref().filter(|_| private);
        if let Some(scope) = scope.filter(|scope| scope.start < inner.start) {
            copy(out, at, scope.start);
            out.extend_from_slice(PRIVATE);
            at = scope.end;
        }
        copy(out, at, inner.start);
        for (index, item) in shown.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            copy(out, item.raw.start, item.raw.end);
        }
        at = inner.end;
        if let Some(scope) = scope.filter(|scope| scope.start >= inner.end) {
            copy(out, at, scope.start);
            out.extend_from_slice(PRIVATE);
            at = scope.end;
        }
        copy(out, at, body.len());
    }

    /// Forgets the list that was read last. A long one does not leave its memory behind.
    pub fn forget(&mut self) {
        self.arena.clear();
        self.items.clear();
        if self.kept_bytes() > BODY_BUFFER_KEPT_BYTES_MAX {
            self.arena = String::new();
            self.items = Vec::new();
        }
    }

    /// Bytes that names and places of items hold.
    fn kept_bytes(&self) -> usize {
        self.arena.capacity().max(self.items.capacity() * size_of::<Item>())
    }

    fn name(&self, item: &Item) -> &str {
        self.arena.get(item.name.clone()).unwrap_or_default()
    }

    /// A long list must not leave its memory behind.
    fn shrink(&mut self) {
        let nodes = self.tape.0.capacity() * size_of::<Node<'static>>();
        if self.scratch.capacity().max(nodes) > BODY_BUFFER_KEPT_BYTES_MAX {
            self.buffers = Buffers::with_max_depth(0, JSON_DEPTH_MAX);
            self.tape = Tape(Vec::new());
            self.scratch = Vec::new();
        }
    }
}

/// One message under way.
struct Reading<'r, 't, 's> {
    tree: Tree<'t, 's>,
    arena: &'r mut String,
    items: &'r mut Vec<Item>,
    places: &'r mut Places,
}

impl Reading<'_, '_, '_> {
    fn message(&mut self, mut way: Way<'_>) -> Option<Found> {
        let tree = self.tree;
        if !tree.is_object(0) {
            return None;
        }
        let [result, ..] = pick(tree, 0, &TOP).ok()?;
        let Some(result) = result.filter(|at| tree.is_object(*at)) else {
            return Some(Found::NotAList);
        };
        let members = pick(tree, result, &RESULT).ok()?;
        let mut lists = ALL.iter().zip(members).filter_map(|(listed, at)| Some((*listed, at?)));
        let Some((listed, list)) = lists.next() else { return Some(Found::NotAList) };
        if lists.next().is_some() || !tree.is_array(list) {
            return None;
        }
        let [.., scope] = members;
        way.enter(b'{')?;
        for (_, _, value) in tree.members(0) {
            way.key()?;
            if value == result {
                self.result(&mut way, result, (listed, list), scope)?;
            } else {
                way.value()?;
            }
            way.next()?;
        }
        let items = tree.elements(list).count();
        Some(Found::List { listed, items })
    }

    fn result(
        &mut self,
        way: &mut Way<'_>,
        result: usize,
        (listed, list): (Listed, usize),
        scope: Option<usize>,
    ) -> Option<()> {
        let tree = self.tree;
        self.places.result = way.enter(b'{')?;
        for (_, _, value) in tree.members(result) {
            way.key()?;
            if value == list {
                self.list(way, listed, list)?;
            } else {
                let raw = way.value()?;
                if Some(value) == scope {
                    self.places.scope = Some(raw);
                }
            }
            way.next()?;
        }
        way.leave(tree.members(result).next().is_none())
    }

    fn list(&mut self, way: &mut Way<'_>, listed: Listed, list: usize) -> Option<()> {
        let tree = self.tree;
        let start = way.enter(b'[')?;
        let mut is_empty = true;
        for element in tree.elements(list) {
            is_empty = false;
            let raw = way.value()?;
            way.next()?;
            // What has no name that could be asked for is never shown.
            let Ok([Some(named)]) = pick(tree, element, &listed.key()) else { continue };
            let Some(name) = tree.text(named) else { continue };
            if name.len() > NAME_BYTES_MAX || name.as_bytes().contains(&0) {
                continue;
            }
            let from = self.arena.len();
            self.arena.push_str(name);
            self.items.push(Item { raw, name: from..self.arena.len() });
        }
        way.leave(is_empty)?;
        self.places.inner = start..way.last()?;
        Some(())
    }
}

/// A walk over the structural characters of a body that is known to be well formed: brackets,
/// colons, commas, and the first byte of every string, number and literal.
struct Way<'b> {
    structurals: &'b [u32],
    body: &'b [u8],
    /// The next one.
    at: usize,
}

impl Way<'_> {
    /// Its place in the body, and the byte there.
    fn peek(&self) -> Option<(usize, u8)> {
        let place = *self.structurals.get(self.at)? as usize;
        Some((place, *self.body.get(place)?))
    }

    /// Into an object or list; answers the place behind its bracket.
    fn enter(&mut self, bracket: u8) -> Option<usize> {
        let (place, byte) = self.peek()?;
        self.at += 1;
        (byte == bracket).then_some(place + 1)
    }

    /// Past a key and its colon.
    fn key(&mut self) -> Option<()> {
        self.at += 2;
        let colon = *self.structurals.get(self.at.checked_sub(1)?)? as usize;
        (self.body.get(colon) == Some(&b':')).then_some(())
    }

    /// Past a whole value; answers its place, without the white space behind it.
    fn value(&mut self) -> Option<Range<usize>> {
        let (start, _) = self.peek()?;
        let mut depth = 0_usize;
        loop {
            let (place, byte) = self.peek()?;
            self.at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(start..place + 1);
                    }
                }
                _ if depth == 0 => {
                    let (next, _) = self.peek()?;
                    let raw = self.body.get(start..next)?;
                    return Some(start..start + raw.trim_ascii_end().len());
                }
                _ => {}
            }
        }
    }

    /// Past the comma or the closing bracket behind a value.
    fn next(&mut self) -> Option<()> {
        let (_, byte) = self.peek()?;
        self.at += 1;
        matches!(byte, b',' | b'}' | b']').then_some(())
    }

    /// Out of an object or list: past its bracket, unless the last value's step took it.
    fn leave(&mut self, is_empty: bool) -> Option<()> {
        if is_empty { self.next() } else { Some(()) }
    }

    /// The place of what was passed last.
    fn last(&self) -> Option<usize> {
        self.structurals.get(self.at.checked_sub(1)?).map(|place| *place as usize)
    }
}

/// In the order of `RESULT`.
const ALL: [Listed; 4] = [Listed::Tools, Listed::Prompts, Listed::Resources, Listed::Templates];
const TOP: [&str; 5] = ["result", "error", "id", "method", "jsonrpc"];
const RESULT: [&str; 5] = [
    Listed::Tools.member(),
    Listed::Prompts.member(),
    Listed::Resources.member(),
    Listed::Templates.member(),
    "cacheScope",
];
/// How an ASCII letter begins that is written with an escape.
const ESCAPE: &[u8] = b"\\u00";
const PRIVATE: &[u8] = b"\"private\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_does_not_leave_its_memory_behind() {
        let names = |bytes: usize, count: usize| {
            let item = format!(r#"{{"name":"{}"}}"#, "n".repeat(bytes));
            format!(r#"{{"result":{{"tools":[{}]}}}}"#, vec![item; count].join(","))
        };
        let mut reader = ListReader::new();
        for long in [names(4000, 100), names(1, 20_000)] {
            assert!(reader.read(long.as_bytes()).is_ok());
            assert!(reader.kept_bytes() > BODY_BUFFER_KEPT_BYTES_MAX);
            reader.forget();
            assert_eq!((reader.kept_bytes(), reader.names().count()), (0, 0));
        }
        assert!(reader.read(names(10, 10).as_bytes()).is_ok());
        reader.forget();
        assert!(reader.kept_bytes() > 0, "what is short is kept");
    }

    fn filtered(body: &str, hidden: &[&str], private: bool) -> String {
        let mut reader = ListReader::new();
        let found = reader.read(body.as_bytes()).unwrap();
        assert_ne!(found, Found::NotAList, "{body}");
        let kept: Vec<bool> = reader.names().map(|name| !hidden.contains(&name)).collect();
        let mut out = Vec::new();
        reader.write(body.as_bytes(), &kept, private, &mut out);
        let out = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&out)
            .unwrap_or_else(|bad| panic!("{bad}: {out}"));
        out
    }

    #[test]
    fn items_are_hidden_sorted_and_otherwise_untouched() {
        let body = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[ {"name":"b", "x":{"name":"z,]}"}}
            ,{"description":"[{","name":"a"},
            {"name":"c\u0064","n":1.50e2}],"nextCursor":"n"}}"#;
        let rest = r#"],"nextCursor":"n"}}"#;
        let head = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":["#;
        let [a, b, c] = [
            r#"{"description":"[{","name":"a"}"#,
            r#"{"name":"b", "x":{"name":"z,]}"}}"#,
            r#"{"name":"c\u0064","n":1.50e2}"#,
        ];
        assert_eq!(filtered(body, &[], false), format!("{head}{a},{b},{c}{rest}"));
        assert_eq!(filtered(body, &["b"], false), format!("{head}{a},{c}{rest}"));
        assert_eq!(filtered(body, &["cd", "a"], false), format!("{head}{b}{rest}"));
        assert_eq!(filtered(body, &["a", "b", "cd"], false), format!("{head}{rest}"));
        assert_eq!(filtered(body, &["b"], false), format!("{head}{a},{c}{rest}"));
    }

    #[test]
    fn each_kind_is_known_by_its_own_member() {
        for (kind, body) in [
            (Listed::Prompts, r#"{"result":{"prompts":[{"name":"x","uri":"y"}]}}"#),
            (Listed::Resources, r#"{"result":{"resources":[{"uri":"x","name":"y"}]}}"#),
            (Listed::Templates, r#"{"result":{"resourceTemplates":[{"uriTemplate":"x"}]}}"#),
        ] {
            let whole = filtered(body, &["y"], false);
            assert_eq!(whole, body);
            assert!(filtered(body, &["x"], false).ends_with("[]}}"), "{body}");
            let found = ListReader::new().read(body.as_bytes());
            assert_eq!(found, Ok(Found::List { listed: kind, items: 1 }), "{body}");
            assert!(may_hold_a_list(body.as_bytes()));
        }
        for (message, expected) in [
            (r#"{"result":{"t\u006fols":[]}}"#, true),
            (r#"{"result":{"content":[{"text":"tools and \n prompts"}]}}"#, false),
            ("", false),
        ] {
            assert_eq!(may_hold_a_list(message.as_bytes()), expected, "{message}");
        }
    }

    #[test]
    fn a_filtered_list_is_private() {
        for (body, expected) in [
            (r#"{"result":{"tools":[]}}"#, r#"{"result":{"cacheScope":"private","tools":[]}}"#),
            (
                r#"{"result": { "cacheScope" : "public" ,"tools":[{"name":"a"}]},"id":1}"#,
                r#"{"result": { "cacheScope" : "private" ,"tools":[{"name":"a"}]},"id":1}"#,
            ),
            (
                r#"{"id":1,"result":{"tools":[{"name":"a"}],"ttlMs":5,"cacheScope":"public"}}"#,
                r#"{"id":1,"result":{"tools":[{"name":"a"}],"ttlMs":5,"cacheScope":"private"}}"#,
            ),
            (
                r#"{"result":{"cacheScope":["public"],"tools":[ ]}}"#,
                r#"{"result":{"cacheScope":"private","tools":[]}}"#,
            ),
        ] {
            assert_eq!(filtered(body, &[], true), expected);
        }
    }

    #[test]
    fn what_has_no_name_is_never_shown() {
        let body = r#"{"result":{"tools":[{},{"name":1},"name",["name"],{"Name":"a"},
            {"name":"a\u0000b"},{"name":"a","NAME":"b"},null,{"name":"good"}]}}"#;
        assert_eq!(filtered(body, &[], false), r#"{"result":{"tools":[{"name":"good"}]}}"#);
        let mut reader = ListReader::new();
        let found = reader.read(body.as_bytes()).unwrap();
        assert_eq!(found, Found::List { listed: Listed::Tools, items: 9 });
    }

    #[test]
    fn what_is_no_list_may_pass_and_what_is_doubtful_may_not() {
        let mut reader = ListReader::new();
        for body in [
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"tools"}}"#,
            r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"tools":[{}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"tools":[{"name":"a"}]}]}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":[{"tools":[]}]}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{}"#,
        ] {
            assert_eq!(reader.read(body.as_bytes()), Ok(Found::NotAList), "{body}");
        }
        for body in [
            "",
            "[]",
            r#"[{"result":{"tools":[]}}]"#,
            r#"{"result":{"tools":[]}} {}"#,
            r#"{"result":{"tools":[{"name":"a"}]}"#,
            r#"{"result":{"tools":{"name":"a"}}}"#,
            r#"{"result":{"tools":"a"}}"#,
            r#"{"result":{"tools":[],"tools":[{"name":"a"}]}}"#,
            r#"{"result":{"tools":[],"t\u006fols":[{"name":"a"}]}}"#,
            r#"{"result":{"tools":[],"Tools":[{"name":"a"}]}}"#,
            r#"{"result":{"tools":[],"prompts":[]}}"#,
            r#"{"result":{},"Result":{"tools":[{"name":"a"}]}}"#,
            r#"{"result":{"tools":[{"name":"a","name":"b"}]}}"#,
        ] {
            let read = reader.read(body.as_bytes());
            assert_eq!(read, Err(Reject::UpstreamMalformed), "{body}");
        }
        assert_eq!(reader.names().count(), 0, "nothing of a refused list is left");
    }
}

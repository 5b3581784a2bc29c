//! Edits of a JSON text by the places of its values: what is not edited stays byte for byte what it
//! was.

use std::ops::Range;

use super::span::{Member, Node};
use super::write;

/// Edits of one text.
pub const EDITS_MAX: usize = 16;

/// An edit that cannot be carried out beside the others: too many, one inside another, a place
/// beyond the text, a member that is no member. What it belongs to must not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfit;

/// Up to [`EDITS_MAX`] edits of one text, sorted and disjoint.
#[derive(Default)]
pub struct Edits<'a> {
    edits: [Edit<'a>; EDITS_MAX],
    count: usize,
}

/// The bytes of `range` give way to what `by` writes.
#[derive(Clone, Default)]
struct Edit<'a> {
    range: Range<usize>,
    by: By<'a>,
}

#[derive(Clone, Copy, Default)]
enum By<'a> {
    #[default]
    Nothing,
    Json(&'a [u8]),
    Member {
        key: &'a str,
        json: &'a [u8],
        /// Something stands before it in its object.
        comma: bool,
    },
}

impl<'a> Edits<'a> {
    /// None yet: applied, they copy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Replaces what stands at `range`, a whole value's, by `json`, which must be a JSON text.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn put(&mut self, range: Range<usize>, json: &'a [u8]) -> Result<(), Unfit> {
        self.push(Edit { range, by: By::Json(json) })
    }

    /// Adds a member at the end of `object`, which has none called `key` (or whose own is removed:
    /// all removals come first).
    ///
    /// # Errors
    /// See [`Unfit`]; a second member of that name is one, too.
    pub fn insert_member(
        &mut self,
        object: Node<'_>,
        key: &'a str,
        json: &'a [u8],
    ) -> Result<(), Unfit> {
        let place = end_of(object)?;
        let mut left = object.members().filter(|member| !self.removes(member));
        if left.clone().any(|member| member.key == key) || self.inserts(place, key) {
            return Err(Unfit);
        }
        let comma = left.next().is_some() || self.inserts_at(place).next().is_some();
        self.push(Edit { range: place..place, by: By::Member { key, json, comma } })
    }

    /// Gives the member `key` of `object` the value `json`, whether it is there or not.
    ///
    /// # Errors
    /// See [`Unfit`]; a key that is there twice is one, too.
    pub fn set_member(
        &mut self,
        object: Node<'_>,
        key: &'a str,
        json: &'a [u8],
    ) -> Result<(), Unfit> {
        let mut same = object.members().filter(|member| member.key == key);
        match (same.next(), same.next()) {
            (None, _) => self.insert_member(object, key, json),
            (Some(member), None) => self.put(member.value.range(), json),
            (Some(_), Some(_)) => Err(Unfit),
        }
    }

    /// Removes every member of `object` called `key`, each with its comma. Answers how many.
    ///
    /// # Errors
    /// Those of [`Edits::remove_members`].
    pub fn remove_member(&mut self, object: Node<'_>, key: &str) -> Result<usize, Unfit> {
        self.remove_members(object, |name| name == key)
    }

    /// Removes the members of `object` whose key `gone` says so of, each with its comma. Answers
    /// how many. Of one object they are removed at once, and before anything is inserted.
    ///
    /// # Errors
    /// See [`Unfit`].
    pub fn remove_members(
        &mut self,
        object: Node<'_>,
        gone: impl Fn(&str) -> bool,
    ) -> Result<usize, Unfit> {
        if self.inserts_at(end_of(object)?).next().is_some() {
            return Err(Unfit);
        }
        let mut removed = 0;
        // The end of the last member that is left, and where the run of those begins that are not.
        let (mut left, mut run) = (None, None);
        for Member { key, key_range, value } in object.members() {
            if gone(key) {
                removed += 1;
                let start =
                    run.map_or(left.unwrap_or(key_range.start), |run: Range<usize>| run.start);
                run = Some(start..value.range().end);
                continue;
            }
            if let Some(run) = run.take() {
                // With the comma before it when something is left there, else with that behind it.
                let end = if left.is_some() { run.end } else { key_range.start };
                self.push(Edit { range: run.start..end, by: By::Nothing })?;
            }
            left = Some(value.range().end);
        }
        if let Some(range) = run {
            self.push(Edit { range, by: By::Nothing })?;
        }
        Ok(removed)
    }

    /// Appends `text`, edited.
    ///
    /// # Errors
    /// An edit beyond the end of `text`: then nothing is appended.
    pub fn apply(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Unfit> {
        let before = out.len();
        let applied = self.write(text, out);
        if applied.is_none() {
            out.truncate(before);
        }
        applied.ok_or(Unfit)
    }

    fn write(&self, text: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut at = 0;
        for Edit { range, by } in self.all() {
            out.extend_from_slice(text.get(at..range.start)?);
            match by {
                By::Nothing => {}
                By::Json(json) => out.extend_from_slice(json),
                By::Member { key, json, comma } => {
                    if *comma {
                        out.push(b',');
                    }
                    write::string(key, out);
                    out.push(b':');
                    out.extend_from_slice(json);
                }
            }
            at = range.end;
        }
        out.extend_from_slice(text.get(at..)?);
        Some(())
    }

    fn all(&self) -> &[Edit<'a>] {
        self.edits.get(..self.count).unwrap_or_default()
    }

    /// Before the first edit that stands behind it; those of one place stay in their order.
    fn push(&mut self, edit: Edit<'a>) -> Result<(), Unfit> {
        let new = &edit.range;
        let meets = |old: &Range<usize>| old.start < new.end && new.start < old.end;
        let full = self.count == EDITS_MAX || new.start > new.end;
        if full || self.all().iter().any(|old| meets(&old.range)) {
            return Err(Unfit);
        }
        let key = (new.start, new.end);
        let place = self.all().partition_point(|old| (old.range.start, old.range.end) <= key);
        let tail = self.edits.get_mut(place..=self.count).ok_or(Unfit)?;
        tail.rotate_right(1);
        *tail.first_mut().ok_or(Unfit)? = edit;
        self.count += 1;
        Ok(())
    }

    fn removes(&self, member: &Member<'_>) -> bool {
        self.all().iter().any(|edit| {
            matches!(edit.by, By::Nothing)
                && edit.range.start <= member.key_range.start
                && member.value.range().end <= edit.range.end
        })
    }

    fn inserts_at(&self, place: usize) -> impl Iterator<Item = &'a str> {
        self.all().iter().filter(move |edit| edit.range == (place..place)).filter_map(|edit| {
            match edit.by {
                By::Member { key, .. } => Some(key),
                By::Nothing | By::Json(_) => None,
            }
        })
    }

    fn inserts(&self, place: usize, key: &str) -> bool {
        self.inserts_at(place).any(|other| other == key)
    }
}

/// The place of the closing bracket of an object.
fn end_of(object: Node<'_>) -> Result<usize, Unfit> {
    let end = object.is_object().then(|| object.range().end.checked_sub(1)).flatten();
    end.ok_or(Unfit)
}

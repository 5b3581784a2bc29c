//! Lists within event streams. Only a whole event can be judged, so each is held to its end; all
//! but lists goes on unchanged.

use std::mem;

use super::list::filter;
use super::{Filter, Oversight};
use crate::http::sse::EventTracker;
use crate::mcp::ListReader;
use crate::reject::Reject;

/// Filters one event stream.
pub(super) struct EventFilter {
    what: Filter,
    tracker: EventTracker,
    /// The event under way.
    held: Vec<u8>,
    reader: ListReader,
    /// The first bytes were seen, among which there may be a byte order mark.
    began: bool,
}

impl EventFilter {
    pub(super) fn new(what: Filter) -> Self {
        Self {
            what,
            tracker: EventTracker::new(),
            held: Vec::new(),
            reader: ListReader::new(),
            began: false,
        }
    }

    /// Follows the next bytes of the stream and appends to `out` what may go on.
    ///
    /// # Errors
    /// `UpstreamMalformed` for an event that is too large, or that is no message of one reading;
    /// what the judge says.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        oversight: &impl Oversight,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        for line in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            self.tracker.feed(line)?;
            self.held.extend_from_slice(line);
            if self.tracker.at_boundary() {
                self.release(oversight, out)?;
            }
        }
        Ok(())
    }

    /// The stream ended, maybe within an event: some clients take it for a whole one.
    ///
    /// # Errors
    /// Those of [`EventFilter::feed`].
    pub(super) fn release(
        &mut self,
        oversight: &impl Oversight,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let mut event = mem::take(&mut self.held);
        let judged = self.judge(&event, oversight, out);
        event.clear();
        self.held = event;
        judged
    }

    fn judge(
        &mut self,
        event: &[u8],
        oversight: &impl Oversight,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let begins = !mem::replace(&mut self.began, true);
        let text = event.strip_prefix(BOM).filter(|_| begins).unwrap_or(event);
        let message = data(text);
        let mut filtered = Vec::new();
        let changed = may_hold_an_object(&message)
            && filter(&mut self.reader, &message, self.what.expected(), oversight, &mut filtered)?;
        if changed {
            rewrite(text, &filtered, out);
        } else {
            out.extend_from_slice(event);
        }
        Ok(())
    }
}

/// What begins like a word or a number is one to every reader, however lenient, and no list.
fn may_hold_an_object(message: &[u8]) -> bool {
    let first = message.trim_ascii_start().first();
    first.is_some_and(|byte| !byte.is_ascii_alphanumeric())
}

/// The data of an event: the values of its `data` fields, one a line (WHATWG HTML §9.2.6).
fn data(event: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    for (index, value) in lines(event).filter_map(data_value).enumerate() {
        if index > 0 {
            all.push(b'\n');
        }
        all.extend_from_slice(value);
    }
    all
}

/// Appends `event` with `message` for its data.
fn rewrite(event: &[u8], message: &[u8], out: &mut Vec<u8>) {
    let mut written = false;
    for line in lines(event) {
        if data_value(line).is_none() {
            out.extend_from_slice(line);
            out.push(b'\n');
        } else if !mem::replace(&mut written, true) {
            for part in message.split(|byte| *byte == b'\n') {
                out.extend_from_slice(b"data: ");
                out.extend_from_slice(part);
                out.push(b'\n');
            }
        }
    }
    out.push(b'\n');
}

/// The lines of an event that are not empty, without their ends: CR, LF or both.
fn lines(event: &[u8]) -> impl Iterator<Item = &[u8]> {
    event.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty())
}

/// The value of a `data` field; `None` for any other line.
fn data_value(line: &[u8]) -> Option<&[u8]> {
    match line.strip_prefix(b"data")? {
        [] => Some(&[]),
        [b':', b' ', value @ ..] | [b':', value @ ..] => Some(value),
        _ => None,
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";

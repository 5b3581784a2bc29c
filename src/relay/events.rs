//! Lists within event streams. Only a whole event can be judged, so each is held to its end; all
//! but lists goes on unchanged.

use std::mem;

use super::list::filter;
use super::{Filter, Oversight};
use crate::http::sse::EventTracker;
use crate::mcp::{ListReader, may_hold_a_list};
use crate::reject::Reject;

/// Filters one event stream.
pub(super) struct EventFilter {
    what: Filter,
    tracker: EventTracker,
    /// The event under way.
    held: Vec<u8>,
    /// Those before it that are whole and not judged yet.
    whole: Vec<Vec<u8>>,
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
            whole: Vec::new(),
            reader: ListReader::new(),
            began: false,
        }
    }

    /// Follows the next bytes of the stream; [`EventFilter::pass`] says what of them may go on.
    ///
    /// # Errors
    /// `UpstreamMalformed` for an event that is too large.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<(), Reject> {
        for line in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            self.tracker.feed(line)?;
            self.held.extend_from_slice(line);
            if self.tracker.at_boundary() {
                self.whole.push(mem::take(&mut self.held));
            }
        }
        Ok(())
    }

    /// The stream ended, maybe within an event: some clients take it for a whole one.
    pub(super) fn end(&mut self) {
        self.whole.push(mem::take(&mut self.held));
    }

    /// Judges the events that are whole, and appends to `out` what may go on.
    ///
    /// # Errors
    /// `UpstreamMalformed` for an event that is no message of one reading; what the judge says.
    pub(super) async fn pass(
        &mut self,
        oversight: &impl Oversight,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        for event in mem::take(&mut self.whole) {
            self.judge(&event, oversight, out).await?;
        }
        Ok(())
    }

    async fn judge(
        &mut self,
        event: &[u8],
        oversight: &impl Oversight,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let begins = !mem::replace(&mut self.began, true);
        let text = event.strip_prefix(BOM).filter(|_| begins).unwrap_or(event);
        // An object outside of all fields: JSON that is called a stream, which some reader may take
        // for what it is.
        if lines(text).any(|line| line.contains(&b'{') && !is_field(line)) {
            return Err(Reject::UpstreamMalformed);
        }
        let message = data(text);
        let mut filtered = Vec::new();
        // Without a brace there is no object in it, in any reading: a ping of some server's own.
        let looked_at = match self.what {
            Filter::Strays => may_hold_a_list(&message),
            Filter::Nothing | Filter::List(_) | Filter::Replay => message.contains(&b'{'),
        };
        let changed =
            looked_at && filter(&mut self.reader, &message, oversight, &mut filtered).await?;
        // The stream may stay open for hours.
        self.reader.forget();
        if changed {
            rewrite(text, &filtered, out);
        } else {
            out.extend_from_slice(event);
        }
        Ok(())
    }
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

/// True for a line that readers know: a field of WHATWG HTML §9.2.6, or a comment.
fn is_field(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    matches!(name, b"" | b"data" | b"event" | b"id" | b"retry")
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

#[cfg(test)]
mod tests {
    use super::super::Review;
    use super::*;
    use crate::mcp::Listed;

    /// Shows what begins with an `a`.
    struct Judge;

    impl Oversight for Judge {
        fn review(&self) -> Review {
            Review::Continue
        }

        fn filter(&self) -> Filter {
            Filter::Replay
        }

        async fn keep(
            &self,
            _: Listed,
            _: usize,
            names: &[&str],
            kept: &mut Vec<bool>,
        ) -> Result<(), Reject> {
            kept.extend(names.iter().map(|name| name.starts_with('a')));
            Ok(())
        }

        fn private_lists(&self) -> bool {
            false
        }

        fn name_session(&self, _: &[u8], _: &mut Vec<u8>) -> Result<bool, Reject> {
            Ok(false)
        }

        fn news(&self) -> &[u8] {
            &[]
        }

        fn told(&self) {}

        fn farewell(&self) -> &[u8] {
            &[]
        }

        fn last_answer(&self) -> bool {
            false
        }
    }

    fn fed(filter: &mut EventFilter, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Reject> {
        filter.feed(bytes)?;
        at_once(filter.pass(&Judge, out))
    }

    /// A judge that is here does not wait.
    fn at_once<T>(future: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }

    /// What goes on of pieces of a stream, its end included.
    fn passed(pieces: &[&str]) -> Result<String, Reject> {
        let mut filter = EventFilter::new(Filter::Replay);
        let mut out = Vec::new();
        for piece in pieces {
            fed(&mut filter, piece.as_bytes(), &mut out)?;
        }
        filter.end();
        at_once(filter.pass(&Judge, &mut out))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn wherever_a_stream_is_cut_the_same_goes_on() {
        let list = r#"{"result":{"tools":[{"name":"ab"},{"name":"b"},{"name":"aa"}]}}"#;
        let shown = r#"{"result":{"tools":[{"name":"aa"},{"name":"ab"}]}}"#;
        let (first, second) = list.split_at(20);
        for (stream, expected) in [
            (format!("data: {list}\n\n: x\n\n"), format!("data: {shown}\n\n: x\n\n")),
            (format!("data:{list}\r\n\r\n"), format!("data: {shown}\n\n\n")),
            (format!("id: 1\rdata: {list}\r\r"), format!("id: 1\ndata: {shown}\n\n")),
            (format!("data: {list}\nretry: 1"), format!("data: {shown}\nretry: 1\n\n")),
            (
                format!(
                    "data: {first}
data: {second}

"
                ),
                format!(
                    "data: {shown}

"
                ),
            ),
            ("\u{feff}\n: a\r\r\ndata: {}\r\n\n".to_owned(), String::new()),
            ("\u{feff}data: [1]\n\nevent: ping\n\n".to_owned(), String::new()),
        ] {
            let expected = if expected.is_empty() { stream.clone() } else { expected };
            assert_eq!(passed(&[&stream]).as_deref(), Ok(&*expected), "{stream:?}");
            for cut in (1..stream.len()).filter(|cut| stream.is_char_boundary(*cut)) {
                let (head, tail) = stream.split_at(cut);
                assert_eq!(passed(&[head, tail]).as_deref(), Ok(&*expected), "{head:?} {tail:?}");
            }
        }
    }

    #[test]
    fn nothing_goes_on_before_its_event_is_whole() {
        let mut filter = EventFilter::new(Filter::Replay);
        let mut out = Vec::new();
        fed(&mut filter, b"data: 1\n\ndata: {\"result\":", &mut out).unwrap();
        assert_eq!(out, b"data: 1\n\n");
        fed(&mut filter, b"{}}\n", &mut out).unwrap();
        assert_eq!(out, b"data: 1\n\n");
        fed(&mut filter, b"\n", &mut out).unwrap();
        assert_eq!(out, b"data: 1\n\ndata: {\"result\":{}}\n\n");
        assert_eq!(fed(&mut filter, b"data: {\n\n", &mut out), Err(Reject::UpstreamMalformed));
    }

    #[test]
    fn an_object_outside_of_all_fields_does_not_go_on() {
        let list = r#"{"result":{"tools":[{"name":"b"}]}}"#;
        for stream in [
            list.to_owned(),
            format!("\u{feff}{list}\n\n"),
            format!("data: 1\n\n{list}"),
            format!("event: x\ndatax: {list}\n\n"),
            format!(" data: {list}\n\n"),
        ] {
            assert_eq!(passed(&[&stream]), Err(Reject::UpstreamMalformed), "{stream:?}");
        }
        for stream in ["id: {1}\nevent: {\nretry: {\n: {\n\n", "x: 1\nyz\n\n"] {
            assert_eq!(passed(&[stream]).as_deref(), Ok(stream));
        }
    }
}

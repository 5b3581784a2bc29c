//! The figures of one run. Errors are counted by kind, and nothing is dropped in silence.

use std::collections::BTreeMap;

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use serde_json::{Map, Value, json};

use crate::answer::Wrong;
use crate::clock::{Nanos, SECOND};
use crate::fault::{Doing, Fault};
use crate::link::Link;

/// Everything counted. Only what falls into the window gets into the figures; before it opens
/// nothing does.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Option<(Nanos, Nanos)>,
    requests: u64,
    errors: BTreeMap<String, u64>,
    outside: u64,
    latency: Histogram<u64>,
    slow: Histogram<u64>,
    lag: Histogram<u64>,
    events: Histogram<u64>,
    lost: u64,
    reordered: u64,
    bytes_in: u64,
    reconnects: u64,
    tls: Option<String>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Fault> {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_MAX, DIGITS).doing("histogram");
        Ok(Self {
            window: None,
            requests: 0,
            errors: BTreeMap::new(),
            outside: 0,
            latency: histogram()?,
            slow: histogram()?,
            lag: histogram()?,
            events: histogram()?,
            lost: 0,
            reordered: 0,
            bytes_in: 0,
            reconnects: 0,
            tls: None,
        })
    }

    /// Opens the window; it closes by itself.
    pub(crate) fn open(&mut self, begin: Nanos, end: Nanos) {
        self.window = Some((begin, end));
    }

    fn covers(&self, at: Nanos) -> bool {
        self.window.is_some_and(|(begin, end)| (begin..end).contains(&at))
    }

    /// A verified answer to a request that was due at `since`.
    ///
    /// Answers that come in the window are what processor time is divided by; latencies are those
    /// of the requests that were due in the window, also when their answer came after it.
    pub(crate) fn answered(&mut self, since: Nanos, now: Nanos, slow: bool) {
        if self.covers(now) {
            self.requests += 1;
        }
        if self.covers(since) {
            let histogram = if slow { &mut self.slow } else { &mut self.latency };
            histogram.saturating_record(now.saturating_sub(since));
        }
    }

    /// A request that was never answered: it waited at least until now, and counts with that.
    pub(crate) fn unanswered(&mut self, since: Nanos, now: Nanos, slow: bool, kind: &str) {
        if self.covers(since) {
            *self.errors.entry(kind.to_owned()).or_default() += 1;
            let histogram = if slow { &mut self.slow } else { &mut self.latency };
            histogram.saturating_record(now.saturating_sub(since));
        }
    }

    pub(crate) fn error(&mut self, at: Nanos, kind: &str) {
        if self.covers(at) {
            *self.errors.entry(kind.to_owned()).or_default() += 1;
        } else {
            self.outside += 1;
        }
    }

    pub(crate) fn wrong(&mut self, at: Nanos, wrong: Wrong) {
        match wrong {
            Wrong::Id => self.error(at, "id"),
            Wrong::Length => self.error(at, "length"),
            Wrong::RpcError => self.error(at, "rpc_error"),
            Wrong::Status(status) => self.error(at, &format!("status_{status}")),
            Wrong::ToolError => self.error(at, "tool_error"),
        }
    }

    /// How late the generator itself was with a request for which a connection was free.
    pub(crate) fn lagged(&mut self, since: Nanos, now: Nanos) {
        if self.covers(since) {
            self.lag.saturating_record(now.saturating_sub(since));
        }
    }

    /// An event of a stream that was sent at `sent` and read at `now`.
    pub(crate) fn event(&mut self, sent: Nanos, now: Nanos) {
        if self.covers(now) {
            self.events.saturating_record(now.saturating_sub(sent));
        }
    }

    pub(crate) fn lost(&mut self, at: Nanos, count: u64) {
        if self.covers(at) {
            self.lost += count;
        }
    }

    pub(crate) fn reordered(&mut self, at: Nanos) {
        if self.covers(at) {
            self.reordered += 1;
        }
    }

    pub(crate) fn read(&mut self, at: Nanos, bytes: usize) {
        if self.covers(at) {
            self.bytes_in += bytes as u64;
        }
    }

    /// A connection stands; the first one's handshake is told of.
    pub(crate) fn agreed(&mut self, link: &Link) {
        if self.tls.is_none() {
            self.tls = link.agreed();
        }
    }

    pub(crate) fn reconnected(&mut self, at: Nanos) {
        if self.covers(at) {
            self.reconnects += 1;
        }
    }

    /// Verified answers in the window so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests
    }

    /// Errors in the window so far.
    pub(crate) fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// Whether there is anything to report.
    pub(crate) fn is_empty(&self) -> bool {
        self.requests == 0 && self.errors.is_empty() && self.events.is_empty()
    }

    /// Errors outside the window; they say why nothing was measured.
    pub(crate) fn outside(&self) -> u64 {
        self.outside
    }

    /// The figures, without what is not the tally's.
    pub(crate) fn report(&self, streams: bool) -> Result<Map<String, Value>, Fault> {
        let (begin, end) = self.window.unwrap_or((0, SECOND));
        let seconds = end.saturating_sub(begin) as f64 / SECOND as f64;
        let mut report = Map::new();
        let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
        put("requests", json!(self.requests));
        put("errors", json!(self.errors));
        put("errors_outside_window", json!(self.outside));
        put("seconds", json!(rounded(seconds)));
        put("rps", json!(rounded(self.requests as f64 / seconds)));
        put("latency_us", quantiles(&self.latency));
        put("hdr", json!(encoded(&self.latency)?));
        put("bytes_in", json!(self.bytes_in));
        put("reconnects", json!(self.reconnects));
        if let Some(tls) = &self.tls {
            put("tls", json!(tls));
        }
        if !self.slow.is_empty() {
            put("slow_latency_us", quantiles(&self.slow));
        }
        if !self.lag.is_empty() {
            put("lag_us", quantiles(&self.lag));
        }
        if streams {
            let mut events = quantiles(&self.events);
            if let Value::Object(events) = &mut events {
                events.insert("lost".to_owned(), json!(self.lost));
                events.insert("reordered".to_owned(), json!(self.reordered));
            }
            put("events", events);
        }
        Ok(report)
    }
}

fn quantiles(histogram: &Histogram<u64>) -> Value {
    let at = |quantile: f64| microseconds(histogram.value_at_quantile(quantile));
    json!({
        "count": histogram.len(),
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
        "max": microseconds(histogram.max()),
    })
}

fn microseconds(nanos: u64) -> f64 {
    rounded(nanos as f64 / 1000.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// The whole histogram, in nanoseconds, for whoever wants other quantiles or to add runs up.
fn encoded(histogram: &Histogram<u64>) -> Result<String, Fault> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).doing("histogram")?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

const LATENCY_MAX: u64 = 700 * SECOND;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let mut tally = Tally::new().unwrap();
        tally.open(10 * SECOND, 20 * SECOND);
        tally
    }

    #[test]
    fn only_the_window_counts() {
        let mut tally = tally();
        tally.answered(9 * SECOND, 10 * SECOND - 1, false);
        assert!(tally.is_empty());
        tally.answered(10 * SECOND - 1, 11 * SECOND, false);
        tally.answered(11 * SECOND, 12 * SECOND, false);
        tally.answered(19 * SECOND, 22 * SECOND, false);
        tally.error(20 * SECOND, "closed");
        let report = tally.report(false).unwrap();
        assert_eq!(report["requests"], 2);
        assert_eq!(report["latency_us"]["count"], 2);
        assert_eq!(report["errors"], json!({}));
        assert_eq!(report["errors_outside_window"], 1);
        assert_eq!(report["seconds"], 10.0);
        assert_eq!(report["rps"], 0.2);
    }

    #[test]
    fn a_request_without_answer_counts_with_its_wait() {
        let mut tally = tally();
        tally.unanswered(15 * SECOND, 25 * SECOND, false, "unanswered");
        let report = tally.report(false).unwrap();
        assert_eq!(report["errors"], json!({"unanswered": 1}));
        assert!(report["latency_us"]["p50"].as_f64().unwrap() > 9.9e6);
    }

    #[test]
    fn the_histogram_can_be_read_back() {
        let mut tally = tally();
        for latency in 1..=1000 {
            tally.answered(11 * SECOND, 11 * SECOND + latency * 1000, false);
        }
        let report = tally.report(false).unwrap();
        let text = report["hdr"].as_str().unwrap();
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        let histogram: Histogram<u64> = hdrhistogram::serialization::Deserializer::new()
            .deserialize(&mut bytes.as_slice())
            .unwrap();
        assert_eq!(histogram.len(), 1000);
        let p50 = report["latency_us"]["p50"].as_f64().unwrap();
        assert!((499.0..=501.0).contains(&p50), "{p50}");
    }
}

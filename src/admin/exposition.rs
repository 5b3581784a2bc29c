//! A writer of the Prometheus text exposition format 0.0.4: every family has HELP and TYPE once,
//! before its samples; label values and help texts are escaped; histograms are cumulative.

use std::fmt::Write;

/// The `TYPE` of a family.
#[derive(Clone, Copy)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// The text so far. Every name gets the prefix `portcullis_`.
pub(super) struct Exposition {
    text: String,
    /// The family whose samples are being written.
    name: &'static str,
}

impl Exposition {
    pub(super) fn new() -> Self {
        Self { text: String::with_capacity(INITIAL_BYTES), name: "" }
    }

    pub(super) fn finish(self) -> String {
        self.text
    }

    /// Begins a family.
    pub(super) fn family(&mut self, name: &'static str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        self.name = name;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.line(format_args!("# HELP {PREFIX}{name} {help}"));
        self.line(format_args!("# TYPE {PREFIX}{name} {kind}"));
    }

    /// One sample of the current family.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.head("", labels);
        self.line(format_args!(" {value}"));
    }

    /// One sample that was measured in microseconds.
    pub(super) fn seconds(&mut self, labels: &[(&str, &str)], micros: u64) {
        self.head("", labels);
        self.line(format_args!(" {}", Seconds(micros)));
    }

    /// A whole family: `counts` has one more element than `bounds_micros`, for what is above them
    /// all.
    pub(super) fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        bounds_micros: &[u64],
        counts: &[u64],
        sum_micros: u64,
    ) {
        self.family(name, Type::Histogram, help);
        let bounds = bounds_micros.iter().map(|bound| Seconds(*bound).to_string());
        let bounds = bounds.chain(["+Inf".to_owned()]);
        let mut total = 0;
        for (bound, count) in bounds.zip(counts) {
            total += count;
            self.head("_bucket", &[("le", &bound)]);
            self.line(format_args!(" {total}"));
        }
        self.line(format_args!("{PREFIX}{name}_sum {}", Seconds(sum_micros)));
        self.line(format_args!("{PREFIX}{name}_count {total}"));
    }

    fn head(&mut self, suffix: &str, labels: &[(&str, &str)]) {
        self.text.push_str(PREFIX);
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for letter in value.chars() {
                match letter {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

/// Microseconds, shown as seconds without rounding.
struct Seconds(u64);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, micros) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{micros:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

const PREFIX: &str = "portcullis_";
const INITIAL_BYTES: usize = 16 * 1024;

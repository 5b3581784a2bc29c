//! `[[rate_limit]]`.

use super::{Checker, second_use};
use crate::config::raw;
use crate::config::{Per, RateLimit};
use crate::limits::{NAME_BYTES_MAX, RATE_LIMITS_MAX};

impl Checker<'_> {
    pub(super) fn rate_limits(&mut self, file: &raw::File) -> Vec<RateLimit> {
        let raw = &file.rate_limit;
        if let Some(surplus) = raw.get(RATE_LIMITS_MAX) {
            let what = format!("more than {RATE_LIMITS_MAX} rate limits");
            self.fault(&surplus.place, what, "remove some");
        }
        for name in second_use(raw.iter().map(|limit| limit.name.as_ref())) {
            self.fault(&name.place, "two rate limits of this name", "rename one");
        }
        raw.iter().filter_map(|limit| self.rate_limit(limit, file)).collect()
    }

    fn rate_limit(&mut self, raw: &raw::RateLimit, file: &raw::File) -> Option<RateLimit> {
        let name = self.name(&raw.name, &raw.place);
        let per = self.per(raw);
        let server = self.limited_server(raw, file);
        let tool = match &raw.tool {
            Some(tool) if raw.server.is_none() => {
                let cure = "add the server that has this tool";
                self.fault(&tool.place, "a tool without its server", cure);
                None
            }
            Some(tool) if !(1..=NAME_BYTES_MAX).contains(&tool.value.len()) => {
                self.fault(&tool.place, "not a tool's name", "write the name as the server has it");
                None
            }
            Some(tool) => Some(Some(tool.value.clone())),
            None => Some(None),
        };
        if raw.requests.is_none() {
            self.report.missing(&raw.place, "requests", "write how many requests are granted");
        }
        let requests = self.number(&raw.requests, 0, 1, REQUESTS_MAX);
        let seconds = self.number(&raw.seconds, SECONDS_DEFAULT, 1, SECONDS_MAX);
        let most = requests.filter(|requests| *requests > 0)?;
        let burst = self.number(&raw.burst, most, 1, most);
        Some(RateLimit {
            name: name?,
            per: per?,
            server: server?,
            tool: tool?,
            requests: most,
            seconds: seconds?,
            burst: burst?,
            exact: raw.exact.as_ref().is_some_and(|exact| exact.value),
        })
    }

    fn per(&mut self, raw: &raw::RateLimit) -> Option<Per> {
        let cure = "write one or more of \"user\", \"agent\", \"server\" and \"tool\"";
        let Some(words) = raw.per.as_ref().filter(|words| !words.value.is_empty()) else {
            self.report.missing(&raw.place, "per", cure);
            return None;
        };
        let mut per = Per::default();
        for word in &words.value {
            let counted = match word.value.as_str() {
                "user" => &mut per.user,
                "agent" => &mut per.agent,
                "server" => &mut per.server,
                "tool" => &mut per.tool,
                _ => {
                    self.fault(&word.place, "unknown value", cure);
                    return None;
                }
            };
            if std::mem::replace(counted, true) {
                self.fault(&word.place, "the same value twice", "remove one");
            }
        }
        Some(per)
    }

    /// `Some(None)`: not written. `None`: a fault.
    fn limited_server(&mut self, raw: &raw::RateLimit, file: &raw::File) -> Option<Option<String>> {
        let Some(name) = &raw.server else { return Some(None) };
        let known = file.server.iter().filter_map(|server| server.name.as_ref());
        if known.map(|known| &known.value).any(|known| *known == name.value) {
            return Some(Some(name.value.clone()));
        }
        self.fault(&name.place, "no server of this name", "correct it, or add the [[server]]");
        None
    }
}

const REQUESTS_MAX: u64 = 1_000_000_000;
const SECONDS_DEFAULT: u64 = 60;
const SECONDS_MAX: u64 = 86_400;

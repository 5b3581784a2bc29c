//! `[federation]`.

use super::Checker;
use crate::config::{Federation, raw};

impl Checker<'_> {
    pub(super) fn federation(&mut self, raw: Option<&raw::Federation>) -> Option<Federation> {
        let default = Federation::default();
        let Some(raw) = raw else { return Some(default) };
        let timeout_ms = self.number(&raw.timeout_ms, default.timeout_ms, 100, 60_000);
        let items = self.number(&raw.page_items, default.page_items as u64, 16, 1_000);
        Some(Federation {
            enabled: raw.enabled.as_ref().map_or(default.enabled, |enabled| enabled.value),
            timeout_ms: timeout_ms?,
            page_items: items? as usize,
            instructions: raw.instructions.as_ref().map_or(default.instructions, |it| it.value),
        })
    }
}

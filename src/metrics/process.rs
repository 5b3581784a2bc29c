//! Counters of the process as a whole.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::Histogram;

/// What the control thread and the audit writer count: rare, so any thread may add.
#[derive(Default)]
#[repr(align(128))]
pub struct ProcessCounters {
    jwks_refresh: Mutex<BTreeMap<(String, RefreshOutcome), u64>>,
    audit: [AtomicU64; AuditOutcome::ALL.len()],
    /// Starting counts as a reload that went well.
    reload_failed: AtomicBool,
    policy_epoch: AtomicU64,
    /// By trigger; refused ones, then those that were taken.
    reloads: [[AtomicU64; 2]; ReloadTrigger::ALL.len()],
    /// How long policies were read and compiled, once for each reload; written by the control
    /// thread.
    pub policy_compile: Histogram,
}

/// The `trigger` label of reloads. Orders that come while one is under way are one reload, counted
/// by the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadTrigger {
    /// SIGHUP.
    Signal,
    /// POST to the admin listener.
    Request,
    /// Changed policy files.
    Watch,
}

impl ReloadTrigger {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Signal, Self::Request, Self::Watch];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Request => "request",
            Self::Watch => "watch",
        }
    }
}

/// The `outcome` label of key refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefreshOutcome {
    /// A new set.
    Changed,
    /// The same set.
    Unchanged,
    /// No usable answer.
    Failed,
}

impl RefreshOutcome {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// The `outcome` label of audit records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOutcome {
    /// In the file.
    Written,
    /// Lost: the ring was full.
    Dropped,
    /// Writes, syncs and reopens that failed; what they were for was kept and tried again.
    Failed,
}

impl AuditOutcome {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Written, Self::Dropped, Self::Failed];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

impl ProcessCounters {
    /// Counts one refresh of an issuer's keys.
    pub fn jwks_refresh(&self, issuer: &str, outcome: RefreshOutcome) {
        // Issuers come from the configuration, so this map is as bounded as that is.
        let mut map = self.jwks_refresh.lock().unwrap_or_else(PoisonError::into_inner);
        *map.entry((issuer.to_owned(), outcome)).or_default() += 1;
    }

    /// `(issuer, outcome, count)`, sorted.
    #[must_use]
    pub fn jwks_refreshes(&self) -> Vec<(String, RefreshOutcome, u64)> {
        let map = self.jwks_refresh.lock().unwrap_or_else(PoisonError::into_inner);
        map.iter().map(|((issuer, outcome), count)| (issuer.clone(), *outcome, *count)).collect()
    }

    /// Counts `by` audit records.
    pub fn audit(&self, outcome: AuditOutcome, by: u64) {
        if let Some(cell) = self.audit.get(outcome as usize) {
            cell.fetch_add(by, Relaxed);
        }
    }

    /// Sets the totals that the audit writer keeps.
    pub fn set_audit(&self, outcome: AuditOutcome, total: u64) {
        if let Some(cell) = self.audit.get(outcome as usize) {
            cell.store(total, Relaxed);
        }
    }

    /// Audit records by outcome.
    pub fn audit_records(&self) -> impl Iterator<Item = (AuditOutcome, u64)> {
        AuditOutcome::ALL.into_iter().zip(self.audit.iter().map(|cell| cell.load(Relaxed)))
    }

    /// Remembers how the last reload went.
    pub fn set_reload(&self, successful: bool) {
        self.reload_failed.store(!successful, Relaxed);
    }

    /// True until a reload failed, and again after one that went well.
    #[must_use]
    pub fn reload_successful(&self) -> bool {
        !self.reload_failed.load(Relaxed)
    }

    /// Counts a reload of policies, alone or with the configuration, and whether it was taken.
    pub fn count_reload(&self, trigger: ReloadTrigger, taken: bool) {
        let counts = self.reloads.get(trigger as usize);
        if let Some(count) = counts.and_then(|counts| counts.get(usize::from(taken))) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// Reloads by trigger: how many were refused, and how many taken.
    pub fn reloads(&self) -> impl Iterator<Item = (ReloadTrigger, [u64; 2])> {
        let read = |counts: &[AtomicU64; 2]| counts.each_ref().map(|count| count.load(Relaxed));
        ReloadTrigger::ALL.into_iter().zip(self.reloads.iter().map(read))
    }

    /// Remembers the policy epoch in force.
    pub fn set_policy_epoch(&self, epoch: u64) {
        self.policy_epoch.store(epoch, Relaxed);
    }

    /// The policy epoch in force.
    #[must_use]
    pub fn policy_epoch(&self) -> u64 {
        self.policy_epoch.load(Relaxed)
    }
}

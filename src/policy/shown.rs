//! What becomes of an item of a list.

use crate::judge::policy::Verdict;

/// Whether an item of a list is for this principal; of what hides it, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shown {
    /// It may be permitted.
    Yes,
    /// Nothing permits it.
    NoPermit,
    /// A condition failed to evaluate, which denies.
    Failed,
    /// A forbid hides it.
    Forbidden,
}

impl Shown {
    /// Why a verdict that does not allow hides its item.
    pub(super) fn hidden_by(verdict: &Verdict) -> Self {
        match (verdict.forbidden, verdict.error) {
            (true, _) => Self::Forbidden,
            (false, true) => Self::Failed,
            (false, false) => Self::NoPermit,
        }
    }
}

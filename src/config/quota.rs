//! `[[rate_limit]]`, as checked.

/// How many requests who may make.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RateLimit {
    /// Name in the audit record.
    pub name: String,
    /// What is counted apart.
    pub per: Per,
    /// Counts for this server only, by its name.
    pub server: Option<String>,
    /// Counts for calls of this tool only; then `server` is there as well.
    pub tool: Option<String>,
    /// Requests per `seconds`; 1 to 1,000,000,000.
    pub requests: u64,
    /// 1 to 86,400.
    pub seconds: u64,
    /// Requests that may come at once; 1 to `requests`.
    pub burst: u64,
    /// One count for all cores.
    pub exact: bool,
}

/// Whose requests are counted apart from each other's. At least one is set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Per {
    /// Each user, or the agent where there is no user.
    pub user: bool,
    /// Each agent.
    pub agent: bool,
    /// Each server.
    pub server: bool,
    /// Each tool of each server; only calls of tools count then.
    pub tool: bool,
}

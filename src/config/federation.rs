//! `[federation]`: all servers at one URL, `/mcp`.

/// `[federation]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Federation {
    /// Whether `/mcp` is served; without it that path is not found.
    pub enabled: bool,
    /// For what `/mcp` asks a server on the way of a list or a handshake; at most this of the
    /// server's own `timeout_seconds`. 100–60,000.
    pub timeout_ms: u64,
    /// Items of one page of a list on `/mcp`. 16–1,000.
    pub page_items: usize,
    /// Whether what servers say about their use is handed to the agent.
    pub instructions: bool,
}

impl Default for Federation {
    fn default() -> Self {
        Self { enabled: true, timeout_ms: 5_000, page_items: 256, instructions: true }
    }
}

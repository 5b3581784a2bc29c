//! What the relay asks of the gateway while an answer is under way.

use crate::mcp::Listed;
use crate::reject::Reject;

/// How the gateway oversees an answer under way.
pub trait Oversight {
    /// Judges the open answer again; asked at least once a second while nothing arrives, and
    /// between events otherwise.
    fn review(&self) -> Review;
    /// What of the answer is for this agent's eyes only in part.
    fn filter(&self) -> Filter;
    /// Judges the named items of a list of `items` items: one answer each, in their order, to
    /// `kept`. Others of this core run in between.
    ///
    /// # Errors
    /// When no decision is to be had.
    fn keep(
        &self,
        listed: Listed,
        items: usize,
        names: &[&str],
        kept: &mut Vec<bool>,
    ) -> impl Future<Output = Result<(), Reject>>;
    /// A filtered list says that nobody else may be shown it (MCP 2026-07-28,
    /// server/utilities/caching).
    fn private_lists(&self) -> bool;
    /// Appends the agent's name for the upstream's session: the one it already has, or a sealed new
    /// one. False when the answer may not open a session; nothing is written then.
    ///
    /// # Errors
    /// `UpstreamMalformed` for an id that is none.
    fn name_session(&self, upstream_id: &[u8], out: &mut Vec<u8>) -> Result<bool, Reject>;
    /// Events of the gateway's own for an open stream, whole ones, as [`Review::Say`] asks for.
    fn news(&self) -> &[u8];
    /// The news are on their way.
    fn told(&self);
    /// The event with which an open stream ends when the gateway leaves; empty when there is none.
    fn farewell(&self) -> &[u8];
    /// The connection is to be closed after this answer.
    fn last_answer(&self) -> bool;
}

/// Where in an answer there may be a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Nowhere.
    Nothing,
    /// Nowhere either, but the server may mistake whose answer it is: official servers of the
    /// legacy era give an answer to whoever used its id last in the session.
    Strays,
    /// This one was asked for.
    List(Listed),
    /// Anywhere: a stream that may repeat earlier answers (2025-11-25, transports,
    /// "Resumability and Redelivery").
    Replay,
}

/// What [`Oversight::review`] says.
pub enum Review {
    /// Go on.
    Continue,
    /// End at the next event boundary: the gateway is leaving.
    Finish,
    /// Go on, and write [`Oversight::news`] at an event boundary; said again until it was.
    Say {
        /// Not before the server has said something itself.
        answered: bool,
    },
    /// Cut now.
    Cut(Reject),
}

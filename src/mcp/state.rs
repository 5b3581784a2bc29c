//! A server's `requestState`, sealed for the client that carries it (2026-07-28 patterns/mrtr).
//!
//! A server that asks for more input gives a state to come back with. On `/mcp` it is sealed with
//! whose it is: of another server, tool or principal it is nothing, so no server ever gets a state
//! that it did not give to this principal for this very thing. What is inside goes back byte for
//! byte.

use super::method::Method;
use super::seal::{Keyring, Purpose};
use super::session::lives;
use crate::clock::UnixSeconds;
use crate::limits::STATE_SECONDS_MAX;
use crate::reject::Reject;

/// What a state belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    /// Configured name of the server.
    pub server: &'a str,
    /// The request's method.
    pub method: Method,
    /// The server's own name for what was asked.
    pub name: &'a str,
}

impl Kept<'_> {
    /// Appends `state`, sealed for `owner` (see [`super::seal::bound_to`]): visible ASCII without
    /// quotes.
    ///
    /// # Errors
    /// `UpstreamMalformed` for a state that is too long, `GatewayFault` without random bytes.
    pub fn seal(
        &self,
        keyring: &Keyring,
        owner: &[u8; 32],
        now: UnixSeconds,
        state: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        let mut plain = now.0.to_be_bytes().to_vec();
        self.write(&mut plain)?;
        plain.extend_from_slice(state.as_bytes());
        keyring.seal(Purpose::State, &plain, owner, out)
    }

    /// The state inside `sealed`.
    ///
    /// # Errors
    /// `StateForeign`, whatever the reason: not ours, another principal's, of another server or
    /// request, or older than [`STATE_SECONDS_MAX`].
    pub fn open(
        &self,
        keyring: &Keyring,
        owner: &[u8; 32],
        now: UnixSeconds,
        sealed: &str,
    ) -> Result<String, Reject> {
        let mut own = Vec::new();
        self.write(&mut own)?;
        let opened = keyring.open(Purpose::State, sealed.as_bytes(), owner);
        let plain = opened.ok_or(Reject::StateForeign)?;
        let (issued, rest) = plain.split_first_chunk::<8>().ok_or(Reject::StateForeign)?;
        let state = rest.strip_prefix(own.as_slice()).ok_or(Reject::StateForeign)?;
        if !lives(UnixSeconds(u64::from_be_bytes(*issued)), now, STATE_SECONDS_MAX) {
            return Err(Reject::StateForeign);
        }
        String::from_utf8(state.to_vec()).map_err(|_| Reject::StateForeign)
    }

    /// Lengths first, so that no two of these begin alike.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), Reject> {
        for part in [self.server, self.method.as_str(), self.name] {
            let length = u32::try_from(part.len()).map_err(|_| Reject::GatewayFault)?;
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
    const KEPT: Kept<'_> = Kept { server: "files", method: Method::ToolsCall, name: "read" };

    #[test]
    fn a_state_opens_for_what_it_was_given_for_and_nothing_else() {
        let keyring = Keyring::new("https://gw", &[1; 32], None).unwrap();
        let mut sealed = Vec::new();
        KEPT.seal(&keyring, &[7; 32], NOW, "{\"\u{e9}\"}", &mut sealed).unwrap();
        let sealed = String::from_utf8(sealed).unwrap();
        assert!(sealed.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
        let open = |kept: Kept<'_>, owner: u8, seconds: u64| {
            kept.open(&keyring, &[owner; 32], UnixSeconds(NOW.0 + seconds), &sealed)
        };
        assert_eq!(open(KEPT, 7, 0).as_deref(), Ok("{\"\u{e9}\"}"));
        assert!(open(KEPT, 7, STATE_SECONDS_MAX - 1).is_ok());
        for (kept, owner, seconds) in [
            (KEPT, 7, STATE_SECONDS_MAX),
            (KEPT, 8, 0),
            (Kept { server: "mail", ..KEPT }, 7, 0),
            (Kept { method: Method::PromptsGet, ..KEPT }, 7, 0),
            (Kept { name: "rea", ..KEPT }, 7, 0),
            (Kept { name: "read2", ..KEPT }, 7, 0),
            (Kept { name: "", ..KEPT }, 7, 0),
        ] {
            assert_eq!(open(kept, owner, seconds), Err(Reject::StateForeign), "{kept:?}");
        }
        for foreign in ["", "x", "{\"\u{e9}\"}", &sealed[1..], &sealed[..sealed.len() - 1]] {
            let opened = KEPT.open(&keyring, &[7; 32], NOW, foreign);
            assert_eq!(opened, Err(Reject::StateForeign), "{foreign:?}");
        }
    }

    #[test]
    fn a_state_without_bounds_is_nobodys() {
        let keyring = Keyring::new("https://gw", &[1; 32], None).unwrap();
        let long = "x".repeat(crate::limits::SEALED_PLAIN_BYTES_MAX);
        let mut sealed = Vec::new();
        let refused = KEPT.seal(&keyring, &[7; 32], NOW, &long, &mut sealed);
        assert_eq!((refused, sealed.len()), (Err(Reject::UpstreamMalformed), 0));
    }
}

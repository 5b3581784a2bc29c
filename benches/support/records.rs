//! Records as a warm `tools/call` makes them.

use portcullis::audit::{
    CredentialCache, CredentialUse, Decision, Entry, List, Name, Outcome, TokenReference,
};
use portcullis::clock::UnixMicros;

/// A permitted call of one of a few tools, 20 µs after the one before.
pub(crate) fn decision(number: u64) -> Entry<'static> {
    Entry {
        policies: Some(List::Slices(&["staff-may-connect", "engineers-use-github"])),
        epoch: Some(7),
        user: Some("corp:ada@example.com"),
        issuer: Some("https://idp.example.com"),
        groups: Some(List::Slices(&["engineering", "staff"])),
        agent: Some("claude"),
        server: Some("github"),
        method: Some("tools/call"),
        name: Some(Name::Plain("search_repositories")),
        revision: Some("2026-07-28"),
        credential: Some(CredentialUse {
            provider: "github-key",
            kind: "api_key",
            cache: CredentialCache::Hit,
        }),
        source_ip: Some([127, 0, 0, 1].into()),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
        token: TokenReference::from_hex("ba7816bf8f01cfea"),
        ..Entry::new(UnixMicros(1_788_000_000_000_000 + 20 * number), Decision::Permit)
    }
}

pub(crate) fn outcome(number: u64) -> Outcome {
    Outcome {
        status: Some(200),
        upstream_status: Some(200),
        bytes_in: 300,
        bytes_out: 87,
        duration_us: 140 + number % 100,
        overhead_us: Some(12),
        reason: None,
        list: None,
        legs: None,
    }
}

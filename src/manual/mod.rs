//! The manual: documentation only, so that it is versioned, linked and tested with the code.
//!
//! Commands in these pages are run, and tests that they name are looked for, by `tests/docs.rs`.

#[doc = include_str!("architecture.md")]
pub mod architecture {}

#[doc = include_str!("threat_model.md")]
pub mod threat_model {}

#[doc = include_str!("invariants.md")]
pub mod invariants {}

#[doc = include_str!("vulnerabilities.md")]
pub mod vulnerabilities {}

#[doc = include_str!("configuration.md")]
pub mod configuration {}

#[doc = include_str!("federation.md")]
pub mod federation {}

#[doc = include_str!("policy.md")]
pub mod policy {}

#[doc = include_str!("audit.md")]
pub mod audit {}

#[doc = include_str!("operations.md")]
pub mod operations {}

//! Forgeries, each of which must not compile: `tests/forgery.rs` builds the library once per `cfg`
//! below and expects exactly the named error, here and nowhere else.
//!
//! This module stands beside all others. Privacy follows the tree of modules, so what cannot be
//! done from here cannot be done anywhere outside the module that owns the value. A test from
//! outside the crate would prove nothing: there, most of it is out of reach anyway.
#![allow(dead_code, unused_variables, clippy::all, reason = "never part of a build that succeeds")]

/// Must compile: shows that the others fail for their own reason.
#[cfg(forge = "nothing")]
fn honest(permit: crate::policy::Permit, secret: &crate::secret::Secret) -> usize {
    permit.server() + secret.len()
}

#[cfg(forge = "permit")]
fn forged(known: crate::policy::Permit) -> crate::policy::Permit {
    crate::policy::Permit { server: 7, ..known } // E0451
}

#[cfg(forge = "permit_copied")]
fn forged(permit: &crate::policy::Permit) -> crate::policy::Permit {
    crate::policy::Permit::clone(permit) // E0277
}

#[cfg(forge = "permit_from_default")]
fn forged() -> crate::policy::Permit {
    crate::policy::Permit::default() // E0599
}

#[cfg(forge = "permit_spent_twice")]
fn forged(permit: crate::policy::Permit, relay: fn(crate::policy::Permit)) {
    relay(permit);
    relay(permit) // E0382
}

#[cfg(forge = "permit_changed")]
fn forged(permit: &mut crate::policy::Permit) {
    permit.server = 7; // E0616
}

#[cfg(forge = "connected")]
fn forged(known: crate::policy::Connected) -> crate::policy::Connected {
    crate::policy::Connected { epoch: 7, ..known } // E0451
}

#[cfg(forge = "verified_token")]
fn forged(known: crate::identity::VerifiedToken) -> crate::identity::VerifiedToken {
    crate::identity::VerifiedToken { provider: 7, ..known } // E0451
}

#[cfg(forge = "verified_token_made")]
fn forged() {
    let make = crate::identity::VerifiedToken::new; // E0624
}

#[cfg(forge = "verified_token_copied")]
fn forged(token: &crate::identity::VerifiedToken) -> crate::identity::VerifiedToken {
    crate::identity::VerifiedToken::clone(token) // E0277
}

#[cfg(forge = "principal")]
fn forged(known: crate::judge::principal::Principal) -> crate::judge::principal::Principal {
    crate::judge::principal::Principal { user: None, ..known } // E0451
}

#[cfg(forge = "key_set")]
fn forged() -> crate::judge::keys::KeySet {
    crate::judge::keys::KeySet { keys: Vec::new() } // E0451
}

#[cfg(forge = "config")]
fn forged(known: crate::config::Config) -> crate::config::Config {
    crate::config::Config { _checked: (), ..known } // E0451
}

#[cfg(forge = "credential")]
fn forged(known: crate::credential::UpstreamCredential) -> crate::credential::UpstreamCredential {
    crate::credential::UpstreamCredential { servers: vec![7], ..known } // E0451
}

#[cfg(forge = "credential_shown")]
fn forged(credential: &crate::credential::UpstreamCredential) -> String {
    format!("{credential:?}") // E0277
}

#[cfg(forge = "audit_ticket")]
fn forged() -> crate::audit::Ticket {
    crate::audit::Ticket { seq: Some(7) } // E0451
}

#[cfg(forge = "secret_in_debug")]
fn forged(secret: &crate::secret::Secret) -> String {
    format!("{secret:?}") // E0277
}

#[cfg(forge = "secret_in_display")]
fn forged(secret: &crate::secret::Secret) -> String {
    format!("{secret}") // E0277
}

#[cfg(forge = "secret_copied")]
fn forged(secret: &crate::secret::Secret) -> crate::secret::Secret {
    crate::secret::Secret::clone(secret) // E0277
}

#[cfg(forge = "secret_taken")]
fn forged(secret: &crate::secret::Secret) -> usize {
    secret.0.len() // E0616
}

#[cfg(forge = "secret_compared")]
fn forged(one: &crate::secret::Secret, other: &crate::secret::Secret) -> bool {
    one == other // E0369
}

#[cfg(forge = "secret_written")]
fn forged(secret: &crate::secret::Secret) -> Option<String> {
    serde_json::to_string(secret).ok() // E0277
}

#[cfg(forge = "shard_sent")]
fn forged(shard: crate::shard::Shard) {
    fn send<T: Send>(value: T) {}
    send(shard); // E0277
}

#[cfg(forge = "core_cell_shared")]
fn forged(cell: &crate::core_cell::CoreCell<u8>) {
    fn share<T: Sync>(value: &T) {}
    share(cell); // E0277
}

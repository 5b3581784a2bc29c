//! Bytes that must not be seen: wiped when dropped, without `Debug`, `Display`, `Clone` or serde.
//!
//! There is one door out, [`Secret::expose`], called where a header is written and nowhere else;
//! `tests/tidy.rs` counts the calls. What rustls and the kernel copy is out of our hands and named
//! in the threat model.

use zeroize::Zeroizing;

/// A secret value.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of `bytes`. The vector must be the only copy; a growing one leaves unwiped
    /// pieces behind, so build it with its final capacity.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for the one write that needs them. Do not copy them into what is not wiped.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes; not a secret.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True for zero bytes: never a usable secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let secret = Secret::new(b"s3cret".to_vec());
        assert_eq!(secret.expose(), b"s3cret");
        assert!(!secret.is_empty());
        assert_eq!(secret.len(), 6);
    }
}

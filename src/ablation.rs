//! Turns single checks off, to measure what each of them costs. Only with the cargo feature
//! `ablation`, which no shipped build has: without it every door here is empty, no check can be
//! turned off, and the binary does not know the name of the variable.
//!
//! In such a build `PORTCULLIS_ABLATE` lists what is off. A stage that is off hands out the first
//! real product of its core again, so the types that prove a check stay whole and the way of a
//! request stays the same; only the work is missing. Nothing is safe about it.

#[cfg(not(feature = "ablation"))]
pub use closed::{Ablation, at_start};
#[cfg(feature = "ablation")]
pub use open::{Ablation, at_start};

#[cfg(not(feature = "ablation"))]
mod closed {
    use std::rc::Rc;

    use crate::identity::VerifiedToken;
    use crate::policy::Permit;
    use crate::shard::Scratch;

    /// Nothing is off.
    pub struct Ablation;

    impl Ablation {
        /// Nothing to read.
        #[inline]
        #[must_use]
        pub const fn of_environment() -> Self {
            Self
        }

        /// The token to use instead of the request's own.
        #[inline]
        #[must_use]
        pub const fn token(&self) -> Option<Rc<VerifiedToken>> {
            None
        }

        /// A token was verified.
        #[inline]
        pub const fn keep_token(&self, _token: &Rc<VerifiedToken>) {}

        /// The permit to use instead of a decision.
        #[inline]
        #[must_use]
        pub const fn permit(&self, _token: Option<&VerifiedToken>) -> Option<Permit> {
            None
        }

        /// A permit was given.
        #[inline]
        pub const fn keep_permit(&self, _permit: &Permit) {}

        /// True when the message last read with these buffers stands for this one.
        #[inline]
        #[must_use]
        pub const fn inspected(&self, _scratch: &Scratch) -> bool {
            false
        }

        /// A message was read and judged with these buffers.
        #[inline]
        pub const fn keep_inspected(&self, _scratch: &mut Scratch) {}

        /// True when no credential is to be sent.
        #[inline]
        #[must_use]
        pub const fn no_credential(&self) -> bool {
            false
        }

        /// True when nothing is to be recorded.
        #[inline]
        #[must_use]
        pub const fn no_audit(&self) -> bool {
            false
        }
    }

    /// What is to be said at the start: nothing.
    ///
    /// # Errors
    /// None.
    pub const fn at_start() -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
}

#[cfg(feature = "ablation")]
mod open {
    use std::rc::Rc;

    use crate::config::source::{Environment, ProcessEnvironment};
    use crate::core_cell::CoreCell;
    use crate::identity::VerifiedToken;
    use crate::policy::Permit;
    use crate::shard::Scratch;

    /// What is off on this core, and the products that stand in.
    pub struct Ablation {
        off: Off,
        token: CoreCell<Option<Rc<VerifiedToken>>>,
        permit: CoreCell<Option<Permit>>,
    }

    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    struct Off {
        token: bool,
        policy: bool,
        credential: bool,
        audit: bool,
        inspect: bool,
    }

    impl Ablation {
        /// What the environment asks for.
        #[must_use]
        pub fn of_environment() -> Self {
            // What cannot be read was refused at the start of the process.
            let off = asked().unwrap_or_default();
            Self { off, token: CoreCell::default(), permit: CoreCell::default() }
        }

        /// The token to use instead of the request's own: the first that was verified here.
        #[must_use]
        pub fn token(&self) -> Option<Rc<VerifiedToken>> {
            if self.off.token { self.token.with(|kept| kept.clone()) } else { None }
        }

        /// A token was verified.
        pub fn keep_token(&self, token: &Rc<VerifiedToken>) {
            if self.off.token {
                self.token.with(|kept| *kept = Some(Rc::clone(token)));
            }
        }

        /// The permit to use instead of a decision: the first of this core, made out to `token`.
        #[must_use]
        pub fn permit(&self, token: Option<&VerifiedToken>) -> Option<Permit> {
            let identity = token.filter(|_| self.off.policy)?.principal().digest();
            self.permit.with(|kept| kept.as_ref().map(|permit| permit.made_out_to(identity)))
        }

        /// A permit was given.
        pub fn keep_permit(&self, permit: &Permit) {
            if self.off.policy {
                self.permit.with(|kept| *kept = Some(permit.made_out_to(permit.identity())));
            }
        }

        /// True when the message last read with these buffers stands for this one.
        #[must_use]
        pub fn inspected(&self, scratch: &Scratch) -> bool {
            self.off.inspect && scratch.inspected
        }

        /// A message was read and judged with these buffers.
        pub fn keep_inspected(&self, scratch: &mut Scratch) {
            scratch.inspected = self.off.inspect;
        }

        /// True when no credential is to be sent.
        #[must_use]
        pub fn no_credential(&self) -> bool {
            self.off.credential
        }

        /// True when nothing is to be recorded.
        #[must_use]
        pub fn no_audit(&self) -> bool {
            self.off.audit
        }
    }

    /// What is to be said at the start, loudly.
    ///
    /// # Errors
    /// A word in the variable that names no check.
    pub fn at_start() -> Result<Vec<String>, String> {
        let off = asked()?;
        let mut words = vec![
            "WARNING: this build can turn security checks off (cargo feature `ablation`): it is \
             for measuring on a machine of your own, never for serving anybody"
                .to_owned(),
        ];
        if off != Off::default() {
            words.push(format!("WARNING: {VARIABLE} turned checks off: {off:?}"));
        }
        Ok(words)
    }

    fn asked() -> Result<Off, String> {
        let list = ProcessEnvironment.variable(VARIABLE).unwrap_or_default();
        parse(&list.to_string_lossy())
    }

    fn parse(list: &str) -> Result<Off, String> {
        let mut off = Off::default();
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "token" => off.token = true,
                "policy" => off.policy = true,
                "credential" => off.credential = true,
                "audit" => off.audit = true,
                "inspect" => off.inspect = true,
                other => {
                    return Err(format!(
                        "{VARIABLE}: \"{other}\" is none of token, policy, credential, audit, \
                         inspect"
                    ));
                }
            }
        }
        Ok(off)
    }

    const VARIABLE: &str = "PORTCULLIS_ABLATE";

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn only_known_words_turn_something_off() {
            assert_eq!(parse(""), Ok(Off::default()));
            let two = Off { token: true, inspect: true, ..Off::default() };
            assert_eq!(parse("token, inspect"), Ok(two));
            let all =
                Off { token: true, policy: true, credential: true, audit: true, inspect: true };
            assert_eq!(parse("token,policy,credential,audit,inspect"), Ok(all));
            assert!(parse("token,all").unwrap_err().contains("\"all\""));
            assert!(parse("Token").is_err());
        }
    }
}

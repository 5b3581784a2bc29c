//! Annotations of policies, above all those that say what would lift a forbid.

use std::sync::Arc;

use cedar_policy::{Effect, Policy};

use super::compile::{Compiler, Spot};
use super::decide::StepUp;
use super::mentions::Mentions;

impl Compiler<'_> {
    pub(super) fn annotations(&mut self, spot: Spot<'_>, policy: &Policy) {
        for (name, _) in policy.annotations() {
            let at = spot.statement.annotation(name);
            match name {
                "id" | "credential" | REQUIRE_SCOPE | REQUIRE_ACR | MAX_AGE => {}
                _ => {
                    let what = format!("unknown annotation @{name}");
                    let known =
                        "known are @id, @credential, @require_scope, @require_acr and @max_age";
                    self.fault(spot.source, at, &what, known);
                }
            }
        }
    }

    /// What a forbid says would lift it (DESIGN §6). Its condition must look at the same thing:
    /// else it would hold on after the step, and the client would be sent round for ever.
    pub(super) fn step_up(
        &mut self,
        spot: Spot<'_>,
        policy: &Policy,
        read: Mentions,
    ) -> Option<StepUp> {
        let mut step_up = StepUp::default();
        let mut found = false;
        for (name, mention, attribute) in STEPS {
            let Some(value) = policy.annotation(name) else { continue };
            found = true;
            let at = spot.statement.annotation(name);
            if policy.effect() == Effect::Permit {
                self.fault(spot.source, at, &format!("@{name} on a permit"), "write a forbid");
            }
            if !read.has(mention) {
                let what = format!("@{name} on a policy that does not look at it");
                let cure = format!("add a condition on context.{attribute}");
                self.fault(spot.source, at, &what, &cure);
            }
            let taken = match name {
                REQUIRE_SCOPE if is_scope(value) => {
                    step_up.scopes.push(Arc::from(value));
                    true
                }
                REQUIRE_ACR if is_scope(value) => {
                    step_up.acr.push(Arc::from(value));
                    true
                }
                MAX_AGE => {
                    step_up.max_age = value.parse().ok().filter(|age| *age <= MAX_AGE_MAX);
                    step_up.max_age.is_some() && value.bytes().all(|byte| byte.is_ascii_digit())
                }
                _ => false,
            };
            if !taken {
                let cure = "write one scope, one acr value, or seconds up to a year";
                self.fault(spot.source, at, &format!("this value of @{name} is not usable"), cure);
            }
        }
        found.then_some(step_up)
    }
}

/// RFC 6749 §3.3, `scope-token`. An `acr` value stands in a list with spaces, too (RFC 9470 §3).
fn is_scope(value: &str) -> bool {
    let fits = |byte| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
    (1..=STEP_BYTES_MAX).contains(&value.len()) && value.bytes().all(fits)
}

const REQUIRE_SCOPE: &str = "require_scope";
const REQUIRE_ACR: &str = "require_acr";
const MAX_AGE: &str = "max_age";
/// Annotation, what its policy must look at, and under which name.
const STEPS: [(&str, Mentions, &str); 3] = [
    (REQUIRE_SCOPE, Mentions::SCOPES, "scopes"),
    (REQUIRE_ACR, Mentions::ACR, "acr"),
    (MAX_AGE, Mentions::AUTH_TIME, "auth_time"),
];
/// Bytes of a scope or `acr` value.
const STEP_BYTES_MAX: usize = 256;
/// A year, in seconds.
const MAX_AGE_MAX: u64 = 31_536_000;

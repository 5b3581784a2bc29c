//! What the answer to a question may depend on, for those who do not know all of it.

use super::mentions::Mentions;
use super::{PolicySet, QTarget, Question};

/// What the policies that could apply to a question look at. More may be named than decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// `context.scopes`.
    pub scopes: bool,
    /// `context.acr`.
    pub acr: bool,
    /// `context.auth_time`.
    pub auth_time: bool,
    /// `context.source.country`.
    pub country: bool,
    /// `context.arguments`.
    pub arguments: bool,
    /// The exact name of the resource (URI), by a scope or a condition.
    pub resource: bool,
}

impl PolicySet {
    /// What the answer to `question` may depend on.
    #[must_use]
    pub fn reads(&self, question: &Question<'_>) -> Reads {
        let Some(slice) = self.slice(question) else { return Reads::default() };
        let has = |mention| slice.mentions.has(mention);
        let resource = matches!(question.target, QTarget::Resource(_));
        let named = self.rules.iter().any(|rule| {
            rule.place.name.is_some()
                && rule.place.kinds & slice.kind != 0
                && rule.place.server == slice.server
        });
        Reads {
            scopes: has(Mentions::SCOPES),
            acr: has(Mentions::ACR),
            auth_time: has(Mentions::AUTH_TIME),
            country: has(Mentions::COUNTRY),
            arguments: has(Mentions::ARGUMENTS),
            resource: resource && (named || has(Mentions::RESOURCE)),
        }
    }
}

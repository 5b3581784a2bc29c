//! Why a decision is what it is, policy by policy: for people who ask, never on the way of a
//! request.

use std::ops::Range;

use cedar_policy::{EvalResult, Expression, eval_expression};

use super::decide::Conditions;
use super::mentions::Mentions;
use super::rule::{Rule, RulePlace};
use super::scanner::{self, Statement};
use super::{PolicySet, QTarget, Question};

/// One policy of the slice of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced<'s> {
    /// Its `@id`.
    pub id: &'s str,
    /// Where it is written, and what kind it is of.
    pub place: &'s RulePlace,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its principal, action or resource is another.
    Elsewhere,
    /// It holds.
    Held,
    /// It asks for arguments, and one of them has a value that policies cannot hold.
    Blind,
    /// Its condition could not be evaluated; Cedar's words.
    Failed(String),
    /// Its condition is not met: the first part that is not.
    Unmet(Unmet),
}

/// A part of a condition that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// As it is written.
    pub text: String,
    /// It stands in an `unless` and is true; else it stands in a `when` and is false.
    pub unless: bool,
    /// From 1, in the file of the policy.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

/// What a question's slice reads, besides who asks and what for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each asked for by its name")]
pub struct Reads {
    /// Scopes of the token.
    pub scopes: bool,
    /// Its `acr`.
    pub acr: bool,
    /// Its `auth_time`.
    pub auth_time: bool,
    /// The country of the client.
    pub country: bool,
    /// Arguments of the tool.
    pub arguments: bool,
    /// The time, to the second or on the wall.
    pub time: bool,
    /// The exact name of a resource (URI), in the head of a policy or in a condition.
    pub resource: bool,
}

impl PolicySet {
    /// What the slice of `question` reads; nothing when nothing could ever apply to it.
    #[must_use]
    pub fn reads(&self, question: &Question<'_>) -> Reads {
        let Some(slice) = self.slice(question) else { return Reads::default() };
        let read = |some| slice.mentions.and(slice.to_shadows).has(some);
        let named = |rule: &Rule| {
            rule.place.name.is_some()
                && rule.place.kinds & slice.kind != 0
                && rule.place.server == slice.server
        };
        let uri = matches!(question.target, QTarget::Resource(_));
        Reads {
            scopes: read(Mentions::SCOPES),
            acr: read(Mentions::ACR),
            auth_time: read(Mentions::AUTH_TIME),
            country: read(Mentions::COUNTRY),
            arguments: read(Mentions::ARGUMENTS),
            time: read(Mentions::NOW.and(Mentions::LOCAL)),
            resource: uri && (read(Mentions::RESOURCE) || self.rules.iter().any(named)),
        }
    }

    /// Every policy of the slice of `question`, in the order of the files: enforced first, then
    /// shadows. Conditions are evaluated as for a call, whatever the mode.
    #[must_use]
    pub fn trace(&self, question: &Question<'_>) -> Vec<Traced<'_>> {
        let Some(slice) = self.slice(question) else { return Vec::new() };
        let asker = self.names.asker(question.subject);
        let mut conditions = Conditions::new(self, &slice, question);
        let mut of_shadows = Conditions::of_shadows(self, &slice, question);
        let mut numbers: Vec<u32> = Vec::new();
        for bucket in slice.buckets.iter().flatten() {
            numbers.extend(bucket.permits.iter().chain(&bucket.forbids).chain(&bucket.shadows));
        }
        numbers.sort_unstable();
        let rules = numbers.iter().filter_map(|at| self.rule(*at));
        let traced = rules.map(|rule| {
            let applies = slice.fits(rule, &asker, question.target.name());
            let conditions = if rule.at.shadow { &mut of_shadows } else { &mut conditions };
            let outcome =
                if applies { conditions.outcome(rule, question) } else { Outcome::Elsewhere };
            Traced { id: &rule.id, place: &rule.at, outcome }
        });
        traced.collect()
    }
}

impl Conditions<'_> {
    fn outcome(&mut self, rule: &Rule, question: &Question<'_>) -> Outcome {
        let arguments = question.context.arguments;
        let doubtful = match rule.at.shadow {
            true => arguments.unrepresentable_to_shadows(),
            false => arguments.unrepresentable(),
        };
        if doubtful && rule.mentions.has(Mentions::ARGUMENTS) {
            return Outcome::Blind;
        }
        match self.holds(rule) {
            Some(true) => Outcome::Held,
            Some(false) => self.unmet(rule),
            None => Outcome::Failed(self.failure(rule)),
        }
    }

    fn failure(&mut self, rule: &Rule) -> String {
        let unbuilt = || "a value that it looks at cannot be expressed".to_owned();
        let Some(alone) = &rule.condition else { return unbuilt() };
        let Some((set, request, entities)) = self.question_built() else { return unbuilt() };
        let response = set.authorizer.is_authorized(request, alone, entities);
        response.diagnostics().errors().next().map_or_else(unbuilt, ToString::to_string)
    }

    /// The first part of the condition that is not met, evaluated by itself.
    fn unmet(&mut self, rule: &Rule) -> Outcome {
        let statement = Statement { text: &rule.text, offset: 0 };
        let parts = statement.parts();
        let whole = 0..rule.text.len();
        let Some((_, request, entities)) = self.question_built() else {
            return Outcome::Unmet(unmet(rule, whole, false));
        };
        for part in parts {
            let expression = rule.text.get(part.range.clone()).unwrap_or_default();
            let Ok(expression) = expression.parse::<Expression>() else { continue };
            let value = eval_expression(request, entities, &expression).ok();
            if value == Some(EvalResult::Bool(part.unless)) {
                return Outcome::Unmet(unmet(rule, part.range, part.unless));
            }
        }
        Outcome::Unmet(unmet(rule, whole, false))
    }
}

fn unmet(rule: &Rule, range: Range<usize>, unless: bool) -> Unmet {
    let text = rule.text.get(range.clone()).unwrap_or_default().to_owned();
    let (line, column) = scanner::place(&rule.text, range.start);
    let column = if line == 1 { rule.at.column + column - 1 } else { column };
    Unmet { text, unless, line: rule.at.line + line - 1, column }
}

//! Whether something is shown in a list: the question that is asked before anybody calls it.
//!
//! What only a call can tell (arguments, scopes, login) is not known then. So a permit that looks
//! at it counts by its head alone, and a forbid that does so does not count: what is hidden is
//! blocked whatever the call brings, though not all that is shown is permitted (DESIGN §6).

use super::decide::Conditions;
use super::mentions::Mentions;
use super::rule::{Asker, Rule};
use super::{Mode, PolicySet, Question, Slice, Verdict};

impl PolicySet {
    /// Decides whether what `question` is about is shown. Neither policies nor a credential are
    /// named: nothing is done yet.
    pub(super) fn judge_shown(&self, slice: &Slice<'_>, question: &Question<'_>) -> Verdict {
        let asker = self.names.asker(question.subject);
        let mut conditions = Conditions::new(self, slice, question);
        let unknown = match question.mode {
            // Of a template not even the resource is known.
            Mode::Template => Mentions::CALL_TIME.and(Mentions::RESOURCE),
            Mode::List | Mode::Call => Mentions::CALL_TIME,
        };
        let mut forbids = self.applicable(slice, &asker, question.target, |bucket| &bucket.forbids);
        forbids.retain(|rule| !rule.mentions.has(unknown));
        let (holding, failed) = conditions.sort(forbids);
        if !holding.is_empty() || !failed.is_empty() {
            let (forbidden, error) = (!holding.is_empty(), !failed.is_empty());
            return Verdict { forbidden, error, ..Verdict::by_default() };
        }
        let permits = self.applicable(slice, &asker, question.target, |bucket| &bucket.permits);
        let (by_head, exact): (Vec<_>, Vec<_>) =
            permits.into_iter().partition(|rule| rule.mentions.has(unknown));
        let named = || question.mode == Mode::Template && self.permits_one(slice, &asker);
        if !by_head.is_empty() || named() {
            return Verdict { allow: true, ..Verdict::by_default() };
        }
        let (granting, failed) = conditions.sort(exact);
        let allow = !granting.is_empty();
        Verdict { allow, error: !allow && !failed.is_empty(), ..Verdict::by_default() }
    }

    /// Whether some permit names a resource of the server, which a template may well stand for.
    fn permits_one(&self, slice: &Slice<'_>, asker: &Asker) -> bool {
        let fits = |rule: &Rule| {
            rule.who.matches(asker) && rule.actions.binary_search(&slice.action).is_ok()
        };
        self.resources(slice).iter().any(|at| self.rule(*at).is_some_and(fits))
    }
}

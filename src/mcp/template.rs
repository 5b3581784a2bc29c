//! Which resources a URI template stands for, as far as it takes to know whose a URI is.
//!
//! That is a guess of who to ask, never a decision: whatever it says, the URI itself is judged.

/// Whether `template` (RFC 6570) could have `uri` as an expansion. `{x}` stands for one or more
/// bytes without a slash, `{+x}` and `{x*}`, which some servers know, for any. A template with any
/// other expression, or with more than [`EXPRESSIONS_MAX`], stands for nothing.
#[must_use]
pub fn matches(template: &str, uri: &str) -> bool {
    let uri = uri.as_bytes();
    // Where in `uri` the pieces so far may end.
    let mut ends = vec![false; uri.len() + 1];
    if let Some(first) = ends.first_mut() {
        *first = true;
    }
    let mut rest = template;
    for _ in 0..=EXPRESSIONS_MAX {
        let Some((literal, behind)) = rest.split_once('{') else {
            ends = after_literal(&ends, uri, rest.as_bytes());
            return ends.last() == Some(&true) && !rest.contains('}');
        };
        let Some((expression, behind)) = behind.split_once('}') else { return false };
        let any = expression.strip_prefix('+').or(expression.strip_suffix('*'));
        let name = any.unwrap_or(expression);
        if literal.contains('}') || !is_name(name) {
            return false;
        }
        ends = after_literal(&ends, uri, literal.as_bytes());
        ends = after_value(&ends, uri, any.is_some());
        rest = behind;
    }
    false
}

fn after_literal(ends: &[bool], uri: &[u8], literal: &[u8]) -> Vec<bool> {
    let mut next = vec![false; ends.len()];
    for (at, _) in ends.iter().enumerate().filter(|(_, end)| **end) {
        let fits = uri.get(at..).is_some_and(|rest| rest.starts_with(literal));
        if let Some(slot) = next.get_mut(at + literal.len()).filter(|_| fits) {
            *slot = true;
        }
    }
    next
}

fn after_value(ends: &[bool], uri: &[u8], any: bool) -> Vec<bool> {
    let mut open = false;
    let step = |(at, end): (usize, &bool)| {
        let ends_here = open;
        open = (open || *end) && (any || uri.get(at) != Some(&b'/'));
        ends_here
    };
    ends.iter().enumerate().map(step).collect()
}

/// RFC 6570 §2.3.
fn is_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'%' | b'-');
    !name.is_empty() && name.bytes().all(valid)
}

/// Expressions of one template: each costs a look at every byte of the URI.
pub const EXPRESSIONS_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_stand_for_what_their_servers_mean() {
        for (template, uri, expected) in [
            ("file:///a", "file:///a", true),
            ("file:///a", "file:///ab", false),
            ("file:///{x}", "file:///a", true),
            ("file:///{x}", "file:///", false),
            ("file:///{x}", "file:///a/b", false),
            ("file:///{+x}", "file:///a/b", true),
            ("file:///{x*}", "file:///a/b", true),
            ("file:///{x}/{y}", "file:///a/b", true),
            ("file:///{x}/{y}", "file:///a", false),
            ("{x}://{y}", "a://b", true),
            ("{x}", "a", true),
            ("{x}", "", false),
            ("", "", true),
            ("a{x}b{y}b", "a1b2b", true),
            ("a{x}b{y}b", "abbbb", true),
            ("a{x}b{y}b", "abb", false),
            ("u:{user-id}.json", "u:7.json", true),
            ("u:{user-id}.json", "u:.json", false),
            ("u:{?q}", "u:?q=1", false),
            ("u:{/x}", "u:/x", false),
            ("u:{}", "u:x", false),
            ("u:{x", "u:{x", false),
            ("u:x}", "u:x}", false),
            ("\u{e9}{x}", "\u{e9}\u{e9}", true),
        ] {
            assert_eq!(matches(template, uri), expected, "{template} {uri}");
        }
        let many = |count: usize| "{x}-".repeat(count);
        assert!(matches(&many(EXPRESSIONS_MAX), &"a-".repeat(EXPRESSIONS_MAX)));
        assert!(!matches(&many(EXPRESSIONS_MAX + 1), &"a-".repeat(EXPRESSIONS_MAX + 1)));
    }
}

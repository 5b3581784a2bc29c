//! Decisions about time under a clock that moves.

use super::*;

/// The clock goes on second by second, over the edge of a minute and of a condition, and is set
/// back: each time the answer is that of an enforcer that remembers nothing, for calls and lists.
#[test]
fn what_depends_on_time_is_never_served_past_its_second() {
    let (edge, scopes, digest) = (NOW + 53, ["read".to_owned()], [1; 32]);
    let subject = Subject { auth_time: Some(NOW - 10), ..subject("u", &scopes, &digest) };
    let conditions = [
        ("when", "context.now < datetime(\"2026-11-23T02:16:00Z\")"),
        ("when", "context.now == datetime(\"2026-11-23T02:15:59Z\")"),
        ("unless", "context.local.minute_of_day == 136"),
        ("when", "context.now.toTime() < duration(\"2h16m\")"),
        (
            "when",
            "context has auth_time && \
             context.now.durationSince(context.auth_time) < duration(\"63s\")",
        ),
    ];
    let walk = (edge - 3..edge + 3).chain([edge - 1, edge, edge - 86_400, edge]);
    for (word, condition) in conditions {
        let set = set(
            1,
            &format!(
                "{CONNECT}@id(\"a\") permit (principal, action, resource) {word} {{ {condition} }};"
            ),
        );
        let kept = Enforcer::new(64);
        let (mut allowed, mut asked) = (0, 0);
        for second in walk.clone() {
            let context = at(second);
            let ask = |enforcer: &Enforcer| {
                let call = ask(&subject, &context, "tools/call");
                let call = enforcer.enforce(&set, &call, [QTarget::Tool("get")]).is_ok();
                let list = Question {
                    subject: &subject,
                    action: "tools/call",
                    server: Some((0, "github")),
                    target: QTarget::Tool("get"),
                    context: &context,
                    mode: Mode::List,
                };
                (call, enforcer.decide(&set, &list).allow)
            };
            let fresh = ask(&Enforcer::new(64));
            for _ in 0..2 {
                assert_eq!(ask(&kept), fresh, "{condition} at {second}");
            }
            allowed += u32::from(fresh.0);
            asked += 1;
        }
        assert!(allowed > 0 && allowed < asked, "{condition}: {allowed} of {asked}");
        assert!(kept.counts().hits > kept.counts().misses, "{condition}: it is kept in its second");
    }
}

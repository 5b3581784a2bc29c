use serde_json::json;

use super::*;
use crate::judge::jwt;
use crate::judge::testing::{NOW, TestKey, claims, header, key_set, provider, with};

/// The principal of a token with these changes, under this provider.
fn principal_under(
    provider: &TrustProvider,
    others: &[TrustProvider],
    members: Value,
) -> Result<Principal, Reject> {
    let key = TestKey::ed();
    let header = with(&header("k"), json!({"alg": "EdDSA"}));
    let token = key.token(&header, &with(&claims(), members));
    let claims = jwt::check(token.as_bytes(), provider, &key_set(&key, "k"), NOW).ok().unwrap();
    Principal::from_claims(&claims, provider, others)
}

fn principal(members: Value) -> Result<Principal, Reject> {
    principal_under(&provider(), &[], members)
}

fn rule(claim: &str, test: ClaimTest) -> ClaimRule {
    ClaimRule { claim: claim.into(), test }
}

fn one_of(values: &[&str]) -> ClaimTest {
    ClaimTest::OneOf(values.iter().map(|value| (*value).to_owned()).collect())
}

#[test]
fn a_principal_in_full() {
    let one =
        principal(json!({"acr": "phr", "auth_time": 7, "groups": ["b", "a", "b"]})).ok().unwrap();
    assert_eq!(one.user(), Some("ada@example.com"));
    assert_eq!((one.issuer(), one.subject()), ("https://idp.example.com", "u-1"));
    assert_eq!(one.agent(), "https://agent.example.com");
    assert_eq!(one.groups(), ["a", "b"]);
    assert_eq!(one.scopes(), ["mcp", "offline"]);
    assert_eq!((one.acr(), one.auth_time()), (Some("phr"), Some(7)));
}

#[test]
fn a_user_claim_that_is_not_a_name_is_no_principal() {
    for member in [
        json!({"email": null}),
        json!({"email": ""}),
        json!({"email": 7}),
        json!({"email": ["ada@example.com"]}),
        json!({"email": {"a": 1}}),
        json!({"email_verified": false}),
        json!({"email_verified": "false"}),
        json!({"email_verified": "TRUE"}),
        json!({"email_verified": 0}),
        json!({"email_verified": 1}),
        json!({"_claim_names": {"email": "src1"}}),
    ] {
        let found = principal(member.clone()).err();
        assert_eq!(found, Some(Reject::TokenUserClaimMissing), "{member}");
    }
    assert!(principal(json!({"email_verified": true})).is_ok());
    assert!(principal(json!({"email_verified": "true"})).is_ok());
    // The mark says something about the address, so it binds only where the address is the user.
    let mut by_subject = provider();
    by_subject.user_claim = "sub".into();
    let one = principal_under(&by_subject, &[], json!({"email_verified": false})).ok().unwrap();
    assert_eq!(one.user(), Some("u-1"));
}

#[test]
fn workloads_only_by_rule() {
    let bare = json!({"email": null, "sub": "https://agent.example.com"});
    assert_eq!(principal(bare.clone()).err(), Some(Reject::TokenUserClaimMissing));
    let mut with_rules = provider();
    with_rules.workload = vec![rule("sub", ClaimTest::EqualsClaim("client_id".into()))];
    let workload = principal_under(&with_rules, &[], bare).ok().unwrap();
    assert_eq!((workload.user(), workload.agent()), (None, "https://agent.example.com"));
    // The rule does not hold: still no stronger principal than a user, who is missing.
    let missing = principal_under(&with_rules, &[], json!({"email": null})).err();
    assert_eq!(missing, Some(Reject::TokenUserClaimMissing));
    // A workload whose subject would read as a user stays a workload.
    with_rules.user_claim = "sub".into();
    let named = json!({"sub": "https://agent.example.com"});
    assert_eq!(principal_under(&with_rules, &[], named).ok().unwrap().user(), None);
}

#[test]
fn claim_rules_all_hold_or_nothing_does() {
    let mut strict = provider();
    strict.require =
        vec![rule("hd", one_of(&["example.com", "example.org"])), rule("tier", one_of(&["gold"]))];
    for (member, holds) in [
        (json!({"hd": "example.com", "tier": "gold"}), true),
        (json!({"hd": ["x", "example.org"], "tier": "gold"}), true),
        (json!({"hd": "example.com"}), false),
        (json!({"hd": "EXAMPLE.com", "tier": "gold"}), false),
        (json!({"hd": 1, "tier": "gold"}), false),
        (json!({"hd": {"example.com": true}, "tier": "gold"}), false),
        (json!({"hd": [["example.com"]], "tier": "gold"}), false),
        (json!({"hd": [], "tier": "gold"}), false),
    ] {
        let found = principal_under(&strict, &[], member.clone()).err();
        assert_eq!(found, (!holds).then_some(Reject::TokenRule), "{member}");
    }
    // Two absent claims are not equal to each other.
    strict.require = vec![rule("a", ClaimTest::EqualsClaim("b".into()))];
    assert_eq!(principal_under(&strict, &[], json!({})).err(), Some(Reject::TokenRule));
    assert_eq!(
        principal_under(&strict, &[], json!({"a": 1, "b": 1})).err(),
        Some(Reject::TokenRule)
    );
    assert!(principal_under(&strict, &[], json!({"a": "x", "b": "x"})).is_ok());
}

#[test]
fn the_agent_is_required() {
    let azp = json!({"client_id": null, "azp": "fallback"});
    assert_eq!(principal(azp.clone()).ok().unwrap().agent(), "fallback");
    assert_eq!(
        principal(json!({"azp": "other"})).ok().unwrap().agent(),
        "https://agent.example.com"
    );
    for member in [
        json!({"client_id": null}),
        json!({"client_id": ""}),
        json!({"client_id": 7, "azp": "x"}),
        json!({"client_id": "", "azp": "x"}),
        json!({"client_id": null, "azp": 7}),
    ] {
        assert_eq!(principal(member.clone()).err(), Some(Reject::TokenClaim), "{member}");
    }
    let mut other = provider();
    other.agent_claim = "appid".into();
    assert_eq!(principal_under(&other, &[], azp).err(), Some(Reject::TokenClaim));
}

#[test]
fn half_readable_claims_are_refused() {
    for member in [
        json!({"groups": "staff"}),
        json!({"groups": ["staff", 7]}),
        json!({"groups": ["staff", ""]}),
        json!({"groups": {"staff": true}}),
        json!({"_claim_names": {"groups": "src1"}}),
        json!({"scope": 7}),
        json!({"scope": null, "scp": [1]}),
        json!({"acr": 2}),
        json!({"auth_time": "7"}),
        json!({"auth_time": -7}),
        json!({"auth_time": 7.5}),
        json!({"auth_time": 1_795_400_107_000_u64}),
        json!({"auth_time": u64::MAX}),
    ] {
        assert_eq!(principal(member.clone()).err(), Some(Reject::TokenClaim), "{member}");
    }
    let none = principal(json!({"groups": null, "scope": null})).ok().unwrap();
    assert!(none.groups().is_empty() && none.scopes().is_empty());
    for member in [
        json!({"scope": "b a  a "}),
        json!({"scope": null, "scp": ["b", "a", "a"]}),
        json!({"scope": null, "scp": "a b"}),
        json!({"scope": "a b", "scp": ["admin"]}),
    ] {
        assert_eq!(principal(member.clone()).ok().unwrap().scopes(), ["a", "b"], "{member}");
    }
}

#[test]
fn namespaces_keep_issuers_apart() {
    let mut hr = provider();
    hr.namespace = "hr".into();
    let one = principal_under(&hr, &[], json!({})).ok().unwrap();
    assert_eq!(one.user(), Some("hr/ada@example.com"));
    assert_eq!(one.agent(), "hr/https://agent.example.com");
    assert_eq!(one.groups(), ["hr/engineering", "hr/staff"]);
    assert_eq!(one.subject(), "u-1");
    // The provider without a namespace may not write the other's ids, in any of the three.
    let all = [provider(), hr];
    let imitating = |members| principal_under(&provider(), &all, members).err();
    assert_eq!(imitating(json!({"email": "hr/ada"})), Some(Reject::TokenUserClaimMissing));
    assert_eq!(imitating(json!({"client_id": "hr/x"})), Some(Reject::TokenClaim));
    assert_eq!(imitating(json!({"groups": ["hr/boss"]})), Some(Reject::TokenClaim));
    assert_eq!(imitating(json!({"email": "hrx/ada"})), None);
    assert_eq!(imitating(json!({"email": "hr"})), None);
    assert_eq!(imitating(json!({})), None);
}

#[test]
fn the_digest_tells_every_part_apart() {
    let base = Parts {
        issuer: "i".into(),
        subject: "s".into(),
        user: Some("u".into()),
        agent: "a".into(),
        groups: vec!["g".into(), "h".into()],
        scopes: vec!["x".into()],
        acr: Some("c".into()),
        auth_time: Some(1),
    };
    let text = |value: &str| Some(value.to_owned());
    let variants = [
        base.clone(),
        Parts { issuer: "is".into(), subject: String::new(), ..base.clone() },
        Parts { issuer: "j".into(), ..base.clone() },
        Parts { subject: "t".into(), ..base.clone() },
        Parts { user: text("v"), ..base.clone() },
        Parts { user: None, ..base.clone() },
        Parts { user: text(""), ..base.clone() },
        Parts { agent: "b".into(), ..base.clone() },
        Parts { groups: vec!["gh".into()], ..base.clone() },
        Parts { groups: vec!["g".into(), "h".into(), "x".into()], scopes: vec![], ..base.clone() },
        Parts { groups: vec!["g".into()], scopes: vec!["h".into(), "x".into()], ..base.clone() },
        Parts { scopes: vec![], ..base.clone() },
        Parts { acr: None, ..base.clone() },
        Parts { acr: text(""), ..base.clone() },
        Parts { user: None, acr: text("u"), ..base.clone() },
        Parts { auth_time: None, ..base.clone() },
        Parts { auth_time: Some(0), ..base.clone() },
    ];
    let digests: Vec<_> =
        variants.into_iter().map(|parts| *Principal::assemble(parts).digest()).collect();
    for (at, digest) in digests.iter().enumerate() {
        for (other_at, other) in digests.iter().enumerate().skip(at + 1) {
            assert_ne!(digest, other, "variants {at} and {other_at}");
        }
    }
    // Order and repeats of a list mean nothing.
    let shuffled = Parts { groups: vec!["h".into(), "g".into(), "h".into()], ..base };
    assert_eq!(Some(Principal::assemble(shuffled).digest()), digests.first());
}

use std::cell::{Cell, RefCell};
use std::future::pending;

use serde_json::{Value, json};

use super::*;
use crate::clock::{UnixMicros, UnixSeconds};
use crate::control::jwks::{Asked, FetchFault, Fetched, Next, Refresher};
use crate::judge::testing::{
    ISSUER, NOW, TestKey, URL, block_on, claims, header, jwks, provider, with,
};

mod queue;

/// A core with one provider, whose issuer answers through a real refresher in virtual time.
struct Core {
    identity: Identity,
    epoch: Cell<u64>,
    providers: Vec<TrustProvider>,
    keys: RefCell<Vec<ProviderKeys>>,
    refresher: RefCell<Refresher>,
    /// What the issuer would answer to a fetch now.
    site: RefCell<Result<Vec<u8>, FetchFault>>,
    seconds: Cell<u64>,
    asked: Cell<u32>,
    fetches: Cell<u32>,
    /// The control thread answers; else every wait meets its deadline.
    alive: Cell<bool>,
}

impl Core {
    fn new(document: Vec<u8>) -> Self {
        let core = Self {
            identity: Identity::new(),
            epoch: Cell::new(1),
            providers: vec![provider()],
            keys: RefCell::new(vec![ProviderKeys::none()]),
            refresher: RefCell::new(Refresher::new(Monotonic(0))),
            site: RefCell::new(Ok(document)),
            seconds: Cell::new(0),
            asked: Cell::new(0),
            fetches: Cell::new(0),
            alive: Cell::new(true),
        };
        assert_eq!(core.refresher.borrow_mut().poll(core.now().mono), Next::Fetch);
        core.answer();
        core
    }

    /// Ends the fetch under way and publishes.
    fn answer(&self) {
        self.fetches.set(self.fetches.get() + 1);
        let now = self.now().mono;
        let fetched =
            self.site.borrow().clone().map(|document| Fetched { document, max_age: None });
        let mut refresher = self.refresher.borrow_mut();
        refresher.fetched(now, fetched);
        *self.keys.borrow_mut() = vec![refresher.snapshot(now)];
    }

    fn after(&self, seconds: u64) {
        self.seconds.set(self.seconds.get() + seconds);
    }

    fn verify_on(&self, token: &str, resource: Resource<'_>) -> Result<Rc<VerifiedToken>, Reject> {
        let authorization = format!("Bearer {token}").into_bytes();
        let audiences = Audiences::new(URL, resource);
        let wait = Duration::from_secs(4);
        let now = self.now();
        // Each in a turn of its own.
        self.identity.new_turn();
        block_on(self.identity.verify(Some(&authorization), &audiences, self, now, wait))
    }

    fn verify(&self, token: &str) -> Result<Rc<VerifiedToken>, Reject> {
        self.verify_on(token, Resource::Server("github"))
    }

    fn refusal(&self, token: &str) -> Option<Reject> {
        self.verify(token).err()
    }
}

impl Identity {
    /// Judges a token at once, in whatever place. `waited` = an unknown key id is final.
    fn judge_token(
        &self,
        token: &[u8],
        audiences: &Audiences<'_>,
        trust: &Trust<'_>,
        now: Now,
        waited: bool,
    ) -> Outcome {
        let asked = super::Asked { token, digest: Digest::of(token), audiences, waited };
        self.judge_in_turn(&asked, trust, now).0
    }
}

impl Door for Core {
    fn with_trust<R>(&self, read: impl FnOnce(&Trust<'_>) -> R) -> R {
        let keys = self.keys.borrow();
        read(&Trust { epoch: self.epoch.get(), providers: &self.providers, keys: &keys })
    }

    fn now(&self) -> Now {
        let seconds = self.seconds.get();
        Now {
            wall: UnixMicros((NOW.0 + seconds) * 1_000_000),
            mono: Monotonic(seconds * 1_000_000),
        }
    }

    fn ask(&self, provider: u16) {
        assert_eq!(provider, 0);
        self.asked.set(self.asked.get() + 1);
    }

    /// Stands for the time in which the control thread works.
    async fn sleep_until(&self, _: Monotonic) {
        if !self.alive.get() {
            return;
        }
        let asked = self.refresher.borrow_mut().asked(self.now().mono);
        match asked {
            Asked::Fetch => {
                self.answer();
                self.with_trust(|trust| self.identity.keys_published(trust));
                self.identity.keys_unchanged(0);
            }
            Asked::Throttled | Asked::Joined => self.identity.keys_unchanged(0),
        }
        pending().await
    }
}

fn key_document(keys: &[(&TestKey, &str)]) -> Vec<u8> {
    let jwk = |(key, kid): &(&TestKey, &str)| with(&key.jwk(), json!({"kid": kid}));
    jwks(&keys.iter().map(jwk).collect::<Vec<_>>())
}

fn token(key: &TestKey, kid: &str, members: Value) -> String {
    key.token(&header(kid), &with(&claims(), members))
}

fn long_lived() -> Value {
    json!({"exp": NOW.0 + 1_000_000})
}

#[test]
fn a_good_token_becomes_a_proof_and_is_remembered() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let good = token(&key, "k", json!({}));
    let first = core.verify(&good).unwrap_or_else(|reject| panic!("{reject:?}"));
    assert_eq!(first.principal().user(), Some("ada@example.com"));
    assert_eq!(first.counts_until(), UnixSeconds(NOW.0 + 330));
    assert_eq!(first.fingerprint(), Digest::of(good.as_bytes()).fingerprint());
    assert_eq!(core.identity.remembered_count(), 1);
    let second = core.verify(&good).ok().unwrap();
    assert!(Rc::ptr_eq(&first, &second));
    assert_eq!(core.asked.get(), 0);
}

#[test]
fn the_fingerprint_is_the_start_of_the_sha_256() {
    // FIPS 180-4 example: SHA-256("abc").
    assert_eq!(Digest::of(b"abc").fingerprint(), [0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea]);
}

#[test]
fn t21_a_token_elsewhere_is_no_token() {
    let core = Core::new(key_document(&[(&TestKey::ec(), "k")]));
    let audiences = Audiences::new(URL, Resource::Federation);
    for authorization in [None, Some(b"Basic abc".as_slice())] {
        let verdict = block_on(core.identity.verify(
            authorization,
            &audiences,
            &core,
            core.now(),
            Duration::ZERO,
        ));
        assert_eq!(verdict.err(), Some(Reject::TokenMissing));
    }
}

#[test]
fn refusals_are_not_remembered() {
    let (key, other) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&key, "k")]));
    for (token, wanted) in [
        (token(&other, "k", json!({})), Reject::TokenSignature),
        (token(&key, "k", json!({"aud": "https://other.test"})), Reject::TokenAudience),
        (token(&key, "k", json!({"aud": format!("{URL}/mcp/slack")})), Reject::TokenAudience),
        (token(&key, "k", json!({"email": null})), Reject::TokenUserClaimMissing),
        (token(&key, "k", json!({"iss": "https://other.test"})), Reject::TokenIssuer),
        (token(&key, "k", json!({"client_id": null})), Reject::TokenClaim),
        ("a.b.c".to_owned(), Reject::TokenMalformed),
    ] {
        assert_eq!(core.refusal(&token), Some(wanted));
        assert_eq!(core.refusal(&token), Some(wanted));
    }
    assert_eq!(core.identity.remembered_count(), 0);
}

#[test]
fn t11_t24_a_remembered_token_is_still_for_its_routes_only() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let good = token(&key, "k", json!({}));
    assert!(core.verify_on(&good, Resource::Server("github")).is_ok());
    for resource in [Resource::Server("slack"), Resource::Federation] {
        assert_eq!(core.verify_on(&good, resource).err(), Some(Reject::TokenAudience));
    }
    assert!(core.verify_on(&good, Resource::Server("github")).is_ok());
}

#[test]
fn t25_a_remembered_token_still_expires() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let brief = token(&key, "k", json!({"exp": NOW.0 + 20}));
    assert!(core.verify(&brief).is_ok());
    core.after(20);
    // Over, but within the leeway: verified anew each time, never remembered.
    assert!(core.verify(&brief).is_ok());
    assert_eq!(core.identity.remembered_count(), 0);
    core.after(29);
    assert!(core.verify(&brief).is_ok());
    core.after(1);
    assert_eq!(core.refusal(&brief), Some(Reject::TokenExpired));
}

#[test]
fn t25_f10_nothing_is_remembered_longer_than_a_minute() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let good = token(&key, "k", long_lived());
    let first = core.verify(&good).ok().unwrap();
    core.after(CACHE_SECONDS_MAX - 1);
    assert!(Rc::ptr_eq(&first, &core.verify(&good).ok().unwrap()));
    core.after(1);
    assert!(!Rc::ptr_eq(&first, &core.verify(&good).ok().unwrap()));
    // A wall clock set back makes a remembered token not yet valid, as it would a new one.
    let audiences = Audiences::new(URL, Resource::Server("github"));
    let past = Now { wall: UnixMicros((NOW.0 - 3_600) * 1_000_000), mono: core.now().mono };
    let verdict = core.with_trust(|trust| {
        core.identity.judge_token(good.as_bytes(), &audiences, trust, past, false)
    });
    assert!(matches!(verdict, Outcome::Refused(Reject::TokenNotYetValid)));
}

#[test]
fn f06_a_removed_key_ends_with_the_next_generation() {
    let (old, new) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&old, "old")]));
    let of_old = token(&old, "old", long_lived());
    let of_new = token(&new, "new", long_lived());
    assert!(core.verify(&of_old).is_ok());
    // Both overlap: nobody is refused, and the new id costs one fetch.
    *core.site.borrow_mut() = Ok(key_document(&[(&old, "old"), (&new, "new")]));
    for _ in 0..100 {
        assert!(core.verify(&of_new).is_ok());
        assert!(core.verify(&of_old).is_ok());
    }
    assert_eq!((core.asked.get(), core.fetches.get()), (1, 2));
    // The old key goes: what it signed goes with it, though it was remembered this very second.
    *core.site.borrow_mut() = Ok(key_document(&[(&new, "new")]));
    assert_eq!(core.refusal(&token(&new, "made-up", json!({}))), Some(Reject::TokenKeyUnknown));
    assert_eq!(core.fetches.get(), 3);
    assert!(core.verify(&of_new).is_ok());
    assert_eq!(core.refusal(&of_old), Some(Reject::TokenKeyUnknown));
}

#[test]
fn another_configuration_forgets_what_was_verified() {
    let key = TestKey::ec();
    let mut core = Core::new(key_document(&[(&key, "k")]));
    let good = token(&key, "k", json!({}));
    assert!(core.verify(&good).is_ok());
    core.providers[0].user_claim = "sub".into();
    core.epoch.set(2);
    assert_eq!(core.verify(&good).ok().unwrap().principal().user(), Some("u-1"));
}

#[test]
fn f02_f03_without_keys_503_also_for_remembered_tokens() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let good = token(&key, "k", long_lived());
    assert!(core.verify(&good).is_ok());
    core.after(300 + 3_600 - 1);
    assert!(core.verify(&good).is_ok());
    core.after(1);
    assert_eq!(core.refusal(&good), Some(Reject::KeysUnavailable));
    let unloaded = Core::new(b"{}".to_vec());
    assert_eq!(unloaded.refusal(&good), Some(Reject::KeysUnavailable));
    assert_eq!(Reject::KeysUnavailable.status(), 503);
    // Nothing to ask about a stranger's token.
    let stranger = token(&key, "k", json!({"iss": format!("{ISSUER}/x")}));
    assert_eq!(unloaded.refusal(&stranger), Some(Reject::TokenIssuer));
}

#[test]
fn t06_made_up_ids_cost_the_issuer_a_burst() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    core.after(100);
    let mut verdicts = std::collections::BTreeMap::new();
    for id in 0..10_000 {
        // The signature is never looked at, so one will do.
        let made_up = format!("{{\"alg\":\"ES256\",\"typ\":\"at+jwt\",\"kid\":\"k{id}\"}}");
        use base64::Engine as _;
        let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
        let token = format!("{}.{}.AAAA", part(&made_up), part(&claims().to_string()));
        let verdict = core.refusal(&token).unwrap();
        *verdicts.entry(verdict.audit_code()).or_insert(0) += 1;
    }
    assert_eq!(core.fetches.get(), 1 + crate::limits::JWKS_REFETCH_BURST);
    assert_eq!(core.asked.get(), crate::limits::JWKS_REFETCH_BURST);
    // The set is new, so the ids do not exist.
    assert_eq!(verdicts.into_iter().collect::<Vec<_>>(), [("token_key_unknown", 10_000)]);
    // The good key serves all along.
    assert!(core.verify(&token(&key, "k", json!({}))).is_ok());
}

#[test]
fn t06_an_unknown_id_while_the_issuer_is_down_is_pending() {
    let (key, new) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&key, "k")]));
    core.after(100);
    *core.site.borrow_mut() = Err(FetchFault::Unreachable);
    let of_new = token(&new, "new", json!({}));
    for _ in 0..10 {
        assert_eq!(core.refusal(&of_new), Some(Reject::KeysPending));
    }
    assert_eq!(core.fetches.get(), 1 + crate::limits::JWKS_REFETCH_BURST);
    *core.site.borrow_mut() = Ok(key_document(&[(&new, "new")]));
    core.after(30);
    assert!(core.verify(&of_new).is_ok());
}

#[test]
fn a_control_thread_that_is_silent_costs_the_deadline() {
    let (key, new) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&key, "k")]));
    core.alive.set(false);
    assert_eq!(core.refusal(&token(&new, "new", json!({}))), Some(Reject::KeysPending));
    assert!(core.verify(&token(&key, "k", json!({}))).is_ok());
}

#[test]
fn the_second_of_two_providers_has_its_own_keys() {
    let (one, two) = (TestKey::ec(), TestKey::ec());
    let mut core = Core::new(key_document(&[(&one, "k")]));
    let mut second = provider();
    second.issuer = "https://two.test".into();
    second.namespace = "two".into();
    core.providers.push(second);
    let of_two = token(&two, "k", json!({"iss": "https://two.test"}));
    assert_eq!(core.refusal(&of_two), Some(Reject::KeysUnavailable));
    let mut refresher = Refresher::new(Monotonic(0));
    assert_eq!(refresher.poll(Monotonic(0)), Next::Fetch);
    let document = key_document(&[(&two, "k")]);
    refresher.fetched(Monotonic(0), Ok(Fetched { document, max_age: None }));
    core.keys.borrow_mut().push(refresher.snapshot(Monotonic(0)));
    let verified = core.verify(&of_two).ok().unwrap();
    assert_eq!(verified.principal().user(), Some("two/ada@example.com"));
    assert_eq!(verified.provider(), 1);
    // The same id under the other issuer's name does not pass with this key.
    let forged = token(&two, "k", json!({}));
    assert_eq!(core.refusal(&forged), Some(Reject::TokenSignature));
}

#[test]
fn purge_and_sweep_forget() {
    let key = TestKey::ec();
    let core = Core::new(key_document(&[(&key, "k")]));
    let good = token(&key, "k", long_lived());
    assert!(core.verify(&good).is_ok());
    core.identity.sweep(core.now().mono, 100);
    assert_eq!(core.identity.remembered_count(), 1);
    core.after(CACHE_SECONDS_MAX);
    core.identity.sweep(core.now().mono, 100);
    assert_eq!(core.identity.remembered_count(), 0);
    assert!(core.verify(&good).is_ok());
    core.identity.purge();
    assert_eq!(core.identity.remembered_count(), 0);
}

/// Whatever happens to time, keys and configuration: an identity that remembers and one that never
/// does say the same.
#[test]
fn a_remembered_verdict_equals_a_fresh_one() {
    let (one, two) = (TestKey::ec(), TestKey::ec());
    let core = Core::new(key_document(&[(&one, "1"), (&two, "2")]));
    let mut tokens = Vec::new();
    for (key, kid) in [(&one, "1"), (&two, "2"), (&one, "2")] {
        for members in [
            json!({}),
            json!({"exp": NOW.0 + 4_000}),
            json!({"nbf": NOW.0 + 2_000}),
            json!({"aud": format!("{URL}/mcp/slack")}),
            json!({"aud": [URL, "x"]}),
            json!({"exp": NOW.0 + 5}),
            json!({"email_verified": false}),
        ] {
            let members = with(&long_lived(), members);
            tokens.push(token(key, kid, members));
        }
    }
    let mut state = 7_u64;
    let mut random = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % bound
    };
    let (mut passed, mut refused) = (0, 0);
    for step in 0..3_000 {
        match step % 100 {
            30 => core.epoch.set(core.epoch.get() + 1),
            60 => {
                // No time passes, so that only the generation tells.
                let both = [(&one, "1"), (&two, "2")];
                let document = key_document(&both[random(2)..]);
                *core.site.borrow_mut() = Ok(document);
                if core.refresher.borrow_mut().asked(core.now().mono) == Asked::Fetch {
                    core.answer();
                }
            }
            _ if step % 3 == 0 => core.after(random(4) as u64),
            _ => {}
        }
        let token = tokens[random(tokens.len())].as_bytes();
        let resource =
            [Resource::Server("github"), Resource::Server("slack"), Resource::Federation];
        let audiences = Audiences::new(URL, resource[random(3)]);
        let say = |identity: &Identity| {
            let now = core.now();
            match core.with_trust(|trust| identity.judge_token(token, &audiences, trust, now, true))
            {
                Outcome::Verified(verified) => Ok(*verified.principal().digest()),
                Outcome::Refused(reject) => Err(reject),
                Outcome::NeedKeys { .. } => panic!("asked again"),
            }
        };
        let fresh = say(&Identity::new());
        assert_eq!(say(&core.identity), fresh, "step {step}");
        *(if fresh.is_ok() { &mut passed } else { &mut refused }) += 1;
    }
    assert!(passed > 200 && refused > 200, "{passed} {refused}");
}

//! One issuer with an ES256 key, one provider, one identity.

use std::future::pending;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use portcullis::clock::{Monotonic, Now, UnixMicros, UnixSeconds};
use portcullis::config::{Algorithm, KeySource, TrustProvider};
use portcullis::control::jwks::{Fetched, Next, ProviderKeys, Refresher};
use portcullis::devtoken::{self, Request, SigningKey};
use portcullis::identity::{Audiences, Door, Identity, Resource, Trust, VerifiedToken};
use portcullis::reject::Reject;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};

const URL: &str = "https://gw.example.com";
const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

pub(crate) struct Rig {
    identity: Identity,
    key: SigningKey,
    token: String,
    /// The field's value, as the head of a request has it.
    authorization: Vec<u8>,
    providers: Vec<TrustProvider>,
    keys: Vec<ProviderKeys>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let text = pem(pkcs8.as_ref());
        let key = SigningKey::from_pem(text.as_bytes()).unwrap();
        let (token, document) = (mint(&key), key.jwks().unwrap().to_string());
        Self::with(key, token, document)
    }

    fn with(key: SigningKey, token: String, document: String) -> Self {
        let document = document.into_bytes();
        let mut refresher = Refresher::new(Monotonic(0));
        assert_eq!(refresher.poll(Monotonic(0)), Next::Fetch);
        refresher.fetched(Monotonic(0), Ok(Fetched { document, max_age: None }));
        Self {
            identity: Identity::new(),
            key,
            authorization: bearer(&token),
            token,
            providers: vec![provider()],
            keys: vec![refresher.snapshot(Monotonic(0))],
        }
    }

    /// Judges this token, whose key is in this set, instead of one of its own.
    #[allow(dead_code, reason = "for what counts instructions")]
    pub(crate) fn fixed(token: &str, document: &str) -> Self {
        let Self { key, .. } = Self::new();
        Self::with(key, token.to_owned(), document.to_owned())
    }

    pub(crate) fn judge(&self) -> Result<Rc<VerifiedToken>, Reject> {
        self.judge_this(&self.authorization)
    }

    /// Forgets the token and begins a turn, so that the next judgement has all to do and waits for
    /// nobody.
    #[allow(dead_code, reason = "one of its users judges what is remembered")]
    pub(crate) fn forget(&self) {
        self.identity.purge();
        self.identity.new_turn();
    }

    #[allow(dead_code, reason = "one of its users fills the cache")]
    pub(crate) fn judge_another(&self) -> Result<Rc<VerifiedToken>, Reject> {
        self.identity.new_turn();
        self.judge_this(&bearer(&mint(&self.key)))
    }

    /// The signature of the token, its key and what it signs, for who wants to check nothing else.
    #[allow(dead_code, reason = "one of its users compares with it")]
    pub(crate) fn signature(&self) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
        use base64::Engine as _;
        let decode = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text);
        let document = self.key.jwks().unwrap();
        let coordinate = |name: &str| {
            let value = document.pointer(&format!("/keys/0/{name}")).unwrap();
            decode(value.as_str().unwrap()).unwrap()
        };
        let (signed, signature) = self.token.rsplit_once('.').unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        (point, signed.as_bytes().to_vec(), decode(signature).unwrap())
    }

    /// As a request has it judged; a verdict takes one poll, for nothing has to be waited for.
    fn judge_this(&self, authorization: &[u8]) -> Result<Rc<VerifiedToken>, Reject> {
        let audiences = Audiences::new(URL, Resource::Server("github"));
        let wait = Duration::from_secs(4);
        let verify = self.identity.verify(Some(authorization), &audiences, self, self.now(), wait);
        match pin!(verify).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => Err(Reject::GatewayOverloaded),
        }
    }
}

impl Door for Rig {
    fn with_trust<R>(&self, read: impl FnOnce(&Trust<'_>) -> R) -> R {
        read(&Trust { epoch: 1, providers: &self.providers, keys: &self.keys })
    }

    fn now(&self) -> Now {
        Now { wall: UnixMicros(NOW.0 * 1_000_000), mono: Monotonic(1) }
    }

    /// Nobody answers, and the judgement ends as one that waits.
    fn ask(&self, _: u16) {}

    async fn sleep_until(&self, _: Monotonic) {
        pending().await
    }
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

fn mint(key: &SigningKey) -> String {
    let request = Request {
        issuer: "https://idp.example.com".into(),
        audiences: vec![format!("{URL}/mcp/github")],
        subject: "00u1a2b3c4d5e6f7g8h9".into(),
        claims: ["email=\"ada@example.com\"", "groups=[\"engineering\",\"staff\"]"]
            .map(|argument| devtoken::claim(argument).unwrap())
            .into(),
        expires_seconds: 3_600,
    };
    devtoken::mint(key, &request, NOW).unwrap()
}

fn provider() -> TrustProvider {
    TrustProvider {
        name: "corp".into(),
        issuer: "https://idp.example.com".into(),
        keys: KeySource::Discovery,
        algorithms: vec![Algorithm::Es256],
        namespace: String::new(),
        token_type: Some("at+jwt".into()),
        leeway_seconds: 30,
        audiences: Vec::new(),
        trust_private_addresses: false,
        ca_file: None,
        user_claim: "email".into(),
        groups_claim: "groups".into(),
        agent_claim: "client_id".into(),
        require: Vec::new(),
        workload: Vec::new(),
    }
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n")
}

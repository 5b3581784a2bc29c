//! Requests, and the table of refusals: each case goes whole and dripped, on both drivers.

use super::client::{Answer, Client, Way, text};
use super::gateway::{DRIVERS, Gateway};
use super::setup::API_KEY;

/// What becomes of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It carries the next request.
    Open,
    /// It ends after the answer.
    Closed,
    /// The agent left; there may be no answer.
    Gone,
}

/// One request that must be refused.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) request: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) reason: &'static str,
    pub(crate) end: End,
}

/// A POST in the making. The usual one is permitted.
#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    pub(crate) fields: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) fn tool_call(name: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{name}","arguments":{{}}}}}}"#
    )
}

impl Post {
    pub(crate) fn new(gateway: &Gateway) -> Self {
        Self::with_token(&gateway.keys.token("alice"))
    }

    pub(crate) fn with_token(token: &str) -> Self {
        Self {
            path: "/mcp/tools".to_owned(),
            token: Some(token.to_owned()),
            fields: String::new(),
            body: tool_call("echo").into_bytes(),
        }
    }

    pub(crate) fn to(mut self, server: &str) -> Self {
        self.path = format!("/mcp/{server}");
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(crate) fn field(mut self, line: &str) -> Self {
        self.fields += line;
        self.fields += "\r\n";
        self
    }

    pub(crate) fn script(self, name: &str) -> Self {
        self.field(&format!("Mcp-Param-Script: {name}"))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = format!("Content-Length: {}\r\n", self.body.len());
        self.framed(&length, &self.body)
    }

    /// The head with other framing fields, then `rest` as it is.
    pub(crate) fn framed(&self, framing: &str, rest: &[u8]) -> Vec<u8> {
        let authorization =
            self.token.as_ref().map(|token| format!("Authorization: Bearer {token}\r\n"));
        let mut bytes = format!(
            "POST {} HTTP/1.1\r\nHost: portcullis.localhost\r\n{}{JSON}{ACCEPT}{}{framing}\r\n",
            self.path,
            authorization.unwrap_or_default(),
            self.fields,
        )
        .into_bytes();
        bytes.extend_from_slice(rest);
        bytes
    }
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";
pub(crate) const ACCEPT: &str = "Accept: application/json, text/event-stream\r\n";

/// Runs the cases that `make` builds on every driver.
pub(crate) fn refuse(make: impl Fn(&Gateway) -> Vec<Case>) {
    for driver in DRIVERS {
        let gateway = Gateway::shared(driver);
        let cases = make(&gateway);
        run(&gateway, &cases);
    }
}

/// The same on a gateway of the test's own.
pub(crate) fn run(gateway: &Gateway, cases: &[Case]) {
    let turn = gateway.turn();
    let good = Post::new(gateway).bytes();
    let mut wanted = Vec::new();
    for case in cases {
        for way in [Way::Whole, Way::Dripped] {
            let shown = format!("{} {way:?} on {:?}", case.id, gateway.driver);
            let before = gateway.upstream.heard();
            one(gateway, case, way, &shown);
            assert_eq!(gateway.upstream.heard(), before, "{shown}: something was forwarded");
            let next = gateway.ask(&good);
            assert_eq!(next.status, 200, "{shown}: the next agent is served: {next:?}");
            wanted.push((shown.clone(), case.reason));
            wanted.push((shown, "ok"));
        }
    }
    let found = turn.reasons(gateway, wanted.len());
    for ((shown, reason), found) in wanted.iter().zip(&found) {
        assert_eq!(found, reason, "{shown}: the reason in the audit record");
    }
    assert!(gateway.running(), "the process lives");
    assert_silent(&gateway.everything_written(), "audit, logs and admin pages");
}

fn one(gateway: &Gateway, case: &Case, way: Way, shown: &str) {
    let mut client = Client::connect(gateway.address);
    client.send(&case.request, way);
    if case.end == End::Gone {
        client.finish_sending();
        match client.answer() {
            None => {}
            Some(answer) => assert_refused(&answer, case, shown),
        }
        return;
    }
    let answer = client.answer().unwrap_or_else(|| panic!("{shown}: no answer"));
    assert_refused(&answer, case, shown);
    let says_close = answer.header("connection") == Some("close");
    assert_eq!(says_close, case.end == End::Closed, "{shown}: {}", answer.head);
    if case.end == End::Closed {
        assert!(client.ended(), "{shown}: the connection ends, nothing follows the answer");
    }
}

fn assert_refused(answer: &Answer, case: &Case, shown: &str) {
    assert_eq!(answer.status, case.status, "{shown}: {answer:?}");
    assert_eq!(answer.reason(), case.reason, "{shown}");
    assert_silent(&(answer.head.clone() + &text(&answer.body)), shown);
    let challenge = answer.header("www-authenticate");
    match case.status {
        401 => {
            let challenge = challenge.unwrap_or_else(|| panic!("{shown}: no challenge"));
            assert!(challenge.starts_with("Bearer "), "{shown}: {challenge}");
            assert!(challenge.contains("resource_metadata=\"http://portcullis.localhost/"));
            let bare = case.reason == "token_missing";
            assert_eq!(challenge.contains("error=\"invalid_token\""), !bare, "{shown}");
        }
        503 => assert!(answer.header("retry-after").is_some(), "{shown}: when to come back"),
        _ => assert_eq!(challenge, None, "{shown}"),
    }
}

/// Every token of ours begins with `{"alg":`; every other secret holds the word CANARY.
pub(crate) fn assert_silent(text: &str, place: &str) {
    for secret in [TOKEN_START, "CANARY", API_KEY] {
        let at = text.find(secret);
        assert!(at.is_none(), "{place}: holds {secret}: {:?}", at.map(|at| &text[at..]));
    }
}

/// base64url of `{"alg":"`.
pub(crate) const TOKEN_START: &str = "eyJhbGciOi";

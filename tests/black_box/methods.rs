//! Every method that the gateway knows, and all that has none: nothing reaches an upstream without
//! a decision on the very things that it names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use super::gateway::{DRIVERS, Gateway, until};
use super::table::Post;

/// One way to use one method.
pub(super) struct Use {
    pub(super) method: String,
    modern: bool,
    pub(super) notification: bool,
    pub(super) params: Value,
    /// What must be permitted, each with the action it is asked as.
    pub(super) wants: Vec<(String, String)>,
}

/// The lines of the method table, read from its source: name, eras, subject, is a notification.
fn table() -> Vec<(String, &'static [bool], String, bool)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/mcp/method.rs");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, table) = text.split_once("const TABLE: [Row; ").unwrap();
    let (count, table) = table.split_once(']').unwrap();
    let (table, _) = table.split_once("\n};").unwrap();
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.contains("(M::")) {
        let name = line.split('"').nth(1).unwrap().to_owned();
        let notification = line.contains("notification(M::");
        let eras: &[bool] = match line {
            _ if line.contains(", BOTH") => &[false, true],
            _ if line.contains(", LEGACY") => &[false],
            _ if line.contains(", MODERN") => &[true],
            _ => panic!("no era: {line}"),
        };
        let subject =
            line.split("S::").nth(1).map_or("Server", |rest| rest.trim_end_matches([')', ',']));
        rows.push((name, eras, subject.to_owned(), notification));
    }
    assert_eq!(rows.len().to_string(), count, "the table was read");
    rows
}

pub(super) fn uses() -> Vec<Use> {
    let mut uses = Vec::new();
    for (method, eras, subject, notification) in table() {
        let server = r#"Server::"tools""#.to_owned();
        let prompt = r#"Prompt::"tools/it""#.to_owned();
        let resource = r#"Resource::"tools/x://it""#.to_owned();
        let reference =
            |reference: Value| json!({"ref": reference, "argument": {"name": "a", "value": "b"}});
        let of = |target: &str| (method.clone(), target.to_owned());
        let ways = match subject.as_str() {
            "Server" if method == "initialize" => {
                let client = json!({"name": "x", "version": "1"});
                let params = json!({
                    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client,
                });
                vec![(params, vec![of(&server)])]
            }
            "Server" => vec![(json!({}), vec![of(&server)])],
            "Tool" => vec![(json!({"name": "it"}), vec![of(r#"Tool::"tools/it""#)])],
            "Prompt" => vec![(json!({"name": "it"}), vec![of(&prompt)])],
            "Resource" => vec![(json!({"uri": "x://it"}), vec![of(&resource)])],
            "Task" => vec![(json!({"taskId": "t-1"}), vec![of(&server)])],
            "Reference" => vec![
                (reference(json!({"type": "ref/prompt", "name": "it"})), vec![of(&prompt)]),
                (reference(json!({"type": "ref/resource", "uri": "x://it"})), vec![of(&resource)]),
            ],
            "Subscriptions" => {
                let other = r#"Resource::"tools/x://other""#;
                let tasks = ("tasks/get".to_owned(), server.clone());
                vec![
                    (json!({"notifications": {"toolsListChanged": true}}), vec![of(&server)]),
                    (
                        json!({"notifications": {
                            "resourceSubscriptions": ["x://it", "x://other"], "taskIds": ["t-1"],
                        }}),
                        vec![of(&server), of(&resource), of(other), tasks],
                    ),
                ]
            }
            other => panic!("{method}: nobody says what {other} names"),
        };
        for (params, wants) in ways {
            for modern in eras {
                let (method, params, wants) = (method.clone(), params.clone(), wants.clone());
                uses.push(Use { method, modern: *modern, notification, params, wants });
            }
        }
    }
    let wants = vec![("com.example/thing".to_owned(), r#"Server::"tools""#.to_owned())];
    for notification in [false, true] {
        let (method, params, wants) = ("com.example/thing".into(), json!({}), wants.clone());
        uses.push(Use { method, modern: false, notification, params, wants });
    }
    uses
}

/// For each thing that a use wants, user `but-…` may do everything but that; `only-…` may do what
/// the use wants and nothing besides.
fn policies(uses: &[Use]) -> String {
    let mut text = String::new();
    for (number, this) in uses.iter().enumerate() {
        for (place, (action, target)) in this.wants.iter().enumerate() {
            let (but, only) = (format!("but-{number}"), format!("only-{number}"));
            let _ = writeln!(
                text,
                "@id(\"{but}-{place}\") permit (principal == User::\"{but}-{place}\", action, \
                 resource in Server::\"tools\")\n\
                 unless {{ action == Action::\"{action}\" && resource == {target} }};\n\
                 @id(\"{only}-{place}\") permit (principal == User::\"{only}\", \
                 action == Action::\"{action}\", resource == {target});",
            );
        }
    }
    text
}

impl Use {
    pub(super) fn request(&self, user: &str, gateway: &Gateway) -> Vec<u8> {
        let mut params = self.params.clone();
        if self.modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            });
        }
        let mut body = json!({"jsonrpc": "2.0", "method": self.method, "params": params});
        if !self.notification {
            body["id"] = 1.into();
        }
        let post = Post::with_token(&gateway.keys.token(user)).body(body.to_string());
        if !self.modern {
            return post.bytes();
        }
        let post = post
            .field("MCP-Protocol-Version: 2026-07-28")
            .field(&format!("Mcp-Method: {}", self.method));
        let named = ["name", "uri", "taskId"].iter().find_map(|key| params[key].as_str());
        let mirrored = named.map(|name| format!("Mcp-Name: {name}"));
        mirrored.into_iter().fold(post, |post, line| post.field(&line)).bytes()
    }

    pub(super) fn shown(&self) -> String {
        format!("{} modern={} {}", self.method, self.modern, self.params)
    }
}

#[test]
fn every_method_has_a_decision_on_all_that_it_names() {
    let uses = uses();
    let methods: BTreeSet<&str> = uses.iter().map(|this| this.method.as_str()).collect();
    assert!(methods.len() > 25 && methods.contains("notifications/tasks/status"));
    for driver in DRIVERS {
        let more = "[[method]]\nname = \"com.example/thing\"\n";
        let gateway = Gateway::start_with(driver, more, |directory| {
            std::fs::write(directory.join("policies/methods.cedar"), policies(&uses)).unwrap();
        });
        until("the first answer", || gateway.ask(&Post::new(&gateway).bytes()).status == 200);
        let _turn = gateway.turn();
        for (number, this) in uses.iter().enumerate() {
            let shown = format!("{} {driver:?}", this.shown());
            for place in 0..this.wants.len() {
                let user = format!("but-{number}-{place}");
                let before = gateway.upstream.heard();
                let answer = gateway.ask(&this.request(&user, &gateway));
                let denied = answer.status == 403 || answer.code() == Some(1403);
                assert!(denied, "{shown} without {:?}: {answer:?}", this.wants[place]);
                assert_eq!(gateway.upstream.heard(), before, "{shown}: something was forwarded");
            }
            let before = gateway.upstream.log().requests.len();
            let answer = gateway.ask(&this.request(&format!("only-{number}"), &gateway));
            let wanted = if this.notification { 202 } else { 200 };
            assert_eq!(answer.status, wanted, "{shown}: {answer:?}");
            assert_eq!(gateway.upstream.log().requests.len(), before + 1, "{shown}");
        }
    }
}

/// What is no message of a client's is asked as `initialize`: who may open a session may read its
/// stream, answer on it and end it.
#[test]
fn what_has_no_method_is_judged_as_the_session_that_it_belongs_to() {
    let policies = "@id(\"in\") permit (principal == User::\"in\", action == Action::\"initialize\", \
         resource == Server::\"tools\");\n\
         @id(\"out\") permit (principal == User::\"out\", action, resource in Server::\"tools\")\n\
         unless { action == Action::\"initialize\" };\n";
    for driver in DRIVERS {
        let gateway = Gateway::start_with(driver, "", |directory| {
            std::fs::write(directory.join("policies/methods.cedar"), policies).unwrap();
        });
        until("the first answer", || gateway.ask(&Post::new(&gateway).bytes()).status == 200);
        let _turn = gateway.turn();
        let bodyless = |verb: &str, user: &str| {
            let token = gateway.keys.token(user);
            format!(
                "{verb} /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\n\
                 Accept: text/event-stream\r\nAuthorization: Bearer {token}\r\n\r\n"
            )
            .into_bytes()
        };
        let answers = |user: &str| {
            let post = |body: &str| Post::with_token(&gateway.keys.token(user)).body(body).bytes();
            [
                bodyless("GET", user),
                bodyless("DELETE", user),
                post(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
                post(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}"#),
            ]
        };
        let before = gateway.upstream.heard();
        for request in answers("out") {
            assert_eq!(gateway.ask(&request).reason(), "stream_denied", "{driver:?}");
        }
        assert_eq!(gateway.upstream.heard(), before);
        for request in answers("in") {
            assert_eq!(gateway.ask(&request).status, 200, "{driver:?}");
        }
    }
}

//! A remote decision point: how each method is asked, what is remembered of its permits, and what
//! open streams hear and lose by it.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use serde_json::{Value, json};

use super::client::{Client, Way, come_from, connect, text};
use super::gateway::{DRIVERS, Driver, Gateway, one_cpu, until};
use super::methods::{Use, uses};
use super::pdp::{Point, list, listing, start_with};
use super::table::{Post, assert_silent, tool_call};

/// Of one core, which remembers for a minute.
fn keeping(driver: Driver, point: &Point) -> Gateway {
    start_with(driver, point, |toml| {
        toml.replace("timeout_ms = 500\n", "timeout_ms = 500\npermit_ttl_seconds = 60\n")
            .replace("[cores]\n", &format!("[cores]\n{}\n", one_cpu()))
    })
}

fn reload(gateway: &Gateway) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(gateway.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
}

/// Every core judges by the new configuration once this is over.
fn reload_at_once(gateway: &Gateway) {
    let post = format!(
        "POST /reload HTTP/1.1\r\nHost: {}\r\nX-Portcullis: reload\r\n\
         Content-Length: 0\r\n\r\n",
        gateway.admin
    );
    let answer = super::client::ask(gateway.admin, post.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Patience enough for whatever a test does meanwhile.
fn patient(toml: &str) -> String {
    toml.replace("timeout_ms = 500\n", "timeout_ms = 5000\n")
}

/// Action and resource of everything that was asked.
fn asked(point: &Point) -> Vec<(String, Value)> {
    let one =
        |of: &Value| (of["action"]["name"].as_str().unwrap().to_owned(), of["resource"].clone());
    let questions = point.questions();
    let each = questions.iter().flat_map(|(_, question)| match question.get("evaluations") {
        Some(all) => all.as_array().unwrap().iter().map(one).collect(),
        None => vec![one(question)],
    });
    each.collect()
}

/// The table of the manual's page on policy, for every method that there is.
#[test]
fn every_method_is_asked_on_what_it_names() {
    let url = "http://portcullis.localhost";
    let connect = ("connect".to_owned(), json!({"type": "gateway", "id": url}));
    let server = json!({"type": "mcp_server", "id": format!("{url}/mcp/tools")});
    let of =
        |kind: &str, id: &str| json!({"type": kind, "id": id, "properties": {"server": "tools"}});
    let named = |this: &Use, action: &str, target: &str| {
        let (kind, id) = target.split_once("::").unwrap();
        let id = id.trim_matches('"');
        match kind {
            "Server" if this.params.get("taskId").is_some() || this.method != action => {
                of("task", "t-1")
            }
            "Server" => server.clone(),
            _ => of(&kind.to_lowercase(), id.strip_prefix("tools/").unwrap()),
        }
    };
    let mut tasks = 0;
    for batches in [true, false] {
        let point = Point::start(batches);
        let gateway = start_with(Driver::Epoll, &point, |toml| {
            toml + "\n[[method]]\nname = \"com.example/thing\"\n"
        });
        let _turn = gateway.turn();
        for this in uses() {
            let shown = format!("{}, batches {batches}", this.shown());
            point.questions();
            let answer = gateway.ask(&this.request("alice", &gateway));
            assert!([200, 202].contains(&answer.status), "{shown}: {answer:?}");
            let mut expected = vec![connect.clone()];
            if this.notification || this.method == "ping" {
                expected.push(("initialize".to_owned(), server.clone()));
            } else {
                let wants = this.wants.iter();
                expected.extend(
                    wants.map(|(action, target)| (action.clone(), named(&this, action, target))),
                );
            }
            let found = asked(&point);
            assert_eq!(found, expected, "{shown}");
            tasks += found.iter().filter(|(_, resource)| resource["type"] == "task").count();
        }
        // What is denied of one task is denied as a whole; the others do not help.
        point.state.lock().unwrap().denied = vec![("alice", "t-2")];
        for (id, code) in [("t-1", None), ("t-2", Some(1403))] {
            let body = json!({
                "jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"taskId": id},
            });
            let answer = gateway.ask(&Post::new(&gateway).body(body.to_string()).bytes());
            assert_eq!(answer.code(), code, "{id}: {answer:?}");
        }
        let before = gateway.upstream.heard();
        let answer = gateway.ask(&listen(&gateway, &json!({"taskIds": ["t-1", "t-2"]})));
        assert_eq!(answer.code(), Some(1403), "{answer:?}");
        assert_eq!(gateway.upstream.heard(), before, "something was forwarded");
    }
    assert_eq!(tasks, 2 * 7, "get and cancel in both eras, result, update, and of a listen");
}

/// `subscriptions/listen` of the modern era.
fn listen(gateway: &Gateway, notifications: &Value) -> Vec<u8> {
    let body = json!({
        "jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen",
        "params": {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientCapabilities": {},
            },
            "notifications": notifications,
        },
    });
    Post::new(gateway)
        .script("said")
        .field("MCP-Protocol-Version: 2026-07-28")
        .field("Mcp-Method: subscriptions/listen")
        .body(body.to_string())
        .bytes()
}

fn get(gateway: &Gateway) -> Vec<u8> {
    let token = gateway.keys.token("alice");
    format!(
        "GET /mcp/tools HTTP/1.1\r\nHost: portcullis.localhost\r\nAccept: text/event-stream\r\n\
         Authorization: Bearer {token}\r\nMcp-Param-Script: said\r\n\r\n"
    )
    .into_bytes()
}

fn kept_permits(gateway: &Gateway) -> u64 {
    let metrics = text(&gateway.page("/metrics").body);
    let mut lines = metrics.lines();
    let line = lines.find_map(|line| line.strip_prefix("portcullis_pdp_kept_permits_total "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_kept_permit_answers_the_same_question_and_no_other() {
    for driver in DRIVERS {
        for batches in [true, false] {
            let point = Point::start(batches);
            let gateway = keeping(driver, &point);
            let _turn = gateway.turn();
            let shown = format!("batches {batches} on {driver:?}");
            point.state.lock().unwrap().credential = Some("header");
            assert_eq!(gateway.ask(&Post::new(&gateway).bytes()).status, 200, "{shown}");
            assert_eq!(asked(&point).len(), 2, "{shown}");
            let kept = kept_permits(&gateway);
            // Another token of the same identity is no other question.
            for number in 1..4 {
                let before = gateway.upstream.log().requests.len();
                assert_eq!(gateway.ask(&Post::new(&gateway).bytes()).status, 200, "{shown}");
                assert_eq!(gateway.upstream.log().requests.len(), before + 1, "{shown}");
                let seen = gateway.upstream.last();
                assert!(seen.header("x-api-key").is_some(), "{shown}: the credential it named");
                assert_eq!(kept_permits(&gateway), kept + number, "{shown}");
            }
            assert_eq!(asked(&point), [], "{shown}: nothing was asked");
            point.state.lock().unwrap().credential = None;
            let claims =
                |name: &str, value: &str| Post::with_token(&gateway.keys.with(name, json!(value)));
            let post = || Post::new(&gateway);
            for (what, other) in [
                ("user", claims("sub", "bob")),
                ("agent", claims("client_id", "agent-8")),
                ("scope", claims("scope", "more")),
                ("tool", post().body(tool_call("other"))),
                ("server", post().to("open")),
                ("revision", post().field("MCP-Protocol-Version: 2025-11-25")),
            ] {
                assert_eq!(gateway.ask(&other.bytes()).status, 200, "{shown}: {what}");
                assert_eq!(asked(&point).len(), 2, "{shown}: another {what} is asked about");
            }
            come_from(Ipv4Addr::new(127, 0, 7, 7));
            assert_eq!(gateway.ask(&post().bytes()).status, 200, "{shown}");
            assert_eq!(asked(&point).len(), 2, "{shown}: another source is asked about");
            assert_eq!(kept_permits(&gateway), kept + 3, "{shown}");
            // An expired token is refused whatever is kept.
            let expired = Post::with_token(&gateway.keys.with("exp", json!(1_700_000_000)));
            assert_eq!(gateway.ask(&expired.bytes()).status, 401, "{shown}");
            assert_silent(&gateway.everything_written(), "audit, logs and admin pages");
        }
    }
}

#[test]
fn denials_and_troubles_are_asked_about_each_time() {
    for driver in DRIVERS {
        let point = Point::start(true);
        let gateway = keeping(driver, &point);
        let turn = gateway.turn();
        let call = |tool: &str| gateway.ask(&Post::new(&gateway).body(tool_call(tool)).bytes());
        assert_eq!(call("echo").status, 200, "{driver:?}");
        point.state.lock().unwrap().denied = vec![("alice", "other")];
        point.questions();
        for time in 0..2 {
            assert_eq!(call("other").code(), Some(1403), "{driver:?} {time}");
            let actions: Vec<_> = asked(&point).into_iter().map(|(action, _)| action).collect();
            assert_eq!(actions, ["connect", "tools/call", "initialize"], "{driver:?} {time}");
        }
        // A denial ends what was permitted before it.
        assert_eq!(call("echo").status, 200, "{driver:?}");
        assert_eq!(asked(&point).len(), 2, "{driver:?}: asked anew");
        // Nobody answers any more.
        point.does("gone");
        let heard = gateway.upstream.log().requests.len();
        assert_eq!(call("echo").status, 200, "{driver:?}: within its time");
        for tool in ["other", "third", "third"] {
            let answer = call(tool);
            let found = (answer.status, answer.reason());
            assert_eq!(found, (503, "policy_unavailable".to_owned()), "{driver:?} {tool}");
        }
        assert_eq!(gateway.upstream.log().requests.len(), heard + 1, "{driver:?}");
        point.does("right");
        point.questions();
        assert_eq!(call("third").status, 200, "{driver:?}: trouble is not remembered");
        assert_eq!(asked(&point).len(), 2, "{driver:?}");
        let reasons = turn.reasons(&gateway, 9);
        let no = "policy_unavailable";
        assert_eq!(reasons, ["ok", "no_permit", "no_permit", "ok", "ok", no, no, no, "ok"]);
    }
}

/// What a list hides is blocked, whatever was permitted a moment ago.
#[test]
fn what_a_list_hides_is_not_served_from_memory() {
    for driver in DRIVERS {
        let point = Point::start(true);
        let gateway = keeping(driver, &point);
        let _turn = gateway.turn();
        let call = |tool: &str| gateway.ask(&Post::new(&gateway).body(tool_call(tool)).bytes());
        assert_eq!(call("b").status, 200, "{driver:?}");
        point.state.lock().unwrap().denied = vec![("alice", "b")];
        point.questions();
        let kept = call("b");
        assert!(kept.code().is_none() && asked(&point).is_empty(), "{driver:?}: {kept:?}");
        gateway.upstream.say(list(&["b", "a"], false), false, 0);
        let answer = gateway.ask(&listing(&gateway));
        assert!(!text(&answer.body).contains("\"b\""), "{driver:?}: {answer:?}");
        let heard = gateway.upstream.log().requests.len();
        assert_eq!(call("b").code(), Some(1403), "{driver:?}");
        assert_eq!(gateway.upstream.log().requests.len(), heard, "{driver:?}");
    }
}

/// By SIGHUP, and by a request to the admin listener.
#[test]
fn a_reload_forgets_what_was_kept() {
    for driver in DRIVERS {
        for by_request in [false, true] {
            let point = Point::start(true);
            let gateway = keeping(driver, &point);
            let _turn = gateway.turn();
            fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
            let call = Post::new(&gateway).bytes();
            assert_eq!(gateway.ask(&call).status, 200, "{driver:?}");
            point.does("gone");
            assert_eq!(gateway.ask(&call).status, 200, "{driver:?}: it was kept");
            if by_request {
                reload_at_once(&gateway);
                assert_eq!(gateway.ask(&call).status, 503, "{driver:?}: at once");
            } else {
                reload(&gateway);
                until("it is forgotten", || gateway.ask(&call).status == 503);
            }
            assert_eq!(gateway.ask(&call).reason(), "policy_unavailable", "{driver:?}");
        }
    }
}

/// What a point permitted under a configuration that was replaced meanwhile permits nothing.
#[test]
fn a_permit_that_comes_after_a_reload_is_asked_for_again() {
    for driver in DRIVERS {
        for (change, code, questions) in
            [("denied", Some(1403), 3), ("no server", Some(1403), 1), ("none", None, 2)]
        {
            let point = Point::start(true);
            let gateway = start_with(driver, &point, |toml| patient(&toml));
            let turn = gateway.turn();
            fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
            let shown = format!("{change} on {driver:?}");
            let heard = gateway.upstream.log().requests.len();
            point.does("waits");
            let mut client = Client::connect(gateway.address);
            client.send(&Post::new(&gateway).bytes(), Way::Whole);
            until("it is asked", || point.questions().len() == 1);
            match change {
                "denied" => point.state.lock().unwrap().denied = vec![("alice", "tools/call")],
                "no server" => {
                    let path = gateway.directory.join("gateway.toml");
                    let toml = fs::read_to_string(&path).unwrap();
                    fs::write(path, toml.replace("\"tools\"", "\"moved\"")).unwrap();
                }
                _ => {}
            }
            reload_at_once(&gateway);
            point.does("right");
            let answer = client.answer().unwrap();
            assert_eq!(asked(&point).len(), questions, "{shown}: {answer:?}");
            let (status, more) = match change {
                "none" => (200, 1),
                "denied" => (200, 0),
                _ => (403, 0),
            };
            assert_eq!(answer.code(), code, "{shown}: {answer:?}");
            assert_eq!(answer.status, status, "{shown}: {answer:?}");
            assert_eq!(gateway.upstream.log().requests.len(), heard + more, "{shown}");
            assert_eq!(turn.reasons(&gateway, 1).len(), 1, "{shown}");
        }
    }
}

/// A list, too, is shown by the rules of now.
#[test]
fn what_a_list_shows_is_asked_again_after_a_reload() {
    for driver in DRIVERS {
        let point = Point::start(true);
        let gateway = start_with(driver, &point, |toml| patient(&toml));
        let _turn = gateway.turn();
        fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
        gateway.upstream.say(list(&["other", "a"], false), false, 0);
        point.does("waits on items");
        let mut client = Client::connect(gateway.address);
        client.send(&listing(&gateway), Way::Whole);
        until("it is asked about the items", || {
            asked(&point).iter().any(|(action, _)| action == "tools/call")
        });
        point.state.lock().unwrap().denied = vec![("alice", "other")];
        reload_at_once(&gateway);
        point.does("right");
        let answer = client.answer().unwrap();
        let body = text(&answer.body);
        assert!(!body.contains("\"other\"") && body.contains("\"a\""), "{driver:?}: {answer:?}");
    }
}

/// Without a time to live nothing is remembered.
#[test]
fn by_default_everything_is_asked() {
    let point = Point::start(true);
    let gateway = start_with(Driver::Epoll, &point, |toml| toml);
    let call = Post::new(&gateway).bytes();
    for _ in 0..3 {
        assert_eq!(gateway.ask(&call).status, 200);
        assert_eq!(asked(&point).len(), 2);
    }
    assert_eq!(kept_permits(&gateway), 0);
}

/// An open stream, read as it comes.
struct Open {
    socket: TcpStream,
    heard: String,
}

impl Open {
    fn begin(gateway: &Gateway, request: &[u8]) -> Self {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                    Transfer-Encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n";
        gateway.upstream.say(head.as_bytes().to_vec(), false, 0);
        let mut socket = connect(gateway.address);
        socket.set_read_timeout(Some(std::time::Duration::from_secs(15))).unwrap();
        socket.write_all(request).unwrap();
        let mut open = Self { socket, heard: String::new() };
        open.hears("data: first");
        open
    }

    fn hears(&mut self, what: &str) {
        while !self.heard.contains(what) {
            assert!(self.more(), "it ended: {}", self.heard);
        }
    }

    /// Until it is cut; all that was heard.
    fn cut(mut self) -> String {
        while self.more() {}
        assert!(!self.heard.ends_with("\r\n0\r\n\r\n"), "no orderly end: {}", self.heard);
        self.heard
    }

    fn more(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.socket.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.heard += &text(&buffer[..read]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}: {}", self.heard),
        }
    }
}

/// Names another point, and reloads.
fn move_to(gateway: &Gateway, point: &Point, port: u16) {
    let path = gateway.directory.join("gateway.toml");
    let toml = fs::read_to_string(&path).unwrap();
    let [old, new] = [point.port, port].map(|port| format!("127.0.0.1:{port}\""));
    assert!(toml.contains(&old));
    fs::write(path, toml.replace(&old, &new)).unwrap();
    reload(gateway);
}

/// Another point, and the same one again, may mean other lists: streams of both eras hear of it,
/// once they are permitted by the new one.
#[test]
fn another_point_may_mean_other_lists() {
    for driver in DRIVERS {
        let (first, second) = (Point::start(true), Point::start(true));
        let gateway = start_with(driver, &first, |toml| toml);
        fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
        let turn = gateway.turn();
        let mut legacy = Open::begin(&gateway, &get(&gateway));
        let modern = listen(&gateway, &json!({"toolsListChanged": true, "taskIds": ["t-1"]}));
        let mut modern = Open::begin(&gateway, &modern);
        move_to(&gateway, &first, second.port);
        for list in ["tools", "prompts", "resources"] {
            legacy.hears(&format!("\"method\":\"notifications/{list}/list_changed\""));
        }
        modern.hears("\"method\":\"notifications/tools/list_changed\"");
        modern.hears("\"io.modelcontextprotocol/subscriptionId\":7");
        assert!(!modern.heard.contains("prompts"), "{}", modern.heard);
        let found = asked(&second);
        assert!(found.iter().any(|(action, _)| action == "tasks/get"), "{found:?}");
        // Whom the new one denies hears nothing more.
        second.state.lock().unwrap().denied = vec![("alice", "connect")];
        let before = [&legacy, &modern].map(|open| open.heard.matches("list_changed").count());
        reload(&gateway);
        let after = [legacy.cut(), modern.cut()];
        let after = after.map(|heard| heard.matches("list_changed").count());
        assert_eq!(before, after, "{driver:?}");
        assert_eq!(turn.reasons(&gateway, 2), ["no_permit"; 2], "{driver:?}");
    }
}

/// A point that nobody finds permits nothing: what is open ends, and hears nothing before.
#[test]
fn a_point_that_nobody_finds_ends_open_streams() {
    for driver in DRIVERS {
        let point = Point::start(true);
        let gateway = start_with(driver, &point, |toml| toml);
        fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
        let turn = gateway.turn();
        let stream = Open::begin(&gateway, &get(&gateway));
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = closed.local_addr().unwrap().port();
        drop(closed);
        move_to(&gateway, &point, port);
        let heard = stream.cut();
        assert!(!heard.contains("list_changed"), "{driver:?}: {heard}");
        assert_eq!(turn.reasons(&gateway, 1), ["policy_unavailable"], "{driver:?}");
    }
}

/// Moves the gateway's monotonic clock. The request that says so is refused.
#[cfg(feature = "fault-injection")]
fn later(gateway: &Gateway, seconds: u64) {
    let request = format!(
        "GET /livez HTTP/1.1\r\nHost: portcullis.localhost\r\n\
         x-portcullis-fault-clock: {seconds}\r\nConnection: close\r\n\r\n"
    );
    let mut client = super::client::Client::connect(gateway.address);
    client.send(request.as_bytes(), super::client::Way::Whole);
    client.read_to_the_end();
}

#[cfg(feature = "fault-injection")]
#[test]
fn a_kept_permit_ends_with_its_time_although_nobody_answers() {
    for driver in DRIVERS {
        let point = Point::start(true);
        let gateway = keeping(driver, &point);
        let _turn = gateway.turn();
        let call = Post::new(&gateway).bytes();
        assert_eq!(gateway.ask(&call).status, 200, "{driver:?}");
        point.does("gone");
        later(&gateway, 40);
        until("it is served after 40 s", || gateway.ask(&call).status == 200);
        later(&gateway, 21);
        until("it is not after 61", || gateway.ask(&call).status == 503);
        assert_eq!(gateway.ask(&call).reason(), "policy_unavailable", "{driver:?}");
        point.does("right");
        until("it is asked again", || gateway.ask(&call).status == 200);
    }
}

/// An open stream is asked about again by the clock; who denies or does not answer cuts it.
#[cfg(feature = "fault-injection")]
#[test]
fn an_open_stream_is_asked_about_by_the_clock() {
    for driver in DRIVERS {
        for (trouble, reason) in [("denied", "stream_denied"), ("gone", "policy_unavailable")] {
            let point = Point::start(true);
            let gateway = start_with(driver, &point, |toml| toml);
            let turn = gateway.turn();
            let stream = Open::begin(&gateway, &get(&gateway));
            point.questions();
            later(&gateway, 31);
            let mut found = Vec::new();
            until("it is asked about", || {
                found = asked(&point);
                !found.is_empty()
            });
            assert_eq!(found[1].0, "initialize", "{driver:?}: {found:?}");
            if trouble == "denied" {
                point.state.lock().unwrap().denied = vec![("alice", "initialize")];
            } else {
                point.does(trouble);
            }
            later(&gateway, 31);
            let heard = stream.cut();
            assert!(!heard.contains("list_changed"), "{driver:?}: {heard}");
            let mut reasons = turn.reasons(&gateway, 3);
            reasons.sort();
            assert!(reasons.contains(&reason.to_owned()), "{driver:?} {trouble}: {reasons:?}");
        }
    }
}

/// What one point says of a stream counts for nothing once another is configured.
#[cfg(feature = "fault-injection")]
#[test]
fn what_the_point_before_says_late_cuts_nothing() {
    for driver in DRIVERS {
        let (first, second) = (Point::start(true), Point::start(true));
        let gateway = start_with(driver, &first, |toml| patient(&toml));
        fs::write(gateway.directory.join("vanishing.key"), "CANARY").unwrap();
        let _turn = gateway.turn();
        let mut stream = Open::begin(&gateway, &get(&gateway));
        first.questions();
        first.does("waits");
        first.state.lock().unwrap().denied = vec![("alice", "initialize")];
        later(&gateway, 31);
        until("the first is asked about the stream", || {
            asked(&first).iter().any(|(action, _)| action == "initialize")
        });
        move_to(&gateway, &first, second.port);
        until("the second is asked", || {
            asked(&second).iter().any(|(action, _)| action == "initialize")
        });
        first.does("right");
        stream.hears("list_changed");
        first.state.lock().unwrap().denied.clear();
        later(&gateway, 31);
        until("the second is asked again", || {
            asked(&second).iter().any(|(action, _)| action == "initialize")
        });
        drop(stream);
    }
}

/// What began with a kept permit is asked about as much sooner: no answer of the point stands for
/// longer than it would have without.
#[cfg(feature = "fault-injection")]
#[test]
fn a_stream_that_begins_with_a_kept_permit_is_asked_about_sooner() {
    for driver in DRIVERS {
        let point = Point::start(true);
        let gateway = keeping(driver, &point);
        let _turn = gateway.turn();
        drop(Open::begin(&gateway, &get(&gateway)));
        later(&gateway, 40);
        // The clock has moved for who waits, too, once it is served again.
        until("the clock moved", || gateway.ask(&Post::new(&gateway).bytes()).status == 200);
        point.questions();
        point.does("gone");
        let stream = Open::begin(&gateway, &get(&gateway));
        assert!(kept_permits(&gateway) > 0, "{driver:?}");
        stream.cut();
        let found = asked(&point);
        assert_eq!(found[1].0, "initialize", "{driver:?}: {found:?}");
    }
}

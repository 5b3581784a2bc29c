//! All pages of a server's `tools/list`, asked as an MCP client asks: by the modern revision, and
//! where a server does not know it, by the handshake of the older ones.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::upstream::{Heard, Message, Question, Upstream};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::Method;
use crate::limits::{
    SCHEMA_BYTES_MAX, SCHEMA_CURSOR_BYTES_MAX, SCHEMA_FAREWELL_WITHIN, SCHEMA_PAGES_MAX,
    SCHEMA_TOOLS_MAX, SCHEMA_WITHIN, SESSION_UPSTREAM_ID_BYTES_MAX,
};
use crate::mcp::{MODERN_REVISIONS, REVISIONS};
use crate::net::Timers;
use crate::net::runtime::{self, Ring};

/// What a server answered.
pub struct Listing {
    /// Its answers, one JSON text after the other.
    pub answers: String,
    /// How many they are.
    pub pages: usize,
    /// The revision that was spoken.
    pub revision: &'static str,
}

/// Asks `server` of the configuration for its tools, with the credential that the configuration
/// gives it by default. Everything is bounded: [`crate::limits`], and the server's own time limits.
///
/// # Errors
/// In words, with what to do.
pub fn fetch(config: &Config, server: &str) -> Result<Listing, String> {
    let mut servers = config.servers.iter().enumerate();
    let Some((index, known)) = servers.find(|(_, known)| known.name == server) else {
        return Err(super::tools::unknown(config, server));
    };
    let at = |why: String| format!("server {server} ({}): {why}", known.url.authority);
    // One connection at a time: any loop will do, and this one every kernel has.
    let done = runtime::block_on(Ring::Epoll, async {
        let timers = Timers::new(Clock::start());
        runtime::spawn(timers.clone().run());
        let upstream = Upstream::find(config, index, known, timers).await?;
        Conversation::begin(&upstream).await?.listing().await
    });
    done.map_err(|error| format!("no event loop: {error}"))?.map_err(at)
}

/// How a server wants to be spoken to.
struct Conversation<'a> {
    upstream: &'a Upstream<'a>,
    revision: &'static str,
    /// Of the older revisions, where the server has given one.
    session: Option<String>,
    asked: u64,
}

impl<'a> Conversation<'a> {
    async fn begin(upstream: &'a Upstream<'a>) -> Result<Self, String> {
        let [revision] = MODERN_REVISIONS;
        let mut modern = Self { upstream, revision, session: None, asked: 0 };
        let heard = modern.ask("server/discover", Map::new()).await?;
        if speaks(&heard, revision) {
            return Ok(modern);
        }
        if matches!(heard.status, 300..=399 | 401 | 403 | 429) {
            return Err(upstream.refusal(&heard, "server/discover"));
        }
        // Whatever else it says to a method that it need not know.
        Self::shake_hands(upstream).await
    }

    /// 2025-11-25 lifecycle, "Initialization".
    async fn shake_hands(upstream: &'a Upstream<'a>) -> Result<Self, String> {
        const WHAT: &str = "initialize";
        let mut legacy = Self { upstream, revision: NEWEST_LEGACY, session: None, asked: 0 };
        let client = json!({"name": "portcullis", "version": env!("CARGO_PKG_VERSION")});
        let params = json!({
            "protocolVersion": NEWEST_LEGACY, "capabilities": {}, "clientInfo": client,
        });
        let body = legacy.message(WHAT, &params);
        let heard = legacy.post(WHAT, &[], &body, Some(legacy.asked)).await?;
        let result = legacy.result(&heard, WHAT)?;
        let spoken = result.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
        let known = LEGACY.iter().find(|revision| **revision == spoken);
        legacy.revision = known.ok_or("it speaks no revision of MCP that the gateway speaks")?;
        if let Some(id) = &heard.session {
            // 2025-11-25 transports, "Session Management".
            let sound = id.len() <= SESSION_UPSTREAM_ID_BYTES_MAX
                && id.iter().all(u8::is_ascii_graphic)
                && !id.is_empty();
            let id = String::from_utf8(id.clone()).ok().filter(|_| sound);
            legacy.session = Some(id.ok_or("its session id is none that a client may send back")?);
        }
        let told = legacy.tell("notifications/initialized").await;
        if let Err(why) = told {
            legacy.farewell().await;
            return Err(why);
        }
        Ok(legacy)
    }

    async fn listing(mut self) -> Result<Listing, String> {
        let listed = self.pages().await;
        self.farewell().await;
        let (answers, pages) = listed?;
        Ok(Listing { answers, pages, revision: self.revision })
    }

    async fn pages(&mut self) -> Result<(String, usize), String> {
        const WHAT: &str = "tools/list";
        let (mut answers, mut tools) = (String::new(), 0);
        let (mut params, mut cursors) = (Map::new(), BTreeSet::new());
        for page in 1..=SCHEMA_PAGES_MAX {
            let heard = self.ask(WHAT, params).await?;
            let result = self.result(&heard, WHAT)?;
            if result.get("resultType").is_some_and(|kind| kind != "complete") {
                return Err(format!("it wants something before it answers {WHAT}"));
            }
            tools += result.get("tools").and_then(Value::as_array).map_or(0, Vec::len);
            answers.push_str(heard.message.as_ref().map_or("", |message| &message.text));
            answers.push('\n');
            if answers.len() > SCHEMA_BYTES_MAX {
                return Err(format!("all pages have more than {SCHEMA_BYTES_MAX} bytes"));
            }
            if tools > SCHEMA_TOOLS_MAX {
                return Err(format!("it has more than {SCHEMA_TOOLS_MAX} tools"));
            }
            let cursor = match result.get("nextCursor") {
                None | Some(Value::Null) => return Ok((answers, page)),
                Some(Value::String(cursor)) if cursor.len() <= SCHEMA_CURSOR_BYTES_MAX => cursor,
                Some(_) => return Err(format!("page {page}: nextCursor is no short text")),
            };
            if !cursors.insert(cursor.clone()) {
                return Err(format!("page {page} leads back to an earlier one (nextCursor)"));
            }
            params = Map::from_iter([("cursor".to_owned(), Value::from(cursor.as_str()))]);
        }
        Err(format!("its tools/list has more than {SCHEMA_PAGES_MAX} pages"))
    }

    /// One request in the form of the revision.
    async fn ask(&mut self, what: &str, mut params: Map<String, Value>) -> Result<Heard, String> {
        if !self.is_modern() {
            let body = self.message(what, &Value::Object(params));
            return self.post(what, &self.fields(), &body, Some(self.asked)).await;
        }
        // 2026-07-28 basic, "_meta", and streamable HTTP, "Sending Messages".
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": self.revision,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params.insert("_meta".to_owned(), meta);
        let body = self.message(what, &Value::Object(params));
        let fields = [("mcp-protocol-version", self.revision), ("mcp-method", what)];
        self.post(what, &fields, &body, Some(self.asked)).await
    }

    /// One notification.
    async fn tell(&self, what: &str) -> Result<(), String> {
        let body = json!({"jsonrpc": "2.0", "method": what}).to_string();
        let heard = self.post(what, &self.fields(), &body, None).await?;
        if (200..300).contains(&heard.status) {
            return Ok(());
        }
        Err(self.upstream.refusal(&heard, what))
    }

    /// Ends the session. Servers need not take that (405), and nothing hangs on it.
    async fn farewell(&self) {
        if self.session.is_none() {
            return;
        }
        let question = Question {
            method: Method::Delete,
            what: "the end of the session",
            fields: &self.fields(),
            body: "",
            id: None,
            within: SCHEMA_FAREWELL_WITHIN,
        };
        let _ = self.upstream.ask(&question).await;
    }

    async fn post(
        &self,
        what: &str,
        fields: &[(&str, &str)],
        body: &str,
        id: Option<u64>,
    ) -> Result<Heard, String> {
        let within: Duration = SCHEMA_WITHIN;
        let question = Question { method: Method::Post, what, fields, body, id, within };
        self.upstream.ask(&question).await
    }

    fn message(&mut self, method: &str, params: &Value) -> String {
        self.asked += 1;
        json!({"jsonrpc": "2.0", "id": self.asked, "method": method, "params": params}).to_string()
    }

    /// What every request of a session carries.
    fn fields(&self) -> Vec<(&str, &str)> {
        let session = self.session.as_deref().map(|id| ("mcp-session-id", id));
        std::iter::once(("mcp-protocol-version", self.revision)).chain(session).collect()
    }

    fn result<'h>(&self, heard: &'h Heard, what: &str) -> Result<&'h Value, String> {
        let result = heard.message.as_ref().and_then(Message::result);
        result.filter(|_| heard.status == 200).ok_or_else(|| self.upstream.refusal(heard, what))
    }

    fn is_modern(&self) -> bool {
        MODERN_REVISIONS.contains(&self.revision)
    }
}

/// 2026-07-28 lifecycle: `server/discover` lists the modern revisions of a server.
fn speaks(heard: &Heard, revision: &str) -> bool {
    let result = heard.message.as_ref().and_then(Message::result);
    let versions = result.and_then(|result| result.get("supportedVersions"));
    let listed = |versions: &Vec<Value>| versions.iter().any(|version| version == revision);
    heard.status == 200 && versions.and_then(Value::as_array).is_some_and(listed)
}

const LEGACY: &[&str] = REVISIONS.split_at(REVISIONS.len() - MODERN_REVISIONS.len()).0;
const NEWEST_LEGACY: &str = match LEGACY.split_last() {
    Some((newest, _)) => newest,
    None => "",
};

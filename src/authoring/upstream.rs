//! One question to a server of the configuration, by the rules that the gateway has for it: its
//! addresses, its roots, its credential, its time limits. No redirect is followed.
//!
//! The server is another party: what it answers is bounded in bytes and time, and its words are
//! repeated only where no credential of ours was in the question, which it might say back. An
//! answer that does is refused.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::tools::comment;
use crate::address::{Reach, Terms, permitted, reach};
use crate::clock::Monotonic;
use crate::config::{Config, CredentialKind, Server};
use crate::credential::UpstreamCredential;
use crate::http::{Field, Method, write};
use crate::limits::{LIST_BYTES_MAX, SCHEMA_WITHIN};
use crate::net::dial::dial;
use crate::net::reply::Reply;
use crate::net::resolve::Resolver;
use crate::net::tls::ClientTls;
use crate::net::{Timers, Wiped};
use crate::reject::Reject;

use super::stream::Events;

/// A server that can be asked.
pub(super) struct Upstream<'a> {
    server: &'a Server,
    index: usize,
    addresses: Vec<SocketAddr>,
    tls: Option<ClientTls>,
    /// With its name.
    credential: Option<(&'a str, UpstreamCredential)>,
    timers: Timers,
    /// For all of it.
    until: Monotonic,
}

/// One question.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    /// What it is called where something is wrong with its answer.
    pub(super) what: &'a str,
    /// Fields beside those of every request.
    pub(super) fields: &'a [(&'a str, &'a str)],
    pub(super) body: &'a str,
    /// Id of the message in the body; `None` when it has no answer.
    pub(super) id: Option<u64>,
    /// At most this long until the head of the answer, and the server's own limit at most.
    pub(super) within: Duration,
}

/// What came back.
pub(super) struct Heard {
    pub(super) status: u16,
    /// `Mcp-Session-Id`
    pub(super) session: Option<Vec<u8>>,
    /// The message that answers the question: always there with status 200, and never where no
    /// message was asked for.
    pub(super) message: Option<Message>,
}

/// A JSON-RPC response.
pub(super) struct Message {
    pub(super) text: String,
    pub(super) value: Value,
}

/// A deadline, and whose it is.
#[derive(Clone, Copy)]
struct Limit {
    at: Monotonic,
    name: &'static str,
}

impl<'a> Upstream<'a> {
    /// Reads the credential and finds the addresses of a server.
    ///
    /// # Errors
    /// In words, with what to do.
    pub(super) async fn find(
        config: &'a Config,
        index: usize,
        server: &'a Server,
        timers: Timers,
    ) -> Result<Self, String> {
        let until = timers.exact().after(SCHEMA_WITHIN);
        let tls = server.url.tls.then(|| ClientTls::new(server.ca_file.as_deref())).transpose()?;
        let credential = credential(config, index, server)?;
        let addresses = Vec::new();
        let mut found = Self { server, index, addresses, tls, credential, timers, until };
        found.addresses = found.resolve().await?;
        Ok(found)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, String> {
        let url = &self.server.url;
        let found = match url.literal {
            Some(literal) => vec![(literal, url.port).into()],
            None => {
                let resolver = Resolver::new().map_err(|error| format!("no threads: {error}"))?;
                let within = self.limit(self.server.timeout_seconds, TIMEOUT).at;
                let found = resolver.resolve(&url.host, url.port, &self.timers, within).await;
                found.map_err(|_| format!("the name {} has no address", url.host))?
            }
        };
        let trust_private = self.server.trust_private_addresses;
        let terms = Terms { trust_private, tls: url.tls };
        let addresses = permitted(&found, terms);
        if addresses.is_empty() {
            return Err(format!("the addresses of {} {}", url.host, shut(&found, terms)));
        }
        Ok(addresses)
    }

    /// Asks, over a connection of its own.
    ///
    /// # Errors
    /// In words, with what to do. A status other than 200 is none.
    pub(super) async fn ask(&self, question: &Question<'_>) -> Result<Heard, String> {
        let mut request = Wiped::new();
        self.write(question, &mut request).map_err(|reject| self.fault(reject, question.what))?;
        let seconds = self.server.timeout_seconds.min(question.within.as_secs());
        let limit = self.limit(seconds, TIMEOUT);
        let late = |reject| self.late(reject, limit, question.what);
        let host = self.server.url.host.as_str();
        let secure = self.tls.as_ref().map(|tls| (tls, host));
        let stream = dial(&self.addresses, secure, &self.timers, limit.at).await.map_err(late)?;
        let reply = Reply::to(stream, request, question.method, limit.at).await;
        self.hear(reply.map_err(late)?, question).await
    }

    /// Why an answer with this status, or with an error in it, is none; with what to do.
    pub(super) fn refusal(&self, heard: &Heard, what: &str) -> String {
        let Heard { status, .. } = heard;
        match status {
            401 | 403 => match &self.credential {
                Some((name, _)) => {
                    format!("it refuses the credential {name} ({status}): is its secret right?")
                }
                None => format!(
                    "it wants a credential ({status}), and the configuration sends it none. Give \
                     [[server]] one; or, where every user has their own, save what it answers to \
                     one of them, and read that with --tools"
                ),
            },
            300..=399 => format!(
                "it redirects ({status}), which is not followed: write where it leads as url"
            ),
            404 => format!("it answers 404 to {what}: is the path of url right?"),
            405 => format!(
                "it answers 405 to {what}: is the path of url right? The transport of 2024-11-05 \
                 (HTTP+SSE) is not spoken"
            ),
            429 | 503 => format!("it is busy ({status}): try again later"),
            200 => format!("it answers {what}{}", self.error(heard)),
            _ => format!("it answers {what} with {status}{}", self.error(heard)),
        }
    }

    /// The JSON-RPC error of an answer, if it has one.
    fn error(&self, heard: &Heard) -> String {
        let error = heard.message.as_ref().and_then(|message| message.value.get("error"));
        let Some(error) = error else { return String::new() };
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        let none = if code == METHOD_NOT_FOUND { ", which means that it has none" } else { "" };
        let words = error.get("message").and_then(Value::as_str).unwrap_or_default();
        if self.credential.is_some() || words.is_empty() {
            return format!(" with error {code}{none}");
        }
        format!(" with error {code}{none}; in its own words: {}", comment(words))
    }

    fn write(&self, question: &Question<'_>, request: &mut Wiped) -> Result<(), Reject> {
        let Server { url, .. } = self.server;
        let credential = self.credential.as_ref().map(|(_, credential)| credential);
        let fields = question.fields.iter().map(|(name, value)| name.len() + value.len() + 4);
        let own = url.target.len() + url.authority.len() + question.body.len() + HEAD_ROOM_BYTES;
        let secret = credential.map_or(0, UpstreamCredential::written_bytes_max);
        // Room for all of it at once: a vector that grows leaves a copy of the credential behind.
        request.grow(own + secret + fields.sum::<usize>());
        let mut out = request.take();
        let written = self.write_into(question, credential, &mut out);
        request.put(out);
        written
    }

    fn write_into(
        &self,
        question: &Question<'_>,
        credential: Option<&UpstreamCredential>,
        out: &mut Vec<u8>,
    ) -> Result<(), Reject> {
        out.extend_from_slice(question.method.as_str().as_bytes());
        out.push(b' ');
        let target_start = out.len();
        out.extend_from_slice(self.server.url.target.as_bytes());
        if let Some(credential) = credential {
            credential.write_query(self.index, target_start, out)?;
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        write::header(b"host", self.server.url.authority.as_bytes(), out)?;
        write::header(b"accept", b"application/json, text/event-stream", out)?;
        write::header(b"user-agent", b"portcullis", out)?;
        write::header(b"connection", b"close", out)?;
        for (name, value) in question.fields {
            write::header(name.as_bytes(), value.as_bytes(), out)?;
        }
        if let Some(credential) = credential {
            credential.write_header(self.index, out)?;
        }
        if question.method == Method::Post {
            write::header(b"content-type", b"application/json", out)?;
            write::content_length(question.body.len() as u64, out);
        }
        out.extend_from_slice(write::CRLF);
        out.extend_from_slice(question.body.as_bytes());
        Ok(())
    }

    async fn hear(&self, mut reply: Reply, question: &Question<'_>) -> Result<Heard, String> {
        let status = reply.status();
        let session = reply.field(Field::McpSessionId).map(<[u8]>::to_vec);
        let kind = reply.field(Field::ContentType).unwrap_or_default();
        let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let json = kind.eq_ignore_ascii_case(b"application/json");
        let events = kind.eq_ignore_ascii_case(b"text/event-stream");
        let coded = reply.field(Field::ContentEncoding).is_some();
        let Some(id) = question.id else { return Ok(Heard { status, session, message: None }) };
        let what = question.what;
        if status != 200 {
            // Its words matter less than its status: a body that is none of ours is left alone.
            let message = if json && !coded {
                let text = self.whole(&mut reply, what).await;
                let message = text.ok().and_then(|text| Message::read(text, id).ok().flatten());
                message.filter(|message| !self.said_back(message))
            } else {
                None
            };
            return Ok(Heard { status, session, message });
        }
        let message = if coded {
            return Err(format!("it answers {what} in a coding that was not asked for"));
        } else if json {
            let text = self.whole(&mut reply, what).await?;
            Message::read(text, id).map_err(|why| format!("it answers {what} {why}"))?
        } else if events {
            self.event(&mut reply, what, id).await?
        } else {
            // Even there a credential might be said back.
            let kind = match &self.credential {
                Some(_) => "another type".to_owned(),
                None => format!("the type \"{}\"", comment(&String::from_utf8_lossy(kind))),
            };
            return Err(format!(
                "it answers {what} with content of {kind}, which is not MCP: is the path of url \
                 right?"
            ));
        };
        let Some(known) = &message else {
            return Err(format!("it answers {what} with another message than its answer"));
        };
        if self.said_back(known) {
            return Err(format!(
                "it says the secret of its credential back in its answer to {what} (or that is so \
                 short that it stands there anyway), and nothing of it is shown. Save what it \
                 answers, without the secret, and read that with --tools"
            ));
        }
        Ok(Heard { status, session, message })
    }

    /// Whether a message holds the secret that was sent: as bytes, or in a text that it escapes.
    fn said_back(&self, message: &Message) -> bool {
        let Some((_, credential)) = &self.credential else { return false };
        credential.stands_in(message.text.as_bytes()) || holds(&message.value, credential)
    }

    /// A whole body.
    async fn whole(&self, reply: &mut Reply, what: &str) -> Result<Vec<u8>, String> {
        let (mut body, latest) = (Vec::new(), self.longest());
        while let Some(bytes) = self.next(reply, latest, what).await? {
            body.extend_from_slice(&bytes);
            bounded(body.len(), what)?;
        }
        Ok(body)
    }

    /// The answer in an event stream; what is said before it is for others. `None` when the stream
    /// ends without it.
    async fn event(
        &self,
        reply: &mut Reply,
        what: &str,
        id: u64,
    ) -> Result<Option<Message>, String> {
        let (mut events, mut read, latest) = (Events::new(), 0, self.longest());
        while let Some(bytes) = self.next(reply, latest, what).await? {
            read += bytes.len();
            bounded(read, what)?;
            for data in events.feed(&bytes) {
                let message = Message::read(data, id);
                let message = message.map_err(|why| format!("it answers {what} {why}"))?;
                if message.is_some() {
                    return Ok(message);
                }
            }
        }
        Err(format!("its event stream ends without the answer to {what}"))
    }

    async fn next(
        &self,
        reply: &mut Reply,
        latest: Limit,
        what: &str,
    ) -> Result<Option<Vec<u8>>, String> {
        let idle = self.limit(self.server.idle_seconds, "idle_seconds");
        let limit = if idle.at < latest.at { idle } else { latest };
        reply.next(limit.at).await.map_err(|reject| self.late(reject, limit, what))
    }

    fn longest(&self) -> Limit {
        self.limit(self.server.max_seconds, "max_seconds")
    }

    fn limit(&self, seconds: u64, name: &'static str) -> Limit {
        let at = self.timers.exact().after(Duration::from_secs(seconds));
        if at < self.until { Limit { at, name } } else { Limit { at: self.until, name: IN_ALL } }
    }

    fn late(&self, reject: Reject, limit: Limit, what: &str) -> String {
        if reject == Reject::UpstreamTimeout {
            return format!("no whole answer to {what} within its time limit ({})", limit.name);
        }
        self.fault(reject, what)
    }

    fn fault(&self, reject: Reject, what: &str) -> String {
        let host = &self.server.url.host;
        if reject == Reject::UpstreamConnect {
            return "nothing accepts a connection there: does it run, and is url right?".to_owned();
        }
        if reject == Reject::UpstreamTls {
            let roots = self.server.ca_file.as_ref().map_or_else(
                || "a public authority (ca_file names another one)".to_owned(),
                |path| format!("one in {}", path.display()),
            );
            return format!(
                "no TLS with it: it speaks none there, or shows no certificate for {host} that is \
                 signed by {roots}"
            );
        }
        let words = [
            (Reject::UpstreamEof, "it closes the connection before the end of its answer"),
            (Reject::UpstreamMalformed, "its answer is not HTTP/1.1"),
            (Reject::CredentialUnavailable, "its credential cannot be sent"),
        ];
        let known = words.iter().find(|(known, _)| *known == reject);
        let words = known.map_or("it cannot be asked", |(_, words)| words);
        format!("{words} ({what})")
    }
}

impl Message {
    /// The answer to the question with this id; `None` for another message.
    ///
    /// # Errors
    /// What was answered instead of a message.
    fn read(text: Vec<u8>, id: u64) -> Result<Option<Self>, &'static str> {
        let text = String::from_utf8(text).map_err(|_| "with what is not UTF-8")?;
        let value: Value = serde_json::from_str(&text).map_err(|_| "with what is not JSON")?;
        if !value.is_object() {
            return Err("with JSON that is no message");
        }
        let of = value.get("id").unwrap_or(&Value::Null);
        let failed = value.get("error").is_some_and(Value::is_object);
        // JSON-RPC 2.0 §5: an error has no id where that could not be told.
        let ours = of.as_u64() == Some(id) || (failed && of.is_null());
        let answers = failed || value.get("result").is_some_and(Value::is_object);
        Ok((ours && answers).then_some(Self { text, value }))
    }

    /// Its result; `None` for an error.
    pub(super) fn result(&self) -> Option<&Value> {
        self.value.get("result").filter(|result| result.is_object())
    }
}

/// In a text or a name of it; serde_json bounds how deep a value nests.
fn holds(value: &Value, credential: &UpstreamCredential) -> bool {
    match value {
        Value::String(text) => credential.stands_in(text.as_bytes()),
        Value::Array(items) => items.iter().any(|item| holds(item, credential)),
        Value::Object(fields) => fields
            .iter()
            .any(|(name, field)| credential.stands_in(name.as_bytes()) || holds(field, credential)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What the gateway would send by default.
fn credential<'a>(
    config: &'a Config,
    index: usize,
    server: &Server,
) -> Result<Option<(&'a str, UpstreamCredential)>, String> {
    let Some(known) = server.credential.and_then(|at| config.credentials.get(at)) else {
        return Ok(None);
    };
    let fault = |what: &dyn std::fmt::Display| format!("its credential {}: {what}", known.name);
    if !known.servers.contains(&index) {
        return Err(fault(&"it may not be sent to this server"));
    }
    match &known.kind {
        CredentialKind::None => Ok(None),
        CredentialKind::ApiKey(key) => {
            let secret = key.secret.read().map_err(|why| fault(&format!("the secret {why}")))?;
            let made = UpstreamCredential::new(known, secret);
            let made =
                made.map_err(|_| fault(&"the secret cannot stand where it is to be sent"))?;
            Ok(Some((known.name.as_str(), made)))
        }
    }
}

/// Why none of these addresses may be asked.
fn shut(found: &[SocketAddr], terms: Terms) -> &'static str {
    let any = |wanted: Reach| found.iter().any(|address| reach(address.ip()) == wanted);
    if any(Reach::Private) && !terms.trust_private {
        "are private ones: set trust_private_addresses if it lives there"
    } else if any(Reach::Public) && !terms.tls {
        "are public ones, for which url must be https"
    } else {
        "are link-local, metadata or reserved ones, which are never asked"
    }
}

fn bounded(bytes: usize, what: &str) -> Result<(), String> {
    if bytes > LIST_BYTES_MAX {
        return Err(format!("it answers {what} with more than {LIST_BYTES_MAX} bytes"));
    }
    Ok(())
}

const TIMEOUT: &str = "timeout_seconds";
const IN_ALL: &str = "120 s for all of it";
/// JSON-RPC 2.0 §5.1.
const METHOD_NOT_FOUND: i64 = -32601;
/// What the fixed parts of a head take, and more.
const HEAD_ROOM_BYTES: usize = 1024;
const _: () = assert!(SCHEMA_WITHIN.as_secs() == 120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_not_asked_say_why() {
        let table = [
            ("10.0.0.1:80", false, true, "set trust_private_addresses"),
            ("127.0.0.1:80", false, false, "set trust_private_addresses"),
            ("93.184.215.14:80", true, false, "must be https"),
            ("169.254.169.254:80", true, true, "never asked"),
            ("[fe80::1]:80", false, false, "never asked"),
        ];
        for (address, trust_private, tls, words) in table {
            let (found, terms) = ([address.parse().unwrap()], Terms { trust_private, tls });
            assert!(permitted(&found, terms).is_empty(), "{address}");
            assert!(shut(&found, terms).contains(words), "{address}: {}", shut(&found, terms));
        }
    }
}

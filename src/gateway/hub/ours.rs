//! Messages of the gateway's own to a server, in the name of a principal: each is a leg.

use super::greet::{Speaker, Visible};
use super::leg;
use crate::clock::Monotonic;
use crate::gateway::exchange::Exchange;
use crate::limits::{HUB_MESSAGES_BEFORE_ANSWER_MAX, WHEEL_TICK};
use crate::mcp::capability::{ClientCapabilities, era_of};
use crate::mcp::handshake::{self, INITIALIZED, Verdict};
use crate::mcp::message::{Message, Said, is_id};
use crate::mcp::span::Document;
use crate::mcp::{Era, Listed, Mirrored, write};
use crate::policy::Permit;
use crate::reject::Reject;
use crate::relay::{Blind, Heard, OwnHead, Talk};
use crate::shard::Shard;

/// One message of ours.
pub(super) struct Ours {
    body: Vec<u8>,
    /// What the header says; none with `initialize`, in which it is agreed on.
    version: Option<&'static str>,
    /// `Mcp-Method`, of a modern one.
    method: Option<&'static str>,
    /// Its id as JSON; none for what has no answer but 202.
    id: Option<Vec<u8>>,
}

impl Ours {
    /// The handshake of `era`.
    pub(super) fn handshake(era: Era, speaker: &Speaker) -> Self {
        let mut body = Vec::with_capacity(512);
        match era {
            Era::Legacy => {
                let revision = speaker.legacy_revision();
                handshake::write_initialize(ID, revision, speaker.capabilities, &mut body);
                Self { body, version: None, method: None, id: Some(ID.to_vec()) }
            }
            Era::Modern => {
                handshake::write_discover(ID, speaker.capabilities, &mut body);
                let (version, method) = (Some(handshake::MODERN), Some("server/discover"));
                Self { body, version, method, id: Some(ID.to_vec()) }
            }
        }
    }

    /// Asks a server that speaks `revision` for one page of a list.
    pub(super) fn list(
        revision: &'static str,
        listed: Listed,
        id: &str,
        cursor: Option<&str>,
        capabilities: ClientCapabilities,
    ) -> Self {
        let modern = era_of(revision) == Era::Modern;
        let mut body = Vec::with_capacity(512);
        let mut id_json = Vec::with_capacity(id.len() + 2);
        write::string(id, &mut id_json);
        body.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
        body.extend_from_slice(&id_json);
        body.extend_from_slice(br#","method":"#);
        write::string(listed.method(), &mut body);
        if modern || cursor.is_some() {
            body.extend_from_slice(br#","params":{"#);
            if modern {
                body.extend_from_slice(br#""_meta":"#);
                handshake::write_meta(capabilities, &mut body);
            }
            if let Some(cursor) = cursor {
                body.extend_from_slice(if modern { br#","cursor":"# } else { br#""cursor":"# });
                write::string(cursor, &mut body);
            }
            body.push(b'}');
        }
        body.push(b'}');
        let method = modern.then_some(listed.method());
        Self { body, version: Some(revision), method, id: Some(id_json) }
    }

    /// The word that an `initialize` was heard.
    pub(super) fn initialized(revision: &'static str) -> Self {
        Self { body: INITIALIZED.to_vec(), version: Some(revision), method: None, id: None }
    }
}

impl Ours {
    fn is_answered_by(&self, message: &Message<'_>, text: &[u8]) -> bool {
        match (message.said, message.id, &self.id) {
            (Said::Result(_) | Said::Error { .. }, Some(id), Some(own)) => is_id(id, text, own),
            (_, _, _) => false,
        }
    }
}

/// Judges a message of ours as the principal's own.
///
/// # Errors
/// The denial.
pub(super) async fn judged(
    shard: &Shard,
    exchange: &Exchange,
    server: u16,
    ours: &Ours,
) -> Result<Visible, Reject> {
    let sent = Mirrored {
        protocol_version: ours.version.map(str::as_bytes),
        method: ours.method.map(str::as_bytes),
        name: None,
    };
    let mut leg = exchange.leg(shard, server, ours.body.clone(), &sent)?;
    match leg.judge(shard).await {
        Ok(permit) => Ok(Visible { leg, permit }),
        Err(reject) => {
            leg.unsent(shard);
            Err(reject)
        }
    }
}

impl Exchange {
    /// A leg that was judged and then not needed: nothing was sent, so nothing is recorded.
    pub(super) fn unsent(self, shard: &Shard) {
        shard.release_scratch(self.scratch);
    }
}

/// What a server answered.
pub(super) struct Answered {
    pub(super) status: u16,
    /// The session that it opened.
    pub(super) session: Option<Vec<u8>>,
    /// The message that answers ours.
    pub(super) text: Option<Vec<u8>>,
}

impl Answered {
    /// What it says of the server's era, which was asked for `asked`.
    pub(super) fn verdict(&self, asked: Era) -> Verdict {
        let mut document = Document::new();
        let text = self.text.as_deref();
        let read = text.and_then(|text| document.read(text).and_then(Message::read).ok());
        Verdict::of(asked, ID, self.status, read.as_ref().zip(text))
    }
}

/// Sends the message of a leg that was judged, and hears what answers it. The leg ends with its
/// record, whatever came of it.
pub(super) async fn converse(
    shard: &Shard,
    visible: Visible,
    ours: &Ours,
    session: Option<&[u8]>,
    until: Monotonic,
) -> Result<Answered, Reject> {
    let Visible { mut leg, permit } = visible;
    let answered = talk(shard, &mut leg, permit, ours, session, until).await;
    leg.record(shard, answered.as_ref().err().copied());
    answered
}

async fn talk(
    shard: &Shard,
    exchange: &mut Exchange,
    permit: Permit,
    ours: &Ours,
    session: Option<&[u8]>,
    until: Monotonic,
) -> Result<Answered, Reject> {
    exchange.admit(shard)?;
    let credential = exchange.obtain(shard, &permit)?;
    exchange.commit(shard)?;
    let head = OwnHead {
        protocol_version: ours.version,
        mcp_method: ours.method,
        session,
        ..OwnHead::default()
    };
    let used = permit.credential();
    let opened =
        leg::open(shard, exchange, permit, credential.as_deref(), &head, &mut Blind, until).await;
    match opened {
        Ok(mut talk) => {
            exchange.outcome.upstream_status = Some(talk.status());
            let heard = hear(shard, exchange, &mut talk, ours, until).await;
            leg::heard(shard, exchange, &heard);
            heard
        }
        Err(failed) => {
            exchange.outcome.upstream_status = failed.upstream_status;
            if let (Some(_), Some(used)) = (failed.permit, used) {
                // It may have been rotated: the next handshake reads it anew.
                shard.credentials.evict(used);
            }
            Err(failed.reject)
        }
    }
}

/// Hears until the answer. What a server says before it is for nobody: it was asked nothing else.
async fn hear(
    shard: &Shard,
    exchange: &Exchange,
    talk: &mut Talk<'_>,
    ours: &Ours,
    until: Monotonic,
) -> Result<Answered, Reject> {
    let (status, session) = (talk.status(), talk.session().map(<[u8]>::to_vec));
    let mut document = Document::new();
    for _ in 0..HUB_MESSAGES_BEFORE_ANSWER_MAX {
        let (text, whole) = match talk.next(until).await? {
            Heard::Message(text) => (text, true),
            Heard::Event(event) if event.is_message() => (event.data(), false),
            Heard::Event(_) => continue,
            Heard::Accepted | Heard::End => return Ok(Answered { status, session, text: None }),
        };
        let read = document.read(text).and_then(Message::read);
        // A whole answer says something by its status, too, whatever is in it.
        if whole || read.as_ref().is_ok_and(|message| ours.is_answered_by(message, text)) {
            let text = Some(text.to_vec());
            // Heard to its end, so that its connection can be used again.
            let soon = until.min(shard.timers.now().after(2 * WHEEL_TICK));
            let _ = talk.next(soon).await;
            return Ok(Answered { status, session, text });
        }
        let stray = read.is_ok_and(|message| match message.said {
            Said::Result(_) | Said::Error { .. } => true,
            Said::Request(_) | Said::Notification(_) => false,
        });
        if let (true, Some(server)) = (stray, exchange.server) {
            shard.meter.stray_answer(server);
        }
        document.forget();
    }
    Err(Reject::UpstreamMalformed)
}

/// The id of a handshake. Requests of a session have numbers from 1.
const ID: &[u8] = br#""g0""#;

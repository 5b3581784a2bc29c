//! Questions between the eras: each round whole, and what may not be asked.

use super::super::bridge::asking::{
    Answered, Asked, QUESTIONS_MAX, answer_of_retry, input_required,
};
use super::super::capability::ClientCapabilities as Client;
use super::super::message::Message;
use super::super::span::Document;
use crate::reject::Reject;

/// A result of a modern server that wants to know something first.
fn wanting(members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":3,"result":{{"resultType":"input_required"{members}}}}}"#)
}

fn asked(text: &str, declared: Client) -> Result<Asked, Reject> {
    let mut document = Document::new();
    let message = Message::read(document.read(text.as_bytes()).unwrap()).unwrap();
    Asked::read(&message, text.as_bytes(), declared)
}

fn take(asked: &mut Asked, at: usize, text: &str) -> Result<Answered, Reject> {
    let mut document = Document::new();
    let message = Message::read(document.read(text.as_bytes()).unwrap()).unwrap();
    asked.take(at, &message, text.as_bytes())
}

fn question(asked: &Asked, at: usize) -> String {
    let mut out = Vec::new();
    asked.questions()[at].write(br#""r1""#, &mut out);
    String::from_utf8(out).unwrap()
}

fn retry(asked: &Asked, text: &str) -> Result<String, Reject> {
    let (mut document, mut out) = (Document::new(), Vec::new());
    let root = document.read(text.as_bytes()).unwrap();
    asked.retry(root, text.as_bytes(), br#""c9""#, &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn a_modern_server_asks_a_legacy_agent_and_gets_the_call_again() {
    let text = wanting(
        r#","requestState":"s\u0074","inputRequests":{"na\u006de": {"method":"elicitation/create","params":{"mode":"form","message":"Who?","requestedSchema":{"type":"object"},"_meta":{"io.modelcontextprotocol/x":1,"y":2}}},"where":{"method":"roots/list"}}"#,
    );
    let declared = Client::ELICITATION_FORM.with(Client::ROOTS);
    let mut asked = asked(&text, declared).unwrap();
    assert_eq!(asked.questions().len(), 2);
    assert_eq!(asked.questions()[0].url(), None);
    assert_eq!(
        question(&asked, 0),
        r#"{"jsonrpc":"2.0","id":"r1","method":"elicitation/create","params":{"mode":"form","message":"Who?","requestedSchema":{"type":"object"},"_meta":{"y":2}}}"#
    );
    assert_eq!(question(&asked, 1), r#"{"jsonrpc":"2.0","id":"r1","method":"roots/list"}"#);

    let call = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"x","_meta":{}}}"#;
    assert_eq!(retry(&asked, call), Err(Reject::GatewayFault), "nothing is answered yet");
    let roots = r#"{"jsonrpc":"2.0","id":"r2","result":{"roots":[{"uri":"file:///\u0061"}]}}"#;
    assert_eq!(take(&mut asked, 1, roots), Ok(Answered::More));
    let again = roots.replace("roots\":[", "roots\":[{},");
    assert_eq!(take(&mut asked, 1, &again), Ok(Answered::More), "the first answer counts");
    assert_eq!(take(&mut asked, 7, roots), Ok(Answered::More), "there is no such question");
    let accepted =
        r#"{"jsonrpc":"2.0","id":"r1","result":{"action":"accept","content":{"name":"A"}}}"#;
    assert_eq!(take(&mut asked, 0, accepted), Ok(Answered::All));
    assert_eq!(
        retry(&asked, call).unwrap(),
        r#"{"jsonrpc":"2.0","id":"c9","method":"tools/call","params":{"name":"x","_meta":{},"inputResponses":{"na\u006de":{"action":"accept","content":{"name":"A"}},"where":{"roots":[{"uri":"file:///\u0061"}]}},"requestState":"s\u0074"}}"#
    );
    // The next round: a state of its own, or none.
    let second = retry(&asked, call).unwrap();
    let only_state = self::asked(&wanting(r#","requestState":"t""#), declared).unwrap();
    assert_eq!(
        retry(&only_state, call).unwrap(),
        r#"{"jsonrpc":"2.0","id":"c9","method":"tools/call","params":{"name":"x","_meta":{},"requestState":"t"}}"#
    );
    let mut stateless =
        self::asked(&wanting(r#","inputRequests":{"w":{"method":"roots/list"}}"#), declared)
            .unwrap();
    assert_eq!(take(&mut stateless, 0, roots), Ok(Answered::All));
    assert_eq!(
        retry(&stateless, &second).unwrap(),
        r#"{"jsonrpc":"2.0","id":"c9","method":"tools/call","params":{"name":"x","_meta":{},"inputResponses":{"w":{"roots":[{"uri":"file:///\u0061"}]}}}}"#
    );
}

#[test]
fn a_page_to_visit_has_an_id_in_the_legacy_era_and_is_for_policy_first() {
    let text = wanting(
        r#","inputRequests":{"u":{"method":"elicitation/create","params":{"mode":"url","message":"Go","url":"https://idp.example/x"}}}"#,
    );
    let mut asked = asked(&text, Client::ELICITATION_URL).unwrap();
    assert_eq!(asked.questions()[0].url(), Some("https://idp.example/x"));
    assert_eq!(
        question(&asked, 0),
        r#"{"jsonrpc":"2.0","id":"r1","method":"elicitation/create","params":{"elicitationId":"r1","mode":"url","message":"Go","url":"https://idp.example/x"}}"#
    );
    let error = r#"{"jsonrpc":"2.0","id":"r1","error":{"code":-1,"message":"no"}}"#;
    assert_eq!(take(&mut asked, 0, error), Ok(Answered::All), "as good as dismissed");
    let call = r#"{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"x"}}"#;
    assert!(retry(&asked, call).unwrap().contains(r#""inputResponses":{"u":{"action":"cancel"}}"#));
}

#[test]
fn what_the_agent_never_declared_is_not_asked() {
    let one = |method: &str, params: &str| {
        wanting(&format!(r#","inputRequests":{{"q":{{"method":"{method}"{params}}}}}"#))
    };
    let url = r#","params":{"mode":"url","message":"","url":"https://x"}"#;
    let form = r#","params":{"message":""}"#;
    for (text, needed) in [
        (one("roots/list", ""), Client::ROOTS),
        (one("sampling/createMessage", r#","params":{"messages":[]}"#), Client::SAMPLING),
        (one("elicitation/create", form), Client::ELICITATION_FORM),
        (one("elicitation/create", url), Client::ELICITATION_URL),
    ] {
        assert!(asked(&text, needed).is_ok(), "{text}");
        let others = Client(Client::ALL.0 & !needed.0);
        assert_eq!(asked(&text, others).unwrap_err(), Reject::UpstreamMalformed, "{text}");
    }
    let mut refused = asked(&one("roots/list", ""), Client::ALL).unwrap();
    let error = r#"{"jsonrpc":"2.0","id":"r1","error":{"code":-32603,"message":"no"}}"#;
    assert_eq!(take(&mut refused, 0, error), Ok(Answered::Refused));
    let question = r#"{"jsonrpc":"2.0","id":"r1","method":"ping"}"#;
    assert_eq!(take(&mut refused, 0, question), Err(Reject::RpcInvalid));

    let roots = r#"{"method":"roots/list"}"#;
    let many: Vec<_> = (0..=QUESTIONS_MAX).map(|at| format!(r#""k{at}":{roots}"#)).collect();
    for bad in [
        wanting(""),
        wanting(r#","inputRequests":{}"#),
        wanting(r#","inputRequests":[]"#),
        wanting(r#","requestState":7"#),
        wanting(r#","inputRequests":{"q":"roots/list"}"#),
        wanting(r#","inputRequests":{"q":{"params":{}}}"#),
        wanting(&format!(r#","inputRequests":{{"q":{roots},"\u0071":{roots}}}"#)),
        wanting(&format!(r#","inputRequests":{{{}}}"#, many.join(","))),
        one("ping", ""),
        one("tools/call", r#","params":{}"#),
        one("elicitation/create", r#","params":{"mode":"url","message":""}"#),
        one("elicitation/create", r#","params":{"message":"","url":"https://x"}"#),
        one("elicitation/create", r#","params":{"mode":"page","message":""}"#),
        one("elicitation/create", r#","params":[]"#),
        one("elicitation/create", r#","params":{"mode":"form","Mode":"url","message":""}"#),
    ] {
        assert_eq!(asked(&bad, Client::ALL).unwrap_err(), Reject::UpstreamMalformed, "{bad}");
    }
}

#[test]
fn a_legacy_server_asks_a_modern_agent_and_gets_the_answer_of_its_retry() {
    let ask = |text: &str, declared: Client| {
        let (mut document, mut out) = (Document::new(), b"kept".to_vec());
        let message = Message::read(document.read(text.as_bytes()).unwrap()).unwrap();
        let url = input_required(&message, text.as_bytes(), declared, (b"5", "se\"al"), &mut out)?;
        Ok((url, String::from_utf8(out).unwrap()))
    };
    let request = r#"{"jsonrpc":"2.0","id":"s\u0031","method":"elicitation/create","params":{"mode":"url","elicitationId":"e","message":"Go","url":"https://x/y","_meta":{"progressToken":1,"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}"#;
    assert_eq!(
        ask(request, Client::ELICITATION_URL),
        Ok((
            Some("https://x/y".to_owned()),
            r#"kept{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required","inputRequests":{"question":{"method":"elicitation/create","params":{"mode":"url","message":"Go","url":"https://x/y","_meta":{"progressToken":1}}}},"requestState":"se\"al"}}"#.to_owned()
        ))
    );
    let roots = r#"{"jsonrpc":"2.0","id":9,"method":"roots/list"}"#;
    assert_eq!(
        ask(roots, Client::ROOTS).unwrap().1,
        r#"kept{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required","inputRequests":{"question":{"method":"roots/list"}},"requestState":"se\"al"}}"#
    );
    for bad in [
        r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":9,"method":"tasks/get","params":{"taskId":"t"}}"#,
        r#"{"jsonrpc":"2.0","method":"roots/list"}"#,
        r#"{"jsonrpc":"2.0","id":9,"result":{}}"#,
    ] {
        assert_eq!(ask(bad, Client::ALL), Err(Reject::UpstreamMalformed), "{bad}");
    }
    assert_eq!(ask(request, Client::ELICITATION_FORM), Err(Reject::UpstreamMalformed));

    let reply = |text: &str| {
        let (mut document, mut out) = (Document::new(), Vec::new());
        let root = document.read(text.as_bytes()).unwrap();
        answer_of_retry(root, text.as_bytes(), br#""s\u0031""#, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    };
    let again = |responses: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":6,"method":"tools/call","params":{{"name":"x","requestState":"s"{responses}}}}}"#
        )
    };
    assert_eq!(
        reply(&again(r#","inputResponses":{"question":{"action":"accept"},"other":{}}"#)),
        Ok(r#"{"jsonrpc":"2.0","id":"s\u0031","result":{"action":"accept"}}"#.to_owned())
    );
    for bad in [
        "",
        r#","inputResponses":{}"#,
        r#","inputResponses":[]"#,
        r#","inputResponses":{"question":"accept"}"#,
        r#","inputResponses":{"question":{},"question":{}}"#,
        r#","inputResponses":{"question":{}},"InputResponses":{}"#,
    ] {
        assert_eq!(reply(&again(bad)), Err(Reject::RpcParams), "{bad}");
    }
}

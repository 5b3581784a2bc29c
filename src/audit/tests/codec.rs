use std::net::IpAddr;

use super::super::codec::{PAYLOAD_BYTES_MAX, Reader, write_decision, write_outcome};
use super::super::entry::{
    CredentialCache, CredentialUse, Decision, Empty, Entry, Legs, List, Name, Outcome, Tally,
};
use super::super::line::{Halves, Key, State, final_key, write_request};
use super::super::time::Times;
use super::{Random, TokenReference, done, oracle, permit};
use crate::clock::UnixMicros;
use crate::limits::AUDIT_RECORD_BYTES_MAX;
use crate::reject::Reject;

const KEY: Key = Key { instance: 0xabc, core: 1, seq: 42 };

/// `None` when the bytes are no record.
fn line_of(decision: &[u8], outcome: Option<&[u8]>, state: State) -> Option<Vec<u8>> {
    let mut line = b"untouched".to_vec();
    let halves = Halves { decision, outcome, state };
    let written = write_request(KEY, halves, &mut Times::new(), &mut line);
    let own = line.strip_prefix(b"untouched").unwrap().to_vec();
    assert!(written || own.is_empty(), "a line that failed leaves nothing behind");
    written.then_some(own)
}

#[test]
fn a_line_has_every_field_of_the_contract_in_order() {
    let (mut decision, mut outcome) = (Vec::new(), Vec::new());
    write_decision(&permit(1_788_000_000_123_456), &mut decision);
    write_outcome(&done(), &mut outcome);
    let line = line_of(&decision, Some(&outcome), State::Done).unwrap();
    let expected = concat!(
        r#"{"time":"2026-08-29T10:40:00.123456Z","seq":42,"core":1,"event":"request","#,
        r#""decision":"permit","reason":"ok","policy":["engineers-read"],"epoch":7,"#,
        r#""user":"alice","issuer":"https://idp.example","groups":["engineering","staff"],"#,
        r#""agent":"agent-1","server":"github","method":"tools/call","name":"get_issue","#,
        r#""revision":"2026-07-28","credential":{"provider":"github-user","kind":"api_key","#,
        r#""cache":"hit"},"status":200,"upstream_status":200,"bytes_in":300,"bytes_out":1000,"#,
        r#""duration_us":900,"overhead_us":12,"source_ip":"127.0.0.1","#,
        r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","token":"ba7816bf8f01cfea","#,
        r#""outcome":"done","instance":"0000000000000abc"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
    assert_eq!(final_key(&line), Some(KEY));
}

#[test]
fn what_is_not_known_is_left_out_and_an_early_line_is_not_final() {
    let mut bytes = Vec::new();
    let entry = Entry {
        policies: Some(List::Slices(&[])),
        reason: Some(Reject::UpstreamTimeout),
        ..Entry::new(UnixMicros(0), Decision::Error)
    };
    write_decision(&entry, &mut bytes);
    let line = line_of(&bytes, None, State::Opened).unwrap();
    let expected = concat!(
        r#"{"time":"1970-01-01T00:00:00.000000Z","seq":42,"core":1,"event":"request","#,
        r#""decision":"error","reason":"upstream_timeout","policy":[],"outcome":"opened","#,
        r#""instance":"0000000000000abc"}"#,
        "\n"
    );
    assert_eq!(String::from_utf8(line.clone()).unwrap(), expected);
    assert_eq!(final_key(&line), None);
    assert_eq!(final_key(b"not json"), None);
}

fn tally(random: &mut Random) -> Option<Tally> {
    let reasons = [Empty::Upstream, Empty::NoPermit, Empty::Error, Empty::Forbidden];
    let empty = reasons.get(random.below(5) as usize).copied();
    let (upstream, shown) = (random.next() as u32, random.next() as u32);
    (random.below(2) > 0).then_some(Tally { upstream, shown, empty })
}

fn address(random: &mut Random) -> Option<IpAddr> {
    match random.below(3) {
        0 => None,
        1 => Some(IpAddr::from((random.next() as u32).to_le_bytes())),
        _ => Some(IpAddr::from(u128::from(random.next()).to_le_bytes())),
    }
}

#[test]
fn random_records_come_back_as_they_went_in() {
    let seed = 0x5eed_0001;
    let mut random = Random(seed);
    for round in 0..3_000 {
        let strings: Vec<String> = (0..8).map(|_| text(&mut random, 60)).collect();
        let some = |random: &mut Random, index: usize| {
            (random.below(3) > 0).then(|| strings[index].as_str())
        };
        let ip = address(&mut random);
        let entry = Entry {
            policies: (random.below(2) > 0).then_some(List::Strings(&strings[..3])),
            epoch: (random.below(2) > 0).then(|| random.next()),
            user: some(&mut random, 0),
            issuer: some(&mut random, 1),
            groups: Some(List::Strings(&strings[..random.below(8) as usize])),
            agent: some(&mut random, 2),
            server: some(&mut random, 3),
            method: some(&mut random, 4),
            name: some(&mut random, 5).map(Name::Plain),
            revision: some(&mut random, 6),
            credential: some(&mut random, 7).map(|provider| CredentialUse {
                provider,
                kind: "api_key",
                cache: CredentialCache::Miss,
            }),
            source_ip: ip,
            token: (random.below(2) > 0).then(|| TokenReference::of(&random.next().to_le_bytes())),
            ..Entry::new(UnixMicros(random.next()), Decision::Deny)
        };
        let outcome = Outcome {
            status: (random.below(2) > 0).then_some(200 + random.below(400) as u16),
            upstream_status: None,
            bytes_in: random.next(),
            bytes_out: random.next(),
            duration_us: random.next(),
            overhead_us: (random.below(2) > 0).then(|| random.next()),
            reason: (random.below(2) > 0).then_some(Reject::UpstreamEof),
            list: tally(&mut random),
            legs: legs(&mut random),
        };
        let mut bytes = Vec::new();
        write_decision(&entry, &mut bytes);
        write_outcome(&outcome, &mut bytes);
        let mut reader = Reader(&bytes);
        let read = oracle::decision(&mut reader).unwrap();
        let told = format!("seed {seed:#x} round {round}");
        let list = |list: Option<List<'_>>| {
            list.map(|list| (0..list.len()).map(|at| list.get(at).unwrap().to_owned()).collect())
        };
        let kept = |list: Option<oracle::ListRead<'_>>| {
            list.map(|list| list.kept.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!((read.time, read.decision), (entry.time.0, "deny"), "{told}");
        assert_eq!((read.user, read.issuer, read.agent), (entry.user, entry.issuer, entry.agent));
        assert_eq!((read.server, read.method), (entry.server, entry.method), "{told}");
        assert_eq!((read.revision, read.epoch), (entry.revision, entry.epoch), "{told}");
        assert_eq!(kept(read.groups), list(entry.groups), "{told}");
        assert_eq!(kept(read.policies), list(entry.policies), "{told}");
        assert_eq!(read.source_ip, ip, "{told}");
        assert_eq!(read.token, entry.token.map(|token| token.0), "{told}");
        let provider = read.credential.map(|(provider, ..)| provider);
        assert_eq!(provider, entry.credential.map(|used| used.provider), "{told}");
        let read = reader.outcome().unwrap();
        assert_eq!((read.status, read.overhead_us), (outcome.status, outcome.overhead_us));
        assert_eq!((read.bytes_in, read.bytes_out), (outcome.bytes_in, outcome.bytes_out));
        assert_eq!(read.reason, outcome.reason.map(Reject::audit_code), "{told}");
        assert!(reader.0.is_empty(), "{told}: nothing is left over");
    }
}

#[test]
fn no_record_exceeds_its_bound_whatever_is_sent() {
    let long = "é".repeat(5_000);
    let many: Vec<String> = (0..10_000).map(|number| format!("group-{number}")).collect();
    let huge = [long.clone()];
    let entry = Entry {
        event: &long,
        reason: Some(Reject::PolicyCredentialAmbiguous),
        policies: Some(List::Strings(&huge)),
        epoch: Some(u64::MAX),
        user: Some(&long),
        issuer: Some(&long),
        groups: Some(List::Strings(&many)),
        agent: Some(&long),
        server: Some(&long),
        method: Some(&long),
        name: Some(Name::Uri(&long)),
        revision: Some(&long),
        credential: Some(CredentialUse {
            provider: &long,
            kind: &long,
            cache: CredentialCache::None,
        }),
        source_ip: Some(IpAddr::from([0xff; 16])),
        trace_id: Some(&long),
        token: Some(TokenReference::of(b"")),
        country: Some(&long),
        would_deny: Some(List::Strings(&many)),
        limit: Some(&long),
        leg_of: Some(u64::MAX),
        ..Entry::new(UnixMicros(u64::MAX), Decision::Permit)
    };
    let mut bytes = Vec::with_capacity(AUDIT_RECORD_BYTES_MAX);
    write_decision(&entry, &mut bytes);
    write_outcome(&done(), &mut bytes);
    assert!(bytes.len() <= PAYLOAD_BYTES_MAX, "{}", bytes.len());
    assert_eq!(bytes.capacity(), AUDIT_RECORD_BYTES_MAX, "nothing was allocated");
    let read = oracle::decision(&mut Reader(&bytes)).unwrap();
    let groups = read.groups.as_ref().unwrap();
    assert_eq!(groups.kept.len() + usize::from(groups.left_out), many.len());
    assert_eq!(read.policies.as_ref().unwrap().left_out, 1, "half an id is another id");
    let line = line_of(&bytes, None, State::Unknown).unwrap();
    assert_eq!(line, oracle::line(KEY, &read, None, State::Unknown));
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    let marker = format!("… {} more", groups.left_out);
    assert_eq!(line["groups"].as_array().unwrap().last().unwrap(), &serde_json::json!(marker));
    assert_eq!(line["policy"], serde_json::json!(["… 1 more"]));
    assert_eq!(line["name"].as_str().unwrap().len(), 256);
}

#[test]
fn damaged_bytes_are_refused_not_trusted() {
    let mut whole = Vec::new();
    write_decision(&permit(1), &mut whole);
    for length in 0..whole.len() {
        let cut = &whole[..length];
        assert_eq!(line_of(cut, None, State::Unknown), None, "cut at {length}");
        assert_eq!(Reader(cut).skip_decision(), None, "cut at {length}");
    }
    let mut random = Random(0x5eed_0002);
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
        let read = oracle::decision(&mut Reader(&bytes));
        let expected = read.map(|read| oracle::line(KEY, &read, None, State::Unknown));
        assert_eq!(line_of(&bytes, None, State::Unknown), expected, "{bytes:?}");
    }
}

/// The differential test: hostile strings, every state, halves apart and together.
#[test]
fn lines_are_byte_for_byte_what_serde_json_makes_of_the_record() {
    let seed = 0x5eed_0004;
    let mut random = Random(seed);
    for round in 0..20_000 {
        let strings: Vec<String> = (0..10).map(|_| hostile(&mut random)).collect();
        let entry = hostile_entry(&mut random, &strings);
        let outcome = Outcome {
            status: (random.below(4) > 0).then(|| random.below(1 << 16) as u16),
            upstream_status: (random.below(4) > 0).then(|| random.below(1 << 16) as u16),
            bytes_in: random.next() >> random.below(64),
            bytes_out: random.next() >> random.below(64),
            duration_us: random.next() >> random.below(64),
            overhead_us: (random.below(2) > 0).then(|| random.next() >> random.below(64)),
            reason: (random.below(4) == 0).then_some(Reject::UpstreamEof),
            list: tally(&mut random),
            legs: legs(&mut random),
        };
        let (mut half, mut other) = (Vec::new(), Vec::new());
        write_decision(&entry, &mut half);
        write_outcome(&outcome, &mut other);
        let whole = [&half[..], &other[..]].concat();
        let read = oracle::decision(&mut Reader(&half)).unwrap();
        let ended = Reader(&other).outcome().unwrap();
        for (decision, outcome, state) in [
            (&half, Some(&other[..]), State::Done),
            (&whole, None, State::Done),
            (&half, None, State::Opened),
            (&whole, None, State::Unknown),
        ] {
            let ended = (state == State::Done).then_some(&ended);
            let expected = oracle::line(KEY, &read, ended, state);
            let told = format!("seed {seed:#x} round {round} {state:?}");
            assert_eq!(line_of(decision, outcome, state), Some(expected), "{told}");
        }
    }
}

fn legs(random: &mut Random) -> Option<Legs> {
    let mut number = || random.next() as u16;
    let legs = Legs { asked: number(), answered: number() };
    (random.below(2) > 0).then_some(legs)
}

fn hostile_entry<'a>(random: &mut Random, strings: &'a [String]) -> Entry<'a> {
    let mut some = |index: usize| (random.below(5) > 0).then(|| strings[index].as_str());
    let (user, issuer, agent, server) = (some(0), some(1), some(2), some(3));
    let (method, name, revision, provider) = (some(4), some(5), some(6), some(7));
    let (trace_id, event) = (some(8), some(9).unwrap_or("request"));
    let mut list = || {
        let from = random.below(strings.len() as u64) as usize;
        (random.below(4) > 0).then(|| List::Strings(&strings[from..]))
    };
    let (policies, groups) = (list(), list());
    let decisions = [Decision::Deny, Decision::Error, Decision::Permit];
    let caches = [CredentialCache::Hit, CredentialCache::Miss, CredentialCache::None];
    let cache = caches[random.below(3) as usize];
    Entry {
        event,
        reason: (random.below(2) > 0).then_some(Reject::PolicyDenied),
        policies,
        epoch: (random.below(4) > 0).then(|| random.next() >> random.below(64)),
        user,
        issuer,
        groups,
        agent,
        server,
        method,
        name: name.map(|name| match random.below(3) {
            0 => Name::Plain(name),
            1 => Name::Uri(name),
            _ => Name::Task(name),
        }),
        revision,
        credential: provider.map(|provider| CredentialUse { provider, kind: "api_key", cache }),
        source_ip: address(random),
        trace_id,
        token: (random.below(4) > 0).then(|| TokenReference::of(&random.next().to_le_bytes())),
        country: (random.below(2) > 0).then_some("DE"),
        would_deny: policies,
        limit: server,
        leg_of: (random.below(2) > 0).then(|| random.next()),
        ..Entry::new(
            UnixMicros(random.next() >> random.below(64)),
            decisions[random.below(3) as usize],
        )
    }
}

/// Mostly plain, as names are; the rest is every kind of character that JSON treats apart.
fn hostile(random: &mut Random) -> String {
    let plain = random.below(2) > 0;
    let count = if random.below(20) == 0 { random.below(1_500) } else { random.below(40) };
    let odd = ['"', '\\', '/', '\u{7f}', '\u{80}', 'é', '\u{2028}', '\u{feff}', '\u{ffff}', '😀'];
    let one = |random: &mut Random| match random.below(if plain { 1 } else { 4 }) {
        0 => char::from(b' ' + random.below(0x5f) as u8),
        1 => char::from(random.below(0x20) as u8),
        2 => odd[random.below(odd.len() as u64) as usize],
        _ => char::from_u32(random.below(0x11_0000) as u32).unwrap_or('\u{fffd}'),
    };
    (0..count).map(|_| one(random)).collect()
}

fn text(random: &mut Random, bytes_max: u64) -> String {
    let alphabet = ['a', 'Z', '/', '"', '\\', '\n', 'é', '\u{2028}', '😀', '\0'];
    let count = random.below(bytes_max / 4);
    (0..count).map(|_| alphabet[random.below(alphabet.len() as u64) as usize]).collect()
}

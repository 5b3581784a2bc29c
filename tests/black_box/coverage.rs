//! Every refusal there is has a test that provokes it from outside, or a reason why none can.
//!
//! What this proves: the two lists name each variant of `Reject` once, the named test exists, and
//! its source holds the reason word. So a new refusal without a test is found, and a test that was
//! renamed or lost its case. What it does not: that the test runs, gets as far as that case, or
//! fails without the check. The first two are for the test itself, which asserts the word that it
//! holds; the third was seen once, by hand, and stands in the table of README.md.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Variant of `Reject`, and the test in which an agent or an upstream provokes it.
const PROVOKED: &[(&str, &str)] = &[
    ("RequestMalformed", "http::h12_to_h14_lines"),
    ("RequestClTe", "http::h01_to_h06_ambiguous_framing"),
    ("RequestFraming", "http::h01_to_h06_ambiguous_framing"),
    ("RequestTransferCoding", "http::h01_to_h06_ambiguous_framing"),
    ("RequestVersion", "http::the_request_line_has_one_reading"),
    ("RequestTimeout", "http_body::a_request_that_stalls_is_ended"),
    ("RequestHeadTooLarge", "http::h18_to_h21_sizes"),
    ("RequestTargetTooLong", "http::h18_to_h21_sizes"),
    ("RequestBodyTooLarge", "http_body::m02_a_body_over_the_limit_is_not_read"),
    ("RequestExpectation", "http::h24_100_continue_comes_after_authentication_only"),
    ("RequestHost", "http::h15_h16_host"),
    ("RequestHostForeign", "http::h15_h16_host"),
    ("RequestOriginForeign", "http::paths_methods_origins"),
    ("RequestMethod", "http::paths_methods_origins"),
    ("RequestPath", "http::paths_methods_origins"),
    ("RequestContentEncoding", "http::h27_m13_media_types"),
    ("RequestContentType", "http::h27_m13_media_types"),
    ("RequestNotAcceptable", "http::h27_m13_media_types"),
    ("RequestAborted", "http_body::h26_a_body_that_stops_short"),
    ("TokenMissing", "identity::t00_no_token_or_something_else"),
    ("TokenMalformed", "identity::t05_signatures"),
    ("TokenTooLarge", "identity::t16_t17_t19_forms"),
    ("TokenAlgorithm", "identity::t01_t02_t03_algorithms"),
    ("TokenCritical", "identity::t08_t09_t10_headers"),
    ("TokenType", "identity::t08_t09_t10_headers"),
    ("TokenIssuer", "identity::t11_t12_audience_and_issuer"),
    ("TokenAudience", "identity::t11_t12_audience_and_issuer"),
    ("TokenKeyUnknown", "identity::t22_t23_keys_and_bound_tokens"),
    ("TokenSignature", "identity::t05_signatures"),
    ("TokenExpired", "identity::t13_t14_t15_times"),
    ("TokenNotYetValid", "identity::t13_t14_t15_times"),
    ("TokenClaim", "identity::t11_t12_audience_and_issuer"),
    ("TokenRule", "identity::rules_users_and_workloads"),
    ("TokenUserClaimMissing", "identity::rules_users_and_workloads"),
    ("TokenBound", "identity::t22_t23_keys_and_bound_tokens"),
    ("KeysUnavailable", "identity::rules_users_and_workloads"),
    ("KeysPending", "identity_more::t06_keys_are_pending_when_the_set_is_old"),
    ("RpcParse", "message::m04_m07_m08_forms"),
    ("RpcInvalid", "message::m04_m07_m08_forms"),
    ("RpcHeaderMismatch", "message::m09_m10_mirrored_headers_and_revisions"),
    ("RpcParams", "message::m04_m07_m08_forms"),
    ("RpcVersion", "message::m09_m10_mirrored_headers_and_revisions"),
    ("RpcMethodModern", "message::m09_m10_mirrored_headers_and_revisions"),
    ("RpcMethodLegacy", "message::m04_m07_m08_forms"),
    ("SessionUnknown", "sessions::m12_m16_sessions_belong_to_their_owner"),
    ("PolicyDenied", "message::m14_denied_tools_servers_and_streams"),
    ("PolicyCallNoPermit", "message::m14_denied_tools_servers_and_streams"),
    ("PolicyCallForbidden", "message::m14_denied_tools_servers_and_streams"),
    ("PolicyStreamDenied", "message::m14_denied_tools_servers_and_streams"),
    ("PolicyStepUp", "step_up::everything_that_is_missing_is_in_one_challenge"),
    ("QuotaExceeded", "quota::who_asks_too_often_is_refused_with_429_and_handshakes_with_503"),
    ("QuotaHandshake", "quota::who_asks_too_often_is_refused_with_429_and_handshakes_with_503"),
    ("PolicyCredentialAmbiguous", "message::m14_denied_tools_servers_and_streams"),
    ("PolicyArgument", "arguments::arguments_decide_and_are_not_recorded"),
    ("CredentialUnavailable", "message::m14_denied_tools_servers_and_streams"),
    ("AuditUnavailable", "faults::f11_strict_audit_that_cannot_be_kept"),
    ("GatewayOverloaded", "faults::v07_more_connections_than_allowed"),
    ("GatewayDraining", "faults::r02_an_open_stream_ends_cleanly_when_draining"),
    ("UpstreamConnect", "relay::upstreams_that_cannot_be_reached"),
    ("UpstreamAddress", "relay::upstreams_that_cannot_be_reached"),
    ("UpstreamTls", "relay::upstreams_that_cannot_be_reached"),
    ("UpstreamMalformed", "relay::h30_f07_f08_bad_answers_are_502"),
    ("UpstreamEof", "relay::h30_f07_f08_bad_answers_are_502"),
    ("UpstreamTimeout", "relay::upstreams_that_cannot_be_reached"),
    ("UpstreamAuth", "relay::h30_f07_f08_bad_answers_are_502"),
    ("UpstreamForbidden", "relay::h30_f07_f08_bad_answers_are_502"),
    ("UpstreamRedirect", "relay::h30_f07_f08_bad_answers_are_502"),
    ("UpstreamContentType", "relay::h30_f07_f08_bad_answers_are_502"),
    (
        "CursorUnknown",
        "hub_lists::pages_hold_every_item_once_and_their_cursors_belong_to_who_got_them",
    ),
    ("NameAmbiguous", "hub_names::a_uri_leads_to_its_owner"),
    ("RequestSource", "source::the_client_of_a_request_is_whom_a_trusted_proxy_forwards"),
    ("PolicyUnavailable", "pdp::f01_every_trouble_of_it_is_a_refusal"),
    ("GatewayNotBuilt", "hub_calls::tasks_of_servers_are_not_carried_yet"),
    ("UpstreamEra", "hub_calls::tasks_of_servers_are_not_carried_yet"),
    ("StateForeign", "hub_calls::m12_m14_a_state_is_its_owners_and_its_requests"),
    ("UpstreamSuspended", "hub_calls::a_server_that_fails_is_left_alone_for_a_while"),
    ("UpstreamTooLarge", "hub_calls::a_long_answer_comes_whole_and_one_that_is_too_long_does_not"),
];

/// Those that nobody outside can provoke, and why.
const EXCUSED: &[(&str, &str)] = &[
    ("GatewayFault", "a fault of our own: no input is known that leads there"),
    ("MailFull", "a core that takes no letters in; mail::tests fills a pair"),
];

#[test]
fn every_refusal_is_provoked_or_excused() {
    let words = reason_words();
    assert!(words.len() > 60, "the list was found");
    let mut listed: Vec<&str> = PROVOKED.iter().chain(EXCUSED).map(|(name, _)| *name).collect();
    listed.sort_unstable();
    let known: Vec<&str> = words.keys().map(String::as_str).collect();
    assert_eq!(listed, known, "the variants of Reject and the two lists here");
    for (variant, test) in PROVOKED {
        let (module, function) = test.split_once("::").unwrap();
        let text = source(&format!("tests/black_box/{module}.rs"));
        let (_, body) = text
            .split_once(&format!("fn {function}()"))
            .unwrap_or_else(|| panic!("{variant}: there is no test {test}"));
        let body = body.split("\n#[test]").next().unwrap();
        let word = format!("\"{}\"", words[*variant]);
        assert!(body.contains(&word), "{variant}: {test} does not ask for {word}");
    }
}

/// Variant → reason word, read from the function that says so.
fn reason_words() -> BTreeMap<String, String> {
    let text = source("src/reject/words.rs");
    let (_, function) = text.split_once("fn audit_code").unwrap();
    let (function, _) = function.split_once("\n    }\n").unwrap();
    let mut words = BTreeMap::new();
    for arm in function.split("R::").skip(1).collect::<Vec<_>>().join("R::").split(',') {
        let Some((variants, word)) = arm.split_once("=>") else { continue };
        let word = word.trim().trim_matches('"').to_owned();
        for variant in variants.split('|') {
            words.insert(variant.trim().trim_start_matches("R::").to_owned(), word.clone());
        }
    }
    words
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

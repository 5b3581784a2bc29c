//! The closed list of reasons to refuse.
//!
//! A variant carries no payload, so no secret and no input can travel in it. Its name says who is
//! at fault: the request, the token, the policy, the credential, the upstream or the gateway. Four
//! total functions without wildcard arms turn it into an answer; a new variant breaks the build in
//! each of them, which are exactly the four questions its author must answer.

/// Why a request was refused. See the tables of the contract for the meaning of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reject {
    // -- the HTTP request (RFC 9110, RFC 9112) --
    /// Bytes that are not exactly one HTTP/1.1 request head or body.
    RequestMalformed,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.1: a sign of smuggling).
    RequestClTe,
    /// Any other framing that two parsers could read in two ways.
    RequestFraming,
    /// A transfer coding other than `chunked`.
    RequestTransferCoding,
    /// Not HTTP/1.1 or HTTP/1.0.
    RequestVersion,
    /// The head was not complete in time, or the body stalled.
    RequestTimeout,
    /// The head or one field of it is too large, or there are too many fields.
    RequestHeadTooLarge,
    /// The request target is too long.
    RequestTargetTooLong,
    /// The body is larger than the limit.
    RequestBodyTooLarge,
    /// `Expect` with something else than `100-continue`.
    RequestExpectation,
    /// No `Host`, two of them, or one that is not a host.
    RequestHost,
    /// `Host` (or SNI against `Host`) is not ours.
    RequestHostForeign,
    /// `Origin` is not on the list.
    RequestOriginForeign,
    /// The method is not served on this path.
    RequestMethod,
    /// No such path.
    RequestPath,
    /// A content coding; the gateway judges plain bytes only.
    RequestContentEncoding,
    /// The body is not declared as `application/json`.
    RequestContentType,
    /// `Accept` rules out what MCP may answer.
    RequestNotAcceptable,
    /// The peer closed before the request was complete.
    RequestAborted,

    // -- the token (RFC 6750, RFC 9068, RFC 8725) --
    /// No bearer token.
    TokenMissing,
    /// Not a compact JWS of the required form.
    TokenMalformed,
    /// Longer than any token we accept.
    TokenTooLarge,
    /// `alg` is not on the list or does not belong to the key.
    TokenAlgorithm,
    /// `crit` is present: an extension we do not understand (RFC 7515 §4.1.11).
    TokenCritical,
    /// `typ` is not an access token's, or the token is an ID token.
    TokenType,
    /// No trust provider has this issuer.
    TokenIssuer,
    /// Not issued for this gateway or server.
    TokenAudience,
    /// No key of the issuer has this `kid`.
    TokenKeyUnknown,
    /// The signature does not verify.
    TokenSignature,
    /// `exp` has passed.
    TokenExpired,
    /// `nbf` or `iat` lies in the future.
    TokenNotYetValid,
    /// A required claim is missing or of the wrong type, or a claim or header is repeated.
    TokenClaim,
    /// A claim rule of the trust provider does not hold.
    TokenRule,
    /// No usable user claim, and the workload rules do not apply.
    TokenUserClaimMissing,
    /// Sender-constrained (`cnf`) but sent as a plain bearer token.
    TokenBound,
    /// The keys of the issuer cannot be had.
    KeysUnavailable,
    /// An unknown `kid` while refetching is throttled, fails, or has too many waiting for it:
    /// possibly valid, try again.
    KeysPending,

    // -- the JSON-RPC message and MCP --
    /// Not one JSON text in UTF-8 of bounded depth.
    RpcParse,
    /// JSON, but not one unambiguous JSON-RPC 2.0 message.
    RpcInvalid,
    /// A mirrored header is missing or differs from the body.
    RpcHeaderMismatch,
    /// A required field of `params` is missing or mistyped.
    RpcParams,
    /// The protocol revision is not one we speak.
    RpcVersion,
    /// The method is unknown or was removed (modern era: HTTP 404).
    RpcMethodModern,
    /// The method is unknown or was removed (legacy era: HTTP 200).
    RpcMethodLegacy,
    /// A session id that is not ours, not this principal's, or expired.
    SessionUnknown,

    // -- policy --
    /// Gateway or server denied, or no such server: one answer for all, so nobody can enumerate.
    PolicyDenied,
    /// A tool, prompt, resource or method of a permitted server denied because nothing permits it.
    PolicyCallNoPermit,
    /// The same, denied by a `forbid`.
    PolicyCallForbidden,
    /// The same for what has no JSON-RPC answer: notifications, responses, GET and DELETE.
    PolicyStreamDenied,
    /// More scope, a stronger or a fresher login would do (RFC 6750 §3.1, RFC 9470).
    PolicyStepUp,
    /// Two permits name different credentials.
    PolicyCredentialAmbiguous,
    /// No decision could be had.
    PolicyUnavailable,

    // -- credential, audit, gateway --
    /// The upstream credential could not be had.
    CredentialUnavailable,
    /// Strict audit cannot keep the decision.
    AuditUnavailable,
    /// Too many connections or requests.
    GatewayOverloaded,
    /// The gateway is shutting down.
    GatewayDraining,
    /// A fault of our own; the connection is closed.
    GatewayFault,
    /// Part of the product, but not built yet.
    GatewayNotBuilt,

    // -- upstream --
    /// Not resolvable, refused, or not reachable in time.
    UpstreamConnect,
    /// Its address is private or special and the server does not say so.
    UpstreamAddress,
    /// Its certificate or TLS version is not acceptable.
    UpstreamTls,
    /// Its answer is not exactly one HTTP response.
    UpstreamMalformed,
    /// Closed before the answer was complete.
    UpstreamEof,
    /// Did not answer in time.
    UpstreamTimeout,
    /// Refused our credential.
    UpstreamAuth,
    /// Answered 403.
    UpstreamForbidden,
    /// Answered with a redirect; redirects are not followed.
    UpstreamRedirect,
    /// Answered with neither JSON nor an event stream.
    UpstreamContentType,
}

/// What `WWW-Authenticate` says (RFC 6750 §3). `resource_metadata` (RFC 9728 §5.1) is in all but
/// `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// No challenge.
    None,
    /// A request without authentication gets no error code (RFC 6750 §3.1, last paragraph).
    Bare,
    /// `error="invalid_token"`.
    InvalidToken,
    /// `error="insufficient_scope"`.
    InsufficientScope,
}

impl Reject {
    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        use Reject as R;
        match self {
            R::RpcMethodLegacy | R::PolicyCallNoPermit | R::PolicyCallForbidden => 200,
            R::RequestMalformed
            | R::RequestClTe
            | R::RequestFraming
            | R::RequestHost
            | R::RequestAborted
            | R::RpcParse
            | R::RpcInvalid
            | R::RpcHeaderMismatch
            | R::RpcParams
            | R::RpcVersion => 400,
            R::TokenMissing
            | R::TokenMalformed
            | R::TokenTooLarge
            | R::TokenAlgorithm
            | R::TokenCritical
            | R::TokenType
            | R::TokenIssuer
            | R::TokenAudience
            | R::TokenKeyUnknown
            | R::TokenSignature
            | R::TokenExpired
            | R::TokenNotYetValid
            | R::TokenClaim
            | R::TokenRule
            | R::TokenUserClaimMissing
            | R::TokenBound => 401,
            R::RequestOriginForeign
            | R::PolicyDenied
            | R::PolicyStreamDenied
            | R::PolicyStepUp
            | R::PolicyCredentialAmbiguous => 403,
            R::RequestPath | R::RpcMethodModern | R::SessionUnknown => 404,
            R::RequestMethod => 405,
            R::RequestNotAcceptable => 406,
            R::RequestTimeout => 408,
            R::RequestBodyTooLarge => 413,
            R::RequestTargetTooLong => 414,
            R::RequestContentEncoding | R::RequestContentType => 415,
            R::RequestExpectation => 417,
            R::RequestHostForeign => 421,
            R::RequestHeadTooLarge => 431,
            R::GatewayFault => 500,
            R::RequestTransferCoding | R::GatewayNotBuilt => 501,
            R::UpstreamConnect
            | R::UpstreamAddress
            | R::UpstreamTls
            | R::UpstreamMalformed
            | R::UpstreamEof
            | R::UpstreamAuth
            | R::UpstreamForbidden
            | R::UpstreamRedirect
            | R::UpstreamContentType => 502,
            R::KeysUnavailable
            | R::KeysPending
            | R::PolicyUnavailable
            | R::CredentialUnavailable
            | R::AuditUnavailable
            | R::GatewayOverloaded
            | R::GatewayDraining => 503,
            R::UpstreamTimeout => 504,
            R::RequestVersion => 505,
        }
    }

    /// The challenge of a 401 or of a step-up.
    #[must_use]
    pub const fn challenge(self) -> Challenge {
        use Reject as R;
        match self {
            R::TokenMissing => Challenge::Bare,
            R::TokenMalformed
            | R::TokenTooLarge
            | R::TokenAlgorithm
            | R::TokenCritical
            | R::TokenType
            | R::TokenIssuer
            | R::TokenAudience
            | R::TokenKeyUnknown
            | R::TokenSignature
            | R::TokenExpired
            | R::TokenNotYetValid
            | R::TokenClaim
            | R::TokenRule
            | R::TokenUserClaimMissing
            | R::TokenBound => Challenge::InvalidToken,
            R::PolicyStepUp => Challenge::InsufficientScope,
            R::RequestMalformed
            | R::RequestClTe
            | R::RequestFraming
            | R::RequestTransferCoding
            | R::RequestVersion
            | R::RequestTimeout
            | R::RequestHeadTooLarge
            | R::RequestTargetTooLong
            | R::RequestBodyTooLarge
            | R::RequestExpectation
            | R::RequestHost
            | R::RequestHostForeign
            | R::RequestOriginForeign
            | R::RequestMethod
            | R::RequestPath
            | R::RequestContentEncoding
            | R::RequestContentType
            | R::RequestNotAcceptable
            | R::RequestAborted
            | R::KeysUnavailable
            | R::KeysPending
            | R::RpcParse
            | R::RpcInvalid
            | R::RpcHeaderMismatch
            | R::RpcParams
            | R::RpcVersion
            | R::RpcMethodModern
            | R::RpcMethodLegacy
            | R::SessionUnknown
            | R::PolicyDenied
            | R::PolicyCallNoPermit
            | R::PolicyCallForbidden
            | R::PolicyStreamDenied
            | R::PolicyCredentialAmbiguous
            | R::PolicyUnavailable
            | R::CredentialUnavailable
            | R::AuditUnavailable
            | R::GatewayOverloaded
            | R::GatewayDraining
            | R::GatewayFault
            | R::GatewayNotBuilt
            | R::UpstreamConnect
            | R::UpstreamAddress
            | R::UpstreamTls
            | R::UpstreamMalformed
            | R::UpstreamEof
            | R::UpstreamTimeout
            | R::UpstreamAuth
            | R::UpstreamForbidden
            | R::UpstreamRedirect
            | R::UpstreamContentType => Challenge::None,
        }
    }

    /// The JSON-RPC error code, for answers to a message with an id.
    ///
    /// What the specification names has its code (JSON-RPC 2.0 §5.1, MCP 2026-07-28 basic/index
    /// "Error Codes"); everything of our own lies outside −32768…−32000 and is 1000 plus the HTTP
    /// status that the refusal has or would have.
    #[must_use]
    pub const fn json_rpc_code(self) -> i32 {
        use Reject as R;
        match self {
            R::RpcParse => -32700,
            R::RpcInvalid => -32600,
            R::RpcMethodModern | R::RpcMethodLegacy => -32601,
            R::RpcParams => -32602,
            R::RpcHeaderMismatch => -32020,
            R::RpcVersion => -32022,
            R::PolicyCallNoPermit | R::PolicyCallForbidden => 1403,
            R::RequestMalformed
            | R::RequestClTe
            | R::RequestFraming
            | R::RequestTransferCoding
            | R::RequestVersion
            | R::RequestTimeout
            | R::RequestHeadTooLarge
            | R::RequestTargetTooLong
            | R::RequestBodyTooLarge
            | R::RequestExpectation
            | R::RequestHost
            | R::RequestHostForeign
            | R::RequestOriginForeign
            | R::RequestMethod
            | R::RequestPath
            | R::RequestContentEncoding
            | R::RequestContentType
            | R::RequestNotAcceptable
            | R::RequestAborted
            | R::TokenMissing
            | R::TokenMalformed
            | R::TokenTooLarge
            | R::TokenAlgorithm
            | R::TokenCritical
            | R::TokenType
            | R::TokenIssuer
            | R::TokenAudience
            | R::TokenKeyUnknown
            | R::TokenSignature
            | R::TokenExpired
            | R::TokenNotYetValid
            | R::TokenClaim
            | R::TokenRule
            | R::TokenUserClaimMissing
            | R::TokenBound
            | R::KeysUnavailable
            | R::KeysPending
            | R::SessionUnknown
            | R::PolicyDenied
            | R::PolicyStreamDenied
            | R::PolicyStepUp
            | R::PolicyCredentialAmbiguous
            | R::PolicyUnavailable
            | R::CredentialUnavailable
            | R::AuditUnavailable
            | R::GatewayOverloaded
            | R::GatewayDraining
            | R::GatewayFault
            | R::GatewayNotBuilt
            | R::UpstreamConnect
            | R::UpstreamAddress
            | R::UpstreamTls
            | R::UpstreamMalformed
            | R::UpstreamEof
            | R::UpstreamTimeout
            | R::UpstreamAuth
            | R::UpstreamForbidden
            | R::UpstreamRedirect
            | R::UpstreamContentType => 1000 + self.status() as i32,
        }
    }

    /// The reason word: in the audit record, in metrics and in the answer's body. Stable.
    #[must_use]
    pub const fn audit_code(self) -> &'static str {
        use Reject as R;
        match self {
            R::RequestMalformed => "http_malformed",
            R::RequestClTe => "cl_te",
            R::RequestFraming => "http_framing",
            R::RequestTransferCoding => "transfer_coding",
            R::RequestVersion => "http_version",
            R::RequestTimeout => "request_timeout",
            R::RequestHeadTooLarge => "head_too_large",
            R::RequestTargetTooLong => "target_too_long",
            R::RequestBodyTooLarge => "body_too_large",
            R::RequestExpectation => "expectation",
            R::RequestHost => "host_invalid",
            R::RequestHostForeign => "host_foreign",
            R::RequestOriginForeign => "origin_foreign",
            R::RequestMethod => "method_not_allowed",
            R::RequestPath => "not_found",
            R::RequestContentEncoding => "content_encoding",
            R::RequestContentType => "content_type",
            R::RequestNotAcceptable => "not_acceptable",
            R::RequestAborted => "request_aborted",
            R::TokenMissing => "token_missing",
            R::TokenMalformed => "token_malformed",
            R::TokenTooLarge => "token_too_large",
            R::TokenAlgorithm => "token_algorithm",
            R::TokenCritical => "token_critical",
            R::TokenType => "token_type",
            R::TokenIssuer => "token_issuer",
            R::TokenAudience => "token_audience",
            R::TokenKeyUnknown => "token_key_unknown",
            R::TokenSignature => "token_signature",
            R::TokenExpired => "token_expired",
            R::TokenNotYetValid => "token_not_yet_valid",
            R::TokenClaim => "token_claim",
            R::TokenRule => "token_rule",
            R::TokenUserClaimMissing => "user_claim_missing",
            R::TokenBound => "token_bound",
            R::KeysUnavailable => "jwks_unavailable",
            R::KeysPending => "jwks_pending",
            R::RpcParse => "rpc_parse",
            R::RpcInvalid => "rpc_invalid",
            R::RpcHeaderMismatch => "header_mismatch",
            R::RpcParams => "rpc_params",
            R::RpcVersion => "revision_unsupported",
            R::RpcMethodModern | R::RpcMethodLegacy => "method_unknown",
            R::SessionUnknown => "session_mismatch",
            R::PolicyDenied | R::PolicyCallNoPermit => "no_permit",
            R::PolicyCallForbidden => "forbidden",
            R::PolicyStreamDenied => "stream_denied",
            R::PolicyStepUp => "insufficient_scope",
            R::PolicyCredentialAmbiguous => "credential_ambiguous",
            R::PolicyUnavailable => "policy_unavailable",
            R::CredentialUnavailable => "credential_unavailable",
            R::AuditUnavailable => "audit_unavailable",
            R::GatewayOverloaded => "overloaded",
            R::GatewayDraining => "draining",
            R::GatewayFault => "gateway_fault",
            R::GatewayNotBuilt => "not_built",
            R::UpstreamConnect => "upstream_connect",
            R::UpstreamAddress => "upstream_address",
            R::UpstreamTls => "upstream_tls",
            R::UpstreamMalformed => "upstream_malformed",
            R::UpstreamEof => "upstream_eof",
            R::UpstreamTimeout => "upstream_timeout",
            R::UpstreamAuth => "upstream_auth",
            R::UpstreamForbidden => "upstream_forbidden",
            R::UpstreamRedirect => "upstream_redirect",
            R::UpstreamContentType => "upstream_content_type",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_codes_stay_out_of_the_reserved_range() {
        for reject in [Reject::PolicyDenied, Reject::UpstreamTimeout, Reject::PolicyCallNoPermit] {
            assert!(!(-32768..=-32000).contains(&reject.json_rpc_code()));
        }
        assert_eq!(Reject::UpstreamTimeout.json_rpc_code(), 1504);
        assert_eq!(Reject::RpcHeaderMismatch.json_rpc_code(), -32020);
    }

    #[test]
    fn only_a_request_without_authentication_gets_a_bare_challenge() {
        assert_eq!(Reject::TokenMissing.challenge(), Challenge::Bare);
        assert_eq!(Reject::TokenExpired.challenge(), Challenge::InvalidToken);
        assert_eq!(Reject::KeysPending.challenge(), Challenge::None);
    }
}

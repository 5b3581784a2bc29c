//! The closed list of reasons to refuse.
//!
//! A variant carries no payload, so no secret and no input can travel in it. Its name says who is
//! at fault: the request, the token, the policy, the credential, the upstream or the gateway. Four
//! total functions without wildcard arms turn it into an answer; a new variant breaks the build in
//! each of them, which are exactly the four questions its author must answer.

mod words;

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
    /// A trusted proxy did not say, or said unusably, whom it speaks for (RFC 7239 §6).
    RequestSource,

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
    /// A name on `/mcp` that more than one server answers to.
    NameAmbiguous,
    /// A cursor of `/mcp` that is not ours, not this principal's, or of a list that is no more.
    CursorUnknown,
    /// A request state or a task id of `/mcp` that is not ours, or not this principal's.
    StateForeign,
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
    /// An argument that a policy asks for has a value that policies cannot hold.
    PolicyArgument,
    /// No decision could be had.
    PolicyUnavailable,
    /// More requests than a rate limit grants (RFC 6585 §4).
    QuotaExceeded,
    /// The same on `initialize` or `server/discover`, where clients take a 429 for a broken server.
    QuotaHandshake,

    // -- credential, audit, gateway --
    /// The upstream credential could not be had.
    CredentialUnavailable,
    /// Strict audit cannot keep the decision.
    AuditUnavailable,
    /// Too many connections or requests.
    GatewayOverloaded,
    /// Too much is on its way to the core that waits for this message.
    MailFull,
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
    /// Its answer is longer than one that is held may be.
    UpstreamTooLarge,
    /// It failed so often of late that it is left alone for a moment.
    UpstreamSuspended,
    /// It speaks another era than the client, and what was asked has no form in it.
    UpstreamEra,
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
            R::RpcMethodLegacy
            | R::NameAmbiguous
            | R::CursorUnknown
            | R::StateForeign
            | R::PolicyCallNoPermit
            | R::PolicyCallForbidden
            | R::PolicyArgument => 200,
            R::RequestMalformed
            | R::RequestClTe
            | R::RequestFraming
            | R::RequestHost
            | R::RequestAborted
            | R::RequestSource
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
            R::QuotaExceeded => 429,
            R::RequestHeadTooLarge => 431,
            R::GatewayFault => 500,
            R::RequestTransferCoding | R::GatewayNotBuilt => 501,
            R::UpstreamConnect
            | R::UpstreamAddress
            | R::UpstreamTls
            | R::UpstreamMalformed
            | R::UpstreamEof
            | R::UpstreamTooLarge
            | R::UpstreamEra
            | R::UpstreamAuth
            | R::UpstreamForbidden
            | R::UpstreamRedirect
            | R::UpstreamContentType => 502,
            R::KeysUnavailable
            | R::KeysPending
            | R::PolicyUnavailable
            | R::QuotaHandshake
            | R::CredentialUnavailable
            | R::UpstreamSuspended
            | R::AuditUnavailable
            | R::GatewayOverloaded
            | R::MailFull
            | R::GatewayDraining => 503,
            R::UpstreamTimeout => 504,
            R::RequestVersion => 505,
        }
    }

    /// The challenge of a 401, which never goes without one (RFC 9110 §15.5.2), or of a step-up.
    #[must_use]
    pub const fn challenge(self) -> Challenge {
        match (self, self.status()) {
            (Self::TokenMissing, _) => Challenge::Bare,
            (Self::PolicyStepUp, _) => Challenge::InsufficientScope,
            (_, 401) => Challenge::InvalidToken,
            _ => Challenge::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_without_authentication_gets_a_bare_challenge() {
        assert_eq!(Reject::TokenMissing.challenge(), Challenge::Bare);
        assert_eq!(Reject::TokenExpired.challenge(), Challenge::InvalidToken);
        assert_eq!(Reject::KeysPending.challenge(), Challenge::None);
    }
}

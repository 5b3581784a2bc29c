//! What a refusal is called: a code towards JSON-RPC, a word towards everyone who reads records.

use super::Reject;

impl Reject {
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
            R::RpcParams | R::CursorUnknown | R::StateForeign => -32602,
            R::RpcHeaderMismatch => -32020,
            R::RpcVersion => -32022,
            R::PolicyCallNoPermit | R::PolicyCallForbidden | R::PolicyArgument => 1403,
            R::NameAmbiguous => 1409,
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
            | R::RequestSource
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
            | R::QuotaExceeded
            | R::QuotaHandshake
            | R::CredentialUnavailable
            | R::AuditUnavailable
            | R::GatewayOverloaded
            | R::MailFull
            | R::GatewayDraining
            | R::GatewayFault
            | R::GatewayNotBuilt
            | R::UpstreamConnect
            | R::UpstreamAddress
            | R::UpstreamTls
            | R::UpstreamMalformed
            | R::UpstreamEof
            | R::UpstreamTimeout
            | R::UpstreamTooLarge
            | R::UpstreamSuspended
            | R::UpstreamEra
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
            R::RequestSource => "source_unknown",
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
            R::NameAmbiguous => "name_ambiguous",
            R::CursorUnknown => "cursor_unknown",
            R::StateForeign => "state_foreign",
            R::SessionUnknown => "session_mismatch",
            R::PolicyDenied | R::PolicyCallNoPermit => "no_permit",
            R::PolicyCallForbidden => "forbidden",
            R::PolicyStreamDenied => "stream_denied",
            R::PolicyStepUp => "insufficient_scope",
            R::PolicyCredentialAmbiguous => "credential_ambiguous",
            R::PolicyArgument => "argument_unrepresentable",
            R::PolicyUnavailable => "policy_unavailable",
            R::QuotaExceeded | R::QuotaHandshake => "quota",
            R::CredentialUnavailable => "credential_unavailable",
            R::AuditUnavailable => "audit_unavailable",
            R::GatewayOverloaded => "overloaded",
            R::MailFull => "mail_full",
            R::GatewayDraining => "draining",
            R::GatewayFault => "gateway_fault",
            R::GatewayNotBuilt => "not_built",
            R::UpstreamConnect => "upstream_connect",
            R::UpstreamAddress => "upstream_address",
            R::UpstreamTls => "upstream_tls",
            R::UpstreamMalformed => "upstream_malformed",
            R::UpstreamEof => "upstream_eof",
            R::UpstreamTimeout => "upstream_timeout",
            R::UpstreamTooLarge => "upstream_too_large",
            R::UpstreamSuspended => "upstream_suspended",
            R::UpstreamEra => "upstream_era",
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
}

//! Every bound: bytes, counts, time. The unit is the last word of the name. What an operator may
//! change is a field of [`Limits`], whose defaults stand here; relations are checked when we
//! compile.

use std::time::Duration;

// -- downstream head (RFC 9112 §3, §5) --
/// Bytes of a request head, first line and fields together (431 above).
pub const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Field lines of a head (431 above).
pub const HEAD_FIELDS_MAX: usize = 100;
/// Bytes of all `Forwarded` fields of a request.
pub const FORWARDED_BYTES_MAX: usize = 4096;
/// Hops that they may name.
pub const FORWARDED_ELEMENTS_MAX: usize = 32;
/// Bytes of a PROXY header after its first 16.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;
/// Bytes of the database of countries; the biggest ones sold have some 200 MiB.
pub const GEOIP_BYTES_MAX: usize = 256 << 20;
/// Networks of it that are looked at for one with a country.
pub const GEOIP_LOOKED_AT_MAX: usize = 65_536;
/// Bytes of an answer of a remote decision point.
pub const PDP_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Bytes of what it publishes about itself.
pub const PDP_METADATA_BYTES_MAX: usize = 64 * 1024;
/// Questions about one list that are asked one by one.
pub const PDP_ONE_BY_ONE_MAX: usize = 64;
/// Permits of it that one core keeps, where `permit_ttl_seconds` says for how long.
pub const PDP_KEPT_ENTRIES_MAX: usize = 4096;
/// Bytes of the key of one of them; what needs more is asked about each time.
pub const PDP_KEPT_KEY_BYTES_MAX: usize = 2048;
/// Idle connections of one core to it.
pub const PDP_IDLE_PER_CORE_MAX: usize = 16;
/// Networks that each node of its tree may stand for. A tree has one more than nodes, and those of
/// IPv4 are reached in some five ways (as ::ffff:0:0/96 or 2002::/16, for example).
pub const GEOIP_NETWORKS_PER_NODE_MAX: u64 = 16;
/// Entries of `listen.trusted_proxies`.
pub const TRUSTED_PROXIES_MAX: usize = 64;
/// Bits of the prefix of an IPv4 network of them: anything wider is as good as everybody.
pub const TRUSTED_V4_PREFIX_MIN: u32 = 8;
/// The same for IPv6.
pub const TRUSTED_V6_PREFIX_MIN: u32 = 16;
/// Bytes of a request target (414 above).
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a method name; the longest that any registry holds is far shorter.
pub const METHOD_BYTES_MAX: usize = 32;
/// Bytes of one field name (431 above).
pub const FIELD_NAME_BYTES_MAX: usize = 256;
/// Bytes of `host[:port]`: a DNS name and a port.
pub const HOST_BYTES_MAX: usize = 261;
/// Bytes of one chunk-size line with its extensions.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Bytes of all chunk extensions of one body.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 1024;
/// Lines of a trailer section.
pub const TRAILER_LINES_MAX: usize = 16;
/// Bytes of a trailer section.
pub const TRAILER_BYTES_MAX: usize = 4096;

// -- body, JSON, tokens --
/// Bytes of a request body; it is judged whole, so it is held whole (413 above).
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Nesting of JSON objects and arrays.
pub const JSON_DEPTH_MAX: usize = 64;
/// Bytes of a bearer token.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a JSON-RPC id as written.
pub const RPC_ID_BYTES_MAX: usize = 1024;
/// Bytes of a tool, prompt or resource name that is judged.
pub const NAME_BYTES_MAX: usize = 4096;
/// Bytes of a string argument that a policy can judge.
pub const ARGUMENT_TEXT_BYTES_MAX: usize = 4096;
/// Members of an argument that is a set.
pub const ARGUMENT_SET_MAX: usize = 64;
/// Bytes of all arguments of a call that policies ask for, as they are kept. Those that only shadow
/// policies ask for are counted apart.
pub const ARGUMENTS_BYTES_MAX: usize = 16 * 1024;
/// Arguments of one tool, or members of one record among them, that policies may ask for.
pub const PLAN_FIELDS_MAX: usize = 32;
/// Levels of the type that `schema.d` gives a tool's arguments: records, sets, names of types.
pub const ARGUMENT_DEPTH_MAX: usize = 8;
/// Bytes of a list that is held to be filtered; a longer one is refused.
pub const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Items of one such list: each is a decision or up to four, some 0.1 µs for one that is kept,
/// 20 µs for a fresh one with a condition (bench `list_filter`). A longer list comes in pages.
pub const LIST_ITEMS_MAX: usize = 10_000;
/// Bytes of one item of a list on `/mcp`.
pub const CATALOG_ITEM_BYTES_MAX: usize = 64 * 1024;
/// Pages of one list of a server, all of which `/mcp` asks for.
pub const CATALOG_PAGES_MAX: usize = 64;
/// Bytes of a server's cursor.
pub const CATALOG_CURSOR_BYTES_MAX: usize = 4096;
/// Arguments of one tool that are mirrored into headers.
pub const CATALOG_PARAMS_MAX: usize = 16;
/// Bytes of all lists that one core remembers; beyond them the oldest go.
pub const CATALOGS_BYTES_PER_CORE_MAX: usize = 64 << 20;
/// How long a list may be used at most, whatever its server says.
pub const CATALOG_LIFETIME: Duration = Duration::from_secs(60);
/// How long one that its server wants fetched each time still tells which server has what.
pub const CATALOG_ROUTING: Duration = Duration::from_secs(5);
/// Templates of one server that are looked at to know whether a URI is its own.
pub const TEMPLATES_MATCHED_MAX: usize = 256;
/// Bytes of the items of one page of a list on `/mcp`; one item always has a place.
pub const PAGE_BYTES_MAX: usize = 1 << 20;
/// How long a client may take from one page to the next, in seconds.
pub const CURSOR_SECONDS_MAX: u64 = 600;
/// Time after which the judging of a list leaves a turn to others of its core, in microseconds.
pub const LIST_TURN_MICROS: u64 = 500;
/// Items that are judged between two looks at the clock: up to four fresh decisions each.
pub const LIST_ITEMS_AT_ONCE: usize = 4;
/// Tasks that one `subscriptions/listen` may name.
pub const LISTEN_TASKS_MAX: usize = 256;
/// Bytes of a JSON-RPC method name.
pub const RPC_METHOD_BYTES_MAX: usize = 256;
/// Bytes of a protocol revision, in the header or in the body.
pub const REVISION_BYTES_MAX: usize = 64;
/// Resources that one `subscriptions/listen` may name.
pub const LISTEN_RESOURCES_MAX: usize = 256;
/// Bytes of the instructions that are kept of one upstream, and that `/mcp` gives to an agent in
/// all: they end up in prompts.
pub const HELLO_INSTRUCTIONS_BYTES_MAX: usize = 8 * 1024;
/// Messages of an upstream that may come before its answer to a handshake.
pub const HUB_MESSAGES_BEFORE_ANSWER_MAX: usize = 64;
/// How long an upstream's handshake is believed, and with it that it speaks this era and not
/// another.
pub const HELLO_LIFETIME: Duration = Duration::from_secs(600);
/// How old it must be to be held again when the upstream contradicts it.
pub const HELLO_AGAIN: Duration = Duration::from_secs(10);
/// Handshakes that one core remembers: 20 MiB if all have as much to say as is kept of one.
pub const HELLOS_PER_CORE_MAX: usize = 2048;
/// Bytes of the name and version that an upstream gives itself; more is not kept.
pub const HELLO_INFO_BYTES_MAX: usize = 1024;
/// Bytes of an upstream's session id that we seal into our own.
pub const SESSION_UPSTREAM_ID_BYTES_MAX: usize = 1024;
/// How long a client may take to come back with a server's `requestState`.
pub const STATE_SECONDS_MAX: u64 = 600;
/// Questions of a server in one `input_required`, or while it works on one request.
pub const INPUT_REQUESTS_MAX: usize = 16;
/// Bytes that we seal into one value that a client keeps for us: a server's `requestState`, mostly.
pub const SEALED_PLAIN_BYTES_MAX: usize = 64 * 1024;
/// How far in the future a sealed session may have been issued: clocks of two instances differ.
pub const SESSION_SKEW_SECONDS_MAX: u64 = 60;
/// How long a session may be configured to live.
pub const SESSION_LIFETIME_SECONDS_MAX: u64 = 30 * 86_400;
/// Sessions that ended before their time and are remembered so (2 MiB per core and 2 MiB in all).
pub const SESSIONS_ENDED_MAX: usize = 65_536;
/// Buffers that grew beyond this for one body are given back after it.
pub const BODY_BUFFER_KEPT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a name in an audit record; longer ones are cut.
pub const AUDIT_NAME_BYTES_MAX: usize = 256;
/// Connections of one core that may wait for a request with [`INPUT_BYTES`] of memory: 6 MiB. Those
/// beyond wait without any, at the price of one operation more, and of an allocation for a head of
/// more than 3 KiB.
pub const WAITING_BUSY_MAX: usize = 256;
/// Room for one read of a request: its head, and mostly the body that came with it.
pub const INPUT_BYTES: usize = 24 * 1024;
/// The same for a head whose rest does not come at once, and for a connection that found no place
/// among [`WAITING_BUSY_MAX`]. This, or twice the bytes that came, is all it is read into; with
/// TLS, 4 KiB and an unfinished record stand beside it. With its task such a connection was seen to
/// take 12 KiB over plain HTTP (2,000 that sent one byte each), so 16,384 of them take 200 MiB.
pub const LEAN_INPUT_BYTES: usize = 4 * 1024;

// -- relay --
/// Bytes of one relay buffer; at most two per direction are in use. An answer of 16 KiB fits into
/// one with its head, so it takes one read and one write.
pub const RELAY_BUFFER_BYTES: usize = 32 * 1024;
/// Bytes of the one buffer through which a body of a declared length goes that is longer than a
/// relay buffer.
pub const LONG_BUFFER_BYTES: usize = 64 * 1024;
/// A body up to this long is copied behind its head where both fit into a relay buffer; a longer
/// one leaves from where it lies.
pub const COPY_BYTES_MAX: usize = 24 * 1024;
/// A write of fewer bytes waits for the next turn of the event loop and shares its system call.
pub const WRITE_NOW_BYTES_MIN: usize = 32 * 1024;
/// Bytes of an upstream response head.
pub const UPSTREAM_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Interim (1xx) responses before the final one.
pub const UPSTREAM_INTERIM_MAX: usize = 8;
/// Bytes of one server-sent event. Only streams in which there may be a list are held back, event
/// by event; for all others this bounds no memory of ours, but ends a server that never ends an
/// event, before an agent has to buffer it (case M15).
pub const SSE_EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of a JSON answer to the hub, which looks into it and so holds it whole.
pub const TALK_JSON_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one event to the hub, for the same reason.
pub const TALK_EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Events and comments of one stream to the hub within a second; a server that says more is cut.
pub const TALK_EVENTS_PER_SECOND_MAX: u32 = 10_000;
/// Bytes of pipelined requests read ahead while an answer is under way.
pub const PIPELINE_BYTES_MAX: usize = HEAD_BYTES_MAX;

// -- keys (RFC 7517) --
/// Bytes of a key set document.
pub const JWKS_BYTES_MAX: usize = 64 * 1024;
/// Keys of one set.
pub const JWKS_KEYS_MAX: usize = 64;
/// Time for one fetch of a key set, the discovery documents that lead to it included.
pub const JWKS_FETCH_MS_MAX: u64 = 3_000;
/// How long a fetched set is fresh when the answer does not say.
pub const JWKS_FRESH_SECONDS_DEFAULT: u64 = 300;
/// Bounds of what `Cache-Control: max-age` may ask for.
pub const JWKS_FRESH_SECONDS_MIN: u64 = 60;
/// Upper bound of the same.
pub const JWKS_FRESH_SECONDS_MAX: u64 = 3_600;
/// How long past its freshness the last good set may serve while fetching fails.
pub const JWKS_STALE_SECONDS_MAX: u64 = 3_600;
/// Refetches for unknown key ids that one issuer may cause at once, per process.
pub const JWKS_REFETCH_BURST: u32 = 2;
/// One more such refetch per this many seconds.
pub const JWKS_REFETCH_SECONDS: u64 = 30;
/// First pause after a failed fetch; doubles with every further failure.
pub const JWKS_RETRY_SECONDS_MIN: u64 = 1;
/// Longest pause after failed fetches.
pub const JWKS_RETRY_SECONDS_MAX: u64 = 30;
/// Smallest RSA modulus (NIST SP 800-131A).
pub const RSA_MODULUS_BITS_MIN: usize = 2_048;
/// Largest RSA modulus; beyond it a verification is a way to burn our CPU.
pub const RSA_MODULUS_BITS_MAX: usize = 8_192;

// -- configuration --
/// Bytes of a configuration file.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// Trust providers.
pub const TRUST_PROVIDERS_MAX: usize = 64;
/// MCP servers.
pub const SERVERS_MAX: usize = 1024;
/// Bytes of the prefix of a server's names on `/mcp`.
pub const PREFIX_BYTES_MAX: usize = 32;
/// Upstream credentials.
pub const CREDENTIALS_MAX: usize = 1024;
/// Extension methods.
pub const EXTENSION_METHODS_MAX: usize = 64;
/// Bytes of one secret as read from its source.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;

// -- caches, per core --
/// Lifetime of a verified token and of an upstream credential in memory.
pub const CACHE_SECONDS_MAX: u64 = 60;
/// Verified tokens.
pub const TOKEN_CACHE_ENTRIES_MAX: usize = 65_536;
/// Bytes of all verified tokens together, with what was read from them: 1.5 KiB for each of as many
/// usual tokens as may be remembered.
pub const TOKEN_CACHE_BYTES_MAX: usize = 96 * 1024 * 1024;
/// Decisions: for each remembered token that of the gateway, and one of a server's.
pub const DECISION_CACHE_ENTRIES_MAX: usize = 2 * TOKEN_CACHE_ENTRIES_MAX;
/// Upstream credentials.
pub const CREDENTIAL_CACHE_ENTRIES_MAX: usize = 65_536;
/// Cold signature verifications in one turn of the event loop.
pub const VERIFY_PER_TURN_MAX: u32 = 4;
/// Requests with tokens never verified here that wait for such a verification; more are refused
/// with 503. The signatures of so many take about 60 ms; what else the turns do meanwhile, and
/// whoever is served first, comes on top.
pub const VERIFY_WAITING_MAX: usize = 1024;
/// Requests that wait for newer keys of one provider; more are refused with 503. Each holds a place
/// among those in flight for as long as a fetch takes, and anybody can make up a key id: so these
/// are a sixteenth of those places.
pub const KEYS_WAITING_MAX: usize = 256;
/// The same for all providers together: a quarter of the places, however many providers there are.
pub const KEYS_WAITING_ALL_MAX: usize = 1024;

// -- policy --
/// Bytes of one policy file.
pub const POLICY_FILE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Policy files.
pub const POLICY_FILES_MAX: usize = 1024;
/// Policies of one set.
pub const POLICIES_MAX: usize = 20_000;
/// Bytes of one policy.
pub const POLICY_BYTES_MAX: usize = 64 * 1024;
/// Brackets within brackets of one policy: parsing takes stack for each.
pub const POLICY_NESTING_MAX: usize = 32;
/// Operators and attribute accesses of one policy: validation takes stack for each of a chain.
pub const POLICY_OPERATORS_MAX: usize = 300;
/// Bytes of an `@id`: it goes into audit records.
pub const POLICY_ID_BYTES_MAX: usize = 128;
/// Policies that name no server, before that is worth a warning: each is looked at for all servers.
pub const POLICIES_ANYWHERE_MAX: usize = 50;
/// Pairs of policies that are looked at for warnings.
pub const POLICY_PAIRS_MAX: usize = 2_000_000;
/// Names of users, agents and groups that a set takes over from the one before; with more, it is
/// compiled as the first one is.
pub const POLICY_NAMES_KEPT_MAX: usize = 200_000;
/// Warnings that one load gives.
pub const POLICY_WARNINGS_MAX: usize = 50;
/// Faults that one load reports.
pub const POLICY_FAULTS_MAX: usize = 200;
/// Microseconds that policies are compiled for at a time.
pub const POLICY_YIELD_US: u64 = 1_000;
/// How often changing policy files are read anew before that is a fault (reads).
pub const POLICY_READS_MAX: usize = 5;
/// Between two looks at the policy files, with `policy.watch`. A change is read when a second look
/// finds it as the first did.
pub const POLICY_WATCH_EVERY: Duration = Duration::from_millis(200);
/// Bytes of one file of `policy test`.
pub const POLICY_CASES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Cases of one file of `policy test`.
pub const POLICY_CASES_MAX: usize = 100_000;
/// Tools of one server that `policy schema` writes.
pub const SCHEMA_TOOLS_MAX: usize = 10_000;
/// Arguments of one tool that it writes, nested ones included.
pub const SCHEMA_PROPERTIES_MAX: usize = 2_000;
/// Bytes that it prints: what the gateway reads of one file.
pub const SCHEMA_TEXT_BYTES_MAX: usize = POLICY_FILE_BYTES_MAX;
/// Pages of one server's `tools/list` that it asks for.
pub const SCHEMA_PAGES_MAX: usize = 256;
/// Bytes of all of them, as they are answered; one page has [`LIST_BYTES_MAX`].
pub const SCHEMA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a cursor that it sends back.
pub const SCHEMA_CURSOR_BYTES_MAX: usize = 4096;
/// For everything that it asks a server, session included.
pub const SCHEMA_WITHIN: Duration = Duration::from_secs(120);
/// For the end of that session, whose answer changes nothing.
pub const SCHEMA_FAREWELL_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of one audit record that `policy replay` reads; none that is written is as long.
pub const REPLAY_LINE_BYTES_MAX: usize = 64 * 1024;
/// Tools, prompts and resources that one message may touch.
pub const POLICY_TARGETS_MAX: usize = 256;
/// Bytes of the key of a cached decision; what needs more is decided anew each time.
pub const DECISION_KEY_BYTES_MAX: usize = 1024;

/// Rate limits of a configuration.
pub const RATE_LIMITS_MAX: usize = 64;
/// Callers whose requests one core counts for rate limits.
pub const QUOTA_CALLERS_MAX: usize = 65_536;
/// Callers whose requests all cores together count for exact rate limits (1.7 MB in all).
pub const EXACT_CALLERS_MAX: usize = 65_536;
/// How often one request is tried to be counted for an exact rate limit, while other cores count
/// theirs (tries).
pub const EXACT_TRIES_MAX: usize = 1_024;

// -- /mcp, per core --
/// Failures in a row after which an upstream is left alone.
pub const BREAKER_FAILURES: u32 = 5;
/// For how long, first; doubles with every try that fails.
pub const BREAKER_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest such pause.
pub const BREAKER_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A session of ours with a legacy server that was not used for so long is forgotten.
pub const HUB_SESSION_IDLE: Duration = Duration::from_secs(15 * 60);
/// Bytes of the id of a call that can be cancelled, as it is written. SDKs count, or write a UUID.
pub const HUB_CANCEL_ID_BYTES_MAX: usize = 256;
/// How long an agent that ends its session waits for its servers to hear of it.
pub const HUB_FAREWELL: Duration = Duration::from_secs(1);
/// Questions to clients that wait for an answer.
pub const HUB_PENDING_PER_CORE_MAX: usize = 256;
/// The same of one principal.
pub const HUB_PENDING_PER_PRINCIPAL_MAX: usize = 16;

// -- cross-core --
/// Notices in one inbox before it overflows into "purge everything".
pub const BUS_NOTICES_MAX: usize = 1024;
/// Letters on their way from one core to another; one more is refused with 503.
pub const MAIL_LETTERS_MAX: usize = 64;
/// Bytes of one letter's body: what a configuration may let a request body have.
pub const MAIL_BODY_BYTES_MAX: usize = 16 * BODY_BYTES_MAX;

// -- audit --
/// Bytes of one per-core audit ring file.
pub const AUDIT_RING_BYTES: usize = 8 * 1024 * 1024;
/// Bytes of one encoded audit record.
pub const AUDIT_RECORD_BYTES_MAX: usize = 8192;
/// A request open longer than this is written early.
pub const AUDIT_OPEN_SECONDS_MAX: u64 = 60;

// -- metrics --
/// Sets of labels that one core counts requests by; the rest is counted as `other`.
pub const METRIC_REQUEST_SLOTS_MAX: usize = 4096;
/// Server names that one core ever met, over all reloads.
pub const METRIC_SERVER_SLOTS_MAX: usize = 2 * SERVERS_MAX;

// -- time --
/// Error back-off of accept when descriptors or memory are short (EMFILE and its kin).
pub const ACCEPT_BACKOFF_MS: u64 = 50;
/// One turn of the per-core timer wheel: the precision of every deadline.
pub const WHEEL_TICK_MS: u64 = 10;
/// A response that takes longer than this makes the relay watch for a client that leaves.
pub const WATCH_CLIENT_AFTER_MS: u64 = 100;
/// A silent event stream gets a comment line this often.
pub const SSE_KEEPALIVE_SECONDS: u64 = 15;

/// What `[limits]` may change. Every field has a range that `config` checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of one core; more are refused with 503.
    pub connections_per_core_max: usize,
    /// Requests in flight on one core; more are refused with 503.
    pub inflight_per_core_max: usize,
    /// Idle upstream connections kept per core and server.
    pub upstream_idle_per_core_max: usize,
    /// Bytes of a request body.
    pub body_bytes_max: usize,
    /// Time for a whole request head, from its first byte.
    pub head_ms_max: u64,
    /// Longest pause within a request body; time for a client to take one write of at most 64 KiB.
    pub stall_ms_max: u64,
    /// Longest pause between two requests of a connection.
    pub idle_ms_max: u64,
    /// Time for a TLS handshake.
    pub handshake_ms_max: u64,
    /// Time to connect to an upstream, its TLS handshake included.
    pub connect_ms_max: u64,
    /// Time that a request may wait for keys.
    pub keys_wait_ms_max: u64,
    /// Time that SIGTERM leaves to requests in flight.
    pub drain_ms_max: u64,
    /// Sessions that `/mcp` keeps open with servers, on each core.
    pub hub_sessions_per_core_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_core_max: 16_384,
            inflight_per_core_max: 4_096,
            upstream_idle_per_core_max: 256,
            body_bytes_max: BODY_BYTES_MAX,
            head_ms_max: 10_000,
            stall_ms_max: 30_000,
            idle_ms_max: 75_000,
            handshake_ms_max: 5_000,
            connect_ms_max: 3_000,
            keys_wait_ms_max: JWKS_FETCH_MS_MAX + 1_000,
            drain_ms_max: 30_000,
            hub_sessions_per_core_max: 4_096,
        }
    }
}

/// `WHEEL_TICK_MS` as a duration.
pub const WHEEL_TICK: Duration = Duration::from_millis(WHEEL_TICK_MS);

const _: () = assert!(TARGET_BYTES_MAX < HEAD_BYTES_MAX, "a target must fit into a head");
const _: () = assert!(TOKEN_BYTES_MAX < HEAD_BYTES_MAX, "a token must fit into a head");
const _: () = assert!(HEAD_BYTES_MAX < BODY_BYTES_MAX);
const _: () = assert!(2 * RELAY_BUFFER_BYTES <= 64 * 1024, "the contract's bound per direction");
const _: () = assert!(LONG_BUFFER_BYTES <= 64 * 1024, "the same: then it is the only one");
const _: () = assert!(INPUT_BYTES < HEAD_BYTES_MAX, "most heads are short, and room is memory");
const _: () = assert!(2 * LEAN_INPUT_BYTES < INPUT_BYTES, "or it would save nothing");
const _: () = assert!(INPUT_BYTES <= COPY_BYTES_MAX, "what is read at once is written at once");
const _: () = assert!(
    COPY_BYTES_MAX + 8 * 1024 <= RELAY_BUFFER_BYTES,
    "beside the longest copied body a head of 8 KiB fits, as servers take them"
);
const _: () = assert!(RELAY_BUFFER_BYTES <= WRITE_NOW_BYTES_MIN, "what was copied is batched");
const _: () = assert!(RELAY_BUFFER_BYTES < LONG_BUFFER_BYTES, "or a relay cannot tell them apart");
const _: () = assert!(JWKS_FRESH_SECONDS_MIN <= JWKS_FRESH_SECONDS_DEFAULT);
const _: () = assert!(JWKS_FRESH_SECONDS_DEFAULT <= JWKS_FRESH_SECONDS_MAX);
const _: () = assert!(JWKS_RETRY_SECONDS_MIN <= JWKS_RETRY_SECONDS_MAX);
const _: () = assert!(KEYS_WAITING_MAX < KEYS_WAITING_ALL_MAX, "one provider is not all of them");
const _: () = assert!(TOKEN_BYTES_MAX * 1024 <= TOKEN_CACHE_BYTES_MAX);
const _: () = assert!(AUDIT_RECORD_BYTES_MAX * 1024 <= AUDIT_RING_BYTES);

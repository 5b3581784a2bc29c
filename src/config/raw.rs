//! What was written: one struct per table of the contract, every key optional, nothing judged but
//! its type. The struct is the list of known keys, so the two cannot differ.

use toml::Spanned;
use toml::de::DeValue;

use super::fault::{Place, Report};
use super::reader::{At, Field, Value, table};

/// A string and its place.
pub(super) type Text = Option<At<String>>;
/// A number and its place.
pub(super) type Number = Option<At<u64>>;
/// A switch and its place.
pub(super) type Switch = Option<At<bool>>;
/// A list of strings and its place.
pub(super) type Texts = Option<At<Vec<At<String>>>>;

/// Declares a table: its struct, its known keys and how it is read.
macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident { $($key:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[allow(dead_code, reason = "a key that is not built yet is read, but only to be refused")]
        pub(super) struct $name {
            /// Its header, or where its value starts.
            pub(super) place: Place,
            $(pub(super) $key: $kind,)*
        }

        impl Value for $name {
            fn read(
                value: &Spanned<DeValue<'_>>,
                place: Place,
                report: &mut Report<'_>,
            ) -> Option<Self> {
                let known = [$(stringify!($key)),*];
                let table = table(value.get_ref(), &place, &known, report)?;
                $(let $key = <$kind>::read(table, &place, stringify!($key), report);)*
                Some(Self { place, $($key),* })
            }

            #[cfg(test)]
            fn keys(path: &str, out: &mut Vec<String>) {
                let join = |key: &str| match path {
                    "" => key.to_owned(),
                    _ => format!("{path}.{key}"),
                };
                $(<$kind as Field>::keys(&join(stringify!($key)), out);)*
            }
        }
    )*};
}

tables! {
    /// The whole file.
    File {
        public_url: Text,
        listen: Option<Listen>,
        cores: Option<Cores>,
        trust_provider: Vec<TrustProvider>,
        server: Vec<Server>,
        credential: Vec<Credential>,
        policy: Option<Policy>,
        authority: Option<Authority>,
        sessions: Option<Sessions>,
        audit: Option<Audit>,
        admin: Option<Admin>,
        method: Vec<Method>,
        rate_limit: Vec<RateLimit>,
        federation: Option<Federation>,
        limits: Option<Limits>,
    }
    /// `[listen]`
    Listen {
        address: Text,
        hosts: Texts,
        origins: Texts,
        proxy: Text,
        trusted_proxies: Texts,
        tls: Option<ListenTls>,
    }
    /// `[listen.tls]`
    ListenTls {
        certificate: Text,
        private_key: Text,
    }
    /// `[cores]`
    Cores {
        cpus: Text,
        driver: Text,
    }
    /// `[[trust_provider]]`
    TrustProvider {
        name: Text,
        issuer: Text,
        jwks_url: Text,
        jwks_file: Text,
        algorithms: Texts,
        namespace: Text,
        token_type: Text,
        leeway_seconds: Number,
        audiences: Texts,
        trust_private_addresses: Switch,
        ca_file: Text,
        user_claim: Text,
        groups_claim: Text,
        agent_claim: Text,
        require: Vec<ClaimRule>,
        workload: Vec<ClaimRule>,
    }
    /// `[[trust_provider.require]]` and `[[trust_provider.workload]]`
    ClaimRule {
        claim: Text,
        one_of: Texts,
        equals_claim: Text,
    }
    /// `[[server]]`
    Server {
        name: Text,
        url: Text,
        credential: Text,
        prefix: Text,
        timeout_seconds: Number,
        idle_seconds: Number,
        max_seconds: Number,
        share_public_results: Switch,
        trust_private_addresses: Switch,
        ca_file: Text,
    }
    /// `[[credential]]`
    Credential {
        name: Text,
        servers: Texts,
        kind: Text,
        header: Text,
        scheme: Text,
        query: Text,
        secret: Text,
    }
    /// `[policy]`
    Policy {
        directory: Text,
        timezone: Text,
        watch: Switch,
        geoip: Text,
        authzen: Option<AuthZen>,
    }
    /// `[policy.authzen]`
    AuthZen {
        url: Text,
        permit_ttl_seconds: Number,
        timeout_ms: Number,
        in_flight_per_core_max: Number,
        ca_file: Text,
        certificate: Text,
        private_key: Text,
        bearer: Text,
        trust_private_addresses: Switch,
    }
    /// `[authority]`
    Authority {
        directory: Text,
        peer_user: Text,
    }
    /// `[sessions]`
    Sessions {
        key: Text,
        previous_key: Text,
        lifetime_seconds: Number,
    }
    /// `[audit]`
    Audit {
        path: Text,
        ring_directory: Text,
        mode: Text,
        fsync: Switch,
    }
    /// `[admin]`
    Admin {
        address: Text,
    }
    /// `[[method]]`
    Method {
        name: Text,
        resource: Text,
    }
    /// `[[rate_limit]]`
    RateLimit {
        name: Text,
        per: Texts,
        server: Text,
        tool: Text,
        requests: Number,
        seconds: Number,
        burst: Number,
        exact: Switch,
    }
    /// `[federation]`
    Federation {
        enabled: Switch,
        timeout_ms: Number,
        page_items: Number,
        instructions: Switch,
    }
    /// `[limits]`
    Limits {
        connections_per_core_max: Number,
        inflight_per_core_max: Number,
        upstream_idle_per_core_max: Number,
        body_bytes_max: Number,
        head_ms_max: Number,
        stall_ms_max: Number,
        idle_ms_max: Number,
        handshake_ms_max: Number,
        connect_ms_max: Number,
        keys_wait_ms_max: Number,
        drain_ms_max: Number,
        hub_sessions_per_core_max: Number,
    }
}

/// Dotted paths of every key that a configuration may hold.
#[cfg(test)]
pub(super) fn all_keys() -> Vec<String> {
    let mut keys = Vec::new();
    <File as Value>::keys("", &mut keys);
    keys
}

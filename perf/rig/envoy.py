"""Envoy: its configuration as JSON (which is YAML), one worker, no access log, no admin."""

from __future__ import annotations

import json
from typing import Any

from keys import AUDIENCE, ISSUER, KEY_VALUE, NAME
from place import Launch, Peer, Place
from proxies import ALLOWED_TOOLS

TYPE = "type.googleapis.com/envoy.extensions."
CACHED_TOKENS = 100_000


def _filter(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "name": f"envoy.filters.http.{name}",
        "typed_config": {"@type": f"{TYPE}filters.http.{kind}", **fields},
    }


def _jwt(place: Place, cache: bool) -> dict[str, Any]:
    """Signature, issuer, audience and expiry from the key set; the token is not forwarded."""
    provider: dict[str, Any] = {
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "forward": False,
        "local_jwks": {"inline_string": place.keys.jwks.read_text()},
    }
    if cache:
        provider["jwt_cache_config"] = {"jwt_cache_size": CACHED_TOKENS}
    return _filter(
        "jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        providers={"corp": provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "corp"}}],
    )


def _mcp_value(path: list[str], match: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {
            "filter": "envoy.filters.http.mcp",
            "path": [{"key": key} for key in path],
            "value": {"string_match": match},
        }
    }


def _rule() -> list[dict[str, Any]]:
    """The MCP filter reads the body; RBAC judges the tool that it found."""
    permissions = [_mcp_value(["params", "name"], {"prefix": name}) for name in ALLOWED_TOOLS]
    permissions.append(_mcp_value(["method"], {"exact": "tools/list"}))
    policy = {"permissions": permissions, "principals": [{"any": True}]}
    return [
        _filter("mcp", "mcp.v3.Mcp", traffic_mode="REJECT_NO_MCP", max_request_body_size=4_194_304),
        _filter("rbac", "rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {"tools": policy}}),
    ]


def _downstream_tls(place: Place) -> dict[str, Any]:
    pair = {
        "certificate_chain": {"filename": str(place.keys.certificate)},
        "private_key": {"filename": str(place.keys.certificate_key)},
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}transport_sockets.tls.v3.DownstreamTlsContext",
            "disable_stateless_session_resumption": True,
            "common_tls_context": {
                "tls_certificates": [pair],
                "alpn_protocols": ["http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            },
        },
    }


def _upstream_tls(place: Place) -> dict[str, Any]:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": NAME,
            "common_tls_context": {
                "tls_params": {
                    "tls_minimum_protocol_version": "TLSv1_3",
                    "tls_maximum_protocol_version": "TLSv1_3",
                },
                "validation_context": {
                    "trusted_ca": {"filename": str(place.keys.ca)},
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": NAME}}
                    ],
                },
            },
        },
    }


def _cluster(place: Place, limit: int = 0) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": place.upstream}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    many = {"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}
    cluster: dict[str, Any] = {
        "name": "mcp",
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [many]},
        "load_assignment": {"cluster_name": "mcp", "endpoints": [endpoint]},
    }
    if limit:
        cluster["per_connection_buffer_limit_bytes"] = limit
    if place.tls_up:
        cluster["transport_socket"] = _upstream_tls(place)
    return cluster


def configuration(
    place: Place, token: bool, cache: bool, rule: bool, limit: int = 0
) -> dict[str, Any]:
    """The whole bootstrap; `limit` is that of the buffers of a connection, 0 Envoy's own."""
    host: dict[str, Any] = {
        "name": "all",
        "domains": ["*"],
        "routes": [
            {
                "match": {"prefix": "/"},
                "route": {"cluster": "mcp", "timeout": "0s", "idle_timeout": "0s"},
            }
        ],
    }
    if token:
        host["request_headers_to_add"] = [
            {
                "header": {"key": "X-Api-Key", "value": KEY_VALUE},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
        ]
        host["request_headers_to_remove"] = ["authorization"]
    filters = ([_jwt(place, cache)] if token else []) + (_rule() if rule else [])
    filters.append(_filter("router", "router.v3.Router", suppress_envoy_headers=True))
    manager = {
        "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP1",
        "http_filters": filters,
        "stream_idle_timeout": "0s",
        "generate_request_id": False,
        "route_config": {"name": "r", "virtual_hosts": [host]},
    }
    chain: dict[str, Any] = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if place.tls_down:
        chain["transport_socket"] = _downstream_tls(place)
    listener: dict[str, Any] = {
        "name": "l",
        "tcp_backlog_size": 4096,
        "filter_chains": [chain],
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": place.listen}},
    }
    if limit:
        listener["per_connection_buffer_limit_bytes"] = limit
    return {"static_resources": {"listeners": [listener], "clusters": [_cluster(place, limit)]}}


def launch(
    place: Place,
    token: bool = False,
    cache: bool = False,
    rule: bool = False,
    limit: int = 0,
) -> Launch:
    """Envoy with one worker thread."""
    text = json.dumps(configuration(place, token, cache, rule, limit), indent=1)
    path = place.write("envoy.json", text)
    argv = [
        str(place.programs.found["envoy"]),
        "-c",
        str(path),
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "-l",
        "error",
    ]
    return Launch(argv, settings=text)


def _peer(
    name: str, label: str, token: bool = False, cache: bool = False, rule: bool = False
) -> Peer:
    def make(place: Place) -> Launch:
        return launch(place, token, cache, rule)

    return Peer(
        name, "envoy", "envoy", label, make, checks=token, tool_rule=rule, caches_tokens=cache
    )


def _variant(limit: int) -> Peer:
    def make(place: Place) -> Launch:
        return launch(place, limit=limit)

    name = f"{limit // 1024}k"
    return Peer(f"envoy-{name}", "envoy", "envoy", f"Envoy, buffers of {name}", make)


# Buffer limits to choose from, measured by the scenarios `variants_*`.
VARIANTS = [_variant(32 * 1024), _variant(256 * 1024)]

PEERS = [
    _peer("envoy", "Envoy, bare relay"),
    _peer("envoy-jwt", "Envoy, jwt_authn", token=True),
    _peer("envoy-jwt-cache", "Envoy, jwt_authn with its token cache", token=True, cache=True),
    _peer("envoy-tool", "Envoy, jwt_authn + RBAC on the MCP tool", token=True, rule=True),
    _peer(
        "envoy-tool-cache",
        "Envoy, the same with its token cache",
        token=True,
        cache=True,
        rule=True,
    ),
]

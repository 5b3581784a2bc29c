"""nginx, HAProxy and relays of our own: configurations as text, one worker, no access log."""

from __future__ import annotations

from keys import AUDIENCE, ISSUER, KEY_VALUE, NAME
from place import Launch, Peer, Place

# Up to here head and body stand in HAProxy's own buffer with room to spare.
HAPROXY_SMALL = 8 * 1024
ALLOWED_TOOLS = ("answer_", "slow_", "sse_")


# Ways tried beside each other (perf/NOTES.md): 64k is the cheapest, or as cheap, at every size.
NGINX_BUFFERS = {
    "default": "proxy_buffering off;",
    "default-head": "client_header_buffer_size 4k; proxy_buffering off;",
    "16k": (
        "client_body_buffer_size 64k; proxy_buffering off; proxy_buffer_size 16k;"
        " proxy_buffers 8 16k;"
    ),
    "64k": (
        "client_body_buffer_size 64k; proxy_buffering off; proxy_buffer_size 64k;"
        " proxy_buffers 8 64k;"
    ),
    "64k-head": (
        "client_header_buffer_size 32k; client_body_buffer_size 64k; proxy_buffering off;"
        " proxy_buffer_size 64k; proxy_buffers 8 64k;"
    ),
    "buffered": "client_body_buffer_size 64k; proxy_buffering on; proxy_max_temp_file_size 0;",
    "buffered-64k": (
        "client_body_buffer_size 64k; proxy_buffering on; proxy_max_temp_file_size 0;"
        " proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"
    ),
}


def nginx(place: Place, buffers: str = NGINX_BUFFERS["64k"]) -> Launch:
    """A bare relay: keep-alive both ways, nothing logged."""
    here, keys = place.directory, place.keys
    listen = f"listen 127.0.0.1:{place.listen}" + (" ssl" if place.tls_down else "")
    tls = ""
    if place.tls_down:
        tls += (
            f"ssl_certificate {keys.certificate}; ssl_certificate_key {keys.certificate_key};\n"
            "    ssl_protocols TLSv1.3; ssl_session_tickets off;\n    "
        )
    scheme = "http"
    if place.tls_up:
        scheme = "https"
        tls += (
            f"proxy_ssl_trusted_certificate {keys.ca}; proxy_ssl_verify on;\n"
            f"    proxy_ssl_server_name on; proxy_ssl_name {NAME};\n"
            "    proxy_ssl_protocols TLSv1.3;\n    "
        )
    text = f"""daemon off; worker_processes 1; worker_rlimit_nofile 20000;
pid {here}/nginx.pid; error_log {here}/error.log;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 300s;
  client_body_temp_path {here}/b; proxy_temp_path {here}/p; fastcgi_temp_path {here}/f;
  uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;
  client_max_body_size 8m; {buffers}
  upstream mcp {{ server 127.0.0.1:{place.upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    {listen} backlog=4096;
    {tls}location / {{
      proxy_pass {scheme}://mcp; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host $host;
    }}
  }}
}}
"""
    path = place.write("nginx.conf", text)
    # Without -e it first tries a log that only root may write.
    argv = [str(place.programs.found["nginx"]), "-e", f"{here}/error.log", "-c", str(path)]
    libraries = place.programs.libraries.get("nginx", "")
    return Launch(argv, {"LD_LIBRARY_PATH": libraries} if libraries else {}, text)


def _haproxy_token(place: Place) -> str:
    """Signature, algorithm, issuer, audience, expiry; our credential in place of the token."""
    signed = f'var(txn.bearer),jwt_verify(txn.alg,"{place.keys.public(place.alg)}")'
    return f"""
  http-request set-var(txn.bearer) http_auth_bearer
  http-request deny deny_status 401 unless {{ var(txn.bearer) -m found }}
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str {place.alg} }}
  http-request set-var(txn.iss) var(txn.bearer),jwt_payload_query('$.iss')
  http-request set-var(txn.aud) var(txn.bearer),jwt_payload_query('$.aud')
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 unless {{ {signed} 1 }}
  http-request del-header Authorization
  http-request set-header X-Api-Key {KEY_VALUE}"""


def _haproxy_rule() -> str:
    """Allow-list on the tool that the body names; the list call is allowed as such."""
    names = " ".join(ALLOWED_TOOLS)
    return f"""
  option http-buffer-request
  http-request set-var(txn.method) req.body,json_query('$.method')
  http-request set-var(txn.tool) req.body,json_query('$.params.name')
  acl allowed_tool var(txn.tool) -m beg {names}
  acl list_call var(txn.method) -m str tools/list
  http-request deny deny_status 403 unless allowed_tool or list_call"""


def haproxy(
    place: Place,
    token: bool = False,
    rule: bool = False,
    bufsize: int = 0,
    splice: bool = False,
) -> Launch:
    """HAProxy as a relay; with `token` it validates, with `rule` it also judges the tool.

    Its own buffer of 16 KiB is the cheapest for small messages and one of 64 KiB for large ones, by
    half at 16 KiB; splicing makes no difference there (perf/NOTES.md). `bufsize` overrides that.
    The rule reads the whole body, which fits into either.
    """
    keys = place.keys
    bind = f"bind 127.0.0.1:{place.listen} backlog 4096"
    if place.tls_down:
        bind += f" ssl crt {keys.both} alpn http/1.1 ssl-min-ver TLSv1.3 no-tls-tickets"
    server = f"server s1 127.0.0.1:{place.upstream} pool-max-conn 256"
    if place.tls_up:
        server += (
            f" ssl verify required ca-file {keys.ca} sni str({NAME}) verifyhost {NAME}"
            " ssl-min-ver TLSv1.3"
        )
    checks = (_haproxy_token(place) if token else "") + (_haproxy_rule() if rule else "")
    bufsize = bufsize or (65_536 if place.longest > HAPROXY_SMALL else 16_384)
    splicing = "\n  option splice-auto" if splice else ""
    text = f"""global
  nbthread 1
  no strict-limits
  maxconn 12000
  tune.bufsize {bufsize}
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  option http-no-delay{splicing}
  http-reuse always
frontend f
  {bind}{checks}
  default_backend b
backend b
  {server}
"""
    path = place.write("haproxy.cfg", text)
    libraries = place.programs.libraries.get("haproxy", "")
    env = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    return Launch([str(place.programs.found["haproxy"]), "-db", "-f", str(path)], env, text)


def haproxy_jwt(place: Place) -> Launch:
    """HAProxy with token validation."""
    return haproxy(place, token=True)


def haproxy_tool(place: Place) -> Launch:
    """HAProxy with token validation and the rule on tools."""
    return haproxy(place, token=True, rule=True)


def _nginx_variant(name: str) -> Peer:
    def make(place: Place) -> Launch:
        return nginx(place, NGINX_BUFFERS[name])

    return Peer(f"nginx-{name}", "nginx", "nginx", f"nginx, buffers: {name}", make)


def _haproxy_variant(name: str, bufsize: int, splice: bool) -> Peer:
    def make(place: Place) -> Launch:
        return haproxy(place, bufsize=bufsize, splice=splice)

    return Peer(f"haproxy-{name}", "haproxy", "haproxy", f"HAProxy, {name}", make)


def _relay(name: str) -> Peer:
    def make(place: Place) -> Launch:
        argv = [
            str(place.programs.found[name]),
            "--listen",
            f"127.0.0.1:{place.listen}",
            "--upstream",
            f"127.0.0.1:{place.upstream}",
        ]
        return Launch(argv, settings=" ".join(["X", *argv[1:]]))

    return Peer(name, "control", name, f"{name} (ours, checks nothing)", make, tls=False)


PEERS = [
    Peer("nginx", "nginx", "nginx", "nginx, bare relay", nginx),
    Peer("haproxy", "haproxy", "haproxy", "HAProxy, bare relay", haproxy),
    Peer(
        "haproxy-jwt",
        "haproxy",
        "haproxy",
        "HAProxy, jwt_verify + iss, aud, exp",
        haproxy_jwt,
        checks=True,
    ),
    Peer(
        "haproxy-tool",
        "haproxy",
        "haproxy",
        "HAProxy, the same + tool rule",
        haproxy_tool,
        checks=True,
        tool_rule=True,
    ),
    _relay("hyper-relay"),
    _relay("monoio-http-relay"),
    _relay("ring-relay"),
]

# Settings to choose from, measured beside each other by the scenarios `variants_*`.
VARIANTS = [
    *(_nginx_variant(name) for name in NGINX_BUFFERS),
    _haproxy_variant("16k", 16_384, False),
    _haproxy_variant("16k-splice", 16_384, True),
    _haproxy_variant("64k", 65_536, False),
    _haproxy_variant("64k-splice", 65_536, True),
]

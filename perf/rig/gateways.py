"""The MCP gateways: agentgateway by path, ContextForge from PyPI.

agentgateway's configuration follows its documentation of v1.4; no binary was at hand where this was
written, so it is **untested**, and the function checks decide whether a figure is taken.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any, Optional

from keys import AUDIENCE, ISSUER, KEY_VALUE, Keys, sign
from place import Launch, Peer, Place
from procs import Trouble, ask
from proxies import ALLOWED_TOOLS

ADMIN = "admin@example.com"
ADMIN_TOKENS = 10
UNTESTED = "configuration untested: no binary was at hand"


def agentgateway(place: Place, mcp: bool) -> Launch:
    """One worker; listens on all addresses, which only a private network namespace keeps in."""
    token = {
        "mode": "strict",
        "issuer": ISSUER,
        "audiences": [AUDIENCE],
        "jwks": {"file": str(place.keys.jwks)},
    }
    headers = {"set": {"X-Api-Key": KEY_VALUE}, "remove": ["authorization"]}
    policies: dict[str, Any] = {"requestHeaderModifier": headers}
    backend: dict[str, Any] = {"host": f"127.0.0.1:{place.upstream}"}
    if mcp:
        rules = [f'mcp.tool.name.startsWith("{name}")' for name in ALLOWED_TOOLS]
        policies |= {"jwtAuth": token, "mcpAuthorization": {"rules": rules}}
        target = {"name": "bench", "mcp": {"host": f"http://127.0.0.1:{place.upstream}/mcp"}}
        backend = {"mcp": {"statefulMode": "stateless", "targets": [target]}}
    route = {"policies": policies, "backends": [backend]}
    text = json.dumps(
        {
            "config": {"workerThreads": 1, "adminAddr": f"127.0.0.1:{place.admin}"},
            "binds": [{"port": place.listen, "listeners": [{"routes": [route]}]}],
        },
        indent=1,
    )
    path = place.write("agentgateway.json", text)
    return Launch([str(place.programs.found["agentgateway"]), "-f", str(path)], settings=text)


def _agentgateway_http(place: Place) -> Launch:
    return agentgateway(place, mcp=False)


def _agentgateway_mcp(place: Place) -> Launch:
    return agentgateway(place, mcp=True)


def _admin_tokens(keys: Keys) -> list[str]:
    """Tokens of the one user that ContextForge knows without a directory of users behind it."""
    now = int(time.time())
    return [
        sign(
            keys,
            "ES256",
            {
                "iss": ISSUER,
                "aud": AUDIENCE,
                "sub": ADMIN,
                "email": ADMIN,
                "iat": now - 5,
                "exp": now + 7200,
                "is_admin": True,
                "jti": f"bench-{number}",
            },
        )
        for number in range(ADMIN_TOKENS)
    ]


def contextforge(place: Place) -> Launch:
    """One worker, SQLite, in-memory cache, no rate limit, no plugins, no pages."""
    keys, here = place.keys, place.directory
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(place.listen),
        "DATABASE_URL": f"sqlite:///{here}/cf.db",
        "JWT_ALGORITHM": "ES256",
        "JWT_PUBLIC_KEY_PATH": str(keys.public("ES256")),
        "JWT_PRIVATE_KEY_PATH": str(keys.private("ES256")),
        "JWT_AUDIENCE": AUDIENCE,
        "JWT_ISSUER": ISSUER,
        "AUTH_REQUIRED": "true",
        "REQUIRE_JTI": "false",
        "REQUIRE_USER_IN_DB": "false",
        "RATE_LIMITING_ENABLED": "false",
        "SSRF_ALLOW_LOCALHOST": "true",
        "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
        "MCPGATEWAY_UI_ENABLED": "false",
        "PLUGINS_ENABLED": "false",
        "CACHE_TYPE": "memory",
        "LOG_LEVEL": "ERROR",
        "PLATFORM_ADMIN_EMAIL": ADMIN,
    }
    # It refuses to start with secrets of low entropy; these live as long as the process.
    hidden = {
        name: "Aa1-" + secrets.token_urlsafe(36)
        for name in (
            "AUTH_ENCRYPTION_SECRET",
            "JWT_SECRET_KEY",
            "CSRF_SECRET_KEY",
            "IDENTITY_CLAIMS_SECRET",
            "BASIC_AUTH_PASSWORD",
            "PLATFORM_ADMIN_PASSWORD",
        )
    }
    argv = [
        str(place.programs.found["contextforge"]),
        "--host",
        "127.0.0.1",
        "--port",
        str(place.listen),
    ]
    return Launch(argv, {**settings, **hidden}, json.dumps(settings, indent=1))


def _api(
    port: int, token: str, method: str, path: str, value: Optional[dict[str, Any]] = None
) -> Any:
    """One call of its administration interface."""
    body = json.dumps(value).encode() if value is not None else b""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    answer = ask(port, head.encode() + body, seconds=20)
    if answer.status >= 300:
        raise Trouble(f"{method} {path} answered {answer.status} {answer.body[:150]!r}")
    return json.loads(answer.body)


def _register(place: Place, port: int) -> dict[str, str]:
    """Makes our upstream known with its credential; gives what the load must say."""
    tokens = _admin_tokens(place.keys)
    _api(
        port,
        tokens[0],
        "POST",
        "/gateways",
        {
            "name": "bench",
            "url": f"http://127.0.0.1:{place.upstream}/mcp",
            "transport": "STREAMABLEHTTP",
            "visibility": "public",
            "auth_type": "authheaders",
            "auth_headers": [{"key": "X-Api-Key", "value": KEY_VALUE}],
        },
    )
    deadline, names = time.monotonic() + 10, []
    while time.monotonic() < deadline:
        listed = _api(port, tokens[0], "GET", "/tools")
        listed = listed if isinstance(listed, list) else listed.get("data", [])
        names = [tool["name"] for tool in listed if tool.get("originalName") == "answer_300"]
        if names:
            break
        time.sleep(0.2)
    if not names:
        raise Trouble("it did not list the tools of the upstream")
    file = place.write("admin.tokens", "\n".join(tokens) + "\n")
    return {
        "path": "/mcp",
        "tool": names[0],
        "tokens": str(file),
        "good": tokens[0],
        # The newest that this version of it takes.
        "revision": "2025-11-25",
    }


PEERS = [
    Peer(
        "agentgateway-http",
        "agentgateway",
        "agentgateway",
        "agentgateway, HTTP route",
        _agentgateway_http,
        tls=False,
        note=UNTESTED,
    ),
    Peer(
        "agentgateway-mcp",
        "agentgateway",
        "agentgateway",
        "agentgateway, MCP route, JWT + tool rule",
        _agentgateway_mcp,
        checks=True,
        tool_rule=True,
        tls=False,
        note=UNTESTED,
        slack=400,
    ),
    Peer(
        "contextforge",
        "contextforge",
        "contextforge",
        "ContextForge, JWT, one worker",
        contextforge,
        checks=True,
        tls=False,
        prepare=_register,
        slack=400,
        note="called as its administrator: another user wants a directory of users",
    ),
]

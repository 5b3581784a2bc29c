"""The MCP gateways: agentgateway by path, ContextForge from PyPI.

agentgateway's configuration follows its documentation of v1.4; no binary was at hand where this was
written, so it is **untested**, and the function checks decide whether a figure is taken.
"""

from __future__ import annotations

import json
import secrets
import time
from typing import Any
from urllib.parse import quote

from keys import AUDIENCE, ISSUER, KEY_VALUE, b64url
from place import Launch, Peer, Place
from procs import Trouble, ask
from proxies import ALLOWED_TOOLS

UNTESTED = "configuration untested: no binary was at hand"


def agentgateway(place: Place, mcp: bool) -> Launch:
    """One worker; listens on all addresses, which only a private network namespace keeps in."""
    token = {"mode": "strict", "issuer": ISSUER, "audiences": [AUDIENCE],
             "jwks": {"file": str(place.keys.jwks)}}
    headers = {"set": {"X-Api-Key": KEY_VALUE}, "remove": ["authorization"]}
    policies: dict[str, Any] = {"requestHeaderModifier": headers}
    backend: dict[str, Any] = {"host": f"127.0.0.1:{place.upstream}"}
    if mcp:
        rules = [f'mcp.tool.name.startsWith("{name}")' for name in ALLOWED_TOOLS]
        policies |= {"jwtAuth": token, "mcpAuthorization": {"rules": rules}}
        target = {"name": "bench", "mcp": {"host": f"http://127.0.0.1:{place.upstream}/mcp"}}
        backend = {"mcp": {"statefulMode": "stateless", "targets": [target]}}
    route = {"policies": policies, "backends": [backend]}
    text = json.dumps({"config": {"workerThreads": 1, "adminAddr": f"127.0.0.1:{place.admin}"},
                       "binds": [{"port": place.listen, "listeners": [{"routes": [route]}]}]}, indent=1)
    path = place.write("agentgateway.json", text)
    return Launch([str(place.programs.found["agentgateway"]), "-f", str(path)], settings=text)


def _agentgateway_http(place: Place) -> Launch:
    return agentgateway(place, mcp=False)


def _agentgateway_mcp(place: Place) -> Launch:
    return agentgateway(place, mcp=True)


PEERS = [
    Peer("agentgateway-http", "agentgateway", "agentgateway", "agentgateway, HTTP route",
         _agentgateway_http, tls=False, note=UNTESTED),
    Peer("agentgateway-mcp", "agentgateway", "agentgateway", "agentgateway, MCP route, JWT + tool rule",
         _agentgateway_mcp, checks=True, tool_rule=True, tls=False, note=UNTESTED),
]
_ = (secrets, time, quote, b64url, Trouble, ask)

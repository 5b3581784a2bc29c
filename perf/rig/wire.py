"""The request that everybody gets, and the questions asked of a peer before it is measured."""

from __future__ import annotations

import json
import ssl
from typing import Any, Optional

from keys import NAME
from place import Peer
from procs import Answer, Trouble, ask

REVISION = "2026-07-28"
PATH = "/mcp/bench"
DENIED_TOOL = "secret"


def call_body(tool: str, size: int = 300, ident: int = 7) -> bytes:
    """A `tools/call` of `size` bytes; smaller than that it cannot be told apart from its frame."""

    def text(fill: str) -> bytes:
        meta = {
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        value = {
            "jsonrpc": "2.0",
            "id": ident,
            "method": "tools/call",
            "params": {"name": tool, "arguments": {"query": fill}, "_meta": meta},
        }
        return json.dumps(value, separators=(",", ":")).encode()

    return text("q" * max(0, size - len(text(""))))


def request(
    tool: str,
    token: Optional[str],
    size: int = 300,
    close: bool = True,
    path: str = PATH,
    revision: str = REVISION,
) -> bytes:
    """The head that MCP clients send in the modern era, and the body."""
    body = call_body(tool, size)
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {NAME}",
        "Content-Type: application/json",
        "Accept: application/json, text/event-stream",
        f"Mcp-Protocol-Version: {revision}",
        "Mcp-Method: tools/call",
        f"Mcp-Name: {tool}",
        "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "User-Agent: mcp-client/2.4.0",
        f"Content-Length: {len(body)}",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def named(own: dict[str, str], tool: str) -> str:
    """What a tool of the upstream is called at this peer."""
    return own.get("tool", own.get("prefix", "") + tool)


def permitted(answer: Answer) -> bool:
    """Whether it is the upstream's own result for the call."""
    return answer.status == 200 and b'"result"' in answer.body and b'"error"' not in answer.body


def short(answer: Answer) -> str:
    """An answer as it stands in the record."""
    text = answer.body.decode("utf-8", "replace")
    return f"{answer.status} {' '.join(text.split())[:120]}".strip()


def function_checks(
    peer: Peer,
    port: int,
    tokens: dict[str, Optional[str]],
    context: Optional[ssl.SSLContext],
    own: dict[str, str],
) -> list[dict[str, Any]]:
    """Asks what must be answered and what must be refused; records answers and verdicts."""
    found = []
    tool, denied = named(own, "answer_300"), own.get("prefix", "") + DENIED_TOOL
    way = {"path": own.get("path", PATH), "revision": own.get("revision", REVISION)}
    if "good" in own:
        tokens = {**tokens, "good": own["good"]}
    for kind, token in tokens.items():
        answer = ask(port, request(tool, token, **way), context, NAME, 20.0)
        wanted = kind == "good" or not peer.checks
        found.append(
            {
                "check": kind,
                "answer": short(answer),
                "status": answer.status,
                "as_wanted": permitted(answer) == wanted or not peer.judged,
            }
        )
    answer = ask(port, request(denied, tokens["good"], **way), context, NAME, 20.0)
    wanted = not peer.tool_rule
    # A bare relay passes the call on, and the upstream may know no such tool: not judged.
    found.append(
        {
            "check": "denied tool",
            "answer": short(answer),
            "status": answer.status,
            "as_wanted": wanted or not permitted(answer),
        }
    )
    return found


def require(found: list[dict[str, Any]]) -> None:
    """A peer that lets through what it must refuse is not measured: its figure would be a lie."""
    for one in found:
        if not one["as_wanted"]:
            raise Trouble(f"function check “{one['check']}” answered {one['answer']!r}")


def client_context(ca: str) -> ssl.SSLContext:
    """TLS 1.3 towards the peer, its certificate checked."""
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context

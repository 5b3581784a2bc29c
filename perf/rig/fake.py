"""A small MCP upstream in Python for the traps and the checks of the rig itself: never for figures.

It answers as `load upstream` does: the tool's name says what comes back.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from typing import Optional

RESULT = '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"%s"}]}}'

DISCOVERED = (
    '{"jsonrpc":"2.0","id":%s,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],'
    '"capabilities":{"tools":{}},"ttlMs":60000,"cacheScope":"public"}}'
)


def result(ident: str, size: int) -> bytes:
    """A JSON-RPC result whose text is as long as it takes to make `size` bytes."""
    fill = max(0, size - len(RESULT % (ident, "")))
    return (RESULT % (ident, "x" * fill)).encode()


def _head(status: str, kind: str, more: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{more}\r\n".encode()


class Upstream:
    """Listens on a port of 127.0.0.1 until closed; one thread per connection, at most 64."""

    def __init__(self, port: int = 0) -> None:
        self.listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self.port: int = self.listener.getsockname()[1]
        self.requests = 0
        self.with_key = 0
        self.with_authorization = 0
        self._slots = threading.BoundedSemaphore(64)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops accepting; open connections end with their clients."""
        try:
            # close() alone would leave the accept of the other thread waiting.
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        self._thread.join(2)

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            if not self._slots.acquire(timeout=5):
                stream.close()
                continue
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            with stream:
                stream.settimeout(30)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while self._one(stream):
                    pass
        except OSError:
            pass
        finally:
            self._slots.release()

    def _one(self, stream: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            part = stream.recv(65536)
            if not part:
                return False
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        lower = head.lower()
        length = re.search(rb"\r\ncontent-length: *(\d+)", lower)
        while length and len(body) < int(length.group(1)):
            part = stream.recv(65536)
            if not part:
                return False
            body += part
        self.requests += 1
        self.with_key += b"\r\nx-api-key:" in lower
        self.with_authorization += b"\r\nauthorization:" in lower
        self._answer(stream, body)
        return b"\r\nconnection: close" not in lower

    def _answer(self, stream: socket.socket, body: bytes) -> None:
        ident = re.search(rb'"id": *("[^"]*"|\d+)', body)
        name = re.search(rb'"name": *"([^"]*)"', body)
        if ident is None:
            stream.sendall(_head("202 Accepted", "application/json", "Content-Length: 0\r\n"))
            return
        if re.search(rb'"method": *"server/discover"', body):
            text = (DISCOVERED % ident.group(1).decode()).encode()
            length = f"Content-Length: {len(text)}\r\n"
            stream.sendall(_head("200 OK", "application/json", length) + text)
            return
        tool = name.group(1).decode() if name else "answer_300"
        kind, *numbers = tool.split("_")
        values = [int(number) for number in numbers if number.isdigit()]
        if kind == "sse" and len(values) == 2:
            self._events(stream, ident.group(1).decode(), values[0], values[1] / 1e6)
            return
        if kind == "slow" and values:
            time.sleep(min(values[0], 5000) / 1000)
        size = values[0] if kind == "answer" and values else 300
        text = result(ident.group(1).decode(), size)
        stream.sendall(
            _head("200 OK", "application/json", f"Content-Length: {len(text)}\r\n") + text
        )

    def _events(self, stream: socket.socket, ident: str, count: int, gap: float) -> None:
        """Events that hold the time of their sending, then the result, chunked."""
        stream.sendall(_head("200 OK", "text/event-stream", "Transfer-Encoding: chunked\r\n"))
        for number in range(count):
            time.sleep(gap)
            note = {
                "jsonrpc": "2.0",
                "method": "notifications/message",
                "params": {"n": number, "ns": time.monotonic_ns()},
            }
            self._chunk(stream, f"data: {json.dumps(note)}\n\n".encode())
        self._chunk(stream, b"data: " + result(ident, 100) + b"\n\n")
        stream.sendall(b"0\r\n\r\n")

    @staticmethod
    def _chunk(stream: socket.socket, data: bytes) -> None:
        stream.sendall(f"{len(data):x}\r\n".encode() + data + b"\r\n")


def read_head(stream: socket.socket, seconds: float = 5.0) -> tuple[bytes, bytes]:
    """Reads up to the end of a head; gives head and what came after it."""
    stream.settimeout(seconds)
    data = b""
    while b"\r\n\r\n" not in data:
        part = stream.recv(65536)
        if not part:
            raise OSError("closed within the head")
        data += part
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def content_length(head: bytes) -> Optional[int]:
    """The length that a head states."""
    found = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
    return int(found.group(1)) if found else None

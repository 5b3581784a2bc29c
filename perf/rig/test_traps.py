"""Two traps that relays fell into, against the real binary, as a client sees them.

* Bodies of 16 KiB that stall some 44 ms: without TCP_NODELAY the last small segment waits for an
  acknowledgement that the peer delays.
* Server-sent events held back to the end of the stream.

Needs a built Portcullis: PORTCULLIS_BIN, else target/release or target/debug. Takes a few seconds.
"""

from __future__ import annotations

import os
import re
import socket
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Optional

import fake
import keys
import ours
import wire
from place import Launch, Place, Programs
from procs import Nursery, wait_port

ROOT = Path(__file__).resolve().parents[2]
CALLS = 120
STALL_SECONDS = 0.020
EVENTS, GAP_US = 10, 50_000


def binary() -> Optional[Path]:
    """The program under test."""
    named = os.environ.get("PORTCULLIS_BIN")
    places = (
        [Path(named)]
        if named
        else [ROOT / "target" / kind / "portcullis" for kind in ("release", "debug")]
    )
    return next((path.resolve() for path in places if os.access(path, os.X_OK)), None)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Client(unittest.TestCase):
    """One connection, and what is measured over it."""

    stream: socket.socket
    token: Optional[str] = None
    # How the load speaks to what is under test.
    own: dict[str, str] = {}

    def request(self, tool: str, size: int) -> bytes:
        """A call of a tool, by its name here."""
        path = self.own.get("path", wire.PATH)
        return wire.request(wire.named(self.own, tool), self.token, size, close=False, path=path)

    def connect(self, port: int) -> None:
        """The connection of this test."""
        self.stream = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.addCleanup(self.stream.close)
        # Our own side must not be the one that stalls.
        self.stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, tool: str, size: int) -> float:
        """One call, its answer read to the end; gives the seconds that it took."""
        began = time.monotonic()
        self.stream.sendall(self.request(tool, size))
        head, body = fake.read_head(self.stream)
        self.assertTrue(head.startswith(b"HTTP/1.1 200"), head[:100])
        length = fake.content_length(head)
        assert length is not None, head
        while len(body) < length:
            part = self.stream.recv(65536)
            self.assertTrue(part, "closed within the body")
            body += part
        self.assertEqual(length, int(tool.split("_")[1]))
        self.assertIn(b'"id":7,"result"', body)
        return time.monotonic() - began

    def stalls(self, up: int, down: int) -> None:
        """Ninety-nine of a hundred calls must end long before a delayed acknowledgement would."""
        self.call(f"answer_{down}", up)
        took = sorted(self.call(f"answer_{down}", up) for _ in range(CALLS))
        late = took[int(CALLS * 0.99) - 1]
        self.assertLess(
            late, STALL_SECONDS, f"p99 {late * 1000:.1f} ms, p50 {took[CALLS // 2] * 1000:.1f}"
        )

    def held_back(self) -> None:
        """Each event must be here before the next one is sent."""
        self.stream.sendall(self.request(f"sse_{EVENTS}_{GAP_US}", 300))
        self.stream.settimeout(10)
        data, delays, seen = b"", [], 0
        while b"\r\n0\r\n\r\n" not in data:
            part = self.stream.recv(65536)
            now = time.monotonic_ns()
            self.assertTrue(part, f"closed within the stream: {data[-200:]!r}")
            data += part
            sent = [int(text) for text in re.findall(rb'"ns": (\d+)}', data)]
            delays += [(now - when) / 1e9 for when in sent[seen:]]
            seen = len(sent)
        self.assertTrue(data.startswith(b"HTTP/1.1 200"), data[:100])
        self.assertEqual(len(delays), EVENTS)
        self.assertIn(b'"id":7,"result"', data)
        # Held to the end, the first event is late by nine gaps, the middle one by half of them.
        middle = sorted(delays)[EVENTS // 2]
        self.assertLess(
            middle, STALL_SECONDS, f"delays in ms: {[round(one * 1000, 1) for one in delays]}"
        )
        self.assertLess(delays[0], (EVENTS - 1) * GAP_US / 1e6 / 2, "the first event came late")


@unittest.skipIf(binary() is None, "no built portcullis: set PORTCULLIS_BIN or build one")
class Traps(Client):
    """The gateway as it is built, one upstream, one connection."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        here = Path(folder.name)
        made = keys.make_keys(here / "keys")
        upstream = fake.Upstream()
        self.addCleanup(upstream.close)
        program = binary()
        assert program is not None
        cpu = str(min(os.sched_getaffinity(0)))
        place = Place(
            here,
            free_port(),
            free_port(),
            upstream.port,
            made,
            Programs(found={"portcullis": program}),
            cpus=cpu,
        )
        launch = self.launch(place)
        nursery = Nursery(here)
        self.addCleanup(nursery.stop_all)
        self.gateway = nursery.start("portcullis", launch.argv)
        wait_port(place.listen, self.gateway)
        self.port, self.tokens = place.listen, keys.check_tokens(made, "ES256")
        self.token = self.tokens["good"]
        self.connect(place.listen)

    def launch(self, place: Place) -> Launch:
        """With one server behind it."""
        return ours.gateway(place)

    def test_16_kib_up_and_down_does_not_stall(self) -> None:
        """Request and answer of 16 KiB."""
        self.stalls(16_384, 16_384)

    def test_16_kib_up_does_not_stall(self) -> None:
        """Only the request is large."""
        self.stalls(16_384, 300)

    def test_16_kib_down_does_not_stall(self) -> None:
        """Only the answer is large."""
        self.stalls(300, 16_384)

    def test_events_arrive_one_by_one(self) -> None:
        """Not at the end of the stream."""
        self.held_back()


class ManyServers(Traps):
    """The same at `/mcp`, with three servers behind it."""

    own = ours.AT_THE_HUB

    def launch(self, place: Place) -> Launch:
        """With three."""
        return ours.hub(place)

    def test_it_checks_what_it_must(self) -> None:
        """The policies of the servers beside it permit nothing here."""
        peer = next(one for one in ours.PEERS if one.name == "portcullis-hub")
        wire.require(wire.function_checks(peer, self.port, self.tokens, None, self.own))


class Bad(threading.Thread):
    """A relay that falls into both traps: head and body apart without TCP_NODELAY, streams held."""

    def __init__(self, upstream: int) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.upstream = upstream

    def run(self) -> None:
        """Serves one connection."""
        try:
            client, _ = self.listener.accept()
            with client, socket.create_connection(("127.0.0.1", self.upstream)) as server:
                while True:
                    head, body = fake.read_head(client, 30)
                    while len(body) < (fake.content_length(head) or 0):
                        body += client.recv(65536)
                    server.sendall(head + b"\r\n\r\n" + body)
                    self.answer(client, server)
        except OSError:
            return

    @staticmethod
    def answer(client: socket.socket, server: socket.socket) -> None:
        """The whole answer first, then its head, then its body."""
        head, body = fake.read_head(server, 30)
        length = fake.content_length(head)
        while (len(body) < length) if length is not None else not body.endswith(b"0\r\n\r\n"):
            body += server.recv(65536)
        client.sendall(head + b"\r\n\r\n")
        client.sendall(body)


class Caught(Client):
    """The tests above can fail: a relay that falls into the traps is caught by them."""

    def setUp(self) -> None:
        upstream = fake.Upstream()
        self.addCleanup(upstream.close)
        bad = Bad(upstream.port)
        self.addCleanup(bad.listener.close)
        bad.start()
        self.connect(bad.port)

    def test_a_stall_is_caught(self) -> None:
        """The delayed acknowledgement is felt."""
        with self.assertRaisesRegex(AssertionError, "p99"):
            self.stalls(300, 16_384)

    def test_held_events_are_caught(self) -> None:
        """The events come all at once."""
        with self.assertRaisesRegex(AssertionError, "delays in ms"):
            self.held_back()


if __name__ == "__main__":
    unittest.main()

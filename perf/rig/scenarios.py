"""What is measured: every scenario with its load, its peers and the time it takes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable, Optional

import envoy
import gateways
import ours
import proxies
from place import Peer

BARE = (
    "direct",
    "nginx",
    "haproxy",
    "envoy",
    "ring-relay",
    "monoio-http-relay",
    "hyper-relay",
    "agentgateway-http",
)
CHECKED = (
    "portcullis",
    "haproxy-jwt",
    "haproxy-tool",
    "envoy-jwt",
    "envoy-jwt-cache",
    "envoy-tool",
    "envoy-tool-cache",
    "agentgateway-mcp",
)
RIVALS = ("nginx", "portcullis", "haproxy-tool", "envoy-tool-cache")
FIELD = ("direct", "nginx", "portcullis", "haproxy", "haproxy-tool", "envoy", "envoy-tool-cache")
RELAYS = ("nginx", "portcullis", "haproxy", "envoy")
ABLATION = tuple(peer.name for peer in ours.ABLATIONS)
# In every run of a scenario again, so that each ratio is to the same minutes.
ANCHORS = ("nginx", "direct")
# The build with nothing off, which each pair of the ablation is measured against.
BASE = "ablation-none"
# From so many tokens on a second does not show each of them to a cache: one pass by count does.
MANY_TOKENS = 10_000
SPACE_SECONDS = 0.2
PAIR_SECONDS = 0.3
START_SECONDS = 0.7


@dataclass(frozen=True)
class Scenario:
    """One load and those that bear it, in turns."""

    name: str
    title: str
    peers: tuple[str, ...]
    kind: str = "closed"
    headline: bool = False
    tool: str = "answer_300"
    method: str = "tools/call"
    body: int = 300
    tokens: int = 1_000
    alg: str = "ES256"
    cold: bool = False
    connections: int = 32
    rounds: int = 3
    seconds: float = 2.0
    warm: float = 0.0
    first_warm: float = 1.0
    rate: float = 0.0
    share: float = 0.0
    slow_percent: int = 0
    tls_down: bool = False
    tls_up: bool = False
    spin: bool = False
    # Only when named: what a setting of a peer is worth, not what the table needs.
    extra: bool = False

    @property
    def anchors(self) -> tuple[str, ...]:
        """Whose rounds every cell of it needs."""
        return (BASE,) if self.kind == "pairs" else ANCHORS

    @property
    def passed_once(self) -> bool:
        """Whether each token is sent once before the first round, in a run of its own."""
        return self.tokens > MANY_TOKENS and not self.cold

    @property
    def beside(self) -> bool:
        """Whether `direct` has its upstream where the proxies have theirs: on the load's CPU.

        What a proxy adds to a latency is the difference to that. Where CPU is counted the upstream
        stands in for a proxy, on the proxy's CPU.
        """
        return self.kind in ("rate", "sse")

    def planned(self, peers: int) -> float:
        """Seconds that it takes with so many peers."""
        if self.kind == "start":
            return peers * (2.5 + self.first_warm + self.seconds)
        if self.kind == "idle":
            return peers * (3.0 + self.connections / (1_500 if self.tls_down else 5_000))
        if self.kind == "syscalls":
            # Rings are counted twice more, without strace; two of the peers have one.
            return peers * (START_SECONDS + self.seconds + 2.0) + 2 * (2 * self.seconds + 2.0)
        turn = self.warm + self.seconds + SPACE_SECONDS
        if self.kind == "pairs":
            both = 2 * (turn + PAIR_SECONDS)
            return peers * START_SECONDS + (peers - 1) * (
                self.rounds * both + 2 * (self.first_warm + self.seconds)
            )
        return (
            peers * (START_SECONDS + self.rounds * turn + min(1.0, self.first_warm))
            + 2 * self.first_warm
            + (3.0 if self.share else 0.0)
        )

    def record(self) -> dict[str, object]:
        """The settings as they stand in the raw file."""
        return {key: value for key, value in self.__dict__.items() if key != "peers"}


def fitted(scenario: Scenario, peers: int, seconds: float) -> Optional[Scenario]:
    """The scenario with as many of its rounds as fit; None when not even one does."""
    for rounds in range(scenario.rounds, 0, -1):
        fewer = replace(scenario, rounds=rounds)
        if fewer.planned(peers) <= seconds:
            return fewer
    return None


Chosen = list[tuple[Scenario, tuple[str, ...]]]


def _headline() -> list[Scenario]:
    return [
        Scenario(
            "call_300",
            "tools/call, 300 B, 1,000 tokens (ES256)",
            (*BARE, *CHECKED),
            headline=True,
            rounds=4,
        ),
        Scenario(
            "rate_2000",
            "tools/call, 300 B at 2,000 requests/s",
            (*FIELD, "ring-relay"),
            "rate",
            headline=True,
            rate=2_000,
            spin=True,
        ),
        Scenario(
            "tls_down",
            "TLS 1.3 downstream, 300 B",
            (*RELAYS, "haproxy-tool", "envoy-tool-cache"),
            headline=True,
            rounds=3,
            warm=1.0,
            tls_down=True,
        ),
        Scenario(
            "call_16k",
            "tools/call, 16 KiB up and down",
            (*FIELD, "ring-relay", "monoio-http-relay", "hyper-relay", "ablation-inspect"),
            headline=True,
            tool="answer_16384",
            body=16_384,
        ),
        Scenario(
            "start",
            "cold start, memory after it and after load, size of the program",
            (
                "nginx",
                "portcullis",
                "portcullis-2-workers",
                "haproxy",
                "envoy",
                "ring-relay",
                "agentgateway-http",
            ),
            "start",
            headline=True,
            rounds=10,
            # Both workers' audit rings go round once: their pages count from then on.
            first_warm=3.0,
        ),
        Scenario(
            "sse_16",
            "16 event streams, an event each ms",
            (
                "direct",
                "nginx",
                "portcullis",
                "haproxy",
                "haproxy-tool",
                "envoy",
                "envoy-tool-cache",
            ),
            "sse",
            headline=True,
            tool="sse_500_1000",
            connections=16,
        ),
        Scenario(
            "answer_1m",
            "answers of 1 MiB, 8 connections",
            ("direct", *RELAYS, "ring-relay"),
            headline=True,
            tool="answer_1048576",
            connections=8,
        ),
    ]


def _tokens() -> Iterable[Scenario]:
    """300 B and 16 KiB with 10, 1,000 and 50,000 tokens, ES256 and RS256; and all cold."""
    yield Scenario(
        "cold_es256",
        "300 B, every token new (ES256)",
        RIVALS,
        cold=True,
        tokens=40_000,
        first_warm=0.0,
    )
    yield Scenario(
        "cold_rs256",
        "300 B, every token new (RS256)",
        RIVALS,
        cold=True,
        tokens=50_000,
        alg="RS256",
        first_warm=0.0,
        rounds=1,
    )
    for body, size in ((300, "300"), (16_384, "16k")):
        for alg in ("ES256", "RS256"):
            for count in (10, 1_000, 50_000):
                if (alg, count) == ("ES256", 1_000):
                    continue  # call_300 and call_16k
                many = count > MANY_TOKENS
                yield Scenario(
                    f"tokens_{size}_{alg.lower()}_{count}",
                    f"{body} B, {count:,} tokens ({alg})",
                    RIVALS,
                    body=body,
                    tool=f"answer_{body}",
                    tokens=count,
                    alg=alg,
                    # What the one pass is planned with.
                    first_warm=9.0 if many else 1.0,
                )
    # A pass takes 25 s and an entry lives 60: of three turns of a token one is verified anew. One
    # pass before, three in the window: that is the steady state from its first request on.
    yield Scenario(
        "tokens_50000_steady",
        "300 B, 50,000 tokens (ES256) at 2,000 requests/s for longer than an entry lives",
        ("nginx", "portcullis"),
        "rate",
        tokens=50_000,
        rate=2_000,
        rounds=1,
        seconds=75.0,
        # Twice this is planned: the one pass.
        first_warm=12.5,
        spin=True,
    )


def _rest() -> list[Scenario]:
    shares = [
        Scenario(
            f"rate_{share}",
            f"300 B at {share} % of what nginx can",
            (*FIELD, "ring-relay"),
            "rate",
            share=share / 100,
            spin=True,
            warm=1.0,
        )
        for share in (25, 50, 75)
    ]
    idle = [
        Scenario(
            f"idle_{count}{'_tls' if tls else ''}",
            f"{count:,} idle connections{' over TLS' if tls else ''}",
            RELAYS,
            "idle",
            connections=count,
            tls_down=tls,
            tokens=10,
            rounds=1,
        )
        for tls in (False, True)
        for count in (1_000, 10_000)
    ]
    return [
        Scenario(
            "ablation",
            "300 B, one stage off at a time, in pairs",
            ABLATION,
            "pairs",
            rounds=16,
            seconds=0.5,
            warm=0.1,
        ),
        Scenario(
            "ablation_16k",
            "16 KiB up and down, without inspection, in pairs",
            (BASE, "ablation-inspect"),
            "pairs",
            tool="answer_16384",
            body=16_384,
            rounds=24,
            seconds=0.5,
            warm=0.1,
        ),
        Scenario(
            "syscalls",
            "system calls per request (strace)",
            (*RELAYS, "ring-relay", "haproxy-tool"),
            "syscalls",
            rounds=1,
            connections=64,
        ),
        *shares,
        Scenario(
            "handshakes",
            "full TLS 1.3 handshakes, one request each",
            RELAYS,
            "handshakes",
            tls_down=True,
            connections=1,
        ),
        *_tokens(),
        Scenario(
            "tls_up",
            "TLS 1.3 upstream, 300 B",
            (*RELAYS, "haproxy-tool", "envoy-tool-cache"),
            tls_up=True,
        ),
        Scenario(
            "tls_both",
            "TLS 1.3 on both sides, 300 B",
            (*RELAYS, "haproxy-tool", "envoy-tool-cache"),
            tls_down=True,
            tls_up=True,
        ),
        Scenario(
            "tools_list",
            "tools/list, 20 tools",
            ("direct", *RELAYS, "haproxy-tool", "envoy-tool-cache"),
            method="tools/list",
            tool="",
        ),
        Scenario(
            "new_connections", "a new connection for each request", ("direct", *RELAYS), "new"
        ),
        Scenario("slow_1_percent", "300 B, 1 % answered after 50 ms", FIELD, slow_percent=1),
        Scenario(
            "sse_1000",
            "1,000 event streams, 16 events/s each",
            ("direct", *RELAYS),
            "sse",
            tool="sse_32_62500",
            connections=1_000,
            seconds=4.0,
            warm=1.0,
            rounds=3,
        ),
        *idle,
        Scenario(
            "hub_300",
            "tools/call, 300 B, at /mcp beside /mcp/{server}",
            ("portcullis", "portcullis-hub"),
            rounds=8,
            seconds=1.0,
        ),
        Scenario(
            "contextforge",
            "tools/call, 300 B, ContextForge beside nginx",
            ("nginx", "portcullis", "contextforge"),
            connections=8,
            tokens=10,
        ),
    ]


def _variants() -> Iterable[Scenario]:
    """What the settings of the bare peers are worth: each gets its cheapest (perf/NOTES.md)."""
    names = (
        "nginx",
        "haproxy",
        *(peer.name for peer in proxies.VARIANTS),
        "envoy",
        *(peer.name for peer in envoy.VARIANTS),
    )
    for text, size, many in (("300", 300, 32), ("16k", 16_384, 32), ("1m", 1 << 20, 8)):
        yield Scenario(
            f"variants_{text}",
            f"settings of the peers, {size:,} B",
            names,
            body=min(size, 16_384) if size < 1 << 20 else 300,
            tool=f"answer_{size}",
            connections=many,
            rounds=8,
            seconds=1.0,
            extra=True,
        )


def scenarios() -> list[Scenario]:
    """All of them, the most important first."""
    return [*_headline(), *_rest(), *_variants()]


def all_peers() -> dict[str, Peer]:
    """Peers by name; `direct` is none: it is the upstream itself."""
    listed = [*proxies.PEERS, *ours.PEERS, *envoy.PEERS, *gateways.PEERS]
    listed += [*proxies.VARIANTS, *envoy.VARIANTS]
    return {peer.name: peer for peer in listed}


def with_rounds(chosen: Chosen, rounds: Optional[int]) -> Chosen:
    """The same with another number of rounds where there is more than one."""
    if rounds is None:
        return chosen
    return [
        (replace(one, rounds=rounds) if one.rounds > 1 else one, peers) for one, peers in chosen
    ]


def selected(full: bool, only: list[str], extra: bool = False) -> Chosen:
    """Scenarios with the peers asked for; anchors stay, since a ratio needs them.

    Each of `only` is `SCENARIO,PEER`, `SCENARIO` or `,PEER`.
    """
    pairs = [tuple((*text.split(",", 1), "")[:2]) for text in only]
    chosen = []
    for scenario in scenarios():
        if not pairs:
            if (extra or not scenario.extra) and (full or scenario.headline):
                chosen.append((scenario, scenario.peers))
            continue
        peers: set[str] = set()
        for name, peer in pairs:
            if name in ("", scenario.name):
                peers.update(scenario.peers if not peer else {peer} & set(scenario.peers))
        if peers:
            peers.update(scenario.anchors)
            chosen.append((scenario, tuple(name for name in scenario.peers if name in peers)))
    return chosen


def unknown(only: list[str]) -> Optional[str]:
    """The first name in `only` that means nothing."""
    names = {scenario.name for scenario in scenarios()}
    peers = {*all_peers(), "direct"}
    for text in only:
        name, _, peer = text.partition(",")
        if name and name not in names:
            return name
        if peer and peer not in peers:
            return peer
    return None

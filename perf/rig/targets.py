"""The targets of the performance issue, each with its measured distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from cells import Book
from stats import Spread

OURS = "portcullis"


@dataclass(frozen=True)
class Target:
    """One sentence to be earned."""

    text: str
    limit: float
    unit: str
    measured: Optional[float]
    detail: str = ""

    def verdict(self) -> str:
        """Met, the distance, or that it was not measured."""
        if self.measured is None:
            return "not measured"
        if self.measured <= self.limit:
            return "met"
        if self.limit <= 0:
            return f"missed by {self.measured - self.limit:.2f} {self.unit}"
        return f"missed by {(self.measured / self.limit - 1) * 100:.0f} %"


def _over(book: Book, scenario: str, peer: str, ours: str = OURS) -> tuple[Optional[float], str]:
    """Ratio of our cost to a peer's in the same run, round by round, with its spread."""
    mine, theirs = book.cell(scenario, ours), book.cell(scenario, peer)
    if mine is None or theirs is None:
        return None, ""
    if mine.raw["run"].get("time") != theirs.raw["run"].get("time"):
        return None, "not from the same run"
    costing = mine.costing()
    pairs = []
    for one, other in zip(mine.rounds, theirs.rounds):
        cost, base = costing(one), costing(other)
        if cost is not None and base:
            pairs.append(cost / base)
    spread = Spread.of(pairs)
    return (spread.middle, spread.text(2)) if spread else (None, "")


def _ratio(
    book: Book, text: str, limit: float, scenario: str, peer: str, ours: str = OURS
) -> Target:
    value, detail = _over(book, scenario, peer, ours)
    return Target(text, limit, "×", value, detail)


def _latency(book: Book, text: str, scenario: str, name: str) -> list[Target]:
    """Added latency against nginx's own, and in µs."""
    mine, base = book.cell(scenario, OURS), book.cell(scenario, "nginx")
    ours = mine.over_direct(name) if mine else None
    theirs = base.over_direct(name) if base else None
    value = ours.middle / theirs.middle if ours and theirs and theirs.middle > 0 else None
    detail = f"{ours.middle:.0f} µs against {theirs.middle:.0f}" if ours and theirs else ""
    found = [Target(f"{text}: {name} added, over what nginx adds", 0.8, "×", value, detail)]
    if name == "p50" and scenario == "rate_2000":
        found.append(
            Target(
                f"{text}: p50 added",
                45,
                "µs",
                ours.middle if ours else None,
                ours.text(0) if ours else "",
            )
        )
    return found


def _best(book: Book, scenario: str, peers: tuple[str, ...]) -> tuple[Optional[float], str]:
    costs = {peer: book.cost(scenario, peer) for peer in peers}
    known = {peer: cost for peer, cost in costs.items() if cost is not None}
    if not known:
        return None, ""
    best = min(known, key=lambda peer: known[peer])
    return known[best], best


def _streams(book: Book) -> list[Target]:
    """Event delay against HAProxy's."""
    found = []
    for name in ("p50", "p99"):
        mine, base = book.cell("sse_16", OURS), book.cell("sse_16", "haproxy")
        ours, theirs = (cell.delay(name) if cell else None for cell in (mine, base))
        value = ours.middle / theirs.middle if ours and theirs and theirs.middle else None
        detail = f"{ours.middle:.0f} µs against {theirs.middle:.0f}" if ours and theirs else ""
        found.append(
            Target(f"event streams: {name} of the delay, over HAProxy's", 1.0, "×", value, detail)
        )
    return found


def _memory(book: Book) -> list[Target]:
    """Start, resident memory and memory per connection."""
    start = book.middle("start", OURS, "answers_ms")
    resident = book.middle("start", "portcullis-2-workers", "rss_kb")
    found = [
        Target(
            "start to the first answered call",
            50,
            "ms",
            start,
            f"{start:.0f} ms" if start is not None else "",
        ),
        Target(
            "resident with 2 workers",
            15,
            "MB",
            resident / 1_000 if resident else None,
            f"{resident / 1_000:.1f} MB" if resident else "",
        ),
    ]
    for scenario, kind, limit in (("idle_10000", "plain", 4.0), ("idle_10000_tls", "TLS", 20.0)):
        value = book.middle(scenario, OURS, "kb_per_connection")
        found.append(
            Target(
                f"per idle {kind} connection (10,000)",
                limit,
                "KiB",
                value,
                f"{value:.1f} KiB" if value is not None else "",
            )
        )
    return found


def _enters(book: Book) -> Target:
    """Ring enters per request, as strace counts them."""
    cell = book.cell("syscalls", OURS)
    one = cell.rounds[0] if cell else {}
    done = float(one.get("requests") or 0)
    calls = one.get("syscalls") or {}
    value = calls["io_uring_enter"] / done if done and "io_uring_enter" in calls else None
    detail = (
        f"{value:.2f} under strace" if value is not None else "no ring was entered" if calls else ""
    )
    return Target("ring enters per request at 64 connections", 1.0, "", value, detail)


def targets(book: Book) -> list[Target]:
    """All of them, in the order of the issue."""
    cost = book.cost("call_300", OURS)
    relay, relay_name = _best(
        book,
        "call_16k",
        ("nginx", "haproxy", "envoy", "ring-relay", "monoio-http-relay", "hyper-relay"),
    )
    bare = book.cost("call_16k", "ablation-inspect")
    shake, shake_name = _best(book, "handshakes", ("nginx", "haproxy", "envoy"))
    mine = book.cost("handshakes", OURS)
    haproxy, detail = _over(book, "answer_1m", "haproxy")
    cold, warm = book.cost("cold_es256", OURS), book.cost("tokens_300_es256_10", OURS)
    found = [
        _ratio(book, "CPU per request over nginx's bare relay", 1.0, "call_300", "nginx"),
        _ratio(book, "the same, second aim", 0.9, "call_300", "nginx"),
        Target("CPU per request", 12, "µs", cost, f"{cost:.1f} µs" if cost else ""),
        _ratio(book, "over HAProxy with JWT and rule", 0.1, "call_300", "haproxy-tool"),
        _ratio(
            book, "over Envoy with token cache, JWT and rule", 0.15, "call_300", "envoy-tool-cache"
        ),
        _ratio(
            book,
            "over agentgateway's MCP route with JWT and rule",
            0.05,
            "call_300",
            "agentgateway-mcp",
        ),
        _ratio(book, "TLS: over nginx's bare TLS relay", 1.0, "tls_down", "nginx"),
        _ratio(book, "16 KiB: over nginx's bare relay", 1.0, "call_16k", "nginx"),
        Target(
            "16 KiB without inspection: over the best bare relay",
            1.05,
            "×",
            bare / relay if bare and relay else None,
            f"{bare:.1f} against {relay:.1f} ({relay_name})" if bare and relay else "",
        ),
        _ratio(book, "1 MiB: over nginx's bare relay", 0.5, "answer_1m", "nginx"),
        Target("1 MiB: over HAProxy's bare relay", 1.1, "×", haproxy, detail),
    ]
    for scenario, text in (("rate_2000", "2,000 requests/s"), ("rate_50", "50 % load")):
        for name in ("p50", "p99"):
            found += _latency(book, text, scenario, name)
    found += _streams(book)
    found.append(
        Target(
            "full TLS 1.3 handshake: over the best peer's",
            1.0,
            "×",
            mine / shake if mine and shake else None,
            f"{mine:.0f} µs against {shake:.0f} ({shake_name})" if mine and shake else "",
        )
    )
    found.append(_enters(book))
    found += _memory(book)
    found.append(
        Target(
            "a cold ES256 token (cold less warm)",
            0.0,
            "µs",
            None,
            (
                f"{cold - warm:.1f} µs; the signature alone: bench token_verify_cold"
                if cold and warm
                else "compare with the bench token_verify_cold"
            ),
        )
    )
    return found

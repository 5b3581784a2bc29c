"""The targets of the performance issue, each with its measured distance."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from cells import Book, Cell
from stats import Spread, errors

OURS = "portcullis"
BASELINE = Path(__file__).resolve().parents[1] / "gate" / "baseline.json"

FLOOR_ABOVE = "a raw ring that checks nothing is above it here, too"
COPIES = "two copies of the body, so that writes share a system call"
WAKING = "the raw ring, which checks nothing, adds as much"
# Printed beside a target only where it is missed.
REASONS = {
    "CPU per request": "nginx itself costs more here than on the machine of the aim (12.2)",
    "over HAProxy with JWT and rule": FLOOR_ABOVE,
    "over Envoy with token cache, JWT and rule": FLOOR_ABOVE,
    "over agentgateway's MCP route with JWT and rule": FLOOR_ABOVE,
    "16 KiB: over nginx's bare relay": f"{COPIES}, and the parser's",
    "16 KiB without inspection: over the best bare relay": COPIES,
    "1 MiB: over nginx's bare relay": "the upstream alone costs half of nginx",
    "2,000 requests/s: p50 added, over what nginx adds": WAKING,
    "2,000 requests/s: p50 added": WAKING,
    "50 % load: p50 added, over what nginx adds": WAKING,
    "50 % load: p99 added, over what nginx adds": "audit writer and worker share one CPU",
    "16 event streams: p50 of the delay, over HAProxy's": "not explained yet",
    "16 event streams: p99 of the delay, over HAProxy's": "not explained yet",
}


@dataclass(frozen=True)
class Target:
    """One sentence to be earned; without a limit it is reported only."""

    text: str
    limit: Optional[float]
    unit: str
    measured: Optional[float]
    detail: str = ""
    spread: Optional[Spread] = None
    wrong: int = 0
    quiet: bool = True
    instead: str = ""
    # How late the load itself was, by the percentile that is judged, and the latency judged.
    late: float = 0.0
    added: float = 0.0

    def missed(self) -> bool:
        """Whether it was measured, may be judged and is not met."""
        return self.verdict().startswith("missed")

    def reason(self) -> str:
        """Why it is missed, in few words; nothing when it is not."""
        return REASONS.get(self.text, "none is known") if self.missed() else ""

    def verdict(self) -> str:
        """Met or the distance, by the middle of the rounds, with what makes it doubtful."""
        if self.instead:
            return self.instead
        if self.measured is None or self.limit is None:
            return "not measured"
        if self.wrong:
            return f"no verdict: {self.wrong} errors"
        if self.late > self.added / 2:
            return f"no verdict: the load itself was late by {self.late:.0f} µs"
        if self.measured <= self.limit:
            text = "met"
        elif self.limit <= 0:
            text = f"missed by {self.measured - self.limit:.2f} {self.unit}".strip()
        else:
            text = f"missed by {(self.measured / self.limit - 1) * 100:.0f} %"
        if self.spread and self.spread.least <= self.limit < self.spread.most:
            text += " (within spread)"
        return text if self.quiet else f"{text}; not quiet"


def _target(
    text: str,
    limit: float,
    unit: str,
    spread: Optional[Spread],
    detail: str,
    *cells: Optional[Cell],
) -> Target:
    """A target with what its cells say of errors and of the machine."""
    there = [cell for cell in cells if cell]
    wrong = sum(errors(cell.rounds) for cell in there)
    quiet = all(cell.raw["run"].get("quiet", True) for cell in there)
    value = spread.middle if spread else None
    return Target(text, limit, unit, value, detail, spread, wrong, quiet)


def _over(
    book: Book, scenario: str, peer: str, ours: str = OURS
) -> tuple[Optional[Spread], str, int]:
    """Ratio of our cost to a peer's, round by round; and the errors on the peer's side.

    nginx is taken from the rounds beside ours, everybody else from the same run only.
    """
    mine = book.cell(scenario, ours)
    if mine is None:
        return None, "", 0
    if peer == "nginx":
        spread, rounds = mine.to_nginx(), mine.anchor("nginx")
    elif theirs := book.beside(mine, scenario, peer):
        spread, rounds = mine.over(theirs.rounds), theirs.rounds
    else:
        return None, "not from the same run" if book.cell(scenario, peer) else "", 0
    return spread, spread.text(2) if spread else "", errors(rounds)


FLOOR = "ring-relay"


def _floor(book: Book, scenario: str, peer: str) -> str:
    """Where a raw ring that checks nothing stands: no gateway on this machine gets below."""
    if peer == FLOOR:
        return ""
    spread, _, _ = _over(book, scenario, peer, FLOOR)
    return f"{FLOOR}, which checks nothing: {spread.middle:.2f}" if spread else ""


def _ratio(
    book: Book, text: str, limit: float, scenario: str, peer: str, more: str = ""
) -> Target:
    spread, detail, wrong = _over(book, scenario, peer)
    mine = book.cell(scenario, OURS)
    for note in (_floor(book, scenario, peer), more):
        detail += f"; {note}" if spread and note else ""
    quiet = bool(mine.raw["run"].get("quiet", True)) if mine else True
    wrong += errors(mine.rounds) if mine else 0
    value = spread.middle if spread else None
    return Target(text, limit, "×", value, detail, spread, wrong, quiet)


def _latency(book: Book, text: str, scenario: str, name: str) -> list[Target]:
    """Added latency against nginx's own, both over direct, all of the same minutes; and in µs."""
    mine = book.cell(scenario, OURS)
    ours = mine.over_direct(name) if mine else None
    theirs = mine.nginx_over_direct(name) if mine else None
    lag = mine.lag(name) if mine else None
    late = {"late": lag.middle if lag else 0.0, "added": ours.middle if ours else 0.0}
    spread = ours.divided(theirs.middle) if ours and theirs and theirs.middle > 0 else None
    detail = f"{ours.middle:.0f} µs against {theirs.middle:.0f}" if ours and theirs else ""
    raw = book.beside(mine, scenario, FLOOR)
    floor = raw.over_direct(name) if raw else None
    detail += f"; {FLOOR}, which checks nothing: {floor.middle:.0f}" if detail and floor else ""
    detail += f"; the load's own lag: {lag.middle:.1f}" if detail and lag else ""
    title = f"{text}: {name} added, over what nginx adds"
    found = [replace(_target(title, 0.8, "×", spread, detail, mine), **late)]
    if name == "p50" and scenario == "rate_2000":
        shown = ours.text(0) if ours else ""
        found.append(replace(_target(f"{text}: p50 added", 45, "µs", ours, shown, mine), **late))
    return found


def _best(
    book: Book, mine: Optional[Cell], scenario: str, peers: tuple[str, ...]
) -> tuple[Optional[float], str]:
    """The cheapest of those that the run of `mine` measured."""
    costs = {
        peer: cost.middle
        for peer in peers
        if (cell := book.beside(mine, scenario, peer)) and (cost := cell.cost())
    }
    if not costs:
        return None, ""
    best = min(costs, key=lambda peer: costs[peer])
    return costs[best], best


def _over_best(
    book: Book, text: str, limit: float, scenario: str, ours: str, peers: tuple[str, ...]
) -> Target:
    """Our cost over that of the best of `peers` in the same run."""
    mine = book.cell(scenario, ours)
    best, name = _best(book, mine, scenario, peers)
    cost = mine.cost() if mine else None
    spread = cost.divided(best) if cost and best else None
    detail = f"{cost.middle:.1f} against {best:.1f} µs ({name})" if cost and best else ""
    return _target(text, limit, "×", spread, detail, mine, book.cell(scenario, name))


def _streams(book: Book) -> list[Target]:
    """Event delay against HAProxy's, few streams and many."""
    found = []
    for scenario, count in (("sse_16", "16"), ("sse_1000", "1,000")):
        mine = book.cell(scenario, OURS)
        base = book.beside(mine, scenario, "haproxy")
        for name in ("p50", "p99"):
            ours, theirs = (cell.delay(name) if cell else None for cell in (mine, base))
            spread = ours.divided(theirs.middle) if ours and theirs and theirs.middle else None
            detail = f"{ours.middle:.0f} µs against {theirs.middle:.0f}" if ours and theirs else ""
            text = f"{count} event streams: {name} of the delay, over HAProxy's"
            found.append(_target(text, 1.0, "×", spread, detail, mine, base))
    return found


def _resident(book: Book) -> Target:
    """Resident memory after load: what a gateway that has worked holds, not one just born."""
    cell = book.cell("start", f"{OURS}-2-workers")

    def megabytes(name: str, of: Optional[Cell]) -> Optional[float]:
        spread = of.figure(name) if of else None
        return spread.middle * 1024 / 1e6 if spread else None

    warm, ring = megabytes("rss_kb_end", cell), megabytes("rss_audit_ring_kb_end", cell)
    born = megabytes("rss_kb", cell)
    detail = ""
    if warm is not None and born is not None:
        detail = f"{warm:.1f} MB after load, {ring or 0.0:.1f} of them the mapped audit ring"
        detail += f"; {born:.1f} after the first call"
        for peer in ("nginx", "haproxy"):
            theirs = megabytes("rss_kb_end", book.beside(cell, "start", peer))
            detail += f"; {peer}, one worker: {theirs:.1f}" if theirs is not None else ""
    return _target(
        "resident with 2 workers, after load", 15, "MB", Spread.of([warm]), detail, cell
    )


def _memory(book: Book) -> list[Target]:
    """Start, resident memory and memory per connection."""
    rows = [("start to the first answered call", 50, "ms", "start", "answers_ms")]
    for name, kind, limit in (("idle_10000", "plain", 4), ("idle_10000_tls", "TLS", 20)):
        text = f"per idle {kind} connection (10,000)"
        rows.append((text, limit, "KiB", name, "kb_per_connection"))
    found = []
    for text, limit, unit, scenario, figure in rows:
        cell = book.cell(scenario, OURS)
        spread = cell.figure(figure) if cell else None
        shown = f"{spread.text(1)} {unit}" if spread else ""
        found.append(_target(text, limit, unit, spread, shown, cell))
    found.insert(1, _resident(book))
    return found


def _enters(book: Book) -> Target:
    """Ring enters per request, by the kernel's tracepoint; strace alone earns no verdict, since it
    slows the process and so makes its batches larger."""
    cell, text = book.cell("syscalls", OURS), "ring enters per request at 64 connections"
    one = cell.rounds[0] if cell else {}
    done = float(one.get("requests") or 0)
    calls = one.get("syscalls") or {}
    traced = calls["io_uring_enter"] / done if done and "io_uring_enter" in calls else None
    beside = f"{traced:.2f} under strace, which makes batches larger" if traced is not None else ""
    if counted := one.get("enters"):
        value = float(counted["per_request"])
        detail = f"{value:.3f} by the tracepoint at {counted['rps']:,.0f} requests/s"
        detail += f", {counted['rps_uncounted']:,.0f} uncounted"
        detail += f"; {beside}" if beside else ""
        return _target(text, 1.0, "", Spread.of([value]), detail, cell)
    detail = beside or ("no ring was entered" if calls else "")
    why = one.get("enters_not_counted", "")
    found = _target(text, 1.0, "", Spread.of([traced]), detail, cell)
    instead = f"no verdict: counted under strace only ({why})" if traced is not None else ""
    return replace(found, instead=instead)


def _allocations() -> Target:
    """Counted by the gate, not here: its baseline is what each commit is held to."""
    text = "allocations per warm request"
    try:
        counts = json.loads(BASELINE.read_text(encoding="utf-8"))["allocations"]
        value = max(float(count) for count in counts.values())
        detail = ", ".join(f"{count:g} ({name})" for name, count in sorted(counts.items()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Target(text, 0.0, "", None, "perf/gate/baseline.json has none")
    return Target(text, 0.0, "", value, f"{detail}: perf/gate/baseline.json")


def _cold(book: Book) -> Target:
    """No verdict here: the end-to-end difference holds more than the signature."""
    warm = book.cell("tokens_300_es256_10", OURS)
    cold = book.beside(warm, "cold_es256", OURS)
    costs = [cell.cost() if cell else None for cell in (cold, warm)]
    detail = "cold_es256 and tokens_300_es256_10 are not of one run yet"
    if costs[0] and costs[1]:
        detail = f"{costs[0].middle - costs[1].middle:.1f} µs: cold_es256 less tokens_300_es256_10"
    return Target(
        "a cold ES256 token, within 10 % of its signature",
        None,
        "µs",
        None,
        detail,
        instead="judged by `cargo bench --features bench-internals --bench token_verify_cold`: "
        "`es256` over `signature_alone`",
    )


def _haproxy_terms(book: Book) -> str:
    """What stands beside a warm cache that the other side does not have."""
    mine = book.cell("call_300", OURS)
    cold = book.beside(mine, "cold_es256", OURS)
    cost = cold.cost() if cold else None
    ours = f"{cost.text(1)} µs" if cost else "not measured in this run"
    return f"HAProxy 2.6 (Debian), OpenSSL 3.0, no token cache; ours with every token cold: {ours}"


def _costs(book: Book) -> list[Target]:
    """CPU per request, ours and over others'."""
    mine = book.cell("call_300", OURS)
    cost = mine.cost() if mine else None
    shown = f"{cost.text(1)} µs" if cost else ""
    terms, mcp = _haproxy_terms(book), "over agentgateway's MCP route with JWT and rule"
    envoy = "over Envoy with token cache, JWT and rule"
    relays = ("nginx", "haproxy", "envoy", "ring-relay", "monoio-http-relay", "hyper-relay")
    return [
        _ratio(book, "CPU per request over nginx's bare relay", 1.0, "call_300", "nginx"),
        _ratio(book, "the same, second aim", 0.9, "call_300", "nginx"),
        _target("CPU per request", 12, "µs", cost, shown, mine),
        _ratio(book, "over HAProxy with JWT and rule", 0.1, "call_300", "haproxy-tool", terms),
        _ratio(book, envoy, 0.15, "call_300", "envoy-tool-cache"),
        _ratio(book, mcp, 0.05, "call_300", "agentgateway-mcp"),
        _ratio(book, "TLS: over nginx's bare TLS relay", 1.0, "tls_down", "nginx"),
        _ratio(book, "16 KiB: over nginx's bare relay", 1.0, "call_16k", "nginx"),
        _over_best(
            book,
            "16 KiB without inspection: over the best bare relay",
            1.05,
            "call_16k",
            "ablation-inspect",
            relays,
        ),
        _ratio(book, "1 MiB: over nginx's bare relay", 0.5, "answer_1m", "nginx"),
        _ratio(book, "1 MiB: over HAProxy's bare relay", 1.1, "answer_1m", "haproxy"),
    ]


def targets(book: Book) -> list[Target]:
    """All of them, in the order of the issue."""
    found = _costs(book)
    for scenario, text in (("rate_2000", "2,000 requests/s"), ("rate_50", "50 % load")):
        for name in ("p50", "p99"):
            found += _latency(book, text, scenario, name)
    found += _streams(book)
    peers, shake = ("nginx", "haproxy", "envoy"), "full TLS 1.3 handshake: over the best peer's"
    found.append(_over_best(book, shake, 1.0, "handshakes", OURS, peers))
    found += [_enters(book), _allocations()]
    return [*found, *_memory(book), _cold(book)]

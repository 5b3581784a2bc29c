"""The targets of the performance issue, each with its measured distance."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional

from cells import Book, Cell, Round
from scenarios import all_peers
from stats import Spread, errors, ratio

OURS = "portcullis"
HUB = "portcullis-hub"
BASELINE = Path(__file__).resolve().parents[1] / "gate" / "baseline.json"

UNMEASURED = "not measured"
DRIVERS = ("epoll", "io_uring")
FLOOR_ABOVE = "a raw ring that checks nothing is above it here, too"
COPIES = "two copies of the body, so that writes share a system call"
# On which the aim of 12 µs was set.
NGINX_OF_THE_AIM = 12.2
# What is known without a figure: printed only where a target is missed and no figure contradicts.
REASONS = {
    "16 KiB: over nginx's bare relay": COPIES,
    "16 KiB without inspection: over the best bare relay": COPIES,
    "50 % load: p99 added, over what nginx adds": "audit writer and worker share one CPU",
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
    # Of the same run: where the raw ring stands, in the unit of the limit; what the figures say of
    # a miss; whether they contradict what is known without them; why there is no figure.
    floor: Optional[float] = None
    cause: str = ""
    contradicted: bool = False
    why: str = ""

    def missed(self) -> bool:
        """Whether it was measured, may be judged and is not met."""
        return self.verdict().startswith("missed")

    def reason(self) -> str:
        """Why it is missed or not measured, in few words; nothing when it is neither."""
        if self.verdict() == UNMEASURED:
            return self.why or "no figure"
        if not self.missed():
            return ""
        if self.floor is not None and self.limit is not None and self.floor > self.limit:
            return f"{FLOOR_ABOVE}: {self.floor:.2f} {self.unit}".strip()
        known = "" if self.contradicted else REASONS.get(self.text, "")
        return "; ".join(part for part in (self.cause, known) if part) or "not known"

    def verdict(self) -> str:
        """Met or the distance, by the middle of the rounds, with what makes it doubtful."""
        if self.instead:
            return self.instead
        if self.measured is None or self.limit is None:
            return UNMEASURED
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


def _floor(book: Book, scenario: str, peer: str) -> Optional[float]:
    """Where a raw ring that checks nothing stands in our run: no gateway here gets below."""
    spread, _, _ = _over(book, scenario, peer, FLOOR)
    mine = book.cell(scenario, OURS)
    return spread.middle if spread and book.beside(mine, scenario, FLOOR) else None


def _why(book: Book, scenario: str, *peers: str) -> str:
    """Why there is no figure: the first of `peers` that has none, in the run of the first."""
    mine = book.cell(scenario, peers[0])
    for peer in peers:
        cell = book.cells.get((scenario, peer))
        if cell and (cell.failed or not cell.rounds):
            return f"{peer}: {cell.failed or 'no rounds'}"
        if cell and mine and cell.run != mine.run:
            return f"{peer}: not from the same run"
        if cell:
            continue
        if strange := book.left_out.get((scenario, peer)):
            return f"{peer}: left out, for it is of another {strange}"
        known = all_peers().get(peer)
        missing = (book.machine.get("missing") or {}).get(known.program if known else peer)
        return f"{peer}: {missing or 'no cell of it'}"
    return "no figure in its rounds"


def _parts(mine: Optional[Cell], allowed: Optional[float]) -> tuple[str, bool]:
    """Our cost beside the one that would do; and whether the kernel's part alone is above that."""
    split = mine.split() if mine else None
    if not split or allowed is None:
        return "", False
    user, kernel = split
    text = f"{allowed:.1f} µs would meet it; it takes {user:.1f} in user space and {kernel:.1f} "
    return text + "in the kernel", kernel > allowed


def _allowed(limit: float, rounds: list[Round], mine: Optional[Cell]) -> Optional[float]:
    """What the limit is in µs, by the middle of the other side."""
    cost = Spread.of(mine.costing()(one) for one in rounds) if mine else None
    return limit * cost.middle if cost else None


def _beside_nginx(book: Book, scenario: str, mine: Cell, limit: float) -> str:
    """What else the run says of a miss against nginx."""
    costing, nginx = mine.costing(), [mine.costing()(one) for one in mine.anchor("nginx")]
    alone = ratio([costing(one) for one in mine.anchor("direct")], nginx)
    if alone and alone.middle > limit:
        return f"the upstream alone costs {alone.middle:.2f} of nginx"
    bare = book.beside(mine, scenario, "ablation-inspect")
    without = bare.to_nginx() if bare else None
    if without and without.middle <= limit:
        return f"the build without inspection stands at {without.middle:.2f}"
    return ""


def _ratio(
    book: Book, text: str, limit: float, scenario: str, peer: str, more: str = ""
) -> Target:
    spread, detail, wrong = _over(book, scenario, peer)
    mine = book.cell(scenario, OURS)
    floor = _floor(book, scenario, peer)
    note = f"{FLOOR}, which checks nothing: {floor:.2f}" if floor is not None else ""
    detail += "".join(f"; {part}" for part in (note, more) if spread and part)
    theirs = book.beside(mine, scenario, peer)
    rounds = mine.anchor("nginx") if mine and peer == "nginx" else theirs.rounds if theirs else []
    cause, contradicted = _parts(mine, _allowed(limit, rounds, mine))
    if mine and peer == "nginx" and (also := _beside_nginx(book, scenario, mine, limit)):
        cause = f"{cause}; {also}" if cause else also
    one = _target(text, limit, "×", spread, detail, mine)
    return replace(
        one,
        wrong=one.wrong + wrong,
        floor=floor,
        cause=cause,
        contradicted=contradicted,
        why=_why(book, scenario, OURS, peer),
    )


def _latency(book: Book, text: str, scenario: str, name: str) -> list[Target]:
    """Added latency against nginx's own, both over direct, round by round; and in µs."""
    mine = book.cell(scenario, OURS)
    if mine is None:
        spread, nothing, ours, theirs, lag = None, 0, None, None, None
    else:
        spread, nothing = mine.added_over_nginx(name)
        ours, theirs = mine.over_direct(name), mine.nginx_over_direct(name)
        lag = mine.lag_beside(name)
    detail = f"{ours.middle:.0f} µs against {theirs.middle:.0f}" if ours and theirs else ""
    detail = f"{spread.text(2)}: {detail}" if spread else detail
    raw = book.beside(mine, scenario, FLOOR)
    floor = raw.over_direct(name) if raw else None
    over = raw.added_over_nginx(name)[0] if raw else None
    detail += f"; {FLOOR}, which checks nothing: {floor.middle:.0f}" if detail and floor else ""
    detail += f"; the load's own lag: {lag:.1f}" if detail and lag is not None else ""
    title = f"{text}: {name} added, over what nginx adds"
    one = _target(title, 0.8, "×", spread, detail, mine)
    one = replace(one, floor=over.middle if over else None)
    if over and spread:
        # The ring writes no audit file: where it adds as much, that is not what adds.
        one = replace(one, contradicted=over.middle >= 0.9 * spread.middle)
    if nothing:
        one = replace(one, instead=f"no verdict: nginx adds nothing measurable ({nothing} rounds)")
    found = [one]
    if name == "p50" and scenario == "rate_2000":
        shown = ours.text(0) if ours else ""
        two = _target(f"{text}: p50 added", 45, "µs", ours, shown, mine)
        found.append(replace(two, floor=floor.middle if floor else None))
    # Neither side of a ratio may be made of lateness or of answers that were none.
    least = min((side.middle for side in (ours, theirs) if side), default=0.0)
    wrong = sum(errors(mine.anchor(side)) for side in ("nginx", "direct")) if mine else 0
    late, why = lag or 0.0, _late_why(mine) or _why(book, scenario, OURS)
    return [
        replace(one, late=late, added=least, wrong=one.wrong + wrong, why=why) for one in found
    ]


def _late_why(mine: Optional[Cell]) -> str:
    """Who did not keep the rate, so that there is no latency."""
    if mine is None:
        return ""
    if mine.saturated():
        return f"{OURS} did not keep the rate"
    gone = [side for side in ("nginx", "direct") if not mine.anchor(side)]
    slow = [side for side in ("nginx", "direct") if not mine.anchor_kept(side)]
    if gone:
        return f"no rounds of {' and '.join(gone)} beside it"
    return f"{' and '.join(slow)} did not keep the rate" if slow else ""


def _best(
    book: Book, mine: Optional[Cell], scenario: str, peers: tuple[str, ...]
) -> Optional[Cell]:
    """The cheapest of those that the run of `mine` measured."""
    costs = [
        (cost.middle, cell)
        for peer in peers
        if (cell := book.beside(mine, scenario, peer)) and (cost := cell.cost())
    ]
    return min(costs, key=lambda one: one[0])[1] if costs else None


def _over_best(
    book: Book, text: str, limit: float, scenario: str, ours: str, peers: tuple[str, ...]
) -> Target:
    """Our cost over that of the best of `peers` in the same run, round by round."""
    mine = book.cell(scenario, ours)
    best = _best(book, mine, scenario, peers)
    spread = mine.over(best.rounds) if mine and best else None
    costs = [cell.cost() if cell else None for cell in (mine, best)]
    detail = ""
    if spread and best and costs[0] and costs[1]:
        detail = f"{spread.text(2)}: {costs[0].middle:.1f} against {costs[1].middle:.1f} µs"
        detail += f" ({best.name})"
    cause, contradicted = _parts(mine, limit * costs[1].middle if costs[1] else None)
    one = _target(text, limit, "×", spread, detail, mine, best)
    why = _why(book, scenario, ours) if mine is None or best else "no other of the same run"
    return replace(one, cause=cause, contradicted=contradicted, why=why)


def _streams(book: Book) -> list[Target]:
    """Event delay against HAProxy's, few streams and many, round by round."""
    found = []
    for scenario, count in (("sse_16", "16"), ("sse_1000", "1,000")):
        mine = book.cell(scenario, OURS)
        base = book.beside(mine, scenario, "haproxy")
        for name in ("p50", "p99"):
            spread = mine.delay_over(base, name) if mine and base else None
            ours, theirs = (cell.delay(name) if cell else None for cell in (mine, base))
            detail = ""
            if spread and ours and theirs:
                detail = f"{spread.text(2)}: {ours.middle:.0f} µs against {theirs.middle:.0f}"
            text = f"{count} event streams: {name} of the delay, over HAProxy's"
            one = _target(text, 1.0, "×", spread, detail, mine, base)
            found.append(replace(one, why=_why(book, scenario, OURS, "haproxy")))
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
    """Counted by the gate and not with the program measured here; both drivers, or no verdict."""
    text = "allocations per warm request"
    try:
        counts = json.loads(BASELINE.read_text(encoding="utf-8"))["allocations"]
        found = {name: float(counts[name]) for name in DRIVERS}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        why = f"perf/gate/baseline.json has none for one of {', '.join(DRIVERS)}"
        return Target(text, 0.0, "", None, why=why)
    detail = ", ".join(f"{count:g} ({name})" for name, count in found.items())
    detail += ": from the gate's baseline, held in CI for each commit"
    return Target(text, 0.0, "", max(found.values()), detail)


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


def _beside_cost(book: Book, mine: Optional[Cell], peer: str) -> Optional[float]:
    """The middle cost of a peer in the scenario and run of `mine`."""
    cell = book.beside(mine, str(mine.scenario["name"]), peer) if mine else None
    cost = cell.cost() if cell else None
    return cost.middle if cost else None


def _whole_cause(mine: Optional[Cell], limit: float) -> str:
    """Ours by its parts, and nginx where it is dearer here than where the aim was set."""
    nginx = Spread.of(mine.costing()(one) for one in mine.anchor("nginx")) if mine else None
    parts = [_parts(mine, limit)[0]]
    if nginx and nginx.middle > NGINX_OF_THE_AIM:
        parts.append(
            f"nginx's bare relay takes {nginx.middle:.1f} here, where the aim was set "
            f"{NGINX_OF_THE_AIM}"
        )
    return "; ".join(part for part in parts if part)


def _costs(book: Book) -> list[Target]:
    """CPU per request, ours and over others'."""
    mine = book.cell("call_300", OURS)
    cost = mine.cost() if mine else None
    shown = f"{cost.text(1)} µs" if cost else ""
    terms, mcp = _haproxy_terms(book), "over agentgateway's MCP route with JWT and rule"
    whole = replace(
        _target("CPU per request", 12, "µs", cost, shown, mine),
        floor=_beside_cost(book, mine, FLOOR),
        cause=_whole_cause(mine, 12),
        why=_why(book, "call_300", OURS),
    )
    envoy = "over Envoy with token cache, JWT and rule"
    relays = ("nginx", "haproxy", "envoy", "ring-relay", "monoio-http-relay", "hyper-relay")
    return [
        _ratio(book, "CPU per request over nginx's bare relay", 1.0, "call_300", "nginx"),
        _ratio(book, "the same, second aim", 0.9, "call_300", "nginx"),
        whole,
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


def _federated(book: Book) -> Target:
    """A call at `/mcp` over the same at the server's own URL, round by round."""
    spread, detail, wrong = _over(book, "hub_300", OURS, HUB)
    mine = book.cell("hub_300", HUB)
    one = _target("a call at /mcp, over one at /mcp/{server}", 1.5, "×", spread, detail, mine)
    return replace(one, wrong=one.wrong + wrong, why=_why(book, "hub_300", HUB, OURS))


def targets(book: Book) -> list[Target]:
    """All of them, in the order of the issue."""
    found = _costs(book)
    for scenario, text in (("rate_2000", "2,000 requests/s"), ("rate_50", "50 % load")):
        for name in ("p50", "p99"):
            found += _latency(book, text, scenario, name)
    found += _streams(book)
    peers, shake = ("nginx", "haproxy", "envoy"), "full TLS 1.3 handshake: over the best peer's"
    found.append(_over_best(book, shake, 1.0, "handshakes", OURS, peers))
    found += [_enters(book), _allocations(), _federated(book)]
    return [*found, *_memory(book), _cold(book)]

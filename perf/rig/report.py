"""Writes `table.md` and the plots from the raw files, and nothing that is not in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Optional, Sequence

import svg
from cells import Book, Cell
from scenarios import Scenario, scenarios
from stages import shares, stages
from stats import errors
from targets import targets
from words import ABSENT, shown, table


def group(cell: Cell) -> str:
    """What colours a bar."""
    peer = cell.raw["peer"]
    if peer["family"] in ("portcullis", "ablation"):
        return "ours"
    if peer["family"] in ("control", "direct"):
        return "control"
    return "checks" if peer["checks"] else "bare"


def _where(machine: dict[str, Any]) -> str:
    """What the figures were measured on, in words."""
    if not machine:
        return "No run is recorded.\n"
    quiet = "quiet" if machine.get("quiet") else "**not quiet**"
    dirty = " with local changes" if machine.get("dirty") else ""
    network = (
        "a private network namespace" if machine.get("private_network") else "the plain loopback"
    )
    return (
        f"{machine.get('cpu')} ({machine.get('cpus_online')} CPUs, "
        f"{machine.get('virtual')}), Linux {machine.get('kernel')}, {machine.get('system')}; "
        f"commit {str(machine.get('commit'))[:12]}"
        f"{dirty}; {machine.get('time')}; load average at start "
        f"{machine.get('load_average')} ({quiet}); "
        f"proxy on CPU {machine.get('cpu_proxy')}, "
        f"load and upstream on CPU {machine.get('cpu_load')}, "
        f"in {network}.\n"
    )


def _headline(book: Book) -> str:
    """One row per peer, the figures that matter most beside each other."""
    heads = [
        "one CPU, same run",
        "CPU-µs per request",
        "over nginx",
        "requests/s",
        "p50 / p99 added at 2,000/s, µs",
        "16 KiB, CPU-µs",
        "TLS, CPU-µs",
        "resident, MiB",
        "first answer, ms",
    ]
    rows = []
    for cell in book.of("call_300"):
        name = cell.name
        if cell.failed:
            continue
        late = book.beside(cell, "rate_2000", name)
        added = [late.over_direct(part) if late else None for part in ("p50", "p99")]
        start = book.beside(cell, "start", name)
        resident, answers = (
            start.figure(part) if start else None for part in ("rss_kb", "answers_ms")
        )
        rows.append(
            (
                name,
                [
                    f"**{cell.label}**" if group(cell) == "ours" else cell.label,
                    shown(cell.cost()),
                    shown(cell.to_nginx(), 2),
                    shown(cell.rps(), 0, False),
                    (
                        " / ".join(shown(one, 0, False) for one in added)
                        if late and name != "direct"
                        else ABSENT
                    ),
                    *(
                        (
                            shown(found.cost(), 1, False)
                            if (found := book.beside(cell, scenario, name))
                            else ABSENT
                        )
                        for scenario in ("call_16k", "tls_down")
                    ),
                    shown(resident.divided(1_024) if resident else None, 1, False),
                    shown(answers, 0, False),
                ],
            )
        )
    order = {name: number for number, name in enumerate(_order("call_300"))}
    rows.sort(key=lambda row: order.get(row[0], 99))
    return table(heads, [row for _, row in rows]) if rows else "Nothing measured yet.\n"


def _order(scenario: str) -> tuple[str, ...]:
    for one in scenarios():
        if one.name == scenario:
            return one.peers
    return ()


Column = tuple[str, Callable[[Cell], str]]


def _columns(kind: str, tls: bool = False) -> list[Column]:
    """What is shown of a scenario of this kind."""
    found = _figures(kind)
    return [*found, ("TLS", lambda cell: cell.tls() or ABSENT)] if tls else found


def _counted(kind: str) -> list[Column]:
    """What is shown where no load is in turns: starts, memory and system calls."""
    if kind == "start":
        return [
            ("accepts, ms", lambda cell: shown(cell.figure("accepts_ms"), 0)),
            ("first answer, ms", lambda cell: shown(cell.figure("answers_ms"), 0)),
            ("resident, kB", lambda cell: shown(cell.figure("rss_kb"), 0)),
            ("proportional, kB", lambda cell: shown(cell.figure("pss_kb"), 0, False)),
            ("program, MB", lambda cell: f"{cell.rounds[0].get('program_bytes', 0) / 1e6:.1f}"),
        ]
    if kind == "idle":
        return [
            ("resident before, kB", lambda cell: shown(cell.figure("rss_kb_before"), 0)),
            ("with connections, kB", lambda cell: shown(cell.figure("rss_kb_after"), 0)),
            ("KiB per connection", lambda cell: shown(cell.figure("kb_per_connection"), 2)),
        ]
    if kind == "syscalls":
        return [
            (
                "system calls per request",
                lambda cell: shown(cell.figure("syscalls_per_request"), 2),
            ),
            ("the most frequent", _frequent),
        ]
    return []


def _figures(kind: str) -> list[Column]:
    """The figures among it."""
    cost: Column = ("CPU-µs, middle (least–most)", lambda cell: shown(cell.cost(), 2))
    over: Column = ("over nginx", lambda cell: shown(cell.to_nginx(), 2))
    rps: Column = ("requests/s", lambda cell: shown(cell.rps(), 0))
    wrong: Column = ("errors", lambda cell: str(errors(cell.rounds)))
    if counted := _counted(kind):
        return counted
    if kind == "pairs":
        saves = "saves, CPU-µs, and its 95 % interval"
        return [cost, (saves, lambda cell: shown(cell.saves(), 2))]
    if kind == "sse":
        delays: list[Column] = [
            (f"event delay {name}, µs", lambda cell, name=name: shown(cell.delay(name), 0))
            for name in ("p50", "p99", "p999")
        ]
        return [
            ("CPU-µs per event", cost[1]),
            over,
            *delays,
            (
                "events lost",
                lambda cell: str(
                    sum(int((one.get("events") or {}).get("lost") or 0) for one in cell.rounds)
                ),
            ),
            wrong,
        ]
    late: list[Column] = [
        (f"{name}, µs", lambda cell, name=name: shown(cell.delay(name), 0))
        for name in ("p50", "p99", "p999")
    ]
    if kind == "rate":
        more: list[Column] = [
            (
                f"{name} over direct, µs",
                lambda cell, name=name: (
                    ABSENT if cell.name == "direct" else shown(cell.over_direct(name), 0)
                ),
            )
            for name in ("p50", "p99", "p999")
        ]
        return [
            cost,
            over,
            *more,
            *late,
            (
                "the load's lag p50 / p99, µs",
                lambda cell: f"{shown(cell.lag('p50'), 1, False)} / "
                f"{shown(cell.lag('p99'), 0, False)}",
            ),
            ("rate kept", lambda cell: "no" if cell.saturated() else "yes"),
            wrong,
        ]
    share: Column = ("of its CPU, %", lambda cell: shown(cell.busy(), 0, False))
    hits: Column = ("token cache hits, %", lambda cell: shown(cell.token_hits(), 1))
    return [cost, over, rps, share, *late, hits, wrong]


def _frequent(cell: Cell) -> str:
    one = cell.rounds[0]
    calls = sorted((one.get("syscalls") or {}).items(), key=lambda item: -item[1])[:4]
    done = one.get("requests") or 1
    return ", ".join(f"{name} {count / done:.2f}" for name, count in calls)


def _section(book: Book, scenario: Scenario) -> str:
    """One scenario: its table, and why cells are missing."""
    cells = {cell.name: cell for cell in book.of(scenario.name)}
    if not cells:
        return ""
    columns = _columns(scenario.kind, any(cell.tls() for cell in cells.values()))
    rows, reasons = [], []
    for name in (*scenario.peers, *(extra for extra in cells if extra not in scenario.peers)):
        cell = cells.get(name)
        if cell is None:
            continue
        if cell.failed or not cell.rounds:
            reasons.append(f"* {cell.label}: not measured: {cell.failed or 'no rounds'}")
        else:
            rows.append([cell.label, *(column[1](cell) for column in columns)])
    done = sorted({len(cell.rounds) for cell in cells.values() if cell.rounds})
    load = next(iter(cells.values())).raw.get("load_average", {})
    head = (
        f"\n### {scenario.title} (`{scenario.name}`)\n\n{_terms(scenario, done)}; load average "
        f"{load.get('begin')} → {load.get('end')}.\n\n"
    )
    body = table(["", *(column[0] for column in columns)], rows) if rows else ""
    return head + body + ("\n" + "\n".join(reasons) + "\n" if reasons else "")


def _terms(scenario: Scenario, done: Sequence[int]) -> str:
    """The load in words, with the rounds that were done, whatever was planned."""
    rounds = " to ".join(str(count) for count in dict.fromkeys((*done[:1], *done[-1:]))) or "0"
    if scenario.kind in ("start", "idle"):
        return f"{rounds} × in a row"
    loop = (
        f"{scenario.connections} connections, {rounds} rounds of {scenario.seconds:g} s "
        + ("in pairs" if scenario.kind == "pairs" else "in turns")
    )
    if scenario.spin:
        loop += (
            ", a SCHED_IDLE spinner on the proxy's CPU and a load that never sleeps (no idle "
            "wake-ups)"
        )
    if scenario.beside:
        loop += "; `direct` has its upstream on the load's CPU, as the others have"
    if scenario.cold:
        loop += ", no token seen twice (a hit in our cache says that they ran out)"
    if scenario.kind == "closed":
        loop += (
            "; a peer below 90 % of its CPU was held back by the load, so its requests/s are no "
            "capacity: compare CPU-µs"
        )
    if scenario.tokens > 10_000 and not scenario.cold:
        loop += "; an entry of our cache lives for 60 s, longer than these windows"
    return loop


def _checks(book: Book) -> str:
    """What each peer answered to what it must refuse."""
    heads, rows, seen = (
        ["", "bad signature", "wrong audience", "expired", "no token", "denied tool"],
        [],
        set(),
    )
    for scenario in ("call_300", "contextforge"):
        for cell in book.of(scenario):
            peer = cell.raw["peer"]
            if not peer["checks"] or cell.name in seen or not cell.raw["checks"]:
                continue
            seen.add(cell.name)
            answers = {one["check"]: one["answer"] for one in cell.raw["checks"]}
            rows.append(
                [
                    cell.label,
                    *(answers.get(head, ABSENT)[:60].replace("`", "'") for head in heads[1:]),
                ]
            )
    return table(heads, rows) if rows else "None recorded yet.\n"


def _missing(book: Book, machine: dict[str, Any]) -> str:
    """Who could not run, and why."""
    reasons = {str(name): str(why) for name, why in (machine.get("missing") or {}).items()}
    for cell in book.cells.values():
        if cell.failed:
            reasons.setdefault(f"{cell.name} in {cell.scenario['name']}", cell.failed)
    for (scenario, name), why in book.left_out.items():
        reasons[f"{name} in {scenario}"] = f"left out, for it is of another {why}"
    for name in machine.get("left", []):
        reasons[str(name)] = "did not fit into the minutes given, or failed as a whole"
    if not reasons:
        return "All of them ran.\n"
    return "\n".join(f"* {name}: {why}" for name, why in sorted(reasons.items())) + "\n"


def _targets(book: Book) -> str:
    rows = [
        [
            one.text,
            f"≤ {one.limit:g} {one.unit}".strip() if one.limit is not None else "report",
            one.detail
            or (f"{one.measured:.2f} {one.unit}" if one.measured is not None else ABSENT),
            (f"{one.measured:.2f}" if one.measured is not None else ABSENT),
            one.verdict(),
            one.reason() or ABSENT,
        ]
        for one in targets(book)
    ]
    return table(["target", "limit", "measured", "as a figure", "verdict", "reason"], rows)


def _plots(book: Book, results: Path) -> list[str]:
    """Draws what there are cells for; gives the names of the files."""
    drawn = {}
    for name, title in (
        ("call_300", "CPU per request, 300-byte tools/call, one CPU"),
        ("call_16k", "CPU per request, 16 KiB up and down"),
        ("tls_down", "CPU per request, TLS 1.3 downstream"),
    ):
        rows = [
            svg.Bar(cell.label, cost, group(cell))
            for cell in book.of(name)
            if not cell.failed and (cost := cell.cost())
        ]
        rows.sort(key=lambda row: row.spread.middle)
        if rows:
            drawn[f"cpu_{name}.svg"] = svg.bars(
                title, "middle of interleaved rounds, line: least to most", "CPU-µs", rows
            )
    for name in ("rate_2000", "rate_50"):
        late = [
            (
                cell.label,
                {
                    part: spread.middle
                    for part in ("p50", "p99")
                    if (spread := cell.over_direct(part))
                },
            )
            for cell in book.of(name)
            if not cell.failed and cell.name != "direct" and not cell.saturated()
        ]
        if late:
            late.sort(key=lambda row: row[1].get("p50", 0.0))
            drawn[f"latency_{name}.svg"] = svg.percentiles(
                "Latency added over direct", f"{name}: open loop, from the scheduled instant", late
            )
    if parts := shares(book):
        drawn["ablation.svg"] = svg.stack(
            "Where the CPU of a request goes",
            "each stage: what its absence saves; the rest: relay, kernel and what stages share",
            "CPU-µs",
            parts,
        )
    for file, text in drawn.items():
        (results / file).write_text(text, encoding="utf-8")
    return sorted(drawn)


def draw(results: Path, root: Path) -> None:
    """Table and plots anew."""
    results.mkdir(parents=True, exist_ok=True)
    book = Book(results)
    try:
        machine = json.loads((results / "machine.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        machine = {}
    try:
        left = json.loads((results / "left.json").read_text(encoding="utf-8"))
        machine["left"] = left.get("not_measured", [])
    except (OSError, ValueError, AttributeError):
        pass
    plots = _plots(book, results)
    runs = {cell.raw["run"].get("time") for cell in book.cells.values()}
    parts = [
        "# End to end, side by side\n",
        _where(machine),
        f"Written by `perf/run` from the raw files in `raw/` ({len(book.cells)} cells, "
        f"{len(runs)} runs); "
        "what the figures mean and what they do not: `perf/README.md`. A ratio is always between "
        "rounds of the same number in one run.\n",
        "## Headline\n",
        _headline(book),
        "\n## Targets\n",
        _targets(book),
        "\n## Where it goes\n",
        stages(book),
        "\n## Plots\n",
        "\n".join(f"![{name}]({name})" for name in plots) + "\n" if plots else "None yet.\n",
        "\n## Function checks before measuring\n",
        _checks(book),
        "\n## Not measured\n",
        _missing(book, machine),
        "\n## All scenarios\n",
        *(text for scenario in scenarios() if (text := _section(book, scenario))),
    ]
    (results / "table.md").write_text("\n".join(parts), encoding="utf-8")

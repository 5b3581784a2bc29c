"""Where the CPU of a request goes: stages by ablation, kernel and user space, instructions."""

from __future__ import annotations

import json

from cells import Book, Cell
from scenarios import BASE
from stats import Spread
from targets import BASELINE
from words import ABSENT, shown, table

WARM = {
    "http_head": "head of the request, with the fields that go upstream",
    "token_verify_warm": "token, remembered",
    "mcp_envelope_300B": "message",
    "policy_decide_warm": "decisions, remembered",
    "audit": "audit records of decision and outcome",
}
PAIRS_MIN = 6
PEERS = ("portcullis", "nginx", "ring-relay")


def saved(book: Book, scenario: str) -> list[tuple[Cell, Spread]]:
    """What the absence of each stage saves against its neighbours with nothing off."""
    cells = sorted(book.of(scenario), key=lambda cell: cell.name)
    return [
        (cell, less)
        for cell in cells
        if cell.name != BASE and not cell.failed and (less := cell.saves())
    ]


def _apart(less: Spread) -> str:
    """Whether the interval leaves zero out; of few pairs there is no such interval."""
    if less.count < PAIRS_MIN:
        return "no: too few pairs"
    return "yes" if less.least > 0 or less.most < 0 else "no: within what pairs scatter"


def _ablation(book: Book, scenario: str) -> str:
    """One row per stage that was off."""
    found = saved(book, scenario)
    if not found:
        return ""
    rows = [[cell.label, shown(less, 2), str(less.count), _apart(less)] for cell, less in found]
    parts = [less.middle for cell, less in found if cell.name != "ablation-all"]
    if len(parts) > 1:
        rows.append(["the stages added up", f"{sum(parts):.2f}", ABSENT, ABSENT])
    title = "16 KiB" if scenario.endswith("16k") else "300 B"
    saves = "saves, CPU-µs, median and its 95 % interval"
    return table([f"{title}, in pairs", saves, "pairs", "told apart"], rows)


def _split(book: Book) -> str:
    """User space and kernel of a request, and the parser's part at 16 KiB."""
    rows = []
    for name in PEERS:
        small, large = book.cell("call_300", name), book.cell("call_16k", name)
        large = book.beside(small, "call_16k", name) or large
        halves = [cell.split() if cell else None for cell in (small, large)]
        if not halves[1]:
            continue
        figures = [f"{part:.1f}" for half in halves for part in (half or (0.0, 0.0))]
        parse = next((less.middle for _, less in saved(book, "ablation_16k")), None)
        ours = name == "portcullis" and parse is not None
        user = halves[1][0]
        rows.append(
            [
                name,
                *(figures if halves[0] else [ABSENT, ABSENT, *figures[2:]]),
                f"{parse:.1f}" if ours and parse is not None else "0",
                f"{user - parse:.1f}" if ours and parse is not None else f"{user:.1f}",
            ]
        )
    if not rows:
        return ""
    heads = ["CPU-µs of a request", "300 B user", "300 B kernel", "16 KiB user", "16 KiB kernel"]
    return (
        table([*heads, "of it parse", "rest: copies in user space and all else"], rows)
        + "\nUser and kernel by the ticks of `/proc/PID/stat` over all rounds; the kernel's part "
        "holds its own copies. Parse is what the absence of inspection saves at 16 KiB.\n"
    )


def _instructions() -> str:
    """What CI counts: no neighbour disturbs it."""
    try:
        counts = json.loads(BASELINE.read_text(encoding="utf-8"))["instructions"]
    except (OSError, ValueError, KeyError, TypeError):
        counts = {}
    whole = float(counts.get("whole_way") or 0)
    if not whole:
        return ""
    warm = [[name, f"{counts[key]:,.0f}"] for key, name in WARM.items() if key in counts]
    rest = whole - sum(float(counts[key]) for key in WARM if key in counts)
    warm += [["the rest: connection, relay, buffers, answer", f"{rest:,.0f}"]]
    warm += [["all of it in user space, event loop aside (`whole_way`)", f"{whole:,.0f}"]]
    return table(["warm, 300 B", "instructions of the worker (perf/gate)"], warm)


def stages(book: Book) -> str:
    """All of it."""
    parts = [_ablation(book, "ablation"), _ablation(book, "ablation_16k"), _split(book)]
    found = [part for part in (*parts, _instructions()) if part]
    return "\n".join(found) if found else "Not measured.\n"

"""Where the CPU of a request goes: stages by ablation, kernel and user space, instructions."""

from __future__ import annotations

import json

from cells import Book, Cell
from scenarios import BASE
from stats import Spread, halves
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


def shares(book: Book) -> list[tuple[str, float]]:
    """What a request is made of: the stages told apart, and the rest with the names of the others.

    All of it from the run of the build with nothing off.
    """
    base = book.cell("ablation", BASE)
    whole = base.cost() if base else None
    if base is None or whole is None:
        return []
    stages_of = [
        (cell.label.replace("Portcullis without ", ""), less)
        for cell, less in saved(book, "ablation")
        if cell.run == base.run and cell.name != "ablation-all"
    ]
    apart = [
        (name, less.middle)
        for name, less in stages_of
        if less.least > 0 and _apart(less) == "yes"
    ]
    named = {name for name, _ in apart}
    others = ", ".join(name for name, _ in stages_of if name not in named)
    rest = f"the rest, and stages with no saving told apart: {others}" if others else "the rest"
    left = whole.middle - sum(value for _, value in apart)
    return [*apart, (rest, left)] if stages_of else []


def _ablation(book: Book, scenario: str) -> str:
    """One row per stage that was off."""
    found = saved(book, scenario)
    if not found:
        return ""
    rows = [[cell.label, shown(less, 2), str(less.count), _apart(less)] for cell, less in found]
    parts = [less.middle for cell, less in found if cell.name != "ablation-all"]
    if len(parts) > 1 and len({cell.run for cell, _ in found}) == 1:
        rows.append(["the stages added up", f"{sum(parts):.2f}", ABSENT, ABSENT])
    title = "16 KiB" if scenario.endswith("16k") else "300 B"
    saves = "saves, CPU-µs, median and its 95 % interval"
    return table([f"{title}, in pairs", saves, "pairs", "told apart"], rows)


def _split(book: Book) -> str:
    """User space and kernel of a request, both sizes from one run."""
    rows, out = [], []
    for name in PEERS:
        small = book.cell("call_300", name)
        large = book.beside(small, "call_16k", name)
        split = [cell.split() if cell else None for cell in (small, large)]
        if split[0] and split[1]:
            rows.append([name, *(f"{part:.1f}" for half in split for part in half or ())])
        elif small or book.cell("call_16k", name):
            out.append(f"{name} (300 B and 16 KiB are not both there from one run)")
    text = ""
    if rows:
        heads = ["CPU-µs of a request", "300 B user", "300 B kernel", "16 KiB user"]
        text = (
            table([*heads, "16 KiB kernel"], rows)
            + "\nUser and kernel by the ticks of `/proc/PID/stat` over all rounds; the kernel's "
            "part holds its own copies.\n"
        )
    return text + (f"\nLeft out: {', '.join(out)}.\n" if out else "")


def _parse(book: Book) -> str:
    """The parser's part of user space at 16 KiB: one scenario, one build, neighbours in time."""
    cell = book.cell("ablation_16k", "ablation-inspect")
    less = cell.saves() if cell else None
    whole = halves(cell.anchor(BASE), cell.costing()) if cell else None
    if not less or not whole:
        return ""
    if _apart(less) != "yes":
        return f"\nParse and the rest at 16 KiB are left out: told apart, {_apart(less)}.\n"
    heads = ["16 KiB, build for ablation, in pairs", "user", "kernel", "inspection"]
    user, kernel = whole
    row = [BASE, f"{user:.1f}", f"{kernel:.1f}", f"{less.middle:.1f}", f"{user - less.middle:.1f}"]
    return (
        table([*heads, "user without inspection"], [row])
        + "\nInspection is what its absence saves, the parser for the most part.\n"
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
    parts = [_ablation(book, "ablation"), _ablation(book, "ablation_16k")]
    parts += [_parse(book), _split(book)]
    found = [part for part in (*parts, _instructions()) if part]
    return "\n".join(found) if found else "Not measured.\n"

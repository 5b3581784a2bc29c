"""Plots as SVG text: bars with their spread, grouped bars, stacks. No library, no script."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Optional, Sequence

from stats import Spread

WIDTH, LABEL, RIGHT, ROW, TOP, BOTTOM = 900, 330, 90, 26, 58, 34
INK, PALE, GRID = "#24292f", "#57606a", "#d0d7de"
COLOURS = {
    "ours": "#0a6e4f",
    "bare": "#8c959f",
    "checks": "#bf5b17",
    "control": "#6e7dab",
    "p50": "#6e7dab",
    "p99": "#bf5b17",
    "p999": "#d8c7b0",
}
STACK = ("#0a6e4f", "#2f8f6b", "#6fb08f", "#bf5b17", "#6e7dab", "#8c959f", "#d8c7b0")


@dataclass(frozen=True)
class Bar:
    """One row: its name, middle and spread, and the group that colours it."""

    label: str
    spread: Spread
    group: str


def step(most: float) -> float:
    """A round distance between grid lines, four to ten of them."""
    if most <= 0:
        return 1.0
    size = 1.0
    while size * 10 <= most:
        size *= 10
    while size > most:
        size /= 10
    for factor in (0.2, 0.5, 1.0, 2.0):
        if most / (size * factor) <= 8:
            return size * factor
    return size * 2


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    size: int = 12,
    ink: str = INK,
    bold: bool = False,
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="{ink}"{weight}>{escape(text)}</text>'
    )


def _frame(title: str, note: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img" '
        f'aria-label="{escape(title, quote=True)}" '
        'font-family="system-ui, sans-serif">'
    )
    back = f'<rect width="{WIDTH}" height="{height:.0f}" fill="#ffffff"/>'
    lines = [
        head,
        back,
        _text(16, 24, title, size=16, bold=True),
        _text(16, 43, note, ink=PALE),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _grid(most: float, height: float, unit: str) -> tuple[list[str], float]:
    """Lines, their numbers, and the pixels of one unit."""
    gap = step(most)
    scale = (WIDTH - LABEL - RIGHT) / most
    parts, value = [], 0.0
    while value <= most * 1.0001:
        x = LABEL + value * scale
        parts.append(
            f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{height - BOTTOM + 2:.1f}" '
            f'stroke="{GRID}"/>'
        )
        parts.append(_text(x, height - BOTTOM + 17, f"{value:,.10g}", "middle", 11, PALE))
        value += gap
    parts.append(_text(WIDTH - 16, height - BOTTOM + 17, unit, "end", 11, PALE))
    return parts, scale


def bars(title: str, note: str, unit: str, rows: Sequence[Bar], cut: Optional[float] = None) -> str:
    """Bars of the middle with a line from least to most; bars beyond `cut` are cut and say so."""
    if not rows:
        return _frame(title, "nothing measured", 80, [])
    most = max(row.spread.most for row in rows)
    if cut is not None:
        most = min(most, cut)
    most = max(most * 1.02, 1e-9)
    height = TOP + ROW * len(rows) + BOTTOM
    parts, scale = _grid(most, height, unit)
    for number, row in enumerate(rows):
        y = TOP + number * ROW
        long = row.spread.middle > most
        width = min(row.spread.middle, most) * scale
        parts.append(_text(LABEL - 8, y + 16, row.label, "end", bold=row.group == "ours"))
        parts.append(
            f'<rect x="{LABEL}" y="{y + 4}" width="{width:.1f}" height="{ROW - 9}" '
            f'fill="{COLOURS.get(row.group, PALE)}"/>'
        )
        if row.spread.count > 1 and not long:
            left, right = (
                LABEL + min(value, most) * scale for value in (row.spread.least, row.spread.most)
            )
            middle = y + 4 + (ROW - 9) / 2
            parts.append(
                f'<path d="M{left:.1f} {middle:.1f}H{right:.1f}M{left:.1f} {middle - 4:.1f}v8'
                f'M{right:.1f} {middle - 4:.1f}v8" stroke="{INK}" fill="none"/>'
            )
            width = max(width, right - LABEL)
        parts.append(
            _text(
                LABEL + width + 6,
                y + 16,
                _number(row.spread.middle) + (" →" if long else ""),
                bold=row.group == "ours",
            )
        )
    return _frame(title, note, height, parts)


def percentiles(
    title: str,
    note: str,
    rows: Sequence[tuple[str, dict[str, float]]],
    names: Sequence[str] = ("p50", "p99"),
) -> str:
    """Per row one thin bar for each percentile."""
    rows = [(label, values) for label, values in rows if values]
    if not rows:
        return _frame(title, "nothing measured", 80, [])
    most = max(max(values.get(name, 0.0) for name in names) for _, values in rows) * 1.02 or 1.0
    row_height = 12 * len(names) + 10
    height = TOP + row_height * len(rows) + BOTTOM
    parts, scale = _grid(most, height, "µs")
    for number, (label, values) in enumerate(rows):
        y = TOP + number * row_height
        ours = label.startswith("Portcullis")
        parts.append(_text(LABEL - 8, y + row_height / 2 + 2, label, "end", bold=ours))
        for index, name in enumerate(names):
            value = max(0.0, values.get(name, 0.0))
            top = y + 3 + index * 12
            parts.append(
                f'<rect x="{LABEL}" y="{top}" width="{value * scale:.1f}" height="10" '
                f'fill="{COLOURS[name]}"/>'
            )
            parts.append(
                _text(
                    LABEL + value * scale + 5,
                    top + 9,
                    f"{name} {_number(value)}",
                    size=10,
                    ink=PALE,
                )
            )
    return _frame(title, note, height, parts)


def stack(title: str, note: str, unit: str, parts_of: Sequence[tuple[str, float]]) -> str:
    """One bar made of parts, each named below with its size."""
    shown = [(label, value) for label, value in parts_of if value > 0]
    total = sum(value for _, value in shown)
    if not total:
        return _frame(title, "nothing measured", 80, [])
    height = TOP + 60 + 20 * len(parts_of) + 16
    scale = (WIDTH - 32) / total
    parts, x = [], 16.0
    for index, (label, value) in enumerate(shown):
        parts.append(
            f'<rect x="{x:.1f}" y="{TOP}" width="{value * scale:.1f}" height="36" '
            f'fill="{STACK[index % len(STACK)]}" stroke="#ffffff"/>'
        )
        x += value * scale
    index = 0
    for number, (label, value) in enumerate(parts_of):
        y = TOP + 62 + number * 20
        if value > 0:
            parts.append(
                f'<rect x="16" y="{y - 10}" width="12" height="12" '
                f'fill="{STACK[index % len(STACK)]}"/>'
            )
            index += 1
        parts.append(
            _text(
                36, y, f"{label}: {value:.2f} {unit}" + ("" if value > 0 else " (within the noise)")
            )
        )
    return _frame(title, note, height, parts)

"""Tables and figures as text."""

from __future__ import annotations

from typing import Optional, Sequence

from stats import Spread

ABSENT = "–"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others figures."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(spread: Optional[Spread], digits: int = 1, wide: bool = True) -> str:
    """A figure with its spread, or the sign for none."""
    if spread is None:
        return ABSENT
    return spread.text(digits) if wide else f"{spread.middle:,.{digits}f}"

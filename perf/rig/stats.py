"""Figures out of rounds: spread, ratios to an anchor of the same run, percentiles over the base."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Callable, Iterable, Optional, Sequence


def middle(values: Sequence[float]) -> float:
    """The median; 0 of nothing."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


@dataclass(frozen=True)
class Spread:
    """Least, middle and most of interleaved rounds."""

    least: float
    middle: float
    most: float
    count: int

    @staticmethod
    def of(values: Iterable[Optional[float]]) -> "Optional[Spread]":
        """Of the values that are there; None when there is none."""
        found = [value for value in values if value is not None]
        if not found:
            return None
        return Spread(min(found), middle(found), max(found), len(found))

    def divided(self, by: float) -> "Spread":
        """The same in another unit, or over one figure."""
        return Spread(self.least / by, self.middle / by, self.most / by, self.count)

    def text(self, digits: int = 1) -> str:
        """`middle (least–most)`."""
        if self.count == 1:
            return f"{self.middle:,.{digits}f}"
        return f"{self.middle:,.{digits}f} ({self.least:,.{digits}f}–{self.most:,.{digits}f})"


def _beyond(count: int, rank: int) -> float:
    """How likely the median of all lies outside the `rank`-th values from both ends."""
    return 2 * sum(math.comb(count, number) for number in range(rank)) / 2**count


def median_interval(values: Sequence[float]) -> Optional[Spread]:
    """The median with the narrowest pair of order statistics that holds it in 95 of 100 cases.

    Nothing is assumed of the distribution; fewer than six values have no such interval and get
    their least and most.
    """
    ordered = sorted(values)
    if not ordered:
        return None
    rank = 1
    while _beyond(len(ordered), rank + 1) <= 0.05:
        rank += 1
    return Spread(ordered[rank - 1], middle(ordered), ordered[-rank], len(ordered))


def kernel_share(one: dict[str, Any]) -> Optional[float]:
    """The part of its CPU time that a process spent in the kernel, by the kernel's own ticks."""
    watch = (one.get("watch") or {}).get("proxy", {})
    user, system = watch.get("user_ms") or 0, watch.get("system_ms") or 0
    return system / (user + system) if user + system else None


def per_request(one: dict[str, Any]) -> Optional[float]:
    """CPU-µs per request of a round: all tasks of the process tree, over completed requests."""
    done = one.get("requests") or 0
    cpu = (one.get("watch") or {}).get("proxy", {}).get("cpu_ns")
    return cpu / done / 1_000 if done and cpu is not None else None


def busy(one: dict[str, Any]) -> Optional[float]:
    """Share of one CPU that the process took in the window, in %."""
    cpu = (one.get("watch") or {}).get("proxy", {}).get("cpu_ns")
    seconds = one.get("seconds") or 0
    return cpu / seconds / 1e7 if seconds and cpu is not None else None


def per_event(one: dict[str, Any]) -> Optional[float]:
    """CPU-µs per event of a round of streams."""
    events = (one.get("events") or {}).get("count") or 0
    cpu = (one.get("watch") or {}).get("proxy", {}).get("cpu_ns")
    return cpu / events / 1_000 if events and cpu is not None else None


def errors(rounds: Sequence[dict[str, Any]]) -> int:
    """Answers that were not what was asked for, of whatever kind."""
    return sum(sum(int(count) for count in (one.get("errors") or {}).values()) for one in rounds)


def ratio(rounds: Sequence[Optional[float]], anchor: Sequence[Optional[float]]) -> Optional[Spread]:
    """Round by round against the anchor's round of the same number: neighbours in time."""
    pairs = [one / base for one, base in zip(rounds, anchor) if one is not None and base]
    return Spread.of(pairs)


def halves(
    rounds: Sequence[dict[str, Any]], costing: Callable[[dict[str, Any]], Optional[float]]
) -> Optional[tuple[float, float]]:
    """CPU-µs of a request in user space and in the kernel, middle of the rounds."""
    parts = [(costing(one), kernel_share(one)) for one in rounds]
    pairs = [(cost, share) for cost, share in parts if cost and share is not None]
    if not pairs:
        return None
    # Ticks are coarse: their share is taken of all rounds, not of each.
    share = sum(share for _, share in pairs) / len(pairs)
    cost = middle([cost for cost, _ in pairs])
    return cost * (1 - share), cost * share


def percentile(one: dict[str, Any], name: str, part: str = "latency_us") -> Optional[float]:
    """A percentile of a round, or None."""
    value = (one.get(part) or {}).get(name)
    return float(value) if value is not None else None


def less(
    rounds: Sequence[dict[str, Any]],
    base: Sequence[dict[str, Any]],
    name: str,
    part: str = "latency_us",
) -> list[Optional[float]]:
    """What a percentile lies above that of the base's round of the same number; None without it."""
    pairs = [
        (percentile(one, name, part), percentile(two, name, part))
        for one, two in zip(rounds, base)
    ]
    return [one - two if one is not None and two is not None else None for one, two in pairs]


def added(
    rounds: Sequence[dict[str, Any]],
    base: Sequence[dict[str, Any]],
    name: str,
    part: str = "latency_us",
) -> Optional[Spread]:
    """The spread of it."""
    return Spread.of(less(rounds, base, name, part))


def kept_up(one: dict[str, Any], rate: float) -> bool:
    """Whether an open loop got its rate; below 98 % latencies are those of a growing queue."""
    return float(one.get("rps") or 0.0) >= 0.98 * rate

"""Reads the raw files back and computes what the report shows of each cell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

from machine import SAME
from scenarios import BASE, all_peers
from stats import (
    Spread,
    added,
    busy,
    halves,
    kept_up,
    less,
    median_interval,
    middle,
    per_event,
    per_request,
    percentile,
    ratio,
)

Round = dict[str, Any]
WORDS = ("title", "headline", "extra", "peers")


@dataclass(frozen=True)
class Cell:
    """One peer in one scenario, as it was written down."""

    raw: dict[str, Any]

    @property
    def name(self) -> str:
        """The peer."""
        return str(self.raw["name"])

    @property
    def label(self) -> str:
        """The peer in words."""
        return str(self.raw["peer"]["label"])

    @property
    def scenario(self) -> dict[str, Any]:
        """The settings of the load."""
        return dict(self.raw["scenario"])

    @property
    def load(self) -> dict[str, Any]:
        """What of the settings makes figures; the title and where it is listed do not."""
        return {name: value for name, value in self.scenario.items() if name not in WORDS}

    @property
    def binary(self) -> str:
        """The digest of the peer's program; none for `direct`, which is the load's own."""
        return str(self.raw.get("binary") or "")

    @property
    def program(self) -> str:
        """What its program is called: several peers may be one."""
        peer = all_peers().get(self.name)
        return peer.program if peer else self.name

    @property
    def rounds(self) -> list[Round]:
        """What the load printed, round by round."""
        return list(self.raw["rounds"])

    @property
    def failed(self) -> str:
        """Why there is no figure; empty when there is one."""
        return str(self.raw["reason"]) if self.raw["state"] != "done" else ""

    def anchor(self, name: str) -> list[Round]:
        """Rounds of an anchor from the same run."""
        return list(self.raw.get("anchors", {}).get(name, []))

    def spread(self, figure: Callable[[Round], Optional[float]]) -> Optional[Spread]:
        """Least, middle, most of a figure over the rounds."""
        return Spread.of(figure(one) for one in self.rounds)

    def cost(self) -> Optional[Spread]:
        """CPU-µs per request; per event for streams."""
        return self.spread(self.costing())

    def costing(self) -> Callable[[Round], Optional[float]]:
        """What a round's cost is counted by."""
        return per_event if self.scenario["kind"] == "sse" else per_request

    def to_nginx(self) -> Optional[Spread]:
        """Cost over nginx's in the neighbouring round."""
        return self.over(self.anchor("nginx"))

    def over(self, others: list[Round]) -> Optional[Spread]:
        """Cost over that of other rounds, one by one."""
        costing = self.costing()
        return ratio([costing(one) for one in self.rounds], [costing(one) for one in others])

    def saves(self) -> Optional[Spread]:
        """The median by which it is cheaper than its neighbours with nothing off, with the interval
        that holds it in 95 of 100 cases."""
        costing = self.costing()
        costs = [(costing(one), costing(base)) for one, base in zip(self.rounds, self.anchor(BASE))]
        return median_interval([base - one for one, base in costs if one and base])

    def split(self) -> Optional[tuple[float, float]]:
        """CPU-µs of a request in user space and in the kernel, middle of the rounds."""
        return halves(self.rounds, self.costing())

    def lag(self, name: str) -> Optional[Spread]:
        """How late the load itself was with requests that it could have sent."""
        return self.spread(lambda one: percentile(one, name, "lag_us"))

    def tls(self) -> str:
        """What the handshakes with the load and with the upstream agreed on."""
        down = next((str(one["tls"]) for one in self.rounds if one.get("tls")), "")
        up = str((self.raw.get("upstream") or {}).get("tls") or "")
        if self.name == "direct":
            up = ""
        sides = [f"down {down}" if down else "", f"up {up}" if up else ""]
        return "; ".join(side for side in sides if side)

    def rps(self) -> Optional[Spread]:
        """Requests per second on one CPU."""
        return self.spread(lambda one: float(one["rps"]) if "rps" in one else None)

    def busy(self) -> Optional[Spread]:
        """Share of its CPU that the peer took, in %."""
        return self.spread(busy)

    def delay(self, name: str) -> Optional[Spread]:
        """A percentile of the latency; of the event delay for streams."""
        part = "events" if self.scenario["kind"] == "sse" else "latency_us"
        return self.spread(lambda one: percentile(one, name, part))

    def over_direct(self, name: str) -> Optional[Spread]:
        """What a percentile lies above direct's in the same run."""
        part = "events" if self.scenario["kind"] == "sse" else "latency_us"
        if self.saturated() or not self.anchor_kept("direct"):
            return None
        return added(self.rounds, self.anchor("direct"), name, part)

    def nginx_over_direct(self, name: str) -> Optional[Spread]:
        """The same for nginx, from the rounds that were taken beside this cell's."""
        if not self.anchor_kept("nginx") or not self.anchor_kept("direct"):
            return None
        return added(self.anchor("nginx"), self.anchor("direct"), name)

    def added_over_nginx(self, name: str) -> tuple[Optional[Spread], int]:
        """What a percentile adds to direct over what nginx adds, round by round.

        And the rounds in which nginx adds nothing, where such a ratio means nothing: none is
        given then, for one of the other rounds alone would be a choice.
        """
        if self.over_direct(name) is None or self.nginx_over_direct(name) is None:
            return None, 0
        direct = self.anchor("direct")
        ours, theirs = less(self.rounds, direct, name), less(self.anchor("nginx"), direct, name)
        pairs = [
            (one, two) for one, two in zip(ours, theirs) if one is not None and two is not None
        ]
        nothing = sum(two <= 0 for _, two in pairs)
        return None if nothing else Spread.of(one / two for one, two in pairs), nothing

    def delay_over(self, other: "Cell", name: str) -> Optional[Spread]:
        """A percentile over another cell's, round by round."""
        part = "events" if self.scenario["kind"] == "sse" else "latency_us"
        sides = (self.rounds, other.rounds)
        return ratio(*([percentile(one, name, part) for one in side] for side in sides))

    def lag_beside(self, name: str) -> Optional[float]:
        """How late the load was, at the worst of this cell, nginx and direct."""
        sides = (self.rounds, self.anchor("nginx"), self.anchor("direct"))
        lags = [Spread.of(percentile(one, name, "lag_us") for one in side) for side in sides]
        return max((lag.middle for lag in lags if lag), default=None)

    @property
    def run(self) -> str:
        """Which run it is of."""
        return str(self.raw["run"].get("time"))

    def rate(self) -> float:
        """The rate of an open loop, else 0."""
        return float(self.raw.get("rate") or self.scenario.get("rate") or 0)

    def saturated(self) -> bool:
        """Whether an open loop missed its rate: its latencies are those of a growing queue."""
        return bool(self.rate()) and any(not kept_up(one, self.rate()) for one in self.rounds)

    def anchor_kept(self, name: str) -> bool:
        """Whether the anchor got the rate: else there is nothing to compare with."""
        return all(kept_up(one, self.rate()) for one in self.anchor(name))

    def token_hits(self) -> Optional[Spread]:
        """Share of tokens found in our cache, warm-up included, in %; where the build counts it."""

        def share(one: Round) -> Optional[float]:
            counts = {
                name: value
                for name, value in (one.get("counters") or {}).items()
                if "token_cache_total" in name
            }
            total = sum(counts.values())
            hits = sum(value for name, value in counts.items() if '"hit"' in name)
            return 100 * hits / total if total else None

        return self.spread(share)

    def figure(self, name: str) -> Optional[Spread]:
        """A named figure of the rounds, as the special scenarios write them."""
        return self.spread(lambda one: float(one[name]) if name in one else None)


class Book:
    """All cells of `results/raw`."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self.cells: dict[tuple[str, str], Cell] = {}
        # Of another machine, kernel or program: named in the report, shown and compared nowhere.
        self.left_out: dict[tuple[str, str], str] = {}
        self.machine = self._here()
        for kind in ("*.failed", "*.json"):
            for path in sorted((results / "raw").glob(f"*/{kind}")):
                try:
                    cell = Cell(json.loads(path.read_text(encoding="utf-8")))
                    key = (path.parent.name, cell.name)
                    self.cells.pop(key, None)
                    if self.machine and (why := self._strange(cell)):
                        self.left_out[key] = why
                        continue
                    self.left_out.pop(key, None)
                    self.cells[key] = cell
                except (OSError, ValueError, KeyError, TypeError):
                    continue
        self._leave_out_other_settings()

    def _leave_out_other_settings(self) -> None:
        """Cells of a scenario stand together only with one load, and those of a program as one.

        What counts is what the newest cell has. `programs` is the digest of ours and of the load;
        the build for ablation, the relays and the peers have each their own.
        """
        loads: dict[str, dict[str, Any]] = {}
        binaries: dict[str, str] = {}
        for (scenario, _), cell in sorted(self.cells.items(), key=lambda item: item[1].run):
            loads[scenario] = cell.load
            if cell.binary:
                binaries[cell.program] = cell.binary
        for key, cell in list(self.cells.items()):
            newest = loads[key[0]]
            other = [
                f"{name} ({cell.load.get(name)}, not {newest.get(name)})"
                for name in sorted({*newest, *cell.load})
                if cell.load.get(name) != newest.get(name)
            ]
            if cell.binary and cell.binary != binaries[cell.program]:
                other.append(f"build of {cell.program}")
            if other:
                self.left_out[key] = ", ".join(other)
                del self.cells[key]

    def cell(self, scenario: str, peer: str) -> Optional[Cell]:
        """A cell that has figures."""
        found = self.cells.get((scenario, peer))
        return found if found and not found.failed and found.rounds else None

    def beside(self, mine: Optional[Cell], scenario: str, peer: str) -> Optional[Cell]:
        """A cell of the same run as `mine`: what other runs measured is never set against it."""
        found = self.cell(scenario, peer)
        return found if found and mine and found.run == mine.run else None

    def _here(self) -> dict[str, Any]:
        """Machine and programs of the newest run."""
        try:
            text = (self.results / "machine.json").read_text(encoding="utf-8")
            return dict(json.loads(text))
        except (OSError, ValueError, TypeError):
            return {}

    def _strange(self, cell: Cell) -> str:
        """In what a cell differs from the newest run; empty when it may stand beside it.

        A resumed run has several commits only where they make the same programs.
        """
        run = cell.raw["run"]
        other = [key for key in SAME if run.get(key) != self.machine.get(key)]
        if run.get("programs") != self.machine.get("programs"):
            other.append(f"commit ({str(run.get('commit'))[:12]}) or build")
        return ", ".join(other)

    def of(self, scenario: str) -> list[Cell]:
        """All cells of a scenario, failed ones too."""
        return [cell for (name, _), cell in self.cells.items() if name == scenario]

"""Runs scenarios: lanes side by side, rounds in turns A B C, C B A; one raw file per cell."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

import special
from lanes import Bench, Lane
from machine import digest, load_average, quiet_rounds, write_json
from place import Peer
from procs import Child, Nursery, Trouble
from scenarios import BASE, Scenario, all_peers
from stats import middle, per_event, per_request


class Clock:
    """The countdown that is printed beside each step."""

    def __init__(self, planned: float) -> None:
        self.end = time.monotonic() + planned
        self.tty = sys.stdout.isatty()

    def say(self, text: str, keep: bool = False) -> None:
        """One line, overwritten by the next unless `keep`."""
        left = max(0, int(self.end - time.monotonic()))
        line = f"  {left // 60:2d}:{left % 60:02d} left  {text}"
        if self.tty:
            print(f"\r{line:<100}", end="\n" if keep else "", flush=True)
        elif keep:
            print(line, flush=True)


class Runner:
    """One run over many scenarios. Whatever goes wrong in a cell is written into that cell."""

    def __init__(self, bench: Bench, results: Path, run: dict[str, Any], clock: Clock) -> None:
        self.bench = bench
        self.results = results
        self.run = run
        self.clock = clock
        self.peers = all_peers()
        self.rate = 0.0
        self._digests: dict[Path, str] = {}

    def cell_path(self, scenario: Scenario, peer: str) -> Path:
        """The raw file of a cell."""
        return self.results / "raw" / scenario.name / f"{peer}.json"

    def missing(self, scenario: Scenario, peers: tuple[str, ...], again: bool) -> tuple[str, ...]:
        """Peers that can run here and have no finished cell of this very measurement."""
        return tuple(
            name for name in self.ready(peers) if again or not self._finished(scenario, name)
        )

    def beside(
        self, scenario: Scenario, peers: tuple[str, ...], wanted: tuple[str, ...]
    ) -> tuple[str, ...]:
        """Those wanted with the anchors that their ratios need, in the scenario's order."""
        kept = {*wanted, *scenario.anchors}
        return tuple(name for name in self.ready(peers) if name in kept)

    def _finished(self, scenario: Scenario, peer: str) -> bool:
        """Whether a cell is there, of the programs, load and rounds of now."""
        try:
            cell = json.loads(self.cell_path(scenario, peer).read_text(encoding="utf-8"))
            return bool(
                cell["run"]["programs"] == self.run["programs"]
                and cell["scenario"] == json.loads(json.dumps(scenario.record()))
                and len(cell["rounds"]) >= scenario.rounds
                and cell["binary"] == self._binary(peer)
            )
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _binary(self, name: str) -> str:
        """The digest of the program that a peer is; nothing for `direct`, which is the load's."""
        peer = self.peers.get(name)
        path = self.bench.programs.found.get(peer.program) if peer else None
        if path is None:
            return ""
        if path not in self._digests:
            self._digests[path] = digest([path])
        return self._digests[path]

    def ready(self, peers: tuple[str, ...]) -> tuple[str, ...]:
        """Those whose program is here; the others are named with their reason in the table."""
        found = self.bench.programs.found
        return tuple(
            name
            for name in peers
            if (peer := self.peers.get(name)) is None or peer.program in found
        )

    def scenario(
        self, scenario: Scenario, peers: tuple[str, ...], wanted: tuple[str, ...]
    ) -> None:
        """Measures a scenario for `peers` and writes the cells that are `wanted`."""
        work = self.bench.work / scenario.name
        shutil.rmtree(work, ignore_errors=True)
        load_begin, self.rate = load_average(), 0.0
        with Nursery(work) as nursery:
            lanes = [
                Lane(name, self.peers.get(name), scenario, self.bench, nursery, work / name)
                for name in peers
            ]
            if scenario.kind in ("start", "idle", "syscalls"):
                self._one_after_another(scenario, lanes)
            elif scenario.kind == "pairs":
                self._in_pairs(scenario, lanes)
            else:
                self._in_turns(scenario, lanes, nursery)
            self._write(scenario, lanes, load_begin, wanted)
        shutil.rmtree(work, ignore_errors=True)

    def _guard(self, lane: Lane, step: Callable[[], Any]) -> Any:
        """Runs one step of a lane; its trouble ends the lane and nothing else."""
        try:
            return step()
        except Trouble as trouble:
            lane.trouble = str(trouble)
        except Exception as error:  # noqa: BLE001 - one cell must never end the run
            lane.trouble = f"{type(error).__name__}: {error}"
        self.clock.say(f"{lane.scenario.name}: {lane.name}: {lane.trouble[:150]}", keep=True)
        return None

    def _one_after_another(self, scenario: Scenario, lanes: list[Lane]) -> None:
        """Memory, starts and system calls disturb each other: one lane at a time."""
        works = {"start": special.starts, "idle": special.idle, "syscalls": special.syscalls}
        for number, lane in enumerate(lanes):
            self.clock.say(f"{scenario.name}: {lane.name} ({number + 1}/{len(lanes)})")
            begin = lane.instant()
            self._guard(lane, lambda work=works[scenario.kind], lane=lane: work(lane))
            spent = lane.noise_since(begin)
            for one in lane.rounds:
                one.setdefault("machine", spent)
            lane.counted = self._guard_finish(lane)
            lane.nursery.stop_all()

    def _in_pairs(self, scenario: Scenario, lanes: list[Lane]) -> None:
        """Each lane against the one with nothing off: none X, X none, …, neighbours in time.

        All of them wait idle, which takes no CPU; of a pair just turned to, both are warmed first.
        """
        self._start(lanes)
        base = next((lane for lane in lanes if lane.name == BASE and not lane.trouble), None)
        if base is None:
            raise Trouble(f"{BASE} does not run, and each pair is measured against it")
        for lane in (one for one in lanes if one is not base and not one.trouble):
            for one in (base, lane):
                self._guard(one, lambda one=one: one.turn(0, [], scenario.first_warm))
                if one.rounds:
                    one.rounds.pop()
            for number in range(scenario.rounds):
                self.clock.say(f"{scenario.name}: {lane.name}: pair {number + 1}/{scenario.rounds}")
                for one in (base, lane) if number % 2 == 0 else (lane, base):
                    if not lane.trouble and not base.trouble:
                        self._guard(one, lambda one=one: one.turn(0, [], scenario.warm))
                if lane.trouble or base.trouble:
                    break
                lane.paired.append(base.rounds[-1])
            if base.trouble:
                raise Trouble(f"{BASE}: {base.trouble}")

    def _start(self, lanes: list[Lane]) -> None:
        """All of them up, and asked what they must refuse."""
        for lane in lanes:
            self.clock.say(f"{lane.scenario.name}: starting {lane.name}")
            self._guard(lane, lane.start)
            if not lane.trouble:
                self._guard(lane, lane.check)

    def _in_turns(self, scenario: Scenario, lanes: list[Lane], nursery: Nursery) -> None:
        self._start(lanes)
        extra = self._arguments(scenario, lanes)
        spinner: Optional[Child] = None
        if scenario.spin:
            # On the proxy's CPU only: on its own the load never sleeps, and so needs none.
            cpus = str(self.bench.proxy_cpu)
            spinner = nursery.start("spin", [self.bench.load, "spin", "--cpus", cpus])
        for number in range(scenario.rounds):
            # There and back: who is always after the same neighbour inherits its warmth.
            for lane in lanes if number % 2 == 0 else reversed(lanes):
                if lane.trouble:
                    continue
                self.clock.say(
                    f"{scenario.name}: round {number + 1}/{scenario.rounds}: {lane.name}"
                )
                self._guard(
                    lane,
                    lambda lane=lane, number=number: self._round(lane, number, extra),
                )
        if spinner is not None:
            nursery.stop(spinner)

    def _round(self, lane: Lane, number: int, extra: list[str]) -> None:
        """One lane's turn, with what its own counters say of the same time."""
        scenario, warm = lane.scenario, lane.scenario.warm
        caches = lane.peer is not None and lane.peer.caches_tokens
        if number == 0 and scenario.passed_once and caches:
            lane.pass_tokens(extra)
        elif number == 0:
            # A long one is for caches of tokens; who has none needs a second at most.
            warm = max(warm, scenario.first_warm if caches else min(1.0, scenario.first_warm))
        before = lane.metrics()
        self._turn(lane, number, extra, warm)
        if before:
            after = lane.metrics()
            lane.rounds[-1]["counters"] = {
                key: value - before.get(key, 0.0) for key, value in after.items()
            }

    @staticmethod
    def _turn(lane: Lane, number: int, extra: list[str], warm: float) -> None:
        if lane.scenario.kind == "handshakes":
            lane.rounds.append(special.handshakes(lane, lane.scenario.seconds))
        else:
            lane.turn(number, extra, warm)

    def _arguments(self, scenario: Scenario, lanes: list[Lane]) -> list[str]:
        """What the kind of the scenario adds to the load's command line."""
        if scenario.kind == "rate":
            self.rate = scenario.rate or scenario.share * self._capacity(lanes)
            return ["--rate", f"{self.rate:.0f}", "--busy"]
        if scenario.kind == "sse":
            return ["--streams"]
        if scenario.kind == "new":
            return ["--new-connections"]
        if scenario.slow_percent:
            return ["--slow-percent", str(scenario.slow_percent), "--slow-tool", "slow_50"]
        return []

    def _capacity(self, lanes: list[Lane]) -> float:
        """What nginx does in a closed loop here and now: no other run's figure is taken for it."""
        lane = next((one for one in lanes if one.name == "nginx" and not one.trouble), None)
        if lane is None:
            raise Trouble("nginx does not run, and the rate is a share of what it can")
        self.clock.say(f"{lane.scenario.name}: what nginx can")
        lane.turn(0, [], 1.0)
        rps = float(lane.rounds.pop()["rps"])
        if not rps:
            raise Trouble("nginx answered nothing in the closed loop")
        return rps

    def _write(
        self, scenario: Scenario, lanes: list[Lane], load_begin: float, wanted: tuple[str, ...]
    ) -> None:
        """One file per cell, with the rounds of the anchors from the same minutes."""
        upstream = {lane.name: lane.counted or self._guard_finish(lane) for lane in lanes}
        anchors = {lane.name: lane.rounds for lane in lanes if lane.name in scenario.anchors}
        load = {"begin": round(load_begin, 2), "end": round(load_average(), 2)}
        for lane in (one for one in lanes if one.name in wanted):
            self._guard(lane, lambda lane=lane: lane.judge_audit(upstream[lane.name]))
            paired = {BASE: lane.paired} if scenario.kind == "pairs" else anchors
            watched = [lane.rounds, *paired.values()]
            begun = bool(self.run.get("quiet", True))
            cell = {
                "scenario": scenario.record(),
                "name": lane.name,
                # By its own rounds and its anchors': the run's is that of its first moment.
                "run": {
                    **self.run,
                    "quiet": all(quiet_rounds(rounds, begun) for rounds in watched),
                },
                "binary": self._binary(lane.name),
                "peer": _described(lane.peer, self.bench),
                "state": "failed" if lane.trouble else "done",
                "reason": lane.trouble,
                "checks": lane.checks,
                "rounds": lane.rounds,
                "upstream": upstream[lane.name],
                "settings": lane.settings,
                "load_average": load,
                "audit_lines": lane.audit_lines,
                "upstream_beside_load": scenario.beside or lane.peer is not None,
                "rate": self.rate,
                "anchors": {name: _slim(rounds) for name, rounds in paired.items() if rounds},
            }
            path = self.cell_path(scenario, lane.name)
            if lane.trouble:
                # Not a finished cell: the next run tries again.
                path.unlink(missing_ok=True)
                path = path.with_suffix(".failed")
            else:
                path.with_suffix(".failed").unlink(missing_ok=True)
            write_json(path, cell, self.bench.root)
        self.clock.say(f"{scenario.name}: {_summary(lanes)}", keep=True)

    def _guard_finish(self, lane: Lane) -> dict[str, Any]:
        try:
            return lane.finish()
        except Exception as error:  # noqa: BLE001 - the figures are there already
            return {"error": str(error)}


def _described(peer: Optional[Peer], bench: Bench) -> dict[str, Any]:
    """What a reader of the raw file must know of the peer."""
    if peer is None:
        return {
            "label": "direct: the upstream, nothing between",
            "family": "direct",
            "checks": False,
        }
    return {
        "label": peer.label,
        "family": peer.family,
        "checks": peer.checks,
        "note": peer.note,
        "tool_rule": peer.tool_rule,
        "version": bench.programs.versions.get(peer.program, ""),
    }


def _slim(rounds: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rounds of an anchor without its histograms."""
    return [{key: value for key, value in one.items() if key != "hdr"} for one in rounds]


def _summary(lanes: list[Lane]) -> str:
    """CPU-µs per request of the lanes, or what else there is, on one line."""
    parts = []
    for lane in lanes:
        costing = per_event if lane.scenario.kind == "sse" else per_request
        costs = [cost for cost in (costing(one) for one in lane.rounds) if cost]
        if costs:
            parts.append(f"{lane.name} {middle(costs):.1f}")
        elif lane.trouble:
            parts.append(f"{lane.name} –")
    return ("CPU-µs: " + ", ".join(parts)) if parts else "done"

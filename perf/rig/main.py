"""The command line of `perf/run`: install and build, enter a private network, measure, report."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
import unittest
from pathlib import Path
from typing import Any, Optional

import machine
import report
from keys import make_keys, token_file
from lanes import Bench
from measure import Clock, Runner
from place import Programs
from procs import Trouble
from scenarios import Chosen, all_peers, fitted, selected, unknown, with_rounds
from setup import DEBS, Setup

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "perf" / "target" / "rig"
HEADLINE_MINUTES, FULL_MINUTES = 10.0, 60.0
MISSING = "PORTCULLIS_RIG_MISSING"
PROBES = ("portcullis", "load")
NEEDED = {
    "portcullis": "it is what is measured",
    "load": "it makes the load",
    "nginx": "every figure is set against its bare relay, and rates are shares of what it can",
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="perf/run",
        description="CPU per request, latency and memory of Portcullis and its peers, "
        "side by side on loopback. Without options: the headline table.",
    )
    add = parser.add_argument
    add("--full", action="store_true", help="every scenario; finished cells are kept and skipped")
    add("--again", action="store_true", help="measure finished cells once more")
    add(
        "--only",
        action="append",
        default=[],
        metavar="SCENARIO,PEER",
        help="only these cells (either part may be left out); may be repeated",
    )
    add(
        "--minutes",
        type=float,
        metavar="N",
        help="stop cleanly after N minutes of measuring "
        f"(default {HEADLINE_MINUTES:.0f}, with --full {FULL_MINUTES:.0f})",
    )
    add(
        "--rounds",
        type=int,
        metavar="N",
        help="another number of rounds: 1 shows that everything works",
    )
    add("--list", action="store_true", help="name all cells and their planned time, then end")
    add(
        "--report",
        action="store_true",
        help="draw table and plots anew from the raw files, then end",
    )
    add("--check", action="store_true", help="test the rig itself and the two traps, then end")
    add(
        "--results",
        type=Path,
        default=ROOT / "perf" / "results",
        metavar="DIR",
        help="where raw files, table and plots go, for figures that are not to be kept",
    )
    add(
        "--unpack",
        action="append",
        default=[],
        choices=sorted(DEBS),
        help="take this program from Debian's package even where PATH has it",
    )
    add("--no-build", action="store_true", help="take the programs that are built already")
    add("--portcullis", metavar="PATH", help="measure this binary instead of building one")
    add("--ablation", metavar="PATH", help="the binary with the feature `ablation`")
    add("--load", metavar="PATH", help="the load generator instead of building it")
    add(
        "--agentgateway", metavar="PATH", help="the binary of agentgateway, which is in no registry"
    )
    add("--cpus", default="0,1", metavar="P,L", help="CPU of the proxy, CPU of load and upstream")
    add(
        "--first-port", type=int, default=22000, metavar="PORT", help="180 ports from here are used"
    )
    add(
        "--wait",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="how long to wait for a load average below 1.5",
    )
    return parser.parse_args()


def _listing(chosen: Chosen) -> None:
    """Cells with the time they take."""
    total = 0.0
    for scenario, peers in chosen:
        planned = scenario.planned(len(peers))
        total += 0.0 if scenario.extra else planned
        mark = "headline" if scenario.headline else "named" if scenario.extra else "full"
        print(f"{scenario.name:24} {planned:5.0f} s  {mark:8}  {', '.join(peers)}")
    print(f"{'together':24} {total:5.0f} s  ({total / 60:.1f} minutes, without building)")


def _wanted(chosen: Chosen) -> set[str]:
    """Programs that the chosen cells need."""
    peers = all_peers()
    names = {peers[name].program for _, listed in chosen for name in listed if name in peers}
    names |= set(NEEDED)
    if any(scenario.kind == "syscalls" for scenario, _ in chosen):
        names.add("strace")
    return names


def _tokens(chosen: Chosen, bench: Bench) -> None:
    """Signs all tokens before the first round, not within one."""
    wanted = set()
    for scenario, _ in chosen:
        parts = range(scenario.rounds) if scenario.cold else (0,)
        wanted |= {(scenario.alg, scenario.tokens, part) for part in parts}
    for alg, count, part in sorted(wanted):
        if sys.stdout.isatty():
            print(f"\r  tokens: {count:,} {alg} …          ", end="", flush=True)
        try:
            token_file(bench.keys, Path(bench.load), alg, count, part)
        except Trouble as trouble:
            print(f"\n  tokens: {count:,} {alg}: {trouble}")
    print(("\r" if sys.stdout.isatty() else "") + "  tokens: ready" + " " * 30)


def _check() -> int:
    """The tests of the rig, the traps against the real binary among them."""
    binary = os.environ.get("PORTCULLIS_BIN") or str(ROOT / "target" / "release" / "portcullis")
    if not os.access(binary, os.X_OK):
        print(f"{binary} is missing: build it, or name one in PORTCULLIS_BIN", file=sys.stderr)
        return 1
    os.environ["PORTCULLIS_BIN"] = binary
    suite = unittest.defaultTestLoader.discover(str(Path(__file__).parent))
    return 0 if unittest.TextTestRunner(verbosity=2).run(suite).wasSuccessful() else 1


def _cpus(text: str) -> tuple[int, int]:
    """The two CPUs; they must differ and be ours."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise Trouble("--cpus wants two numbers, as in 0,1")
    proxy, load = int(parts[0]), int(parts[1])
    if proxy == load or not {proxy, load} <= os.sched_getaffinity(0):
        raise Trouble(
            f"--cpus {text}: two different CPUs of {sorted(os.sched_getaffinity(0))} are wanted"
        )
    return proxy, load


def _programs(options: argparse.Namespace, chosen: Chosen) -> Programs:
    """Installed and built outside the private network, since that has no registries."""
    given = {
        "portcullis": options.portcullis,
        "ablation": options.ablation,
        "load": options.load,
        "agentgateway": options.agentgateway,
    }
    inside = os.environ.get(machine.INSIDE) is not None
    if not inside:
        print("peers and builds (a first run takes minutes for this, later ones seconds)")
    # Inside, everything is there: looked up again, not built.
    setup = Setup(ROOT, given, not options.no_build and not inside, tuple(options.unpack))
    programs = setup.everything(_wanted(chosen))
    for name, reason in json.loads(os.environ.get(MISSING, "{}")).items():
        # What failed to build outside may still lie there from an older commit: not to be taken.
        programs.miss(name, reason)
    lacking = [
        f"{name} ({why}): {programs.missing.get(name, 'not looked for')}"
        for name, why in NEEDED.items()
        if name not in programs.found
    ]
    if lacking:
        raise Trouble("nothing can be measured without " + "; ".join(lacking))
    return programs


def _measure(options: argparse.Namespace, chosen: Chosen) -> None:
    """All scenarios in their order, within the minutes given."""
    cpus = _cpus(options.cpus)
    programs = _programs(options, chosen)
    os.environ[MISSING] = json.dumps(programs.missing)
    namespace = machine.enter_namespace()
    bench = Bench(
        ROOT,
        WORK,
        programs,
        make_keys(ROOT / "perf" / "target" / "keys"),
        options.first_port,
        *cpus,
        namespace,
    )
    _tokens(chosen, bench)
    facts = machine.facts(ROOT)
    facts |= machine.wait_quiet(options.wait)
    facts |= {
        "private_network": namespace,
        "programs": machine.digest([programs.found[name] for name in PROBES]),
        "cpu_proxy": cpus[0],
        "cpu_load": cpus[1],
        "versions": programs.versions,
        "missing": programs.missing,
    }
    machine.write_json(options.results / "machine.json", facts, ROOT)
    os.sched_setaffinity(0, [cpus[1]])
    run = {
        key: facts[key]
        for key in ("time", "commit", "dirty", *machine.SAME, "load_average", "quiet")
    }
    run["programs"] = facts["programs"]
    minutes = options.minutes or (FULL_MINUTES if options.full else HEADLINE_MINUTES)
    # Headline figures are taken anew each time: they belong to one run. The long table is resumed.
    again = options.again or not options.full
    _scenarios(Runner(bench, options.results, run, Clock(0.0)), chosen, minutes, again)


def _scenarios(runner: Runner, chosen: Chosen, minutes: float, again: bool) -> None:
    """What is not finished yet, in order, as far as the minutes reach."""
    todo = [
        (scenario, runner.beside(scenario, peers, wanted), wanted)
        for scenario, peers in chosen
        if (wanted := runner.missing(scenario, peers, again))
    ]
    spans = {scenario.name: scenario.planned(len(peers)) for scenario, peers, _ in todo}
    planned = sum(spans.values())
    print(
        f"{len(todo)} scenarios, {planned / 60:.1f} minutes planned, {minutes:.0f} at most"
        + (
            f"; {len(chosen) - len(todo)} are finished (--again measures them anew)"
            if len(todo) < len(chosen)
            else ""
        )
    )
    runner.clock = Clock(min(planned, minutes * 60))
    deadline = time.monotonic() + minutes * 60
    left: list[str] = []
    for scenario, peers, wanted in todo:
        within = deadline - time.monotonic()
        if spans[scenario.name] > within:
            # The headline loses rounds before it loses a row; the long table is resumed later.
            fewer = fitted(scenario, len(peers), within) if again else None
            if fewer is None:
                left.append(scenario.name)
                continue
            print(f"\n  {scenario.name}: {fewer.rounds} of {scenario.rounds} rounds fit")
            scenario = fewer
        try:
            runner.scenario(scenario, peers, wanted)
        except Exception as error:  # noqa: BLE001 - one scenario must never end the run
            print(f"\n  {scenario.name}: {type(error).__name__}: {error}")
            left.append(scenario.name)
    if left:
        print("not measured: " + ", ".join(left))
    machine.write_json(runner.results / "left.json", {"not_measured": left}, ROOT)


def _interrupted(number: int, _: Any) -> None:
    raise KeyboardInterrupt(f"signal {number}")


def main() -> int:
    """Exit codes: 0 done, 1 something failed, 64 wrong usage, 130 interrupted."""
    options = _arguments()
    options.results = options.results.resolve()
    wrong: Optional[str] = unknown(options.only)
    if wrong:
        print(f"perf/run: nothing here is called {wrong!r}; --list names all", file=sys.stderr)
        return 64
    chosen = with_rounds(selected(options.full, options.only), options.rounds)
    if options.list:
        _listing(selected(True, options.only, extra=True))
        return 0
    if options.check:
        return _check()
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        if not options.report:
            _measure(options, chosen)
    except Trouble as trouble:
        print(f"perf/run: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted: children ended; finished cells are kept")
        report.draw(options.results, ROOT)
        return 130
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    report.draw(options.results, ROOT)
    print(f"table: {os.path.relpath(options.results / 'table.md')}")
    return 0

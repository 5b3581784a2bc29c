"""The arithmetic, the table and the plots, on rounds made up for it."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import cells
import keys
import lanes
import measure
import report
import scenarios
import special
import stages
import stats
import svg
import targets
from machine import write_json
from place import Programs
from procs import Trouble
from stats import Spread


def one_round(cpu_us: float, requests: int = 1_000, **more: Any) -> dict[str, Any]:
    """A round as `load run` prints it."""
    return {
        "requests": requests,
        "errors": {},
        "rps": requests / 2.0,
        "seconds": 2.0,
        "latency_us": {
            "p50": 100.0 + cpu_us,
            "p90": 150,
            "p99": 200.0 + cpu_us,
            "p999": 900,
            "max": 5000,
        },
        "watch": {"proxy": {"cpu_ns": int(cpu_us * 1_000 * requests)}},
        **more,
    }


def write_cell(
    results: Path,
    scenario: scenarios.Scenario,
    name: str,
    costs: list[float],
    reason: str = "",
    run: str = "now",
    binary: str = "",
    machine: Optional[dict[str, Any]] = None,
) -> None:
    """A raw file as the runner writes it."""
    peer = scenarios.all_peers().get(name)
    rounds = [one_round(cost) for cost in costs]
    cell = {
        "scenario": scenario.record(),
        "name": name,
        "run": {"time": run, "programs": "x", **(machine or {})},
        "binary": binary,
        "peer": {
            "label": peer.label if peer else "direct",
            "family": peer.family if peer else "direct",
            "checks": bool(peer and peer.checks),
        },
        "state": "failed" if reason else "done",
        "reason": reason,
        "rounds": rounds,
        "checks": [{"check": "expired", "answer": "401 a|b", "as_wanted": True}],
        "anchors": {
            "nginx": [one_round(10.0), one_round(20.0), one_round(10.0)],
            "direct": [one_round(0.0)],
        },
        "load_average": {"begin": 0.1, "end": 0.2},
    }
    path = results / "raw" / scenario.name / f"{name}.{'failed' if reason else 'json'}"
    write_json(path, cell, Path("/nowhere"))


class Statistics(unittest.TestCase):
    """Spread, ratio and what lies over the base."""

    def test_middle_and_spread(self) -> None:
        """Odd, even, none."""
        self.assertEqual(stats.middle([3, 1, 2]), 2)
        self.assertEqual(stats.middle([4, 1, 2, 3]), 2.5)
        self.assertEqual(stats.middle([]), 0)
        self.assertIsNone(Spread.of([None]))
        self.assertEqual(Spread.of([5.0, None, 1.0, 3.0]), Spread(1.0, 3.0, 5.0, 3))
        self.assertEqual(Spread(1, 2, 3, 3).text(), "2.0 (1.0–3.0)")

    def test_cost_counts_only_what_was_done(self) -> None:
        """No division by nothing."""
        self.assertEqual(stats.per_request(one_round(12.5)), 12.5)
        self.assertIsNone(stats.per_request(one_round(12.5, requests=0)))
        self.assertIsNone(stats.per_request({"requests": 3}))
        self.assertEqual(
            stats.per_event({"events": {"count": 4}, "watch": {"proxy": {"cpu_ns": 8_000}}}), 2.0
        )

    def test_ratio_is_between_neighbours(self) -> None:
        """A slow minute that meets both leaves the ratio alone."""
        self.assertEqual(stats.ratio([10.0, 20.0], [10.0, 20.0]), Spread(1.0, 1.0, 1.0, 2))
        self.assertIsNone(stats.ratio([1.0], []))
        self.assertIsNone(stats.ratio([1.0], [0.0]))

    def test_interval_of_the_median(self) -> None:
        """Order statistics: of 16 values the fourth from both ends; of few the ends."""
        found = stats.median_interval([float(value) for value in range(1, 17)])
        self.assertEqual(found, Spread(4.0, 8.5, 13.0, 16))
        self.assertEqual(stats.median_interval([3.0, 1.0]), Spread(1.0, 2.0, 3.0, 2))
        self.assertIsNone(stats.median_interval([]))

    def test_kernel_share(self) -> None:
        """Of ticks; none without any."""
        watch = {"proxy": {"cpu_ns": 1, "user_ms": 10, "system_ms": 30}}
        self.assertEqual(stats.kernel_share({"watch": watch}), 0.75)
        self.assertIsNone(stats.kernel_share({}))

    def test_added_is_over_the_neighbour(self) -> None:
        """A slow minute that meets both adds nothing."""
        base = [one_round(0.0), one_round(10.0), one_round(20.0)]
        found = stats.added([one_round(5.0), one_round(15.0), one_round(25.0)], base, "p50")
        self.assertEqual(found, Spread(5.0, 5.0, 5.0, 3))
        self.assertIsNone(stats.added([one_round(1.0)], [], "p50"))

    def test_errors_and_rate(self) -> None:
        """Errors of all kinds count; a rate that was not kept is told."""
        self.assertEqual(
            stats.errors([one_round(1.0, errors={}), {"errors": {"status": 2, "id": 1}}]), 3
        )
        self.assertTrue(stats.kept_up({"rps": 1_990}, 2_000))
        self.assertFalse(stats.kept_up({"rps": 1_900}, 2_000))

    def test_strace_table(self) -> None:
        """With and without a count of errors."""
        text = (
            "% time     seconds  usecs/call     calls    errors syscall\n"
            "------ ----------- ----------- --------- --------- ----------------\n"
            " 60.00    0.010000           5      2000           io_uring_enter\n"
            " 40.00    0.005000           5      1000         7 recvfrom\n"
            "------ ----------- ----------- --------- --------- ----------------\n"
            "100.00    0.015000           5      3000         7 total\n"
        )
        self.assertEqual(special.parse_strace(text), {"io_uring_enter": 2000, "recvfrom": 1000})

    def test_signature_from_der(self) -> None:
        """Short and padded integers fill their 32 bytes."""
        der = bytes([0x30, 8, 2, 1, 5, 2, 3, 0, 0x80, 1])
        self.assertEqual(keys.der_to_raw(der), bytes(31) + b"\x05" + bytes(30) + b"\x80\x01")
        with self.assertRaises(ValueError):
            keys.der_to_raw(b"\x31" + der[1:])


class Drawing(unittest.TestCase):
    """Plots are well-formed and say what they were given."""

    def parsed(self, text: str) -> list[str]:
        """The words of a plot."""
        return [
            node.text or "" for node in xml.fromstring(text).iter() if node.tag.endswith("text")
        ]

    def test_bars(self) -> None:
        """Labels are escaped, long bars cut."""
        rows = [
            svg.Bar("a <b> & c", Spread(1, 2, 3, 3), "ours"),
            svg.Bar("long", Spread(90, 100, 110, 3), "bare"),
        ]
        words = self.parsed(svg.bars("T", "n", "µs", rows, cut=10))
        self.assertIn("a <b> & c", words)
        self.assertIn("100 →", words)
        self.assertIn("nothing measured", self.parsed(svg.bars("T", "n", "µs", [])))

    def test_widths_are_in_proportion(self) -> None:
        """Twice the figure, twice the bar."""
        rows = [
            svg.Bar("one", Spread(2, 2, 2, 1), "bare"),
            svg.Bar("two", Spread(4, 4, 4, 1), "bare"),
        ]
        found = [
            float(node.get("width", "0"))
            for node in xml.fromstring(svg.bars("T", "n", "µs", rows)).iter()
            if node.tag.endswith("rect") and node.get("fill") == svg.COLOURS["bare"]
        ]
        self.assertAlmostEqual(found[1], 2 * found[0], delta=0.2)

    def test_percentiles_and_stack(self) -> None:
        """A stage within the noise is named as such."""
        words = self.parsed(svg.percentiles("T", "n", [("Portcullis", {"p50": 10, "p99": 30})]))
        self.assertIn("p99 30.0", words)
        words = self.parsed(
            svg.stack("T", "n", "µs", [("token", 0.4), ("audit", -0.1), ("rest", 9.0)])
        )
        self.assertTrue(any("within the noise" in word for word in words))

    def test_grid(self) -> None:
        """Never more than ten lines, whatever the size."""
        for most in (0.003, 0.7, 1, 9.9, 10, 99, 1234, 5e6):
            self.assertLessEqual(most / svg.step(most), 10)
            self.assertGreaterEqual(most / svg.step(most), 1)


class Reporting(unittest.TestCase):
    """From raw files to the table."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = Path(folder.name)
        scenario = scenarios.scenarios()[0]
        self.assertEqual(scenario.name, "call_300")
        write_cell(self.results, scenario, "nginx", [10.0, 20.0, 10.0])
        write_cell(self.results, scenario, "portcullis", [9.0, 18.0, 12.0])
        write_cell(self.results, scenario, "haproxy-tool", [100.0, 200.0, 100.0])
        write_cell(self.results, scenario, "hyper-relay", [], "not built")

    def test_targets(self) -> None:
        """Met, missed and not measured are told apart."""
        found = {one.text: one for one in targets.targets(cells.Book(self.results))}
        for text in (
            "CPU per request over nginx's bare relay",
            "over HAProxy with JWT and rule",
            "CPU per request",
        ):
            self.assertEqual(found[text].verdict(), "met (within spread)")
        self.assertEqual(
            found["over Envoy with token cache, JWT and rule"].verdict(), "not measured"
        )
        missed = targets.Target("x", 10, "µs", 15.0)
        self.assertEqual(missed.verdict(), "missed by 50 %")
        self.assertEqual(missed.reason(), "not known")
        self.assertEqual(targets.Target("x", 20, "µs", 15.0).reason(), "")
        self.assertLessEqual(set(targets.REASONS), set(found))
        self.assertEqual(found["allocations per warm request"].limit, 0.0)

    def test_a_doubtful_verdict_says_so(self) -> None:
        """The middle decides; spread, errors and a busy machine are named."""
        spread = Spread(0.9, 0.95, 1.2, 3)
        one = targets.Target("x", 1.0, "×", 0.95, spread=spread)
        self.assertEqual(one.verdict(), "met (within spread)")
        one = targets.Target("x", 0.93, "×", 0.95, spread=spread, quiet=False)
        self.assertEqual(one.verdict(), "missed by 2 % (within spread); not quiet")
        one = targets.Target("x", 1.0, "×", 0.95, spread=spread, wrong=3)
        self.assertEqual(one.verdict(), "no verdict: 3 errors")
        one = targets.Target("x", 2.0, "×", 0.95, spread=spread)
        self.assertEqual(one.verdict(), "met")

    def test_a_load_that_was_late_gives_no_verdict(self) -> None:
        """What the load itself lacked is in the latency that is judged."""
        one = targets.Target("x", 0.8, "×", 0.5, late=21.0, added=40.0)
        self.assertEqual(one.verdict(), "no verdict: the load itself was late by 21 µs")
        one = targets.Target("x", 0.8, "×", 0.5, late=19.0, added=40.0)
        self.assertEqual(one.verdict(), "met")

    def test_other_machines_are_left_out(self) -> None:
        """A cell of another kernel, machine or build is named, and neither shown nor compared."""
        here = {"kernel": "6", "cpu": "c", "cpu_model": "1", "cpus_online": 2, "programs": "x"}
        write_json(self.results / "machine.json", here, self.results)
        scenario = scenarios.scenarios()[0]
        for name, other in (("nginx", {}), ("envoy", {"kernel": "5"}), ("direct", {"cpu": "d"})):
            write_cell(self.results, scenario, name, [1.0], machine={**here, **other})
        write_cell(self.results, scenario, "haproxy", [1.0], machine={**here, "programs": "y"})
        book = cells.Book(self.results)
        self.assertEqual([cell.name for cell in book.of("call_300")], ["nginx"])
        self.assertEqual(book.left_out[("call_300", "envoy")], "kernel")
        report.draw(self.results, self.results)
        text = (self.results / "table.md").read_text(encoding="utf-8")
        self.assertIn("direct in call_300: left out, for it is of another cpu", text)
        self.assertIn("haproxy in call_300: left out, for it is of another commit", text)

    def test_pairs(self) -> None:
        """Neighbours are subtracted, and what scatters is not told apart."""
        one = next(one for one in scenarios.scenarios() if one.name == "ablation")
        for name, costs in (("ablation-token", [9.0] * 8), ("ablation-audit", [9.0, 11.0] * 4)):
            write_cell(self.results, one, name, costs)
            path = self.results / "raw" / "ablation" / f"{name}.json"
            cell = json.loads(path.read_text(encoding="utf-8"))
            cell["anchors"] = {"ablation-none": [one_round(10.0) for _ in costs]}
            write_json(path, cell, self.results)
        text = stages.stages(cells.Book(self.results))
        self.assertIn("| Portcullis without token | 1.00 (1.00–1.00) | 8 | yes |", text)
        self.assertIn("| Portcullis without audit | 0.00 (-1.00–1.00) | 8 | no: within", text)

    def test_rounds_done_are_told(self) -> None:
        """Not those that were planned."""
        report.draw(self.results, self.results)
        text = (self.results / "table.md").read_text(encoding="utf-8")
        self.assertIn("32 connections, 3 rounds of 2 s", text)

    def test_audit_lines_are_judged(self) -> None:
        """A line for each request at the upstream and each refusal, or the cell fails."""
        ours = scenarios.all_peers()["portcullis"]
        lane = lanes.Lane(
            "portcullis", ours, scenarios.scenarios()[0], None, None, self.results  # type: ignore
        )
        lane.checks = [{"check": name} for name in ("good", "expired", "denied tool")]
        lane.audit_lines = 12
        lane.judge_audit({"requests": 10})
        with self.assertRaisesRegex(Trouble, "12 lines for 11 requests"):
            lane.judge_audit({"requests": 11})
        with self.assertRaisesRegex(Trouble, "did not say"):
            lane.judge_audit({})

    def test_ratio_only_within_a_run(self) -> None:
        """Cells of different runs are never divided."""
        write_cell(self.results, scenarios.scenarios()[0], "haproxy-tool", [100.0], run="yesterday")
        found = {one.text: one for one in targets.targets(cells.Book(self.results))}
        self.assertEqual(found["over HAProxy with JWT and rule"].verdict(), "not measured")
        # nginx is taken from the rounds beside ours, whatever its own file says.
        write_cell(self.results, scenarios.scenarios()[0], "nginx", [1.0], run="yesterday")
        found = {one.text: one for one in targets.targets(cells.Book(self.results))}
        self.assertEqual(found["CPU per request over nginx's bare relay"].measured, 0.9)

    def test_the_best_is_of_the_same_run(self) -> None:
        """A cheaper cell of yesterday does not count."""
        shake = next(one for one in scenarios.scenarios() if one.name == "handshakes")
        write_cell(self.results, shake, "portcullis", [50.0])
        write_cell(self.results, shake, "nginx", [100.0])
        write_cell(self.results, shake, "envoy", [10.0], run="yesterday")
        found = {one.text: one for one in targets.targets(cells.Book(self.results))}
        self.assertEqual(found["full TLS 1.3 handshake: over the best peer's"].measured, 0.5)

    def test_resuming(self) -> None:
        """Finished cells stay; other loads, rounds and binaries are made anew; absent peers not."""
        program = self.results / "program"
        program.write_bytes(b"1")
        found = {"nginx": program, "portcullis": program}
        bench = SimpleNamespace(programs=Programs(found=found), root=self.results)
        runner = measure.Runner(
            bench, self.results, {"programs": "x"}, measure.Clock(0.0)  # type: ignore[arg-type]
        )
        scenario = dataclasses.replace(scenarios.scenarios()[0], rounds=3)
        peers = ("direct", "nginx", "portcullis", "agentgateway-http")
        self.assertEqual(runner.missing(scenario, peers, False), peers[:3])
        for name in peers[:3]:
            write_cell(self.results, scenario, name, [1.0, 2.0, 3.0], binary=runner._binary(name))
        self.assertEqual(runner.missing(scenario, peers, False), ())
        self.assertEqual(runner.missing(scenario, peers, True), peers[:3])
        self.assertEqual(runner.beside(scenario, peers, ("portcullis",)), peers[:3])
        other = dataclasses.replace(scenario, seconds=9.0)
        self.assertEqual(runner.missing(other, peers, False), peers[:3])
        program.write_bytes(b"2")
        runner = measure.Runner(
            bench, self.results, {"programs": "x"}, measure.Clock(0.0)  # type: ignore[arg-type]
        )
        self.assertEqual(runner.missing(scenario, peers, False), peers[1:3])

    def test_table(self) -> None:
        """Figures, the reason of what is missing, and nothing that breaks a table."""
        report.draw(self.results, self.results)
        text = (self.results / "table.md").read_text(encoding="utf-8")
        self.assertIn("12.0 (9.0–18.0)", text)
        self.assertIn("0.90 (0.90–1.20)", text)
        self.assertIn("hyper-relay in call_300: not built", text)
        self.assertIn("401 a\\|b", text)
        xml.fromstring((self.results / "cpu_call_300.svg").read_text(encoding="utf-8"))

    def test_nothing_measured(self) -> None:
        """An empty folder gives an empty report, not a fault."""
        with tempfile.TemporaryDirectory() as folder:
            report.draw(Path(folder), Path(folder))
            self.assertIn(
                "Nothing measured", (Path(folder) / "table.md").read_text(encoding="utf-8")
            )

    def test_token_hits(self) -> None:
        """From our own counters, and none where there are none."""
        raw = {
            "scenario": {"kind": "closed"},
            "rounds": [
                {
                    "counters": {
                        'x_token_cache_total{outcome="hit"}': 3.0,
                        'x_token_cache_total{outcome="miss"}': 1.0,
                    }
                }
            ],
        }
        self.assertEqual(cells.Cell(raw).token_hits(), Spread(75.0, 75.0, 75.0, 1))
        self.assertIsNone(cells.Cell({**raw, "rounds": [{"counters": {}}]}).token_hits())

    def test_half_a_cell_is_no_cell(self) -> None:
        """A file that was cut is left out."""
        (self.results / "raw" / "call_300" / "nginx.json").write_text("{", encoding="utf-8")
        self.assertIsNone(cells.Book(self.results).cell("call_300", "nginx"))

    def test_no_folder_of_this_machine_is_written(self) -> None:
        """Raw files go into the repository."""
        path = self.results / "one.json"
        write_json(path, {"a": f"{self.results}/x", "b": f"{Path.home()}/y"}, self.results)
        self.assertEqual(json.loads(path.read_text()), {"a": "./x", "b": "~/y"})


class Choosing(unittest.TestCase):
    """Which cells a command line means."""

    def test_names_are_unique_and_known(self) -> None:
        """Every peer that a scenario names exists."""
        names = [one.name for one in scenarios.scenarios()]
        self.assertEqual(len(names), len(set(names)))
        known = {*scenarios.all_peers(), "direct"}
        for one in scenarios.scenarios():
            self.assertLessEqual(set(one.peers), known, one.name)

    def test_only_keeps_the_anchors(self) -> None:
        """A ratio to nginx needs nginx in the same run."""
        ((scenario, peers),) = scenarios.selected(False, ["call_300,portcullis"])
        self.assertEqual(
            (scenario.name, set(peers)), ("call_300", {"direct", "nginx", "portcullis"})
        )
        self.assertEqual(scenarios.unknown(["call_300,x"]), "x")
        self.assertIsNone(scenarios.unknown([",nginx", "call_300"]))

    def test_rounds_go_before_rows(self) -> None:
        """As many rounds as fit; none only when one does not."""
        one = scenarios.scenarios()[0]
        fewer = scenarios.fitted(one, 10, one.planned(10) - 1)
        assert fewer is not None
        self.assertEqual(fewer.rounds, one.rounds - 1)
        self.assertIsNone(scenarios.fitted(one, 10, 1.0))

    def test_times(self) -> None:
        """The headline leaves time to spare within its ten minutes; everything takes 45."""
        peers = scenarios.all_peers()
        for full, minutes in ((False, 9.0), (True, 45)):
            planned = 0.0
            for one, names in scenarios.selected(full, []):
                # agentgateway is given by hand; with it a run is some minutes longer.
                planned += one.planned(
                    sum(
                        1
                        for name in names
                        if name not in peers or peers[name].family != "agentgateway"
                    )
                )
            self.assertLessEqual(planned, minutes * 60)


if __name__ == "__main__":
    unittest.main()

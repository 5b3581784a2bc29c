"""Verdicts and their reasons, on rounds made up for them."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional

import cells
import report
import scenarios
import stages
import targets
from machine import write_json
from stats import Spread
from test_figures import one_round, write_cell

TWO_THOUSAND = "2,000 requests/s: p50 added, over what nginx adds"


def scenario(name: str) -> scenarios.Scenario:
    """By its name."""
    return next(one for one in scenarios.scenarios() if one.name == name)


class Judging(unittest.TestCase):
    """From raw files to a verdict."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = Path(folder.name)

    def found(self) -> dict[str, targets.Target]:
        """All targets by their text."""
        return {one.text: one for one in targets.targets(cells.Book(self.results))}

    def rounds(self, costs: list[float], **more: Any) -> list[dict[str, Any]]:
        """Rounds that keep the rate."""
        return [{**one_round(cost, **more), "rps": 2_000.0} for cost in costs]

    def rate(
        self,
        name: str,
        costs: list[float],
        nginx: list[float],
        direct: list[float],
        late: Optional[dict[str, float]] = None,
    ) -> None:
        """A cell of the open loop with its anchors, and how late the load was with each."""
        write_cell(self.results, scenario("rate_2000"), name, costs)
        path = self.results / "raw" / "rate_2000" / f"{name}.json"
        cell = json.loads(path.read_text(encoding="utf-8"))
        late = late or {}

        def side(who: str, values: list[float]) -> list[dict[str, Any]]:
            return self.rounds(values, lag_us={"p50": late.get(who, 0.0), "p99": 0.0})

        cell["rounds"] = side("ours", costs)
        cell["anchors"] = {"nginx": side("nginx", nginx), "direct": side("direct", direct)}
        write_json(path, cell, self.results)

    def test_added_latency_is_paired(self) -> None:
        """A round that is slow for all three leaves its ratio alone; a bad one is in the spread."""
        self.rate("portcullis", [7.0, 57.0, 7.0], [10.0, 60.0, 10.0], [0.0, 50.0, 0.0])
        one = self.found()[TWO_THOUSAND]
        self.assertEqual(one.spread, Spread(0.7, 0.7, 0.7, 3))
        self.assertEqual(one.verdict(), "met")
        self.rate("portcullis", [7.0, 7.0, 9.0], [10.0] * 3, [0.0] * 3)
        self.assertEqual(self.found()[TWO_THOUSAND].verdict(), "met (within spread)")

    def test_nginx_that_adds_nothing_gives_no_ratio(self) -> None:
        """Nor do the rounds that are left."""
        self.rate("portcullis", [7.0, 7.0], [10.0, 0.0], [0.0, 0.0])
        one = self.found()[TWO_THOUSAND]
        self.assertIsNone(one.spread)
        self.assertIn("nginx adds nothing measurable", one.verdict())

    def test_the_other_sides_count(self) -> None:
        """A late load or an error beside nginx or direct spoils the verdict as well."""
        self.rate("portcullis", [7.0], [10.0], [0.0], {"direct": 6.0})
        self.assertIn("late by 6", self.found()[TWO_THOUSAND].verdict())
        self.rate("portcullis", [7.0], [10.0], [0.0])
        path = self.results / "raw" / "rate_2000" / "portcullis.json"
        cell = json.loads(path.read_text(encoding="utf-8"))
        cell["anchors"]["nginx"][0]["errors"] = {"status": 2}
        write_json(path, cell, self.results)
        self.assertEqual(self.found()[TWO_THOUSAND].verdict(), "no verdict: 2 errors")

    def test_a_federated_call_is_over_one_at_the_servers_own_url(self) -> None:
        """Of the same run, by rounds of the same number."""
        text, call = "a call at /mcp, over one at /mcp/{server}", scenario("hub_300")
        write_cell(self.results, call, "portcullis", [10.0, 20.0])
        self.assertEqual(self.found()[text].verdict(), targets.UNMEASURED)
        write_cell(self.results, call, "portcullis-hub", [12.0, 36.0])
        self.assertEqual(self.found()[text].spread, Spread(1.2, 1.5, 1.8, 2))
        self.assertEqual(self.found()[text].verdict(), "met (within spread)")

    def test_streams_and_the_best_are_paired(self) -> None:
        """By rounds of the same number."""
        for name, costs in (("portcullis", [5.0, 50.0]), ("haproxy", [10.0, 100.0])):
            write_cell(self.results, scenario("handshakes"), name, costs)
            write_cell(self.results, scenario("sse_16"), name, costs)
            path = self.results / "raw" / "sse_16" / f"{name}.json"
            cell = json.loads(path.read_text(encoding="utf-8"))
            cell["rounds"] = [
                one_round(cost, events={"p50": cost, "p99": cost, "count": 9}) for cost in costs
            ]
            write_json(path, cell, self.results)
        found = self.found()
        for text in (
            "full TLS 1.3 handshake: over the best peer's",
            "16 event streams: p50 of the delay, over HAProxy's",
        ):
            self.assertEqual(found[text].spread, Spread(0.5, 0.5, 0.5, 2))

    def test_the_floor_is_a_reason_only_above_the_limit(self) -> None:
        """And only of the same run."""
        text = "over HAProxy with JWT and rule"
        call = scenario("call_300")
        write_cell(self.results, call, "portcullis", [16.0] * 3)
        write_cell(self.results, call, "haproxy-tool", [100.0] * 3)
        for cost, run, reason in (
            (12.0, "now", f"{targets.FLOOR_ABOVE}: 0.12 ×"),
            (9.0, "now", "not known"),
            (12.0, "yesterday", "not known"),
        ):
            write_cell(self.results, call, "ring-relay", [cost] * 3, run=run)
            self.assertEqual(self.found()[text].reason(), reason)

    def test_what_is_known_gives_way_to_figures(self) -> None:
        """A text of the table stands only where nothing measured is against it."""
        text = "16 KiB: over nginx's bare relay"
        one = targets.Target(text, 1.0, "×", 1.5, cause="figures")
        self.assertEqual(one.reason(), f"figures; {targets.COPIES}")
        one = targets.Target(text, 1.0, "×", 1.5, cause="figures", contradicted=True)
        self.assertEqual(one.reason(), "figures")
        one = targets.Target(text, 1.0, "×", 1.5, contradicted=True)
        self.assertEqual(one.reason(), "not known")

    def test_a_miss_is_told_by_its_parts(self) -> None:
        """User space and kernel beside what would do."""
        write_cell(self.results, scenario("call_300"), "portcullis", [16.0] * 3)
        path = self.results / "raw" / "call_300" / "portcullis.json"
        cell = json.loads(path.read_text(encoding="utf-8"))
        for one in cell["rounds"]:
            one["watch"]["proxy"] |= {"user_ms": 25, "system_ms": 75}
        cell["anchors"]["nginx"] = [one_round(15.0)] * 3
        write_json(path, cell, self.results)
        found = self.found()
        parts = "it takes 4.0 in user space and 12.0 in the kernel"
        self.assertEqual(
            found["CPU per request"].reason(),
            f"12.0 µs would meet it; {parts}; "
            "nginx's bare relay takes 15.0 here, where the aim was set 12.2",
        )
        one = found["CPU per request over nginx's bare relay"]
        self.assertEqual(one.reason(), f"15.0 µs would meet it; {parts}")

    def test_what_is_not_measured_says_why(self) -> None:
        """The peer's own reason, or that of its program."""
        machine = {"programs": "x", "missing": {"agentgateway": "no binary was given"}}
        write_json(self.results / "machine.json", machine, self.results)
        call = scenario("call_300")
        write_cell(self.results, call, "portcullis", [16.0] * 3)
        write_cell(self.results, call, "haproxy-tool", [], "it let an expired token through")
        write_cell(self.results, call, "envoy-tool-cache", [90.0], run="yesterday")
        found = self.found()
        for text, why in (
            ("over agentgateway's MCP route", "agentgateway-mcp: no binary was given"),
            ("over HAProxy", "haproxy-tool: it let an expired token through"),
            ("over Envoy", "envoy-tool-cache: not from the same run"),
            ("1 MiB: over nginx", "portcullis: no cell of it"),
            ("full TLS", "portcullis: no cell of it"),
            ("16 event streams: p50", "portcullis: no cell of it"),
        ):
            one = next(one for name, one in found.items() if name.startswith(text))
            self.assertEqual((one.verdict(), one.reason()), (targets.UNMEASURED, why))

    def test_allocations_are_the_gates(self) -> None:
        """Of both drivers, and said to be no figure of this run."""
        one = self.found()["allocations per warm request"]
        self.assertIn("from the gate's baseline, held in CI for each commit", one.detail)
        for driver in targets.DRIVERS:
            self.assertIn(f"({driver})", one.detail)

    def test_other_settings_do_not_stand_together(self) -> None:
        """Neither loads nor builds; the newest counts, and what is left out is named."""
        call = scenario("call_300")
        pairs = scenario("ablation")
        shorter = dataclasses.replace(call, seconds=0.5, connections=8)
        write_cell(self.results, call, "portcullis", [16.0], run="2")
        write_cell(self.results, dataclasses.replace(call, title="x"), "nginx", [18.0], run="1")
        write_cell(self.results, shorter, "envoy", [50.0], run="1")
        write_cell(self.results, pairs, "ablation-none", [15.0], run="2", binary="b")
        write_cell(self.results, pairs, "ablation-token", [15.0], run="1", binary="a")
        write_cell(self.results, call, "ring-relay", [9.0], run="1", binary="c")
        book = cells.Book(self.results)
        self.assertEqual(
            set(book.cells),
            {
                ("call_300", "portcullis"),
                ("call_300", "nginx"),
                ("call_300", "ring-relay"),
                ("ablation", "ablation-none"),
            },
        )
        self.assertEqual(
            book.left_out,
            {
                ("call_300", "envoy"): "connections (8, not 32), seconds (0.5, not 2.0)",
                ("ablation", "ablation-token"): "build of portcullis-ablation",
            },
        )

    def amend(self, one: str, name: str, **more: Any) -> None:
        """A raw file with other anchors, and with ticks: a quarter of them in user space."""
        path = self.results / "raw" / one / f"{name}.json"
        cell = json.loads(path.read_text(encoding="utf-8"))
        cell["anchors"] |= more
        for kept in (cell["rounds"], *cell["anchors"].values()):
            for each in kept:
                each["watch"]["proxy"] |= {"user_ms": 25, "system_ms": 75}
        write_json(path, cell, self.results)

    def test_the_headline_is_of_one_run(self) -> None:
        """Memory and start of yesterday do not stand under it."""
        write_cell(self.results, scenario("call_300"), "portcullis", [16.0])
        for run, there in (("now", True), ("yesterday", False)):
            write_cell(self.results, scenario("start"), "portcullis", [1.0], run=run)
            path = self.results / "raw" / "start" / "portcullis.json"
            cell = json.loads(path.read_text(encoding="utf-8"))
            cell["rounds"] = [{"rss_kb": 20_480, "answers_ms": 17.0}]
            write_json(path, cell, self.results)
            text = report._headline(cells.Book(self.results))
            self.assertEqual("| 20.0 | 17 |" in text, there)

    def test_user_and_kernel_of_one_run(self) -> None:
        """A row of two runs is left out, with a word; parse is split within its own scenario."""
        for size, run in (("call_300", "now"), ("call_16k", "now")):
            write_cell(self.results, scenario(size), "nginx", [20.0], run=run)
            self.amend(size, "nginx")
        write_cell(self.results, scenario("call_300"), "ring-relay", [12.0])
        write_cell(self.results, scenario("call_16k"), "ring-relay", [16.0], run="yesterday")
        write_cell(self.results, scenario("ablation_16k"), "ablation-inspect", [27.0] * 8)
        self.amend("ablation_16k", "ablation-inspect", **{"ablation-none": [one_round(32.0)] * 8})
        text = stages.stages(cells.Book(self.results))
        self.assertIn("| nginx | 5.0 | 15.0 | 5.0 | 15.0 |", text)
        self.assertNotIn("| ring-relay", text)
        self.assertIn("Left out: ring-relay (300 B and 16 KiB are not both", text)
        self.assertIn("| ablation-none | 8.0 | 24.0 | 5.0 | 3.0 |", text)
        self.assertNotIn("copies in user space", text)

    def test_only_stages_told_apart_are_drawn(self) -> None:
        """The others are in the rest, by name."""
        one = scenario("ablation")
        write_cell(self.results, one, "ablation-none", [10.0] * 8)
        for name, costs in (("ablation-token", [9.0] * 8), ("ablation-audit", [8.0, 11.0] * 4)):
            write_cell(self.results, one, name, costs)
            self.amend("ablation", name, **{"ablation-none": [one_round(10.0)] * 8})
        parts = stages.shares(cells.Book(self.results))
        rest = "the rest, and stages with no saving told apart: audit"
        self.assertEqual(parts, [("token", 1.0), (rest, 9.0)])
        write_cell(self.results, one, "ablation-token", [9.0] * 8, run="yesterday")
        parts = stages.shares(cells.Book(self.results))
        self.assertEqual(parts, [(rest, 10.0)])


if __name__ == "__main__":
    unittest.main()

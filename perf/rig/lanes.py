"""A lane is one peer with an upstream of its own, both running, ready for its turn."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import keys as keyring
import wire
from keys import NAME, Keys
from machine import Instant, noise
from place import Peer, Place, Programs
from procs import Child, Nursery, Trouble, ask, run, wait_port
from scenarios import Scenario

AUDIT_SETTLE_SECONDS = 2.0
PASS_WINDOW_SECONDS = 0.1


def _answer_bytes(tool: str) -> int:
    """How long the answers of a tool are, by its name."""
    kind, _, size = tool.partition("_")
    return int(size) if kind == "answer" and size.isdigit() else 0


@dataclass
class Bench:
    """What all scenarios of a run share."""

    root: Path
    work: Path
    programs: Programs
    keys: Keys
    first_port: int
    proxy_cpu: int
    load_cpu: int
    namespace: bool
    ports_used: int = 0

    @property
    def load(self) -> str:
        """The load generator."""
        path = self.programs.found.get("load")
        if path is None:
            raise Trouble(f"load: {self.programs.missing.get('load', 'not looked for')}")
        return str(path)

    def port(self) -> int:
        """A port that this run has not used for a while (it may be in TIME_WAIT)."""
        self.ports_used = (self.ports_used + 1) % 180
        return self.first_port + self.ports_used


@dataclass
class Lane:
    """One peer in one scenario."""

    name: str
    peer: Optional[Peer]
    scenario: Scenario
    bench: Bench
    nursery: Nursery
    directory: Path
    port: int = 0
    upstream_port: int = 0
    admin: int = 0
    proxy: Optional[Child] = None
    upstream: Optional[Child] = None
    checks: list[dict[str, Any]] = field(default_factory=list)
    rounds: list[dict[str, Any]] = field(default_factory=list)
    # The neighbours of `rounds` in a scenario of pairs.
    paired: list[dict[str, Any]] = field(default_factory=list)
    settings: str = ""
    audit_lines: int = 0
    # Which token is next: a window goes on where the one before ended.
    next_token: int = 0
    # Answers of a peer that had just begun and was not ready: a line of audit, and no request.
    in_vain: list[str] = field(default_factory=list)
    trouble: str = ""
    own: dict[str, str] = field(default_factory=dict)
    counted: dict[str, Any] = field(default_factory=dict)

    def context(self) -> Optional[ssl.SSLContext]:
        """TLS towards the peer, where the scenario has it."""
        return wire.client_context(str(self.bench.keys.ca)) if self.scenario.tls_down else None

    def watched(self) -> int:
        """The process whose CPU counts: the proxy, or for `direct` the upstream itself."""
        child = self.proxy or self.upstream
        if child is None:
            raise Trouble(f"{self.name} does not run")
        return child.pid

    def start(self) -> None:
        """Starts upstream and proxy and waits until both accept."""
        self.start_upstream()
        if self.peer is None:
            self.port = self.upstream_port
            return
        self.start_proxy()

    def start_upstream(self) -> None:
        """The upstream on the load's CPU; where CPU is counted `direct` takes a proxy's place."""
        bench, scenario = self.bench, self.scenario
        self.upstream_port = bench.port()
        argv = [bench.load, "upstream", "--listen", f"127.0.0.1:{self.upstream_port}"]
        if scenario.tls_up or (self.peer is None and scenario.tls_down):
            argv += [
                "--tls-cert",
                str(bench.keys.certificate),
                "--tls-key",
                str(bench.keys.certificate_key),
            ]
        cpu = bench.load_cpu if self.peer or scenario.beside else bench.proxy_cpu
        self.upstream = self.nursery.start(
            f"{self.name}-upstream", argv, [cpu], stdin=True, stdout=True
        )
        wait_port(self.upstream_port, self.upstream)

    def place(self) -> Place:
        """Where the proxy runs."""
        bench, scenario = self.bench, self.scenario
        return Place(
            self.directory,
            self.port,
            self.admin,
            self.upstream_port,
            bench.keys,
            bench.programs,
            scenario.alg,
            scenario.tls_down,
            scenario.tls_up,
            str(bench.proxy_cpu),
            max(scenario.body, _answer_bytes(scenario.tool)),
        )

    def start_proxy(self) -> float:
        """The proxy on its CPU; gives the seconds until its port accepted."""
        peer, bench = self.peer, self.bench
        if peer is None:
            raise Trouble("direct has no proxy")
        if peer.program not in bench.programs.found:
            raise Trouble(bench.programs.missing.get(peer.program, "the program is missing"))
        if not peer.tls and (self.scenario.tls_down or self.scenario.tls_up):
            raise Trouble("not set up with TLS here")
        if peer.family == "agentgateway" and not bench.namespace:
            raise Trouble("it listens on all addresses, so it is started in a private network only")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.admin = bench.port(), bench.port()
        launch = peer.make(self.place())
        self.settings = launch.settings
        cpus = [bench.proxy_cpu]
        if peer.name == "portcullis-2-workers":
            cpus = sorted([bench.proxy_cpu, bench.load_cpu])
        self.proxy = self.nursery.start(self.name, launch.argv, cpus, launch.env)
        took = wait_port(self.port, self.proxy, 120.0 if peer.prepare else 20.0)
        if peer.prepare:
            self.own = peer.prepare(self.place(), self.port)
        return took

    def check(self) -> None:
        """The function checks; a peer that fails one is not measured."""
        if self.peer is None:
            return
        tokens = keyring.check_tokens(self.bench.keys, self.scenario.alg)
        self.checks = wire.function_checks(self.peer, self.port, tokens, self.context(), self.own)
        wire.require(self.checks)

    def pass_tokens(self, extra: list[str]) -> None:
        """Every token once, by count: what a cache holds then does not hang on how fast it is."""
        count = self.scenario.tokens
        self.turn(0, [*extra, "--warm-requests", str(count)], 0.0, PASS_WINDOW_SECONDS)
        warmed = self.rounds.pop().get("tokens", {}).get("warmed", 0)
        if warmed < count:
            raise Trouble(f"{warmed:,} of {count:,} tokens were sent in the time for one pass")

    def turn(
        self, number: int, extra: list[str], warm: float, seconds: Optional[float] = None
    ) -> None:
        """One round of the load; `seconds` for another window than the scenario's."""
        if self.proxy is not None and not self.proxy.running():
            raise Trouble(f"ended while measured: {self.proxy.said()}")
        scenario, bench = self.scenario, self.bench
        window = scenario.seconds if seconds is None else seconds
        tokens = self.own.get("tokens") or keyring.token_file(
            bench.keys,
            Path(bench.load),
            scenario.alg,
            scenario.tokens,
            number if scenario.cold else 0,
        )
        argv = [
            bench.load,
            "run",
            "--target",
            f"127.0.0.1:{self.port}",
            "--path",
            self.path(),
            "--host",
            NAME,
            "--tokens",
            str(tokens),
            "--first-token",
            str(0 if scenario.cold else self.next_token),
            "--method",
            scenario.method,
            "--body-bytes",
            str(scenario.body),
            "--connections",
            str(scenario.connections),
            "--seconds",
            f"{window:g}",
            "--warm",
            f"{warm:g}",
            "--watch",
            f"proxy={self.watched()}",
        ]
        if scenario.tool:
            tool = wire.named(self.own, scenario.tool)
            argv += ["--tool", tool]
            if tool != scenario.tool:
                argv += ["--does", scenario.tool]
        if "revision" in self.own:
            argv += ["--header", f"Mcp-Protocol-Version:{self.own['revision']}"]
        if self.peer and self.peer.slack:
            argv += ["--length-slack", str(self.peer.slack)]
        if self.proxy and self.upstream:
            argv += ["--watch", f"upstream={self.upstream.pid}"]
        argv += self.tls_arguments() + extra
        limit = warm + window + (90 if "--warm-requests" in extra else 30)
        begin = self.instant()
        self.rounds.append(json.loads(run(argv, limit, [bench.load_cpu], name="load run")))
        self.rounds[-1]["machine"] = self.noise_since(begin)
        self.next_token = int((self.rounds[-1].get("tokens") or {}).get("next", 0))
        self.settle_audit()

    def instant(self) -> Optional[Instant]:
        """What the two CPUs and all our processes have spent so far."""
        cpus = (self.bench.proxy_cpu, self.bench.load_cpu)
        return Instant.of(cpus, [child.pid for child in self.nursery.children])

    def noise_since(self, begin: Optional[Instant]) -> dict[str, Any]:
        """What others took of our CPUs since then."""
        return noise(begin, self.instant(), 2)

    def path(self) -> str:
        """The path of the MCP server at this peer."""
        return self.own.get("path", wire.PATH)

    def tls_arguments(self) -> list[str]:
        """How the load reaches a TLS listener."""
        if not self.scenario.tls_down:
            return []
        return ["--tls-ca", str(self.bench.keys.ca), "--server-name", NAME]

    def settle_audit(self) -> None:
        """Counts and empties our audit file once its writer has caught up: disks end."""
        path = self.directory / "audit.jsonl"
        if (
            self.peer is None
            or self.peer.family not in ("portcullis", "ablation")
            or not path.exists()
        ):
            return
        deadline, size, same = time.monotonic() + AUDIT_SETTLE_SECONDS, -1, 0
        while same < 3 and time.monotonic() < deadline:
            now = path.stat().st_size
            same, size = (same + 1, size) if now == size else (0, now)
            time.sleep(0.05)
        with open(path, "rb+") as file:
            while part := file.read(1 << 20):
                self.audit_lines += part.count(b"\n")
            file.truncate(0)

    def judge_audit(self, counted: dict[str, Any]) -> None:
        """Each request that reached the upstream, and each refusal of the checks, is one line."""
        if self.peer is None or self.peer.family != "portcullis" or self.trouble:
            return
        reached = counted.get("requests")
        if reached is None:
            raise Trouble(f"the upstream did not say what it saw: {counted}")
        refused = sum(1 for one in self.checks if one["check"] != "good")
        # Streams are cut at the end of a window: those may lack their outcome.
        open_ones = self.scenario.connections * len(self.rounds) * (self.scenario.kind == "sse")
        open_ones += len(self.in_vain) + int(self.own.get("asides", 0))
        wanted = int(reached) + refused
        if not wanted - open_ones <= self.audit_lines <= wanted + open_ones:
            raise Trouble(
                f"the audit file has {self.audit_lines:,} lines for {int(reached):,} requests at "
                f"the upstream and {refused} refusals"
            )

    def metrics(self) -> dict[str, float]:
        """Our own counters, where the peer is ours: cache outcomes and ring enters."""
        if self.peer is None or self.peer.family not in ("portcullis", "ablation"):
            return {}
        request = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
        found: dict[str, float] = {}
        for line in ask(self.admin, request).body.decode("utf-8", "replace").splitlines():
            name, _, value = line.rpartition(" ")
            if "_cache_total" in name or "ring_enters_total" in name:
                try:
                    found[name] = float(value)
                except ValueError:
                    continue
        return found

    def finish(self) -> dict[str, Any]:
        """Ends both processes; gives what the upstream counted."""
        if self.proxy is not None:
            self.nursery.stop(self.proxy)
        self.settle_audit()
        if self.upstream is None:
            return {}
        child, text = self.upstream, ""
        process = child.process
        try:
            text, _ = process.communicate(timeout=5)
        except Exception as error:  # noqa: BLE001 - the count is a by-product; the figures stand
            text = json.dumps({"error": str(error)})
        self.nursery.stop(child)
        for line in reversed(text.strip().splitlines()):
            try:
                return dict(json.loads(line))
            except (ValueError, TypeError):
                continue
        return {}

"""What is not a loop of requests: starts, idle connections, system calls."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Optional

import keys as keyring
import wire
from lanes import Lane
from keys import NAME
from procs import Child, Trouble, ask, memory_kb, run, tree

READY_SECONDS = 90.0
ENTER_EVENT = "syscalls:sys_enter_io_uring_enter"
PERF_ATTACH_SECONDS = 0.5


def _first_answer(lane: Lane, token: str, began: float) -> float:
    """Milliseconds from `began` to the first call that was answered."""
    deadline = began + 20
    while time.monotonic() < deadline:
        if lane.proxy is not None and not lane.proxy.running():
            raise Trouble(f"ended at start: {lane.proxy.said()}")
        try:
            answer = ask(lane.port, wire.request("answer_300", token), lane.context(), NAME, 2.0)
            if wire.permitted(answer):
                return (time.monotonic() - began) * 1_000
            lane.in_vain.append(wire.short(answer))
        except Trouble:
            pass
        time.sleep(0.001)
    raise Trouble("no call was answered within 20 s of the start")


def resident_kb(pid: int) -> dict[str, int]:
    """Resident memory of a process tree by what backs it; `audit_ring` is our mapped ring file's
    part, which the kernel may write back and drop."""
    found = {"anon": 0, "file": 0, "shmem": 0, "audit_ring": 0}
    for one in tree(pid):
        try:
            status = Path(f"/proc/{one}/status").read_text(encoding="utf-8", errors="replace")
            smaps = Path(f"/proc/{one}/smaps").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for name, size in re.findall(r"^Rss(Anon|File|Shmem):\s+(\d+) kB", status, re.MULTILINE):
            found[name.lower()] += int(size)
        ring = False
        for line in smaps.splitlines():
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                ring = line.endswith(".ring")
            elif ring and line.startswith("Rss:"):
                found["audit_ring"] += int(line.split()[1])
    return found


def _warm(lane: Lane) -> dict[str, int]:
    """Memory after a saturated window: buffers grown, caches filled, the ring's pages touched."""
    lane.turn(0, [], lane.scenario.first_warm)
    window = lane.rounds.pop()
    if not window["requests"]:
        raise Trouble("nothing was answered in the window before its memory is read")
    memory, parts = memory_kb(lane.watched()), resident_kb(lane.watched())
    return {
        "requests_before": window["requests"],
        "rss_kb_end": memory["rss"],
        "pss_kb_end": memory["pss"],
        **{f"rss_{name}_kb_end": size for name, size in parts.items()},
    }


def starts(lane: Lane) -> None:
    """Cold starts to the first answered call, memory after it and after a saturated window, and
    the size of the program."""
    if lane.peer is None:
        raise Trouble("direct has no start of its own")
    lane.start_upstream()
    token = keyring.check_tokens(lane.bench.keys, lane.scenario.alg)["good"] or ""
    for number in range(lane.scenario.rounds):
        began = time.monotonic()
        accepted = lane.start_proxy()
        answered = _first_answer(lane, token, began)
        if number == 0:
            lane.check()
            time.sleep(0.5)
        if lane.proxy is None:
            raise Trouble("lost its process")
        memory = memory_kb(lane.proxy.pid)
        lane.rounds.append(
            {
                "accepts_ms": accepted * 1_000,
                "answers_ms": answered,
                "rss_kb": memory["rss"],
                "pss_kb": memory["pss"],
            }
        )
        if number == lane.scenario.rounds - 1:
            lane.rounds[-1] |= _warm(lane)
        lane.nursery.stop(lane.proxy)
    program = lane.bench.programs.found[lane.peer.program]
    lane.rounds[0]["program_bytes"] = program.stat().st_size
    lane.rounds[0]["in_vain"] = lane.in_vain


def _ready(child: Child, count: int) -> None:
    """Waits until the holder says that its connections stand."""
    stream = child.process.stdout
    if stream is None:
        raise Trouble("no output to read")
    os.set_blocking(stream.fileno(), False)
    deadline, text = time.monotonic() + READY_SECONDS, ""
    while time.monotonic() < deadline:
        try:
            text += os.read(stream.fileno(), 4096).decode("utf-8", "replace")
        except BlockingIOError:
            pass
        if f"READY {count}" in text:
            return
        if not child.running():
            raise Trouble(f"load idle ended: {text[-200:]} {child.said()}")
        time.sleep(0.02)
    raise Trouble(f"{count} connections did not stand within {READY_SECONDS:.0f} s: {text[-200:]}")


def idle(lane: Lane) -> None:
    """Memory before and with idle connections that each had one answer."""
    lane.start()
    lane.check()
    time.sleep(0.5)
    before = memory_kb(lane.watched())
    bench, count = lane.bench, lane.scenario.connections
    tokens = keyring.token_file(
        bench.keys, Path(bench.load), lane.scenario.alg, lane.scenario.tokens
    )
    argv = [
        bench.load,
        "idle",
        "--target",
        f"127.0.0.1:{lane.port}",
        "--connections",
        str(count),
        "--path",
        lane.path(),
        "--host",
        NAME,
        "--tokens",
        str(tokens),
        *lane.tls_arguments(),
    ]
    holder = lane.nursery.start(
        f"{lane.name}-idle", argv, [bench.load_cpu], stdin=True, stdout=True
    )
    _ready(holder, count)
    time.sleep(1.5)
    after = memory_kb(lane.watched())
    lane.nursery.stop(holder)
    lane.rounds.append(
        {
            "connections": count,
            "rss_kb_before": before["rss"],
            "rss_kb_after": after["rss"],
            "pss_kb_before": before["pss"],
            "pss_kb_after": after["pss"],
            "kb_per_connection": (after["rss"] - before["rss"]) / count,
        }
    )


def parse_strace(text: str) -> dict[str, int]:
    """Calls by name out of the table that `strace -c` writes."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        match = re.match(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)\s*$", line)
        if match and match.group(2) != "total":
            found[match.group(2)] = found.get(match.group(2), 0) + int(match.group(1))
    return found


def syscalls(lane: Lane) -> None:
    """System calls per request under strace, which slows the peer, so batches differ."""
    strace = lane.bench.programs.found.get("strace")
    if strace is None:
        raise Trouble(lane.bench.programs.missing.get("strace", "strace is missing"))
    lane.start()
    lane.check()
    out = lane.directory / "strace.txt"
    lane.directory.mkdir(parents=True, exist_ok=True)
    # Before strace is there: what it counts of a ring is of larger batches.
    enters = count_enters(lane) if _has_ring(lane.watched()) else {}
    argv = [str(strace), "-f", "-c", "-o", str(out)]
    for pid in tree(lane.watched()):
        argv += ["-p", str(pid)]
    # Not pinned to the proxy's CPU: its work would be waited for there.
    tracer = lane.nursery.start(f"{lane.name}-strace", argv, [lane.bench.load_cpu])
    _attached(lane.watched())
    lane.turn(0, [], 0.0)
    tracer.process.send_signal(signal.SIGINT)
    try:
        tracer.process.wait(10)
    except subprocess.TimeoutExpired as error:
        raise Trouble("strace did not end") from error
    calls = parse_strace(out.read_text(encoding="utf-8", errors="replace"))
    requests = lane.rounds[-1].get("requests") or 0
    if not calls or not requests:
        raise Trouble("strace counted nothing")
    lane.rounds[-1]["syscalls"] = calls
    lane.rounds[-1]["syscalls_per_request"] = sum(calls.values()) / requests
    lane.rounds[-1] |= enters


def parse_perf(text: str) -> Optional[int]:
    """The count of ring enters that `perf stat -x,` writes; None when it was not counted."""
    for line in text.splitlines():
        words = line.split(",")
        if len(words) > 2 and words[2].strip() == ENTER_EVENT and words[0].isdigit():
            return int(words[0])
    return None


def _has_ring(pid: int) -> bool:
    """Whether one of its descriptors is an io_uring."""
    for one in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "io_uring" in os.readlink(one):
                return True
        except OSError:
            continue
    return False


def count_enters(lane: Lane) -> dict[str, Any]:
    """Ring enters of one window counted by the kernel's tracepoint, which stops nobody, and a
    window without it beside: whether counting slowed is to be seen."""
    perf = shutil.which("perf")
    if perf is None:
        return {"enters_not_counted": "perf is not on PATH"}
    out = lane.directory / "perf.csv"
    argv = [perf, "stat", "-x", ",", "-o", str(out), "-e", ENTER_EVENT]
    argv += ["-p", ",".join(str(pid) for pid in tree(lane.watched()))]
    lane.turn(0, [], 0.3)
    plain = lane.rounds.pop()
    counter = lane.nursery.start(f"{lane.name}-perf", argv, [lane.bench.load_cpu])
    time.sleep(PERF_ATTACH_SECONDS)
    lane.turn(0, [], 0.0)
    counted = lane.rounds.pop()
    counter.process.send_signal(signal.SIGINT)
    try:
        counter.process.wait(10)
    except subprocess.TimeoutExpired:
        return {"enters_not_counted": "perf stat did not end"}
    text = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
    enters = parse_perf(text)
    if enters is None:
        said = " ".join(text.split())[-120:] or counter.said(120)
        return {"enters_not_counted": f"perf stat: {said}"}
    # Requests before and after the window are its connections': some tens of many thousands.
    return {
        "enters": {
            "count": enters,
            "requests": counted["requests"],
            "per_request": enters / counted["requests"] if counted["requests"] else 0.0,
            "rps": counted["rps"],
            "rps_uncounted": plain["rps"],
        }
    }


def _attached(pid: int) -> None:
    """Waits until the process says that it is traced."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not re.search(
            r"TracerPid:\s+0\b", Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        ):
            return
        time.sleep(0.01)
    raise Trouble("strace did not attach (is ptrace permitted?)")


def handshakes(lane: Lane, seconds: float) -> dict[str, Any]:
    """Full TLS 1.3 handshakes one at a time, with one request each."""
    bench = lane.bench
    tokens = keyring.token_file(
        bench.keys, Path(bench.load), lane.scenario.alg, lane.scenario.tokens
    )
    argv = [
        bench.load,
        "handshakes",
        "--target",
        f"127.0.0.1:{lane.port}",
        "--path",
        lane.path(),
        "--host",
        NAME,
        "--tokens",
        str(tokens),
        *lane.tls_arguments(),
        "--seconds",
        f"{seconds:g}",
        "--watch",
        f"proxy={lane.watched()}",
    ]
    return dict(json.loads(run(argv, seconds + 30, [bench.load_cpu], name="load handshakes")))

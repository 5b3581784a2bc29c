"""What was measured on: machine, kernel, commit; and the private network that it is measured in."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import resource
import shutil
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Optional

from procs import cpu_ns

INSIDE = "PORTCULLIS_RIG_INSIDE"
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
QUIET = 1.5
# A round is noisy when others take more than this of the CPUs that are used.
NOISY = 0.03
# What must agree before figures may stand in one table; the programs' digest stands for the commit.
SAME = ("cpu", "cpu_model", "cpus_online", "kernel")


def _first(path: str, key: str) -> str:
    """The value of the first `key: value` line of a file, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.split(":")[0].strip() == key:
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return ""


def _said(*argv: str, cwd: "Path | None" = None) -> str:
    """The output of a short command, or nothing when it cannot be had."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=10, cwd=cwd, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def facts(root: Path) -> dict[str, Any]:
    """Machine, kernel, commit and settings that a reader needs to judge the figures."""
    settings = {}
    for name in ("sched_autogroup_enabled", "sched_schedstats", "io_uring_disabled"):
        try:
            settings[name] = Path(f"/proc/sys/kernel/{name}").read_text(encoding="ascii").strip()
        except OSError:
            continue
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": _first("/proc/cpuinfo", "model name"),
        "cpu_model": _first("/proc/cpuinfo", "model"),
        "cpus_online": os.cpu_count(),
        "cpus_allowed": sorted(os.sched_getaffinity(0)),
        "memory": _first("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "system": _first_line("/etc/os-release", "PRETTY_NAME"),
        "virtual": _said("systemd-detect-virt") or "unknown",
        "python": platform.python_version(),
        "rustc": _said("rustc", "--version", cwd=root),
        "commit": _said("git", "rev-parse", "HEAD", cwd=root),
        "dirty": bool(
            _said(
                "git",
                "status",
                "--porcelain",
                "--untracked-files=no",
                "--",
                ".",
                ":!perf/results",
                cwd=root,
            )
        ),
        "settings": settings,
    }


def _first_line(path: str, key: str) -> str:
    try:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            if line.startswith(key + "="):
                return line.split("=", 1)[1].strip('"')
    except OSError:
        pass
    return ""


def load_average() -> float:
    """The load of the last minute."""
    return os.getloadavg()[0]


def wait_quiet(seconds: float) -> dict[str, Any]:
    """Waits at most `seconds` for a load average below 1.5; the record says whether it came."""
    deadline = time.monotonic() + seconds
    shown = sys.stdout.isatty()
    if not shown and load_average() >= QUIET:
        print(f"  load average {load_average():.2f}, waiting for < {QUIET}", flush=True)
    while load_average() >= QUIET and time.monotonic() < deadline:
        if shown:
            print(
                f"\r  load average {load_average():.2f}, waiting for < {QUIET} "
                f"({deadline - time.monotonic():.0f} s at most)   ",
                end="",
                flush=True,
            )
        time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))
    average = load_average()
    if average >= QUIET:
        start = "\r" if shown else ""
        print(f"{start}  load average {average:.2f}: NOT quiet, and the record says so." + " " * 20)
    return {"load_average": round(average, 2), "quiet": average < QUIET}


@dataclass(frozen=True)
class Instant:
    """What CPUs and our processes had spent at one moment, in ns."""

    at: int
    idle: int
    steal: int
    ours: int

    @staticmethod
    def of(cpus: tuple[int, ...], pids: Iterable[int]) -> "Optional[Instant]":
        """Now, on these CPUs; `pids` are our children that live. None where it cannot be told."""
        names = {f"cpu{cpu}" for cpu in cpus}
        try:
            lines = Path("/proc/stat").read_text(encoding="ascii").splitlines()
        except OSError:
            return None
        used = [words[1:] for line in lines if (words := line.split())[:1] and words[0] in names]
        if len(used) != len(cpus) or any(len(words) < 8 for words in used):
            return None
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        # Idle time is taken at its ends; busy time is what a tick happens to meet, and no use here.
        idle = sum(int(words[3]) + int(words[4]) for words in used) * tick
        steal = sum(int(words[7]) for words in used) * tick
        whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        usage = [resource.getrusage(who) for who in whose]
        ours = sum(int((one.ru_utime + one.ru_stime) * 1e9) for one in usage)
        ours += sum(cpu_ns(pid) for pid in pids)
        return Instant(time.monotonic_ns(), idle, steal, ours)


def noise(begin: Optional[Instant], end: Optional[Instant], cpus: int) -> dict[str, Any]:
    """What others took of our CPUs between two instants: the host (steal), and whatever is neither
    idle nor ours (foreign; kernel threads are in it). Nothing where it cannot be told."""
    if begin is None or end is None or end.at <= begin.at:
        return {}
    whole = (end.at - begin.at) * cpus
    steal, ours = end.steal - begin.steal, end.ours - begin.ours
    foreign = max(0, whole - (end.idle - begin.idle) - steal - ours)
    return {
        "steal_percent": round(100 * steal / whole, 2),
        "foreign_percent": round(100 * foreign / whole, 2),
        "noisy": (steal + foreign) / whole > NOISY,
    }


def quiet_rounds(rounds: Iterable[dict[str, Any]], otherwise: bool) -> bool:
    """Whether at most a quarter of the rounds are noisy; `otherwise` where none was watched."""
    noisy = [bool(one["machine"]["noisy"]) for one in rounds if one.get("machine")]
    return sum(noisy) <= len(noisy) / 4 if noisy else otherwise


def bring_loopback_up() -> None:
    """Sets `lo` up in a new network namespace, without the `ip` program."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(handle, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


def namespace_command() -> list[str]:
    """The `unshare` call that works here, or nothing."""
    if not shutil.which("unshare"):
        return []
    ways = [["unshare", "-n"], ["unshare", "-n", "-c", "--keep-caps"]]
    for way in ways:
        probe = [
            *way,
            sys.executable,
            "-c",
            "import sys; sys.path.insert(0, sys.argv[1]); "
            "import machine; machine.bring_loopback_up()",
            str(Path(__file__).parent),
        ]
        try:
            if subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0:
                return way
        except (OSError, subprocess.TimeoutExpired):
            continue
    return []


def enter_namespace() -> bool:
    """Starts this program again in a network namespace; True when it already is in one."""
    if os.environ.get(INSIDE) == "1":
        bring_loopback_up()
        return True
    if os.environ.get(INSIDE) == "no":
        return False
    way = namespace_command()
    if not way:
        print("  no private network namespace here: measuring on the plain loopback")
        return False
    sys.stdout.flush()
    os.execvpe(way[0], [*way, sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})


def digest(paths: list[Path]) -> str:
    """A short name for the bytes of programs."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def write_json(path: Path, value: Any, root: Path) -> None:
    """Writes a whole file or none: a cut run leaves no half cell. Names no folder of ours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(path.suffix + ".part")
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
    text = text.replace(str(root), ".")
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)

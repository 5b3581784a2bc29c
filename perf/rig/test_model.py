"""The sums of MODEL.md, on rounds made up for them."""

from __future__ import annotations

import importlib.util
import tempfile
import unittest
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import scenarios
from test_figures import write_cell

PROGRAM = Path(__file__).resolve().parents[1] / "model"
TEXT = """Results of an older run
| `pair` | 5.2 | the kernel's | results: call_300/nginx cost |
| `loop` | 2.5 | a constant | a profile |
| one | `2*pair` | 10.4 | 9.9 | +5% | results: call_300/portcullis cost |
| two | `2*loop` | 5.0 | 4.4 | +5% | results: tls_down/portcullis cost |
"""


def program() -> ModuleType:
    """It has no ending, being called by name."""
    loader = SourceFileLoader("model", str(PROGRAM))
    spec = importlib.util.spec_from_loader("model", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


class Sums(unittest.TestCase):
    """One run, or no figure."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.results = Path(folder.name)
        self.model = program()
        self.call, self.tls = (
            next(one for one in scenarios.scenarios() if one.name == name)
            for name in ("call_300", "tls_down")
        )

    def test_what_has_no_source_is_blank(self) -> None:
        """Nothing old stands under the name of a new run, nor do sums of it."""
        text = self.model.computed(TEXT, self.model.Sources(self.results))
        self.assertIn("Results of no run", text)
        self.assertIn("| `pair` | no figure | the kernel's |", text)
        self.assertIn("| `loop` | 2.5 |", text)
        self.assertIn("| one | `2*pair` | no figure | no figure |  |", text)
        self.assertIn("| two | `2*loop` | 5.0 | no figure |  |", text)
        again = self.model.computed(text, self.model.Sources(self.results))
        self.assertEqual(text, again)

    def test_one_run(self) -> None:
        """Cells of another run leave their rows blank, and are named."""
        write_cell(self.results, self.call, "nginx", [6.0])
        write_cell(self.results, self.call, "portcullis", [10.0])
        write_cell(self.results, self.tls, "portcullis", [4.0], run="yesterday")
        sources = self.model.Sources(self.results)
        text = self.model.computed(TEXT, sources)
        self.assertIn("| one | `2*pair` | 12.0 | 10.0 | +20% |", text)
        self.assertIn("| two | `2*loop` | 5.0 | no figure |  |", text)
        self.assertEqual(sources.others, ["results: tls_down/portcullis cost"])
        self.assertEqual(self.model.check(text, text, sources), 0)

    def test_a_hole_fails_the_check(self) -> None:
        """A cell is there and its figure is not: the sum would be blank without cause."""
        write_cell(self.results, self.call, "portcullis", [10.0])
        broken = TEXT.replace("call_300/portcullis cost", "call_300/portcullis user")
        sources = self.model.Sources(self.results)
        text = self.model.computed(broken, sources)
        self.assertEqual(self.model.check(text, text, sources), 1)
        self.assertEqual(self.model.check("", text, self.model.Sources(self.results)), 1)
        with self.assertRaises(SystemExit):
            self.model.computed(TEXT.replace("tls_down", "tls_dawn"), sources)


if __name__ == "__main__":
    unittest.main()

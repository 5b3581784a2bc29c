"""What others took of our CPUs, and what the kernel counted, out of texts and made-up figures."""

from __future__ import annotations

import unittest

import special
from machine import Instant, noise, quiet_rounds

SECOND = 1_000_000_000


class Noise(unittest.TestCase):
    """Two CPUs over one second each time."""

    def test_what_is_neither_idle_nor_ours(self) -> None:
        """The rest is foreign; what is ours is not."""
        begin = Instant(0, 0, 0, 0)
        calm = noise(begin, Instant(SECOND, SECOND, 0, SECOND), 2)
        self.assertEqual(calm, {"steal_percent": 0.0, "foreign_percent": 0.0, "noisy": False})
        other = noise(begin, Instant(SECOND, SECOND, 0, SECOND * 9 // 10), 2)
        self.assertEqual(other["foreign_percent"], 5.0)
        self.assertTrue(other["noisy"])
        host = noise(begin, Instant(SECOND, 0, SECOND // 10, 2 * SECOND), 2)
        self.assertEqual((host["steal_percent"], host["foreign_percent"]), (5.0, 0.0))
        self.assertTrue(host["noisy"])
        self.assertEqual(noise(None, begin, 2), {})

    def test_a_quarter_may_be_noisy(self) -> None:
        """Not more; and without any watch the run's own word stands."""
        rounds = [{"machine": {"noisy": number < 1}} for number in range(4)]
        self.assertTrue(quiet_rounds(rounds, False))
        rounds[1]["machine"]["noisy"] = True
        self.assertFalse(quiet_rounds(rounds, True))
        self.assertTrue(quiet_rounds([{}], True))
        self.assertFalse(quiet_rounds([{"machine": {}}], False))

    def test_instants(self) -> None:
        """Here and now there is something to be read."""
        begin = Instant.of((0,), [])
        assert begin is not None
        self.assertIsNone(Instant.of((1 << 20,), []))


class Counted(unittest.TestCase):
    """What `perf stat -x,` writes."""

    def test_enters(self) -> None:
        """A figure, or none where the event cannot be had."""
        line = f"# started on\n\n{{}},,{special.ENTER_EVENT},100,100.00,,\n"
        self.assertEqual(special.parse_perf(line.format(8227)), 8227)
        self.assertIsNone(special.parse_perf(line.format("<not counted>")))
        self.assertIsNone(special.parse_perf(""))


if __name__ == "__main__":
    unittest.main()

"""What an experiment of the evaluation is: something measured, a finding computed from it, and a figure drawn of it.

The three are apart so that a finding and a figure are made anew from numbers that are already on disk, and so that no
sentence can be written before its number is there.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

from aipaging.adapters.terminal.output import note
from aipaging.core.foundation.errors import UnavailableError

Measured: TypeAlias = dict[str, Any]
"""Plain values: what a result file holds."""

QUICK: Final = 1.0
FULL: Final = 10.0
"""How much more `--full` simulates than `--quick`: intervals are three times narrower."""

WIDE_FROM: Final = 1.0
"""Scales below (tests) visit the ends of a sweep only."""


class NotRunError(UnavailableError):
    """The machine lacks what the experiment needs; the report says so, and nothing is confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How an experiment is run.

    Attributes:
        scale: How much is simulated and measured: `QUICK`, `FULL`, or less in tests.
        seed: Of everything random.
        folder: Where finished parts of this experiment are kept, so that a killed run goes on.
        work: An empty folder for what is needed meanwhile.
    """

    scale: float
    seed: int
    folder: Path
    work: Path

    def packets(self, quick: int) -> int:
        """Return a number of packets for this scale."""
        return max(2_000, round(quick * self.scale))

    def seed_of(self, key: str) -> int:
        """Return the seed of one point: what chance does to one point of a curve, it shall not do to all of them."""
        return int.from_bytes(sha256(f"{self.seed} {key}".encode()).digest()[:6])

    def count(self, quick: int, full: int, least: int = 1) -> int:
        """Return a number of repetitions: that of quick, that of full, or fewer in tests."""
        if self.scale >= FULL:
            return full
        return max(least, round(quick * min(1.0, self.scale)))

    def points(self, quick: tuple[float, ...], full: tuple[float, ...] = ()) -> tuple[float, ...]:
        """Return the points of a sweep."""
        if self.scale < WIDE_FROM:
            return (quick[0], quick[-1])
        return full if full and self.scale >= FULL else quick

    def part(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return a part of the measurement, from the run that was killed if it had got so far.

        Args:
            key: Its name within the experiment; it may be part of a file's name.
            compute: Returns plain values.
        """
        file = self.folder / f"{key}.json"
        if file.exists():
            return json.loads(file.read_text())
        note(f"  {key} …")
        found = compute()
        write_whole(file, found)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the numbers say.

    Attributes:
        sentence: What the figure shows, and by how much.
        confirmed: Whether the claim holds in these numbers.
        numbers: Those that the sentence rests on.
    """

    sentence: str
    confirmed: bool
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment.

    Attributes:
        name: Such as `TRE1`.
        title: In a few words.
        claim: What is claimed.
        method: How it is measured, in a few sentences.
        measure: Measures; the result is plain values.
        conclude: Says what the numbers say.
        draw: Draws them on a figure of matplotlib.
        height: Of the figure, inches.
        revision: Raised whenever something else is measured: results of before are not taken for it.
    """

    name: str
    title: str
    claim: str
    method: str
    measure: Callable[[Setting], Measured]
    conclude: Callable[[Measured], Finding]
    draw: Callable[[Any, Measured], None]
    height: float = 3.9
    revision: int = 1


def write_whole(file: Path, document: Any) -> None:
    """Write JSON so that the file is whole or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(file)

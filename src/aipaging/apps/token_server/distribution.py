"""Distributions of a time or a count, as they are written on the command line.

`20`, `constant(20)`, `exponential(mean=20)`, `lognormal(median=200, sigma=0.6)`, `gamma(shape=2, scale=10)`,
`empirical(FILE)` with one number per line, `empirical(FILE:COLUMN)` for a column of a CSV file; either may be
gzipped (`.gz`).
"""

import csv
import gzip
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, Protocol, TextIO

from aipaging.core.foundation.errors import InvalidInputError

DRAW_MAX: Final = 600_000.0
"""Ten minutes in ms: heavy tails are cut there, because no client waits longer."""

SAMPLES_MAX: Final = 1_000_000
"""Numbers of one empirical file: 8 MB, and far more than a tail that a run can show."""

_CALL: Final = re.compile(r"\s*([a-z]+)\s*\(\s*(.*?)\s*\)\s*", re.DOTALL)
_FORMS: Final = (
    "20, constant(20), exponential(mean=20), lognormal(median=200, sigma=0.6), gamma(shape=2, scale=10), "
    "empirical(FILE) or empirical(FILE:COLUMN)"
)


class Distribution(Protocol):
    """Something that can be drawn from."""

    def draw(self, dice: Random) -> float:
        """Return one draw, not negative and at most `DRAW_MAX`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """Always the same.

    Attributes:
        value: That.
    """

    value: float

    def draw(self, dice: Random) -> float:  # noqa: ARG002  the port's signature
        """Return the value."""
        return min(self.value, DRAW_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exponential:
    """Memoryless.

    Attributes:
        mean: Its mean.
    """

    mean: float

    def draw(self, dice: Random) -> float:
        """Return one draw."""
        return min(dice.expovariate(1.0) * self.mean, DRAW_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lognormal:
    """Skewed, as times to the first token are.

    Attributes:
        median: exp(mu).
        sigma: Standard deviation of the logarithm.
    """

    median: float
    sigma: float

    def draw(self, dice: Random) -> float:
        """Return one draw."""
        exponent = min(dice.gauss(0.0, self.sigma), math.log(DRAW_MAX))
        return min(self.median * math.exp(exponent), DRAW_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gamma:
    """Sums of exponential stages.

    Attributes:
        shape: Referred to as k.
        scale: Referred to as theta; the mean is k * theta.
    """

    shape: float
    scale: float

    def draw(self, dice: Random) -> float:
        """Return one draw."""
        return min(dice.gammavariate(self.shape, self.scale), DRAW_MAX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Empirical:
    """What was measured, drawn with replacement.

    Attributes:
        samples: The measurements.
    """

    samples: Sequence[float]

    def draw(self, dice: Random) -> float:
        """Return one of the samples."""
        return min(self.samples[dice.randrange(len(self.samples))], DRAW_MAX)


def parsed_distribution(text: str, *, field: str) -> Distribution:
    """Return the distribution that `text` describes.

    Raises:
        InvalidInputError: It describes none, or its file cannot be read.
    """
    try:
        return Constant(value=_number(text))
    except ValueError:
        pass
    call = _CALL.fullmatch(text)
    if call is None:
        raise _malformed(text, field)
    name, inside = call.groups()
    if name == "empirical":
        return Empirical(samples=_samples(inside, field))
    names, make = _FAMILIES.get(name, ((), None))
    if make is None:
        raise _malformed(text, field)
    try:
        given = arguments(inside, names)
        if any(given[parameter] <= 0 for parameter in _POSITIVE & given.keys()):
            raise _malformed(text, field)
        return make(given)
    except ValueError:
        raise _malformed(text, field) from None


def opened(path: Path) -> TextIO:
    """Return a text file, or what a `.gz` file holds, open for reading."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", newline="", encoding="utf-8")
    return path.open(newline="", encoding="utf-8")


def arguments(inside: str, names: Sequence[str]) -> dict[str, float]:
    """Return the numbers between the parentheses of a call, by position or by name.

    Raises:
        ValueError: One is missing, unknown, given twice or not a finite number that is not negative.
    """
    given: dict[str, float] = {}
    for position, part in enumerate(part for part in inside.split(",") if part.strip()):
        name, equals, value = part.partition("=")
        name = name.strip() if equals else names[position] if position < len(names) else ""
        if name not in names or name in given:
            raise ValueError(part)
        given[name] = _number(value if equals else part)
    if len(given) != len(names):
        raise ValueError(inside)
    return given


_FAMILIES: Final[Mapping[str, tuple[tuple[str, ...], Callable[[Mapping[str, float]], Distribution]]]] = {
    "constant": (("value",), lambda given: Constant(value=given["value"])),
    "exponential": (("mean",), lambda given: Exponential(mean=given["mean"])),
    "lognormal": (("median", "sigma"), lambda given: Lognormal(median=given["median"], sigma=given["sigma"])),
    "gamma": (("shape", "scale"), lambda given: Gamma(shape=given["shape"], scale=given["scale"])),
}

_POSITIVE: Final = frozenset({"shape", "scale", "median", "mean"})


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or value < 0:
        raise ValueError(text)
    return value


def _samples(where: str, field: str) -> list[float]:
    path, _, column = where.partition(":")
    samples: list[float] = []
    try:
        with opened(Path(path)) as file:
            rows = (row[column] for row in csv.DictReader(file)) if column else (line for line in file if line.strip())
            for row in rows:
                samples.append(_number(row))
                if len(samples) == SAMPLES_MAX:
                    break
    except (OSError, EOFError) as error:
        raise InvalidInputError(f"{field}: {path} cannot be read: {error}", field=field) from None
    except (KeyError, TypeError):
        raise InvalidInputError(f"{field}: {path} has no complete column {column}", field=field) from None
    except ValueError:
        raise InvalidInputError(
            f"{field}: {path}: sample {len(samples) + 1} is not a number that is not negative", field=field
        ) from None
    if not samples:
        raise InvalidInputError(f"{field}: {path} holds no samples", field=field)
    return samples


def _malformed(text: str, field: str) -> InvalidInputError:
    return InvalidInputError(
        f"{field} is {text[:80]!r}: expected {_FORMS}; numbers are finite and not negative, means, medians, shapes and "
        "scales above zero",
        field=field,
    )

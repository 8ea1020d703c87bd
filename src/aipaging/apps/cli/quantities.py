"""Quantities as people write them on a command line: with their units."""

import re
from decimal import Decimal
from typing import Any, Final

import click

from aipaging.core.foundation.errors import InvalidInputError

MS_OF_UNIT: Final = {
    "us": Decimal("0.001"),
    "ms": Decimal(1),
    "s": Decimal(1000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
    "d": Decimal(86_400_000),
}

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.ASCII)
_PERCENTILE: Final = re.compile(r"[pP]?(\d{1,2}(?:\.\d+)?)%?", re.ASCII)


class Duration(click.ParamType[float]):
    """A length of time with its unit; the value is in milliseconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return milliseconds."""
        if isinstance(value, float):
            return value
        found = _DURATION.fullmatch(str(value))
        if not found or found[2] not in MS_OF_UNIT:
            self.fail(f"{value!r}: a number with a unit is expected, such as 250ms, 1.5s, 10m, 2h", param, ctx)
        return float(Decimal(found[1]) * MS_OF_UNIT[found[2]])


class Percentile(click.ParamType[float]):
    """The percentile that must meet the target; the value is epsilon, what may miss it."""

    name = "percentile"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return epsilon, exactly: p99.9 is 0.001."""
        if isinstance(value, float):
            return value
        found = _PERCENTILE.fullmatch(str(value))
        if not found or not Decimal(found[1]) >= 50:
            self.fail(f"{value!r}: a percentile from p50 on is expected, such as p99 or p99.9", param, ctx)
        return float((100 - Decimal(found[1])) / 100)


def said_ms(value: float) -> str:
    """Return milliseconds as people say them."""
    for unit, least in (("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if value >= least and value % least == 0:
            return f"{value / least:g} {unit}"
    return f"{value:.4g} ms"


def said_probability(value: float) -> str:
    """Return a probability with two digits, rounded up: what is shown still holds."""
    if value <= 0:
        return "0"
    if value >= 1:
        return "1"
    written = Decimal(repr(value))  # 1e-05 itself is a hair above 0.00001, and nobody wants to read that
    exponent = written.adjusted() - 1
    rounded = written.quantize(Decimal((0, (1,), exponent)), rounding="ROUND_CEILING")
    return f"{rounded:.1e}" if rounded < Decimal("0.001") else f"{rounded.normalize():f}"


def whole_seconds(duration_ms: float) -> int:
    """Return a duration in whole seconds.

    Raises:
        InvalidInputError: It has a fraction of a second.
    """
    if duration_ms % 1000:
        raise InvalidInputError(f"{said_ms(duration_ms)} is not a whole number of seconds", field="duration")
    return int(duration_ms) // 1000

"""Decimals of signed documents, and the floating-point numbers beside them, rounded to the side that is asked for.

A decimal in a document is exact; a double is not. Who computes with it rounds so that the promise gets weaker,
never stronger: offsets and probabilities up, decay rates and guardrails down.
"""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final

DECIMAL_PATTERN: Final = r"^(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?(e-?[1-9][0-9]?)?$(?!\n)"
"""No sign, no leading zero, at most two digits of exponent: nothing that takes long to read."""

DECIMAL_CHARS_MAX: Final = 40
"""What the grammar allows, rounded up: 15 digits, a point, 17 digits, an exponent."""

SIGNIFICANT_DIGITS: Final = 12
"""Digits of the decimals that are written: below what a measurement is worth, above what rounding costs."""


def at_least(decimal: str) -> float:
    """Return the least double that is not below the decimal."""
    nearest = float(decimal)
    return math.nextafter(nearest, math.inf) if Decimal(nearest) < Decimal(decimal) else nearest


def at_most(decimal: str) -> float:
    """Return the greatest double that is not above the decimal."""
    nearest = float(decimal)
    return math.nextafter(nearest, 0.0) if Decimal(nearest) > Decimal(decimal) else nearest


def decimal_up(number: float) -> str:
    """Return the number as a decimal of few digits, rounded up."""
    return _written(number, ROUND_CEILING)


def decimal_down(number: float) -> str:
    """Return the number as a decimal of few digits, rounded down."""
    return _written(number, ROUND_FLOOR)


def thousandths_down(decimal: str) -> int:
    """Return how many whole thousandths the decimal holds."""
    return int(Decimal(decimal) * 1000)


def _written(number: float, rounding: str) -> str:
    rounded = Context(prec=SIGNIFICANT_DIGITS, rounding=rounding).create_decimal(Decimal(number)).normalize()
    if not rounded:
        return "0"
    exponent = rounded.adjusted()
    if -5 <= exponent <= SIGNIFICANT_DIGITS:
        return f"{rounded:f}"
    digits = "".join(map(str, rounded.as_tuple().digits))
    mantissa = digits[0] + (f".{digits[1:]}" if len(digits) > 1 else "")
    return f"{mantissa}e{exponent}"

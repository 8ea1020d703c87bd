"""Numbers as people write them: digits with separators, multipliers, and English words, exactly."""

import re
from decimal import Decimal
from types import MappingProxyType
from typing import Final

_UNITS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS: Final = (
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
)  # fmt: skip

WORDS: Final = MappingProxyType(
    {word: Decimal(value) for value, word in enumerate(_UNITS)}
    | {word: Decimal(10 * value) for value, word in enumerate(_TENS, start=2)}
    | {"a": Decimal(1), "an": Decimal(1), "half": Decimal("0.5"), "quarter": Decimal("0.25"), "dozen": Decimal(12)}
)
MULTIPLIERS: Final = MappingProxyType(
    {"hundred": Decimal(100), "thousand": Decimal(1000), "k": Decimal(1000), "million": Decimal(1_000_000)}
)

_MORE_WORDS: Final = 9
"""Nine hundred and ninety-nine thousand nine hundred and ninety-nine has ten; more would be tried without end."""

_WORD: Final = "|".join(sorted((*WORDS, *(m for m in MULTIPLIERS if m != "k")), key=len, reverse=True))
DIGITS: Final = (
    r"(?<![\w.,+-])(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d+(?:[.,]\d+)?|\.\d+)(?![.,]?\d)"
    r"(?:\s?(?:k|thousand|million)\b)?"
)
SPELLED: Final = rf"\b(?:{_WORD})(?:(?:\s|-|\sand\s|\sof\s)(?:{_WORD})){{0,{_MORE_WORDS}}}\b"
NUMBER: Final = rf"(?:{DIGITS}|{SPELLED})"
"""Matches one number in lower-case text; `value_of` says which."""

AMBIGUOUS: Final = re.compile(r"(?<![\w.,+-])[1-9]\d{0,2}(?:\.\d{3})+(?![.,]?\d)")
"""1.000 is one here and a thousand elsewhere: nobody guesses which was meant."""

_THOUSANDS: Final = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_DIGITS: Final = re.compile(r"(?P<digits>[\d.,]+)\s?(?P<times>k|thousand|million)?")


def value_of(text: str) -> Decimal:
    """Return the number that a match of `NUMBER` writes.

    A comma before exactly three digits separates thousands; any other comma is a decimal one: 1,200 and 99,9 and 0,250.
    """
    found = _DIGITS.fullmatch(text)
    if found is None:
        return _spelled(text)
    digits = found["digits"]
    plain = digits.replace(",", "") if _THOUSANDS.fullmatch(digits) else digits.replace(",", ".")
    return Decimal(plain) * (MULTIPLIERS[found["times"]] if found["times"] else 1)


def _spelled(text: str) -> Decimal:
    """Return the value of words such as `two hundred and fifty` or `a quarter of a`."""
    total = current = Decimal(0)
    words = re.split(r"[\s-]+", text)
    if words[-1] in {"half", "quarter"} and "and" in words:
        # Two and a half, not two times a half.
        return _spelled(" ".join(words[: len(words) - words[::-1].index("and") - 1])) + WORDS[words[-1]]
    for word in words:
        if word in MULTIPLIERS:
            times = MULTIPLIERS[word]
            current = (current or Decimal(1)) * times
            if times >= 1000:
                total, current = total + current, Decimal(0)
        elif word in {"half", "quarter", "dozen"}:
            current = WORDS[word] * (current or Decimal(1))
        elif word in {"a", "an"}:
            current = current or Decimal(1)
        elif word in WORDS:
            current += WORDS[word]
    return total + current

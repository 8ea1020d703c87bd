"""Verdicts on many intervals at once: of a hundred that hold with 95 % each, some miss their truth."""

from collections.abc import Mapping
from typing import Final

from scipy.stats import norm

CONFIDENCE: Final = 0.95


def wider(count: int) -> float:
    """Return by how much each 95 % interval has to be wider, that all of so many hold together (Bonferroni).

    One side of each counts: whether a bound is below it.
    """
    return float(norm.isf((1.0 - CONFIDENCE) / count) / norm.isf((1.0 - CONFIDENCE) / 2.0))


def least(estimate: Mapping[str, float], factor: float) -> float:
    """Return the lower end of an interval that is so much wider."""
    return estimate["value"] - (estimate["value"] - estimate["low"]) * factor

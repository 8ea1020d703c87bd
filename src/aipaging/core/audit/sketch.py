"""A mergeable histogram of delays on the scale 8 of OpenTelemetry's exponential histograms, with exact counters.

Bucket i holds the delays in (base**i, base**(i+1)], base = 2**(1/256): a value read back is wrong by 0.136 % at most
(`RELATIVE_ERROR`), whatever the distribution. The buckets are those of OTLP at scale 8 and of Prometheus native
histograms at schema 8, so both are copies, not conversions. Verdicts do not trust buckets: every contracted delay has
its own exact counter. Merging adds.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.audit.special import Floats
from aipaging.core.audit.telemetry import DELAY_US_MAX, Integers
from aipaging.core.foundation.errors import InvalidInputError

SCALE: Final = 8
"""The finest scale that Prometheus native histograms know, too."""

PER_OCTAVE: Final = 2**SCALE

RELATIVE_ERROR: Final = (2 ** (1 / PER_OCTAVE) - 1) / (2 ** (1 / PER_OCTAVE) + 1)
"""Of the harmonic middle of a bucket against any delay in it."""

BUCKETS: Final = math.ceil(math.log2(DELAY_US_MAX)) * PER_OCTAVE + 1
"""From one microsecond (bucket -1, shifted to 0) to the greatest believable delay."""

TABLE_US_MAX: Final = 1 << 20
"""Delays below a second are looked up: four times as fast as a logarithm."""


def bucket_of(delay_us: NDArray[Any]) -> Integers:
    """Return the OTLP index of the bucket of each positive delay, in microseconds."""
    return np.asarray(np.ceil(np.log2(delay_us) * PER_OCTAVE), dtype=np.int64) - 1


def upper_edge_us(bucket: NDArray[Any]) -> Floats:
    """Return the greatest delay of each bucket, by its OTLP index."""
    return np.asarray(np.exp2((np.asarray(bucket) + 1) / PER_OCTAVE), dtype=np.float64)


def _table() -> NDArray[np.uint16]:
    table = np.zeros(TABLE_US_MAX, dtype=np.uint16)
    table[1:] = bucket_of(np.arange(1, TABLE_US_MAX)) + 1
    return table


@dataclass(slots=True)
class _Lookup:
    """The table, made when the first delay is inserted."""

    table: NDArray[np.uint16] | None = None

    def positions(self, delay_us: Integers) -> NDArray[Any]:
        if self.table is None:
            self.table = _table()
        if delay_us.size and delay_us.max() < TABLE_US_MAX:
            return self.table.take(delay_us)
        return np.asarray(bucket_of(np.maximum(delay_us, 1)) + 1, dtype=np.int64)


_LOOKUP: Final = _Lookup()


class DelaySketch:
    """Counts of delays by window and bucket; one window where windows do not matter.

    Attributes:
        counts: Requests by window (row) and bucket (column; column j is the OTLP index j - 1). Delays of nought are
            counted with those of one microsecond at the low end: `zeros` says how many they are.
        infinite: Requests by window that never got an answer: later than every delay.
        zeros: Delays of nought, OTLP's zero count.
        total_us: Sum of all delays.
        above: Exact numbers of delays above each contracted delay.
    """

    def __init__(self, thresholds_us: Iterable[int] = (), *, windows: int = 1) -> None:
        self.counts: NDArray[np.int64] = np.zeros((windows, BUCKETS), dtype=np.int64)
        self.infinite: Integers = np.zeros(windows, dtype=np.int64)
        self.zeros = 0
        self.total_us = 0
        self.above: dict[int, int] = dict.fromkeys(thresholds_us, 0)

    def insert(self, delay_us: Integers, window: NDArray[np.int64] | None = None) -> None:
        """Count delays, all between 0 and `DELAY_US_MAX`.

        Args:
            delay_us: The delays.
            window: The window of each, None for the first.
        """
        if not delay_us.size:
            return
        positions = _LOOKUP.positions(delay_us)
        if window is None:
            self.counts[0] += np.bincount(positions, minlength=BUCKETS)
        else:
            flat = window * BUCKETS
            flat += positions
            self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)
        self.zeros += int(np.count_nonzero(delay_us == 0))
        self.total_us += int(delay_us.sum())
        for threshold in self.above:
            self.above[threshold] += int(np.count_nonzero(delay_us > threshold))

    def merge(self, other: "DelaySketch") -> None:
        """Add what another sketch of the same form counted.

        Raises:
            InvalidInputError: It has other windows or other contracted delays.
        """
        if self.counts.shape != other.counts.shape or self.above.keys() != other.above.keys():
            raise InvalidInputError("sketches merge when they have the same windows and the same contracted delays")
        self.counts += other.counts
        self.infinite += other.infinite
        self.zeros += other.zeros
        self.total_us += other.total_us
        for threshold, count in other.above.items():
            self.above[threshold] += count

    @property
    def answered(self) -> int:
        """How many delays were inserted."""
        return int(self.counts.sum())

    @property
    def requests(self) -> int:
        """Delays and requests without an answer."""
        return self.answered + int(self.infinite.sum())

    def at_rank_us(self, rank: int) -> tuple[float, float]:
        """Return an interval that holds the delay of a rank, from 1; unanswered requests are later than all."""
        cumulative = np.cumsum(self.counts.sum(axis=0))
        if rank > cumulative[-1]:
            return math.inf, math.inf
        position = int(np.searchsorted(cumulative, max(rank, 1)))
        upper = float(upper_edge_us(np.asarray(position - 1)))
        return (0.0 if position == 0 else upper * 2 ** (-1 / PER_OCTAVE)), upper

    def exponential_histogram(self) -> Mapping[str, Any]:
        """Return the data point of an OTLP exponential histogram, or of a Prometheus native one at schema 8."""
        merged = self.counts.sum(axis=0)
        merged[0] -= self.zeros
        used = np.flatnonzero(merged)
        first, last = (int(used[0]), int(used[-1])) if used.size else (0, -1)
        counts: Sequence[int] = [int(count) for count in merged[first : last + 1]]
        return {
            "scale": SCALE,
            "count": self.answered,
            "sum": self.total_us,
            "zero_count": self.zeros,
            "positive": {"offset": first - 1, "bucket_counts": counts},
        }

"""Histograms of other collectors: what they say for certain about a contracted delay, and what only perhaps.

A bucket that holds the contracted delay inside it may lie on either side: it widens the counts. An exponential
histogram is kept as it came (scale, offset, counts, unit), so it goes out again without loss; only a scale that the
other side does not know is halved, which loses nothing but resolution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from aipaging.core.audit.continuous import Counts
from aipaging.core.audit.contract import Contract
from aipaging.core.audit.sketch import BUCKETS, SCALE, DelaySketch
from aipaging.core.audit.special import Floats
from aipaging.core.foundation.errors import InvalidInputError

SCALES: Final = range(-10, 21)
"""What OpenTelemetry's data model recommends to support."""

BUCKETS_MAX: Final = 100_000
"""Of one histogram: three decades at the finest scale that anybody exports (160 is the default of the SDKs)."""

COUNT_MAX: Final = 2**53
"""Requests of one histogram: above it, JSON does not hold counts exactly."""

EDGE_TOLERANCE: Final = 1e-12
"""Relative, of the edge of a bucket as a float: an edge this close to the contracted delay is on both sides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExponentialHistogram:
    """Counts by powers of base = 2**(2**-scale): bucket i holds the values in (base**i, base**(i+1)].

    Attributes:
        scale: OTLP's scale, Prometheus' schema.
        unit_us: Microseconds of one unit of the values: 1e6 where they are seconds.
        count: Requests, those in no bucket included.
        total: Sum of the values, None where it is not known.
        zero_count: Values up to the zero threshold.
        zero_threshold: In units.
        offset: Index of the first bucket.
        counts: Requests by bucket.
    """

    scale: int
    unit_us: float
    count: int
    total: float | None = None
    zero_count: int = 0
    zero_threshold: float = 0.0
    offset: int = 0
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise InvalidInputError(f"scale {self.scale}; {SCALES[0]} to {SCALES[-1]} are known", field="scale")
        if len(self.counts) > BUCKETS_MAX or min((*self.counts, self.zero_count), default=0) < 0:
            raise InvalidInputError(f"counts are not negative, of at most {BUCKETS_MAX} buckets", field="bucketCounts")
        if not sum(self.counts) + self.zero_count <= self.count <= COUNT_MAX:
            raise InvalidInputError("count is less than its buckets hold, or absurd", field="count")
        if not (math.isfinite(self.unit_us) and self.unit_us > 0):
            raise InvalidInputError("a unit has a positive length", field="unit")
        if not (math.isfinite(self.zero_threshold) and self.zero_threshold >= 0):
            raise InvalidInputError("the zero threshold is a number, not negative", field="zeroThreshold")

    def counts_above(self, contract: Contract) -> Counts:
        """Return the exceedances of a contract; what is in no bucket may be anywhere."""
        edges = self._edges_us()
        counts = np.asarray(self.counts, dtype=np.int64)
        lower, upper = edges[:-1] * (1 - EDGE_TOLERANCE), edges[1:] * (1 + EDGE_TOLERANCE)
        surely_us, perhaps_us = contract.delay_us + contract.clock_error_us, contract.delay_us - contract.clock_error_us
        stray = self.count - int(counts.sum()) - self.zero_count
        if self.zero_threshold * self.unit_us > perhaps_us:
            stray += self.zero_count
        certain = int(counts[lower >= surely_us].sum())
        possible = int(counts[upper > perhaps_us].sum())
        return Counts(requests=self.count, certain=certain, possible=min(self.count, possible + stray))

    def downscaled(self, scale: int) -> "ExponentialHistogram":
        """Return the histogram with coarser buckets: each halving of the scale joins two.

        Raises:
            InvalidInputError: The scale is finer than this one.
        """
        if scale > self.scale:
            raise InvalidInputError(f"scale {self.scale} cannot be made {scale}: that is finer", field="scale")
        steps = self.scale - scale
        if not steps or not self.counts:
            return replace(self, scale=scale)
        first = self.offset >> steps
        places = (np.arange(self.offset, self.offset + len(self.counts)) >> steps) - first
        joined = np.zeros(int(places[-1]) + 1, dtype=np.int64)
        np.add.at(joined, places, np.asarray(self.counts, dtype=np.int64))
        return replace(self, scale=scale, offset=first, counts=tuple(joined.tolist()))

    def merged(self, other: "ExponentialHistogram") -> "ExponentialHistogram":
        """Return both together, at the coarser of their scales.

        Raises:
            InvalidInputError: They have different units or zero thresholds.
        """
        if (self.unit_us, self.zero_threshold) != (other.unit_us, other.zero_threshold):
            raise InvalidInputError("histograms merge when they have the same unit and zero threshold", field="unit")
        scale = min(self.scale, other.scale)
        parts = [one.downscaled(scale) for one in (self, other)]
        used = [part for part in parts if part.counts]
        first = min((part.offset for part in used), default=0)
        joined = np.zeros(max((part.offset + len(part.counts) for part in used), default=first) - first, dtype=np.int64)
        for part in used:
            joined[part.offset - first : part.offset - first + len(part.counts)] += np.asarray(part.counts)
        return replace(
            parts[0],
            count=self.count + other.count,
            total=None if self.total is None or other.total is None else self.total + other.total,
            zero_count=self.zero_count + other.zero_count,
            offset=first,
            counts=tuple(joined.tolist()),
        )

    def sketch(self) -> DelaySketch:
        """Return the same counts as a sketch.

        Raises:
            InvalidInputError: Unit, scale or range are not a sketch's, or not all requests are in a bucket.
        """
        first, last = self.offset + 1, self.offset + 1 + len(self.counts)
        fits = (self.scale, self.unit_us, self.zero_threshold) == (SCALE, 1.0, 0.0) and first >= 0 and last <= BUCKETS
        if not fits or sum(self.counts) + self.zero_count != self.count or self.total is None:
            raise InvalidInputError(f"a sketch counts microseconds, all of them, at scale {SCALE}", field="scale")
        sketch = DelaySketch()
        sketch.counts[0, first:last] += np.asarray(self.counts, dtype=np.int64)
        sketch.counts[0, 0] += self.zero_count
        sketch.zeros = self.zero_count
        sketch.total_us = int(self.total)
        return sketch

    def _edges_us(self) -> Floats:
        indices = np.arange(self.offset, self.offset + len(self.counts) + 1, dtype=np.float64)
        with np.errstate(over="ignore"):
            return np.asarray(np.exp2(indices * 2.0**-self.scale) * self.unit_us, dtype=np.float64)


def exponential_histogram(sketch: DelaySketch) -> ExponentialHistogram:
    """Return a sketch as a histogram of microseconds; requests without an answer are in no bucket."""
    point = sketch.exponential_histogram()
    return ExponentialHistogram(
        scale=SCALE,
        unit_us=1.0,
        count=sketch.requests,
        total=float(sketch.total_us),
        zero_count=sketch.zeros,
        offset=int(point["positive"]["offset"]),
        counts=tuple(point["positive"]["bucket_counts"]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplicitHistogram:
    """Counts between given bounds: bucket i holds the values in (bounds[i-1], bounds[i]], the last all above.

    Attributes:
        unit_us: Microseconds of one unit of the values.
        bounds: Ascending.
        counts: Requests by bucket, one more than bounds.
    """

    unit_us: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(math.isfinite(bound) for bound in self.bounds) and _ascends(self.bounds)
        if len(self.counts) != len(self.bounds) + 1 or not ascending:
            raise InvalidInputError("bounds ascend, and there is one bucket more than bounds", field="bounds")
        if min(self.counts) < 0 or sum(self.counts) > COUNT_MAX:
            raise InvalidInputError("counts are not negative, and not absurd", field="bucketCounts")

    def counts_above(self, contract: Contract) -> Counts:
        """Return the exceedances of a contract: exact where it has a bound, within a bucket otherwise."""
        surely_us, perhaps_us = contract.delay_us + contract.clock_error_us, contract.delay_us - contract.clock_error_us
        edges = [bound * self.unit_us for bound in self.bounds]
        lower, upper = [-math.inf, *edges], [*edges, math.inf]
        # Bounds are decimals that mean what they say: one that is the contracted delay but for its float is it.
        certain = sum(n for n, low in zip(self.counts, lower, strict=True) if low * (1 + EDGE_TOLERANCE) >= surely_us)
        possible = sum(
            n for n, high in zip(self.counts, upper, strict=True) if high * (1 - EDGE_TOLERANCE) > perhaps_us
        )
        return Counts(requests=sum(self.counts), certain=certain, possible=possible)


def _ascends(values: Sequence[float]) -> bool:
    return all(one < other for one, other in pairwise(values))

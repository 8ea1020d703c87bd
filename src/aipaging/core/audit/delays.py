"""The delays that were seen since the start, by tenant and domain: sketches to be exported, and never judged by.

Cumulative and mergeable, on OTLP's scale 8. A tenant that pages everywhere takes its own room and nobody else's.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from aipaging.core.audit.histogram import ExponentialHistogram, exponential_histogram
from aipaging.core.audit.sketch import DelaySketch

SERIES_MAX: Final = 512
"""Sketches at 75 kB: 38 MB."""

SERIES_PER_TENANT_MAX: Final = 64
"""Of those, a tenant's: a path has a dozen domains, and its failures are of four kinds."""


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """What names one histogram.

    Attributes:
        tenant: Whose requests.
        domain: Where, or `end-to-end`, or `remainder`.
        error: How they failed, "" where they were answered.
    """

    tenant: str
    domain: str
    error: str = ""


class DelayBook:
    """Sketches by series.

    Attributes:
        left_out: Delays for which there was no room.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._sketches: dict[Series, DelaySketch] = {}
        self._of_tenant: Counter[str] = Counter()

    def add(self, delays_us: Mapping[Series, Sequence[int]]) -> None:
        """Count delays, none negative and none above `DELAY_US_MAX`."""
        for series, values in delays_us.items():
            sketch = self._sketch(series)
            if sketch is None:
                self.left_out += len(values)
            else:
                sketch.insert(np.asarray(values, dtype=np.int64))

    def histograms(self) -> list[tuple[Series, ExponentialHistogram]]:
        """Return every series, in order."""
        return [(series, exponential_histogram(self._sketches[series])) for series in sorted(self._sketches)]

    def _sketch(self, series: Series) -> DelaySketch | None:
        found = self._sketches.get(series)
        room = len(self._sketches) < SERIES_MAX and self._of_tenant[series.tenant] < SERIES_PER_TENANT_MAX
        if found is None and room:
            found = self._sketches[series] = DelaySketch()
            self._of_tenant[series.tenant] += 1
        return found

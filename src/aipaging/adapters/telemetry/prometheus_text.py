"""A scrape of Prometheus as histograms: classic buckets, and the composite values of native ones (OpenMetrics 2.0).

A scrape counts since its process started and does not say when that was. So its points have no time, and say nothing
for certain about a contract that has a period.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Final

from aipaging.adapters.telemetry.otlp import METRICS_BYTES_MAX, Point
from aipaging.adapters.telemetry.prometheus import from_openmetrics
from aipaging.adapters.telemetry.semantic_conventions import (
    CLIENT_OPERATION_DURATION,
    DOMAIN,
    DOMAIN_DURATION,
    ERROR_TYPE,
    SERVER_REQUEST_DURATION,
    TENANT,
)
from aipaging.core.audit.histogram import ExplicitHistogram, ExponentialHistogram
from aipaging.core.foundation.errors import InvalidInputError

UNITS: Final[Mapping[str, float]] = {"_microseconds": 1.0, "_milliseconds": 1e3, "_seconds": 1e6}
"""Suffixes of names, in microseconds."""

METRICS: Final = {
    name.replace(".", "_"): name for name in (DOMAIN_DURATION, SERVER_REQUEST_DURATION, CLIENT_OPERATION_DURATION)
}

LABELS: Final[Mapping[str, str]] = {
    "domain": DOMAIN, "aipaging_domain": DOMAIN, "tenant": TENANT, "aipaging_tenant": TENANT,
    "error": ERROR_TYPE, "error_type": ERROR_TYPE,
}  # fmt: skip
"""Ours at `/metrics`, and those of a collector that writes OTLP's attributes."""

_SAMPLE: Final = re.compile(
    r"([a-zA-Z_:][\w:]*)(?:\{((?:[^\"}]|\"(?:\\.|[^\"\\])*\")*)\})?\s+(\{.*\}|[^\s{]\S*)(?:\s+-?[\d.]+)?(?:\s+#.*)?\s*"
)
_LABEL: Final = re.compile(r"([a-zA-Z_]\w*)=\"((?:\\.|[^\"\\])*)\"")
_ESCAPES: Final = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}

Key = tuple[str, tuple[tuple[str, str], ...]]


def is_scrape(content: bytes) -> bool:
    """Return whether content is the text of a scrape, and no JSON."""
    return not content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"["))


def read_scrape(content: bytes) -> Iterator[Point]:
    """Yield the histograms of durations that the audit knows; other metrics are passed over.

    Raises:
        InvalidInputError: It is no exposition, or a histogram contradicts itself.
    """
    if len(content) > METRICS_BYTES_MAX:
        raise InvalidInputError(f"a scrape has at most {METRICS_BYTES_MAX} bytes", field="metrics")
    classic: defaultdict[Key, dict[float, int]] = defaultdict(dict)
    native: dict[Key, str] = {}
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _SAMPLE.fullmatch(line)
        if found is None:
            raise InvalidInputError(f"line {number} is no sample", code="METRICS_INVALID", field="metrics")
        _take(found[1], _labels(found[2] or ""), found[3], classic=classic, native=native)
    for (name, labels), value in native.items():
        metric, unit_us = _known(name)
        yield _point(metric, labels, from_openmetrics(value, unit_us=unit_us))
    for (name, labels), counts in classic.items():
        if (name, labels) not in native:
            metric, unit_us = _known(name)
            yield _point(metric, labels, _explicit(counts, unit_us))


def _take(
    name: str, labels: dict[str, str], value: str, *, classic: dict[Key, dict[float, int]], native: dict[Key, str]
) -> None:
    base = name.removesuffix("_bucket")
    if not _known(base)[0]:
        return
    if value.startswith("{"):
        native[base, tuple(sorted(labels.items()))] = value
    elif name != base and "le" in labels:
        edge = labels.pop("le")
        try:
            classic[base, tuple(sorted(labels.items()))][float(edge)] = int(float(value))
        except (ValueError, OverflowError) as error:
            raise InvalidInputError(f"a bucket of {base}: {error}", code="METRICS_INVALID", field="metrics") from error


def _known(name: str) -> tuple[str, float]:
    for suffix, unit_us in UNITS.items():
        if name.endswith(suffix):
            return METRICS.get(name.removesuffix(suffix), ""), unit_us
    return "", 1.0


def _labels(written: str) -> dict[str, str]:
    return {
        name: re.sub(r"\\.", lambda one: _ESCAPES.get(one[0], one[0]), value) for name, value in _LABEL.findall(written)
    }


def _explicit(counts: Mapping[float, int], unit_us: float) -> ExplicitHistogram:
    edges = sorted(counts)
    if not edges or edges[-1] != math.inf:
        raise InvalidInputError("a histogram has a bucket +Inf", code="METRICS_INVALID", field="metrics")
    cumulative = [0, *(counts[edge] for edge in edges)]
    each = tuple(after - before for before, after in pairwise(cumulative))
    return ExplicitHistogram(unit_us=unit_us, bounds=tuple(edges[:-1]), counts=each)


def _point(
    metric: str, labels: tuple[tuple[str, str], ...], histogram: ExplicitHistogram | ExponentialHistogram
) -> Point:
    attributes = {LABELS.get(name, name): value for name, value in labels if value}
    return Point(metric=metric, attributes=attributes, histogram=histogram, cumulative=True)

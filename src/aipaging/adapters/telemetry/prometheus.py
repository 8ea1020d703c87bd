"""Native histograms of Prometheus: the JSON of their protobuf, and the composite value of OpenMetrics 2.0, in and out.

Schemas -4 to 8 are OTLP's scales; a Prometheus bucket j ends at base**j where an OTLP bucket i ends at base**(i+1), so
j = i + 1. Finer scales are joined on the way out; nothing else is lost. Counts travel as spans of used buckets, in the
protobuf as differences.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aipaging.core.audit.histogram import BUCKETS_MAX, ExponentialHistogram
from aipaging.core.foundation.errors import InvalidInputError

SCHEMAS: Final = range(-4, 9)
"""The exponential ones; -53 is custom buckets, which have no powers."""

Span = tuple[int, int]
"""(buckets left out since the last span, buckets in this one)."""

_TEXT: Final = re.compile(r"(\w+):(\[[^\]]*\]|[^,\[\]{}]+)")


def to_native(histogram: ExponentialHistogram) -> dict[str, Any]:
    """Return the fields of `io.prometheus.client.Histogram`."""
    exported, spans, counts = _exported(histogram)
    before = [0, *counts][: len(counts)]
    return {
        "sampleCount": str(exported.count),
        "sampleSum": exported.total,
        "schema": exported.scale,
        "zeroThreshold": exported.zero_threshold,
        "zeroCount": str(exported.zero_count),
        "positiveSpan": [{"offset": offset, "length": length} for offset, length in spans],
        "positiveDelta": [str(count - last) for count, last in zip(counts, before, strict=True)],
    }


def from_native(fields: Mapping[str, Any], *, unit_us: float) -> ExponentialHistogram:
    """Return the histogram of such fields.

    Args:
        fields: With the names of the protobuf's JSON.
        unit_us: Microseconds of one unit of the values: Prometheus counts seconds by convention.

    Raises:
        InvalidInputError: It is no exponential histogram, or contradicts itself.
    """
    try:
        counts: list[int] = []
        for delta in map(int, fields.get("positiveDelta", ())):
            counts.append((counts[-1] if counts else 0) + delta)
        spans = [(int(span.get("offset", 0)), int(span["length"])) for span in fields.get("positiveSpan", ())]
        head = {
            "count": fields["sampleCount"], "sum": fields.get("sampleSum"), "schema": fields["schema"],
            "zero_threshold": fields.get("zeroThreshold", 0.0), "zero_count": fields.get("zeroCount", 0),
        }  # fmt: skip
        return _imported(head, spans, counts, unit_us)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _no_native(error) from error


def to_openmetrics(histogram: ExponentialHistogram) -> str:
    """Return the composite value of a sample in OpenMetrics 2.0."""
    exported, spans, counts = _exported(histogram)
    total = "NaN" if exported.total is None else repr(exported.total)
    return (
        f"{{count:{exported.count},sum:{total},schema:{exported.scale},zero_threshold:{exported.zero_threshold!r},"
        f"zero_count:{exported.zero_count},"
        f"positive_spans:[{','.join(f'{offset}:{length}' for offset, length in spans)}],"
        f"positive_buckets:[{','.join(map(str, counts))}]}}"
    )


def from_openmetrics(value: str, *, unit_us: float) -> ExponentialHistogram:
    """Return the histogram of a composite value.

    Raises:
        InvalidInputError: It is no exponential histogram, or contradicts itself.
    """
    fields: dict[str, str] = dict(_TEXT.findall(value))
    try:
        spans = [
            (int(offset), int(length))
            for offset, length in (one.split(":") for one in _listed(fields.get("positive_spans", "[]")))
        ]
        counts = [int(count) for count in _listed(fields.get("positive_buckets", "[]"))]
        total = None if fields.get("sum", "NaN") == "NaN" else fields["sum"]
        return _imported({**fields, "sum": total}, spans, counts, unit_us)
    except (KeyError, TypeError, ValueError) as error:
        raise _no_native(error) from error


def _exported(histogram: ExponentialHistogram) -> tuple[ExponentialHistogram, list[Span], list[int]]:
    if histogram.scale < SCHEMAS[0]:
        raise InvalidInputError(f"schemas begin at {SCHEMAS[0]}: scale {histogram.scale} has none", field="scale")
    exported = histogram.downscaled(min(histogram.scale, SCHEMAS[-1]))
    spans: list[Span] = []
    counts: list[int] = []
    end = 0
    for index, count in enumerate(exported.counts, exported.offset + 1):
        if not count:
            continue
        if spans and index == end:
            spans[-1] = (spans[-1][0], spans[-1][1] + 1)
        else:
            spans.append((index - end, 1))
        counts.append(count)
        end = index + 1
    return exported, spans, counts


def _imported(
    head: Mapping[str, Any], spans: Sequence[Span], counts: Sequence[int], unit_us: float
) -> ExponentialHistogram:
    if int(head["schema"]) not in SCHEMAS:
        raise ValueError(f"schema {head['schema']}")
    if sum(length for _, length in spans) != len(counts) or any(length < 0 for _, length in spans):
        raise ValueError("the spans have not as many buckets as there are counts")
    first = spans[0][0] if spans else 0
    width = sum(offset + length for offset, length in spans) - first
    if width > BUCKETS_MAX or any(offset < 0 for offset, _ in spans[1:]):
        raise ValueError(f"spans ascend, over at most {BUCKETS_MAX} buckets")
    dense = [0] * width
    given, place = iter(counts), -first
    for offset, length in spans:
        place += offset
        for index in range(place, place + length):
            dense[index] = next(given)
        place += length
    return ExponentialHistogram(
        scale=int(head["schema"]),
        unit_us=unit_us,
        count=int(head["count"]),
        total=None if head["sum"] is None else float(head["sum"]),
        zero_count=int(head.get("zero_count", 0)),
        zero_threshold=float(head.get("zero_threshold", 0.0)),
        offset=first - 1,
        counts=tuple(dense),
    )


def _listed(text: str) -> list[str]:
    return [one for one in text.strip("[]").split(",") if one]


def _no_native(error: Exception) -> InvalidInputError:
    return InvalidInputError(f"no native histogram: {error}", code="METRICS_INVALID", field="histogram")

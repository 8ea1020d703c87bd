"""Histograms of OTLP (JSON encoding of metrics), in and out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from aipaging.adapters.telemetry.semantic_conventions import DOMAIN, TENANT, UNITS_US
from aipaging.core.audit.histogram import ExplicitHistogram, ExponentialHistogram
from aipaging.core.foundation.errors import InvalidInputError

DELTA: Final = 1
"""AGGREGATION_TEMPORALITY_DELTA; 2 is CUMULATIVE."""

METRICS_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of one export: a hundred thousand points with the SDKs' 160 buckets."""

_DECODER: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One histogram of a metric.

    Attributes:
        metric: Name of the metric.
        attributes: Its attributes, those of the resource among them.
        histogram: The counts.
        start_us: Since when it counts, 0 where that is not said.
        end_us: Until when.
        cumulative: Whether later points of the series count its requests again.
    """

    metric: str
    attributes: Mapping[str, str]
    histogram: ExponentialHistogram | ExplicitHistogram
    start_us: int = 0
    end_us: int = 0
    cumulative: bool = False


def read_points(content: bytes) -> Iterator[Point]:
    """Yield the histograms of an export (`ExportMetricsServiceRequest` as JSON); other metrics are passed over.

    Raises:
        InvalidInputError: It is no such export, or a histogram contradicts itself.
    """
    if len(content) > METRICS_BYTES_MAX:
        raise InvalidInputError(f"an export has at most {METRICS_BYTES_MAX} bytes", field="metrics")
    try:
        document = _DECODER.decode(content)
        for resource in document["resourceMetrics"]:
            common = _attributes(resource.get("resource", {}).get("attributes", ()))
            for scope in resource.get("scopeMetrics", ()):
                for metric in scope.get("metrics", ()):
                    yield from _points(metric, common)
    except InvalidInputError:
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            f"no metrics as OTLP writes them in JSON: {error}", code="METRICS_INVALID", field="metrics"
        ) from error


def write_points(points: Iterable[Point], *, service: str) -> bytes:
    """Return an export of exponential histograms.

    Args:
        points: The histograms; explicit ones are passed over, nothing here makes any.
        service: `service.name` of the resource.
    """
    metrics = [_metric(point, point.histogram) for point in points if isinstance(point.histogram, ExponentialHistogram)]
    scope = {"scope": {"name": "aipaging.audit"}, "metrics": metrics}
    resource = {"attributes": _written({"service.name": service})}
    return msgspec.json.encode({"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope]}]})


def domain_attributes(domain: str, tenant: str | None) -> dict[str, str]:
    """Return the attributes that name a domain, or the whole path, and a tenant."""
    return {DOMAIN: domain} | ({} if tenant is None else {TENANT: tenant})


def _points(metric: Mapping[str, Any], common: Mapping[str, str]) -> Iterator[Point]:
    unit_us = UNITS_US.get(metric.get("unit", ""))
    for kind, read in (("exponentialHistogram", _exponential), ("histogram", _explicit)):
        found = metric.get(kind)
        if found is None or unit_us is None:
            continue  # no duration
        for point in found.get("dataPoints", ()):
            yield Point(
                metric=str(metric["name"]),
                attributes={**common, **_attributes(point.get("attributes", ()))},
                histogram=read(point, unit_us),
                start_us=int(point.get("startTimeUnixNano", 0)) // 1000,
                end_us=int(point.get("timeUnixNano", 0)) // 1000,
                cumulative=found.get("aggregationTemporality", DELTA) not in {DELTA, "AGGREGATION_TEMPORALITY_DELTA"},
            )


def _exponential(point: Mapping[str, Any], unit_us: float) -> ExponentialHistogram:
    if any(int(count) for count in point.get("negative", {}).get("bucketCounts", ())):
        raise InvalidInputError("a histogram of delays holds negative ones", code="METRICS_INVALID", field="negative")
    positive = point.get("positive", {})
    return ExponentialHistogram(
        scale=int(point["scale"]),
        unit_us=unit_us,
        count=int(point["count"]),
        total=None if point.get("sum") is None else float(point["sum"]),
        zero_count=int(point.get("zeroCount", 0)),
        zero_threshold=float(point.get("zeroThreshold", 0.0)),
        offset=int(positive.get("offset", 0)),
        counts=tuple(map(int, positive.get("bucketCounts", ()))),
    )


def _explicit(point: Mapping[str, Any], unit_us: float) -> ExplicitHistogram:
    return ExplicitHistogram(
        unit_us=unit_us,
        bounds=tuple(map(float, point.get("explicitBounds", ()))),
        counts=tuple(map(int, point["bucketCounts"])),
    )


def _metric(point: Point, histogram: ExponentialHistogram) -> dict[str, Any]:
    data_point: dict[str, Any] = {
        "attributes": _written(point.attributes),
        "startTimeUnixNano": str(point.start_us * 1000),
        "timeUnixNano": str(point.end_us * 1000),
        "count": str(histogram.count),
        "scale": histogram.scale,
        "zeroCount": str(histogram.zero_count),
        "zeroThreshold": histogram.zero_threshold,
        "positive": {"offset": histogram.offset, "bucketCounts": [str(count) for count in histogram.counts]},
    }
    if histogram.total is not None:
        data_point["sum"] = histogram.total
    unit = next(name for name, length in UNITS_US.items() if length == histogram.unit_us)
    kind = {"aggregationTemporality": 2 if point.cumulative else DELTA, "dataPoints": [data_point]}
    return {"name": point.metric, "unit": unit, "exponentialHistogram": kind}


def _attributes(written: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    return {str(one["key"]): str(next(iter(one["value"].values()))) for one in written}


def _written(attributes: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]

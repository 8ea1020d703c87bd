"""Prometheus' protobuf exposition: the only form in which a scrape takes native histograms.

`io.prometheus.client.MetricFamily` messages, each after its length. Prometheus asks for it by
`Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited` where its scrape
configuration has `scrape_native_histograms`. The Python client cannot write it; the wire format takes these few lines.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client.metrics_core import Metric

from aipaging.adapters.telemetry.live_delays import DelayFamily
from aipaging.adapters.telemetry.prometheus import to_native
from aipaging.core.audit.histogram import ExponentialHistogram

MEDIA_TYPE: Final = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)  # fmt: skip

KINDS: Final[Mapping[str, int]] = {"counter": 0, "gauge": 1, "untyped": 3, "unknown": 3, "info": 1, "histogram": 4}
"""`MetricType`; what the text form has as several samples of one metric is untyped here, but for histograms."""

VALUE_FIELDS: Final[Mapping[int, int]] = {0: 3, 1: 2, 3: 5}
"""Field of `Metric` that holds the value, by kind."""


def wants_protobuf(accept: str) -> bool:
    """Return whether a scraper takes the protobuf form, and names it before any other."""
    first = accept.split(",", 1)[0]
    return "application/vnd.google.protobuf" in first and "io.prometheus.client.MetricFamily" in first


def exposition(families: Iterable[Metric]) -> bytes:
    """Return the families, delimited."""
    out = bytearray()
    for family in families:
        for message in _families(family):
            out += _varint(len(message)) + message
    return bytes(out)


def _families(family: Metric) -> Iterable[bytes]:
    kind = KINDS.get(family.type, 3)
    if family.type == "histogram":
        native = family.native if isinstance(family, DelayFamily) else {}
        yield _family(family.name, family.documentation, kind, _histograms(family, native))
        return
    by_name: dict[str, list[bytes]] = {}
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            value = _message(VALUE_FIELDS[kind], _double(1, sample.value))
            by_name.setdefault(sample.name, []).append(_labels(sample.labels) + value)
    for name, metrics in by_name.items():
        yield _family(name, family.documentation, kind, metrics)


def _family(name: str, about: str, kind: int, metrics: Iterable[bytes]) -> bytes:
    head = _text(1, name) + _text(2, about) + _number(3, kind)
    return head + b"".join(_message(4, metric) for metric in metrics)


def _histograms(family: Metric, native: Mapping[tuple[str, ...], ExponentialHistogram]) -> list[bytes]:
    grouped: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        group = grouped.setdefault(labels, {"buckets": [], "count": 0, "sum": 0.0})
        if sample.name.endswith("_bucket"):
            group["buckets"].append((float(sample.labels["le"]), int(sample.value)))
        elif sample.name.endswith("_count"):
            group["count"] = int(sample.value)
        elif sample.name.endswith("_sum"):
            group["sum"] = sample.value
    found: list[bytes] = []
    for labels, group in grouped.items():
        histogram = native.get(tuple(value for _, value in labels))
        found.append(_labels(dict(labels)) + _message(7, _histogram(group, histogram)))
    return found


def _histogram(group: Mapping[str, Any], native: ExponentialHistogram | None) -> bytes:
    body = _number(1, group["count"]) + _double(2, group["sum"])
    body += b"".join(_message(3, _number(1, count) + _double(2, edge)) for edge, count in group["buckets"])
    return body if native is None else body + _native(native)


def _native(histogram: ExponentialHistogram) -> bytes:
    fields = to_native(histogram)
    spans: Sequence[Mapping[str, int]] = fields["positiveSpan"]
    body = _number(5, _zigzag(fields["schema"])) + _double(6, fields["zeroThreshold"])
    body += _number(7, int(fields["zeroCount"]))
    # Without a span the histogram would pass for a classic one: an empty one says that it is native.
    for span in spans or [{"offset": 0, "length": 0}]:
        body += _message(12, _number(1, _zigzag(span["offset"])) + _number(2, span["length"]))
    return body + b"".join(_number(13, _zigzag(int(delta))) for delta in fields["positiveDelta"])


def _labels(labels: Mapping[str, str]) -> bytes:
    return b"".join(_message(1, _text(1, name) + _text(2, value)) for name, value in labels.items())


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _double(field: int, value: float) -> bytes:
    return _varint(field << 3 | 1) + struct.pack("<d", value)


def _message(field: int, body: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(body)) + body


def _text(field: int, value: str) -> bytes:
    return _message(field, value.encode())

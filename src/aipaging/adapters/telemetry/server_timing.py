"""The `server-timing` header (W3C): what a server says of its own time, as delays of domains."""

import math
import re
from typing import Final

HEADER_CHARS_MAX: Final = 4096
"""Of a header: ours is below a hundred."""

METRICS_MAX: Final = 12
"""Metrics in one header: as many as a path has domains."""

_METRIC: Final = re.compile(
    r"\s*([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*"  # the name, a token
    r"((?:;[^,;\"]*(?:\"(?:\\.|[^\"\\])*\"[^,;\"]*)?)*)"  # its parameters; no part can match another's text
    r"(?:,|$)"
)
_PARAMETER: Final = re.compile(r";\s*([^=;\s\"]+)\s*=\s*(\"(?:\\.|[^\"\\])*\"|[^;\"]*)")


_SIDECAR: Final = re.compile(r"(?:^|[,\s])queue;dur=(\d{1,9}\.\d{3}), inference;dur=(\d{1,9}\.\d{3})\s*$")

_EXCUSED: Final = re.compile(r"(?:^|[,\s])(?:guardrail|lease)\s*$")


def is_excused(header: str) -> bool:
    """Return whether the sidecar says that a request was beyond its session's guardrail, or outlived its lease.

    It says so last and instead of its pair, so no model server can say it.
    """
    return _EXCUSED.search(header[-HEADER_CHARS_MAX:]) is not None


def sidecar_timing_us(header: str) -> dict[str, int]:
    """Return what the anchor's sidecar says, in microseconds; empty where it says nothing.

    A sidecar adds its pair after whatever the model server said of itself, so the last one is its own: a server cannot
    come after it, and what servers claim of themselves is not evidence.

    Args:
        header: The value of the header, several fields joined in their order.
    """
    found = _SIDECAR.search(header[-HEADER_CHARS_MAX:])
    if found is None:
        return {}
    return {name: math.ceil(round(float(found[group]) * 1e3, 6)) for group, name in ((1, "queue"), (2, "inference"))}


def server_timing_us(header: str) -> dict[str, int]:
    """Return the durations of a header in microseconds, rounded up; what has none, or none that can be, is left out.

    The first of several metrics of one name counts, as user agents have it for parameters.

    Args:
        header: The value of the header.
    """
    found: dict[str, int] = {}
    for metric in _METRIC.finditer(header[:HEADER_CHARS_MAX]):
        durations = [one[2] for one in _PARAMETER.finditer(metric[2]) if one[1].lower() == "dur"]
        if not durations or metric[1] in found or len(found) >= METRICS_MAX:
            continue
        try:
            value_ms = float(durations[0].strip('" '))
        except ValueError:
            continue
        if math.isfinite(value_ms) and 0 <= value_ms < 1e9:
            found[metric[1]] = math.ceil(round(value_ms * 1e3, 6))
    return found

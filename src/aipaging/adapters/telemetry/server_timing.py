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

"""Structured log lines: one JSON object per line, bounded in rate, without tokens, prompts or bodies.

Callers pass names, ids, codes and numbers; nothing that came from a header or a body is ever passed.
"""

import sys
from collections.abc import Callable
from typing import Final

import msgspec

from aipaging.adapters.sidecar.clocks import Clocks

LINES_PER_SECOND_MAX: Final = 20
"""Of one event: a flood of refusals must not become a flood of writes; the rest is counted in `suppressed`."""


class Log:
    """Writes events as JSON lines."""

    def __init__(self, clocks: Clocks, write: Callable[[str], object] = sys.stderr.write, **fixed: str) -> None:
        self._clocks = clocks
        self._write = write
        self._fixed = fixed
        self._windows: dict[str, tuple[int, int]] = {}

    def event(self, name: str, **fields: str | int | float | bool | None) -> None:
        """Write one event."""
        wall_us = self._clocks.wall_us()
        second = wall_us // 1_000_000
        start, count = self._windows.get(name, (second, 0))
        if start != second:
            if count > LINES_PER_SECOND_MAX:
                fields["suppressed"] = count - LINES_PER_SECOND_MAX
            start, count = second, 0
        self._windows[name] = (start, count + 1)
        if count < LINES_PER_SECOND_MAX:
            line = {"wall_us": wall_us, "event": name, **self._fixed, **fields}
            self._write(msgspec.json.encode(line).decode() + "\n")

"""The latest delays of a stream, as they are: what a fit to the tail needs."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from aipaging.core.audit.telemetry import Integers

TOP_MAX: Final = 20_000
"""Delays kept for the fit: it gains nothing from more, and its threshold rises with the telemetry instead."""


@dataclass(slots=True, kw_only=True)
class TopDelays:
    """The `TOP_MAX` latest of all delays so far, in no order, after `values()`."""

    _parts: list[Integers] = field(default_factory=list[Integers])
    _held: int = 0
    _least: int = -1

    def add(self, delay_us: Integers) -> None:
        """See further delays."""
        late = delay_us[delay_us > self._least]
        if not late.size:
            return
        self._parts.append(late)
        self._held += len(late)
        if self._held > 4 * TOP_MAX:
            self._cut()

    def _cut(self) -> None:
        whole = np.concatenate(self._parts) if self._parts else np.zeros(0, dtype=np.int64)
        if len(whole) > TOP_MAX:
            whole = np.partition(whole, len(whole) - TOP_MAX)[-TOP_MAX:]
            # Equal delays may be cut either way; only strictly later ones can still matter.
            self._least = int(whole.min())
        self._parts, self._held = [whole], len(whole)

    def values(self) -> Integers:
        """Return the latest delays, at most `TOP_MAX`."""
        self._cut()
        return self._parts[0]

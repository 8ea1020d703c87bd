"""Windows of a fixed number of requests, in the order in which they arrive: what the alarm is fed with."""

from collections.abc import Iterator

import numpy as np

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.exceedance import disagreement_us, exceedances
from aipaging.core.audit.scope import placed, scope_of
from aipaging.core.audit.telemetry import Batch, Flaws, Mask, screened


class RequestWindows:
    """Cuts the requests of one contract into windows."""

    def __init__(self, contract: Contract, requests: int) -> None:
        self._contract = contract
        self._requests = requests
        self._late: Mask = np.zeros(0, dtype=np.bool_)

    @property
    def waiting(self) -> int:
        """Requests of the window that is not full yet."""
        return len(self._late)

    def add(self, batch: Batch, flaws: Flaws, counted: Mask | None = None) -> Iterator[int]:
        """Yield the exceedances of every window that the next rows fill.

        Args:
            batch: The rows.
            flaws: Takes what cannot be believed.
            counted: Which rows count, None for all.
        """
        batch = screened(batch, flaws)
        found = exceedances(self._contract, batch, disagreement_us(batch, flaws))
        certain = placed(self._contract, batch, found).certain
        scope = np.ones(len(batch), dtype=np.bool_)
        for mask in (scope_of(self._contract, batch), counted):
            scope = scope if mask is None else scope & mask
        late = np.concatenate((self._late, certain[scope]))
        full = len(late) // self._requests * self._requests
        self._late = late[full:]
        for count in late[:full].reshape(-1, self._requests).sum(axis=1):
            yield int(count)

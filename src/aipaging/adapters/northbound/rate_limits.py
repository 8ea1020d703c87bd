"""How often each caller may ask: checked as soon as it is known who asks, before anything is read or done."""

from typing import Final

from aipaging.adapters.northbound.credentials import Caller
from aipaging.runtime.http.rates import CallerRates, RateLimit

OPERATOR_READS: Final = RateLimit(per_second=50.0, burst=500)
"""Of one operator: each read adds a record to the evidence, four million a day at this rate. A console asks less often,
and whoever verifies the log over the network gets 256 records with each read."""


class Limits:
    """Lets each caller through as often as it may ask."""

    def __init__(self, clients: CallerRates, operator_reads: CallerRates) -> None:
        self._clients = clients
        self._operator_reads = operator_reads

    def take(self, caller: Caller, *, reads: bool) -> None:
        """Take note of a request.

        What an operator changes is not limited: a console that polls too fast must not hold up a kill switch.

        Args:
            caller: Who asks.
            reads: Whether it is a read that leaves a record where an operator does it.

        Raises:
            RefusedError: The caller asks too often (`TOO_MANY_REQUESTS`).
        """
        if not caller.operator:
            self._clients.take(caller.client)
        elif reads:
            self._operator_reads.take(caller.client)

"""How often each caller may ask: checked as soon as it is known who asks, before anything is read or done.

What an operator does leaves evidence, whether it succeeds or not: whoever does it fast, a script that loops or a stolen
credential, would fill the log. What protects has an allowance of its own, so that nothing else of the same operator,
reads or changes, holds it up.
"""

import enum
from dataclasses import dataclass, field
from typing import Final

from aipaging.adapters.northbound.credentials import Caller
from aipaging.core.foundation.errors import RefusedError
from aipaging.runtime.http.rates import CallerRates, RateLimit

OPERATOR_READS: Final = RateLimit(per_second=50.0, burst=500)
"""Of one operator: each read adds a record to the evidence, four million a day at this rate. A console asks less often,
and whoever verifies the log over the network gets 256 records with each read."""

OPERATOR_CHANGES: Final = RateLimit(per_second=200.0, burst=10_000)
"""Of one operator: each adds one record at least, of 1.3 kB, so 22 GB a day at this rate. Mobility reports are the most
that is honest: of 100,000 sessions, each may change its access domain every eight minutes, and a tenth of them at once.
Anchors, envelopes and drains of a whole site are some hundreds."""

OPERATOR_PROTECTION: Final = RateLimit(per_second=50.0, burst=5_000)
"""Of one operator: what takes away to protect. At once, more than the switches that can be thrown; beyond them, as many
records as by reading."""

REFUSALS_ON_RECORD: Final = RateLimit(per_second=1 / 60, burst=1)
"""Of one operator: that it asks too often is on record once a minute; the metrics count each time."""


class Use(enum.Enum):
    """What a request is for, as its limit sees it."""

    READ = "read"
    CHANGE = "change"
    PROTECT = "protect"
    UNRECORDED = "unrecorded"


def _reads() -> CallerRates:
    return CallerRates(OPERATOR_READS)


def _changes() -> CallerRates:
    return CallerRates(OPERATOR_CHANGES)


def _protection() -> CallerRates:
    return CallerRates(OPERATOR_PROTECTION)


def _refusals() -> CallerRates:
    return CallerRates(REFUSALS_ON_RECORD)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRates:
    """How often each operator may do what leaves evidence.

    Attributes:
        reads: Read.
        changes: Change something, or try to.
        protection: Take something away that does harm.
        refusals: Be put on record for having asked too often.
    """

    reads: CallerRates = field(default_factory=_reads)
    changes: CallerRates = field(default_factory=_changes)
    protection: CallerRates = field(default_factory=_protection)
    refusals: CallerRates = field(default_factory=_refusals)


class Limits:
    """Lets each caller through as often as it may ask."""

    def __init__(self, clients: CallerRates, operators: OperatorRates) -> None:
        self._clients = clients
        self._of_operators = {
            Use.READ: operators.reads,
            Use.CHANGE: operators.changes,
            Use.PROTECT: operators.protection,
        }
        self._refusals = operators.refusals

    def take(self, caller: Caller, use: Use) -> None:
        """Take note of a request.

        Args:
            caller: Who asks.
            use: What for; what leaves no record is limited for clients only.

        Raises:
            RefusedError: The caller asks too often (`TOO_MANY_REQUESTS`).
        """
        rates = self._of_operators.get(use) if caller.operator else self._clients
        if rates is not None:
            rates.take(caller.client)

    def notable(self, caller: Caller) -> bool:
        """Tell whether it is to be put on record that a caller was refused: an operator's first refusal in a minute."""
        if not caller.operator:
            return False
        try:
            self._refusals.take(caller.client)
        except RefusedError:
            return False
        return True

"""Which requests of a batch exceeded, for certain and perhaps: partial identification, request by request.

`certain` counts against a provider, `possible` against its compliance. They differ where a delay is unknown, where a
clock may be wrong, and where the domains of a request say that they took longer than the whole path did.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.telemetry import Batch, Flaws, Integers, Mask, Status

ROUNDING_US_MAX: Final = 1
"""Per domain: collectors round to microseconds, so sums differ by that much without anybody being wrong."""


@dataclass(frozen=True, slots=True)
class Exceedances:
    """Masks over a batch.

    Attributes:
        certain: Exceeded, whatever the unknown is.
        possible: Exceeded for some value of the unknown.
    """

    certain: Mask
    possible: Mask


def disagreement_us(batch: Batch, flaws: Flaws) -> Integers | None:
    """Return by how much the domains of each request together took longer than the request, None where none did."""
    if not batch.domains:
        return None
    total = np.zeros(len(batch), dtype=np.int64)
    for column in batch.domains.values():
        total += np.maximum(column, 0)
    total -= batch.end_to_end_us
    slack = ROUNDING_US_MAX * len(batch.domains)
    # An unknown end-to-end delay is hugely negative and would look like disagreement.
    wrong = (total > slack) & (batch.end_to_end_us >= 0) & (batch.status == Status.OK)
    if not wrong.any():
        return None
    flaws.add("domains_disagree", np.count_nonzero(wrong))
    return np.where(wrong, total, 0)


def exceedances(contract: Contract, batch: Batch, excess_us: Integers | None) -> Exceedances:
    """Return which requests of a screened batch exceeded.

    Args:
        contract: The contract.
        batch: Screened telemetry.
        excess_us: What `disagreement_us` returned: a domain took its delay less the excess at least, and the whole
            path its delay and the excess at most.
    """
    if contract.domain == END_TO_END:
        found = _end_to_end(contract, batch, excess_us)
    elif contract.domain in batch.domains:
        found = _domain(contract, batch.domains[contract.domain], excess_us)
    else:
        found = Exceedances(np.zeros(len(batch), dtype=np.bool_), np.ones(len(batch), dtype=np.bool_))
    if batch.ids is None:
        return found
    nameless = batch.ids.missing()
    # Who has no id may be a copy of somebody: it proves nothing, for either side.
    return Exceedances(found.certain & ~nameless, found.possible | nameless) if nameless.any() else found


def _domain(contract: Contract, delay_us: Integers, excess_us: Integers | None) -> Exceedances:
    least, most = contract.delay_us + contract.clock_error_us, contract.delay_us - contract.clock_error_us
    surely_us = delay_us if excess_us is None else delay_us - excess_us
    return Exceedances(surely_us > least, (delay_us > most) | (delay_us < 0))


def _end_to_end(contract: Contract, batch: Batch, excess_us: Integers | None) -> Exceedances:
    least, most = contract.delay_us + contract.clock_error_us, contract.delay_us - contract.clock_error_us
    delay_us, fine = batch.end_to_end_us, batch.status == Status.OK
    longest_us = delay_us if excess_us is None else delay_us + excess_us
    certain = (delay_us > least) & fine
    possible = (longest_us > most) | (delay_us < 0)
    if not fine.all():
        certain |= failed(batch)
        possible |= ~fine
    return Exceedances(certain, possible)


def failed(batch: Batch) -> Mask:
    """Return which requests got no good answer."""
    return (batch.status >= Status.ERROR) & (batch.status <= Status.LOST)

"""Which requests a contract is about: its tenant's, begun in its period. Whose place is unknown may be anybody's."""

import numpy as np

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.exceedance import Exceedances
from aipaging.core.audit.telemetry import Batch, Mask


def in_period(contract: Contract, batch: Batch) -> Mask:
    """Return who is in the period, or may be: unknown starts are."""
    inside = np.ones(len(batch), dtype=np.bool_)
    if contract.period_start_us is not None:
        inside &= batch.start_us >= contract.period_start_us
    if contract.period_end_us is not None:
        inside &= batch.start_us < contract.period_end_us
    return inside | (batch.start_us < 0)


def scope_of(contract: Contract, batch: Batch) -> Mask | None:
    """Return which rows a contract is about, None for all; rows that could not be read may be anybody's."""
    scope = in_period(contract, batch) if contract.has_period else None
    if contract.tenant is None:
        return scope
    if batch.tenants is None:
        mine = np.ones(len(batch), dtype=np.bool_)
    else:
        wanted = [code for code, name in enumerate(batch.tenant_names) if name in {contract.tenant, ""}]
        mine = np.isin(batch.tenants, wanted)
    return mine if scope is None else scope & mine


def unplaced_in(contract: Contract, batch: Batch) -> Mask | None:
    """Return which rows may or may not be the contract's, as their start or tenant is unknown; None where none is."""
    unplaced: Mask | None = None
    if contract.has_period:
        unplaced = batch.start_us < 0
    if contract.tenant is not None and batch.tenants is not None:
        nameless = [code for code, name in enumerate(batch.tenant_names) if not name]
        nobodys = np.isin(batch.tenants, nameless)
        unplaced = nobodys if unplaced is None else unplaced | nobodys
    return None if unplaced is None or not unplaced.any() else unplaced


def placed(contract: Contract, batch: Batch, late: Exceedances) -> Exceedances:
    """Return the exceedances with those of unknown place possible, and not certain."""
    unplaced = unplaced_in(contract, batch)
    return late if unplaced is None else Exceedances(late.certain & ~unplaced, late.possible | unplaced)

"""From two files to the document of an audit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.apps.audit.contract_file import read_contracts
from aipaging.apps.audit.document import account, audit_document, estimate
from aipaging.core.audit.accounts import accounts
from aipaging.core.audit.estimates import estimates
from aipaging.core.audit.period import PeriodAudit, Sampling, audit_period
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """An audit and its document."""

    audit: PeriodAudit
    document: dict[str, Any]


def run_audit(
    telemetry: Path, contract_file: Path, *, alpha: float, seed: int, sample: int | None = None, root: str | None = None
) -> dict[str, Any]:
    """Return the document.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    return audited(telemetry, contract_file, alpha=alpha, seed=seed, sample=sample, root=root).document


def audited(
    telemetry: Path, contract_file: Path, *, alpha: float, seed: int, sample: int | None = None, root: str | None = None
) -> Audited:
    """Return the audit with its document.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    contracts = read_contracts(contract_file)
    table = open_telemetry(telemetry)
    sampling = None if sample is None else Sampling(count=sample, seed=seed, root=_root(root))
    audit = audit_period(table, contracts.contracts, alpha=alpha, sampling=sampling)
    document = audit_document(audit, content=contracts.content, alpha=alpha, seed=seed, sampling=sampling)
    if sampling is not None:
        # Who opens a sample has not seen the rest: neither blame nor estimates may depend on it.
        return Audited(audit=audit, document=document | {"attribution": None, "attributions": [], "estimates": []})
    dice = np.random.default_rng(seed)
    blamed = [account(found) for found in accounts(table, audit, dice)]
    document |= {
        "attribution": blamed[0] if blamed else None,
        "attributions": blamed,
        "estimates": [estimate(found) for tally in audit.scan.tallies for found in estimates(tally, dice)],
    }
    return Audited(audit=audit, document=document)


def _root(text: str | None) -> bytes:
    try:
        return bytes.fromhex(text or "")
    except ValueError as error:
        raise InvalidInputError("the root is a number in hexadecimal digits", field="root") from error

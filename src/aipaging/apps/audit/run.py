"""From two files to the document of an audit."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from aipaging.adapters.telemetry.openings import OpeningsSource, is_openings
from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.apps.audit.contract_file import ContractFile, read_contracts
from aipaging.apps.audit.document import account, audit_document, estimate
from aipaging.apps.audit.progress import Shown
from aipaging.core.audit.accounts import Resampled, accounts
from aipaging.core.audit.commitment import Commitment
from aipaging.core.audit.estimates import estimates
from aipaging.core.audit.period import PeriodAudit, Sampling, Table, audit_period, hashed, without_commitment
from aipaging.core.audit.verdict import Multiplicity
from aipaging.core.evidence.merkle import HASH_BYTES
from aipaging.core.foundation.errors import InvalidInputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """How an audit is to be done.

    Attributes:
        alpha: Error probability of all verdicts together, on each side.
        seed: Decides every random choice.
        sample: Records to open; None counts all, and of a file of openings takes all.
        committed: What the provider committed to; its size is negative where only the root is known.
        multiplicity: How the verdicts share alpha.
        resampled: Over what the intervals of blame are.
    """

    alpha: float = 0.05
    seed: int = 0
    sample: int | None = None
    committed: Commitment | None = None
    multiplicity: Multiplicity = Multiplicity.SPLIT
    resampled: Resampled = Resampled.WINDOWS


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """An audit and its document."""

    audit: PeriodAudit
    document: dict[str, Any]


def run_audit(telemetry: Path, contract_file: Path, request: Request) -> dict[str, Any]:
    """Return the document.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    return audited(telemetry, contract_file, request).document


def audited(telemetry: Path, contract_file: Path, request: Request) -> Audited:
    """Return the audit with its document.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    contracts = read_contracts(contract_file)
    if is_openings(telemetry):
        return _of_openings(telemetry, contracts, request)
    with Shown(open_telemetry(telemetry), "counting") as table:
        return _of_telemetry(table, contracts, request)


def _of_openings(path: Path, contracts: ContractFile, request: Request) -> Audited:
    committed = request.committed
    if committed is None or committed.size < 0:
        raise InvalidInputError("openings are checked against a commitment: give --commitment", field="commitment")
    table = OpeningsSource(path, committed, seed=request.seed, count=request.sample)
    audit = audit_period(
        table, contracts.contracts, alpha=request.alpha, committed=committed, multiplicity=request.multiplicity
    )
    audit.scan.flaws.add("unproven_openings", table.unproven)
    if not table.matches:
        audit = without_commitment(audit)
    return _sampled(audit, contracts, request, matches=table.matches)


def _of_telemetry(table: Table, contracts: ContractFile, request: Request) -> Audited:
    committed, matches = request.committed, None
    if committed is not None:
        scan = hashed(table)
        size = scan.size if committed.size < 0 else committed.size
        matches = (scan.size, scan.commitment("").root) == (size, committed.root)
        request = replace(request, committed=replace(committed, size=size))
    sampling = None
    if request.sample is not None:
        root = b"" if committed is None else committed.root
        sampling = Sampling(count=request.sample, seed=request.seed, root=root)
    audit = audit_period(
        table, contracts.contracts, alpha=request.alpha, sampling=sampling, multiplicity=request.multiplicity
    )
    if matches is False:
        audit = without_commitment(audit)
    if sampling is not None:
        return _sampled(audit, contracts, request, matches=matches)
    document = audit_document(audit, contracts.content, request, matches=matches)
    dice = np.random.default_rng(request.seed)
    resampled = request.resampled
    blamed = [account(found, resampled) for found in accounts(table, audit, dice, resampled=resampled)]
    document |= {
        "attribution": blamed[0] if blamed else None,
        "attributions": blamed,
        "estimates": [estimate(found) for tally in audit.scan.tallies for found in estimates(tally, dice)],
    }
    return Audited(audit=audit, document=document)


def _sampled(audit: PeriodAudit, contracts: ContractFile, request: Request, *, matches: bool | None) -> Audited:
    # Who opens a sample has not seen the rest: neither blame nor estimates may depend on it.
    nothing: dict[str, Any] = {"attribution": None, "attributions": [], "estimates": []}
    document = audit_document(audit, contracts.content, request, matches=matches)
    return Audited(audit=audit, document=document | nothing)


def root_only(text: str) -> Commitment:
    """Return the commitment of which only the root is known, in hexadecimal digits.

    Raises:
        InvalidInputError: It is none.
    """
    try:
        root = bytes.fromhex(text)
    except ValueError:
        root = b""
    if len(root) != HASH_BYTES:
        raise InvalidInputError(f"the root is {2 * HASH_BYTES} hexadecimal digits", field="root")
    return Commitment(origin="", size=-1, root=root)

"""A verdict as an evidence record: a flat map of ASCII strings and integers that holds all that is needed to redo it.

Numbers that are no integers are decimal texts, as `repr` writes them: they read back as the same float. The record is
signed outside, as a note whose text `signed_text` returns, and may be appended to an evidence log as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from aipaging.core.audit.contract import Contract
from aipaging.core.audit.verdict import Verdict
from aipaging.core.foundation.canonical import canonical_json

RECORD_TYPE: Final = "AUDIT_VERDICT"

RECORD_VERSION: Final = 1

NOTE_ORIGIN: Final = "aipaging-audit-verdict/1"
"""First line of the signed text: such a signature means nothing else."""

ESTIMAND: Final = "fraction of the period's requests later than delay_ms, lost, timed out and failed ones included"

Fields = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """How the verdicts of one audit were reached, beyond what each of them says.

    Attributes:
        software: Name and version of what computed them.
        seed: What opened the records, empty where all were counted.
        root: What the provider committed to, in hex; empty where nobody did.
        committed: How many records the commitment holds, 0 without one.
        multiplicity: How alpha was shared among the verdicts.
        family: How many there were.
    """

    software: str
    seed: str
    root: str
    committed: int
    multiplicity: str
    family: int


def contract_digest(contract: Contract) -> str:
    """Return the hex SHA-256 of a contract's canonical fields: the same however the file was laid out."""
    return sha256(canonical_json(_contract_fields(contract))).hexdigest()


def verdict_record(verdict: Verdict, how: Circumstances) -> Fields:
    """Return the record of a verdict."""
    fields: dict[str, str | int] = {
        "v": RECORD_VERSION,
        "type": RECORD_TYPE,
        "contract": contract_digest(verdict.contract),
        **_contract_fields(verdict.contract),
        "estimand": ESTIMAND,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "requests": verdict.requests,
        "observed": verdict.observed,
        "missing": verdict.missing,
        "allowed": verdict.allowed,
        "exceedances_low": verdict.exceedances_low,
        "exceedances_high": verdict.exceedances_high,
        "method": verdict.method.value,
        "alpha": repr(verdict.alpha),
        "alpha_each": repr(verdict.alpha_each),
        "multiplicity": how.multiplicity,
        "family": how.family,
        "sampled": verdict.sampled,
        "seed": how.seed,
        "root": how.root,
        "committed": how.committed,
        "software": how.software,
    }
    if verdict.finding is not None:
        fields |= {
            "log_e_violated": repr(verdict.finding.log_e_violated),
            "log_e_compliant": repr(verdict.finding.log_e_compliant),
        }
    return fields


def signed_text(record: Fields) -> str:
    """Return the text of the note that a record is signed as."""
    return f"{NOTE_ORIGIN}\n{canonical_json(record).decode()}\n"


def _contract_fields(contract: Contract) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "domain": _ascii(contract.domain),
        "delay_ms": repr(float(contract.delay_ms)),
        "epsilon": repr(float(contract.epsilon)),
        "clock_error_ms": repr(float(contract.clock_error_ms)),
    }
    if contract.tenant is not None:
        fields["tenant"] = _ascii(contract.tenant)
    optional: Sequence[tuple[str, int | None]] = (
        ("period_start_us", contract.period_start_us),
        ("period_end_us", contract.period_end_us),
        ("expected_requests", contract.expected_requests),
    )
    fields |= {name: value for name, value in optional if value is not None}
    if contract.tail is not None:
        tail = contract.tail
        fields |= {
            "offset_ms": repr(tail.offset_ms),
            "prefactor": repr(tail.prefactor),
            "decay_per_ms": repr(tail.decay_per_ms),
        }
    return fields


def _ascii(name: str) -> str:
    """Return a name as records hold it: what is not ASCII as Python escapes it."""
    return name.encode("unicode_escape").decode("ascii")

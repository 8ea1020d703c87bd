"""The document of an audit: what outside checks read."""

import hashlib
import math
from importlib.metadata import version
from typing import Any, Final, Protocol

from aipaging.core.audit.accounts import Resampled
from aipaging.core.audit.attribution import Attribution
from aipaging.core.audit.commitment import Commitment
from aipaging.core.audit.estimates import Estimate
from aipaging.core.audit.period import PeriodAudit
from aipaging.core.audit.quality import data_quality
from aipaging.core.audit.record import ESTIMAND, Circumstances, verdict_record
from aipaging.core.audit.verdict import Method, Multiplicity, Verdict

INTERVALS: Final = {Resampled.WINDOWS: "windows of time", Resampled.SESSIONS: "sessions"}
"""What was drawn again for the intervals of blame."""


class How(Protocol):
    """How an audit was done: satisfied by `run.Request`."""

    @property
    def alpha(self) -> float:
        """Error probability of all verdicts together, on each side."""
        ...

    @property
    def seed(self) -> int:
        """What decided every random choice."""
        ...

    @property
    def sample(self) -> int | None:
        """Records that were opened, None where all were counted."""
        ...

    @property
    def committed(self) -> Commitment | None:
        """What the provider committed to."""
        ...


def audit_document(audit: PeriodAudit, content: bytes, how: How, *, matches: bool | None) -> dict[str, Any]:
    """Return verdicts, their multiplicity and records, data quality, and what is needed to do it again.

    Args:
        audit: What was found.
        content: The contract file.
        how: How it was done.
        matches: Whether the records are those that were committed to, None where nobody committed.
    """
    software = f"aipaging {version('aipaging')}"
    circumstances = Circumstances(
        software=software,
        seed="" if audit.verdicts[0].method is Method.CENSUS else str(how.seed),
        root="" if how.committed is None else how.committed.root.hex(),
        committed=0 if how.committed is None else how.committed.size,
        multiplicity=_sharing(audit),
        family=len(audit.verdicts),
    )
    return {
        "verdicts": [verdict_document(verdict) for verdict in audit.verdicts],
        "multiplicity": _multiplicity(audit, how.alpha),
        "data_quality": data_quality(audit),
        "provenance": {
            "contract_sha256": hashlib.sha256(content).hexdigest(),
            "software": software,
            "alpha": how.alpha,
            "multiplicity": audit.multiplicity.value,
            "sample": how.sample,
            "seed": how.seed,
            "origin": None if how.committed is None else how.committed.origin,
            "root": None if how.committed is None else how.committed.root.hex(),
            "committed": None if how.committed is None else how.committed.size,
            "root_matches": matches,
        },
        "records": [dict(verdict_record(verdict, circumstances)) for verdict in audit.verdicts],
    }


def verdict_document(verdict: Verdict) -> dict[str, Any]:
    """Return the document of a verdict."""
    contract = verdict.contract
    document: dict[str, Any] = {
        "domain": contract.domain,
        "tenant": contract.tenant,
        "verdict": verdict.outcome.value,
        "reason": verdict.reason,
        "requests": verdict.requests,
        "observed_requests": verdict.observed,
        "missing_requests": verdict.missing,
        "exceedances_low": verdict.exceedances_low,
        "exceedances_high": verdict.exceedances_high,
        "exceedances_allowed": verdict.allowed,
        "delay_ms": contract.delay_ms,
        "epsilon": contract.epsilon,
        "period_start_us": contract.period_start_us,
        "period_end_us": contract.period_end_us,
        "alpha": verdict.alpha,
        "alpha_each": verdict.alpha_each,
        "method": verdict.method.value,
        "estimand": ESTIMAND,
        "sampled": verdict.sampled,
        "effective_requests": verdict.effective_requests,
        "design_effect": verdict.effect,
    }
    if verdict.finding is not None:
        document |= {
            "log_e_violated": verdict.finding.log_e_violated,
            "log_e_compliant": verdict.finding.log_e_compliant,
            "decided_at": verdict.finding.violated_at or verdict.finding.compliant_at,
        }
    return document


def _sharing(audit: PeriodAudit) -> str:
    return "arithmetic" if audit.verdicts[0].method is Method.CENSUS else audit.multiplicity.value


def _multiplicity(audit: PeriodAudit, alpha: float) -> dict[str, Any]:
    count, sharing = len(audit.verdicts), _sharing(audit)
    statements = {
        "arithmetic": "none needed: every verdict is arithmetic over the whole period and errs with no probability",
        Multiplicity.SPLIT.value: f"alpha is divided equally: with {count} verdicts, any of them errs with "
        f"probability {alpha} at most, per side",
        Multiplicity.E_BH.value: f"e-BH over {count} verdicts: of those of one side, a fraction {alpha} is wrong at "
        "most, in the mean",
    }
    return {
        "verdicts": count,
        "method": sharing,
        "alpha": alpha,
        "alpha_each": audit.verdicts[0].alpha_each,
        "statement": statements[sharing],
    }


def account(found: Attribution, resampled: Resampled = Resampled.WINDOWS) -> dict[str, Any]:
    """Return the document of an attribution."""
    return {
        "tenant": found.contract.tenant,
        "delay_ms": found.contract.delay_ms,
        "observed": found.observed,
        "permitted": found.permitted,
        "domains": {
            name: {
                "blame": blame.blame,
                "low": blame.low,
                "high": blame.high,
                "may_be_blamed": blame.may_be_blamed,
                "excess_share": blame.excess_share,
            }
            for name, blame in found.domains.items()
        },
        "unattributed": found.unattributed,
        "unexplained_requests": found.unexplained_requests,
        "method": "envelope-capped Shapley; only a domain whose own verdict is violated may be blamed",
        "intervals": f"95 %, {INTERVALS[resampled]} resampled",
    }


def estimate(found: Estimate) -> dict[str, Any]:
    """Return the document of an estimate; a delay that is not bounded is null, with `unbounded` true."""
    return {
        "domain": found.contract.domain,
        "tenant": found.contract.tenant,
        "quantile": found.quantile,
        "method": found.method.value,
        "assumption": found.assumption,
        "delay_ms": _finite(found.delay_ms),
        "low_ms": _finite(found.low_ms),
        "high_ms": _finite(found.high_ms),
        "unbounded": found.high_ms is not None and math.isinf(found.high_ms),
        "refused": found.refused,
        "design_effect": found.design_effect,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

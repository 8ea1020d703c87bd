"""The document of an audit: what outside checks read."""

import hashlib
import math
from importlib.metadata import version
from typing import Any

from aipaging.core.audit.attribution import Attribution
from aipaging.core.audit.estimates import Estimate
from aipaging.core.audit.period import PeriodAudit, Sampling
from aipaging.core.audit.quality import data_quality
from aipaging.core.audit.verdict import Method, Verdict


def audit_document(
    audit: PeriodAudit, *, content: bytes, alpha: float, seed: int, sampling: Sampling | None
) -> dict[str, Any]:
    """Return verdicts, their multiplicity, data quality, and what is needed to do it again."""
    return {
        "verdicts": [_verdict(verdict) for verdict in audit.verdicts],
        "multiplicity": _multiplicity(audit, alpha),
        "data_quality": data_quality(audit),
        "provenance": {
            "contract_sha256": hashlib.sha256(content).hexdigest(),
            "software": f"aipaging {version('aipaging')}",
            "alpha": alpha,
            "sample": None if sampling is None else sampling.count,
            "seed": seed,
            "root": None if sampling is None else sampling.root.hex(),
        },
    }


def _verdict(verdict: Verdict) -> dict[str, Any]:
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
        "estimand": "fraction of the period's requests later than delay_ms, lost, timed out and failed ones included",
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


def _multiplicity(audit: PeriodAudit, alpha: float) -> dict[str, Any]:
    count = len(audit.verdicts)
    if audit.verdicts[0].method is Method.CENSUS:
        text = "none needed: every verdict is arithmetic over the whole period and errs with no probability"
        return {"verdicts": count, "method": "arithmetic", "alpha": alpha, "alpha_each": 0.0, "statement": text}
    text = (
        f"alpha is divided equally: with {count} verdicts, any of them errs with probability {alpha} at most, per side"
    )
    return {
        "verdicts": count,
        "method": "alpha-splitting",
        "alpha": alpha,
        "alpha_each": alpha / count,
        "statement": text,
    }


def account(found: Attribution) -> dict[str, Any]:
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
        "intervals": "95 %, windows of time resampled",
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
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None

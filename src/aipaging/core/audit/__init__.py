"""Verdicts about tail delays, alarms, estimates and blame. Usable alone, with numpy and scipy.

>>> import numpy as np
>>> from aipaging.core import audit
>>> delay_us = np.full(1000, 5_000)
>>> delay_us[:2] = 80_000
>>> table = audit.ArrayTable(audit.Batch(
...     start_us=np.arange(1000), status=np.zeros(1000, np.uint8), end_to_end_us=delay_us, domains={}))
>>> promised = audit.Contract(domain=audit.END_TO_END, delay_ms=20.0, epsilon=0.001)
>>> audit.audit_period(table, [promised], alpha=0.05).verdicts[0].reason
'at least 2 of 1000 requests exceeded, 1 are allowed'
"""

from aipaging.core.audit.accounts import Resampled, accounts
from aipaging.core.audit.aggregate import judge_counts
from aipaging.core.audit.attribution import Attribution, Blame, LateRequests, Ranks, attribute, permitted_delays
from aipaging.core.audit.betting import WindowAlarm, log_mixture_evidence, watched
from aipaging.core.audit.commitment import (
    Commitment,
    CommitmentScan,
    commitment_from,
    is_proven,
    leaf_of,
    leaves,
    needed,
)
from aipaging.core.audit.continuous import Change, ChangeKind, ContinuousAudit, Counts, counted, fed_all
from aipaging.core.audit.contract import END_TO_END, Contract, EnvelopeTail
from aipaging.core.audit.dependence import cluster_effect, design_effect
from aipaging.core.audit.estimates import Estimate, EstimateMethod, estimates
from aipaging.core.audit.histogram import ExplicitHistogram, ExponentialHistogram, exponential_histogram
from aipaging.core.audit.opening import beacon_seed, opening_key, opening_order
from aipaging.core.audit.pareto import ParetoTail, fit_tail
from aipaging.core.audit.period import PeriodAudit, Sampling, Table, audit_period, hashed, without_commitment
from aipaging.core.audit.quality import data_quality
from aipaging.core.audit.record import Circumstances, contract_digest, signed_text, verdict_record
from aipaging.core.audit.sampling import (
    HypergeometricSequence,
    Openings,
    SampledFinding,
    ScopeBounds,
    bound_scope,
    judge_openings,
)
from aipaging.core.audit.sessions import SESSION_GROUPS, session_groups
from aipaging.core.audit.sketch import DelaySketch
from aipaging.core.audit.table import ArrayTable
from aipaging.core.audit.telemetry import UNKNOWN, Batch, Status
from aipaging.core.audit.verdict import Method, Multiplicity, Outcome, Verdict, e_benjamini_hochberg

__all__ = [
    "END_TO_END",
    "SESSION_GROUPS",
    "UNKNOWN",
    "ArrayTable",
    "Attribution",
    "Batch",
    "Blame",
    "Change",
    "ChangeKind",
    "Circumstances",
    "Commitment",
    "CommitmentScan",
    "ContinuousAudit",
    "Contract",
    "Counts",
    "DelaySketch",
    "EnvelopeTail",
    "Estimate",
    "EstimateMethod",
    "ExplicitHistogram",
    "ExponentialHistogram",
    "HypergeometricSequence",
    "LateRequests",
    "Method",
    "Multiplicity",
    "Openings",
    "Outcome",
    "ParetoTail",
    "PeriodAudit",
    "Ranks",
    "Resampled",
    "SampledFinding",
    "Sampling",
    "ScopeBounds",
    "Status",
    "Table",
    "Verdict",
    "WindowAlarm",
    "accounts",
    "attribute",
    "audit_period",
    "beacon_seed",
    "bound_scope",
    "cluster_effect",
    "commitment_from",
    "contract_digest",
    "counted",
    "data_quality",
    "design_effect",
    "e_benjamini_hochberg",
    "estimates",
    "exponential_histogram",
    "fed_all",
    "fit_tail",
    "hashed",
    "is_proven",
    "judge_counts",
    "judge_openings",
    "leaf_of",
    "leaves",
    "log_mixture_evidence",
    "needed",
    "opening_key",
    "opening_order",
    "permitted_delays",
    "session_groups",
    "signed_text",
    "verdict_record",
    "watched",
    "without_commitment",
]

"""Contracts from measurements: the least exponential tail that the data support with a stated confidence.

Order statistics bound a tail without a model: if delays are independent and alike, P(D > X_(i)) is at most a
Beta(n - i + 1, i) variable, whatever their law. Limits at a few ranks fixed in advance hold together with
probability 1 - alpha (Bonferroni), and between two ranks the limit of the left one holds. The contract is the
exponential that dominates this staircase. Below the last limit the data say nothing: `epsilon_floor`.

Dependent delays: thin them by `every` first; what is then assumed is independence at that distance.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.calculus.special import betaincinv
from aipaging.core.foundation.errors import InvalidInputError

SAMPLES_MIN: Final = 30
"""With fewer, the limits say little more than that delays are finite."""

_DECAYS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedContract:
    """A delay contract and how far it may be trusted.

    Attributes:
        contract: Holds for every probability down to `epsilon_floor`, with the confidence.
        epsilon_floor: Below it the contract is an extrapolation and must not be used.
        samples: How many delays were used, after thinning, timeouts included.
        confidence: 1 - alpha.
        assumption: What the confidence rests on.
    """

    contract: DelayContract
    epsilon_floor: float
    samples: int
    confidence: float
    assumption: str


def fit_delay_contract(
    delays_ms: Sequence[float], *, confidence: float = 0.95, timeouts: int = 0, every: int = 1
) -> FittedContract:
    """Return the contract that costs least delay at the floor.

    Args:
        delays_ms: Measured delays in the order of measurement.
        confidence: Probability, over the measurements, that the contract is true down to the floor.
        timeouts: Requests without an answer: longer than anything measured.
        every: Keep one delay in so many, for dependent measurements.

    Raises:
        InvalidInputError: Too few delays, negative ones, or more timeouts than can be bounded.
    """
    if not 0.0 < confidence < 1.0 or every < 1 or timeouts < 0:
        raise InvalidInputError("need 0 < confidence < 1, every >= 1 and timeouts >= 0", field="confidence")
    kept = np.sort(np.asarray(delays_ms, dtype=np.float64)[::every])
    if kept.size and not (np.isfinite(kept).all() and kept[0] >= 0.0):
        raise InvalidInputError("delays must be finite and >= 0; count the others as timeouts", field="delays_ms")
    total = kept.size + math.ceil(timeouts / every)
    if kept.size < SAMPLES_MIN:
        raise InvalidInputError(f"a contract needs at least {SAMPLES_MIN} delays, not {kept.size}", field="delays_ms")
    ranks = _ranks(total)
    limits = betaincinv(total - ranks + 1.0, ranks.astype(np.float64), 1.0 - (1.0 - confidence) / len(ranks))
    known = ranks <= kept.size
    at, limits = kept[ranks[known] - 1], limits[known]
    if len(at) < 3:
        raise InvalidInputError("too many timeouts: no tail can be bounded", field="timeouts")
    offset = float(at[0])
    # On [at_j, at_{j+1}) the tail is at most limits_j: the exponential must reach it at the right end.
    ends, steps = at[1:] - offset, limits[:-1]
    floor = float(steps[-1])
    spread = float(ends[-1])
    if spread <= 0.0:
        raise InvalidInputError("all delays are equal: sign a deterministic promise instead", field="delays_ms")
    decays = np.geomspace(0.01, 100.0, _DECAYS) / spread
    log_prefactors = np.max(np.log(steps)[None, :] + decays[:, None] * ends[None, :], axis=1)
    best = int(np.argmin((log_prefactors - math.log(floor)) / decays))
    contract = DelayContract(
        offset_ms=offset,
        prefactor=math.exp(float(log_prefactors[best])) * (1.0 + 1e-12),
        decay_per_ms=float(decays[best]),
    )
    return FittedContract(
        contract=contract,
        epsilon_floor=floor,
        samples=total,
        confidence=confidence,
        assumption="independent-identical" if every == 1 else f"independent-identical-at-distance-{every}",
    )


def _ranks(total: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return ranks whose exceedance counts halve: fixed before the data are seen."""
    counts: list[int] = []
    count = total // 2
    while count >= 1:
        counts.append(count)
        count //= 2
    return total - np.array(sorted({*counts, 0}, reverse=True), dtype=np.int64)


def least_burst(times: Sequence[float], works: Sequence[float], rate: float) -> float:
    """Return the least burst sigma with A(s, t) <= sigma + rate (t - s) over the whole trace.

    It is what the trace used, not a confidence limit: enforce it as a guardrail to make it true.

    Args:
        times: Arrival instants, not falling.
        works: Work of each arrival.
        rate: The sustained rate.

    Raises:
        InvalidInputError: Nothing given, unequal lengths, or times that fall.
    """
    at, work = np.asarray(times, dtype=np.float64), np.asarray(works, dtype=np.float64)
    if not len(at) or at.shape != work.shape or np.any(np.diff(at) < 0.0) or rate < 0.0:
        raise InvalidInputError("give arrivals in order, a work for each, and a rate >= 0", field="times")
    after = np.cumsum(work) - rate * at
    before = after - work
    return float(np.max(after - np.minimum.accumulate(before)))

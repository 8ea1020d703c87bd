"""From measured delays to a delay contract that holds with a stated confidence, conservative by construction.

Let Y be the delay of a request that was answered, and 0 for one that was not (those are counted by themselves, as loss
and error, and added at every delay). For a few levels k, fixed by the number of samples alone, let x_k be the
(k+1)-largest Y, so that k samples lie above it. Then

    P(Y > x_k) <= u_k   with probability at least 1 - alpha_k

where u_k is the Clopper-Pearson limit for k of n (for order statistics of independent samples it is exact, ties make
it conservative). With alpha_k summing to the share of the tail, all hold together. The tail falls, so between two
levels it is at most the limit of the level to the left: the *upper confidence band* is a staircase. Any exponential
above all of its corners is a contract that holds for every delay down to the floor u_0, which is the limit at the
largest sample; below the floor the samples say nothing, and `envelope_of` adds the floor to what is promised.

**Dependence.** Requests near in time share queues. The samples are put in order of time; if the ranks of their delays,
or their being among the largest tenth, are correlated over lags, blocks of b samples are taken, b twice the lag from
which on no correlation is seen. Under b-dependence the samples are b interleaved independent series, and by Hoeffding's
argument [Hoeffding1963, section 5] the Chernoff limit with n / b samples holds. So then u_k solves
KL(k/n || u) = ln(1/alpha_k) / (n / b). Assumed remains: stationarity, and no dependence beyond the blocks.

Which of all exponentials above the corners: the one with the least delay at the geometric middle between 1 and the
floor, a convex problem in 1/eta, solved at the crossings of its lines. The prefactor is 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.foundation.errors import InvalidInputError

SAMPLES_MIN: Final = 100
"""Fewer requests say nothing about a tail."""

EFFECTIVE_SAMPLES_MIN: Final = 50
"""With fewer blocks than that, stationarity cannot be told from drift."""

SAMPLES_MAX: Final = 20_000_000
"""As many as fit into memory with their ranks: 20 million need below 1 GB."""

LEVEL_RATIO: Final = 1.5
"""Between neighbouring levels: finer ones would cost confidence each, coarser ones height of the stairs."""

LAGS_MAX: Final = 2_000
"""Correlation over more samples than that is a trend, not a queue."""

QUIET_LAGS: Final = 5
"""So many lags in a row must be without correlation."""

QUIET_SIGMAS: Final = 3.5
"""A correlation within so many standard errors is none; a false alarm only makes the result more careful."""

INDEPENDENT: Final = "Clopper-Pearson per level"
BLOCKS: Final = "Chernoff per level over blocks"

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One corner of the upper confidence band: P(answered and delay > d) <= probability for every d >= delay_ms."""

    delay_ms: float
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What the measurements allow to promise.

    Attributes:
        contract: P(answered, and later than d) <= max(contract at d, epsilon_floor), for every d.
        loss: Upper limit of the probability of loss.
        error: Upper limit of the probability of a failure, time-out, or unknown delay.
        epsilon_floor: Below it the measurements say nothing.
        samples: All requests.
        effective_samples: What they are worth as independent ones.
        block: Samples per block; 1 where no correlation was found.
        confidence: Probability that everything above holds together.
        method: How, and under which assumption.
        band: The corners that the contract lies above, from the largest delay on.
    """

    contract: DelayContract
    loss: float
    error: float
    epsilon_floor: float
    samples: int
    effective_samples: int
    block: int
    confidence: float
    method: str
    band: tuple[Band, ...]


def fitted(answered_ms: Sequence[float] | Samples, *, lost: int, failed: int, confidence: float = 0.95) -> Fit:
    """Return the contract that dominates the upper confidence band of measured delays.

    Args:
        answered_ms: Delays of the answered requests in the order of their start, which dependence is judged by.
        lost: Requests that were lost.
        failed: Requests that failed, timed out, or whose delay is unknown.
        confidence: Probability with which contract, floor, loss and error hold together.

    Raises:
        InvalidInputError: Too few, or too dependent, or not delays; or a confidence outside (0, 1).
    """
    delays = np.asarray(answered_ms, dtype=np.float64)
    samples = len(delays) + lost + failed
    _require(delays, samples, confidence)
    block = _block(delays)
    effective = samples // block
    if effective < EFFECTIVE_SAMPLES_MIN:
        raise InvalidInputError(
            f"the delays are correlated over {block} requests, so that {samples} of them are worth {effective}: at "
            f"least {EFFECTIVE_SAMPLES_MIN} are needed. Measure longer",
            code="TOO_DEPENDENT",
        )
    # A third of the doubt for each: tail, loss, error.
    alpha = (1.0 - confidence) / 3.0
    limit = _Limit(samples=samples, effective=effective)
    band = _band(delays, limit, alpha)
    floor = band[0].probability
    assumed = "independent and stationary" if block == 1 else f"stationary, independent beyond {block} requests"
    return Fit(
        contract=_dominating(band),
        loss=limit.of(lost, alpha),
        error=limit.of(failed, alpha),
        epsilon_floor=floor,
        samples=samples,
        effective_samples=effective,
        block=block,
        confidence=confidence,
        method=f"{INDEPENDENT if block == 1 else BLOCKS}, {len(band) - 1} levels by union; assumed {assumed}",
        band=band,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limit:
    samples: int
    effective: int

    def of(self, count: int, alpha: float) -> float:
        """Return the upper limit of a probability of which `count` cases were seen, rounded up."""
        if count >= self.samples:
            return 1.0
        if self.effective == self.samples:
            exact = float(betaincinv(count + 1, self.samples - count, 1.0 - alpha))
            return min(1.0, exact * (1.0 + 1e-9))
        return _chernoff(count / self.samples, math.log(1.0 / alpha) / self.effective)


def _chernoff(share: float, divergence: float) -> float:
    """Return the largest u with KL(share || u) <= divergence, rounded up."""
    low, high = share, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        if _kullback_leibler(share, middle) <= divergence:
            low = middle
        else:
            high = middle
    return min(1.0, high * (1.0 + 1e-9))


def _kullback_leibler(share: float, other: float) -> float:
    left = share * math.log(share / other) if share > 0.0 else 0.0
    right = (1.0 - share) * (math.log1p(-share) - math.log1p(-other)) if share < 1.0 else 0.0
    return left + right


def _levels(samples: int) -> list[int]:
    """Return how many samples lie above each corner, from 0 on; fixed before the delays are looked at."""
    levels = [0, 1]
    while levels[-1] * LEVEL_RATIO < samples * 0.9:
        levels.append(max(levels[-1] + 1, int(levels[-1] * LEVEL_RATIO)))
    return [level for level in levels if level < samples]


def _band(delays: Samples, limit: _Limit, alpha: float) -> tuple[Band, ...]:
    """Return the corners: at x_k the limit of level k, and the probability 1 at delay 0."""
    levels = _levels(limit.samples)
    # Those that were not answered stand at 0: they are not late, they are lost or failed.
    ordered = np.sort(delays)[::-1]
    corners = [
        Band(
            delay_ms=float(ordered[level]) if level < len(ordered) else 0.0,
            probability=limit.of(level, alpha / len(levels)),
        )
        for level in levels
    ]
    return (*corners, Band(delay_ms=0.0, probability=1.0))


def _dominating(band: Sequence[Band]) -> DelayContract:
    """Return an exponential of prefactor 1 above every corner of the staircase.

    From delay x_(j+1) up to x_j the band is at u_(j+1), so the line must be at least u_(j+1) at x_j. With s = 1/eta, an
    exponential above all corners has its offset at T(s) = max_j (x_j + s ln u_(j+1)), and is at the level l at the
    delay T(s) - s ln l: convex in s, with its least value where two lines cross.
    """
    delays = np.array([corner.delay_ms for corner in band[:-1]])
    log_limits = np.log([corner.probability for corner in band[1:]])
    log_middle = 0.5 * math.log(band[0].probability)
    scale_min = max(float(delays[0]) * 1e-6, 1e-6)
    slopes = log_limits - log_middle
    rise = slopes[:, None] - slopes[None, :]
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = (delays[None, :] - delays[:, None]) / rise
    scales = np.append(crossings[np.isfinite(crossings) & (crossings > scale_min)], scale_min)
    values = np.max(delays[None, :] + scales[:, None] * slopes[None, :], axis=1)
    scale = float(scales[int(np.argmin(values))]) * (1.0 + 1e-12)
    offset_ms = max(0.0, float(np.max(delays + scale * log_limits)))
    return DelayContract(offset_ms=offset_ms * (1.0 + 1e-9) + 1e-9 * scale, prefactor=1.0, decay_per_ms=1.0 / scale)


def _block(delays: Samples) -> int:
    """Return the samples per block: 1 without correlation, else twice the lag from which on none is seen."""
    # Equal delays share a rank: an order among them would be that of time, and look like a trend.
    _, place, equal = np.unique(delays, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(equal) - 0.5 * equal)[place]
    largest = (ranks >= 0.9 * len(ranks)).astype(np.float64)
    quiet = max(_quiet_lag(ranks), _quiet_lag(largest))
    return 1 if quiet <= 1 else 2 * quiet


def _quiet_lag(series: Samples) -> int:
    """Return the first lag from which on `QUIET_LAGS` lags show no correlation."""
    n = len(series)
    centred = series - series.mean()
    lags = min(LAGS_MAX, n // 4)
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(centred, size)
    products = np.fft.irfft(spectrum * np.conj(spectrum), size)[: lags + 1]
    if products[0] <= 0.0:
        return 1
    loud = np.abs(products / products[0]) > QUIET_SIGMAS / math.sqrt(n)
    silent = 0
    for lag in range(1, lags + 1):
        silent = 0 if loud[lag] else silent + 1
        if silent == QUIET_LAGS:
            return lag - QUIET_LAGS + 1
    return lags


def _require(delays: Samples, samples: int, confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("the confidence must lie strictly between 0 and 1", field="confidence")
    if not SAMPLES_MIN <= samples <= SAMPLES_MAX:
        raise InvalidInputError(
            f"there are {samples} requests: {SAMPLES_MIN} to {SAMPLES_MAX} are needed", code="TOO_FEW_SAMPLES"
        )
    if len(delays) < SAMPLES_MIN:
        raise InvalidInputError(
            f"only {len(delays)} requests were answered with a known delay: at least {SAMPLES_MIN} are needed",
            code="TOO_FEW_SAMPLES",
        )
    if not bool(np.all(np.isfinite(delays)) and np.all(delays >= 0.0)):
        raise InvalidInputError("delays must be finite and at least 0", field="delay")

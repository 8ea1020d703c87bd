"""Arrivals from a trace: the least envelope of a kind that the trace supports, with a stated confidence.

A trace is one path. What it says about the next one rests on an assumption, and every fit names its own:

* `fit_token_bucket`, `fit_exponentially_bounded`: stationary, windows a window apart independent (block mixing). Each
  window gives one number; the upper limits of its tail are distribution-free (order statistics, as for delays).
* `fit_slotted`: slots independent and alike; a law of the work that dominates the confidence band stochastically.
* `fit_compound_poisson`: Poisson arrivals (tested), independent work; the upper limit of the rate, a dominating law.
* `fit_on_off`: a stationary chain of two states (tested); limits of its two probabilities and of the peak.

Below `epsilon_floor` the trace says nothing: there the envelope is an extrapolation. A guardrail on the work
(`work_max`) that somebody enforces replaces the floor.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.arrivals import Arrival, CompoundPoisson, SlottedWork
from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.errors import require_positive
from aipaging.core.calculus.fit import fit_delay_contract
from aipaging.core.calculus.fit_tests import (
    SIGMAS_MAX,
    TEST_LEVEL,
    Floats,
    correlation_sigmas,
    markov_p_value,
    poisson_p_value,
    upper_rate,
)
from aipaging.core.calculus.onoff import SlottedOnOff
from aipaging.core.calculus.regulated import ExponentiallyBounded
from aipaging.core.calculus.special import betaincinv
from aipaging.core.calculus.work import ConstantWork, DiscreteWork, Work
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

SAMPLES_MIN: Final = 30
"""Fewer windows, slots or arrivals support no tail."""

_BODY: Final = 24
_TAIL_RATIO: Final = 1.5
"""Finer corners would cost confidence each, coarser ones height of the stairs."""

SLOTS_MAX: Final = 50_000_000
"""As many as fit into memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedArrival:
    """An envelope of arrivals and how far it may be trusted.

    Attributes:
        arrival: The envelope.
        epsilon_floor: Below it the envelope is an extrapolation; 0 where a guardrail bounds the work.
        samples: Windows, slots or arrivals it rests on.
        confidence: Probability, over traces, that the envelope holds down to the floor.
        assumption: What the confidence rests on.
        mean_rate: Measured work per unit of time.
        p_value: Of the test of the assumption; None where it is not tested.
    """

    arrival: Arrival
    epsilon_floor: float
    samples: int
    confidence: float
    assumption: str
    mean_rate: float
    p_value: float | None = None


class AssumptionRejectedError(RefusedError):
    """The trace contradicts what the fit would assume."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="ASSUMPTION_REJECTED", field="kind")


class Trace:
    """Arrival times and works, checked once.

    Attributes:
        times: Not falling.
        works: Not negative.
        span: Time observed.
    """

    __slots__ = ("span", "times", "works")

    def __init__(self, times: Sequence[float] | Floats, works: Sequence[float] | Floats) -> None:
        """Check a trace.

        Raises:
            InvalidInputError: Too few arrivals, unequal lengths, times that fall, or works that are no amounts.
        """
        self.times = np.asarray(times, dtype=np.float64)
        self.works = np.asarray(works, dtype=np.float64)
        if self.times.shape != self.works.shape or len(self.times) < SAMPLES_MIN:
            raise InvalidInputError(f"a trace needs a work for each of at least {SAMPLES_MIN} arrivals", field="times")
        if not np.isfinite(self.times).all() or np.any(np.diff(self.times) < 0.0):
            raise InvalidInputError("arrival times must be finite and must not fall", field="times")
        if not np.isfinite(self.works).all() or np.any(self.works < 0.0):
            raise InvalidInputError("works must be finite and >= 0", field="works")
        self.span = float(self.times[-1] - self.times[0])
        require_positive(span=self.span)

    @property
    def mean_rate(self) -> float:
        """Work per unit of time, of the arrivals after the first."""
        return float(self.works[1:].sum()) / self.span

    def window_bursts(self, rate: float, window: float, *, at_end: bool) -> Floats:
        """Return what each window needs beyond the rate, every second window being left out.

        Args:
            rate: The sustained rate.
            window: Length of a window, and of what is left out between two.
            at_end: The largest A(s, t) - rate (t - s) for t the end of the window; else over all t in it.
        """
        count = int((self.span / window + 1.0) // 2.0)
        if count < SAMPLES_MIN:
            raise InvalidInputError(
                f"the trace holds {count} windows of {window:g} that are a window apart; {SAMPLES_MIN} are needed",
                field="window",
            )
        starts = self.times[0] + 2.0 * window * np.arange(count)
        left = np.searchsorted(self.times, starts, side="left")
        right = np.searchsorted(self.times, starts + window, side="left")
        sums = np.concatenate([[0.0], np.cumsum(self.works)])
        bursts = np.zeros(count)
        for k, (i, j, start) in enumerate(zip(left, right, starts, strict=True)):
            if i == j:
                continue
            at = self.times[i:j] - start
            before, after = sums[i:j] - rate * at, sums[i + 1 : j + 1] - rate * at
            if at_end:
                bursts[k] = max(0.0, float(sums[j] - rate * window - before.min()))
            else:
                bursts[k] = float(np.max(after - np.minimum.accumulate(before)))
        return bursts

    def slots(self, slot: float) -> Floats:
        """Return the work of every whole slot."""
        require_positive(slot=slot)
        count = math.floor(self.span / slot)
        if not SAMPLES_MIN <= count <= SLOTS_MAX:
            raise InvalidInputError(
                f"the trace holds {count} slots of {slot:g}; {SAMPLES_MIN} to {SLOTS_MAX} are allowed", field="slot"
            )
        place = np.floor((self.times - self.times[0]) / slot).astype(np.int64)
        inside = place < count
        return np.asarray(np.bincount(place[inside], weights=self.works[inside], minlength=count), dtype=np.float64)


def fit_token_bucket(trace: Trace, *, rate: float, window: float, confidence: float = 0.95) -> FittedArrival:
    """Return the least burst that a window of the given length stays within, except with probability epsilon_floor.

    Raises:
        InvalidInputError: Too few windows, or a rate or window that is not positive.
        AssumptionRejectedError: The bursts of windows are correlated.
    """
    require_positive(rate=rate, window=window)
    bursts = trace.window_bursts(rate, window, at_end=False)
    _require_uncorrelated(bursts, "windows")
    return FittedArrival(
        arrival=TokenBucket(burst=float(bursts.max()), rate=rate),
        epsilon_floor=_floor(len(bursts), confidence),
        samples=len(bursts),
        confidence=confidence,
        assumption=f"stationary, windows of {window:g} independent when a window apart",
        mean_rate=trace.mean_rate,
    )


def burst_curve(
    trace: Trace, rates: Sequence[float], *, window: float, confidence: float = 0.95
) -> tuple[tuple[float, float, float], ...]:
    """Return (rate, burst, epsilon) for several rates, all holding together with the confidence (Bonferroni)."""
    each = 1.0 - (1.0 - confidence) / max(1, len(rates))
    found: list[tuple[float, float, float]] = []
    for rate in rates:
        bursts = trace.window_bursts(rate, window, at_end=False)
        found.append((rate, float(bursts.max()), _floor(len(bursts), each)))
    return tuple(found)


def fit_exponentially_bounded(trace: Trace, *, rate: float, window: float, confidence: float = 0.95) -> FittedArrival:
    """Return M and b with P(A(s, t) > rate (t - s) + x) <= M exp(-b x) for all s in the window before t.

    It is fitted to sup_s A(s, t) - rate (t - s), so it holds for all s together (a sample-path envelope).

    Raises:
        InvalidInputError: Too few windows, a rate or window that is not positive, or no burst at all.
        AssumptionRejectedError: The bursts of windows are correlated.
    """
    require_positive(rate=rate, window=window)
    bursts = trace.window_bursts(rate, window, at_end=True)
    _require_uncorrelated(bursts, "windows")
    fitted = fit_delay_contract(bursts.tolist(), confidence=confidence)
    contract = fitted.contract
    prefactor = max(1.0, contract.prefactor) * math.exp(contract.decay_per_ms * contract.offset_ms) * (1.0 + 1e-12)
    return FittedArrival(
        arrival=ExponentiallyBounded(rate=rate, prefactor=prefactor, decay=contract.decay_per_ms),
        epsilon_floor=fitted.epsilon_floor,
        samples=fitted.samples,
        confidence=confidence,
        assumption=f"stationary, windows of {window:g} independent when a window apart; intervals within a window",
        mean_rate=trace.mean_rate,
    )


def fit_slotted(trace: Trace, *, slot: float, work_max: float | None = None, confidence: float = 0.95) -> FittedArrival:
    """Return independent slots, each with a law that dominates the work of a slot; time is counted in slots.

    Its moment generating function is an envelope rho(theta) = ln E exp(theta a) / theta with sigma = 0.

    Args:
        trace: The arrivals.
        slot: Length of a slot.
        work_max: Work of a slot that a guardrail enforces.
        confidence: That the law dominates.

    Raises:
        InvalidInputError: Too few slots, or more work in one than the guardrail allows.
        AssumptionRejectedError: The slots are correlated.
    """
    works = trace.slots(slot)
    _require_uncorrelated(works, "slots")
    law = dominating_law(works, work_max, 1.0 - confidence)
    return FittedArrival(
        arrival=SlottedWork(works=(law,)),
        epsilon_floor=0.0 if work_max is not None else _floor(len(works), confidence),
        samples=len(works),
        confidence=confidence,
        assumption="slots independent and alike",
        mean_rate=float(works.mean()),
    )


def fit_compound_poisson(trace: Trace, *, work_max: float | None = None, confidence: float = 0.95) -> FittedArrival:
    """Return Poisson arrivals at the upper limit of their rate, with a law that dominates the work of one.

    Half of the doubt is for the rate, half for the work. Works that are all equal are taken for constant.

    Raises:
        InvalidInputError: More work in an arrival than the guardrail allows, or no work at all.
        AssumptionRejectedError: The times are not Poisson, or the works are correlated.
    """
    p_value = poisson_p_value(trace.times)
    if p_value < TEST_LEVEL:
        raise AssumptionRejectedError(
            f"the arrivals are not Poisson (p = {p_value:.2g} < {TEST_LEVEL:g}): fit exponentially-bounded instead"
        )
    constant = float(np.ptp(trace.works)) == 0.0
    work: Work
    if constant:
        work = ConstantWork(value=float(trace.works[0]))
    else:
        _require_uncorrelated(trace.works, "works")
        work = dominating_law(trace.works, work_max, (1.0 - confidence) / 2.0)
    n = len(trace.times)
    free = constant or work_max is not None
    return FittedArrival(
        arrival=CompoundPoisson(rate=upper_rate(n - 1, trace.span, (1.0 - confidence) / 2.0), work=work),
        epsilon_floor=0.0 if free else _floor(n, 1.0 - (1.0 - confidence) / 2.0),
        samples=n,
        confidence=confidence,
        assumption="Poisson (not rejected), works independent and alike" + (", constant" if constant else ""),
        mean_rate=trace.mean_rate,
        p_value=p_value,
    )


def fit_on_off(trace: Trace, *, slot: float, work_max: float | None = None, confidence: float = 0.95) -> FittedArrival:
    """Return a stationary on/off flow in slots: on where there is work; time is counted in slots.

    The limits make it burstier and busier: the largest probability to stay on, the least to stay off (Clopper-Pearson,
    a third of the doubt each), and the largest work of a slot, or the guardrail, as peak. If they do not sum to at
    least 1 the dominance argument does not apply, and the chain is refused.

    Raises:
        InvalidInputError: Too few slots or changes, or more work in a slot than the guardrail allows.
        AssumptionRejectedError: The states are not Markov, or alternate.
    """
    works = trace.slots(slot)
    on = works > 0.0
    p_value = markov_p_value(on)
    if p_value < TEST_LEVEL:
        raise AssumptionRejectedError(
            f"the on/off states are not a chain (p = {p_value:.2g} < {TEST_LEVEL:g}): fit exponentially-bounded instead"
        )
    stayed_on, left_on = np.count_nonzero(on[:-1] & on[1:]), np.count_nonzero(on[:-1] & ~on[1:])
    stayed_off, left_off = np.count_nonzero(~on[:-1] & ~on[1:]), np.count_nonzero(~on[:-1] & on[1:])
    if min(left_on, left_off) == 0:
        raise InvalidInputError("the flow does not change between on and off in these slots", field="slot")
    alpha = (1.0 - confidence) / 3.0
    stay_on = float(betaincinv(stayed_on + 1.0, left_on, 1.0 - alpha))
    stay_off = 0.0 if stayed_off == 0 else float(betaincinv(stayed_off, left_off + 1.0, alpha))
    if stay_on + stay_off < 1.0:
        raise AssumptionRejectedError("the flow alternates rather than bursts in slots: fit slotted, or longer slots")
    peak = _capped(works, work_max)
    return FittedArrival(
        arrival=SlottedOnOff(count=1, stay_off=stay_off, stay_on=stay_on, peak=peak),
        epsilon_floor=0.0 if work_max is not None else _floor(int(np.count_nonzero(on)), 1.0 - alpha),
        samples=len(works),
        confidence=confidence,
        assumption="stationary chain of two states (not rejected), at most the peak in a slot",
        mean_rate=float(works.mean()),
        p_value=p_value,
    )


def dominating_law(values: Floats, largest: float | None, alpha: float) -> DiscreteWork:
    """Return a law that dominates, stochastically and with confidence 1 - alpha, the law of independent values.

    At ranks fixed beforehand P(X > x_k) <= u_k (order statistics); between two of them the limit of the lower holds, so
    the law that jumps from one limit to the next at the upper end dominates. Above the largest value: the guardrail.

    Raises:
        InvalidInputError: No work at all, or more than the guardrail allows.
    """
    cap = _capped(values, largest)
    if cap <= 0.0:
        raise InvalidInputError("there is no work in the trace", field="works")
    ordered = np.sort(values)
    n = len(ordered)
    above = _ranks(n)
    limits = betaincinv(above + 1.0, (n - above).astype(np.float64), 1.0 - alpha / len(above))
    corners = ordered[n - 1 - above]
    steps = np.diff(np.concatenate([[0.0], limits, [1.0]]))
    ends = np.concatenate([[cap], corners])
    held, place = np.unique(ends, return_inverse=True)
    probabilities = np.bincount(place, weights=np.maximum(steps, 0.0))
    return DiscreteWork(
        values=tuple(held.tolist()), probabilities=tuple((probabilities / probabilities.sum()).tolist())
    )


def _ranks(samples: int) -> NDArray[np.int64]:
    """Return how many values lie above each corner: geometric in the tail, even in the body."""
    counts = {0, *(k * samples // _BODY for k in range(1, _BODY))}
    count = 1
    while count < samples // _BODY:
        counts.add(count)
        count = max(count + 1, int(count * _TAIL_RATIO))
    return np.array(sorted(counts), dtype=np.int64)


def _capped(values: Floats, largest: float | None) -> float:
    seen = float(values.max())
    if largest is None:
        return seen
    if seen > largest:
        raise InvalidInputError(f"the trace has a work of {seen:g}, above the guardrail {largest:g}", field="work_max")
    return largest


def _floor(samples: int, confidence: float) -> float:
    """Return the upper limit of the probability of what no sample showed."""
    if not 0.0 < confidence < 1.0:
        raise InvalidInputError("the confidence must lie strictly between 0 and 1", field="confidence")
    return -math.expm1(math.log1p(-confidence) / samples) * (1.0 + 1e-12)


def _require_uncorrelated(series: Floats, what: str) -> None:
    sigmas = correlation_sigmas(series)
    if sigmas > SIGMAS_MAX:
        raise AssumptionRejectedError(
            f"the {what} are correlated ({sigmas:.1f} standard errors): take longer ones, or a longer trace"
        )

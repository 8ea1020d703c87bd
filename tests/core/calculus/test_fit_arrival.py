"""Arrival fits: they cover the truth as often as they say, and refuse what contradicts their assumption."""

import gzip
import math
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from aipaging.core.calculus.arrivals import CompoundPoisson, SlottedWork
from aipaging.core.calculus.deterministic import TokenBucket
from aipaging.core.calculus.fit_arrival import (
    AssumptionRejectedError,
    FittedArrival,
    Trace,
    burst_curve,
    dominating_law,
    fit_compound_poisson,
    fit_exponentially_bounded,
    fit_on_off,
    fit_slotted,
    fit_token_bucket,
)
from aipaging.core.calculus.fit_tests import correlation_sigmas, markov_p_value, poisson_p_value
from aipaging.core.calculus.onoff import SlottedOnOff
from aipaging.core.calculus.regulated import ExponentiallyBounded
from aipaging.core.calculus.work import ConstantWork, DiscreteWork
from aipaging.core.foundation.errors import InvalidInputError

TRIALS = 120
CONFIDENCE = 0.9
Draw = Callable[[np.random.Generator, int], np.ndarray]
Tail = Callable[[np.ndarray], np.ndarray]
FITTED_MIN = 0.9
"""Tests at 1 % and correlations at four sigma refuse few traces of the right kind."""


class Coverage:
    """How often an envelope held, of the traces that were not refused: a refusal covers nothing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = self.fitted = self.refused = 0

    def count(self, held: bool | None) -> None:
        """Count one trace; None was refused."""
        if held is None:
            self.refused += 1
        else:
            self.fitted += 1
            self.held += held

    def require(self) -> None:
        """Fewer than promised by four standard deviations is a failure."""
        rate = self.held / self.fitted
        print(f"coverage: {self.name}: {self.held} of {self.fitted} held, {self.refused} refused, {rate:.3f}")
        assert rate >= CONFIDENCE - 4.0 * math.sqrt(CONFIDENCE * (1.0 - CONFIDENCE) / self.fitted)
        assert self.fitted >= FITTED_MIN * (self.fitted + self.refused)


def fitted_or_refused(fit: Callable[[], FittedArrival]) -> FittedArrival | None:
    try:
        return fit()
    except AssumptionRejectedError:
        return None


def poisson(rng: np.random.Generator, count: int, rate: float = 1.0) -> np.ndarray:
    return np.cumsum(rng.exponential(1.0 / rate, count))


LAWS: dict[str, tuple[Draw, Tail]] = {
    "exponential": (lambda rng, n: rng.exponential(2.0, n), lambda x: np.exp(-x / 2.0)),
    "uniform from 1": (lambda rng, n: rng.uniform(1.0, 5.0, n), lambda x: np.clip((5.0 - x) / 4.0, 0.0, 1.0)),
    "log-normal": (
        lambda rng, n: rng.lognormal(0.0, 1.0, n),
        lambda x: np.array([0.5 * math.erfc(math.log(max(v, 1e-12)) / math.sqrt(2.0)) for v in x]),
    ),
    "tokens": (lambda rng, n: rng.geometric(0.1, n).astype(float), lambda x: 0.9 ** np.floor(np.maximum(x, 0.0))),
}


def tail_of(law: DiscreteWork, x: np.ndarray) -> np.ndarray:
    values, probabilities = np.array(law.values), np.array(law.probabilities)
    return np.array([probabilities[values > at].sum() for at in x])


@pytest.mark.parametrize("name", LAWS)
def test_a_law_dominates_as_often_as_it_says(name: str) -> None:
    draw, tail = LAWS[name]
    rng = np.random.default_rng(8)
    coverage = Coverage(f"work, {name}")
    for _ in range(TRIALS):
        law = dominating_law(draw(rng, 500), 1e9, 1.0 - CONFIDENCE)
        x = np.concatenate([np.array(law.values) * (1.0 - 1e-12), np.linspace(0.0, 30.0, 200)])
        coverage.count(bool(np.all(tail_of(law, x) >= tail(x) - 1e-12)))
    coverage.require()


def test_compound_poisson_covers_its_rate_and_work() -> None:
    rng = np.random.default_rng(3)
    coverage = Coverage("poisson: rate and work together")
    x = np.linspace(0.0, 20.0, 200)
    for _ in range(TRIALS):
        trace = Trace(poisson(rng, 400), rng.exponential(1.0, 400))
        found = fitted_or_refused(partial(fit_compound_poisson, trace, work_max=50.0, confidence=CONFIDENCE))
        if found is None:
            coverage.count(None)
            continue
        arrival = found.arrival
        assert isinstance(arrival, CompoundPoisson)
        assert isinstance(arrival.work, DiscreteWork)
        coverage.count(arrival.rate >= 1.0 and bool(np.all(tail_of(arrival.work, x) >= np.exp(-x) * (1 - 1e-9))))
    coverage.require()


def bursts_of_windows(times: np.ndarray, works: np.ndarray, rate: float, window: float) -> np.ndarray:
    """Return sup_s A(s, t) - rate (t - s) at the end of each of many windows, by brute force."""
    ends = np.arange(window, times[-1], window)
    found = []
    for end in ends:
        inside = (times >= end - window) & (times < end)
        at, work = times[inside], works[inside]
        found.append(max([0.0, *(work[i:].sum() - rate * (end - at[i]) for i in range(len(at)))]))
    return np.array(found)


def test_exponential_bounds_cover_as_often_as_they_say() -> None:
    rng = np.random.default_rng(9)
    rate, window = 1.5, 20.0
    times = poisson(rng, 400_000)
    works = rng.exponential(1.0, 400_000)
    truth = np.sort(bursts_of_windows(times[:200_000], works[:200_000], rate, window))
    coverage = Coverage("exponentially-bounded, against brute force")
    x = np.linspace(0.0, 12.0, 60)
    exceeded = 1.0 - np.searchsorted(truth, x, side="right") / len(truth)
    for _ in range(60):
        trace = Trace(poisson(rng, 10_000), rng.exponential(1.0, 10_000))
        found = fitted_or_refused(
            partial(fit_exponentially_bounded, trace, rate=rate, window=window, confidence=CONFIDENCE)
        )
        if found is None:
            coverage.count(None)
            continue
        bound = found.arrival
        assert isinstance(bound, ExponentiallyBounded)
        promised = np.maximum(np.minimum(1.0, bound.prefactor * np.exp(-bound.decay * x)), found.epsilon_floor)
        coverage.count(bool(np.all(exceeded <= promised * 1.02 + 5e-4)))
    coverage.require()


def test_a_token_bucket_covers_a_new_window_as_often_as_it_says() -> None:
    rng = np.random.default_rng(4)
    fresh = Trace(poisson(rng, 400_000), np.ones(400_000)).window_bursts(1.2, 20.0, at_end=False)
    coverage = Coverage("token-bucket, in fresh windows")
    for _ in range(TRIALS):
        trace = Trace(poisson(rng, 3000), np.ones(3000))
        found = fitted_or_refused(partial(fit_token_bucket, trace, rate=1.2, window=20.0, confidence=CONFIDENCE))
        if found is None:
            coverage.count(None)
            continue
        assert isinstance(found.arrival, TokenBucket)
        coverage.count(float(np.mean(fresh > found.arrival.burst)) <= found.epsilon_floor)
    coverage.require()


def test_a_higher_rate_needs_less_burst() -> None:
    trace = Trace(poisson(np.random.default_rng(1), 5000), np.ones(5000))
    curve = burst_curve(trace, [1.1, 1.5, 2.0, 4.0], window=20.0)
    bursts = [burst for _, burst, _ in curve]
    assert bursts == sorted(bursts, reverse=True)
    one = fit_token_bucket(trace, rate=1.5, window=20.0)
    assert curve[1][1] == one.arrival.burst  # type: ignore[union-attr]
    assert curve[1][2] > one.epsilon_floor, "several rates at once share the doubt"


def chain(rng: np.random.Generator, slots: int, stay_off: float, stay_on: float) -> np.ndarray:
    change = rng.random(slots)
    on = np.zeros(slots, dtype=bool)
    for i in range(1, slots):
        on[i] = change[i] < stay_on if on[i - 1] else change[i] >= stay_off
    return on


def on_off_trace(on: np.ndarray) -> Trace:
    times = np.concatenate([np.flatnonzero(on) + 0.5, [len(on)]])
    return Trace(times.tolist(), np.append(np.full(len(times) - 1, 2.0), 0.0))


def test_on_off_covers_both_probabilities() -> None:
    rng = np.random.default_rng(6)
    coverage = Coverage("slotted-on-off: both probabilities")
    for _ in range(TRIALS):
        on = chain(rng, 3000, 0.9, 0.8)
        on[0] = True
        found = fitted_or_refused(partial(fit_on_off, on_off_trace(on), slot=1.0, work_max=2.0, confidence=CONFIDENCE))
        if found is None:
            coverage.count(None)
            continue
        flow = found.arrival
        assert isinstance(flow, SlottedOnOff)
        coverage.count(flow.stay_on >= 0.8 and flow.stay_off <= 0.9 and flow.peak == 2.0)
    coverage.require()


def test_slots_cover_the_moment_generating_function() -> None:
    rng = np.random.default_rng(10)
    coverage = Coverage("slotted: moments at every theta")
    thetas = np.linspace(0.02, 2.0, 40)
    for _ in range(TRIALS):
        trace = Trace(poisson(rng, 1500), np.ones(1500))
        found = fitted_or_refused(partial(fit_slotted, trace, slot=1.0, work_max=20.0, confidence=CONFIDENCE))
        if found is None:
            coverage.count(None)
            continue
        slots = found.arrival
        assert isinstance(slots, SlottedWork)
        coverage.count(all(slots.log_mgf(theta) >= math.expm1(theta) for theta in thetas))
    coverage.require()


def test_slots_have_a_moment_generating_function_above_the_truth() -> None:
    rng = np.random.default_rng(2)
    times = poisson(rng, 20_000)
    fitted = fit_slotted(Trace(times, np.ones(20_000)), slot=1.0, work_max=20.0)
    assert isinstance(fitted.arrival, SlottedWork)
    assert fitted.epsilon_floor == 0.0
    for theta in (0.1, 0.5, 1.0):
        truth = math.expm1(theta)
        assert truth < fitted.arrival.log_mgf(theta)
    # Not only safe: the mean is near the truth.
    assert fitted.arrival.mean_rate < 1.25


def test_the_tests_see_what_they_are_for() -> None:
    rng = np.random.default_rng(5)
    steady = poisson(rng, 2000)
    assert poisson_p_value(steady) > 0.01
    assert poisson_p_value(np.arange(2000.0)) < 1e-6, "too regular"
    assert poisson_p_value(steady**1.2) < 1e-6, "drifts"
    bursty = np.cumsum(rng.exponential(np.where(rng.random(2000) < 0.1, 10.0, 0.1)))
    assert poisson_p_value(bursty) < 1e-6
    assert markov_p_value(chain(rng, 5000, 0.9, 0.8)) > 0.01
    assert markov_p_value(np.arange(5000) % 7 < 3) < 1e-6
    assert correlation_sigmas(rng.exponential(1.0, 2000)) < 4.0
    assert correlation_sigmas(np.sin(np.arange(2000) / 20.0)) > 20.0
    assert correlation_sigmas(np.ones(100)) == 0.0


def test_levels_of_the_tests_are_kept() -> None:
    rng = np.random.default_rng(12)
    refused = sum(poisson_p_value(poisson(rng, 300)) < 0.05 for _ in range(400))
    # At 5 %, 20 are expected; the two halves are joined by Bonferroni, so it is at most that.
    assert refused <= 38
    chains = sum(markov_p_value(chain(rng, 400, 0.8, 0.7)) < 0.05 for _ in range(200))
    assert chains <= 24


def test_assumptions_that_the_trace_contradicts_are_refused() -> None:
    rng = np.random.default_rng(7)
    regular = Trace(np.arange(3000.0), np.ones(3000))
    with pytest.raises(AssumptionRejectedError, match="not Poisson"):
        fit_compound_poisson(regular)
    drifting = Trace((np.sort(rng.random(20_000) ** 2) * 4000.0).tolist(), np.ones(20_000))
    with pytest.raises(AssumptionRejectedError, match="correlated"):
        fit_slotted(drifting, slot=1.0)
    with pytest.raises(AssumptionRejectedError, match="correlated"):
        fit_token_bucket(drifting, rate=8.0, window=10.0)
    blocks = np.flatnonzero(np.arange(4000) % 7 < 3) + 0.5
    with pytest.raises(AssumptionRejectedError, match="not a chain"):
        fit_on_off(Trace(blocks.tolist(), np.ones(len(blocks))), slot=1.0)


def test_constant_work_is_seen() -> None:
    trace = Trace(poisson(np.random.default_rng(1), 1000), np.full(1000, 3.0))
    fitted = fit_compound_poisson(trace)
    assert fitted.arrival.work == ConstantWork(value=3.0)  # type: ignore[union-attr]
    assert fitted.epsilon_floor == 0.0
    assert fitted.p_value is not None


@pytest.mark.parametrize(
    "call",
    [
        lambda: Trace([1.0] * 10, [1.0] * 10),
        lambda: Trace(np.arange(40.0), np.ones(39)),
        lambda: Trace(-np.arange(40.0), np.ones(40)),
        lambda: Trace(np.arange(40.0), -np.ones(40)),
        lambda: Trace(np.ones(40), np.ones(40)),
        lambda: fit_token_bucket(Trace(np.arange(40.0), np.ones(40)), rate=1.0, window=10.0),
        lambda: fit_slotted(Trace(np.arange(40.0), np.ones(40)), slot=10.0),
        lambda: fit_slotted(Trace(np.arange(40.0), np.ones(40)), slot=1.0, work_max=0.5),
        lambda: fit_on_off(Trace(np.arange(80.0), np.ones(80)), slot=1.0),
        lambda: fit_slotted(Trace(np.arange(40.0), np.zeros(40)), slot=1.0),
    ],
)
def test_what_cannot_be_fitted_is_refused(call: object) -> None:
    with pytest.raises(InvalidInputError):
        call()  # type: ignore[operator]


def test_the_unit_of_time_does_not_matter() -> None:
    times = poisson(np.random.default_rng(5), 3000)
    one = fit_exponentially_bounded(Trace(times, np.ones(3000)), rate=1.5, window=10.0).arrival
    other = fit_exponentially_bounded(Trace(times * 1e3, np.ones(3000)), rate=1.5e-3, window=1e4).arrival
    assert isinstance(one, ExponentiallyBounded)
    assert isinstance(other, ExponentiallyBounded)
    assert other.decay == pytest.approx(one.decay, rel=1e-6)
    assert other.prefactor == pytest.approx(one.prefactor, rel=1e-6)


def azure(shared_dir: Path, name: str) -> Trace:
    packed = (shared_dir / "traces" / "azure_llm_2023" / name).read_bytes()
    rows = gzip.decompress(packed).decode().splitlines()[1:]
    parsed = [row.split(",") for row in rows]
    times = np.array([datetime.fromisoformat(at).timestamp() for at, _, _ in parsed])
    order = np.argsort(times, kind="stable")
    return Trace(times[order], np.array([float(tokens) for _, _, tokens in parsed])[order])


def test_real_arrivals_get_an_envelope_or_a_reason(shared_dir: Path) -> None:
    conversations = azure(shared_dir, "AzureLLMInferenceTrace_conv.csv.gz")
    rate = 1.5 * conversations.mean_rate
    bucket = fit_token_bucket(conversations, rate=rate, window=30.0)
    assert bucket.samples >= 50
    assert bucket.epsilon_floor < 0.06
    envelope = fit_exponentially_bounded(conversations, rate=rate, window=30.0)
    assert envelope.epsilon_floor < 0.12
    # The code service is bursty (coefficient of variation 13): not Poisson, and said so.
    with pytest.raises(AssumptionRejectedError, match="not Poisson"):
        fit_compound_poisson(azure(shared_dir, "AzureLLMInferenceTrace_code.csv.gz"))

"""Calibration: the contract lies above the band, and the band covers the truth as often as it says."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from aipaging.core.envelope.calibration import Fit, fitted
from aipaging.core.foundation.errors import InvalidInputError

Family = tuple[Callable[[np.random.Generator, int], np.ndarray], Callable[[np.ndarray], np.ndarray]]


def mixture_draw(rng: np.random.Generator, n: int) -> np.ndarray:
    slow = rng.random(n) < 0.05
    return np.where(slow, 20.0 + rng.exponential(30.0, n), 2.0 + rng.exponential(1.0, n))


def mixture_tail(d: np.ndarray) -> np.ndarray:
    return 0.05 * np.exp(-np.maximum(d - 20.0, 0) / 30.0) + 0.95 * np.exp(-np.maximum(d - 2.0, 0))


FAMILIES: dict[str, Family] = {
    "exponential": (lambda rng, n: rng.exponential(5.0, n), lambda d: np.exp(-d / 5.0)),
    "log-normal": (lambda rng, n: rng.lognormal(1.0, 1.0, n), lambda d: stats.norm.sf(np.log(d) - 1.0)),
    "mixture": (mixture_draw, mixture_tail),
}


def promised(fit: Fit, delays_ms: np.ndarray) -> np.ndarray:
    contract = fit.contract
    excess = delays_ms - contract.offset_ms
    tail = np.where(excess >= 0, contract.prefactor * np.exp(-contract.decay_per_ms * np.maximum(excess, 0)), 1.0)
    return np.maximum(np.minimum(tail, 1.0), fit.epsilon_floor)


def band_covers(fit: Fit, tail: Callable[[np.ndarray], np.ndarray]) -> bool:
    delays = np.array([corner.delay_ms for corner in fit.band[:-1]])
    limits = np.array([corner.probability for corner in fit.band[:-1]])
    return bool(np.all(tail(np.maximum(delays, 1e-12)) <= limits))


@pytest.mark.parametrize("name", FAMILIES)
def test_coverage_is_at_least_the_confidence(name: str) -> None:
    """At confidence 0.7, so that a band that is too low would be seen in 300 trials."""
    draw, tail = FAMILIES[name]
    rng = np.random.default_rng(20261122)
    grid = np.geomspace(0.01, 1e4, 2000)
    trials, missed_band, missed = 300, 0, 0
    for _ in range(trials):
        fit = fitted(draw(rng, 1000), lost=0, failed=0, confidence=0.7)
        missed_band += not band_covers(fit, tail)
        missed += not np.all(promised(fit, grid) >= tail(grid))
    # The tail has a third of the doubt; a correct band fails more often than this once in 10,000 runs of the test.
    allowed = stats.binom.ppf(1 - 1e-4, trials, 0.1)
    assert missed_band <= allowed
    assert missed <= missed_band, "a contract above the band fails only where the band does"


@pytest.mark.parametrize(("name", "slack"), [("exponential", 1.6), ("log-normal", 4.0), ("mixture", 2.5)])
def test_it_is_of_use(name: str, slack: float) -> None:
    """Not only safe: the delay at the middle level is near the true quantile (no exponential is near a log-normal)."""
    draw, tail = FAMILIES[name]
    fit = fitted(draw(np.random.default_rng(1), 100_000), lost=0, failed=0)
    assert fit.block == 1
    assert fit.epsilon_floor < 2e-4
    level = math.sqrt(fit.epsilon_floor)
    delay = fit.contract.offset_ms - math.log(level) / fit.contract.decay_per_ms
    grid = np.geomspace(0.1, 1e3, 20_000)
    quantile = grid[np.argmax(tail(grid) <= level)]
    assert quantile <= delay <= slack * quantile


@pytest.mark.parametrize("lost", [0, 40])
@pytest.mark.parametrize("seed", range(3))
def test_the_contract_dominates_the_empirical_tail(seed: int, lost: int) -> None:
    rng = np.random.default_rng(seed)
    delays = rng.lognormal(2.0, 0.7, 3000)
    fit = fitted(delays, lost=lost, failed=20)
    for delay in np.quantile(delays, np.linspace(0, 1, 300)):
        late = np.count_nonzero(delays > delay) / fit.samples
        total = promised(fit, np.array([delay]))[0] + fit.loss + fit.error
        assert total > late + (lost + 20) / fit.samples


def test_lost_and_failed_requests_count() -> None:
    delays = np.random.default_rng(1).exponential(5.0, 2000)
    none, some = fitted(delays, lost=0, failed=0), fitted(delays, lost=20, failed=100)
    assert some.loss > 20 / 2120
    assert some.error > 100 / 2120
    assert 0.0 < none.loss < 0.005, "none seen is not none"
    assert some.samples == 2120


def autoregressive(rng: np.random.Generator, n: int, memory: float) -> np.ndarray:
    noise = rng.normal(size=n) * math.sqrt(1 - memory**2)
    state = np.empty(n)
    state[0] = rng.normal()
    for i in range(1, n):
        state[i] = memory * state[i - 1] + noise[i]
    return np.exp(1.0 + 0.5 * state)


def test_dependence_is_found_and_paid_for() -> None:
    dependent = fitted(autoregressive(np.random.default_rng(3), 20_000, 0.9), lost=0, failed=0)
    assert dependent.block > 10
    assert dependent.effective_samples == 20_000 // dependent.block
    assert "beyond" in dependent.method
    independent = fitted(np.random.default_rng(3).lognormal(1.0, 0.5, 20_000), lost=0, failed=0)
    assert independent.block == 1
    assert "Clopper-Pearson" in independent.method
    assert dependent.epsilon_floor > 5 * independent.epsilon_floor


def test_coverage_holds_under_dependence() -> None:
    rng = np.random.default_rng(7)
    trials, missed = 40, 0
    for _ in range(trials):
        fit = fitted(autoregressive(rng, 4000, 0.8), lost=0, failed=0, confidence=0.7)
        missed += not band_covers(fit, lambda d: stats.norm.sf((np.log(d) - 1.0) / 0.5))
    assert missed <= stats.binom.ppf(1 - 1e-4, trials, 0.1)


def test_a_trend_is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        fitted(np.linspace(1.0, 100.0, 5000), lost=0, failed=0)
    assert caught.value.code == "TOO_DEPENDENT"


def test_constant_delays_are_no_special_case() -> None:
    fit = fitted(np.full(1000, 7.0), lost=0, failed=0)
    assert promised(fit, np.array([6.99]))[0] == 1.0
    assert promised(fit, np.array([7.01]))[0] == fit.epsilon_floor


@pytest.mark.parametrize(
    ("delays", "confidence"),
    [([1.0] * 99, 0.95), ([1.0] * 200, 1.0), ([-1.0] * 200, 0.9), ([math.nan] * 200, 0.9), ([math.inf] * 200, 0.9)],
)
def test_what_cannot_be_fitted_is_refused(delays: list[float], confidence: float) -> None:
    with pytest.raises(InvalidInputError):
        fitted(delays, lost=0, failed=0, confidence=confidence)


def test_the_unit_of_time_does_not_matter() -> None:
    delays = np.random.default_rng(5).exponential(5.0, 2000)
    one, thousand = fitted(delays, lost=3, failed=4), fitted(delays * 1000.0, lost=3, failed=4)
    assert thousand.contract.offset_ms == pytest.approx(1000 * one.contract.offset_ms, rel=1e-6)
    assert thousand.contract.decay_per_ms == pytest.approx(one.contract.decay_per_ms / 1000, rel=1e-6)
    assert thousand.epsilon_floor == one.epsilon_floor

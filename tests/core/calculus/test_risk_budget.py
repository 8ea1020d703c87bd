"""Laws of the risk budget under any dependence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from aipaging.core.calculus.risk_budget import (
    DelayContract,
    combined_failure,
    delay_any_dependence,
    epsilon_any_dependence,
)
from aipaging.core.foundation.errors import InvalidInputError


def contract(m: float, eta: float, t: float = 0.0) -> DelayContract:
    return DelayContract(offset_ms=t, prefactor=m, decay_per_ms=eta)


CONTRACTS = st.lists(
    st.builds(
        contract,
        st.one_of(st.just(0.0), st.floats(1e-6, 50.0)),
        st.floats(1e-3, 10.0),
        st.floats(0.0, 20.0),
    ),
    min_size=1,
    max_size=10,
)


def test_a_prefactor_below_one_gets_no_negative_excess() -> None:
    split = epsilon_any_dependence([contract(0.02, 1.0), contract(0.9, 1.0)], 0.5)
    # Unclipped, the formula claims 0.209; an admissible law attains 0.558.
    assert split.epsilon >= 0.558
    assert split.epsilon == pytest.approx(0.02 + 0.9 * math.exp(-0.5), rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_a_general_solver(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 6))
    m, eta = rng.uniform(0.05, 5.0, n), rng.uniform(0.2, 2.0, n)
    y = float(rng.uniform(5.0, 30.0))

    def log_risk(x: np.ndarray) -> float:
        return float(np.log(np.sum(m * np.exp(-eta * x))))

    found = minimize(
        log_risk,
        np.full(n, y / n),
        method="SLSQP",
        bounds=[(0.0, None)] * n,
        constraints={"type": "eq", "fun": lambda x: x.sum() - y},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    ours = epsilon_any_dependence([contract(a, b) for a, b in zip(m, eta, strict=True)], y).epsilon
    assert ours == pytest.approx(min(1.0, math.exp(found.fun)), rel=1e-5)
    assert ours <= math.exp(found.fun) * (1 + 1e-9)


@given(CONTRACTS, st.floats(0.0, 400.0))
def test_the_parts_stay_within_the_whole(contracts: list[DelayContract], delay: float) -> None:
    split = epsilon_any_dependence(contracts, delay)
    if split.epsilon == 1.0:
        assert split.parts == ()
        return
    assert math.fsum(p.delay_ms for p in split.parts) <= split.delay_ms == delay
    assert math.fsum(p.epsilon for p in split.parts) <= split.epsilon
    for c, part in zip(contracts, split.parts, strict=True):
        assert part.delay_ms >= c.offset_ms
        assert part.epsilon >= c.prefactor * math.exp(-c.decay_per_ms * (part.delay_ms - c.offset_ms)) * (1 - 1e-12)


@given(CONTRACTS, st.floats(-90.0, -0.01))
def test_delay_and_epsilon_are_inverse(contracts: list[DelayContract], log_epsilon: float) -> None:
    epsilon = math.exp(log_epsilon)
    split = delay_any_dependence(contracts, epsilon)
    assert split.epsilon <= epsilon
    assert math.fsum(p.epsilon for p in split.parts) <= split.epsilon
    assert math.fsum(p.delay_ms for p in split.parts) <= split.delay_ms
    assert epsilon_any_dependence(contracts, split.delay_ms).epsilon <= epsilon * (1 + 1e-8)
    offsets = math.fsum(c.offset_ms for c in contracts)
    if split.delay_ms > offsets * (1 + 1e-9):
        shorter = offsets + (split.delay_ms - offsets) * (1 - 1e-6) - 1e-9 * split.delay_ms
        assert epsilon_any_dependence(contracts, shorter).epsilon >= epsilon


@given(CONTRACTS, st.floats(0.0, 400.0), st.sampled_from([1e-6, 1e-3, 0.1, 10.0, 1e3, 1e6]))
def test_the_unit_of_time_does_not_matter(contracts: list[DelayContract], delay: float, k: float) -> None:
    scaled = [contract(c.prefactor, c.decay_per_ms / k, c.offset_ms * k) for c in contracts]
    ours = epsilon_any_dependence(contracts, delay).epsilon
    offsets = math.fsum(c.offset_ms for c in contracts)
    if abs(delay - offsets) > 1e-9 * offsets + 1e-290:  # times k it would be lost beneath the least number there is
        assert epsilon_any_dependence(scaled, delay * k).epsilon == pytest.approx(ours, rel=1e-6)


@given(CONTRACTS, st.floats(0.0, 400.0), st.floats(0.0, 100.0))
def test_more_delay_never_costs_risk(contracts: list[DelayContract], delay: float, more: float) -> None:
    less_risk = epsilon_any_dependence(contracts, delay + more).epsilon
    assert less_risk <= epsilon_any_dependence(contracts, delay).epsilon * (1 + 1e-9)


def test_nothing_is_promised_below_the_offsets() -> None:
    split = epsilon_any_dependence([contract(0.5, 1.0, 3.0)], 2.9)
    assert (split.epsilon, split.parts) == (1.0, ())


def test_a_deterministic_promise_costs_no_risk() -> None:
    split = epsilon_any_dependence([contract(0.0, 1.0, 3.0), contract(0.0, 2.0, 1.0)], 4.0)
    assert split.epsilon == 0.0


def test_tiny_probabilities_keep_their_digits() -> None:
    contracts = [contract(1.0, 1.0), contract(1.0, 1.0)]
    split = delay_any_dependence(contracts, 1e-40)
    assert split.delay_ms == pytest.approx(2 * math.log(2e40), rel=1e-9)
    assert epsilon_any_dependence(contracts, split.delay_ms).epsilon == pytest.approx(1e-40, rel=1e-6)


def test_failures_combine() -> None:
    assert combined_failure([0.1, 0.2], independent=True) == pytest.approx(0.28)
    assert combined_failure([0.1, 0.2], independent=False) == pytest.approx(0.3)
    assert combined_failure([0.7, 0.7], independent=False) == 1.0
    assert combined_failure([0.0, 0.0], independent=True) == 0.0
    assert combined_failure([1e-18, 1e-18], independent=True) >= 2e-18


@pytest.mark.parametrize(
    "call",
    [
        lambda: epsilon_any_dependence([], 1.0),
        lambda: epsilon_any_dependence([contract(1.0, 1.0)], math.nan),
        lambda: delay_any_dependence([contract(1.0, 1.0)], 0.0),
        lambda: delay_any_dependence([contract(1.0, 1.0)], 1.0),
        lambda: contract(-1.0, 1.0),
        lambda: contract(1.0, 0.0),
        lambda: contract(1.0, 1.0, -1.0),
        lambda: combined_failure([1.5], independent=False),
    ],
)
def test_nonsense_is_refused(call: object) -> None:
    with pytest.raises(InvalidInputError):
        call()  # type: ignore[operator]

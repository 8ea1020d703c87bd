"""Cheapest reservations: certified, priced, within limits; the joint tail costs less and holds in simulation."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core.calculus.domain import Dependence
from aipaging.core.calculus.risk_cost import Point, RatedDomain, Reservation, alternating_reservation, certificate
from aipaging.core.calculus.risk_joint import cheapest_joint_reservation, joint_tail
from aipaging.core.calculus.risk_limits import InfeasibleBudgetError, PartLimits
from aipaging.core.calculus.risk_rates import cheapest_reservation
from aipaging.core.foundation.errors import InvalidInputError

RULES = [Dependence.ANY, Dependence.CONDITIONAL]
H = 1e-4


def sold(seed: int, count: int) -> list[RatedDomain]:
    rng = np.random.default_rng(seed)
    return [
        RatedDomain(
            name=f"d{i}",
            offset=float(rng.uniform(0, 2)),
            prefactor=float(rng.uniform(0.8, 4)),
            decay_per_rate=float(rng.uniform(0.2, 1.5)),
            price=float(rng.uniform(0.5, 3)),
        )
        for i in range(count)
    ]


def limited(seed: int, rule: Dependence) -> list[RatedDomain]:
    """Return domains with limits that hold back the answer without them, for (30 ms, 1e-4)."""
    parts = sold(seed, 6)
    free = alternating_reservation(parts, 30.0, 1e-4, dependence=rule)
    return [
        replace(parts[0], limits=PartLimits(delay_max_ms=parts[0].offset + 0.7 * (free.delays[0] - parts[0].offset))),
        replace(parts[1], limits=PartLimits(epsilon_max=0.2 * free.epsilons[1])),
        replace(parts[2], limits=PartLimits(epsilon_min=3.0 * free.epsilons[2])),
        replace(parts[3], limits=PartLimits(delay_min_ms=1.2 * free.delays[3])),
        replace(parts[4], rate_max=0.8 * free.rates[4]),
        parts[5],
    ]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_without_limits_the_certificate_closes(seed: int, rule: Dependence) -> None:
    found = alternating_reservation(sold(seed, 2 + seed), 30.0, 1e-4, dependence=rule)
    assert found.certificate.convex
    assert found.certificate.duality_gap <= 1e-7
    assert found.certificate.kkt_residual <= 1e-9


def test_a_certificate_sees_a_bad_answer() -> None:
    parts = sold(3, 3)
    found = alternating_reservation(parts, 30.0, 1e-4)
    excesses = [delay - part.offset for delay, part in zip(found.delays, parts, strict=True)]
    worse = [1.2 * found.rates[0], *found.rates[1:]]
    gap = certificate(
        parts, Point(worse, excesses, found.epsilons), (sum(excesses), 1e-4), found.delay_price, product=False
    )
    assert gap.kkt_residual > 0.1
    assert gap.duality_gap > 0.01


def prices_by_differences(solve: Callable[[float, float], Reservation]) -> tuple[float, float]:
    by_delay = (solve(30.0 - H, 1e-4).cost - solve(30.0 + H, 1e-4).cost) / (2 * H)
    low, high = (solve(30.0, 1e-4 * math.exp(s * H)).cost for s in (-1, 1))
    return by_delay, (low - high) / (2 * H)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(4))
def test_limits_are_kept_certified_and_priced(seed: int, rule: Dependence) -> None:
    parts = limited(seed, rule)

    def solve(delay: float, epsilon: float) -> Reservation:
        return cheapest_reservation(parts, delay, epsilon, dependence=rule)

    found = solve(30.0, 1e-4)
    assert math.fsum(found.delays) <= 30.0
    joined = math.fsum(found.epsilons) if rule is Dependence.ANY else 1 - math.prod(1 - e for e in found.epsilons)
    assert joined <= 1e-4
    for part, rate, delay, share in zip(parts, found.rates, found.delays, found.epsilons, strict=True):
        limits = part.limits
        assert limits.delay_min_ms <= delay * (1 + 1e-9)
        assert delay <= limits.delay_max_ms * (1 + 1e-9)
        assert limits.epsilon_min <= share * (1 + 1e-9)
        assert share <= limits.epsilon_max * (1 + 1e-9)
        assert part.rate_min <= rate <= part.rate_max * (1 + 1e-9)
        tail = part.prefactor * math.exp(-part.decay_per_rate * rate * (delay - part.offset))
        assert tail <= share * (1 + 1e-6)
    assert found.cost >= alternating_reservation(sold(seed, 6), 30.0, 1e-4, dependence=rule).cost
    assert found.certificate.duality_gap <= 1e-6
    assert {limit.domain for limit in found.binding} >= {"d0", "d1"}
    by_delay, by_log_epsilon = prices_by_differences(solve)
    assert found.delay_price == pytest.approx(by_delay, rel=1e-3)
    assert found.log_epsilon_price == pytest.approx(by_log_epsilon, rel=1e-3)


def test_a_price_of_a_limit_is_what_relaxing_it_saves() -> None:
    parts = limited(1, Dependence.ANY)
    found = cheapest_reservation(parts, 30.0, 1e-4)
    price = next(limit.price for limit in found.binding if (limit.domain, limit.limit) == ("d0", "delay_max_ms"))

    def cost(by: float) -> float:
        moved = replace(parts[0], limits=PartLimits(delay_max_ms=parts[0].limits.delay_max_ms + by))
        return cheapest_reservation([moved, *parts[1:]], 30.0, 1e-4).cost

    assert price == pytest.approx((cost(-H) - cost(H)) / (2 * H), rel=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_joint_tail_costs_less_certified_and_priced(seed: int) -> None:
    parts = sold(seed, 2 + seed)
    found = cheapest_joint_reservation(parts, 30.0, 1e-4)
    assert joint_tail(parts, found.rates, 30.0) <= 1e-4
    assert found.cost < alternating_reservation(parts, 30.0, 1e-4, dependence=Dependence.CONDITIONAL).cost
    assert found.certificate.duality_gap <= 1e-6
    by_delay, by_log_epsilon = prices_by_differences(lambda d, e: cheapest_joint_reservation(parts, d, e))
    assert found.delay_price == pytest.approx(by_delay, rel=1e-4)
    assert found.log_epsilon_price == pytest.approx(by_log_epsilon, rel=1e-4)


def test_the_joint_tail_holds_in_simulation() -> None:
    parts = [replace(part, prefactor=max(1.0, part.prefactor)) for part in sold(2, 3)]
    found = cheapest_joint_reservation(parts, 20.0, 1e-2)
    rng = np.random.default_rng(5)
    n = 300_000
    total = sum(
        part.offset + (math.log(part.prefactor) + rng.exponential(1.0, n)) / (part.decay_per_rate * rate)
        for part, rate in zip(parts, found.rates, strict=True)
    )
    late = float(np.mean(total > 20.0))
    # These laws meet their contracts with equality, so the bound is exact.
    assert abs(late - 1e-2) <= 5.0 * math.sqrt(1e-2 / n)


def test_limits_on_rates_hold_for_the_joint_tail() -> None:
    parts = sold(1, 3)
    free = cheapest_joint_reservation(parts, 30.0, 1e-4)
    held = [replace(parts[0], rate_max=0.8 * free.rates[0]), replace(parts[1], rate_min=16.0 * free.rates[1]), parts[2]]
    found = cheapest_joint_reservation(held, 30.0, 1e-4)
    assert found.rates[0] <= held[0].rate_max
    assert found.rates[1] >= held[1].rate_min * (1 - 1e-9)
    assert found.cost > free.cost
    assert {(limit.domain, limit.limit) for limit in found.binding} == {("d0", "rate_max"), ("d1", "rate_min")}
    assert found.certificate.duality_gap <= 1e-6


@settings(max_examples=20)
@given(st.integers(0, 50), st.floats(15.0, 60.0), st.floats(1.0, 20.0), st.sampled_from(RULES))
def test_more_delay_or_risk_never_costs_more(seed: int, delay: float, more: float, rule: Dependence) -> None:
    parts = sold(seed, 4)
    found = alternating_reservation(parts, delay, 1e-4, dependence=rule).cost
    assert alternating_reservation(parts, delay + more, 1e-4, dependence=rule).cost <= found * (1 + 1e-9)
    assert alternating_reservation(parts, delay, 1e-4 * (1 + more), dependence=rule).cost <= found * (1 + 1e-9)
    assert alternating_reservation(parts, delay, 1e-4, dependence=Dependence.CONDITIONAL).cost <= found * (1 + 1e-9)


def test_never_dearer_than_equal_parts() -> None:
    for seed in range(10):
        parts = sold(seed, 5)
        excess = (30.0 - sum(part.offset for part in parts)) / 5
        equal = sum(part.price * math.log(part.prefactor / 2e-5) / (part.decay_per_rate * excess) for part in parts)
        assert alternating_reservation(parts, 30.0, 1e-4).cost <= equal


def test_infeasible_rates_are_named() -> None:
    parts = [replace(part, rate_max=0.5) for part in sold(1, 3)]
    with pytest.raises(InfeasibleBudgetError, match="rate_max of") as caught:
        cheapest_reservation(parts, 30.0, 1e-4)
    assert caught.value.short_by > 0.0
    longer = caught.value.feasible_delay_ms
    assert math.isfinite(longer)
    assert cheapest_reservation(parts, longer * (1 + 1e-6), 1e-4).cost > 0.0
    with pytest.raises(InfeasibleBudgetError, match="largest rates") as caught:
        cheapest_joint_reservation(parts, 12.0, 1e-4)
    assert caught.value.feasible_epsilon > 1e-4
    with pytest.raises(InfeasibleBudgetError, match="offsets alone"):
        cheapest_joint_reservation(parts, 0.1, 1e-4)
    with pytest.raises(InvalidInputError, match="sells nothing"):
        cheapest_reservation([replace(parts[0], rate_max=0.0)], 30.0, 1e-4)
    with pytest.raises(InvalidInputError):
        cheapest_joint_reservation([], 30.0, 1e-4)

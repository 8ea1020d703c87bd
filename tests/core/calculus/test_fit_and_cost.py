"""Fits cover the truth as often as they say; reservations are as cheap as a general solver finds."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from aipaging.core import calculus
from aipaging.core.calculus.deficit import ImpairedRateLatency, deficit_bound
from aipaging.core.calculus.risk_cost import RatedDomain, alternating_reservation
from aipaging.core.foundation.errors import InvalidInputError, RefusedError

LAWS = {
    "exponential": (lambda rng, n: rng.exponential(2.0, n), lambda x: np.exp(-x / 2.0)),
    "uniform": (lambda rng, n: rng.uniform(0.0, 5.0, n), lambda x: np.clip(1.0 - x / 5.0, 0.0, 1.0)),
    "log-normal": (
        lambda rng, n: rng.lognormal(0.0, 0.8, n),
        lambda x: np.array([0.5 * math.erfc(math.log(max(v, 1e-12)) / 0.8 / math.sqrt(2.0)) for v in x]),
    ),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_fit_covers_as_often_as_it_says(law: str) -> None:
    draw, tail = LAWS[law]
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        fitted = calculus.fit_delay_contract(draw(rng, 400), confidence=0.9)
        contract = fitted.contract
        last = math.log(max(1.0, contract.prefactor / fitted.epsilon_floor)) / contract.decay_per_ms
        x = np.linspace(0.0, last, 80)
        promised = np.minimum(1.0, contract.prefactor * np.exp(-contract.decay_per_ms * x))
        held += bool(np.all(tail(contract.offset_ms + x) <= promised * (1 + 1e-9)))
    # 200 trials at 90 %: fewer than 168 would be a four-sigma event.
    assert held >= 168


def test_timeouts_count_and_raise_the_floor() -> None:
    delays = np.random.default_rng(1).exponential(1.0, 1000)
    without, with_timeouts = (calculus.fit_delay_contract(delays, timeouts=k) for k in (0, 50))
    assert with_timeouts.epsilon_floor > 50 / 1050 > without.epsilon_floor
    assert with_timeouts.samples == 1050


def test_thinning_is_stated() -> None:
    delays = np.random.default_rng(1).exponential(1.0, 1000)
    fitted = calculus.fit_delay_contract(delays, every=10)
    assert (fitted.samples, fitted.assumption) == (100, "independent-identical-at-distance-10")


@pytest.mark.parametrize("delays", [[1.0] * 10, [1.0] * 100, [-1.0] * 100, [math.nan] * 100])
def test_no_contract_from_nothing(delays: list[float]) -> None:
    with pytest.raises(InvalidInputError):
        calculus.fit_delay_contract(delays)


def test_the_least_burst_is_used_and_enough() -> None:
    times, works, rate = [0.0, 1.0, 1.0, 5.0], [2.0, 3.0, 1.0, 4.0], 1.5
    burst = calculus.least_burst(times, works, rate)
    needed = [sum(works[i : j + 1]) - rate * (times[j] - times[i]) for i in range(4) for j in range(i, 4)]
    assert burst == pytest.approx(max(needed))


def domains(seed: int, count: int) -> list[RatedDomain]:
    rng = np.random.default_rng(seed)
    return [
        RatedDomain(
            offset=float(rng.uniform(0, 2)),
            prefactor=float(rng.uniform(0.8, 4)),
            decay_per_rate=float(rng.uniform(0.2, 1.5)),
            price=float(rng.uniform(0.5, 3)),
        )
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_cheapest_reservation_agrees_with_a_general_solver(seed: int) -> None:
    parts, delay, epsilon = domains(seed, 3), 30.0, 1e-4
    found = alternating_reservation(parts, delay, epsilon)
    assert found.convex
    assert math.fsum(found.epsilons) <= epsilon
    assert math.fsum(found.delays) <= delay * (1 + 1e-12)
    offsets = math.fsum(d.offset for d in parts)

    def slack(z: np.ndarray) -> float:
        rates, shares = np.exp(z[:3]), epsilon * np.exp(z[3:])
        used = [
            math.log(d.prefactor / e) / (d.decay_per_rate * r) for d, r, e in zip(parts, rates, shares, strict=True)
        ]
        return delay - offsets - math.fsum(used)

    general = minimize(
        lambda z: float(sum(d.price * r for d, r in zip(parts, np.exp(z[:3]), strict=True))),
        np.concatenate([np.log(np.array(found.rates) * 1.3), np.full(3, -math.log(3.0))]),
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": slack},
            {"type": "ineq", "fun": lambda z: 1.0 - float(np.exp(z[3:]).sum())},
        ],
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert found.cost == pytest.approx(general.fun, rel=1e-5)


def test_shadow_prices_are_derivatives() -> None:
    parts, h = domains(1, 5), 1e-4
    found = alternating_reservation(parts, 40.0, 1e-5)
    by_delay = (
        (alternating_reservation(parts, 40.0 - h, 1e-5).cost - alternating_reservation(parts, 40.0 + h, 1e-5).cost)
        / 2
        / h
    )
    assert found.delay_price == pytest.approx(by_delay, rel=1e-5)
    low, high = (alternating_reservation(parts, 40.0, 1e-5 * math.exp(s * h)).cost for s in (-1, 1))
    assert found.log_epsilon_price == pytest.approx((low - high) / 2 / h, rel=1e-5)


def test_limits_bind_and_infeasibility_says_by_how_much() -> None:
    free = alternating_reservation(domains(2, 3), 40.0, 1e-5)
    limited = [
        RatedDomain(
            offset=d.offset, prefactor=d.prefactor, decay_per_rate=d.decay_per_rate, price=d.price,
            rate_min=1.2 * r if i == 0 else 0.0, rate_max=0.95 * r if i == 1 else math.inf,
        )
        for i, (d, r) in enumerate(zip(domains(2, 3), free.rates, strict=True))
    ]  # fmt: skip
    found = alternating_reservation(limited, 40.0, 1e-5)
    assert found.rates[0] >= limited[0].rate_min
    assert found.rates[1] <= limited[1].rate_max
    assert found.cost >= free.cost
    assert math.fsum(found.delays) <= 40.0 * (1 + 1e-12)
    with pytest.raises(RefusedError, match="offsets alone"):
        alternating_reservation(domains(2, 3), 0.1, 1e-5)
    tight = [RatedDomain(offset=0.0, prefactor=1.0, decay_per_rate=1.0, price=1.0, rate_max=1.0)]
    with pytest.raises(RefusedError, match="largest rates"):
        alternating_reservation(tight, 1.0, 1e-5)


def test_deficits_are_bounded_above_simulation() -> None:
    # On/off service: the deficit of any interval against 0.8 per slot is exponentially bounded.
    rng = np.random.default_rng(9)
    slots = 400_000
    on = (rng.random(slots) < 0.95).astype(float)
    walk = np.cumsum(rng.exponential(0.4, slots) - on)
    backlog = walk - np.minimum.accumulate(np.minimum(walk, 0.0))
    served = np.concatenate([np.cumsum(on), np.full(12, np.nan)])
    decay = 1.0
    # E exp(b (0.8 - s)) <= 1 gives the contract with M = 1 for every interval.
    assert math.exp(decay * 0.8) * (0.05 + 0.95 * math.exp(-decay)) <= 1.0
    arrival = calculus.SlottedWork(works=(calculus.ExponentialWork(mean=0.4),))
    domain = ImpairedRateLatency(rate=0.8, latency=0.0, prefactor=1.0, decay=decay)
    last = 1.0
    for delay in (2, 5, 10):
        late = (backlog > served[delay : slots + delay] - np.cumsum(on))[: slots - 20]
        bound = deficit_bound(arrival, [domain], delay).probability
        assert last >= bound >= late.mean()
        last = bound
    assert deficit_bound(arrival, [domain] * 3, 40).probability < 1.0


def test_what_is_exported_is_what_is_documented() -> None:
    video = calculus.CompoundPoisson(rate=0.8, work=calculus.ExponentialWork(mean=1.0))
    link = calculus.Domain(name="link", service=calculus.RateLatency(rate=1.0, latency=0.0))
    assert calculus.bound_path(video, [link], 20.0).bound.rung == "mm1-exact"
    assert eval(repr(video), vars(calculus)) == video
    assert eval(repr(link.service), vars(calculus)) == link.service

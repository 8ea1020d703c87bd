"""Every correction and counterexample of the survey: what peers got wrong stays wrong nowhere here."""

import math

import numpy as np
import pytest

from aipaging.core.calculus.bound import RungClass
from aipaging.core.calculus.hypoexponential import hypoexponential_tail
from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.onoff import SlottedOnOff, slotted_martingale
from aipaging.core.calculus.onoff_lattice import backlog_lattice
from aipaging.core.calculus.risk_budget import DelayContract, epsilon_any_dependence
from aipaging.core.calculus.risk_sharp import epsilon_any_dependence_sharp, epsilon_conditional
from aipaging.core.calculus.tandem_hop import exponential_cross_bound, exponential_servers_tail


def contracts(prefactor: float, decay: float, count: int) -> list[DelayContract]:
    return [DelayContract(offset_ms=0.0, prefactor=prefactor, decay_per_ms=decay)] * count


def test_negatively_associated_flows_are_not_below_the_truth() -> None:
    # With p + q < 1 the published prefactor gives 6.1e-6 where lattice and simulation say 2.4e-4.
    flows = SlottedOnOff(count=12, stay_off=0.05, stay_on=0.05, peak=1.0)
    lattice = backlog_lattice(flows, 7.0, 4.0)
    assert lattice is not None
    assert lattice.tail(4.0) == pytest.approx(2.4e-4, rel=0.03)
    assert math.exp(slotted_martingale(flows, 7.0, 4.0)[0]) >= lattice.tail(4.0)


def test_conditional_tails_with_a_prefactor_below_one() -> None:
    # The shift ln(M)/eta < 0 claims 0.0670; an admissible law has 0.0747.
    assert epsilon_conditional(contracts(0.5, 1.0, 2), 3.0).epsilon >= 0.0746
    law = 0.5 * 0.5 * 2 * math.exp(-3.0) + 0.25 * (1 + 3.0) * math.exp(-3.0)
    assert epsilon_conditional(contracts(0.5, 1.0, 2), 3.0).epsilon == pytest.approx(law, rel=1e-8)


def test_equal_rates_do_not_go_negative() -> None:
    # Partial fractions give -6e-23 at eight equal rates.
    x = 1e-2
    missing = 1.0 - hypoexponential_tail([1.0] * 8, x)
    assert 0.0 <= missing < 1e-15
    erlang = math.exp(-30.0) * math.fsum(30.0**k / math.factorial(k) for k in range(8))
    assert hypoexponential_tail([1.0] * 8, 30.0) == pytest.approx(erlang, rel=1e-8)
    assert hypoexponential_tail([1.0] * 8, 30.0) >= erlang


def test_two_rates_agree_with_the_closed_form() -> None:
    exact = (2.0 * math.exp(-1.5) - 1.0 * math.exp(-3.0)) / (2.0 - 1.0)
    assert hypoexponential_tail([1.0, 2.0], 1.5) == pytest.approx(exact, rel=1e-8)


def test_a_lone_request_takes_its_tokens_times_tau() -> None:
    server = BatchingServer(slots=8, base_time=1.0, time_per_request=0.0, reserved_slots=8, tokens_max=512)
    tau = server.iteration_time
    curve = server.token_service_curve()
    for tokens in (1, 8, 100, 512):
        # Alone, N tokens take N tau; b / tau with latency tau would promise tau + N tau / b.
        promised = curve.latency + tokens / curve.rate
        assert promised >= tokens * tau
        assert server.request_time_min(tokens) == pytest.approx(tokens * tau)
    assert tau + 100 * tau / 8 < 100 * tau


def test_the_equal_rate_form_is_a_bound_for_three_hops() -> None:
    # The peer's explicit form claims 8.9e-9 at d = 24 where simulation counts 1.14e-7.
    bound = exponential_cross_bound(0.5, (1.0,) * 3, (3.0, 2.7, 2.4), delay=24, rung_class=RungClass.SHARP)
    assert bound.probability >= 1.14e-7


@pytest.mark.parametrize(("hops", "delay", "exact"), [(2, 20.0, 3.019e-3), (3, 20.0, 1.375e-2), (5, 40.0, 4.004e-4)])
@pytest.mark.parametrize("unit", [1.0, 10.0, 100.0, 1000.0])
def test_a_continuous_tandem_does_not_depend_on_the_unit(hops: int, delay: float, exact: float, unit: float) -> None:
    bound = exponential_servers_tail(0.6 * unit, [1.0 * unit] * hops, delay / unit).probability
    assert bound == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize(("count", "gain"), [(3, 1.19), (10, 3.67)])
def test_the_dual_bound_gains_what_theory_says(count: int, gain: float) -> None:
    parts = contracts(1.0, 1.0, count)
    delay = 10.0 * count
    ratio = epsilon_any_dependence(parts, delay).epsilon / epsilon_any_dependence_sharp(parts, delay).epsilon
    assert ratio == pytest.approx(gain, rel=0.01)


def test_the_dual_bound_is_above_the_comonotone_law() -> None:
    # Comonotone Exp(1) domains attain P(sum > d) = exp(-d / H), an admissible dependence.
    for count, delay in ((2, 8.0), (5, 30.0), (10, 60.0)):
        assert epsilon_any_dependence_sharp(contracts(1.0, 1.0, count), delay).epsilon >= math.exp(-delay / count)


def test_the_conditional_bound_covers_a_simulated_law() -> None:
    rng = np.random.default_rng(7)
    rates, prefactors = np.array([0.5, 1.0, 2.0]), np.array([0.4, 1.0, 0.8])
    sums = (rng.exponential(1.0 / rates, (400_000, 3)) * (rng.random((400_000, 3)) < prefactors)).sum(axis=1)
    parts = [
        DelayContract(offset_ms=0.0, prefactor=float(m), decay_per_ms=float(r))
        for m, r in zip(prefactors, rates, strict=True)
    ]
    for delay in (1.0, 3.0, 6.0):
        seen = float((sums > delay).mean())
        assert epsilon_conditional(parts, delay).epsilon >= seen - 3 * math.sqrt(seen / 400_000)
        assert epsilon_conditional(parts, delay).epsilon == pytest.approx(seen, rel=0.1)

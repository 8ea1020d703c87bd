"""Contracts of service models against simulated sessions: seeded; a bound fails only if it is surely below."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.admission import (
    DETERMINISTIC,
    OVERLOADED,
    least_delay_ms,
    session_bound,
    session_delay_ms,
    tail_bound,
)
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.path_delay import Hop, PathDelay, path_delay
from aipaging.core.envelope.service import (
    OnOffSlots,
    ReservedRate,
    ReservedRateDeficit,
    ReservedSlots,
    ServiceModel,
    SharedRate,
    Traffic,
    mean_rate_per_ms,
    queue_curve,
    session_contract,
    worst_contract,
)
from aipaging.testing.world import envelope

BURST = 4
RATE = 0.1
BUCKET = Traffic(rate_per_ms=RATE, burst=BURST)
AIR = OnOffSlots(slot_ms=1.0, requests_per_slot=1.0, availability=0.5)
CURVE = ReservedRate(rate_per_ms=0.4, latency_ms=3.0)
BATCHES = 40


def made(model: ServiceModel | None, name: str = "one", **changes: object) -> Envelope:
    plain = replace(envelope(name), loss=0.0, error=0.0, digest=f"{name:0>64}")
    return replace(plain, service=model, **changes)  # type: ignore[arg-type]


def bursts(count: int, rng: np.random.Generator, *, rate: float = RATE) -> list[float]:
    """Return arrivals of a session that uses all of its bucket: its burst at once, then as soon as it may again."""
    gap = BURST / rate
    starts = rng.uniform(0.0, gap) + gap * np.arange(count)
    return np.repeat(starts, BURST).tolist()


def through_slots(arrivals: Sequence[float], model: OnOffSlots, rng: np.random.Generator) -> list[float]:
    """Return when requests leave a link of slots: one request in a slot that is on, and which is after its arrival."""
    left: list[float] = []
    slot = 0
    for arrival in arrivals:
        slot = max(slot, math.ceil(arrival / model.slot_ms))
        while rng.random() >= model.availability:
            slot += 1
        slot += 1
        left.append(slot * model.slot_ms)
    return left


def through_rate(arrivals: Sequence[float], model: ReservedRate) -> list[float]:
    """Return when requests leave a server that works at its rate and is late by its latency."""
    left: list[float] = []
    free = 0.0
    for arrival in arrivals:
        free = max(free, arrival) + 1.0 / model.rate_per_ms
        left.append(free + model.latency_ms)
    return left


def require_above(delays_ms: Sequence[float], bound: float, delay_ms: float) -> float:
    """Fail if the simulated frequency is surely above the bound; return the frequency."""
    late = (np.array(delays_ms) > delay_ms).astype(float)
    batches = late[: len(late) // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1).tolist()
    mean = statistics.fmean(batches)
    low = mean - 4.0 * statistics.stdev(batches) / math.sqrt(BATCHES)
    assert low <= bound, (mean, low, bound)
    return mean


def delays(left: Sequence[float], arrivals: Sequence[float]) -> list[float]:
    return [out - into for out, into in zip(left, arrivals, strict=True)]


def of(*models: ServiceModel | None, **changes: object) -> PathDelay:
    hops = [Hop(envelope=made(model, f"d{i}", **changes)) for i, model in enumerate(models)]
    path = path_delay(hops, BUCKET, 1e-2)
    assert path is not None
    return path


@pytest.mark.parametrize("epsilon", [0.2, 0.02])
def test_slots_keep_their_contract_and_it_is_not_idle(epsilon: float) -> None:
    rng = np.random.default_rng(1)
    arrivals = bursts(8_000, rng)
    found = delays(through_slots(arrivals, AIR, rng), arrivals)
    path = path_delay([Hop(envelope=made(AIR))], BUCKET, epsilon)
    delay_ms = session_delay_ms(path, epsilon)
    assert delay_ms is not None
    require_above(found, epsilon, delay_ms)
    # The truth at a third of that delay is above epsilon: the bound is no empty one.
    assert require_above(found, 1.0, delay_ms / 3.0) > epsilon


def test_a_deficit_keeps_its_contract() -> None:
    # Slots that are on with p serve at least R t - x but with probability exp(-theta x), ln E exp(-theta S) = -theta R.
    rate, tilt = 0.3, 1.0
    while math.log(1 - 0.5 + 0.5 * math.exp(-tilt)) + tilt * rate <= 0.0:
        tilt *= 1.01
    model = ReservedRateDeficit(rate_per_ms=rate, latency_ms=2.0, prefactor=1.0, decay_per_request=tilt / 1.02)
    rng = np.random.default_rng(2)
    arrivals = bursts(8_000, rng)
    found = delays(through_slots(arrivals, AIR, rng), arrivals)
    path = of(model)
    for epsilon in (0.2, 0.02):
        delay_ms = session_delay_ms(path, epsilon)
        assert delay_ms is not None
        require_above(found, epsilon, delay_ms)


def test_a_server_behind_a_random_delay_keeps_the_bound_of_the_path() -> None:
    rng = np.random.default_rng(3)
    arrivals = bursts(8_000, rng)
    found = delays(through_rate(through_slots(arrivals, AIR, rng), CURVE), arrivals)
    path = of(AIR, CURVE)
    for epsilon in (0.2, 0.02):
        delay_ms = session_delay_ms(path, epsilon)
        assert delay_ms is not None
        require_above(found, epsilon, delay_ms)


def test_the_shift_lemma_is_needed() -> None:
    """What a random delay hands on in a burst is later behind a slow server than the parts by themselves say."""
    alone, behind = of(AIR), of(AIR, CURVE)
    assert behind.tails[0].contract.prefactor > alone.tails[0].contract.prefactor
    assert of(CURVE, AIR).tails[0].contract == alone.tails[0].contract
    assert of(None, CURVE).tails[0].contract.prefactor > of(CURVE, None).tails[0].contract.prefactor


def test_rate_latency_parts_are_composed_and_the_burst_is_paid_once() -> None:
    models = (CURVE, ReservedRate(rate_per_ms=0.2, latency_ms=1.0), CURVE)
    path = of(*models)
    assert path.fixed_total_ms == pytest.approx(3.0 + 1.0 + 3.0 + (BURST + 2) / 0.2)
    rng = np.random.default_rng(4)
    arrivals = bursts(2_000, rng)
    left = list(arrivals)
    for model in models:
        left = through_rate(left, model)
    worst = max(delays(left, arrivals))
    assert worst <= path.fixed_total_ms
    bound = session_bound(path, path.fixed_total_ms)
    assert (bound.epsilon_bound, bound.rung) == (0.0, DETERMINISTIC)
    assert session_bound(path, path.fixed_total_ms * (1 - 1e-9)).epsilon_bound == 1.0
    assert math.fsum(part.delay_ms for part in bound.budget) <= path.fixed_total_ms


def test_a_shared_queue_delays_by_everybodys_bursts_and_no_more() -> None:
    model = SharedRate(rate_per_ms=1.0, latency_ms=2.0, burst_total_max=40)
    queue = queue_curve(model)
    assert queue is not None
    rng = np.random.default_rng(5)
    for aligned in (True, False):
        flows = [bursts(200, rng) for _ in range(10)]
        if aligned:
            flows = [flows[0]] * 10
        arrivals = sorted(arrival for flow in flows for arrival in flow)
        left = through_rate(arrivals, ReservedRate(rate_per_ms=model.rate_per_ms, latency_ms=model.latency_ms))
        worst = max(delays(left, arrivals))
        assert worst <= queue.delay_ms(10 * BURST)
        if aligned:
            assert worst == pytest.approx(queue.delay_ms(10 * BURST))


def test_a_tenants_slots_keep_their_curve_and_a_lone_request_takes_its_tokens() -> None:
    model = ReservedSlots(
        slots=16, base_ms=1.0, per_request_ms=0.1, slots_per_tenant=4, tokens_max=10, burst_total_max=20
    )
    queue = queue_curve(model)
    assert queue is not None
    assert queue.delay_ms(1) >= 10 * 2.6
    rng = np.random.default_rng(6)
    arrivals = bursts(2_000, rng, rate=0.12)
    tau, free = 2.6, [0.0] * 4
    left: list[float] = []
    for arrival in arrivals:
        slot = min(range(4), key=free.__getitem__)
        # Iterations run all the time: a request joins at the next one.
        start = math.ceil(max(arrival, free[slot]) / tau) * tau
        free[slot] = start + tau * int(rng.integers(1, 11))
        left.append(free[slot])
    assert queue.rate_per_ms >= 0.12
    assert max(delays(left, arrivals)) <= queue.delay_ms(BURST)


@pytest.mark.parametrize(("clause", "rung"), [("any", "dual-any-dependence"), ("conditional", "conditional-tails")])
def test_rungs_hold_where_their_assumptions_do(clause: str, rung: str) -> None:
    contract = DelayContract(offset_ms=2.0, prefactor=1.0, decay_per_ms=0.5)
    envelopes = [made(None, f"d{i}", contract=contract, dependence=Dependence(clause)) for i in range(4)]
    bound = tail_bound(envelopes, 40.0)
    assert bound.rung == rung
    assert math.fsum(part.delay_ms for part in bound.budget) <= 40.0
    assert math.fsum(part.epsilon + part.failure for part in bound.budget) <= bound.epsilon_bound
    rng = np.random.default_rng(7)
    count = 200_000
    independent = 8.0 + rng.exponential(2.0, (count, 4)).sum(axis=1)
    comonotone = 8.0 + 4.0 * rng.exponential(2.0, count)
    for level in (20.0, 30.0):
        at_most = tail_bound(envelopes, level).epsilon_bound
        require_above(independent.tolist(), at_most, level)
        if clause == "any":
            require_above(comonotone.tolist(), at_most, level)
    assert bound.numeric_error > 0.0
    assert dict(bound.parameters)["tails"] == 4.0


def test_a_common_cause_or_a_silent_domain_takes_the_sharper_rung_away() -> None:
    contract = DelayContract(offset_ms=2.0, prefactor=1.0, decay_per_ms=0.5)

    def rung(*causes: str, last: Dependence = Dependence.CONDITIONAL) -> str:
        clauses = (Dependence.ANY, Dependence.INDEPENDENT, last)
        return tail_bound(
            [
                made(None, f"d{i}", contract=contract, dependence=clauses[i], common_cause=cause)
                for i, cause in enumerate(causes)
            ],
            30.0,
        ).rung

    assert rung("", "power", "") == "conditional-tails"
    assert rung("power", "", "power") == "dual-any-dependence"
    assert rung("", "", "", last=Dependence.ANY) == "dual-any-dependence"


def test_losses_multiply_only_where_independence_is_attested() -> None:
    def failure(dependence: Dependence, cause: str = "") -> float:
        each = [made(CURVE, f"d{i}", loss=0.1, error=0.0, dependence=dependence, common_cause=cause) for i in range(2)]
        path = path_delay([Hop(envelope=one) for one in each], BUCKET, 0.5)
        assert path is not None
        return session_bound(path, 1_000.0).epsilon_bound

    assert failure(Dependence.INDEPENDENT) == pytest.approx(0.19)
    assert failure(Dependence.CONDITIONAL) == pytest.approx(0.2)
    assert failure(Dependence.INDEPENDENT, "power") == pytest.approx(0.2)


MODELS = st.sampled_from(
    [AIR, CURVE, None, ReservedRateDeficit(rate_per_ms=0.5, latency_ms=1.0, prefactor=2.0, decay_per_request=0.7)]
)


@given(st.lists(MODELS, min_size=1, max_size=4), st.sampled_from([1e-2, 1e-4]), st.sampled_from(list(Dependence)))
def test_the_inverse_is_proven_and_budgets_add_up(
    models: list[ServiceModel | None], epsilon: float, clause: Dependence
) -> None:
    hops = [Hop(envelope=made(model, f"d{i}", dependence=clause)) for i, model in enumerate(models)]
    path = path_delay(hops, BUCKET, epsilon)
    delay_ms = session_delay_ms(path, epsilon)
    assert delay_ms is not None
    for enough in (epsilon, None):
        bound = session_bound(path, delay_ms, enough)
        assert bound.epsilon_bound <= epsilon
        assert math.fsum(part.delay_ms for part in bound.budget) <= delay_ms
        assert math.fsum(part.epsilon for part in bound.budget) <= bound.epsilon_bound
    assert session_bound(path, 2.0 * delay_ms).epsilon_bound <= bound.epsilon_bound


@given(MODELS.filter(lambda model: model is not None), st.sampled_from([0.02, 0.1, 0.15]), st.integers(1, 9))
def test_more_traffic_never_shortens_the_delay(model: ServiceModel, rate: float, burst: int) -> None:
    less = path_delay([Hop(envelope=made(model))], Traffic(rate_per_ms=rate, burst=burst), 1e-3)
    more = path_delay([Hop(envelope=made(model))], Traffic(rate_per_ms=rate * 1.5, burst=burst + 1), 1e-3)
    short, long = session_delay_ms(less, 1e-3), session_delay_ms(more, 1e-3)
    assert short is not None
    assert long is None or short <= long * (1 + 1e-9)


@pytest.mark.parametrize(
    "model",
    [
        OnOffSlots(slot_ms=1.0, requests_per_slot=1.0, availability=0.05),
        ReservedRate(rate_per_ms=0.05, latency_ms=0.0),
        ReservedRateDeficit(rate_per_ms=0.1, latency_ms=0.0, prefactor=1.0, decay_per_request=1.0),
        SharedRate(rate_per_ms=0.05, latency_ms=0.0, burst_total_max=10),
    ],
)
def test_an_overloaded_domain_promises_nothing(model: ServiceModel) -> None:
    path = path_delay([Hop(envelope=made(model))], BUCKET, 1e-3)
    assert path is None
    bound = session_bound(path, 1e6)
    assert (bound.epsilon_bound, bound.rung, bound.budget) == (1.0, OVERLOADED, ())
    assert session_delay_ms(path, 0.5) is None
    assert worst_contract(model, BUCKET, 1e-3) is None


def test_no_room_behind_a_random_delay_promises_nothing() -> None:
    exactly = ReservedRate(rate_per_ms=RATE, latency_ms=1.0)
    assert path_delay([Hop(envelope=made(exactly))], BUCKET, 1e-3) is not None
    assert path_delay([Hop(envelope=made(None, "a")), Hop(envelope=made(exactly, "b"))], BUCKET, 1e-3) is None


def test_slots_that_are_always_on_are_a_clock() -> None:
    always = OnOffSlots(slot_ms=2.0, requests_per_slot=3.0, availability=1.0)
    contract = session_contract(always, 0.1, 4, 1e-9)
    assert contract is not None
    assert contract.exceedance(10.0) < 1e-9
    shared = SharedRate(rate_per_ms=1.0, latency_ms=0.0, burst_total_max=1)
    assert session_contract(shared, 0.1, 4, 1e-9) is None
    assert mean_rate_per_ms(always) == pytest.approx(1.5)


def test_the_least_delay_of_contracts_alone_is_what_it_was() -> None:
    assert least_delay_ms([made(None, loss=0.1)], 0.05) is None
    delay_ms = least_delay_ms([made(None)], 1e-3)
    assert delay_ms is not None
    assert tail_bound([made(None)], delay_ms).epsilon_bound <= 1e-3
    assert delay_ms == pytest.approx(10.0 + math.log(1e3) / 0.2, rel=1e-6)


def test_an_envelope_survives_a_journal_and_one_from_before_is_read() -> None:
    for model in (AIR, CURVE, SharedRate(rate_per_ms=1.0, latency_ms=0.0, burst_total_max=3), None):
        one = made(model)
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Envelope) == one
    old = {
        name: value
        for name, value in msgspec.to_builtins(made(None)).items()
        if name not in {"service", "tenant_capacity_mrps"}
    }
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Envelope) == made(None)

"""What a refusal proposes is admitted when it is asked for, and is near: a little less is refused."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.anchor.eligibility import Candidate, Nearest
from aipaging.core.anchor.intent import EPSILON_MAX, Intent
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.service import (
    OnOffSlots,
    ReservedRate,
    ReservedRateDeficit,
    ServiceModel,
    SharedRate,
    Traffic,
    worst_contract,
)
from aipaging.core.foundation.names import ClientId, TenantId
from aipaging.core.paging import commands as c
from aipaging.core.paging.nearest import DIRECTIONS, resolved
from aipaging.core.paging.page import resolve
from aipaging.testing.world import World, envelope, intent

TENANT, CLIENT = TenantId("tenant-9"), ClientId("client-9")
LARGEST = Traffic.of(100_000, 20)

LESS: Mapping[str, float] = {"delay_ms": 0.999, "epsilon": 0.99}
"""How much less is refused: a delay is the least to 1 in 4096 of its tail, an epsilon is what one path proves."""

MORE: Mapping[str, float] = {"rate_rps": 1.02, "burst": 1}
"""How much more is refused: a rate is the highest to 1 %, a burst is the largest."""

contracts = st.builds(
    DelayContract,
    offset_ms=st.floats(0.0, 40.0),
    prefactor=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
    decay_per_ms=st.floats(0.03, 0.6),
)
models = st.one_of(
    st.none(),
    st.builds(ReservedRate, rate_per_ms=st.floats(0.11, 0.5), latency_ms=st.floats(0.0, 20.0)),
    st.builds(
        ReservedRateDeficit,
        rate_per_ms=st.floats(0.15, 0.5),
        latency_ms=st.floats(0.0, 10.0),
        prefactor=st.sampled_from([0.5, 1.0]),
        decay_per_request=st.floats(0.3, 1.5),
    ),
    st.builds(OnOffSlots, slot_ms=st.just(1.0), requests_per_slot=st.just(1.0), availability=st.floats(0.5, 0.95)),
    st.builds(
        SharedRate, rate_per_ms=st.floats(0.15, 0.6), latency_ms=st.floats(0.0, 5.0), burst_total_max=st.just(60)
    ),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    world = World.started()
    for name in ("access-eu", "metro", "edge-one", "edge-two"):
        model: ServiceModel | None = draw(models)
        contract = draw(contracts) if model is None else worst_contract(model, LARGEST, 1e-6)
        if contract is None:
            continue
        made: Envelope = replace(
            envelope(name, sequence=2),
            contract=contract,
            service=model,
            burst_max=draw(st.sampled_from([12, 100])),
            rate_mrps_max=draw(st.sampled_from([25_000, 100_000])),
            capacity_mrps=draw(st.sampled_from([0, 40_000])),
            dependence=draw(st.sampled_from(list(Dependence))),
            digest=sha256(repr((name, model, contract)).encode()).hexdigest(),
        )
        world.state.catalogue.envelopes[made.domain, made.segment] = made
    for _ in range(draw(st.integers(0, 2))):
        world.page(intent(rate_rps=8.0, burst=draw(st.integers(1, 12)), delay_ms=900.0, epsilon=1e-2))
        world.settle()
    return world


def looked(world: World, wanted: Intent, anchor: str) -> Candidate:
    found = resolve(world.state, wanted, world.now, tenant=TENANT, client=CLIENT)
    return next(candidate for candidate in found if candidate.anchor == anchor)


def changed(wanted: Intent, name: str, value: float) -> Intent:
    return structs.replace(wanted, **{name: int(value) if name == "burst" else value})  # type: ignore[arg-type]


def require_near(world: World, wanted: Intent, anchor: str, name: str, value: float) -> None:
    """Raise unless a little less of what was proposed is refused."""
    if name in LESS:
        less = value * LESS[name]
        refused = looked(world, changed(wanted, name, less), anchor) if less >= 1e-9 else None
    else:
        more = value + MORE[name] if name == "burst" else value * MORE[name] + 0.002
        refused = looked(world, changed(wanted, name, more), anchor)
    if refused is not None:
        assert refused.rejection is not None, (name, value, refused)


@settings(max_examples=100, deadline=None, report_multiple_bugs=False, suppress_health_check=[HealthCheck.too_slow])
@given(
    worlds(),
    st.floats(20.0, 500.0),
    st.sampled_from([1e-6, 1e-4, 1e-3, 1e-2]),
    st.sampled_from([1.0, 9.0, 30.0, 60.0]),
    st.sampled_from([1, 5, 20, 90]),
)
def test_what_is_proposed_is_admitted_and_near(
    world: World, delay_ms: float, epsilon: float, rate_rps: float, burst: int
) -> None:
    wanted = intent(delay_ms=delay_ms, epsilon=epsilon, rate_rps=rate_rps, burst=burst)
    for candidate in resolved(world.state, wanted, world.now, tenant=TENANT, client=CLIENT):
        if candidate.rejection is None or candidate.rejection.nearest is None:
            continue
        near = candidate.rejection.nearest
        offered = {name: value for name in DIRECTIONS if (value := getattr(near, name)) is not None}
        outcomes = {
            name: looked(world, changed(wanted, name, value), candidate.anchor).rejection
            for name, value in offered.items()
        }
        if None in outcomes.values():
            assert set(outcomes.values()) == {None}, (offered, outcomes)
            for name, value in offered.items():
                require_near(world, wanted, candidate.anchor, name, value)
        else:
            # No change alone would do: each passes what it was proposed for, and something else fails.
            for name, outcome in outcomes.items():
                assert outcome is not None
                further = getattr(outcome.nearest, name) if outcome.nearest is not None else None
                assert further is None, (name, offered, outcome)


def test_a_proposal_that_a_later_check_would_refuse_is_followed() -> None:
    """The guardrail lets 100/s in, of which 50/s are left at the anchor."""
    world = World.started()
    wanted = intent(rate_rps=101.0)
    plain = looked(world, wanted, "a").rejection
    assert plain is not None
    assert plain.nearest == Nearest(rate_rps=100.0)
    found = resolved(world.state, wanted, world.now, tenant=TENANT, client=CLIENT)
    settled = next(candidate for candidate in found if candidate.anchor == "a").rejection
    assert settled is not None
    assert (settled.constraint, settled.nearest) == ("GUARDRAIL", Nearest(rate_rps=50.0))
    reply = world.page(structs.replace(wanted, rate_rps=50.0)).reply
    assert isinstance(reply, c.Admitted)


@pytest.mark.parametrize("domains", [2, 3])
def test_the_least_delay_of_a_path_whose_dual_bound_is_sharper_is_proposed(domains: int) -> None:
    world = World.started()
    for name in ("access-eu", "metro", "edge-one")[-domains:]:
        plain = envelope(name, sequence=2)
        contract = DelayContract(offset_ms=10.0, prefactor=2.0, decay_per_ms=0.1)
        world.state.catalogue.envelopes[plain.domain, ""] = replace(plain, contract=contract)
    wanted = intent(delay_ms=50.0, epsilon=1e-2)
    found = resolved(world.state, wanted, world.now, tenant=TENANT, client=CLIENT)
    refused = next(candidate for candidate in found if candidate.anchor == "a").rejection
    assert refused is not None
    assert refused.nearest is not None
    least_ms = refused.nearest.delay_ms
    assert least_ms is not None
    assert looked(world, structs.replace(wanted, delay_ms=least_ms), "a").rejection is None
    assert looked(world, structs.replace(wanted, delay_ms=least_ms * (1 - 1e-5)), "a").rejection is not None


def slotted(availability: float) -> World:
    """Return a world whose domains all wait for slots, so often the system's own."""
    world = World.started()
    model = OnOffSlots(slot_ms=1.0, requests_per_slot=1.0, availability=availability)
    contract = worst_contract(model, LARGEST, 1e-6)
    assert contract is not None
    for name in ("access-eu", "metro", "edge-one", "edge-two"):
        plain = envelope(name, sequence=2)
        world.state.catalogue.envelopes[plain.domain, ""] = replace(plain, contract=contract, service=model)
    return world


def proposed_epsilon(found: Iterable[Candidate]) -> float | None:
    refused = next(candidate for candidate in found if candidate.anchor == "a").rejection
    assert refused is not None
    return None if refused.nearest is None else refused.nearest.epsilon


@pytest.mark.parametrize("availability", [round(0.5 + 0.02 * step, 2) for step in range(22)])
def test_the_least_epsilon_of_slots_is_proposed_though_their_tails_change_in_steps(availability: float) -> None:
    world = slotted(availability)
    for delay_ms in (14.0, 20.0, 26.0):
        wanted = intent(delay_ms=delay_ms, epsilon=1e-6, rate_rps=9.0, burst=1)
        least = proposed_epsilon(resolved(world.state, wanted, world.now, tenant=TENANT, client=CLIENT))
        if least is not None:
            assert looked(world, structs.replace(wanted, epsilon=least), "a").rejection is None
            require_near(world, wanted, "a", "epsilon", least)


def test_no_epsilon_is_proposed_that_nobody_may_ask_for() -> None:
    world = slotted(0.5)
    wishes = [intent(delay_ms=float(delay_ms), epsilon=1e-6, rate_rps=9.0, burst=1) for delay_ms in range(5, 60)]
    proposed = [
        proposed_epsilon(look(world.state, wanted, world.now, tenant=TENANT, client=CLIENT))
        for wanted in wishes
        for look in (resolved, resolve)
    ]
    told = [epsilon for epsilon in proposed if epsilon is not None]
    assert told
    assert max(told) <= EPSILON_MAX

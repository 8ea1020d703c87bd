"""What was promised stays promised: every live session's bound, worked out anew by somebody else, after every step."""

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.anchor.choice import best
from aipaging.core.anchor.eligibility import examine, ranked
from aipaging.core.anchor.intent import Intent, Preference
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.admission import session_bound
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.path_delay import Hop, path_delay
from aipaging.core.envelope.service import (
    OnOffSlots,
    ReservedRate,
    ReservedRateDeficit,
    ReservedSlots,
    ServiceModel,
    SharedRate,
    Traffic,
    worst_contract,
)
from aipaging.core.foundation.names import DomainName, SessionId, TenantId
from aipaging.core.paging import commands as c
from aipaging.core.paging.decision import offer_to
from aipaging.core.paging.page import resolve
from aipaging.core.paging.protection import protect_all
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.step import evolve, step
from aipaging.testing.world import ACCESS, World, envelope, intent

METRO = SharedRate(rate_per_ms=0.5, latency_ms=2.0, burst_total_max=400)
SLOTS = ReservedSlots(slots=8, base_ms=1.0, per_request_ms=0.1, slots_per_tenant=4, tokens_max=4, burst_total_max=100)
AIR = OnOffSlots(slot_ms=1.0, requests_per_slot=1.0, availability=0.9)
CURVE = ReservedRate(rate_per_ms=0.2, latency_ms=3.0)
SHORT = ReservedRateDeficit(rate_per_ms=0.3, latency_ms=1.0, prefactor=1.0, decay_per_request=0.8)


def served(name: str, model: ServiceModel, *, sequence: int = 1, **changes: object) -> Envelope:
    contract = worst_contract(model, Traffic.of(100_000, 20), 1e-6)
    plain = envelope(name, sequence=sequence)
    return replace(
        plain,
        contract=contract or plain.contract,
        service=model,
        digest=f"{abs(hash((name, sequence))):064x}",
        **changes,  # type: ignore[arg-type]
    )


def put(world: World, *envelopes: Envelope) -> World:
    """Put envelopes into force where nothing rests on others yet."""
    for one in envelopes:
        world.state.catalogue.envelopes[one.domain, one.segment] = one
    return world


def world_of(metro: ServiceModel = METRO, compute: ServiceModel = SLOTS) -> World:
    return put(
        World.started(), served(ACCESS, AIR), served("metro", metro), served("edge-one", compute),
        served("edge-two", CURVE),
    )  # fmt: skip


def paged(world: World, wanted: Intent, tenant: str) -> c.Reply:
    """Page for a tenant of its own."""
    world.sessions_made += 1
    name = f"law-{world.sessions_made}"
    command = c.Page(
        session=SessionId(name), tenant=TenantId(tenant), client=c.ClientId("client"), token_id=name, salt=b"s" * 16,
        intent=wanted,
    )  # fmt: skip
    decision = step(world.state, command, world.now)
    for event in decision.events:
        evolve(world.state, event)
    return decision.reply


def require_promises(world: World) -> None:
    """Work out every live session's bound from the sessions alone: no ledger, no tolerance, no memory."""
    state = world.state
    bursts: dict[tuple[DomainName, str], int] = defaultdict(int)
    held = {(session, domain) for session, kept in state.ledger.reservations() for domain in kept.domains}
    for session, domain in held:
        holder = state.sessions[session]
        for owner in ("", holder.tenant):
            bursts[domain, owner] += holder.intent.burst
    for session in state.sessions.values():
        if not session.available or session.lease is None:
            continue
        wanted = session.intent
        hops: list[Hop] = []
        for domain in session.lease.domains:
            promise = state.catalogue.envelope_of(domain, session.aisi)
            assert promise is not None
            owner = session.tenant if isinstance(promise.service, ReservedSlots) else ""
            hops.append(Hop(envelope=promise, ahead=bursts[domain, owner] - wanted.burst))
        path = path_delay(hops, Traffic.of(wanted.rate_mrps, wanted.burst), wanted.epsilon)
        bound = session_bound(path, wanted.delay_ms).epsilon_bound
        recorded = session.lease.bound.epsilon_bound
        assert bound <= recorded * (1.0 + 1e-9), (session.session, bound, recorded)
        assert recorded <= wanted.epsilon


PAGES = st.lists(
    st.tuples(
        st.sampled_from([40.0, 80.0, 120.0, 200.0, 400.0]),
        st.sampled_from([1e-2, 1e-3, 1e-4]),
        st.sampled_from([1.0, 5.0, 20.0]),
        st.sampled_from([1, 3, 8]),
        st.sampled_from(["red", "blue", "green"]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PAGES, st.sampled_from([METRO, SHORT, CURVE]), st.sampled_from([SLOTS, METRO, CURVE]))
def test_whoever_is_admitted_everybody_keeps_the_bound(
    pages: list[tuple[float, float, float, int, str, bool]], metro: ServiceModel, compute: ServiceModel
) -> None:
    world = world_of(metro, compute)
    for delay_ms, epsilon, rate, burst, tenant, end in pages:
        paged(world, intent(delay_ms=delay_ms, epsilon=epsilon, rate_rps=rate, burst=burst), tenant)
        live = [session for session in world.state.sessions.values() if session.available]
        if end and live:
            for event in step(
                world.state, c.End(session=live[0].session, status_info=StatusInfo.DELETE_REQUESTED), world.now
            ).events:
                evolve(world.state, event)
        require_promises(world)
    again = decode_state(encode_state(world.state))
    assert again is not None
    assert again.ledger.sums == world.state.ledger.sums
    assert again.ledger.bursts == world.state.ledger.bursts
    assert again.ledger.tenants == {k: v for k, v in world.state.ledger.tenants.items() if v}
    assert again.ledger.tolerances.places == world.state.ledger.tolerances.places


@settings(max_examples=60, deadline=None)
@given(
    PAGES,
    st.sampled_from(list(Preference)),
    st.lists(st.sampled_from([METRO, SLOTS, CURVE, SHORT, None]), min_size=3, max_size=3),
    st.sampled_from(["any", "conditional", "independent"]),
)
def test_the_quick_choice_is_the_first_of_the_full_list(
    pages: list[tuple[float, float, float, int, str, bool]],
    prefer: Preference,
    models: list[ServiceModel | None],
    clause: str,
) -> None:
    world = World.started()
    for name, model in zip(("metro", "edge-one", "edge-two"), models, strict=True):
        plain = replace(envelope(name), dependence=Dependence(clause), digest=f"{name:>064}")
        put(world, plain if model is None else replace(served(name, model), dependence=Dependence(clause)))
    for delay_ms, epsilon, rate, burst, tenant, pinned in pages:
        wanted = intent(
            delay_ms=delay_ms, epsilon=epsilon, rate_rps=rate, burst=burst, prefer=prefer,
            regions=("us",) if pinned else (),
        )  # fmt: skip
        offer = offer_to(world.state, SessionId("new"), wanted, world.now, tenant=TenantId(tenant))
        anchors = list(world.state.catalogue.anchors.values())
        first = ranked(world.state.catalogue, wanted, examine(offer, wanted, anchors))[:1]
        found = best(offer, wanted, anchors)
        assert found == (first[0] if first else None)
        paged(world, wanted, tenant)


def test_a_session_that_would_harm_others_is_refused_and_told_how_much_would_fit() -> None:
    world = put(World.started(), served("metro", METRO))
    tight = paged(world, intent(delay_ms=110.0, burst=1, rate_rps=1.0), "red")
    assert isinstance(tight, c.Admitted)
    refused = paged(world, intent(delay_ms=1_000.0, burst=20, rate_rps=1.0), "blue")
    assert isinstance(refused, c.Refused)
    assert refused.constraint == "OTHERS"
    nearest = next(one.rejection.nearest for one in refused.candidates if one.rejection and one.rejection.nearest)
    assert nearest.burst is not None
    fits = paged(world, intent(delay_ms=1_000.0, burst=nearest.burst, rate_rps=1.0), "blue")
    assert isinstance(fits, c.Admitted)
    more = paged(world, intent(delay_ms=1_000.0, burst=20, rate_rps=1.0), "green")
    assert isinstance(more, c.Refused)
    require_promises(world)


def test_when_the_tight_one_is_gone_the_burst_fits() -> None:
    world = put(World.started(), served("metro", METRO))
    assert isinstance(paged(world, intent(delay_ms=110.0, burst=1, rate_rps=1.0), "red"), c.Admitted)
    assert isinstance(paged(world, intent(delay_ms=1_000.0, burst=20, rate_rps=1.0), "blue"), c.Refused)
    world.do(c.End(session=SessionId("law-1"), status_info=StatusInfo.DELETE_REQUESTED))
    assert isinstance(paged(world, intent(delay_ms=1_000.0, burst=20, rate_rps=1.0), "blue"), c.Admitted)


def test_a_tenant_keeps_within_its_cap_and_does_not_take_anothers() -> None:
    capped = replace(served("metro", METRO), tenant_capacity_mrps=10_000)
    world = put(World.started(), capped)
    assert isinstance(paged(world, intent(rate_rps=8.0, burst=1), "red"), c.Admitted)
    refused = paged(world, intent(rate_rps=8.0, burst=1), "red")
    assert isinstance(refused, c.Refused)
    assert refused.constraint == "CAPACITY"
    assert "2 requests/s are left in metro" in refused.message
    assert isinstance(paged(world, intent(rate_rps=8.0, burst=1), "blue"), c.Admitted)
    assert world.state.ledger.sum_of(DomainName("metro"), TenantId("red")).rate_mrps == 8_000
    assert world.state.ledger.sum_of(DomainName("metro")).rate_mrps == 16_000


def test_slots_are_of_tenants_and_run_out() -> None:
    world = put(World.started(), served("edge-one", SLOTS), served("edge-two", SLOTS, sequence=2))
    world.state.catalogue.envelopes[DomainName("edge-two"), ""] = replace(
        served("edge-two", SLOTS), valid_until_us=world.now.wall_us
    )
    wanted = intent(delay_ms=500.0, rate_rps=1.0, burst=1)
    assert isinstance(paged(world, wanted, "red"), c.Admitted)
    assert isinstance(paged(world, wanted, "blue"), c.Admitted)
    refused = paged(world, wanted, "green")
    assert isinstance(refused, c.Refused)
    assert refused.constraint == "QUEUE"
    assert isinstance(paged(world, wanted, "red"), c.Admitted)


def test_a_queue_holds_so_much_burst_and_no_more() -> None:
    world = put(World.started(), served("metro", replace_burst(METRO, 10)))
    assert isinstance(paged(world, intent(delay_ms=1_000.0, rate_rps=1.0, burst=8), "red"), c.Admitted)
    refused = paged(world, intent(delay_ms=1_000.0, rate_rps=1.0, burst=8), "blue")
    assert isinstance(refused, c.Refused)
    assert refused.constraint == "QUEUE"
    nearest = next(one.rejection.nearest for one in refused.candidates if one.rejection and one.rejection.nearest)
    assert nearest.burst == 2


def replace_burst(model: SharedRate, burst_total_max: int) -> SharedRate:
    return SharedRate(rate_per_ms=model.rate_per_ms, latency_ms=model.latency_ms, burst_total_max=burst_total_max)


@pytest.mark.parametrize("model", [CURVE, SHORT])
def test_a_refusal_names_delay_rate_and_burst_that_would_be_admitted(model: ServiceModel) -> None:
    world = put(World.started(), served("metro", model))
    wanted = intent(delay_ms=300.0, epsilon=1e-3, rate_rps=100.0, burst=90, regions=("eu",))
    world.state.catalogue.anchors = {
        name: replace(anchor, capacity_mrps=10**9) for name, anchor in world.state.catalogue.anchors.items()
    }
    found = next(one for one in resolve(world.state, wanted, world.now) if one.anchor == "a")
    assert found.rejection is not None
    assert found.rejection.constraint == "DELAY"
    nearest = found.rejection.nearest
    assert nearest is not None
    for change in (
        {"delay_ms": nearest.delay_ms},
        {"burst": nearest.burst},
        {"epsilon": nearest.epsilon},
        {"rate_rps": nearest.rate_rps},
    ):
        if next(iter(change.values())) is not None:
            again = structs.replace(wanted, **change)  # type: ignore[arg-type]
            eligible = [one for one in resolve(world.state, again, world.now) if one.anchor == "a"]
            assert eligible[0].rejection is None, change
    assert nearest.burst is not None
    assert nearest.delay_ms is not None


def test_a_better_envelope_and_a_worse_one_change_what_is_tolerated() -> None:
    contract = DelayContract(offset_ms=10.0, prefactor=1.0, decay_per_ms=0.2)
    world = put(World.started(), served("metro", METRO))
    paged(world, intent(delay_ms=200.0, burst=1, rate_rps=1.0), "red")
    (before,) = (tolerated for _, tolerated in world.state.ledger.tolerances.places.values())
    assert before > METRO.latency_ms
    slower = replace(envelope("edge-one", sequence=2), contract=replace(contract, offset_ms=60.0), digest="f" * 64)
    put(world, slower)
    protect_all(world.state, DomainName("edge-one"))
    (after,) = (tolerated for _, tolerated in world.state.ledger.tolerances.places.values())
    assert after == pytest.approx(before - 50.0, abs=1e-3)


def test_a_restart_keeps_what_is_tolerated_and_the_first_of_equal_anchors_is_taken() -> None:
    world = put(World.started(), served("metro", METRO))
    twin = world.state.catalogue.anchors[c.AnchorId("a")]
    world.state.catalogue.anchors[c.AnchorId("0")] = replace(twin, anchor=c.AnchorId("0"))
    reply = paged(world, intent(delay_ms=200.0, burst=1, rate_rps=1.0), "red")
    assert isinstance(reply, c.Admitted)
    assert reply.candidates[0].anchor == "0"
    before = {session: place for (session, _), place in world.state.ledger.tolerances.places.items()}
    world.state.ledger.tolerances.move(SessionId("nobody"), world.state.sessions[reply.session].leases.__next__().epoch,
                                       world.state.sessions[reply.session].leases.__next__().epoch)  # fmt: skip
    world.do(c.StartTerm(settings=world.settings, software="test"))
    after = {session: place for (session, _), place in world.state.ledger.tolerances.places.items()}
    assert after == before
    (epoch,) = (epoch for _, epoch in world.state.ledger.tolerances.places)
    assert epoch.term == world.state.term


def test_a_term_that_a_dual_bound_admitted_counts_its_own_split() -> None:
    """Where the sharpest rung was needed, the inverse without it proves less than the COMMIT's own split does."""
    world = put(World.started(), served("metro", METRO))
    low, high = 60.0, 200.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        found = [one for one in resolve(world.state, intent(delay_ms=middle, burst=1), world.now) if one.anchor == "a"]
        low, high = (low, middle) if found[0].rejection is None else (middle, high)
    reply = paged(world, intent(delay_ms=high, burst=1), "red")
    assert isinstance(reply, c.Admitted)
    assert reply.candidates[0].bound is not None
    (place,) = world.state.ledger.tolerances.places.values()
    budget = {part.domain: part.delay_ms for part in reply.candidates[0].bound.budget}
    assert place[1] >= budget[DomainName("metro")]
    require_promises(world)

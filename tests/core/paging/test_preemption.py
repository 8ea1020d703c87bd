"""Room for a higher class: who gives way, when the room is there, and that it is kept and never sold twice."""

import contextlib
from dataclasses import replace
from itertools import combinations

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.anchor.intent import Intent
from aipaging.core.envelope.service import ReservedRate, ReservedSlots, ServiceModel, SharedRate
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import SECOND, BootUs
from aipaging.core.identity.tenant import PriorityClass, Quotas, Tenant
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging import events as e
from aipaging.core.paging import preemption
from aipaging.core.paging import tenancy_events as t
from aipaging.core.paging.claiming import asked_digest, would_preempt
from aipaging.core.paging.page import resolve
from aipaging.core.paging.preemption import VICTIMS_MAX
from aipaging.core.paging.records import RESTRICTIVE, draft_of, event_of
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.step import evolve, step, wake_at
from aipaging.testing.world import ACCESS, World, accept, envelope, intent

TERMS = LeaseTerms(lease_ms=4_000, drift_ppm=500, grace_ms=500, drain_ms_max=30_000)
SETTINGS = Settings(lease=TERMS, lease_ms_max=4_000)
TENANTS = {
    "background": PriorityClass.BACKGROUND,
    "standard": PriorityClass.STANDARD,
    "urgent": PriorityClass.URGENT,
    "emergency": PriorityClass.EMERGENCY,
}
CLASS_OF = {TenantId(name): priority for name, priority in TENANTS.items()}
LONG_S = 3_600


def started(*, preempts: bool = True) -> World:
    world = World.started(SETTINGS)
    for name, priority in TENANTS.items():
        higher = preempts and priority >= PriorityClass.URGENT
        world.do(c.RegisterTenant(tenant=Tenant(tenant=TenantId(name), priority=priority, preempts=higher)))
    return world


def wanted(rate_rps: float, *, region: str = "eu", **changes: object) -> Intent:
    """Return an intent that only one of the two anchors can serve, unless it says otherwise."""
    fields: dict[str, object] = {"burst": 1, "duration_s": LONG_S, "regions": (region,) if region else ()}
    return intent(rate_rps=rate_rps, **{**fields, **changes})


def ask(world: World, tenant: str, asked: Intent, *, key: str = "") -> c.Reply:
    world.sessions_made += 1
    number = world.sessions_made
    command = c.Page(
        session=SessionId(f"00000000-0000-4000-8000-{number:012x}"),
        tenant=TenantId(tenant),
        client=ClientId(f"{tenant}-client"),
        token_id=str(number),
        salt=number.to_bytes(16, "big"),
        intent=asked,
        key=key,
    )
    return world.do(command).reply


def admitted(world: World, tenant: str, asked: Intent, *, key: str = "") -> SessionId:
    reply = ask(world, tenant, asked, key=key)
    assert isinstance(reply, c.Admitted), reply
    world.settle()
    return reply.session


def refused(world: World, tenant: str, asked: Intent, *, key: str = "") -> c.Refused:
    reply = ask(world, tenant, asked, key=key)
    assert isinstance(reply, c.Refused), reply
    return reply


def now_woken(world: World) -> None:
    """Do what is due now: those who have to make room are looked at at once."""
    while (due_us := wake_at(world.state)) is not None and due_us <= world.now.boot_us + 100:
        world.now = structs.replace(world.now, boot_us=max(due_us, world.now.boot_us))
        world.do(c.Wake())
    world.settle()


def ended(world: World, *sessions: SessionId) -> list[StatusInfo | None]:
    return [world.state.sessions[each].status_info for each in sessions]


def audited(world: World) -> None:
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    assert verifier.verdict().first_bad is None, verifier.verdict().first_bad


def preempted(world: World) -> list[t.SessionPreempted]:
    return [event for event in world.events if isinstance(event, t.SessionPreempted)]


RATES = st.sampled_from([0.5, 1.0, 4.0, 7.0, 12.0, 20.0])
LOWER = st.sampled_from(["background", "standard"])
CROWDS = st.lists(st.tuples(LOWER, RATES, st.sampled_from(["eu", "eu", "us", ""])), min_size=6, max_size=14)


@given(CROWDS, st.sampled_from([5.0, 12.0, 20.0, 30.0, 45.0, 90.0]), st.sampled_from([1, 2, 64]))
def test_what_is_told_to_be_hopeless_without_a_look_is_hopeless(
    crowd: list[tuple[str, float, str]], rate_rps: float, victims_max: int
) -> None:
    world = started()
    for tenant, rate, region in crowd:
        ask(world, tenant, wanted(rate, region=region))
        world.settle()
    command = c.Page(
        session=SessionId("00000000-0000-4000-8000-ffffffffffff"),
        tenant=TenantId("urgent"),
        client=ClientId("urgent-client"),
        token_id="t",
        salt=bytes(16),
        intent=wanted(rate_rps),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preemption, "VICTIMS_MAX", victims_max)
        quick = step(world.state, command, world.now)
        patch.setattr(preemption._Search, "hopeless", lambda *_: False)
        assert step(world.state, command, world.now) == quick


def test_a_hopeless_page_looks_at_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = started()
    for _ in range(40):
        admitted(world, "background", wanted(0.9))
    looked = []
    may_go = preemption._may_go
    monkeypatch.setattr(preemption, "_may_go", lambda *asked: looked.append(asked) or may_go(*asked))
    assert refused(world, "emergency", wanted(90.0)).constraint == "CAPACITY"
    assert not looked
    assert refused(world, "emergency", wanted(30.0)).constraint == "PREEMPTING"
    assert looked


def test_a_page_of_a_higher_class_is_told_to_ask_again_and_then_has_the_room() -> None:
    world = started()
    victim = admitted(world, "background", wanted(50))
    no = refused(world, "emergency", wanted(20))
    assert no.constraint == "PREEMPTING"
    assert no.retry_after_s is not None
    assert 4 <= no.retry_after_s <= 5, "the lease, its drift and the grace"
    assert "1 sessions up to class BACKGROUND give way" in no.message
    said = preempted(world)[0]
    assert (said.session, said.by_session) == (victim, no.session)
    assert (said.priority, said.by_priority) == (PriorityClass.BACKGROUND, PriorityClass.EMERGENCY)
    effects = len(world.effects)
    world.do(c.Wake())
    fences = [
        each for effect in world.effects[effects:] if isinstance(effect, x.RevokeSteering) for each in effect.fences
    ]
    assert [each.session for each in fences] == [victim], "its steering stops at once"
    assert ended(world, victim) == [StatusInfo.PREEMPTED]
    assert refused(world, "emergency", wanted(20)).constraint == "PREEMPTING", "nobody holds it, and it is not free yet"
    assert len(preempted(world)) == 1, "asking again displaces nobody else"
    world.advance(no.retry_after_s * 1_000)
    admitted(world, "emergency", wanted(20))
    assert not world.state.tenancy.claims
    audited(world)


def test_the_room_is_kept_from_lower_classes_and_equals_and_not_from_a_higher_one() -> None:
    world = started()
    admitted(world, "standard", wanted(50))
    no = refused(world, "urgent", wanted(30))
    world.advance((no.retry_after_s or 0) * 1_000)
    assert refused(world, "standard", wanted(30)).constraint == "CAPACITY"
    assert refused(world, "urgent", wanted(31)).constraint == "CAPACITY", "another request of its own class"
    admitted(world, "standard", wanted(20))
    admitted(world, "emergency", wanted(30))
    assert refused(world, "urgent", wanted(30)).constraint == "CAPACITY", "who is left is too little"
    audited(world)


def test_room_that_nobody_comes_for_is_given_back() -> None:
    world = started()
    admitted(world, "standard", wanted(50))
    no = refused(world, "urgent", wanted(30))
    world.advance((no.retry_after_s or 0) * 1_000 + 2_000 + t.KEPT_US // 1_000 + 5_000)
    assert [event.cause for event in world.events if isinstance(event, t.RoomLetGo)] == [t.LetGo.EXPIRED]
    admitted(world, "standard", wanted(50))
    audited(world)


def test_nobody_is_displaced_by_an_equal_or_by_a_tenant_that_may_not() -> None:
    world = started()
    admitted(world, "urgent", wanted(50))
    assert refused(world, "urgent", wanted(10)).constraint == "CAPACITY"
    assert refused(world, "standard", wanted(10)).constraint == "CAPACITY"
    meek = started(preempts=False)
    admitted(meek, "background", wanted(50))
    assert refused(meek, "emergency", wanted(10)).constraint == "CAPACITY"
    assert not preempted(world) + preempted(meek)


def test_what_leaves_anyway_is_waited_for() -> None:
    world = started()
    leaving, staying = admitted(world, "standard", wanted(25)), admitted(world, "background", wanted(25))
    world.do(c.End(session=leaving, status_info=StatusInfo.DELETE_REQUESTED))
    no = refused(world, "urgent", wanted(25))
    assert no.constraint == "PREEMPTING"
    assert "is about to be free" in no.message
    assert refused(world, "standard", wanted(5)).constraint == "CAPACITY"
    world.advance((no.retry_after_s or 0) * 1_000)
    admitted(world, "urgent", wanted(25))
    assert world.state.sessions[staying].available
    assert not preempted(world)
    audited(world)


@pytest.mark.parametrize(
    ("there", "rate", "victims"),
    [
        ([("background", 25), ("standard", 25)], 10, [0]),
        ([("background", 5), ("standard", 45)], 10, [1]),  # the lower one alone would not do, and need not go
        ([("background", 20), ("background", 10), ("background", 20)], 10, [1]),  # the least that does
        ([("background", 20), ("background", 20), ("background", 10)], 15, [1]),  # of equals the newer
        ([("background", 10)] * 5, 20, [3, 4]),
        ([("background", 30), ("background", 10), ("background", 10)], 40, [0, 2]),  # as few as can be
        ([("urgent", 25), ("standard", 25)], 25, [1]),
        ([("urgent", 25), ("standard", 25)], 30, [0, 1]),
    ],
)
def test_who_gives_way(there: list[tuple[str, int]], rate: int, victims: list[int]) -> None:
    world = started()
    sessions: list[SessionId] = []
    for tenant, rate_rps in there:
        sessions.append(admitted(world, tenant, wanted(rate_rps)))
        world.sleep(1)
    assert refused(world, "emergency", wanted(rate)).constraint == "PREEMPTING"
    assert {event.session for event in preempted(world)} == {sessions[place] for place in victims}


def test_a_victim_with_room_elsewhere_is_moved_and_drains_no_longer_than_its_lease() -> None:
    world = started()
    victim = admitted(world, "background", wanted(30, region=""))
    source = world.state.sessions[victim].lease
    assert source is not None
    region = {"a": "eu", "b": "us"}[source.anchor]
    no = refused(world, "emergency", wanted(40, region=region))
    now_woken(world)
    moved = world.state.sessions[victim]
    assert moved.relocation is not None
    assert (moved.relocation.cause, moved.relocation.phase) == (RelocationCause.PREEMPTED, RelocationPhase.SWITCHED)
    assert moved.source is not None
    assert moved.source.deadline_us == source.deadline_us, "its COMMIT is not prolonged by a drain"
    assert moved.available
    world.advance((no.retry_after_s or 0) * 1_000)
    admitted(world, "emergency", wanted(40, region=region))
    assert world.state.sessions[victim].available, "whoever has moved is left alone"
    audited(world)


def test_a_victim_whose_move_fails_ends() -> None:
    world = started()
    victim = admitted(world, "background", wanted(30, region=""))
    lease = world.state.sessions[victim].lease
    assert lease is not None
    no = refused(world, "emergency", wanted(40, region={"a": "eu", "b": "us"}[lease.anchor]))
    world.do(c.Wake())
    relocation = world.state.sessions[victim].relocation
    assert relocation is not None
    world.effects.clear()
    world.do(c.RelocationBroken(session=victim, number=relocation.number, message="the target is ill"))
    assert ended(world, victim) == [StatusInfo.PREEMPTED]
    world.advance((no.retry_after_s or 0) * 1_000)
    audited(world)


def test_the_limit_may_be_in_a_domain_and_a_move_within_it_makes_no_room() -> None:
    """The transport that all cross is full: whoever moves on it still holds it, so the victim ends."""
    world = started()
    metro = world.state.catalogue.domains[DomainName("metro")]
    world.do(c.RegisterDomain(domain=replace(metro, capacity_mrps=40_000)))
    anywhere = admitted(world, "background", wanted(20, region=""))
    lease = world.state.sessions[anywhere].lease
    assert lease is not None
    assert lease.anchor == "a"
    other = admitted(world, "background", wanted(20, region="us"))
    no = refused(world, "emergency", wanted(20, region="eu"))
    assert no.constraint == "PREEMPTING"
    now_woken(world)
    assert ended(world, anywhere, other) == [StatusInfo.PREEMPTED, None]
    world.advance((no.retry_after_s or 0) * 1_000)
    admitted(world, "emergency", wanted(20, region="eu"))
    audited(world)


def test_where_several_limits_are_short_nobody_is_displaced_who_could_be_spared() -> None:
    world = started()
    metro = world.state.catalogue.domains[DomainName("metro")]
    sessions: list[SessionId] = []
    for tenant, rate, region in (("background", 30, "us"), ("background", 16, "us"), ("background", 15, "eu")):
        sessions.append(admitted(world, tenant, wanted(rate, region=region)))
        world.sleep(1)
    admitted(world, "urgent", wanted(30))
    world.do(c.RegisterDomain(domain=replace(metro, capacity_mrps=91_000)))
    # The anchor lacks 15, which only the last has; the transport lacks 20, of which that one brings 15.
    assert refused(world, "urgent", wanted(20)).constraint == "PREEMPTING"
    assert {event.session for event in preempted(world)} == {sessions[1], sessions[2]}


def test_whoever_has_just_moved_is_not_displaced_until_its_source_is_free() -> None:
    world = started()
    mover = admitted(world, "background", wanted(30, region=""))
    world.do(c.Relocate(session=mover, cause=RelocationCause.CLIENT))
    world.settle()
    moved = world.state.sessions[mover].lease
    assert moved is not None
    assert moved.anchor == "b"
    assert refused(world, "emergency", wanted(40, region="us")).constraint == "CAPACITY"
    world.advance(TERMS.drain_ms_max + 10_000)
    assert refused(world, "emergency", wanted(40, region="us")).constraint == "PREEMPTING"


def test_whoever_stays_keeps_its_contract_beside_a_claim() -> None:
    """A claim and those who still hold its room are together more than there is: nobody who stays pays for it."""
    world = started()
    admitted(world, "background", wanted(25))
    stays = admitted(world, "standard", wanted(25))
    refused(world, "emergency", wanted(25))
    promised = world.state.catalogue.envelopes[DomainName("edge-one"), ""]
    digest = "f" * 64
    world.do(accept(replace(promised, sequence=promised.sequence + 1, digest=digest)))
    now_woken(world)
    assert not world.state.sessions[stays].degraded
    lease = world.state.sessions[stays].lease
    assert lease is not None
    assert digest in lease.envelopes, "it was looked at"
    audited(world)


def test_a_page_displaces_no_more_than_is_allowed() -> None:
    world = started()
    for _ in range(VICTIMS_MAX + 1):
        admitted(world, "background", wanted(0.769))
    assert refused(world, "emergency", wanted(49.9)).constraint == "CAPACITY"
    assert refused(world, "emergency", wanted(20)).constraint == "PREEMPTING"
    assert 0 < len(preempted(world)) <= VICTIMS_MAX


def test_quotas_come_first_and_claims_count_for_them() -> None:
    world = started()
    quotas = Quotas(sessions_max=1)
    urgent = Tenant(tenant=TenantId("urgent"), quotas=quotas, priority=PriorityClass.URGENT, preempts=True)
    world.do(c.RegisterTenant(tenant=urgent))
    admitted(world, "background", wanted(25))
    admitted(world, "background", wanted(25))
    assert refused(world, "urgent", wanted(20), key="one").constraint == "PREEMPTING"
    assert refused(world, "urgent", wanted(20), key="two").constraint == "QUOTA", "it would be a second session"
    assert len(preempted(world)) == 1
    poor = replace(urgent, quotas=Quotas(spend_max=1))
    world.do(c.RegisterTenant(tenant=poor))
    assert refused(world, "urgent", wanted(25), key="three").constraint == "QUOTA"
    assert len(preempted(world)) == 1


def test_a_kill_lets_room_go_and_spares_who_has_not_begun_to_leave() -> None:
    world = started()
    victim = admitted(world, "background", wanted(50))
    refused(world, "emergency", wanted(20))
    decision = world.do(c.Kill(kind=t.SwitchKind.TENANT, name="emergency", reason="stolen key"))
    assert all(type(event) in RESTRICTIVE for event in decision.events)
    now_woken(world)
    assert world.state.sessions[victim].available
    audited(world)


def test_a_resolution_displaces_nobody_and_says_who_would_be() -> None:
    world = started()
    admitted(world, "background", wanted(30))
    admitted(world, "standard", wanted(20))
    before = encode_state(world.state)
    asked, tenant, client = wanted(20), TenantId("emergency"), ClientId("emergency-client")
    found = resolve(world.state, asked, world.now, tenant=tenant, client=client)
    assert all(each.rejection is not None for each in found)
    plan = would_preempt(world.state, asked, world.now, tenant=tenant, client=client)
    assert plan is not None
    assert [(each.tenant, each.intent.rate_rps) for each in plan.victims] == [("background", 30)]
    elsewhere = wanted(20, region="us")
    assert would_preempt(world.state, elsewhere, world.now, tenant=tenant, client=client) is None, "there is room"
    assert would_preempt(world.state, asked, world.now, tenant=TenantId("standard"), client=ClientId("x")) is None
    assert encode_state(world.state) == before


def test_claims_and_victims_outlive_a_restart() -> None:
    world = started()
    victim = admitted(world, "background", wanted(50))
    refused(world, "emergency", wanted(20))
    rebuilt = State()
    for entry in world.entries:
        event = event_of(entry, rebuilt.sessions.__contains__)
        assert event is not None
        evolve(rebuilt, event)
    assert encode_state(rebuilt) == encode_state(world.state)
    restored = decode_state(encode_state(rebuilt))
    assert restored is not None
    world.state = restored
    world.now = structs.replace(
        world.now, boot_us=BootUs(world.now.boot_us + 1_000 * SECOND)
    )  # another machine's clock
    world.do(c.StartTerm(settings=SETTINGS, software="test"))
    now_woken(world)
    assert ended(world, victim) == [StatusInfo.PREEMPTED]
    assert world.state.tenancy.claims
    no = refused(world, "emergency", wanted(20))
    assert no.constraint == "PREEMPTING"
    world.advance((no.retry_after_s or 0) * 1_000)
    admitted(world, "emergency", wanted(20))
    audited(world)


def test_a_full_journal_displaces_nobody_until_it_is_well() -> None:
    world = started()
    victim = admitted(world, "background", wanted(50))
    refused(world, "emergency", wanted(20))
    world.do(c.Wake(restrictive=True))
    assert world.state.sessions[victim].available
    world.advance(1_001)
    assert ended(world, victim) == [StatusInfo.PREEMPTED]
    audited(world)


QUEUE = SharedRate(rate_per_ms=0.5, latency_ms=2.0, burst_total_max=40)


@pytest.mark.parametrize(("burst", "delay_ms", "constraint"), [(20, 250.0, "QUEUE"), (5, 50.0, "DELAY")])
def test_the_room_may_be_in_a_queue_that_sessions_share(burst: int, delay_ms: float, constraint: str) -> None:
    """What is short is the burst that a queue holds, or the delay behind the bursts that stand in it."""
    world = started()
    for name in (ACCESS, "metro", "edge-one", "edge-two"):
        plain = envelope(name)
        contract = replace(plain.contract, offset_ms=1.0, decay_per_ms=10.0)
        served = replace(plain, contract=contract, service=QUEUE if name == "edge-one" else None)
        world.state.catalogue.envelopes[DomainName(name), ""] = served
    there: list[SessionId] = []
    for _ in range(2):
        there.append(admitted(world, "background", wanted(1.0, burst=15)))
        world.sleep(1)
    asked = wanted(1.0, burst=burst, delay_ms=delay_ms)
    standard = refused(world, "standard", asked)
    assert standard.constraint == constraint
    no = refused(world, "emergency", asked)
    assert no.constraint == "PREEMPTING", no.message
    assert [event.session for event in preempted(world)] == there[1:], "the newer, and nobody beside it"
    now_woken(world)
    world.advance((no.retry_after_s or 0) * 1_000)
    admitted(world, "emergency", asked)


def audit_of(world: World, *events: e.Transition) -> str:
    """Let records say what the engine did not decide; return what the auditor says to that."""
    for event in events:
        evolve(world.state, event)
        world.entries += world.sealer.seal([draft_of(event, world.state)], term=world.state.term, now=world.now)
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    bad = verifier.verdict().first_bad
    return bad.what if bad is not None else ""


def displacement(world: World, victim: SessionId, **changes: object) -> t.SessionPreempted:
    claim = next(iter(world.state.tenancy.claims.values()))
    event = t.SessionPreempted(
        session=victim,
        priority=PriorityClass.BACKGROUND,
        by_session=claim.page,
        by_priority=claim.priority,
        boot_us=world.now.boot_us,
    )
    return replace(event, **changes)  # type: ignore[arg-type]


def test_the_auditor_sees_who_was_displaced_wrongly() -> None:
    def claimed() -> tuple[World, SessionId, SessionId]:
        world = started()
        low, equal = admitted(world, "background", wanted(20)), admitted(world, "urgent", wanted(30))
        assert refused(world, "urgent", wanted(20)).constraint == "PREEMPTING"
        return world, low, equal

    world, low, _ = claimed()
    assert audit_of(world) == ""
    assert "no room is claimed" in audit_of(world, displacement(world, low, by_session=SessionId("nobody")))
    world, _, equal = claimed()
    assert "is not of class" in audit_of(world, displacement(world, equal))
    world, _, equal = claimed()
    assert "not of a higher class" in audit_of(world, displacement(world, equal, priority=PriorityClass.URGENT))
    world, _, equal = claimed()
    over = e.SessionEnded(
        session=equal, status_info=StatusInfo.PREEMPTED, boot_us=world.now.boot_us, wall_us=world.now.wall_us
    )
    assert "nobody displaced it" in audit_of(world, over)
    world, _, _ = claimed()
    claim = replace(next(iter(world.state.tenancy.claims.values())), tenant=TenantId("standard"))
    assert "may not displace" in audit_of(world, t.RoomClaimed(claim=claim))
    world, _, _ = claimed()
    world.state.tenancy.claims[SessionId("nobody")] = claim
    lost = t.RoomLetGo(tenant=TenantId("urgent"), for_session=SessionId("nobody"), cause=t.LetGo.EXPIRED)
    assert "was not claimed" in audit_of(world, lost)


class PreemptionWalk(RuleBasedStateMachine):
    """Pages of four classes at two small anchors, ends, moves, faults, time, restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(metro_rps=st.sampled_from([0, 60]))
    def start(self, metro_rps: int) -> None:
        self.world = started()
        metro = self.world.state.catalogue.domains[DomainName("metro")]
        self.world.do(c.RegisterDomain(domain=replace(metro, capacity_mrps=metro_rps * 1_000)))

    @rule(
        tenant=st.sampled_from(list(TENANTS)),
        rate=st.sampled_from([5.0, 10.0, 20.0, 50.0]),
        region=st.sampled_from(["", "eu", "us"]),
        keyed=st.booleans(),
    )
    def page(self, tenant: str, rate: float, region: str, keyed: bool) -> None:
        asked = wanted(rate, region=region, duration_s=100)
        ask(self.world, tenant, asked, key=f"{rate} {region}" if keyed else "")

    @rule(pick=st.integers(0, 30), end=st.booleans())
    def touch(self, pick: int, end: bool) -> None:
        sessions = [each.session for each in self.world.state.sessions.values() if each.available]
        if sessions:
            session = sessions[pick % len(sessions)]
            over = c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED)
            with contextlib.suppress(AipagingError):
                self.world.do(over if end else c.Relocate(session=session, cause=RelocationCause.CLIENT))

    @rule(broken=st.booleans())
    def answer_an_effect(self, broken: bool) -> None:
        if not self.world.effects:
            return
        effect = self.world.effects.pop(0)
        if broken and isinstance(effect, x.PrepareTarget | x.SwitchSteering):
            self.world.do(c.RelocationBroken(session=effect.session, number=effect.number, message="broken"))
        else:
            self.world.carry_out(effect)

    @rule(state=st.sampled_from([AnchorState.READY, AnchorState.DRAINING]), anchor=st.sampled_from("ab"))
    def operate(self, anchor: str, state: AnchorState) -> None:
        with contextlib.suppress(AipagingError):
            self.world.do(c.SetAnchorState(anchor=AnchorId(anchor), state=state, cause="OPERATOR"))

    @rule(ms=st.sampled_from([0, 100, 1_500, 6_000, 45_000]))
    def pass_time(self, ms: int) -> None:
        self.world.advance(ms, settle=False)

    @rule()
    def restart(self) -> None:
        rebuilt = State()
        for entry in self.world.entries:
            event = event_of(entry, rebuilt.sessions.__contains__)
            assert event is not None
            evolve(rebuilt, event)
        assert encode_state(rebuilt) == encode_state(self.world.state)
        restored = decode_state(encode_state(rebuilt))
        assert restored is not None
        assert set(restored.ledger.leaving) == set(self.world.state.ledger.leaving)
        self.world.state = restored
        self.world.effects.clear()
        self.world.do(c.StartTerm(settings=SETTINGS, software="test"))

    @rule()
    def whoever_waits_is_admitted(self) -> None:
        """With nobody else about, a page that was told to ask again has its room when it was told, or soon after."""
        claims = self.world.state.tenancy.claims
        highest = max(claims.values(), key=lambda claim: claim.priority, default=None)
        if highest is None or any(isinstance(effect, x.PrepareTarget) for effect in self.world.effects):
            return
        asked = next(
            event.intent
            for event in self.world.events
            if isinstance(event, e.SessionRefused) and event.session == highest.page
        )
        key = f"{asked.rate_rps} {''.join(asked.regions)}"
        key = key if asked_digest(asked, key) == highest.asked else ""
        for _ in range(4):
            reply = ask(self.world, highest.tenant, asked, key=key)
            if isinstance(reply, c.Admitted):
                return
            assert isinstance(reply, c.Refused)
            if reply.constraint != "PREEMPTING":
                return  # an anchor drains, or is needed by those who were there before
            assert reply.retry_after_s is not None
            self.world.advance(reply.retry_after_s * 1_000)
        raise AssertionError(f"{asked} is put off again and again")

    @invariant()
    def only_a_higher_class_displaces(self) -> None:
        owners = {event.session: event.tenant for event in self.world.events if isinstance(event, e.SessionRequested)}
        claims = {event.claim.page: event.claim for event in self.world.events if isinstance(event, t.RoomClaimed)}
        for event in preempted(self.world):
            displacing = CLASS_OF[claims[event.by_session].tenant]
            assert CLASS_OF[owners[event.session]] == event.priority < event.by_priority == displacing
            assert event.by_priority >= PriorityClass.URGENT

    @invariant()
    def only_who_was_displaced_ends_so(self) -> None:
        displaced = {event.session for event in preempted(self.world)}
        for event in self.world.events:
            if isinstance(event, e.SessionEnded) and event.status_info is StatusInfo.PREEMPTED:
                assert event.session in displaced

    @invariant()
    def capacity_is_not_sold_twice(self) -> None:
        state = self.world.state
        for name, anchor in state.catalogue.anchors.items():
            held = {s: r.rate_mrps for s, r in state.ledger.reservations() if r.anchor == name}
            assert sum(held.values()) == state.ledger.anchor_mrps(name) <= anchor.capacity_mrps
        metro = DomainName("metro")
        held = {s: r.rate_mrps for s, r in state.ledger.reservations() if metro in r.domains}
        capacity_mrps = state.catalogue.domains[metro].capacity_mrps
        assert sum(held.values()) == state.ledger.domain_mrps(metro)
        assert not capacity_mrps or sum(held.values()) <= capacity_mrps

    @invariant()
    def victims_leave_for_claims_that_stand(self) -> None:
        tenancy = self.world.state.tenancy
        assert set(tenancy.victims.values()) <= set(tenancy.claims)
        assert all(self.world.state.sessions[victim].available for victim in tenancy.victims)

    def teardown(self) -> None:
        audited(self.world)


TestPreemptionWalk = PreemptionWalk.TestCase
TestPreemptionWalk.settings = profile(max_examples=40, stateful_step_count=30, deadline=None)


@given(
    there=st.lists(st.tuples(st.sampled_from(list(TENANTS)), st.integers(1, 25)), max_size=6),
    asker=st.sampled_from(["urgent", "emergency"]),
    rate=st.integers(1, 50),
)
@profile(max_examples=100, deadline=None)
def test_the_fewest_of_the_lowest_class_give_way(there: list[tuple[str, int]], asker: str, rate: int) -> None:
    """Held against every subset of those who are there."""
    world = started(preempts=False)
    sessions: list[Session] = []
    for tenant, rate_rps in there:
        reply = ask(world, tenant, wanted(rate_rps))
        if isinstance(reply, c.Admitted):
            sessions.append(world.state.sessions[reply.session])
    world.do(c.RegisterTenant(tenant=Tenant(tenant=TenantId(asker), priority=TENANTS[asker], preempts=True)))
    spare = 50 - sum(each.intent.rate_rps for each in sessions)
    lower = [each for each in sessions if CLASS_OF[each.tenant] < TENANTS[asker]]
    good = [
        (max(CLASS_OF[each.tenant] for each in some), len(some))
        for count in range(1, len(lower) + 1)
        for some in combinations(lower, count)
        if spare + sum(each.intent.rate_rps for each in some) >= rate
    ]
    reply = ask(world, asker, wanted(rate))
    displaced = [world.state.sessions[event.session] for event in preempted(world)]
    if spare >= rate:
        assert isinstance(reply, c.Admitted)
        assert not displaced
    elif not good:
        assert isinstance(reply, c.Refused)
        assert (reply.constraint, displaced) == ("CAPACITY", [])
    else:
        assert (max(CLASS_OF[each.tenant] for each in displaced), len(displaced)) == min(good)
        assert spare + sum(each.intent.rate_rps for each in displaced) >= rate


SLOTS = ReservedSlots(slots=8, base_ms=1.0, per_request_ms=0.1, slots_per_tenant=4, tokens_max=4, burst_total_max=30)
SERVED: tuple[ServiceModel | None, ...] = (QUEUE, SLOTS, ReservedRate(rate_per_ms=0.2, latency_ms=3.0), None)


@given(
    metro=st.sampled_from(SERVED),
    compute=st.sampled_from(SERVED),
    there=st.lists(
        st.tuples(
            st.sampled_from(["background", "low-one", "low-two", "standard"]),
            st.sampled_from([1.0, 5.0, 20.0]),
            st.integers(1, 15),
        ),
        min_size=1,
        max_size=10,
    ),
    rate=st.sampled_from([1.0, 10.0, 40.0]),
    burst=st.integers(1, 20),
    delay_ms=st.sampled_from([60.0, 100.0, 250.0]),
)
@profile(max_examples=100, deadline=None)
def test_whoever_is_told_to_ask_again_is_admitted_whatever_was_short(
    metro: ServiceModel | None,
    compute: ServiceModel | None,
    there: list[tuple[str, float, int]],
    rate: float,
    burst: int,
    delay_ms: float,
) -> None:
    """Rates, slots of tenants, bursts in shared queues, delays behind them, and the delays of those who stay."""
    world = started()
    for name in ("low-one", "low-two"):
        world.do(c.RegisterTenant(tenant=Tenant(tenant=TenantId(name), priority=PriorityClass.BACKGROUND)))
    for name, service in ((ACCESS, None), ("metro", metro), ("edge-one", compute), ("edge-two", None)):
        plain = envelope(name)
        contract = replace(plain.contract, offset_ms=1.0, decay_per_ms=2.0)
        world.state.catalogue.envelopes[DomainName(name), ""] = replace(plain, contract=contract, service=service)
    for tenant, rate_rps, size in there:
        ask(world, tenant, wanted(rate_rps, burst=size, delay_ms=100.0))
        world.settle()
        world.sleep(1)
    asked = wanted(rate, burst=burst, delay_ms=delay_ms)
    before = [each.session for each in world.state.sessions.values() if each.available]
    reply = ask(world, "emergency", asked)
    victims = {event.session for event in preempted(world)}
    for _ in range(3):
        if isinstance(reply, c.Admitted):
            break
        assert isinstance(reply, c.Refused)
        if reply.constraint != "PREEMPTING":
            assert not victims
            return
        assert reply.retry_after_s is not None
        world.advance(reply.retry_after_s * 1_000)
        reply = ask(world, "emergency", asked)
    assert isinstance(reply, c.Admitted), reply
    assert {event.session for event in preempted(world)} == victims, "asking again displaces nobody else"
    left = {each for each in before if world.state.sessions[each].available}
    assert left | victims >= set(before), "nobody else is ended"
    audited(world)

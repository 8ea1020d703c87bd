"""What is promised is provable or its client was told: laws over random histories of envelopes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.envelope.refusals import EnvelopeExpiredError, EnvelopeReplayedError, EnvelopeRolledBackError
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import promise_events as p
from aipaging.core.paging.contract import found
from aipaging.core.paging.events import RelocationAdvanced
from aipaging.core.paging.promises import ContractState
from aipaging.core.paging.records import event_of
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.step import evolve
from aipaging.testing.world import ACCESS_TWO, World, accept, anchor, domain, envelope, intent

TERMS = LeaseTerms(lease_ms=2_000, drift_ppm=500, grace_ms=300, drain_ms_max=2_000)
SETTINGS = Settings(lease=TERMS, lease_ms_max=2_000)
LONG = intent(duration_s=3_600)
ONLY_EU = intent(duration_s=3_600, regions=("eu",))

DOMAINS = st.sampled_from(["access-eu", "metro", "edge-one", "edge-two"])
STEPS = st.one_of(
    st.tuples(st.just("promise"), DOMAINS, st.sampled_from([5.0, 10.0, 60.0, 240.0]), st.sampled_from([2, 10_000])),
    st.tuples(st.just("suspect"), DOMAINS),
    st.tuples(st.just("clear"), DOMAINS),
    st.tuples(st.just("drain"), st.sampled_from("ab")),
    st.tuples(st.just("ready"), st.sampled_from("ab")),
    st.tuples(st.just("shrink"), st.sampled_from("ab"), st.sampled_from([15, 50])),
    st.tuples(st.just("wait"), st.sampled_from([10, 1_500, 4_000])),
    st.tuples(st.just("move"), st.sampled_from(["access-eu", "access-us"])),
    st.tuples(st.just("restart"), st.sampled_from([0, 1_000])),
)


def in_force(world: World, name: str) -> str:
    return world.state.catalogue.envelopes[DomainName(name), ""].digest


def promise(world: World, name: str, *, offset_ms: float = 10.0, lasts_s: int = 10_000) -> str:
    """Put the next envelope of a domain into force and return its digest."""
    sequence = world.state.catalogue.envelopes[DomainName(name), ""].sequence + 1
    until_us = WallUs(world.now.wall_us + lasts_s * SECOND)
    promised = replace(envelope(name, offset_ms=offset_ms, sequence=sequence), valid_until_us=until_us)
    world.do(accept(promised))
    return promised.digest


def restart(world: World, away_ms: int) -> None:
    rebuilt = State()
    for entry in world.entries:
        event = event_of(entry, rebuilt.sessions.__contains__)
        assert event is not None
        evolve(rebuilt, event)
    rebuilt.heard_us, rebuilt.entitled = world.state.heard_us, world.state.entitled
    assert encode_state(rebuilt) == encode_state(world.state)
    restored = decode_state(encode_state(rebuilt))
    assert restored is not None
    world.state = restored
    world.effects.clear()
    world.sleep(away_ms)
    world.do(c.StartTerm(settings=SETTINGS, software="test"))


def play(world: World, step: tuple[object, ...], sessions: list[Session]) -> None:
    match step:
        case ("promise", str(name), float(offset_ms), int(lasts_s)):
            promise(world, name, offset_ms=offset_ms, lasts_s=lasts_s)
        case ("suspect", str(name)):
            world.do(c.SuspectEnvelope(digest=in_force(world, name), reason="violated"))
        case ("clear", str(name)):
            world.do(c.ClearEnvelope(digest=in_force(world, name)))
        case ("drain", str(name)):
            world.do(c.SetAnchorState(anchor=AnchorId(name), state=AnchorState.DRAINING, cause="OPERATOR"))
        case ("ready", str(name)):
            if world.state.catalogue.anchors[AnchorId(name)].state is AnchorState.DRAINING:
                world.do(c.SetAnchorState(anchor=AnchorId(name), state=AnchorState.READY, cause="OPERATOR"))
        case ("shrink", str(name), int(capacity_rps)):
            at = "edge-one" if name == "a" else "edge-two"
            world.do(c.RegisterAnchor(anchor=anchor(name, at, capacity_rps=capacity_rps)))
        case ("wait", int(ms)):
            world.advance(ms)
        case ("move", str(place)):
            if world.state.sessions[sessions[0].session].available:
                world.do(c.MoveClient(session=sessions[0].session, place=DomainName(place)))
        case ("restart", int(away_ms)):
            restart(world, away_ms)
        case _:
            raise AssertionError(step)


def require_the_law(world: World) -> int:
    """Every AVAILABLE session carries the bound that holds now, or is degraded; return how many are."""
    degraded = 0
    for session in world.state.sessions.values():
        if not session.available or session.lease is None:
            continue
        finding = found(world.state, session, world.now)
        degraded += session.degraded
        assert session.degraded == (finding.rejection is not None), (finding.rejection, session.contract)
        if finding.rejection is None:
            assert finding.candidate is not None
            assert (session.lease.bound, session.lease.envelopes) == (
                finding.candidate.bound,
                finding.candidate.envelopes,
            )
    return degraded


def require_each_change_told_once(world: World) -> None:
    told: dict[str, str] = {}
    for event in world.events:
        match event:
            case p.SessionDegraded():
                assert told.get(event.session) != event.constraint
                told[event.session] = event.constraint
            case p.SessionRestored():
                assert told.pop(event.session)
            case _:
                pass
    for session in world.state.sessions.values():
        contract = session.contract
        assert contract is not None
        assert contract.constraint == told.get(session.session, "")


def require_clean_evidence(world: World) -> None:
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    assert verifier.verdict().first_bad is None, verifier.verdict().first_bad


@given(steps=st.lists(STEPS, min_size=1, max_size=14))
@profile(max_examples=80, deadline=None)
def test_a_promise_is_a_theorem_or_its_client_was_told(steps: list[tuple[object, ...]]) -> None:
    world = World.started(SETTINGS)
    sessions = [world.paged(LONG), world.paged(LONG), world.paged(ONLY_EU)]
    for step in steps:
        play(world, step, sessions)
        world.advance(5)
        require_the_law(world)
        require_each_change_told_once(world)
    require_clean_evidence(world)


def test_another_envelope_that_still_carries_the_session_gives_it_the_new_bound() -> None:
    world = World.started(SETTINGS)
    session = world.paged(ONLY_EU).session
    before = world.state.sessions[session].lease
    digest = promise(world, "edge-one", offset_ms=20.0)
    world.advance(5)
    now = world.state.sessions[session]
    assert now.lease is not None
    assert before is not None
    assert (now.lease.anchor, now.lease.epoch) == ("a", before.epoch)
    assert digest in now.lease.envelopes
    assert now.lease.bound.epsilon_bound > before.bound.epsilon_bound
    assert not now.degraded
    require_clean_evidence(world)


def test_where_nothing_else_carries_it_the_session_is_degraded_and_comes_back() -> None:
    world = World.started(SETTINGS)
    session = world.paged(ONLY_EU).session
    promise(world, "edge-one", offset_ms=240.0)
    world.advance(5)
    told = world.state.sessions[session].contract
    assert told is not None
    assert (told.state, told.constraint) == (ContractState.DEGRADED, "DELAY")
    assert told.nearest is not None
    assert told.nearest.delay_ms is not None
    assert told.nearest.delay_ms > LONG.delay_ms
    world.advance(30_000)
    assert world.state.sessions[session].available
    promise(world, "edge-one", offset_ms=10.0)
    world.advance(5)
    now = world.state.sessions[session]
    assert now.contract is not None
    assert now.contract.state is ContractState.HELD
    kinds = [type(event) for event in world.events]
    assert (kinds.count(p.SessionDegraded), kinds.count(p.SessionRestored)) == (1, 1)
    require_clean_evidence(world)


def test_where_another_anchor_carries_it_the_session_moves_and_is_restored() -> None:
    world = World.started(SETTINGS)
    session = world.paged(LONG).session
    world.do(c.SuspectEnvelope(digest=in_force(world, "edge-one"), reason="audit: violated"))
    world.advance(50)
    now = world.state.sessions[session]
    assert now.lease is not None
    assert now.lease.anchor == "b"
    assert now.relocation is not None
    assert now.relocation.cause is RelocationCause.CONTRACT_UNPROVABLE
    assert not now.degraded
    require_clean_evidence(world)


def test_an_envelope_that_expires_is_noticed_without_anybody_asking() -> None:
    world = World.started(SETTINGS)
    session = world.paged(ONLY_EU).session
    promise(world, "metro", lasts_s=3)
    world.advance(2_900)
    assert not world.state.sessions[session].degraded
    world.advance(200)
    contract = world.state.sessions[session].contract
    assert contract is not None
    assert contract.constraint == "ENVELOPE"


def test_a_degraded_session_is_tried_less_and_less_often() -> None:
    world = World.started(SETTINGS)
    world.paged(ONLY_EU)
    for _ in range(5):  # several reasons to look again must not become several looks
        promise(world, "edge-one", offset_ms=240.0)
        world.advance(5)
    before = len(world.entries)
    world.advance(200_000)
    relocations = [event for event in world.events if isinstance(event, RelocationAdvanced)]
    assert len(relocations) <= 4  # DETECTED and FAILED, once or twice; an attempt that changes nothing is no event
    assert len(world.entries) - before < 300  # renewals


def test_suspicion_needs_an_envelope_in_force_and_ends_with_a_newer_one() -> None:
    world = World.started(SETTINGS)
    old = in_force(world, "metro")
    world.do(c.SuspectEnvelope(digest=old, reason="violated"))
    assert world.do(c.SuspectEnvelope(digest=old, reason="violated")).events == []
    promise(world, "metro")
    assert world.state.catalogue.suspect == {}
    for command in (c.SuspectEnvelope(digest=old, reason="x"), c.ClearEnvelope(digest=old)):
        with pytest.raises(InvalidInputError):
            world.do(command)


def test_sequence_and_validity_are_judged_again_when_the_envelope_arrives() -> None:
    world = World.started(SETTINGS)
    newest = envelope("metro", sequence=5)
    world.do(accept(newest))
    with pytest.raises(EnvelopeReplayedError):
        world.do(accept(newest))
    with pytest.raises(EnvelopeRolledBackError):
        world.do(accept(envelope("metro", sequence=4)))
    with pytest.raises(EnvelopeExpiredError):
        world.do(accept(replace(envelope("metro", sequence=6), valid_until_us=world.now.wall_us)))
    with pytest.raises(InvalidInputError):
        world.do(accept(envelope("nowhere")))


def test_the_originals_are_kept_over_a_restart() -> None:
    world = World.started(SETTINGS)
    first = in_force(world, "metro")
    second = promise(world, "metro")
    restart(world, 0)
    originals = world.state.promises.originals
    assert originals[first].signed == f"signed.{first}"
    assert originals[second].sequence == 2


def test_a_domain_described_anew_makes_every_session_looked_at() -> None:
    world = World.started(SETTINGS)
    session = world.paged(structs.replace(ONLY_EU, trust_min=3)).session
    untrusted = replace(world.state.catalogue.domains[DomainName("metro")], trust=1)
    world.do(c.RegisterDomain(domain=untrusted))
    world.advance(5)
    contract = world.state.sessions[session].contract
    assert contract is not None
    assert contract.constraint == "TRUST"
    world.do(c.RegisterDomain(domain=domain("metro", untrusted.kind, "eu")))
    world.advance(5)
    assert not world.state.sessions[SessionId(session)].degraded


def test_a_client_that_moved_has_no_promise_until_its_session_has_moved() -> None:
    world = World.started(SETTINGS)
    session = world.paged(LONG).session
    world.do(c.MoveClient(session=session, place=ACCESS_TWO))
    world.do(c.Wake())
    contract = world.state.sessions[session].contract
    assert contract is not None
    assert contract.constraint == "PATH"
    world.advance(50)
    assert not world.state.sessions[session].degraded

"""Many sessions must leave at once: by class and age, at a pace, with every grant counted before the next."""

from dataclasses import replace

import pytest

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.names import AnchorId, ClientId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import SECOND, BootUs, Now, WallUs
from aipaging.core.identity.tenant import PriorityClass, Tenant
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.events import CommitGranted
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.step import wake_at
from aipaging.testing.world import World, anchor, intent

TERMS = LeaseTerms(lease_ms=60_000, drift_ppm=500, grace_ms=500, drain_ms_max=1_000)
CLASSES = (PriorityClass.BACKGROUND, PriorityClass.STANDARD, PriorityClass.EMERGENCY)


def crowded(sessions: int, *, spare_rps: int, per_s: int = 5_000, anchors: tuple[str, ...] = ("a",)) -> World:
    """Return a world whose first edge is full, and whose second has so much to spare."""
    world = World.started(Settings(lease=TERMS, relocations_per_s=per_s))
    for name in anchors:
        world.do(c.RegisterAnchor(anchor=anchor(name, "edge-one", capacity_rps=sessions // len(anchors))))
        world.do(c.Heartbeat(anchor=AnchorId(name), state=AnchorState.READY))
    world.do(c.RegisterAnchor(anchor=anchor("b", "edge-two", capacity_rps=spare_rps)))
    world.do(c.SetAnchorState(anchor=AnchorId("b"), state=AnchorState.DRAINING, cause="OPERATOR"))
    for priority in CLASSES:
        world.do(c.RegisterTenant(tenant=Tenant(tenant=TenantId(priority.name.lower()), priority=priority)))
    for number in range(sessions):
        priority = CLASSES[number % len(CLASSES)]
        command = c.Page(
            session=SessionId(f"00000000-0000-4000-8000-{(number * 7919) % 1_000_003:012x}"),
            tenant=TenantId(priority.name.lower()),
            client=ClientId("client"),
            token_id=str(number),
            salt=number.to_bytes(16, "big"),
            intent=intent(rate_rps=1.0, burst=1, duration_s=3_600),
        )
        assert isinstance(world.do(command).reply, c.Admitted)
        world.now = Now(boot_us=BootUs(world.now.boot_us + 1), wall_us=WallUs(world.now.wall_us + 1))
    world.settle()
    world.do(c.SetAnchorState(anchor=AnchorId("b"), state=AnchorState.READY, cause="OPERATOR"))
    return world


def moved(world: World, *, within_ms: int) -> list[SessionId]:
    """Let the anchor drain, answering nothing; return who was granted a target, in order."""
    world.do(c.SetAnchorState(anchor=AnchorId("a"), state=AnchorState.DRAINING, cause="OPERATOR"))
    return granted(world, within_ms=within_ms)


def granted(world: World, *, within_ms: int, late_us: int = 0) -> list[SessionId]:
    """Do what is due for a while, answering nothing; return who was granted a target, in order."""
    seen, end_us = len(world.events), world.now.boot_us + within_ms * 1_000
    while (due_us := wake_at(world.state)) is not None and due_us <= end_us:
        at_us = max(due_us + late_us, world.now.boot_us)
        world.now = Now(boot_us=BootUs(at_us), wall_us=WallUs(world.now.wall_us + at_us - world.now.boot_us))
        world.do(c.Wake())
    return [event.session for event in world.events[seen:] if isinstance(event, CommitGranted)]


def test_the_higher_class_goes_first_and_then_the_older() -> None:
    world = crowded(90, spare_rps=90)
    order = moved(world, within_ms=500)
    assert len(order) == 90
    assert ranks(world, order) == sorted(ranks(world, order))


@pytest.mark.parametrize("late_us", [150, 900, 5_000])
def test_who_wakes_late_keeps_the_line(late_us: int) -> None:
    """Several turns are due then: each has its own wake, and nobody loses a place."""
    world = crowded(90, spare_rps=45)
    domain_dies(world, "a")
    order = granted(world, within_ms=500, late_us=late_us)
    assert len(order) == 45
    assert ranks(world, order) == sorted(ranks(world, order))
    counts = [sum(world.state.sessions[each].tenant == word.name.lower() for each in order) for word in CLASSES]
    assert counts == [0, 15, 30]


def test_what_is_too_little_for_all_goes_to_the_highest_class_and_is_sold_once() -> None:
    world = crowded(60, spare_rps=20)
    order = moved(world, within_ms=500)
    assert [world.state.sessions[each].tenant for each in order] == ["emergency"] * 20
    assert world.state.ledger.anchor_mrps(AnchorId("b")) == 20_000
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    assert verifier.verdict().first_bad is None


def test_turns_keep_their_pace() -> None:
    world = crowded(60, spare_rps=60, per_s=100)
    begun_us = world.now.boot_us
    order = moved(world, within_ms=300)
    assert 25 <= len(order) <= 35
    assert world.now.boot_us - begun_us <= SECOND


def test_a_wake_costs_no_more_with_many_in_line() -> None:
    """One wake looks at few, however many wait: counted, not timed."""
    world = crowded(300, spare_rps=300)
    moved(world, within_ms=5)
    entries_before = len(world.state.queue)
    assert world.state.queue.line
    while (due_us := wake_at(world.state)) is not None and due_us > world.now.boot_us:
        world.now = Now(boot_us=due_us, wall_us=world.now.wall_us)
    line = len(world.state.queue.line)
    world.do(c.Wake())
    assert line - len(world.state.queue.line) <= 1
    assert abs(len(world.state.queue) - entries_before) < 16


def ranks(world: World, order: list[SessionId]) -> list[tuple[int, int]]:
    sessions = [world.state.sessions[each] for each in order]
    return [(-world.state.tenancy.tenant(session.tenant).priority, session.requested_wall_us) for session in sessions]


def domain_dies(world: World, *anchors: str) -> None:
    for name in anchors:
        world.do(c.Heartbeat(anchor=AnchorId(name), state=AnchorState.LOST))


def test_a_domain_that_dies_is_one_line_over_all_its_anchors() -> None:
    world = crowded(90, spare_rps=45, anchors=("a", "c", "d"))
    domain_dies(world, "a", "c", "d")
    order = granted(world, within_ms=500)
    assert len(order) == 45
    assert ranks(world, order) == sorted(ranks(world, order))
    counts = [sum(world.state.sessions[each].tenant == word.name.lower() for each in order) for word in CLASSES]
    assert counts == [0, 15, 30], "all of the highest class, the oldest of the next, none of the lowest"
    assert world.state.ledger.anchor_mrps(AnchorId("b")) == 45_000


def test_what_a_domain_can_carry_is_looked_at_as_a_whole() -> None:
    """The anchor has room for all, its domain has not."""
    world = crowded(60, spare_rps=60, anchors=("a", "c"))
    second = world.state.catalogue.domains[DomainName("edge-two")]
    world.do(c.RegisterDomain(domain=replace(second, capacity_mrps=25_000)))
    domain_dies(world, "a", "c")
    order = granted(world, within_ms=500)
    assert [world.state.sessions[each].tenant for each in order] == ["emergency"] * 20 + ["standard"] * 5
    assert world.state.ledger.domain_mrps(DomainName("edge-two")) == 25_000


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_domain_dies_with_ten_thousand_sessions() -> None:
    """By class and age, at the pace, within what is left; whoever is left out ends with its lease, and nobody else."""
    world = crowded(10_000, spare_rps=6_000, anchors=("a", "c"))
    domain_dies(world, "a", "c")
    begun_us = world.now.boot_us
    order = granted(world, within_ms=1_900)
    assert len(order) == 6_000
    assert ranks(world, order) == sorted(ranks(world, order))
    first, last = (
        next(each.boot_us for each in world.events if isinstance(each, CommitGranted) and each.session == session
             and each.cause == "RELOCATION")
        for session in (order[0], order[-1])
    )  # fmt: skip
    assert last - begun_us >= 5_999 * SECOND // 5_000, "not faster than the pace"
    assert first - begun_us < SECOND
    assert world.state.ledger.anchor_mrps(AnchorId("b")) == 6_000_000
    world.settle()
    world.advance(130_000, beating=("b", "t"))
    kept = set(order)
    for session in world.state.sessions.values():
        assert session.available == (session.session in kept), session
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    assert verifier.verdict().first_bad is None

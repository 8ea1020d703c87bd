"""Many sessions must leave at once: by class and age, at a pace, with every grant counted before the next."""

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.names import AnchorId, ClientId, SessionId, TenantId
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


def crowded(sessions: int, *, spare_rps: int, per_s: int = 5_000) -> World:
    world = World.started(Settings(lease=TERMS, relocations_per_s=per_s))
    for name, domain, capacity_rps in (("a", "edge-one", sessions), ("b", "edge-two", spare_rps)):
        world.do(c.RegisterAnchor(anchor=anchor(name, domain, capacity_rps=capacity_rps)))
        if name == "a":
            world.do(c.Heartbeat(anchor=AnchorId("a"), state=AnchorState.READY))
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
    seen, end_us = len(world.events), world.now.boot_us + within_ms * 1_000
    while (due_us := wake_at(world.state)) is not None and due_us <= end_us:
        at_us = max(due_us, world.now.boot_us)
        world.now = Now(boot_us=BootUs(at_us), wall_us=WallUs(world.now.wall_us + at_us - world.now.boot_us))
        world.do(c.Wake())
    return [event.session for event in world.events[seen:] if isinstance(event, CommitGranted)]


def test_the_higher_class_goes_first_and_then_the_older() -> None:
    world = crowded(90, spare_rps=90)
    order = moved(world, within_ms=500)
    sessions = [world.state.sessions[each] for each in order]
    ranks = [(-world.state.tenancy.tenant(session.tenant).priority, session.requested_wall_us) for session in sessions]
    assert len(order) == 90
    assert ranks == sorted(ranks)


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
    entries_before = len(world.state.queue.entries)
    assert world.state.queue.line
    while (due_us := wake_at(world.state)) is not None and due_us > world.now.boot_us:
        world.now = Now(boot_us=due_us, wall_us=world.now.wall_us)
    line = len(world.state.queue.line)
    world.do(c.Wake())
    assert line - len(world.state.queue.line) <= 1
    assert abs(len(world.state.queue.entries) - entries_before) < 16

"""The delay of a reserved tenant: bounded by its own reservation, whatever the others do (in virtual time)."""

import heapq
import itertools
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core.anchor.fair_queue import FairQueue, QueueLimits

LONGEST = 1.0
"""L: no service is longer; everything else is in units of it."""

VICTIM = "victim"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request: when, whose, and how long its service takes."""

    at: float
    tenant: str
    session: str
    weight: int
    service: float


def dispatch_times(requests: list[Sent], slots: int, reserved: dict[str, int] | None = None) -> dict[int, float]:
    """Run the queue as the sidecar does; return when each request got its slot."""
    wide = len(requests) + 1
    queue: FairQueue[int] = FairQueue(
        QueueLimits(slots=slots, waiting_max=wide, waiting_per_tenant_max=wide, reserved=reserved or {})
    )
    order = itertools.count()
    events: list[tuple[float, int, int]] = [(each.at, next(order), index) for index, each in enumerate(requests)]
    heapq.heapify(events)
    began: dict[int, float] = {}

    def begin(index: int, now: float) -> None:
        began[index] = now
        heapq.heappush(events, (now + requests[index].service, next(order), ~index))

    while events:
        now, _, index = heapq.heappop(events)
        if index < 0:
            queue.release(requests[~index].tenant)
        else:
            each = requests[index]
            if queue.skip_line(flow=each.session, tenant=each.tenant, weight=each.weight):
                begin(index, now)
                continue
            queue.enter(index, flow=each.session, tenant=each.tenant, weight=each.weight)
        while (item := queue.dispatch()) is not None:
            begin(item, now)
    return began


WEIGHT_UNIT = 1_000
"""Weights in thousandths of a request per L."""

instants = st.floats(0, 30, allow_nan=False)
services = st.floats(0.01, LONGEST)


@st.composite
def victims(draw: st.DrawFn, weight: int) -> list[Sent]:
    times = sorted(draw(st.lists(instants, min_size=1, max_size=25)))
    return [Sent(at=at, tenant=VICTIM, session="v", weight=weight, service=draw(services)) for at in times]


@st.composite
def floods(draw: st.DrawFn, budget: int) -> list[Sent]:
    """Return what up to three tenants send beyond any measure, over sessions whose weights sum to the budget."""
    sessions = draw(st.integers(1, 40))
    tenants = draw(st.integers(1, 3))
    weight = max(1, budget // sessions)
    count = draw(st.integers(1, 250))
    times = draw(st.lists(instants, min_size=1, max_size=6))
    return [
        Sent(
            at=times[number % len(times)],
            tenant=f"t{number % sessions % tenants}",
            session=f"s{number % sessions}",
            weight=weight,
            service=LONGEST,
        )
        for number in range(count)
    ]


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[int, int, list[Sent], list[Sent]]:
    slots = draw(st.integers(1, 4))
    capacity = slots * WEIGHT_UNIT  # D / L
    weight = draw(st.integers(1, 9)) * capacity // 10
    return slots, weight, draw(victims(weight)), draw(floods(capacity - weight))


@given(mixture=mixtures())
@settings(max_examples=150, deadline=None)
def test_a_reserved_tenant_waits_by_its_own_reservation_and_an_item_of_each_other_tenant(mixture) -> None:
    slots, weight, victim, flood = mixture
    began = dispatch_times([*victim, *flood], slots)
    others = len({each.tenant for each in flood})
    bound = others * LONGEST / slots + LONGEST
    expected = 0.0
    for index, each in enumerate(victim):  # the service curve of the tenant's own: one item every 1/weight
        expected = max(expected, each.at)
        assert began[index] <= expected + bound + 1e-9
        expected += WEIGHT_UNIT * LONGEST / weight


@given(
    slots=st.integers(2, 5),
    own=st.integers(1, 3),
    victim=victims(1),
    flood=floods(1_000_000),
)
@settings(max_examples=150, deadline=None)
def test_slots_of_one_s_own_are_as_if_nobody_else_were_there(slots, own, victim, flood) -> None:
    own = min(own, slots)
    shared = dispatch_times([*victim, *flood], slots, {VICTIM: own})
    alone = dispatch_times(victim, own)
    for index in range(len(victim)):
        assert shared[index] <= alone[index] + 1e-9


def test_without_fairness_the_flood_sets_the_delay() -> None:
    """The same flood in one line with the victim: that the bound above can be broken at all."""
    flood = [Sent(at=0, tenant="all", session="all", weight=1, service=LONGEST) for _ in range(200)]
    victim = Sent(at=0.5, tenant="all", session="all", weight=1, service=LONGEST)
    assert dispatch_times([*flood, victim], 2)[200] > 90

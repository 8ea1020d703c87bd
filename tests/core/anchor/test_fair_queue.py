"""Laws of the fair queue: bounded, work-conserving, and unfair by at most an item per flow."""

from collections import Counter
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aipaging.core.anchor.fair_queue import FairQueue, QueueLimits, Ticket

WIDE = QueueLimits(slots=1, waiting_max=10_000, waiting_per_tenant_max=10_000)


def fill(queue: FairQueue[str], flow: str, count: int, weight: int) -> None:
    for _ in range(count):
        assert queue.enter(flow, flow=flow, tenant=flow, weight=weight) is not None


def serve(queue: FairQueue[str], count: int) -> list[str]:
    served = []
    for _ in range(count):
        item = queue.dispatch()
        assert item is not None
        served.append(item)
        queue.release(item)
    return served


@given(
    weights=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50_000), min_size=2),
    slots=st.integers(1, 5),
    rounds=st.integers(1, 300),
)
def test_backlogged_flows_are_served_by_weight_to_within_an_item_each(weights, slots, rounds) -> None:
    queue: FairQueue[str] = FairQueue(QueueLimits(slots=slots, waiting_max=10_000, waiting_per_tenant_max=10_000))
    for flow, weight in weights.items():
        fill(queue, flow, rounds, weight)
    served: Counter[str] = Counter()
    in_service: list[str] = []
    for _ in range(rounds):  # nobody runs dry within so many
        if len(in_service) == slots:
            queue.release(in_service.pop(0))
        in_service.append(queue.dispatch() or "")
        served[in_service[-1]] += 1
        for f, wf in weights.items():
            for g, wg in weights.items():
                # Goyal, Vin and Cheng 1996, Theorem 1, with every item of cost one; 1e-6 for rounded tags.
                assert abs(served[f] / wf - served[g] / wg) <= 1 / wf + 1 / wg + 1e-6


@given(flood=st.integers(1, 500), victim_weight=st.integers(1, 1000), flood_weight=st.integers(1, 1000))
def test_a_flood_delays_the_next_item_of_another_by_its_share_and_not_its_length(
    flood, victim_weight, flood_weight
) -> None:
    queue: FairQueue[str] = FairQueue(WIDE)
    fill(queue, "flood", flood, flood_weight)
    serve(queue, min(flood, 3))
    fill(queue, "victim", 1, victim_weight)
    before = 0
    while queue.dispatch() == "flood":
        queue.release("flood")
        before += 1
    assert before <= 2, "a flow that waited for nothing before is next but for what was tagged already"


def test_within_a_flow_order_is_kept() -> None:
    queue: FairQueue[int] = FairQueue(WIDE)
    for number in range(50):
        queue.enter(number, flow="a", tenant="a", weight=3)
    order = []
    while (item := queue.dispatch()) is not None:
        order.append(item)
        queue.release("a")
    assert order == list(range(50))


def test_the_bound_of_a_tenant_leaves_room_for_others() -> None:
    queue: FairQueue[str] = FairQueue(QueueLimits(slots=0, waiting_max=3, waiting_per_tenant_max=2))
    places = [queue.enter("x", flow=f"s{n}", tenant="greedy", weight=1) for n in range(5)]
    assert [place is not None for place in places] == [True, True, False, False, False]
    assert queue.enter("y", flow="s", tenant="other", weight=1) is not None
    assert queue.enter("z", flow="t", tenant="third", weight=1) is None, "the total bound"


def test_a_withdrawn_item_is_not_charged_to_its_flow() -> None:
    queue: FairQueue[str] = FairQueue(WIDE)
    gone = [queue.enter("gone", flow="a", tenant="a", weight=1) for _ in range(20)]
    fill(queue, "b", 10, 1)
    fill(queue, "a", 10, 1)
    for ticket in gone:
        assert ticket is not None
        assert queue.withdraw(ticket)
        assert not queue.withdraw(ticket)
    served = Counter(serve(queue, 10))
    assert abs(served["a"] - served["b"]) <= 2


def test_skipping_the_line_is_only_for_an_empty_line_and_is_charged() -> None:
    queue: FairQueue[str] = FairQueue(QueueLimits(slots=2, waiting_max=10, waiting_per_tenant_max=10))
    assert queue.skip_line(flow="a", tenant="a", weight=1)
    assert queue.skip_line(flow="a", tenant="a", weight=1)
    assert not queue.skip_line(flow="a", tenant="a", weight=1), "no slot"
    fill(queue, "a", 2, 1)
    fill(queue, "b", 2, 1)
    queue.release("a")
    assert not queue.skip_line(flow="c", tenant="c", weight=1), "others wait"
    assert queue.dispatch() == "b", "a had two already"


def test_what_withdrawals_leave_behind_does_not_pile_up() -> None:
    queue: FairQueue[str] = FairQueue(QueueLimits(slots=1, waiting_max=100, waiting_per_tenant_max=100))
    kept = queue.enter("kept", flow="kept", tenant="t", weight=1)
    for n in range(2_000):
        ticket = queue.enter("x", flow=f"f{n % 7}", tenant="t", weight=1)
        assert ticket is not None
        queue.withdraw(ticket)
    sessions = queue._lanes["t"].sessions
    assert len(sessions._heads[""]) <= 2 * queue.waiting + 65
    assert len(sessions.finish_tag) <= 1
    assert queue.dispatch() == "kept"
    assert kept is not None
    assert not kept.waiting


def test_many_flows_that_are_served_once_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue(QueueLimits(slots=2, waiting_max=10, waiting_per_tenant_max=10))
    queue.skip_line(flow="long", tenant="t", weight=1)
    for n in range(20_000):
        assert queue.skip_line(flow=f"f{n}", tenant=f"t{n % 3}", weight=1000)
        queue.release(f"t{n % 3}")
        if n % 10 == 0:
            queue.skip_line(flow="busy", tenant=f"t{n % 3}", weight=1)
            queue.release(f"t{n % 3}")
    assert sum(len(lane.sessions.finish_tag) for lane in queue._lanes.values()) < 5_000


def test_many_tenants_that_are_served_once_are_forgotten() -> None:
    queue: FairQueue[str] = FairQueue(QueueLimits(slots=2, waiting_max=10, waiting_per_tenant_max=10))
    queue.skip_line(flow="long", tenant="long", weight=1)
    for n in range(20_000):
        assert queue.skip_line(flow="f", tenant=f"t{n}", weight=1000)
        queue.release(f"t{n}")
        if n % 10 == 0:
            queue.skip_line(flow="busy", tenant="busy", weight=1)
            queue.release("busy")
    assert len(queue._lanes) < 5_000
    assert len(queue._tenants.finish_tag) < 5_000


class QueueLaws(RuleBasedStateMachine):
    """Bounds, conservation, reserved slots and bookkeeping under any order of calls."""

    reserved: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        limits = QueueLimits(slots=3, waiting_max=12, waiting_per_tenant_max=5, reserved=self.reserved)
        self.queue: FairQueue[int] = FairQueue(limits)
        self.waiting: dict[int, Ticket[int]] = {}
        self.served: list[str] = []
        self.serial = 0

    def has_slot(self, tenant: str) -> bool:
        """Judge by the definition: own slots first, then common ones."""
        held = Counter(self.served)
        common = 3 - sum(self.reserved.values())
        common_used = sum(max(0, count - self.reserved.get(name, 0)) for name, count in held.items())
        return common_used < common or held[tenant] < self.reserved.get(tenant, 0)

    @rule(flow=st.sampled_from("abc"), tenant=st.sampled_from("xyz"), weight=st.integers(0, 9))
    def enter(self, flow: str, tenant: str, weight: int) -> None:
        self.serial += 1
        of_tenant = sum(t.tenant == tenant for t in self.waiting.values())
        ticket = self.queue.enter(self.serial, flow=flow, tenant=tenant, weight=weight)
        assert (ticket is None) == (len(self.waiting) >= 12 or of_tenant >= 5)
        if ticket is not None:
            self.waiting[self.serial] = ticket

    @rule(flow=st.sampled_from("abc"), tenant=st.sampled_from("xyz"))
    def skip(self, flow: str, tenant: str) -> None:
        own = Counter(self.served)[tenant] < self.reserved.get(tenant, 0)
        passes_nobody = not self.waiting or (own and all(t.tenant != tenant for t in self.waiting.values()))
        expected = self.has_slot(tenant) and passes_nobody
        assert self.queue.skip_line(flow=flow, tenant=tenant, weight=2) == expected
        if expected:
            self.served.append(tenant)

    @rule()
    def dispatch(self) -> None:
        servable = [number for number, ticket in self.waiting.items() if self.has_slot(ticket.tenant)]
        item = self.queue.dispatch()
        assert (item is not None) == bool(servable), "work conservation, but for slots that are another's own"
        if item is not None:
            assert item in servable
            self.served.append(self.waiting.pop(item).tenant)

    @precondition(lambda self: self.waiting)
    @rule(index=st.integers(0, 11))
    def withdraw(self, index: int) -> None:
        number = list(self.waiting)[index % len(self.waiting)]
        assert self.queue.withdraw(self.waiting.pop(number))

    @precondition(lambda self: self.served)
    @rule(index=st.integers(0, 2))
    def release(self, index: int) -> None:
        self.queue.release(self.served.pop(index % len(self.served)))

    @invariant()
    def counts(self) -> None:
        assert self.queue.waiting == len(self.waiting)
        assert self.queue.in_service == len(self.served)
        assert self.queue.waiting_of == Counter(t.tenant for t in self.waiting.values())


class ReservedLaws(QueueLaws):
    """The same with slots of their own for two tenants."""

    reserved: ClassVar[dict[str, int]] = {"x": 1, "y": 1}


QueueLaws.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
ReservedLaws.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
test_queue_laws = QueueLaws.TestCase
test_reserved_laws = ReservedLaws.TestCase

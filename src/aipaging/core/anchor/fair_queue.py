"""Who is served next at an anchor: start-time fair queueing over a bounded number of slots.

Each session is a *flow* whose weight is the rate that its COMMIT reserved here, so a tenant's share is the sum of what
it reserved and is serving now. Discipline: Goyal, Vin and Cheng, "Start-time Fair Queueing" (1996): an item's start
tag is max(virtual time at its arrival, finish tag of the flow's previous item), its finish tag is start + cost/weight,
and items are served by start tag. With several slots this is SFQ(D) of Jin, Chase and Kaur, "Interposed Proportional
Sharing for a Storage Service Utility" (2004): virtual time is the start tag of the item dispatched last. It needs no
knowledge of how long an answer takes, which for a model nobody has.

Laws (tested): a slot is never idle while an item waits; two flows that both wait have had service in proportion to
their weights to within one item each; so a flood delays another flow's next item by its own share, never by its length.

Every item costs one. A withdrawn item is not charged: tags are given when an item comes to the head of its flow.
"""

import heapq
import itertools
from collections import deque
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

COST: Final = 1 << 32
"""Virtual time of one item at weight 1; integers keep the tags exact over any length of run."""

WEIGHT_MIN: Final = 1
"""A reservation of zero still gets served, last."""

FLOWS_SWEPT_MIN: Final = 1024
"""Fewer idle flows than this are not worth a search; one takes about 200 bytes."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item]):
    """A place in the queue; give it to `FairQueue.withdraw` to leave.

    Attributes:
        item: What waits.
        flow: The session.
        tenant: Whose bound it counts towards.
        weight: The reserved rate.
        arrived_at: Virtual time of its arrival.
        waiting: False once dispatched or withdrawn.
    """

    item: Item
    flow: str
    tenant: str
    weight: int
    arrived_at: int
    waiting: bool = True


@dataclass(slots=True)
class _Flow(Generic[Item]):
    tickets: deque[Ticket[Item]] = field(default_factory=deque[Ticket[Item]])
    finish_tag: int = 0
    stamp: int = -1  # of its one valid entry in the heap


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Bounds of a fair queue.

    Attributes:
        slots: How many items are served at once.
        waiting_max: How many wait in all.
        waiting_per_tenant_max: How many of one tenant wait.
    """

    slots: int
    waiting_max: int
    waiting_per_tenant_max: int


class FairQueue(Generic[Item]):
    """Items of flows with weights, in front of a bounded number of slots."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self.in_service = 0
        self.waiting = 0
        self.waiting_of: dict[str, int] = {}
        self._virtual_time = 0
        self._flows: dict[str, _Flow[Item]] = {}
        self._heads: list[tuple[int, int, str]] = []
        self._stamps = itertools.count()
        self._sweep_at = FLOWS_SWEPT_MIN

    def enter(self, item: Item, *, flow: str, tenant: str, weight: int) -> Ticket[Item] | None:
        """Take a place in the queue, or return None where a bound is reached."""
        if self.waiting >= self.limits.waiting_max:
            return None
        waiting_here = self.waiting_of.get(tenant, 0)
        if waiting_here >= self.limits.waiting_per_tenant_max:
            return None
        ticket = Ticket(item, flow, tenant, max(weight, WEIGHT_MIN), self._virtual_time)
        self.waiting += 1
        self.waiting_of[tenant] = waiting_here + 1
        lane = self._flows.get(flow)
        if lane is None:
            lane = self._flows[flow] = _Flow()
        lane.tickets.append(ticket)
        if len(lane.tickets) == 1:
            self._offer(flow, lane)
        return ticket

    def skip_line(self, *, flow: str, weight: int) -> bool:
        """Take a slot at once where one is free and nobody waits; the flow is charged all the same."""
        if self.waiting or self.in_service >= self.limits.slots:
            return False
        lane = self._flows.get(flow)
        if lane is None:
            lane = self._flows[flow] = _Flow()
        self._serve(lane, max(weight, WEIGHT_MIN), self._virtual_time)
        self._forget_past_flows()
        return True

    def dispatch(self) -> Item | None:
        """Give the next item a slot, or return None where no slot is free or nothing waits."""
        if self.in_service >= self.limits.slots:
            return None
        while self._heads:
            _, stamp, flow = heapq.heappop(self._heads)
            lane = self._flows.get(flow)
            if lane is None or lane.stamp != stamp:
                continue
            ticket = lane.tickets.popleft()
            self._left(ticket)
            self._serve(lane, ticket.weight, ticket.arrived_at)
            self._offer(flow, lane)
            self._forget_past_flows()
            return ticket.item
        return None

    def withdraw(self, ticket: Ticket[Item]) -> bool:
        """Leave the queue; return False where the item was dispatched before."""
        if not ticket.waiting:
            return False
        lane = self._flows[ticket.flow]
        was_head = lane.tickets[0] is ticket
        lane.tickets.remove(ticket)
        self._left(ticket)
        if was_head:
            self._offer(ticket.flow, lane)
        if not lane.tickets and lane.finish_tag <= self._virtual_time:
            del self._flows[ticket.flow]
        return True

    def release(self) -> None:
        """Give a slot back."""
        assert self.in_service > 0, "released more slots than were taken"  # noqa: S101 our own mistake
        self.in_service -= 1
        if not self.in_service and not self.waiting:
            # The busy period is over: all flows start the next one as equals.
            self._flows.clear()
            self._heads.clear()

    def _left(self, ticket: Ticket[Item]) -> None:
        ticket.waiting = False
        self.waiting -= 1
        rest = self.waiting_of[ticket.tenant] - 1
        if rest:
            self.waiting_of[ticket.tenant] = rest
        else:
            del self.waiting_of[ticket.tenant]

    def _serve(self, lane: _Flow[Item], weight: int, arrived_at: int) -> None:
        start_tag = max(arrived_at, lane.finish_tag)
        lane.finish_tag = start_tag + COST // weight
        # The tag of a withdrawn head may have been passed already; virtual time never runs back.
        self._virtual_time = max(self._virtual_time, start_tag)
        self.in_service += 1

    def _offer(self, flow: str, lane: _Flow[Item]) -> None:
        """Put the flow's present head into the heap; its older entry, if any, becomes void."""
        lane.stamp = next(self._stamps)
        if lane.tickets:
            start_tag = max(lane.tickets[0].arrived_at, lane.finish_tag)
            heapq.heappush(self._heads, (start_tag, lane.stamp, flow))
        if len(self._heads) > 2 * self.waiting + 64:
            # Withdrawals leave void entries behind: rebuilt when they outnumber those that count.
            self._heads = [entry for entry in self._heads if self._is_head(entry)]
            heapq.heapify(self._heads)

    def _is_head(self, entry: tuple[int, int, str]) -> bool:
        lane = self._flows.get(entry[2])
        return lane is not None and lane.stamp == entry[1] and bool(lane.tickets)

    def _forget_past_flows(self) -> None:
        """Drop idle flows whose finish tag lies behind virtual time: to them it makes no difference.

        Each sweep waits until the flows have doubled, so that it costs a constant per item.
        """
        if len(self._flows) <= self._sweep_at:
            return
        past = [
            name for name, lane in self._flows.items() if not lane.tickets and lane.finish_tag <= self._virtual_time
        ]
        for name in past:
            del self._flows[name]
        self._sweep_at = max(FLOWS_SWEPT_MIN, 2 * len(self._flows))

"""Who is served next at an anchor: start-time fair queueing over a bounded number of slots, tenants first.

Two levels, the same rule at both. Between *tenants*, a tenant weighs what its waiting sessions have reserved here;
between the *sessions* of a tenant, a session weighs the rate of its COMMIT. Discipline: Goyal, Vin and Cheng,
"Start-time Fair Queueing" (1996): who comes forward gets the start tag max(virtual time, own finish tag), the smallest
start tag is served, the finish tag is start + cost/weight. With several slots this is SFQ(D) of Jin, Chase and Kaur,
"Interposed Proportional Sharing for a Storage Service Utility" (2004): virtual time is the start tag of the item
dispatched last. It needs no knowledge of how long an answer takes, which for a model nobody has.

Tenants come first because the delay of start-time fair queueing grows with the *number* of competitors, one item for
each: over sessions, a tenant with thousands of tiny ones would delay the others by thousands of items, within its
contract. Over tenants it is one item for each tenant, however many sessions it opens.

Theorem (proof in docs/background/user-plane.md): D slots, no service longer than L, reservations within D/L, T tenants.
Then an item is dispatched at most (T - 1) L/D + L after the instant at which a server of its tenant's own, as fast as
what the tenant reserved, would have begun it. Nothing in that depends on what other tenants send.

Slots can be *reserved*: a tenant takes its own slots first and then common ones, and nobody else takes its own. While
an item of it waits, all its reserved slots are busy with its own items: no assumption about others is left at all.

Other laws (tested): where nothing is reserved, no slot is idle while an item waits; two tenants, or two sessions of a
tenant, that both wait have had service in proportion to their weights to within one item each.

Every item costs one. A withdrawn item is not charged: tags are given when an item comes to the head.
"""

import heapq
import itertools
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

COST: Final = 1 << 64
"""Virtual time of one item at weight 1: so much that dividing by any weight leaves nothing to round."""

WEIGHT_MIN: Final = 1
"""A reservation of zero still gets served, last."""

SWEPT_MIN: Final = 1024
"""Fewer idle names than this are not worth a search; one takes about 200 bytes."""

COMMON: Final = ""
"""The group of all tenants without slots of their own."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[Item]):
    """A place in the queue; give it to `FairQueue.withdraw` to leave.

    Attributes:
        item: What waits.
        flow: The session.
        tenant: Whose bound it counts towards.
        weight: The reserved rate.
        waiting: False once dispatched or withdrawn.
    """

    item: Item
    flow: str
    tenant: str
    weight: int
    waiting: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """Bounds of a fair queue.

    Attributes:
        slots: How many items are served at once.
        waiting_max: How many wait in all.
        waiting_per_tenant_max: How many of one tenant wait.
        reserved: Slots that are a tenant's own, by tenant; together at most `slots`.
    """

    slots: int
    waiting_max: int
    waiting_per_tenant_max: int
    reserved: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))


class _Ranking:
    """Start-time order of names, of which some have something waiting; names come in groups that are asked apart."""

    __slots__ = ("_entries", "_heads", "_stamps", "_sweep_at", "finish_tag", "virtual_time")

    def __init__(self) -> None:
        self.virtual_time = 0
        self.finish_tag: dict[str, int] = {}
        self._entries: dict[str, int] = {}  # name -> stamp of its one valid head
        self._heads: dict[str, list[tuple[int, int, str]]] = {}
        self._stamps = itertools.count()
        self._sweep_at = SWEPT_MIN

    def offer(self, name: str, group: str = COMMON) -> None:
        """Rank a name that has something waiting from now on."""
        heads = self._heads.setdefault(group, [])
        stamp = self._entries[name] = next(self._stamps)
        heapq.heappush(heads, (max(self.virtual_time, self.finish_tag.get(name, 0)), stamp, name))
        if len(heads) > 2 * len(self._entries) + 64:
            # Withdrawals leave void entries behind: rebuilt when they outnumber those that count.
            self._heads[group] = [entry for entry in heads if self._entries.get(entry[2]) == entry[1]]
            heapq.heapify(self._heads[group])

    def retire(self, name: str) -> None:
        """Take a name out: nothing of it waits any more."""
        del self._entries[name]

    def first(self, group: str = COMMON) -> tuple[int, int, str] | None:
        """Return the head of a group as (start tag, stamp, name), or None."""
        heads = self._heads.get(group)
        while heads:
            entry = heads[0]
            if self._entries.get(entry[2]) == entry[1]:
                return entry
            heapq.heappop(heads)
        return None

    def charge(self, name: str, weight: int) -> None:
        """Serve one item of a name, at the start tag that it was ranked by, or would be now."""
        start_tag = max(self.virtual_time, self.finish_tag.get(name, 0))
        self.finish_tag[name] = start_tag + COST // weight
        self.virtual_time = start_tag

    def charge_first(self, entry: tuple[int, int, str], weight: int) -> None:
        """Serve one item of the name at a group's head, and take the name out."""
        start_tag, _, name = entry
        self.finish_tag[name] = start_tag + COST // weight
        # The tag of a name that had to let others pass may lie behind; virtual time never runs back.
        self.virtual_time = max(self.virtual_time, start_tag)
        self.retire(name)

    def past_names(self) -> list[str]:
        """Forget names whose finish tag lies behind and that have nothing waiting; return them.

        To them it makes no difference. Each sweep waits until the names have doubled, so it costs a constant per item.
        """
        if len(self.finish_tag) <= self._sweep_at:
            return []
        past = [name for name, tag in self.finish_tag.items() if tag <= self.virtual_time and name not in self._entries]
        for name in past:
            del self.finish_tag[name]
        self._sweep_at = max(SWEPT_MIN, 2 * len(self.finish_tag))
        return past


class _Lane(Generic[Item]):
    """One tenant: its sessions in their order, and what those with something waiting weigh together."""

    __slots__ = ("sessions", "tickets", "weight")

    def __init__(self) -> None:
        self.sessions = _Ranking()
        self.tickets: dict[str, deque[Ticket[Item]]] = {}
        self.weight = 0

    def add(self, ticket: Ticket[Item]) -> None:
        waiting = self.tickets.get(ticket.flow)
        if waiting is None:
            self.tickets[ticket.flow] = deque((ticket,))
            self.weight += ticket.weight
            self.sessions.offer(ticket.flow)
        else:
            waiting.append(ticket)

    def take(self) -> Ticket[Item]:
        """Return the next ticket, charged to its session."""
        entry = self.sessions.first()
        assert entry is not None, "an empty lane was ranked"  # noqa: S101 our own mistake
        waiting = self.tickets[entry[2]]
        ticket = waiting.popleft()
        self.sessions.charge_first(entry, ticket.weight)
        self._after(ticket, waiting, was_head=True, ranked=False)
        self.sessions.past_names()
        return ticket

    def remove(self, ticket: Ticket[Item]) -> None:
        waiting = self.tickets[ticket.flow]
        was_head = waiting[0] is ticket
        waiting.remove(ticket)
        self._after(ticket, waiting, was_head=was_head, ranked=True)

    def _after(self, gone: Ticket[Item], waiting: deque[Ticket[Item]], *, was_head: bool, ranked: bool) -> None:
        """Keep rank and weight true after a ticket has gone: a session weighs what its head says."""
        if not waiting:
            del self.tickets[gone.flow]
            self.weight -= gone.weight
            if ranked:
                self.sessions.retire(gone.flow)
        elif was_head:
            self.weight += waiting[0].weight - gone.weight
            if not ranked:
                self.sessions.offer(gone.flow)


class FairQueue(Generic[Item]):
    """Items of tenants' sessions, in front of a bounded number of slots."""

    def __init__(self, limits: QueueLimits) -> None:
        self.limits = limits
        self.in_service = 0
        self.waiting = 0
        self.waiting_of: dict[str, int] = {}
        self._in_service_of: dict[str, int] = {}
        self._common_free = limits.slots - sum(limits.reserved.values())
        self._groups = (COMMON, *limits.reserved)
        self._tenants = _Ranking()
        self._lanes: dict[str, _Lane[Item]] = {}

    def enter(self, item: Item, *, flow: str, tenant: str, weight: int) -> Ticket[Item] | None:
        """Take a place in the queue, or return None where a bound is reached."""
        if self.waiting >= self.limits.waiting_max:
            return None
        waiting_here = self.waiting_of.get(tenant, 0)
        if waiting_here >= self.limits.waiting_per_tenant_max:
            return None
        ticket = Ticket(item, flow, tenant, max(weight, WEIGHT_MIN))
        self.waiting += 1
        self.waiting_of[tenant] = waiting_here + 1
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane()
        lane.add(ticket)
        if not waiting_here:
            self._tenants.offer(tenant, self._group(tenant))
        return ticket

    def skip_line(self, *, flow: str, tenant: str, weight: int) -> bool:
        """Take a slot at once where that passes nobody who waits; tenant and session are charged all the same."""
        if self.waiting and (tenant in self.waiting_of or not self._has_own_slot(tenant)):
            return False
        if not self._has_slot(tenant):
            return False
        lane = self._lanes.get(tenant)
        if lane is None:
            lane = self._lanes[tenant] = _Lane()
        weight = max(weight, WEIGHT_MIN)
        lane.sessions.charge(flow, weight)
        lane.sessions.past_names()
        self._tenants.charge(tenant, weight)
        self._serve(tenant)
        return True

    def dispatch(self) -> Item | None:
        """Give the next item a slot, or return None where no slot is free for anything that waits."""
        if not self.waiting or self.in_service >= self.limits.slots:
            return None
        heads = [
            entry
            for group in self._groups
            if (entry := self._tenants.first(group)) is not None and self._has_slot(entry[2])
        ]
        if not heads:
            return None
        entry = min(heads)
        tenant = entry[2]
        lane = self._lanes[tenant]
        self._tenants.charge_first(entry, lane.weight)
        ticket = lane.take()
        self._left(ticket)
        if lane.tickets:
            self._tenants.offer(tenant, self._group(tenant))
        self._serve(tenant)
        return ticket.item

    def withdraw(self, ticket: Ticket[Item]) -> bool:
        """Leave the queue; return False where the item was dispatched before."""
        if not ticket.waiting:
            return False
        lane = self._lanes[ticket.tenant]
        lane.remove(ticket)
        self._left(ticket)
        if not lane.tickets:
            self._tenants.retire(ticket.tenant)
        return True

    def release(self, tenant: str) -> None:
        """Give back a slot that `tenant` was served in."""
        held = self._in_service_of.get(tenant, 0)
        assert held > 0, "released more slots than were taken"  # noqa: S101 our own mistake
        self.in_service -= 1
        if held > self.limits.reserved.get(tenant, 0):
            self._common_free += 1
        if held > 1:
            self._in_service_of[tenant] = held - 1
        else:
            del self._in_service_of[tenant]
        if not self.in_service and not self.waiting:
            # The busy period is over: all start the next one as equals.
            self._tenants = _Ranking()
            self._lanes.clear()

    def _group(self, tenant: str) -> str:
        return tenant if tenant in self.limits.reserved else COMMON

    def _has_slot(self, tenant: str) -> bool:
        """Whether a slot is free for the tenant: a common one, or one of its own."""
        return self._common_free > 0 or self._has_own_slot(tenant)

    def _has_own_slot(self, tenant: str) -> bool:
        return self._in_service_of.get(tenant, 0) < self.limits.reserved.get(tenant, 0)

    def _left(self, ticket: Ticket[Item]) -> None:
        ticket.waiting = False
        self.waiting -= 1
        rest = self.waiting_of[ticket.tenant] - 1
        if rest:
            self.waiting_of[ticket.tenant] = rest
        else:
            del self.waiting_of[ticket.tenant]

    def _serve(self, tenant: str) -> None:
        self.in_service += 1
        held = self._in_service_of.get(tenant, 0)
        if held >= self.limits.reserved.get(tenant, 0):
            self._common_free -= 1
        self._in_service_of[tenant] = held + 1
        for name in self._tenants.past_names():
            self._lanes.pop(name, None)

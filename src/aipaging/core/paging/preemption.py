"""Who makes room for whom: the plan of a page that is refused for want of room alone.

A page of a tenant that `preempts` looks at every anchor that fails nothing but capacity, queues, delay or the delay of
others there. The plan is the least that would make room on the whole path:

* what leaves already counts as room to come: often nobody has to be told anything, and it is enough to wait;
* otherwise sessions of a strictly lower class give way. The highest class among them is the lowest that suffices; then
  they are as few as can be found, the last of them the one that takes least; of equals the lower class, then the newer.
  None of them could be spared. With one limit in short supply (an anchor's rate) they are the fewest there are; where
  several are, finding the fewest is a covering problem, and this is a good answer to it.

Everything is asked of the admission itself, on what would be reserved then (`core.lease.difference`): there is no
second arithmetic of room. Only what is hopeless is told by counting, before anybody is looked at: room for more than
the largest of the lower classes could make. A plan decides nothing: `core.paging.claiming` does.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, TypeAlias

from aipaging.core.anchor.catalogue import Anchor
from aipaging.core.anchor.choice import best
from aipaging.core.anchor.eligibility import Candidate
from aipaging.core.anchor.offer import Offer, limits_mrps
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, Now
from aipaging.core.identity.tenant import PriorityClass
from aipaging.core.lease.difference import Difference
from aipaging.core.lease.machine import LeasePhase
from aipaging.core.paging.decision import others_reserved
from aipaging.core.paging.governing import governed
from aipaging.core.paging.state import OthersReserved, Session, State
from aipaging.core.paging.tenancy import Question
from aipaging.core.paging.tenancy_events import Claim

MAKES_ROOM: Final = frozenset({"CAPACITY", "QUEUE", "DELAY", "OTHERS"})
"""The constraints that others' leaving may lift."""

VICTIMS_MAX: Final = 64
"""Sessions that one page may displace: whoever needs more room at once has planned wrong, and a step stays short."""

ANCHORS_LOOKED_AT_MAX: Final = 8
"""Anchors that a plan is made for, the cheapest first: each costs some hundred looks of the admission."""

SESSIONS_LOOKED_AT_MAX: Final = 20_000
"""Sessions looked at around one anchor, and on all paths, the newest first: some ten milliseconds."""

LEAVING_LOOKED_AT_MAX: Final = 1_024
"""Reservations looked at that will be free soon, the earliest first: who waits for more may ask again."""

NOBODY: Final = SessionId("")
"""Who asks: a page holds nothing."""

Held: TypeAlias = tuple[SessionId, Epoch]
Lower: TypeAlias = tuple[PriorityClass, Session]
"""A session that may give way, and its class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What room is wanted for.

    Attributes:
        question: Tenant, client and intent, as policies are asked.
        priority: The class that the room is wanted in.
        own: The claim that is the asker's, or None.
    """

    question: Question
    priority: PriorityClass
    own: Claim | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How room would be made.

    Attributes:
        candidate: The anchor as it will be, eligible.
        victims: Who gives way; empty where waiting is enough.
        ready_us: When the room will be free, if nobody holds it longer than now.
    """

    candidate: Candidate
    victims: tuple[Session, ...]
    ready_us: BootUs


@dataclass(slots=True)
class _Search:
    """One search; what it has found out already is not looked at again.

    Attributes:
        most_mrps: By class, no less than all that as many of that class and below have as one page may displace.
        classes: The tenants that were met: their class if it is lower, else None.
        leaving: What nobody renews any more, and when it will be free, the earliest first.
        later: What is reserved when all that has left, and what others claim by then.
        around: Who may give way at an anchor, those who take most first; of equals the lower class, then the newer.
        crossing: Likewise, in any of some domains; in none of them: everywhere.
    """

    state: State
    now: Now
    wanted: Wanted
    reserved: OthersReserved
    leaving: list[tuple[BootUs, Held]]
    later: Difference
    most_mrps: dict[PriorityClass, int] = field(default_factory=dict[PriorityClass, int])
    classes: dict[TenantId, PriorityClass | None] = field(default_factory=dict[TenantId, PriorityClass | None])
    around: dict[AnchorId, list[Lower]] = field(default_factory=dict[AnchorId, list[Lower]])
    crossing: dict[tuple[DomainName, ...], list[Lower]] = field(
        default_factory=dict[tuple[DomainName, ...], list[Lower]]
    )

    def below(self, tenant: TenantId) -> PriorityClass | None:
        """Return the class of a tenant that is below the asker's, or None."""
        if tenant not in self.classes:
            priority = self.state.tenancy.tenant(tenant).priority
            self.classes[tenant] = priority if priority < self.wanted.priority else None
        return self.classes[tenant]

    def hopeless(self, anchor: Anchor, highest: PriorityClass) -> bool:
        """Tell without looking at sessions that nobody up to a class could make room at an anchor."""
        if highest not in self.most_mrps:
            self.most_mrps[highest] = _most_mrps(self, highest)
        intent, catalogue = self.wanted.question.intent, self.state.catalogue
        then = replace(self.reserved, difference=self.later)
        left_mrps = [anchor.capacity_mrps - then.anchor_mrps(anchor.anchor)]
        path = catalogue.path_to(intent.place, anchor.domain)
        offer = Offer(catalogue=catalogue, reserved=then, wall_us=self.now.wall_us)
        for domain in path.domains if path is not None else ():
            envelope = catalogue.envelope_of(domain, anchor.aisi)
            if envelope is not None:
                left_mrps += limits_mrps(offer, catalogue.domains[domain], envelope)
        return min(left_mrps) + self.most_mrps[highest] < intent.rate_mrps

    def admits(self, anchor: Anchor, reserved: Difference) -> Candidate | None:
        """Return the anchor as the admission finds it with a difference in what is reserved, if it is eligible."""
        others = replace(self.reserved, difference=reserved)
        offer = Offer(catalogue=self.state.catalogue, reserved=others, wall_us=self.now.wall_us)
        return best(offer, self.wanted.question.intent, [anchor])

    def without(self, anchor: Anchor, victims: Sequence[Session]) -> Candidate | None:
        """Return the anchor as it will be when what leaves and these have left, if it is eligible then."""
        then = self.later.copy()
        then.let_go(self.state.ledger, [held for _, held in self.free(victims)])
        return self.admits(anchor, then)

    def free(self, victims: Iterable[Session]) -> list[tuple[BootUs, Held]]:
        """Return when what these hold will be free if it is not renewed."""
        terms = self.state.settings.lease
        return [
            (terms.release_us(each.lease.granted_us, each.lease.deadline_us), (each.session, each.lease.epoch))
            for each in victims
            if each.lease is not None
        ]


def planned(state: State, wanted: Wanted, candidates: Iterable[Candidate], now: Now) -> Plan | None:
    """Return how room would be made for a page that found none, or None: it cannot be, or not by this tenant.

    Args:
        state: What is known.
        wanted: What the room is for.
        candidates: Every candidate with what keeps it out, switches among that.
        now: The instant.
    """
    tenant = state.tenancy.tenants.get(wanted.question.tenant)
    if tenant is None or not tenant.preempts:
        return None
    search = _search(state, wanted, now)
    anchors = _anchors(search, candidates)
    plans = [plan for anchor in anchors if (plan := _plan(search, anchor, ())) is not None]
    if plans:
        # Room that is claimed already stays where it is: those who left there left for it.
        claimed = wanted.own.anchor if wanted.own is not None else ""
        return min(plans, key=lambda plan: (plan.candidate.anchor != claimed, plan.ready_us))
    for highest in (each for each in PriorityClass if each < wanted.priority):
        hopeful = (anchor for anchor in anchors if not search.hopeless(anchor, highest))
        found = ((anchor, _victims(search, anchor, highest)) for anchor in hopeful)
        plans = [plan for anchor, victims in found if victims and (plan := _plan(search, anchor, victims)) is not None]
        if plans:
            return min(plans, key=lambda plan: (len(plan.victims), sum(each.intent.rate_mrps for each in plan.victims)))
    return None


def _search(state: State, wanted: Wanted, now: Now) -> _Search:
    question, ledger = wanted.question, state.ledger
    reserved = others_reserved(state, NOBODY, question.intent, tenant=question.tenant, but=wanted.own)
    leaving = dict.fromkeys(islice(ledger.leaving, LEAVING_LOOKED_AT_MAX))
    for victim in state.tenancy.victims:
        lease = state.sessions[victim].lease
        if lease is not None:
            leaving[victim, lease.epoch] = None
    later = reserved.difference.copy() if reserved.difference is not None else Difference()
    later.let_go(ledger, leaving)
    return _Search(
        state=state,
        now=now,
        wanted=wanted,
        reserved=reserved,
        leaving=sorted((_free_us(state, held), held) for held in leaving),
        later=later,
    )


def _free_us(state: State, held: Held) -> BootUs:
    """Return when a reservation will be free that nobody renews any more."""
    session = state.sessions.get(held[0])
    lease = session.lease_of(held[1]) if session is not None else None
    if lease is None or not lease.live:
        return state.ledger.known(*held).hold_us
    return state.settings.lease.release_us(lease.granted_us, lease.deadline_us)


def _anchors(search: _Search, candidates: Iterable[Candidate]) -> list[Anchor]:
    """Return the anchors that fail nothing but room, and that policies permit, the cheapest first."""
    catalogue = search.state.catalogue
    short = [each for each in candidates if each.rejection is not None and each.rejection.constraint in MAKES_ROOM]
    short.sort(key=lambda each: (catalogue.services[each.aisi].price, each.anchor))
    asked = [replace(each, rejection=None) for each in short[:ANCHORS_LOOKED_AT_MAX]]
    permitted = governed(search.state, search.wanted.question, asked)
    return [catalogue.anchors[each.anchor] for each in permitted if each.rejection is None]


def _plan(search: _Search, anchor: Anchor, victims: Sequence[Session]) -> Plan | None:
    """Return the plan in which what leaves and these make room at an anchor, or None: they do not."""
    candidate = search.without(anchor, victims)
    if candidate is None:
        return None
    going = sorted([*search.leaving, *search.free(victims)])

    def free_after(count: int) -> bool:
        claimed = search.reserved.difference
        then = claimed.copy() if claimed is not None else Difference()
        then.let_go(search.state.ledger, [held for _, held in going[:count]])
        return search.admits(anchor, then) is not None

    first = _least(free_after, len(going))
    ready_us = going[first - 1][0] if first else search.now.boot_us
    return Plan(candidate=candidate, victims=tuple(victims), ready_us=ready_us)


def _least(holds: Callable[[int], bool], most: int) -> int:
    """Return the least count from which on something holds; it holds at `most`, and once it holds it goes on to."""
    low, high = 0, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return high


def _victims(search: _Search, anchor: Anchor, highest: PriorityClass) -> list[Session]:
    """Return who of the classes up to `highest` gives way at an anchor, or nobody: not enough can."""
    for pool in _pools(search, anchor):
        if any(priority is highest for priority, _ in pool):  # without any, it was looked at before
            chosen = _chosen(search, anchor, [each for each in pool if each[0] <= highest])
            if chosen:
                return chosen
    return []


def _pools(search: _Search, anchor: Anchor) -> Iterator[list[Lower]]:
    """Return whose end may make room: those at the anchor, those in a domain of its path, those on all of it."""
    state = search.state
    if anchor.anchor not in search.around:
        there = reversed(state.on_anchor.get(anchor.anchor, {}))
        search.around[anchor.anchor] = _lower(search, (state.sessions[each] for each in there))
    yield search.around[anchor.anchor]
    path = state.catalogue.path_to(search.wanted.question.intent.place, anchor.domain)
    if path is not None:
        for domain in path.domains:
            yield _crossing(search, (domain,))
        yield _crossing(search, path.domains)


def _crossing(search: _Search, domains: tuple[DomainName, ...]) -> list[Lower]:
    if () not in search.crossing:
        search.crossing[()] = _lower(search, reversed(search.state.sessions.values()))
    if domains not in search.crossing:
        crossed = set(domains)
        search.crossing[domains] = [
            each
            for each in search.crossing[()]
            if each[1].lease is not None and not crossed.isdisjoint(each[1].lease.domains)
        ]
    return search.crossing[domains]


def _lower(search: _Search, sessions: Iterable[Session]) -> list[Lower]:
    """Return who of these may give way, in the order in which they would."""
    looked = islice(sessions, SESSIONS_LOOKED_AT_MAX)
    lower = [
        (priority, each)
        for each in looked
        if (priority := search.below(each.tenant)) is not None and _may_go(search, each)
    ]
    lower.sort(key=lambda each: (-each[1].intent.rate_mrps, each[0], -each[1].requested_wall_us, each[1].session))
    return lower


def _may_go(search: _Search, session: Session) -> bool:
    """Tell whether a session of a lower class may be displaced: neither moving nor just moved."""
    lease = session.lease
    return (
        session.available
        and lease is not None
        and lease.phase is LeasePhase.GRANTED
        and lease.deadline_us > search.now.boot_us
        and len(search.state.ledger.held.get(session.session, ())) == 1
        and not (session.relocation is not None and session.relocation.under_way)
        and session.session not in search.state.tenancy.victims
    )


def _most_mrps(search: _Search, highest: PriorityClass) -> int:
    """Return a rate that no `VICTIMS_MAX` sessions of the classes up to `highest` have more of."""
    sizes: dict[int, int] = {}
    for tenant, account in search.state.tenancy.accounts.items():
        priority = search.below(tenant)
        if priority is not None and priority <= highest:
            for bits, count in account.sizes.items():
                sizes[bits] = sizes.get(bits, 0) + count
    most_mrps, left = 0, VICTIMS_MAX
    for bits in sorted(sizes, reverse=True):
        taken = min(left, sizes[bits])
        most_mrps, left = most_mrps + taken * ((1 << bits) - 1), left - taken
    return most_mrps


def _chosen(search: _Search, anchor: Anchor, pool: list[Lower]) -> list[Session]:
    """Return the victims among these, none of whom could be spared; nobody if not enough can make room."""

    def enough(victims: Sequence[Lower]) -> bool:
        return search.without(anchor, [session for _, session in victims]) is not None

    most = min(len(pool), VICTIMS_MAX)
    if not enough(pool[:most]):
        return []
    count = _least(lambda some: enough(pool[:some]), most)
    chosen, rest = pool[: count - 1], pool[count - 1 :]
    # The last of them is the one that takes least of those that would do.
    rest.reverse()
    last = rest[_least(lambda place: enough([*chosen, rest[place]]), len(rest) - 1)]
    equal = next(each for each in reversed(rest) if each[1].intent.rate_mrps == last[1].intent.rate_mrps)
    chosen.append(equal if enough([*chosen, equal]) else last)
    for each in sorted(chosen, key=lambda each: (-each[0], each[1].requested_wall_us, each[1].session)):
        fewer = [other for other in chosen if other is not each]
        if enough(fewer):
            chosen = fewer
    return [session for _, session in chosen]

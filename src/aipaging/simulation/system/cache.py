"""The lease cache of a gateway as a pure machine: the reference model of the Lua filter.

The same rules, in the same order: a deadline counts from before the question was sent, less drift; the revocation
list only grows stricter; an answer is judged by the list as it is when the answer arrives. Left out: the bound on
the number of entries, and bytes (malformed answers, headers, tokens), which the filter's own tests cover.
"""

from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, shrunk_us

DRIFT_PPM: Final = 1_000
REFRESH_PAUSE_US: Final = 100 * MS
FENCES_MAX: Final = 64
ATTEMPTS_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SteeringAnswer:
    """What the controller answers to a look-up.

    Attributes:
        session: Whose steering.
        anchor: Where to.
        epoch: The COMMIT's.
        lease_us: What remains of the lease.
        token_us: What remains of the token.
        generation: The list's `(term, generation)` when it was answered.
    """

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    lease_us: int
    token_us: int
    generation: tuple[int, int]


@dataclass(slots=True)
class Entry:
    """One session's steering at a gateway."""

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    generation: tuple[int, int]
    deadline_us: int
    refresh_us: int
    version: int = -1


def read_answer(answer: SteeringAnswer, asked_us: int, now_us: int) -> Entry:
    """Return the entry that an answer makes; its time counts from the asking."""
    del now_us
    held_us = shrunk_us(min(answer.lease_us, answer.token_us), DRIFT_PPM)
    return Entry(
        session=answer.session,
        anchor=answer.anchor,
        epoch=answer.epoch,
        generation=answer.generation,
        deadline_us=asked_us + held_us,
        refresh_us=asked_us + held_us // 2,
    )


@dataclass(slots=True)
class LeaseCache:
    """One worker's cache."""

    entries: dict[SessionId, Entry] = field(default_factory=dict[SessionId, Entry])
    seen: str = ""
    version: int = 0
    generation: tuple[int, int] = (-1, -1)
    fences: dict[SessionId, Epoch] = field(default_factory=dict[SessionId, Epoch])

    def ready(self, session: SessionId, now_us: int) -> Entry | None:
        """Return an entry that may be used without another thought."""
        entry = self.entries.get(session)
        if entry is None or entry.version != self.version or entry.refresh_us <= now_us:
            return None
        return entry

    def usable(self, session: SessionId, now_us: int) -> Entry | None:
        """Return an entry that still holds, perhaps to be refreshed; forget one that does not."""
        entry = self.entries.get(session)
        if entry is not None and not (entry.deadline_us > now_us and self.is_live(entry)):
            del self.entries[session]
            return None
        return entry

    def begin_refresh(self, entry: Entry, now_us: int) -> None:
        """Keep the others from refreshing it for a while, never beyond its deadline."""
        pause_us = max((entry.deadline_us - now_us) // 4, REFRESH_PAUSE_US)
        entry.refresh_us = min(now_us + pause_us, entry.deadline_us)

    def accept(self, answer: SteeringAnswer, asked_us: int, now_us: int) -> Entry | None:
        """Return the entry of an answer, or None if the list has overtaken it (ask again) or its time is over."""
        entry = read_answer(answer, asked_us, now_us)
        if entry.deadline_us <= now_us:
            return None
        self.raise_list(entry.generation)
        return entry if self.is_live(entry) else None

    def keep(self, fresh: Entry) -> Entry:
        """Keep the newer epoch, and of one epoch the later deadline."""
        known = self.entries.get(fresh.session)
        if known is not None and (
            known.epoch > fresh.epoch or (known.epoch == fresh.epoch and known.deadline_us >= fresh.deadline_us)
        ):
            return known
        self.entries[fresh.session] = fresh
        return fresh

    def absorb(self, told: str) -> None:
        """Merge a revocation list `<term>.<generation>|<session>=<term>.<n>,...`."""
        if told == self.seen:
            return
        head, _, rest = told.partition("|")
        generation = _pair(head)
        self.seen = told
        if generation < self.generation:
            return
        self.raise_list(generation)
        if len(self.fences) > FENCES_MAX:
            self.fences = {}
        for part in filter(None, rest.split(",")):
            name, _, text = part.partition("=")
            session, epoch = SessionId(name), Epoch(*_pair(text))
            known = self.fences.get(session)
            if known is None or epoch > known:
                self.fences[session] = epoch
        self.version += 1

    def raise_list(self, generation: tuple[int, int]) -> None:
        """Take note of a higher generation: what is fenced under it is told anew."""
        if generation > self.generation:
            self.generation = generation
            self.fences = {}
            self.version += 1

    def is_live(self, entry: Entry) -> bool:
        """Whether the list lets an entry live."""
        if entry.version == self.version:
            return True
        if entry.epoch.term < self.generation[0] or entry.generation < self.generation:
            return False
        fenced = self.fences.get(entry.session)
        if fenced is not None and entry.epoch <= fenced:
            return False
        entry.version = self.version
        return True


def _pair(text: str) -> tuple[int, int]:
    first, _, second = text.partition(".")
    return int(first), int(second)

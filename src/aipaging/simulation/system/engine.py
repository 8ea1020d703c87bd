"""The engine's loop as a model: decide, append, then act and answer, after `runtime.engine`, without tasks.

The same ordering rules: restrictive effects start at once; permissive effects, answers and reads wait for the sync
that covers what they rest on; a failed append acknowledges nothing, goes back to what the disk holds, and grants
nothing until a term has begun anew. What decides and what changes the state is the core itself.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aipaging.core.evidence.log import LogHead, Sealer
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.time import MS, SECOND, Now
from aipaging.core.paging import commands as c
from aipaging.core.paging import evolve as evolution
from aipaging.core.paging.effects import Effect, RevokeSteering
from aipaging.core.paging.events import ClientsEntitled, Event, HeartbeatSeen, PoliciesLoaded
from aipaging.core.paging.records import RESTRICTIVE, draft_of, event_of
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.state import State
from aipaging.core.paging.step import wake_at
from aipaging.simulation.system.disk import Disk
from aipaging.simulation.system.kernel import Node, NodeClock
from aipaging.simulation.system.parts import Parts

SYNC_US_MIN: Final = 200
SYNC_US_MAX: Final = 3_000
"""One sync of an ordinary disk; now and then it takes 50 times as long."""

SLOW_SYNC: Final = 0.01
CHECKPOINT_RECORDS: Final = 64
SNAPSHOT_RECORDS: Final = 150
"""Fewer than the original's 50,000, so that short runs recover from snapshots too."""

WAKE_US_MIN: Final = 2 * MS
LATE_US_MAX: Final = 5 * MS
YIELD_US: Final = 1 * MS
WAKES_MAX: Final = 256
RECOVER_US: Final = 500 * MS
SUSPEND_US: Final = 100 * MS
RESTRICT_US_MAX: Final = 2 * SECOND

Answered = Callable[[c.Reply], None]
Failed = Callable[[AipagingError], None]


def nobody(*_: object) -> None:
    """Nobody waits for this answer."""


class BrokenDecisionError(Exception):
    """What was decided cannot be applied: a bug of the core. The original goes back to its journal; a run ends."""


class EngineEffects(Protocol):
    """Who carries effects out."""

    def restrict(self, effects: Sequence[RevokeSteering], done: Callable[[], None]) -> None:
        """Start at once; `done` when in force or given up."""
        ...

    def permit(self, effects: Sequence[Effect], done: Callable[[], None], failed: Failed) -> None:
        """Carry out one after the other; `done` when what an answer must wait for is in force."""
        ...


class Observer(Protocol):
    """Who sees, from outside, what becomes durable."""

    def durable(self, entries: Sequence[SealedEntry], clock: NodeClock) -> None:
        """These have just reached stable storage, written by a node with these clocks."""
        ...


@dataclass(slots=True)
class Item:
    """A command that was decided, on its way through the journal; answered when nothing is waited for any more."""

    entries: list[SealedEntry]
    permissive: list[Effect]
    reply: c.Reply
    answered: Answered
    failed: Failed
    waits: int = 1

    def ready(self) -> None:
        """One thing less to wait for."""
        self.waits -= 1
        if not self.waits:
            self.answered(self.reply)


class Engine:
    """One life of the controller's engine.

    Attributes:
        state: What it believes.
        ready: Whether recovery is over.
        ill: Why it may not grant time, or "".
        writer: Its number as a writer of the disk.
    """

    def __init__(self, node: Node, disk: Disk, parts: Parts, *, observer: Observer, settings: Settings) -> None:
        self.state = State()
        self.ready = False
        self.ill = ""
        self.effects: EngineEffects | None = None
        self._node = node
        self._disk = disk
        self._parts = parts
        self._observer = observer
        self._settings = settings
        self.writer = disk.lead()
        self._sealer = Sealer("controller", f"boot-{disk.writer}", disk.head)
        self._pending: list[Item] = []
        self._in_flight: list[Item] = []
        self._readers: list[tuple[int, Callable[[], None], Failed]] = []
        self._decided = 0
        self._durable = 0
        self._writing = False
        self._deposed = False
        self._in_flight_head = disk.head
        self._restrictive_only = False
        self._checkpoint_seq = self._snapshot_seq = disk.head.seq
        self._retry_us = 0
        self._slept_us = node.clock.slept_us
        self._tick_us = -1
        self._tick_number = 0
        self._kills: dict[tuple[str, str], c.Kill] = {}

    @property
    def healthy(self) -> bool:
        """Whether it may grant time."""
        return self.ready and not self.ill

    @property
    def idle(self) -> bool:
        """Whether everything decided is durable."""
        return not (self._pending or self._in_flight)

    @property
    def in_flight(self) -> list[SealedEntry]:
        """What a sync is under way for."""
        return [entry for item in self._in_flight for entry in item.entries]

    @property
    def in_flight_head(self) -> LogHead:
        """Where the log will be when that sync is through."""
        return self._in_flight_head

    # -- life

    def recover(self) -> None:
        """Rebuild the state from the disk."""
        self._node.agenda.reached["recovered from a snapshot"] += self._disk.snapshot is not None
        self.state = self.rebuilt(self._disk.snapshot)

    def start(self, ready: Callable[[], None], failed: Failed) -> None:
        """Begin a term; ready when it is durable and the user plane is reconciled, failed when that cannot be."""

        def begun(_: c.Reply) -> None:
            self.ready = True
            ready()

        self.begin_term(begun, failed)
        self._arm()

    def begin_term(self, answered: Answered = nobody, failed: Failed = nobody) -> None:
        """Void all that was granted and grant it anew under a higher term."""
        # What was changed within the term goes on to hold; a start reads the configuration.
        settings = self.state.settings if self.ready else self._settings
        self.submit(c.StartTerm(settings=settings, software="simulated"), answered, failed)

    def rebuilt(self, snapshot: tuple[int, bytes] | None) -> State:
        """Return the state that the disk holds."""
        state, first = None, 0
        if snapshot is not None:
            state, first = decode_state(snapshot[1]), snapshot[0]
        if state is None:
            state, first = State(), 0
        for entry in self._disk.entries[first:]:
            event = event_of(entry, state.sessions.__contains__)
            if event is not None:
                evolution.evolve(state, event)
        return state

    # -- deciding

    def submit(self, command: c.Command, answered: Answered = nobody, failed: Failed = nobody) -> None:
        """Decide; answer when it is durable and in force, or say why not."""
        if self._deposed:
            failed(UnavailableError(self.ill, code="JOURNAL_LOCKED"))
            return
        if isinstance(command, c.Kill):
            answered = self._killing(command, answered)
        try:
            self._decide(command, answered, failed)
        except AipagingError as error:
            failed(error)

    def _killing(self, command: c.Kill, answered: Answered) -> Answered:
        """Keep a kill in mind until it is on record: its fences go out at once, and must not be taken back."""
        key = command.kind.value, command.name
        self._kills[key] = command

        def recorded(reply: c.Reply) -> None:
            self._kills.pop(key, None)
            answered(reply)

        return recorded

    def view(self, read: Callable[[State, Now], Any], seen: Callable[[Any], None], failed: Failed) -> None:
        """Hand over what `read` makes of the state, once all that it may have seen is durable."""
        found = read(self.state, self._node.now())
        if self.idle:
            seen(found)
        else:
            self._readers.append((self._decided, lambda: seen(found), failed))

    def _decide(self, command: c.Command, answered: Answered, failed: Failed) -> None:
        if not isinstance(command, c.Wake):
            self._catch_up(late_us=LATE_US_MAX)
        now = self._node.now()
        decision = self._parts.step(self.state, command, now)
        restrictive = all(
            type(event) in RESTRICTIVE or isinstance(event, HeartbeatSeen | ClientsEntitled | PoliciesLoaded)
            for event in decision.events
        )
        if self.ill and not restrictive and not isinstance(command, c.StartTerm):
            raise UnavailableError(self.ill, code="JOURNAL_UNAVAILABLE")
        restricting = [effect for effect in decision.effects if isinstance(effect, RevokeSteering)]
        permissive: list[Effect] = [each for each in decision.effects if not isinstance(each, RevokeSteering)]
        item = Item(self._applied(decision.events, now), permissive, decision.reply, answered, failed)
        if restricting and self.effects is not None:
            item.waits += 1
            self.effects.restrict(restricting, item.ready)
        if item.entries or item.permissive:
            self._pending.append(item)
            self._decided += 1
            if isinstance(command, c.Extend):
                self._catch_up()  # the renewal that it makes due, in the same batch: whoever is told has it
            self.enqueued(item)
        else:
            item.ready()
        self._arm()

    def enqueued(self, item: Item) -> None:
        """Let the journal take it; nothing of it is acted on before."""
        del item
        self._flush()

    def _catch_up(self, late_us: int = 0) -> None:
        when_us = wake_at(self.state)
        if self.ready and not self.ill and when_us is not None and when_us <= self._node.boot_us - late_us:
            self._decide(c.Wake(), nobody, nobody)

    def _applied(self, events: Sequence[Event], now: Now) -> list[SealedEntry]:
        entries: list[SealedEntry] = []
        try:
            self._apply(events, now, entries)
        except AipagingError as error:
            raise BrokenDecisionError(f"a decision does not fit the state: {error.message}") from error
        return entries

    def _apply(self, events: Sequence[Event], now: Now, entries: list[SealedEntry]) -> None:
        for event in events:
            evolution.evolve(self.state, event)
            if not isinstance(event, HeartbeatSeen | ClientsEntitled | PoliciesLoaded):
                entries += self._sealer.seal([draft_of(event, self.state)], term=self.state.term, now=now)

    # -- writing

    def _flush(self) -> None:
        while self._pending and not self._writing:
            batch, self._pending = self._pending, []
            self._in_flight = batch
            entries = [entry for item in batch for entry in item.entries]
            if not entries:
                self._settle(batch)
                continue
            self._writing, self._in_flight_head = True, self._sealer.head
            dice = self._node.agenda.dice
            wait_us = SYNC_US_MIN + int(dice.random() * (SYNC_US_MAX - SYNC_US_MIN))
            if self._disk.slow or dice.random() < SLOW_SYNC:
                wait_us *= 50
            self._node.after(wait_us, self._written, batch, entries, self._sealer.head, self._restrictive_only)

    def _written(self, batch: list[Item], entries: list[SealedEntry], head: LogHead, restrictive: bool) -> None:
        self._writing = False
        why = self._disk.append(entries, head, writer=self.writer, restrictive=restrictive)
        if why:
            self._append_failed(why)
            return
        self._observer.durable(entries, self._node.clock)
        if not restrictive:
            self.ill = ""
        if head.seq - self._checkpoint_seq >= CHECKPOINT_RECORDS:
            self._checkpoint_seq = head.seq
            self._disk.sign()
        self._settle(batch)
        self._snapshot_if_due()
        self._flush()

    def _settle(self, batch: list[Item]) -> None:
        self._in_flight = []
        self._durable += len(batch)
        for item in batch:
            self.settle(item)
        while self._readers and self._readers[0][0] <= self._durable:
            self._readers.pop(0)[1]()

    def settle(self, item: Item) -> None:
        """Act on what is durable, and answer."""
        if item.permissive and self.effects is not None:
            self.effects.permit(item.permissive, item.ready, item.failed)
        else:
            item.ready()

    def _append_failed(self, code: str) -> None:
        self._node.agenda.reached[f"append {code}"] += 1
        self.ill = f"the journal cannot be written: {code}"
        if code == "JOURNAL_LOCKED":
            self._deposed = True  # another one writes: step down for good
        self._restrictive_only = code == "JOURNAL_FULL"
        self._retry_us = self._node.boot_us + RECOVER_US
        lost, self._pending, self._in_flight = [*self._in_flight, *self._pending], [], []
        if not self._deposed:
            before = self.state
            self.state = self.rebuilt(self._disk.snapshot)
            self.state.entitled, self.state.heard_us = before.entitled, before.heard_us
            self.state.tenancy.take_policies(before.tenancy)
            self._sealer.head = self._disk.head
            evolution.rearm(self.state, self._node.now())
        self._durable = self._decided
        readers, self._readers = self._readers, []
        error = UnavailableError(self.ill, code="JOURNAL_UNAVAILABLE")
        for failed in [*(item.failed for item in lost), *(reader[2] for reader in readers)]:
            failed(error)
        self._arm()

    def _snapshot_if_due(self) -> None:
        if self._pending or self._disk.head.seq - self._snapshot_seq < SNAPSHOT_RECORDS:
            return
        self._snapshot_seq = self._disk.head.seq
        self._disk.snapshot = (self._disk.head.seq, encode_state(self.state))

    # -- time

    def _arm(self, rest_us: int = WAKE_US_MIN) -> None:
        when_us = wake_at(self.state)
        latest_us = self._node.boot_us + SECOND
        due_us = latest_us if when_us is None else min(max(when_us, self._node.boot_us + rest_us), latest_us)
        if self._tick_us < 0 or due_us < self._tick_us:
            self._tick_us = due_us
            self._tick_number += 1
            self._node.when(due_us, self._tick, self._tick_number)

    def _tick(self, number: int) -> None:
        if number != self._tick_number or self._deposed:
            return
        self._tick_us = -1
        if self._node.clock.slept_us - self._slept_us > SUSPEND_US:
            self._slept_us = self._node.clock.slept_us
            self.begin_term()
        when_us = wake_at(self.state)
        if when_us is not None and when_us <= self._node.boot_us:
            if self.ill:
                self._try_again()
            if not self.idle and self._node.boot_us - when_us < LATE_US_MAX:
                self._arm(YIELD_US)  # whoever waits for the journal goes first
                return
            for _ in range(WAKES_MAX):
                when_us = wake_at(self.state)
                if when_us is None or when_us > self._node.boot_us:
                    break
                self.submit(c.Wake(restrictive=bool(self.ill)))
        self._arm()

    def _try_again(self) -> None:
        if self._node.boot_us >= self._retry_us:
            self._retry_us = self._node.boot_us + RECOVER_US
            self._restrictive_only = False
            self._again_killed()
            self.begin_term(self._forget_kills)

    def _again_killed(self) -> None:
        """The fences of a kill went out, its record did not: nothing that was killed is granted anew."""
        for kill in self._kills.values():
            with contextlib.suppress(AipagingError):
                self._decide(kill, nobody, nobody)

    def _forget_kills(self, _: c.Reply) -> None:
        self._kills.clear()

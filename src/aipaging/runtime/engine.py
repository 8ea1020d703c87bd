"""The engine loop: decide, append, then act and answer.

A command is decided and applied at once, in the order of arrival; its evidence joins the batch that the journal
takes next (group commit: one fsync for all that came while the last one ran). Ordering rules:

* Restrictive effects start at once and wait for nothing.
* Permissive effects and every answer wait for the fsync that covers what they rest on; reads included.
* Renewals, for which nobody waits, wait a moment for something to share an fsync with.
* A failed append acknowledges nothing: the state is rebuilt from the journal, admission stops, and what was granted
  runs out where it is enforced.

The journal is kept by `runtime.recording`, who waits for it stands in `runtime.pending`, why nothing is granted in
`runtime.illness`, and effects are carried out by `runtime.effects`.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

from aipaging.core.evidence.log import LogHead
from aipaging.core.evidence.record import Draft, SealedEntry
from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import BootUs, Now
from aipaging.core.paging import commands as c
from aipaging.core.paging.acting import RecordErasure
from aipaging.core.paging.erasing import check_forgotten
from aipaging.core.paging.events import ClientsEntitled, Event, HeartbeatSeen, PoliciesLoaded
from aipaging.core.paging.evolve import rearm
from aipaging.core.paging.records import draft_of
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.state import State
from aipaging.core.paging.step import evolve, step, wake_at
from aipaging.ports.journal import Eraser, Journal, SnapshotStore
from aipaging.ports.signing import CheckpointSigner
from aipaging.runtime.alarm import Alarm
from aipaging.runtime.carrying import RESTRICTIVE_EFFECTS, Effects, only_restrict
from aipaging.runtime.clock import Clock
from aipaging.runtime.illness import PAUSE_MS_MIN, Illness
from aipaging.runtime.observation import EngineObserver
from aipaging.runtime.pending import Item, Pending
from aipaging.runtime.recording import Recorder, SnapshotCounts
from aipaging.runtime.tracing import Tracer, note_append, steering_span

T = TypeVar("T")
LOG: Final = logging.getLogger("aipaging.engine")

BATCH_ENTRIES_MAX: Final = 4096
"""Entries in one append: bounds what waits on one fsync."""

PATIENCE_MS_MIN: Final = 2
PATIENCE_MS_MAX: Final = 50
PATIENCE_OF_SYNC: Final = 4
PATIENCE_OF_LEASE: Final = 24
"""Renewals wait four times as long as the journal took last, for others to go along with: pages that come meanwhile
find it busy a fifth of the time at most. No longer than this part of a lease: one that was put off may have only a
twelfth left."""

PREPARED_ITEMS_MAX: Final = 4
"""Of a batch of so many commands the tokens are signed while the disk syncs; with more the loop has work anyway."""

PENDING_ITEMS_MAX: Final = 20_000
"""Commands that may wait for the journal; beyond it the caller is asked to come back."""

WAKE_MS_MIN: Final = 2
"""The least time between two wakes: what falls due together is renewed together."""

LATE_MS_MAX: Final = 5
"""What has been due for less is left to the loop, which does it when nobody waits for the engine: a page does not wait
for the renewals of others."""

YIELD_MS: Final = 1
"""How long what is due waits for those who wait for the engine, before it is looked at again."""

WAKES_MAX: Final = 256
"""Wakes in one go before others get their turn: a mass relocation is one grant per wake."""

SLICE_MS: Final = 0.5
"""How long wakes may take before others get a turn between two of them."""


class Engine:
    """Owns the state and the journal.

    Attributes:
        state: Read-only for everybody else.
        ready: Whether recovery and reconciliation are over.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        snapshots: SnapshotStore | None,
        signer: CheckpointSigner,
        clock: Clock,
        writer: tuple[str, str],
        eraser: Eraser | None = None,
    ) -> None:
        self.state = State()
        self.ready = False
        self._clock = clock
        self._recorder = Recorder(journal, snapshots, signer, writer=writer, eraser=eraser)
        self._effects: Effects | None = None
        self._pending = Pending()
        self._arrived = asyncio.Event()
        self._patience: asyncio.TimerHandle | None = None
        self._append_ms = 0.0
        self._illness = Illness()
        self._kills: dict[tuple[str, str], c.Kill] = {}
        self._alarm = Alarm(clock)
        self._tasks: list[asyncio.Task[None]] = []
        self._background: set[asyncio.Task[None]] = set()
        self._software = ""
        self._observers: list[EngineObserver] = []
        self.tracer: Tracer | None = None

    # -- life

    async def recover(self) -> None:
        """Take the journal's lock and rebuild the state; nothing is decided yet.

        Raises:
            UnavailableError: The journal is locked by another controller, corrupt, or unreadable.
        """
        self.state = await self._recorder.recover()
        for observer in self._observers:
            observer.recovered(self.head.seq)

    async def start(self, effects: Effects, settings: Settings, *, software: str) -> None:
        """Begin a term and reconcile the user plane; only then is anything admitted.

        Raises:
            UnavailableError: The journal cannot be written, or the user plane not be reconciled.
        """
        self._effects = effects
        self._software = software
        self._tasks = [asyncio.create_task(self._write()), asyncio.create_task(self._tick())]
        await self.begin_term(settings)
        self.ready = True

    async def begin_term(self, settings: Settings | None = None) -> None:
        """Void all that was granted and grant it anew under a higher term, by these settings or those in force."""
        await self.submit(c.StartTerm(settings=settings or self.state.settings, software=self._software))

    async def stop(self) -> None:
        """Let what is pending reach the journal, then close it."""
        self.ready = False
        while self._pending and not self._illness.reason:
            self._arrived.set()
            await asyncio.sleep(0.001)
        for task in [*self._tasks, *self._background]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._background, return_exceptions=True)
        await self._recorder.close()

    # -- what others call

    def watch(self, observer: EngineObserver) -> None:
        """Tell somebody what happens, from now on."""
        self._observers.append(observer)

    def effect_failed(self, kind: str) -> None:
        """Tell those who watch that something did not come about in the user plane."""
        for observer in self._observers:
            observer.effect_failed(kind)

    @property
    def snapshots(self) -> SnapshotCounts:
        """What came of snapshots."""
        return self._recorder.snapshots

    @property
    def waiting(self) -> int:
        """How many commands wait for the journal."""
        return len(self._pending)

    def now(self) -> Now:
        """Return the present instant."""
        return self._clock.now()

    @property
    def healthy(self) -> bool:
        """Whether it may grant time: recovered, and its journal writable."""
        return self.ready and not self._illness.reason

    @property
    def ill(self) -> str:
        """Why it is not healthy, in a sentence; empty if it is."""
        return self._illness.reason or ("" if self.ready else "the controller is recovering")

    @property
    def stalled_s(self) -> float:
        """See `ControlPlane.stalled_s`."""
        return self._recorder.waits_s

    @property
    def head(self) -> LogHead:
        """Where the evidence log stands, not yet durable records included."""
        return self._recorder.head

    async def submit(self, command: c.Command) -> c.Reply:
        """Decide about a command; returns when it is durable and what the answer promises is in force.

        Raises:
            InvalidInputError: It names something that does not exist.
            RefusedError: It is not possible in the present state.
            UnavailableError: The journal cannot take it, steering could not be installed, or too much is waiting.
        """
        if isinstance(command, c.Kill):
            self._kills[command.kind.value, command.name] = command
        item = self._decided(command)
        if item.restricted is not None:
            await asyncio.shield(item.restricted)
        if self.tracer is not None:
            item.trace = self.tracer.traceparent()
        answer = await item.answer
        if isinstance(command, c.Kill):
            self._kills.pop((command.kind.value, command.name), None)
        return answer

    def note(self, command: c.Command) -> None:
        """See `ControlPlane.note`."""
        if not self.healthy:
            return
        with contextlib.suppress(AipagingError):
            self._decided(command)

    async def view(self, read: Callable[[State, Now], T], of: SessionId | None = None) -> T:
        """Return what `read` makes of the state, once everything that it may have seen is durable.

        Args:
            read: Looks at the state.
            of: The one session that it looks at; None if it looks at more.

        Raises:
            UnavailableError: What was seen did not become durable.
        """
        seen = read(self.state, self.now())
        reader = self._pending.reader(of)
        if reader is not None:
            self._arrived.set()
            await reader
        return seen

    async def erase(self, session: SessionId) -> bool:
        """See `ControlPlane.erase`."""
        await self.view(lambda state, _now: check_forgotten(state, session), session)
        erased = await self._recorder.erase(session, lambda: self.state)
        if erased:
            await self.submit(RecordErasure(session=session))
        return erased

    # -- deciding

    def _decided(self, command: c.Command) -> Item:
        if len(self._pending.waiting) >= PENDING_ITEMS_MAX:
            raise UnavailableError("too many transactions are waiting for the journal", code="OVERLOADED")
        now = self.now()
        self._check_pause(now)
        if not isinstance(command, c.Wake) and self._catch_up(now, late_us=LATE_MS_MAX * 1000):
            now = self.now()
        decision = step(self.state, command, now)
        if self._illness.reason and not isinstance(command, c.StartTerm) and not only_restrict(decision.events):
            raise UnavailableError(self._illness.reason, code="JOURNAL_UNAVAILABLE")
        restricting = [effect for effect in decision.effects if isinstance(effect, RESTRICTIVE_EFFECTS)]
        item = Item(
            events=decision.events,
            entries=self._applied(decision.events, now),
            permissive=[effect for effect in decision.effects if not isinstance(effect, RESTRICTIVE_EFFECTS)],
            restricted=self._effects.restrict(restricting) if restricting and self._effects else None,
            reply=decision.reply,
        )
        if item.entries or item.permissive:
            self._pending.add(item)
            if not item.patient:
                self._arrived.set()
            elif self._patience is None:
                self._patience = asyncio.get_running_loop().call_later(self._patience_ms() / 1000, self._arrived.set)
            if isinstance(command, c.Extend):
                self._catch_up(now)  # the renewal that it makes due, in the same batch: whoever is told has it
        else:
            item.answer.set_result(item.reply)
        self._alarm.sooner(self._wake_us(), now)
        return item

    def _patience_ms(self) -> float:
        wait_ms = min(max(PATIENCE_MS_MIN, self._append_ms * PATIENCE_OF_SYNC), PATIENCE_MS_MAX)
        return min(wait_ms, self.state.settings.lease.lease_ms / PATIENCE_OF_LEASE)

    def _catch_up(self, now: Now, *, late_us: int = 0) -> bool:
        """Do what has been due for so long: after a pause, expiries come before whatever is asked now.

        Returns:
            Whether anything was due.
        """
        when_us = wake_at(self.state)
        room = len(self._pending.waiting) < PENDING_ITEMS_MAX
        if not self.ready or not room or self._illness.reason or when_us is None or when_us > now.boot_us - late_us:
            return False
        self._decided(c.Wake())
        return True

    def _applied(self, events: Sequence[Event], now: Now) -> list[SealedEntry]:
        try:
            return self._recorder.seal(self._evolved(events), self.state.term, now)
        except Exception as error:
            self._broken(error)
            raise

    def _broken(self, error: Exception) -> None:
        """Go back to what the journal holds, as half a decision may be applied; grant nothing until then."""
        LOG.error("a decision could not be carried out", exc_info=error)
        self._illness.broken(error, self.now())
        self._arrived.set()  # for the writer, which alone opens the journal anew: nothing is appended meanwhile

    def _evolved(self, events: Sequence[Event]) -> list[Draft]:
        """Apply events; return what is to be recorded of them. A term begins with its first event, if with any."""
        drafts: list[Draft] = []
        for event in events:
            evolve(self.state, event)
            if not isinstance(event, HeartbeatSeen | ClientsEntitled | PoliciesLoaded):
                drafts.append(draft_of(event, self.state))
        return drafts

    # -- writing

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            try:
                bug = self._illness.met_bug()
                await (self._flush() if bug is None else self._append_failed(bug))
            except Exception as error:  # noqa: BLE001 - a bug must not end the loop: nothing would be stored any more
                self._broken(error)
                await asyncio.sleep(PAUSE_MS_MIN / 1000)  # one that comes at once again leaves others their turn

    async def _flush(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        batch = self._pending.batch(BATCH_ENTRIES_MAX)
        if len(batch) == BATCH_ENTRIES_MAX:
            self._arrived.set()  # there may be more
        entries = [entry for item in batch for entry in item.entries]
        if entries:
            # With more waiting, the sealer is ahead of this batch: the next one carries the checkpoint.
            checkpoint = None if self._pending.waiting else self._recorder.due_checkpoint(self.now())
            restrictive = self._illness.restrictive_only
            begun = time.perf_counter()
            try:
                await self._recorder.append(
                    entries, checkpoint, restrictive=restrictive, meanwhile=lambda: self._prepare(batch)
                )
            except AipagingError as error:
                await self._append_failed(error)
                return
            self._illness.durable(restrictive=restrictive)
            self._append_ms = 1000 * (time.perf_counter() - begun)
        # Before anything else: what is durable is answered, whatever comes of telling others.
        self._pending.settle()
        self._settle(batch)
        if entries:
            self._tell(batch, entries)
        self._recorder.snapshot_if_due(self.state)

    def _prepare(self, batch: Sequence[Item]) -> None:
        """Use the time that the disk takes, where there is nothing else to do."""
        if self._effects is not None and len(batch) <= PREPARED_ITEMS_MAX:
            with contextlib.suppress(Exception):  # what cannot be signed now cannot be later, and is told then
                for item in batch:
                    self._effects.prepare(item.permissive)

    def _tell(self, batch: Sequence[Item], entries: Sequence[SealedEntry]) -> None:
        took_s = self._append_ms / 1000
        for observer in self._observers:
            try:
                observer.appended(entries, took_s)
            except Exception:
                LOG.exception("somebody who watches could not be told of new records: this is a bug")
        note_append(self.tracer, (item.trace for item in batch), len(entries), took_s)

    def _settle(self, batch: Sequence[Item]) -> None:
        for item in batch:
            if item.permissive:
                self._spawn(self._act(item))
            elif not item.answer.done():
                item.answer.set_result(item.reply)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _act(self, item: Item) -> None:
        try:
            if self._effects is not None:
                with steering_span(self.tracer, item.trace):
                    await self._effects.permit(item.permissive)
        except AipagingError as error:
            if not item.answer.done():
                item.answer.set_exception(error)
                item.answer.exception()  # nobody may be waiting any more
            return
        if not item.answer.done():
            item.answer.set_result(item.reply)

    async def _append_failed(self, error: AipagingError) -> None:
        """Acknowledge nothing, and go back to what the journal holds."""
        for observer in self._observers:
            observer.append_failed(error.code)
        LOG.error("journal append failed", extra={"code": error.code, "reason": error.message})
        self._illness.failed(error, self.now())
        never = UnavailableError(self._illness.reason, code="JOURNAL_UNAVAILABLE")
        try:
            state = await self._recorder.reopen()
        except AipagingError as second:
            LOG.critical("journal cannot be read back", extra={"code": second.code, "reason": second.message})
            self._illness.restrictive_only = False
        else:
            state.entitled, state.heard_us = self.state.entitled, self.state.heard_us
            state.tenancy.take_policies(self.state.tenancy)
            self.state = state
            rearm(state, self.now())
        self._illness.pause(self.now())
        self._alarm.ring()
        self._pending.lose(never)

    # -- time

    async def _tick(self) -> None:
        while True:
            await self._until_due()
            if self._illness.reason:
                await self._recover()
            slice_us = self.now().boot_us
            for _ in range(WAKES_MAX):
                when_us, now_us = self._wake_us(), self.now().boot_us
                if when_us is None or when_us > now_us:
                    break
                wait_ms = YIELD_MS if self._awaited() and now_us - when_us < LATE_MS_MAX * 1000 else 0
                if wait_ms or now_us - slice_us > SLICE_MS * 1000:
                    self._alarm.back_us = now_us
                    await asyncio.sleep(wait_ms / 1000)
                    slice_us = self.now().boot_us
                if not wait_ms:
                    self._do_due()

    def _do_due(self) -> None:
        try:
            self._decided(c.Wake(restrictive=bool(self._illness.reason)))
        except Exception as error:  # noqa: BLE001 - a bug must not end the loop: nothing would be renewed any more
            if not isinstance(error, UnavailableError) and not self._illness.pausing(self.now()):
                self._broken(error)

    def _awaited(self) -> bool:
        """Tell whether somebody waits for the journal or the user plane."""
        return bool(self._background) or self._pending.awaited

    async def _recover(self) -> None:
        """Try whether the journal takes records again: begin a term, as after a restart."""
        if not self._illness.retrying(self.now()):
            return
        with contextlib.suppress(AipagingError):
            for kill in self._kills.values():
                # Its fences went out, its record did not: nothing that was killed is granted anew.
                self._decided(kill)
            await self.begin_term()
            self._kills.clear()

    async def _until_due(self) -> None:
        await self._alarm.rest(WAKE_MS_MIN)
        while True:
            self._check_pause(self.now())
            self._alarm.looking()
            when_us = self._illness.looked_at_us(self._wake_us())
            if when_us is not None and when_us <= self.now().boot_us:
                return
            await self._alarm.sleep(when_us, self.state.settings.anchor_lost_ms)
            if self._alarm.suspended():
                LOG.warning("the machine was suspended: all steering is granted anew")
                self._spawn(self.begin_term())

    def _wake_us(self) -> BootUs | None:
        """Return when something is due next; after a failed append nothing is until its pause is over."""
        return self._illness.due_us(wake_at(self.state))

    def _check_pause(self, now: Now) -> None:
        """After a pause of this process give anchors a full period to be heard: their heartbeats wait in sockets."""
        overslept_ms = self._alarm.overslept_ms(now, self.state.settings.anchor_lost_ms)
        if overslept_ms:
            LOG.warning("this process stood still", extra={"ms": overslept_ms})
            for anchor in self.state.heard_us:
                evolve(self.state, HeartbeatSeen(anchor=anchor, boot_us=now.boot_us))

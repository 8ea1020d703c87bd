"""What an enforcement point knows of leases, and what it does with what it does not know.

Rule 1: a receipt never grants time. Time comes from the controller's answer alone, and is counted from the instant at
which the *question was sent*, minus clock drift (RFC 2131, 4.4.5; Gray and Cheriton 1989): delay only shortens a lease.
Rule 2: an epoch lower than the highest seen is refused, and an epoch that was called ended never revives, whatever a
late answer says.
Rule 3: no answer changes nothing: work goes on until the deadline that is known, and not beyond.

The holder starts empty, so after a restart it asks. A jump between the boot clock and the monotonic clock (the host
was suspended) drops every deadline; the epochs that were seen stay, for they do not depend on time.

States of a session: UNKNOWN (never asked, expired, or dropped), ACTIVE, DRAINING (source of a relocation: counted like
ACTIVE, until the controller stops extending it), ENDED. Waiting, asking and cutting belong to the adapter; the queue
of wake-ups holds at most a few entries per session, and a stale one costs one look.
"""

import enum
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import MS, SECOND, BootUs, shrunk_us

NO_EPOCH: Final = Epoch(0, 0)
"""Below every real epoch: terms begin at 1."""

CLOCK_JUMP_US: Final = 1 * SECOND
"""A shorter suspend leaves the deadlines right anyway (they are on the boot clock), and a process that is descheduled
between its two clock readings must not pass for one."""


class HolderState(enum.Enum):
    """What is known of a session's lease."""

    UNKNOWN = "UNKNOWN"
    ACTIVE = "ACTIVE"
    DRAINING = "DRAINING"
    ENDED = "ENDED"


class Verdict(enum.Enum):
    """What to do with a request of an epoch."""

    ADMIT = "admit"
    ASK = "ask"
    FENCED = "fenced"
    ENDED = "ended"
    SILENT = "silent"
    """The controller was asked a moment ago and did not answer."""
    FULL = "full"
    """No more sessions can be told apart here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolderTerms:
    """Limits and margins of a holder.

    Attributes:
        drift_ppm: How much slower than the controller's clock ours may run. The default is ten times a poor quartz
            crystal (100 ppm), twice what NTP may slew (500 ppm).
        ask_after_ppm: The part of the remaining time after which to ask again while work is open; below one half,
            so that one lost question leaves time for another.
        ask_interval_us: The least time between two questions about one session: near a lease's end, fractions of
            what remains would otherwise become a flood.
        retry_us: How long after a question without an answer the next is asked.
        sessions_max: How many sessions are remembered; one takes about 300 bytes.
    """

    drift_ppm: int = 1_000
    ask_after_ppm: int = 400_000
    ask_interval_us: int = 50 * MS
    retry_us: int = 100 * MS
    sessions_max: int = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseQuestion:
    """How long may this epoch of this session go on?"""

    session: SessionId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseAnswer:
    """What the controller said to a question.

    Attributes:
        session: The session that was asked about.
        asked: The epoch that was asked about.
        state: ACTIVE, DRAINING or ENDED.
        remaining_ms: Counted from when the question was sent.
        current: The session's current epoch; where ACTIVE, it is on this anchor and may be higher than `asked`.
    """

    session: SessionId
    asked: Epoch
    state: HolderState
    remaining_ms: int
    current: Epoch


@dataclass(slots=True)
class _Held:
    """One session. `fence` is the highest epoch seen, `granted` the one that `deadline_us` stands for."""

    fence: Epoch
    granted: Epoch = NO_EPOCH
    ended: Epoch = NO_EPOCH
    state: HolderState = HolderState.UNKNOWN
    deadline_us: int = 0
    sent_us: int = -1
    ask_at_us: int = 0
    silent_until_us: int = 0
    asking: bool = False
    open_work: int = 0
    wake_us: int = -1


@dataclass(slots=True)
class LeaseHolder:
    """The leases of one enforcement point."""

    terms: HolderTerms = field(default_factory=HolderTerms)
    _held: dict[SessionId, _Held] = field(default_factory=dict)
    _wanted: dict[SessionId, None] = field(default_factory=dict)
    _wakes: list[tuple[int, SessionId]] = field(default_factory=list)
    _clock_offset_us: int | None = None
    _swept_us: int = -SECOND

    def __len__(self) -> int:
        return len(self._held)

    def sight(self, session: SessionId, epoch: Epoch, now_us: BootUs) -> Verdict:
        """Judge a request that carries a verified receipt of `epoch`; ASK notes that the controller be asked."""
        held = self._held.get(session)
        if held is None:
            if len(self._held) >= self.terms.sessions_max and not self._swept(now_us):
                return Verdict.FULL
            held = self._held[session] = _Held(fence=epoch)
        if epoch < held.fence:
            return Verdict.FENCED
        if epoch <= held.ended:
            return Verdict.ENDED
        held.fence = epoch
        if epoch == held.granted and now_us < held.deadline_us:
            return Verdict.ADMIT
        if now_us < held.silent_until_us:
            return Verdict.SILENT
        if not held.asking:
            self._wanted[session] = None
        return Verdict.ASK

    def opened(self, session: SessionId) -> None:
        """Count work that was admitted; while any is open, the lease is asked about ahead of its end."""
        held = self._held[session]
        held.open_work += 1
        self._schedule(session, held)

    def closed(self, session: SessionId) -> None:
        """Count work that ended."""
        held = self._held[session]
        assert held.open_work > 0, "closed more often than opened"  # noqa: S101 our own mistake
        held.open_work -= 1

    def must_cut(self, session: SessionId, epoch: Epoch, now_us: BootUs) -> bool:
        """Return whether open work of `epoch` has no time left."""
        held = self._held.get(session)
        return held is None or epoch <= held.ended or now_us >= held.deadline_us

    def wake_at(self) -> BootUs | None:
        """Return when `advance` has to be called next, or None."""
        return BootUs(self._wakes[0][0]) if self._wakes else None

    def advance(self, now_us: BootUs) -> list[SessionId]:
        """Return the sessions whose open work must be cut by now, and note those to ask about again."""
        over: list[SessionId] = []
        while self._wakes and self._wakes[0][0] <= now_us:
            when_us, session = heapq.heappop(self._wakes)
            held = self._held.get(session)
            if held is None or held.wake_us != when_us:
                continue
            held.wake_us = -1
            if not held.open_work:
                continue
            if held.deadline_us <= now_us:
                self._drop(held)
                over.append(session)
                continue
            if held.ask_at_us <= now_us and not held.asking:
                self._wanted[session] = None
            self._schedule(session, held)
        return over

    def questions(self, limit: int) -> list[LeaseQuestion]:
        """Return up to `limit` questions to send now; each session has at most one under way."""
        asked: list[LeaseQuestion] = []
        while self._wanted and len(asked) < limit:
            session = next(iter(self._wanted))
            del self._wanted[session]
            held = self._held[session]
            held.asking = True
            asked.append(LeaseQuestion(session=session, epoch=held.fence))
        return asked

    def answered(self, answer: LeaseAnswer, sent_us: BootUs) -> None:
        """Take an answer to a question that was sent at `sent_us`."""
        held = self._held.get(answer.session)
        if held is None:
            return
        held.asking = False
        held.silent_until_us = 0
        if answer.state is HolderState.ENDED:
            self._end(held, answer.asked)
            return
        granted = answer.current if answer.state is HolderState.ACTIVE else answer.asked
        if granted <= held.ended or granted < answer.asked:
            self._end(held, held.ended)
            return
        if sent_us < held.sent_us or granted < held.granted or answer.state is HolderState.UNKNOWN:
            return
        held.granted, held.fence = granted, max(held.fence, granted)
        held.state, held.sent_us = answer.state, sent_us
        lease_us = shrunk_us(max(answer.remaining_ms, 0) * MS, self.terms.drift_ppm)
        held.deadline_us = sent_us + lease_us
        ask_after_us = lease_us * self.terms.ask_after_ppm // 1_000_000
        held.ask_at_us = sent_us + max(ask_after_us, self.terms.ask_interval_us)
        self._schedule(answer.session, held)

    def unanswered(self, questions: Iterable[LeaseQuestion], now_us: BootUs) -> None:
        """Note that these questions got no answer: deadlines stay, and open work has them asked again."""
        for question in questions:
            held = self._held.get(question.session)
            if held is not None:
                held.asking = False
                held.silent_until_us = held.ask_at_us = now_us + self.terms.retry_us
                self._schedule(question.session, held)

    def revoked(self, session: SessionId, epoch: Epoch) -> bool:
        """End every epoch up to `epoch`; return whether the session is known here."""
        held = self._held.get(session)
        if held is None:
            return False
        self._end(held, epoch)
        return True

    def ask_about_all(self, now_us: BootUs) -> None:
        """Have every lease asked about that still lasts: the list of revocations was lost, or the anchor drains."""
        for session, held in self._held.items():
            if not held.asking and now_us < held.deadline_us:
                self._wanted[session] = None

    def observe_clocks(self, boot_us: BootUs, monotonic_us: int) -> bool:
        """Return whether the host was suspended since the last look; every deadline is dropped then.

        All open work must be cut. It was not counted down where the controller could see it.
        """
        offset_us = boot_us - monotonic_us
        known_us, self._clock_offset_us = self._clock_offset_us, offset_us
        if known_us is None or abs(offset_us - known_us) < CLOCK_JUMP_US:
            return False
        for held in self._held.values():
            self._drop(held)
        return True

    def state(self, session: SessionId, now_us: BootUs) -> HolderState:
        """Return what is known of a session's lease."""
        held = self._held.get(session)
        if held is None or (held.state is not HolderState.ENDED and now_us >= held.deadline_us):
            return HolderState.UNKNOWN
        return held.state

    def live(self, now_us: BootUs) -> int:
        """Return how many leases still steer new work here (ACTIVE, not yet expired)."""
        return sum(held.state is HolderState.ACTIVE and now_us < held.deadline_us for held in self._held.values())

    @staticmethod
    def _drop(held: _Held) -> None:
        """Forget the time, keep the epochs."""
        held.deadline_us = 0
        held.granted = NO_EPOCH
        if held.state is not HolderState.ENDED:
            held.state = HolderState.UNKNOWN

    def _end(self, held: _Held, epoch: Epoch) -> None:
        held.ended = max(held.ended, epoch)
        if held.granted <= held.ended:
            self._drop(held)
            held.state = HolderState.ENDED if held.fence <= held.ended else HolderState.UNKNOWN

    def _schedule(self, session: SessionId, held: _Held) -> None:
        if not held.open_work or held.deadline_us == 0:
            return
        under_way = held.asking or session in self._wanted
        next_us = held.deadline_us if under_way else min(held.deadline_us, held.ask_at_us)
        if held.wake_us < 0 or next_us < held.wake_us:
            held.wake_us = next_us
            heapq.heappush(self._wakes, (next_us, session))

    def _swept(self, now_us: BootUs) -> bool:
        """Forget sessions that mean nothing any more; return whether there is room for another.

        What is forgotten is asked about again when it is seen again, so a forgotten fence opens nothing. At most one
        sweep a second: it looks at every session.
        """
        if now_us - self._swept_us < SECOND:
            return False
        self._swept_us = now_us
        over = [
            session
            for session, held in self._held.items()
            if not held.open_work and not held.asking and now_us >= held.deadline_us
        ]
        for session in over:
            del self._held[session]
            self._wanted.pop(session, None)
        return len(self._held) < self.terms.sessions_max

"""The lease gate: who may pass, for how long, and who has to stop.

Every request passes here with its receipt. The signature is verified once per receipt; the anchor's id must be ours;
then the lease holder judges the epoch. What the holder does not know, the controller is asked: in batches, one
question per session at a time, while the requests wait. The deadline counts from before the question was sent.

One timer stands for all sessions. When it fires, open work whose lease is over is cut and leases in use are asked
about again. Without an answer, work goes on until the deadline that is known. Revocations cut at once.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

from aipaging.adapters.sidecar.answers import (
    CONTROLLER_SILENT,
    FENCED,
    LEASE_ENDED,
    NO_COMMIT,
    SESSIONS_FULL,
    Refusal,
)
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError, UnverifiedError
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import SECOND, BootUs
from aipaging.core.identity.claims import CommitClaims
from aipaging.core.lease.holder import HolderTerms, LeaseAnswer, LeaseHolder, LeaseQuestion, Verdict
from aipaging.ports.signing import TokenVerifier

RECEIPTS_MAX: Final = 10_000
"""Verified receipts that are remembered: about 2 kB each. A miss costs one signature check (about 0.1 ms)."""

RECEIPT_BYTES_MAX: Final = 4_096
"""Ours are below 1,000 bytes; nobody makes us hash more."""

QUESTIONS_MAX: Final = 512
"""Leases in one request to the controller: about 50 kB."""

ASKING_MAX: Final = 4
"""Requests to the controller under way; while they are, further questions gather into larger ones."""

CLOCK_CHECK_S: Final = 0.5
"""How often the clocks are compared while nothing happens."""


class LeaseAuthority(Protocol):
    """Who knows how long a lease lasts."""

    async def remaining(self, questions: Sequence[LeaseQuestion]) -> Sequence[LeaseAnswer]:
        """Return what remains, counted from the sending of the request.

        Raises:
            UnavailableError: There is no answer.
        """
        ...


class Passage(Protocol):
    """One request on its way through the gate.

    Attributes:
        claims: What its receipt says; set before anything is called.
        passed: Whether it holds work open under its lease.
    """

    claims: CommitClaims
    passed: bool

    def admitted(self) -> None:
        """Go on."""
        ...

    def refused(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        ...

    def cut(self, reason: Refusal) -> None:
        """Stop now; `LeaseGate.leave` is called by the passage itself."""
        ...


class LeaseGate:
    """Admits, asks and cuts."""

    def __init__(
        self,
        anchor: AnchorId,
        authority: LeaseAuthority,
        instruments: Instruments,
        *,
        terms: HolderTerms,
        waiting_max: int = 1024,
    ) -> None:
        self.holder = LeaseHolder(terms=terms)
        self.verifier: TokenVerifier | None = None
        self.unknown_key = asyncio.Event()
        self._anchor = anchor
        self._authority = authority
        self._clocks = instruments.clocks
        self._metrics = instruments.metrics
        self._log = instruments.log
        self._waiting_max = waiting_max
        self._loop = asyncio.get_running_loop()
        self._receipts: dict[bytes, CommitClaims] = {}
        self._work: dict[SessionId, set[Passage]] = {}
        self._waiting: dict[SessionId, list[Passage]] = {}
        self._waiting_count = 0
        self._asking: set[asyncio.Task[None]] = set()
        self._ask_is_near = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_us = 0
        self._controller_silent = False

    def use_verifier(self, verifier: TokenVerifier) -> None:
        """Verify with these keys from now on; receipts verified with others are looked at again."""
        self.verifier = verifier
        self._receipts.clear()

    def claims_of(self, receipt: bytes | None) -> CommitClaims | Refusal:
        """Return what a receipt says, verified, or why it opens nothing here."""
        if receipt is None:
            return NO_COMMIT
        claims = self._receipts.get(receipt)
        if claims is None:
            return self._verified(receipt)
        if len(self._receipts) > RECEIPTS_MAX // 2:
            # Near the bound, use decides who stays: the oldest entry of the dictionary goes first.
            del self._receipts[receipt]
            self._receipts[receipt] = claims
        return claims

    def _verified(self, receipt: bytes) -> CommitClaims | Refusal:
        if self.verifier is None:
            return CONTROLLER_SILENT
        if len(receipt) > RECEIPT_BYTES_MAX or not receipt.isascii():
            return self._forged("TOKEN_MALFORMED")
        try:
            claims = self.verifier.verify_commit(receipt.decode("ascii"))
        except UnverifiedError as error:
            return self._forged(error.code)
        if claims.anchor != self._anchor:
            return self._forged("OTHER_ANCHOR")
        self._metrics.receipts_verified += 1
        while len(self._receipts) >= RECEIPTS_MAX:
            del self._receipts[next(iter(self._receipts))]
        self._receipts[receipt] = claims
        return claims

    def _forged(self, why: str) -> Refusal:
        if why == "TOKEN_KEY_UNKNOWN":
            self.unknown_key.set()  # perhaps the controller has a new key
        self._metrics.receipts_forged += 1
        self._log.event("receipt_refused", why=why)
        return NO_COMMIT

    def enter(self, passage: Passage) -> None:
        """Judge a request; exactly one of its methods is called, now or when the controller has answered."""
        now_us = self._observed()
        claims = passage.claims
        verdict = self.holder.sight(claims.session, claims.epoch, now_us)
        if verdict is Verdict.ADMIT:
            self._open(passage)
        elif verdict is Verdict.ASK and self._waiting_count < self._waiting_max:
            self._waiting.setdefault(claims.session, []).append(passage)
            self._waiting_count += 1
            self._ask_soon()
        else:
            passage.refused(_REFUSALS.get(verdict, SESSIONS_FULL))

    def leave(self, passage: Passage) -> None:
        """Forget a request: it ended, was refused elsewhere, or its client left."""
        session = passage.claims.session
        if passage.passed:
            passage.passed = False
            work = self._work[session]
            work.remove(passage)
            if not work:
                del self._work[session]
            self.holder.closed(session)
            return
        waiting = self._waiting.get(session)
        if waiting is not None and passage in waiting:
            waiting.remove(passage)
            self._waiting_count -= 1
            if not waiting:
                del self._waiting[session]

    def revoke(self, entries: Iterable[tuple[SessionId, Epoch]]) -> None:
        """End these epochs now."""
        for session, epoch in entries:
            if self.holder.revoked(session, epoch):
                self._cut_what_must(session, self._clocks.boot_us())

    def ask_about_all(self) -> None:
        """Ask about every lease that is held."""
        self.holder.ask_about_all(self._clocks.boot_us())
        self._ask_soon()

    @property
    def open_work(self) -> int:
        """Return how many requests are past the gate."""
        return sum(map(len, self._work.values()))

    @property
    def waiting(self) -> int:
        """Return how many requests wait for the controller's answer."""
        return self._waiting_count

    def close(self) -> None:
        """Stop timers and questions."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._asking:
            task.cancel()

    def tick(self) -> None:
        """Cut what is over, and ask again about what goes on."""
        self._timer = None
        now_us = self._observed()
        for session in self.holder.advance(now_us):
            self._cut_what_must(session, now_us)
        self._ask_soon()
        self._arm()

    def _observed(self) -> BootUs:
        now_us = self._clocks.boot_us()
        if self.holder.observe_clocks(now_us, self._clocks.monotonic_us()):
            self._log.event("clock_jumped")
            for session in list(self._work):
                self._cut_what_must(session, now_us)
        return now_us

    def _open(self, passage: Passage) -> None:
        session = passage.claims.session
        passage.passed = True
        self.holder.opened(session)
        work = self._work.get(session)
        if work is None:
            self._work[session] = {passage}
        else:
            work.add(passage)
        wake_us = self.holder.wake_at()
        if self._timer is None or (wake_us is not None and wake_us < self._timer_us):
            self._arm()
        passage.admitted()

    def _arm(self) -> None:
        """Set the one timer; with work open it also fires to compare the clocks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_us = self.holder.wake_at()
        if wake_us is None and not self._work:
            return
        now_us = self._clocks.boot_us()
        latest_us = now_us + int(CLOCK_CHECK_S * SECOND)
        self._timer_us = latest_us if wake_us is None else min(wake_us, latest_us)
        self._timer = self._loop.call_later(max(0, self._timer_us - now_us) / SECOND, self.tick)

    def _cut_what_must(self, session: SessionId, now_us: BootUs) -> None:
        for passage in list(self._work.get(session, ())):
            if self.holder.must_cut(session, passage.claims.epoch, now_us):
                passage.cut(LEASE_ENDED)

    def _ask_soon(self) -> None:
        if not self._ask_is_near:
            self._ask_is_near = True
            self._loop.call_soon(self._ask)

    def _ask(self) -> None:
        self._ask_is_near = False
        while len(self._asking) < ASKING_MAX and (questions := self.holder.questions(QUESTIONS_MAX)):
            task = self._loop.create_task(self._put(questions))
            self._asking.add(task)
            task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        if not task.cancelled():
            task.result()
            self._ask_soon()

    async def _put(self, questions: Sequence[LeaseQuestion]) -> None:
        sent_us = self._clocks.boot_us()
        try:
            answers = await self._authority.remaining(questions)
        except UnavailableError as error:
            answers = ()
            self._heard(silent=True, why=error.code)
        else:
            self._heard(silent=False, why="")
        asked = {question.session: question for question in questions}
        for answer in answers:
            question = asked.get(answer.session)
            if question is not None and question.epoch == answer.asked:
                del asked[answer.session]
                self.holder.answered(answer, sent_us)
        now_us = self._observed()
        self.holder.unanswered(asked.values(), now_us)
        for question in questions:
            self._cut_what_must(question.session, now_us)
            self._resume(question, answered=question.session not in asked)
        self._arm()

    def _heard(self, *, silent: bool, why: str) -> None:
        self._metrics.controller_failures += silent
        if silent != self._controller_silent:
            self._controller_silent = silent
            self._log.event("controller_silent" if silent else "controller_heard", why=why)

    def _resume(self, question: LeaseQuestion, *, answered: bool) -> None:
        """Judge again those who waited for this answer; whoever needs a newer one goes on waiting."""
        session = question.session
        waiting = self._waiting.pop(session, None)
        if waiting is None:
            return
        self._waiting_count -= len(waiting)
        for passage in waiting:
            if not answered:
                passage.refused(CONTROLLER_SILENT)
                continue
            epoch = passage.claims.epoch
            verdict = self.holder.sight(session, epoch, self._clocks.boot_us())
            if verdict is Verdict.ASK and epoch <= question.epoch:
                passage.refused(LEASE_ENDED)  # it was asked about, and no time was left
            elif verdict is Verdict.ASK:
                self._waiting.setdefault(session, []).append(passage)
                self._waiting_count += 1
            elif verdict is Verdict.ADMIT:
                self._open(passage)
            else:
                passage.refused(_REFUSALS.get(verdict, SESSIONS_FULL))


_REFUSALS: Final = {
    Verdict.FENCED: FENCED,
    Verdict.ENDED: LEASE_ENDED,
    Verdict.SILENT: CONTROLLER_SILENT,
    Verdict.FULL: SESSIONS_FULL,
}

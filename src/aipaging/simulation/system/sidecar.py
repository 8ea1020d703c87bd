"""An anchor's sidecar: the core's lease holder, with a model of the gate around it (`adapters.sidecar.gate`).

It asks what it does not know, in batches; it cuts open work at the deadline that is known; it follows the feed of
revocations; it says how it is, and where sessions are counted, what they used. After a restart it knows nothing.
Signatures, queues and the upstream are left out.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, SECOND
from aipaging.core.lease.holder import HolderState, LeaseAnswer, LeaseQuestion, Verdict
from aipaging.simulation.system.gateway import Request
from aipaging.simulation.system.kernel import Agenda, Node, NodeClock
from aipaging.simulation.system.parts import Batch, Parts

QUESTIONS_MAX: Final = 512
ASKING_MAX: Final = 4
ANSWER_US_MAX: Final = 2 * SECOND
CLOCK_CHECK_US: Final = 500 * MS
HEARTBEAT_US: Final = 250 * MS
POLL_WAIT_US: Final = 1 * SECOND
POLL_AGAIN_US: Final = 100 * MS
USAGE_US: Final = 300 * MS
TOKENS: Final = 7
"""Of every request, as its model server states them."""


class SidecarWires(Protocol):
    """What a sidecar sends, and who watches it."""

    def ask(self, sidecar: "Sidecar", questions: Sequence[LeaseQuestion], answered: Callable[[Any], None]) -> None:
        """Ask how long leases last; `answered` takes a list of `LeaseAnswer`, or None for silence."""
        ...

    def follow(self, sidecar: "Sidecar", term: int, sequence: int, answered: Callable[[Any], None]) -> None:
        """Ask for revocations; `answered` takes a page, or None."""
        ...

    def beat(self, sidecar: "Sidecar") -> None:
        """Say how it is."""
        ...

    def told(self, sidecar: "Sidecar", session: SessionId, epoch: Epoch) -> None:
        """It was told that an epoch and all below it have ended: seen from outside."""
        ...

    def usage(self, sidecar: "Sidecar", boot: str, batch: Batch, answered: Callable[[bool], None]) -> None:
        """Say what sessions used; `answered` takes whether the controller has it."""
        ...

    def admitted(self, sidecar: "Sidecar", request: Request) -> None:
        """A request passed the gate: seen from outside."""
        ...

    def ended(self, sidecar: "Sidecar", request: Request, last_us: int) -> None:
        """Its work has ended and delivered last at `last_us`: seen from outside."""
        ...


class Sidecar(Node):
    """One anchor.

    Attributes:
        anchor: Its id.
        says: What it says of itself.
        holder: What it knows of leases.
        counts: Whether it says what sessions used.
    """

    def __init__(self, name: str, agenda: Agenda, clock: NodeClock, *, wires: SidecarWires, parts: Parts) -> None:
        super().__init__(name, agenda, clock)
        self.anchor = AnchorId(name)
        self.says = AnchorState.READY
        self.holder = parts.holder()
        self.counts = False
        self._parts = parts
        self._meter = parts.meter()
        self._wires = wires
        self._work: dict[SessionId, list[Request]] = {}
        self._waiting: dict[SessionId, list[Request]] = {}
        self._asking = 0
        self._tick_us = -1
        self._tick_number = 0
        self._place = (0, 0)
        self._delivered_us = -1

    def begin(self) -> None:
        """Begin a life: nothing is known, nothing is open."""
        self.holder, self._meter = self._parts.holder(), self._parts.meter()
        self._work, self._waiting = {}, {}
        self._asking, self._tick_us, self._place = 0, -1, (0, 0)
        self._heartbeat()
        self._follow()
        self._observed()
        if self.counts:
            self.after(USAGE_US, self._report)

    def resumed(self) -> None:
        """After a stop the first thing is to look at the clocks; nothing was delivered meanwhile."""
        self._delivered_us = self.stopped_us
        self.tick(self._tick_number)
        self._delivered_us = -1

    def prepared(self, respond: Callable[[Any], None]) -> None:
        """Answer whether sessions may come."""
        respond(self.says is AnchorState.READY)

    # -- the gate

    def enter(self, request: Request) -> None:
        """Judge a request."""
        self._observed()
        verdict = self.judged(request)
        if verdict is Verdict.ADMIT:
            self._open(request)
        elif verdict is Verdict.ASK:
            self._waiting.setdefault(request.session, []).append(request)
            self._ask()
        else:
            request.over(verdict.name)

    def judged(self, request: Request) -> Verdict:
        """Return what to do with a request now."""
        return self.holder.sight(request.session, request.epoch, self.boot_us)

    def _open(self, request: Request) -> None:
        self.holder.opened(request.session)
        self._work.setdefault(request.session, []).append(request)
        self._wires.admitted(self, request)
        self.after(request.work_us, self._done, request)
        self._arm()

    def _done(self, request: Request) -> None:
        if request in self._work.get(request.session, ()):
            self._close(request)
            self._meter.count(request.session, TOKENS)
            request.over("served")

    def _close(self, request: Request) -> None:
        work = self._work[request.session]
        work.remove(request)
        if not work:
            del self._work[request.session]
        self.holder.closed(request.session)
        self._wires.ended(self, request, self._delivered_us if self._delivered_us >= 0 else self.agenda.us)

    def _cut(self, session: SessionId) -> None:
        for request in list(self._work.get(session, ())):
            if self.must_cut(request):
                self._close(request)
                request.over("cut")

    def must_cut(self, request: Request) -> bool:
        """Whether open work has no time left."""
        return self.holder.must_cut(request.session, request.epoch, self.boot_us)

    # -- time

    def tick(self, number: int) -> None:
        """Cut what is over, and ask again about what goes on."""
        if number != self._tick_number:
            return
        self._tick_us = -1
        self._observed()
        for session in self.holder.advance(self.boot_us):
            self._cut(session)
        self._ask()
        self._arm()

    def _observed(self) -> None:
        boot_us = self.boot_us
        if self.holder.observe_clocks(boot_us, boot_us - self.clock.slept_us):
            self.agenda.reached["deadlines dropped after suspend"] += 1
            for session in list(self._work):
                self._cut(session)

    def _arm(self) -> None:
        wake_us = self.holder.wake_at()
        if wake_us is None and not self._work:
            return
        latest_us = self.boot_us + CLOCK_CHECK_US
        due_us = latest_us if wake_us is None else min(wake_us, latest_us)
        if self._tick_us < 0 or due_us < self._tick_us:
            self._tick_us = due_us
            self._tick_number += 1
            self.when(due_us, self.tick, self._tick_number)

    # -- questions

    def _ask(self) -> None:
        while self._asking < ASKING_MAX and (questions := self.holder.questions(QUESTIONS_MAX)):
            self._asking += 1
            self._put(questions, self.boot_us)

    def _put(self, questions: Sequence[LeaseQuestion], sent_us: int) -> None:
        def answered(answers: Sequence[LeaseAnswer] | None) -> None:
            self._asking -= 1
            self._answered(questions, answers or (), sent_us)
            self._ask()

        self._wires.ask(self, questions, answered)

    def _answered(self, questions: Sequence[LeaseQuestion], answers: Sequence[LeaseAnswer], sent_us: int) -> None:
        asked = {question.session: question for question in questions}
        for answer in answers:
            question = asked.get(answer.session)
            if question is not None and question.epoch == answer.asked:
                del asked[answer.session]
                self.take(answer, sent_us)
        self._observed()
        self.holder.unanswered(asked.values(), self.boot_us)
        for question in questions:
            self._cut(question.session)
            self._resume(question, answered=question.session not in asked)
        self._arm()

    def take(self, answer: LeaseAnswer, sent_us: int) -> None:
        """Take an answer; its time counts from the sending of the question."""
        if answer.state is HolderState.ENDED:
            self._wires.told(self, answer.session, answer.asked)
        self.holder.answered(answer, type(self.boot_us)(sent_us))

    def _resume(self, question: LeaseQuestion, *, answered: bool) -> None:
        for request in self._waiting.pop(question.session, ()):
            if not answered:
                request.over("CONTROLLER_SILENT")
                continue
            verdict = self.judged(request)
            if verdict is Verdict.ASK and request.epoch <= question.epoch:
                request.over("LEASE_ENDED")
            elif verdict is Verdict.ASK:
                self._waiting.setdefault(request.session, []).append(request)
            elif verdict is Verdict.ADMIT:
                self._open(request)
            else:
                request.over(verdict.name)

    # -- the feed, and heartbeats

    def _follow(self) -> None:
        self._wires.follow(self, *self._place, self._followed)

    def _followed(self, page: Any) -> None:
        if page is None or page.term < self._place[0]:  # silence, or the voice of an earlier term
            self.after(POLL_AGAIN_US, self._follow)
            return
        for entry in page.entries:
            self.revoke(entry.session, entry.epoch)
        if page.reset or page.term > self._place[0]:
            self.holder.ask_about_all(self.boot_us)
            self._ask()
        self._place = (page.term, page.sequence)
        self._follow()

    def revoke(self, session: SessionId, epoch: Epoch) -> None:
        """End an epoch now."""
        self._wires.told(self, session, epoch)
        if self.holder.revoked(session, epoch):
            self._cut(session)

    def _report(self) -> None:
        """Say what sessions used; a batch that is not answered is sent again."""
        batch = self._meter.batch()
        if batch is None:
            self.after(USAGE_US, self._report)
            return

        def answered(taken: bool) -> None:
            if taken:
                self._meter.taken(batch)
            self.after(USAGE_US, self._report)

        self._wires.usage(self, f"{self.name}-{self.life}", batch, answered)

    def _heartbeat(self) -> None:
        self._wires.beat(self)
        self.after(HEARTBEAT_US, self._heartbeat)

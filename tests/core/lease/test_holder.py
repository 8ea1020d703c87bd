"""Laws of the lease holder: time only from answers, epochs only upwards, cuts never late."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import BootUs
from aipaging.core.lease.holder import (
    CLOCK_JUMP_US,
    NO_EPOCH,
    HolderState,
    HolderTerms,
    LeaseAnswer,
    LeaseHolder,
    LeaseQuestion,
    Verdict,
)

S = SessionId("11111111-1111-4111-8111-111111111111")
E1, E2, E3 = Epoch(1, 1), Epoch(1, 2), Epoch(2, 1)
EXACT = HolderTerms(drift_ppm=0)
MS = 1_000


def answer(asked: Epoch, remaining_ms: int, state: HolderState = HolderState.ACTIVE, current: Epoch | None = None):
    return LeaseAnswer(session=S, asked=asked, state=state, remaining_ms=remaining_ms, current=current or asked)


def granted(
    epoch: Epoch = E1, *, sent_us: int = 0, remaining_ms: int = 1000, terms: HolderTerms = EXACT
) -> LeaseHolder:
    holder = LeaseHolder(terms=terms)
    assert holder.sight(S, epoch, BootUs(sent_us)) is Verdict.ASK
    assert holder.questions(10) == [LeaseQuestion(session=S, epoch=epoch)]
    holder.answered(answer(epoch, remaining_ms), BootUs(sent_us))
    return holder


def test_at_first_sight_it_asks_once_whatever_the_receipt_says() -> None:
    holder = LeaseHolder()
    assert holder.sight(S, E1, BootUs(0)) is Verdict.ASK
    assert len(holder.questions(10)) == 1
    assert holder.sight(S, E1, BootUs(1)) is Verdict.ASK
    assert holder.questions(10) == []


def test_the_deadline_counts_from_the_sending_of_the_question_less_drift() -> None:
    holder = granted(sent_us=5_000, remaining_ms=1000, terms=HolderTerms(drift_ppm=1_000))
    end_us = 5_000 + 1_000_000 - 1_000
    assert holder.sight(S, E1, BootUs(end_us - 1)) is Verdict.ADMIT
    assert holder.sight(S, E1, BootUs(end_us)) is Verdict.ASK


def test_a_lower_epoch_is_fenced_as_soon_as_a_higher_one_was_seen() -> None:
    holder = granted(E1)
    assert holder.sight(S, E2, BootUs(1)) is Verdict.ASK
    assert holder.sight(S, E1, BootUs(2)) is Verdict.FENCED


def test_a_higher_epoch_on_this_anchor_is_adopted() -> None:
    holder = LeaseHolder(terms=EXACT)
    holder.sight(S, E1, BootUs(0))
    holder.questions(1)
    holder.answered(answer(E1, 1000, current=E3), BootUs(0))
    assert holder.sight(S, E1, BootUs(1)) is Verdict.FENCED
    assert holder.sight(S, E3, BootUs(1)) is Verdict.ADMIT
    assert not holder.must_cut(S, E1, BootUs(1)), "work in flight goes on under the session's new epoch"


def test_the_source_of_a_relocation_keeps_admitting_the_old_epoch_until_its_deadline() -> None:
    holder = granted(E1)
    holder.ask_about_all(BootUs(0))
    holder.questions(1)
    holder.answered(answer(E1, 500, HolderState.DRAINING, current=E2), BootUs(100_000))
    assert holder.sight(S, E1, BootUs(599_999)) is Verdict.ADMIT
    assert holder.live(BootUs(100_001)) == 0
    assert holder.sight(S, E1, BootUs(600_000)) is Verdict.ASK


def test_an_ended_epoch_does_not_revive_by_a_late_answer() -> None:
    holder = granted(E1)
    holder.ask_about_all(BootUs(0))
    holder.questions(1)
    assert holder.revoked(S, E1)
    holder.answered(answer(E1, 10_000), BootUs(1))
    assert holder.sight(S, E1, BootUs(2)) is Verdict.ENDED
    assert holder.must_cut(S, E1, BootUs(2))
    assert holder.state(S, BootUs(2)) is HolderState.ENDED


def test_an_older_answer_changes_nothing() -> None:
    holder = granted(E1, sent_us=1_000_000, remaining_ms=100)
    holder.answered(answer(E1, 60_000), BootUs(0))
    assert holder.sight(S, E1, BootUs(1_100_000)) is not Verdict.ADMIT


def test_an_answer_about_a_lower_epoch_than_asked_grants_nothing() -> None:
    holder = LeaseHolder()
    holder.sight(S, E2, BootUs(0))
    holder.questions(1)
    holder.answered(answer(E2, 1000, current=E1), BootUs(0))
    assert holder.sight(S, E2, BootUs(1)) is Verdict.ASK
    assert holder.sight(S, E1, BootUs(1)) is Verdict.FENCED


def test_open_work_has_the_lease_asked_about_before_half_of_what_remains() -> None:
    holder = granted(E1)
    assert holder.wake_at() is None, "nothing is asked for the sake of a session without work"
    holder.opened(S)
    wake_us = holder.wake_at()
    assert wake_us is not None
    assert wake_us < 500_000
    assert holder.advance(wake_us) == []
    assert holder.questions(1) == [LeaseQuestion(session=S, epoch=E1)]
    assert holder.wake_at() == 1_000_000


def test_without_an_answer_work_goes_on_to_the_known_deadline_and_is_cut_there() -> None:
    holder = granted(E1)
    holder.opened(S)
    now_us, asked, over = 0, 0, []
    while not over:
        wake_us = holder.wake_at()
        assert wake_us is not None
        assert wake_us > now_us
        now_us = wake_us
        over = holder.advance(wake_us)
        questions = holder.questions(1)
        asked += len(questions)
        holder.unanswered(questions, wake_us)
    assert (now_us, over) == (1_000_000, [S])
    assert asked > 3, "it kept asking"
    assert holder.must_cut(S, E1, BootUs(now_us))


def test_a_silent_controller_is_not_asked_for_every_request() -> None:
    holder = LeaseHolder(terms=EXACT)
    holder.sight(S, E1, BootUs(0))
    holder.unanswered(holder.questions(1), BootUs(10))
    assert holder.sight(S, E1, BootUs(11)) is Verdict.SILENT
    assert holder.sight(S, E1, BootUs(10 + EXACT.retry_us)) is Verdict.ASK


def test_a_suspend_drops_every_deadline_and_no_fence() -> None:
    holder = granted(E2)
    holder.opened(S)
    assert not holder.observe_clocks(BootUs(0), 0)
    assert not holder.observe_clocks(BootUs(500_000), 500_001)
    assert holder.observe_clocks(BootUs(600_000 + CLOCK_JUMP_US), 600_000)
    assert holder.must_cut(S, E2, BootUs(1))
    assert holder.sight(S, E2, BootUs(1)) is Verdict.ASK
    assert holder.sight(S, E1, BootUs(1)) is Verdict.FENCED
    assert not holder.observe_clocks(BootUs(700_000 + CLOCK_JUMP_US), 700_000), "one jump is reported once"


def test_sessions_are_bounded_and_only_ended_ones_make_room() -> None:
    terms = HolderTerms(drift_ppm=0, sessions_max=2)
    holder = granted(E1, terms=terms)
    second, third = SessionId("b"), SessionId("c")
    holder.sight(second, E1, BootUs(1))
    holder.questions(1)
    assert holder.sight(third, E1, BootUs(2)) is Verdict.FULL
    assert holder.sight(third, E1, BootUs(2_000_000)) is Verdict.ASK, "the first has expired by now"
    assert len(holder) == 2


def test_two_requests_of_new_sessions_in_one_second_sweep_once() -> None:
    holder = granted(E1, terms=HolderTerms(drift_ppm=0, sessions_max=1))
    assert holder.sight(SessionId("b"), E1, BootUs(1)) is Verdict.FULL
    assert holder.sight(SessionId("c"), E1, BootUs(2)) is Verdict.FULL
    assert holder.sight(SessionId("b"), E1, BootUs(1_000_001)) is Verdict.ASK


def test_work_that_ended_is_neither_cut_nor_asked_about() -> None:
    holder = granted(E1)
    holder.opened(S)
    holder.closed(S)
    assert holder.advance(BootUs(400_000)) == []
    assert holder.questions(1) == []
    assert holder.wake_at() is None
    with pytest.raises(AssertionError):
        holder.closed(S)


def test_a_wake_up_that_an_answer_made_early_asks_nothing() -> None:
    holder = granted(E1)
    holder.opened(S)
    holder.ask_about_all(BootUs(1))
    holder.questions(1)
    holder.answered(answer(E1, 10_000), BootUs(300_000))
    wake_us = holder.wake_at()
    assert wake_us is not None
    assert wake_us < 500_000
    assert holder.advance(wake_us) == []
    assert holder.questions(1) == []
    later_us = holder.wake_at()
    assert later_us is not None
    assert 500_000 < later_us < 5_300_000


def test_answers_about_nobody_change_nothing() -> None:
    holder = LeaseHolder()
    holder.answered(answer(E1, 1000), BootUs(0))
    holder.unanswered([LeaseQuestion(session=S, epoch=E1)], BootUs(0))
    assert not holder.revoked(S, E1)
    assert len(holder) == 0
    assert holder.state(S, BootUs(0)) is HolderState.UNKNOWN
    assert holder.must_cut(S, E1, BootUs(0))


def test_only_leases_that_last_are_asked_about() -> None:
    holder = granted(E1)
    holder.ask_about_all(BootUs(1_000_000))
    assert holder.questions(1) == []
    holder.ask_about_all(BootUs(1))
    assert len(holder.questions(1)) == 1
    holder.ask_about_all(BootUs(1))
    assert holder.questions(1) == [], "it is being asked about"


def test_a_revocation_of_an_older_epoch_leaves_the_present_one() -> None:
    holder = granted(E2)
    assert holder.revoked(S, E1)
    assert holder.state(S, BootUs(1)) is HolderState.ACTIVE
    assert holder.sight(S, E2, BootUs(1)) is Verdict.ADMIT


EPOCHS = [Epoch(t, n) for t in (1, 2) for n in (1, 2, 3)]
SESSIONS = [SessionId("a"), SessionId("b"), SessionId("c")]


class HolderLaws(RuleBasedStateMachine):
    """Whatever the order of sightings, answers, silence, revocations and time."""

    def __init__(self) -> None:
        super().__init__()
        self.holder = LeaseHolder(terms=HolderTerms(drift_ppm=500, sessions_max=50))
        self.now = 0
        self.seen: dict[SessionId, Epoch] = {}
        self.dead: dict[SessionId, Epoch] = {}
        self.latest_end: dict[tuple[SessionId, Epoch], int] = {}
        self.open: list[tuple[SessionId, Epoch]] = []
        self.under_way: list[tuple[LeaseQuestion, int]] = []

    @rule(session=st.sampled_from(SESSIONS), epoch=st.sampled_from(EPOCHS))
    def sight(self, session: SessionId, epoch: Epoch) -> None:
        verdict = self.holder.sight(session, epoch, BootUs(self.now))
        if verdict is Verdict.ADMIT:
            assert epoch >= self.seen.get(session, NO_EPOCH), "never a lower epoch"
            assert epoch > self.dead.get(session, NO_EPOCH), "never a dead epoch"
            assert self.now < self.latest_end[session, epoch], "never after sent + remaining"
            self.holder.opened(session)
            self.open.append((session, epoch))
        if epoch < self.seen.get(session, NO_EPOCH):
            assert verdict in {Verdict.FENCED, Verdict.ENDED}
        self.seen[session] = max(epoch, self.seen.get(session, NO_EPOCH))

    @rule(limit=st.integers(1, 3))
    def ask(self, limit: int) -> None:
        asked = self.holder.questions(limit)
        assert not {q.session for q in asked} & {q.session for q, _ in self.under_way}, "one question at a time"
        self.under_way += [(question, self.now) for question in asked]

    @precondition(lambda self: self.under_way)
    @rule(
        state=st.sampled_from([HolderState.ACTIVE, HolderState.DRAINING, HolderState.ENDED]),
        remaining_ms=st.integers(0, 2000),
        current=st.sampled_from(EPOCHS),
    )
    def answer(self, state: HolderState, remaining_ms: int, current: Epoch) -> None:
        question, sent = self.under_way.pop(0)
        session, asked = question.session, question.epoch
        self.holder.answered(
            LeaseAnswer(session=session, asked=asked, state=state, remaining_ms=remaining_ms, current=current),
            BootUs(sent),
        )
        if state is HolderState.ENDED:
            self.dead[session] = max(asked, self.dead.get(session, NO_EPOCH))
            return
        epoch = current if state is HolderState.ACTIVE else asked
        if epoch >= asked and epoch > self.dead.get(session, NO_EPOCH):
            self.seen[session] = max(self.seen[session], epoch)
            self.latest_end[session, epoch] = sent + remaining_ms * MS

    @precondition(lambda self: self.under_way)
    @rule()
    def silence(self) -> None:
        question, _ = self.under_way.pop(0)
        self.holder.unanswered([question], BootUs(self.now))

    @rule(session=st.sampled_from(SESSIONS), epoch=st.sampled_from(EPOCHS))
    def revoke(self, session: SessionId, epoch: Epoch) -> None:
        if self.holder.revoked(session, epoch):
            self.dead[session] = max(epoch, self.dead.get(session, NO_EPOCH))

    @rule(step_ms=st.integers(0, 700))
    def pass_time(self, step_ms: int) -> None:
        """Time passes as it does outside: the holder is woken when it asked for it."""
        until = self.now + step_ms * MS
        while (wake := self.holder.wake_at()) is not None and wake <= until:
            self.now = max(self.now, wake)
            for session in self.holder.advance(BootUs(self.now)):
                assert all(self.holder.must_cut(s, e, BootUs(self.now)) for s, e in self.open if s == session)
            self.cut()
        self.now = until

    @rule()
    def finish(self) -> None:
        if self.open:
            self.holder.closed(self.open.pop()[0])

    @rule(jump=st.booleans())
    def clocks(self, jump: bool) -> None:
        offset = getattr(self, "offset", 0) + (CLOCK_JUMP_US if jump else 0)
        self.holder.observe_clocks(BootUs(self.now + offset), self.now)
        self.offset = offset

    @invariant()
    def cut(self) -> None:
        """What must be cut is cut at once, as the adapter does after each of these calls."""
        for session, epoch in list(self.open):
            if self.holder.must_cut(session, epoch, BootUs(self.now)):
                self.open.remove((session, epoch))
                self.holder.closed(session)

    @invariant()
    def open_work_has_a_wake_up(self) -> None:
        wake = self.holder.wake_at()
        if self.open:
            assert wake is not None, "open work whose end nobody waits for"
            ends = [max(end for (s, _), end in self.latest_end.items() if s == session) for session, _ in self.open]
            assert wake <= min(ends), "woken only after a deadline"


HolderLaws.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
test_holder_laws = HolderLaws.TestCase

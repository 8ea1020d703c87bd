"""The engine under random commands and time, watched from outside.

Nothing here asks the engine what it believes: capacity is added up from the events, deadlines from the grants.
"""

import copy
from collections import defaultdict
from dataclasses import replace

from hypothesis import settings as profile
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId
from aipaging.core.foundation.time import MS, SECOND, WallUs
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging import events as e
from aipaging.core.paging import promise_events as p
from aipaging.core.paging.contract import found
from aipaging.core.paging.metering import requests_max
from aipaging.core.paging.records import event_of
from aipaging.core.paging.relocation_machine import RelocationCause, RelocationPhase
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.state import State
from aipaging.core.paging.step import evolve, step, wake_at
from aipaging.core.paging.tenancy_events import SessionsMetered
from aipaging.testing.world import ACCESS, ACCESS_TWO, World, accept, envelope, intent

TERMS = LeaseTerms(lease_ms=1_000, drift_ppm=1_000, grace_ms=200, drain_ms_max=700)
SETTINGS = Settings(lease=TERMS, lease_ms_max=2_000, anchor_lost_ms=2_500, kept_ms=5_000)
CAPACITY_MRPS = {"a": 50_000, "b": 50_000, "t": 50_000}


class EngineWalk(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize()
    def start(self) -> None:
        self.world = World.started(SETTINGS)

    def some_session(self, pick: int) -> SessionId | None:
        sessions = sorted(self.world.state.sessions)
        return sessions[pick % len(sessions)] if sessions else None

    def attempt(self, command: c.Command) -> None:
        """Try a command; a refused one must leave no trace. Deciding must not change the state."""
        before = encode_state(self.world.state)
        agenda = copy.deepcopy(self.world.state.queue)
        try:
            step(self.world.state, command, self.world.now)
        except AipagingError:
            assert encode_state(self.world.state) == before
            return
        assert encode_state(self.world.state) == before
        self.world.state.queue = agenda
        self.world.do(command)

    @rule(rate=st.sampled_from([1.0, 10.0, 25.0, 50.0]), duration_s=st.integers(1, 20), pinned=st.booleans())
    def page(self, rate: float, duration_s: int, pinned: bool) -> None:
        self.world.page(intent(rate_rps=rate, duration_s=duration_s, regions=("eu",) if pinned else ()))

    @rule(pick=st.integers(0, 50), cause=st.sampled_from(list(RelocationCause)))
    def relocate(self, pick: int, cause: RelocationCause) -> None:
        if (session := self.some_session(pick)) is not None:
            self.attempt(c.Relocate(session=session, cause=cause))

    @rule(pick=st.integers(0, 50))
    def end(self, pick: int) -> None:
        if (session := self.some_session(pick)) is not None:
            self.attempt(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))

    @rule(pick=st.integers(0, 50), seconds=st.integers(1, 30))
    def extend(self, pick: int, seconds: int) -> None:
        if (session := self.some_session(pick)) is not None:
            self.attempt(c.Extend(session=session, additional_s=seconds))

    @rule(pick=st.integers(0, 50), place=st.sampled_from([ACCESS, ACCESS_TWO]))
    def move(self, pick: int, place: DomainName) -> None:
        if (session := self.some_session(pick)) is not None:
            self.attempt(c.MoveClient(session=session, place=place))

    @rule(anchor=st.sampled_from("ab"), state=st.sampled_from([AnchorState.READY, AnchorState.DRAINING]))
    def operate(self, anchor: str, state: AnchorState) -> None:
        self.attempt(c.SetAnchorState(anchor=AnchorId(anchor), state=state, cause="OPERATOR"))

    @rule(anchor=st.sampled_from("ab"), state=st.sampled_from([AnchorState.READY, AnchorState.LOST]))
    def beat(self, anchor: str, state: AnchorState) -> None:
        self.attempt(c.Heartbeat(anchor=AnchorId(anchor), state=state))

    @rule(anchor=st.sampled_from("ab"), boot=st.sampled_from("xy"), batch=st.integers(1, 3), pick=st.integers(0, 50))
    def count(self, anchor: str, boot: str, batch: int, pick: int) -> None:
        """A sidecar says what it counted, in any order and again and again."""
        if (session := self.some_session(pick)) is not None:
            used = ((session, 1 + pick, 10 * pick),)
            self.attempt(c.MeterSessions(anchor=AnchorId(anchor), boot=boot, batch=batch, used=used))

    @rule(
        domain=st.sampled_from(["edge-one", "edge-two", "metro"]),
        offset_ms=st.sampled_from([5.0, 10.0, 240.0]),
        lasts_s=st.sampled_from([1, 3, 1_000_000]),
    )
    def measure(self, domain: str, offset_ms: float, lasts_s: int) -> None:
        """A domain promises something else, perhaps not for long."""
        sequence = self.world.state.catalogue.envelopes[DomainName(domain), ""].sequence + 1
        promised = envelope(domain, offset_ms=offset_ms, sequence=sequence)
        until_us = WallUs(self.world.now.wall_us + lasts_s * SECOND)
        self.attempt(accept(replace(promised, valid_until_us=until_us)))

    @rule(domain=st.sampled_from(["edge-one", "edge-two", "metro"]), clear=st.booleans())
    def doubt(self, domain: str, clear: bool) -> None:
        digest = self.world.state.catalogue.envelopes[DomainName(domain), ""].digest
        self.attempt(c.ClearEnvelope(digest=digest) if clear else c.SuspectEnvelope(digest=digest, reason="violated"))

    @rule(kept=st.integers(0, 3), broken=st.booleans())
    def answer_an_effect(self, kept: int, broken: bool) -> None:
        """One effect comes back, in any order, well or broken."""
        if not self.world.effects:
            return
        effect = self.world.effects.pop(kept % len(self.world.effects))
        if broken and isinstance(effect, x.PrepareTarget | x.SwitchSteering):
            self.world.do(c.RelocationBroken(session=effect.session, number=effect.number, message="broken"))
        elif broken and isinstance(effect, x.InstallSteering):
            self.world.do(c.SteeringFailed(session=effect.session, epoch=effect.epoch, message="broken"))
        else:
            self.world.carry_out(effect)

    @rule(ms=st.sampled_from([1, 50, 400, 1_000, 3_000]), all_beat=st.booleans())
    def pass_time(self, ms: int, all_beat: bool) -> None:
        self.world.advance(ms, beating=("a", "b", "t") if all_beat else ("a",), settle=False)

    @rule(ms=st.sampled_from([500, 1_500, 10_000]))
    def oversleep(self, ms: int) -> None:
        self.world.sleep(ms)

    @rule(away_ms=st.sampled_from([0, 5_000]))
    def restart(self, away_ms: int) -> None:
        """The controller dies; another boot rebuilds the state from the journal and begins a term."""
        rebuilt = State()
        for entry in self.world.entries:
            event = event_of(entry, rebuilt.sessions.__contains__)
            assert event is not None
            evolve(rebuilt, event)
        rebuilt.heard_us, rebuilt.entitled = self.world.state.heard_us, self.world.state.entitled
        assert encode_state(rebuilt) == encode_state(self.world.state)
        restored = decode_state(encode_state(rebuilt))
        assert restored is not None
        self.world.state = restored
        self.world.effects.clear()
        self.world.sleep(away_ms)
        self.world.do(c.StartTerm(settings=SETTINGS, software="test"))

    @invariant()
    def capacity_is_never_sold_twice(self) -> None:
        granted: dict[tuple[str, Epoch], tuple[str, int]] = {}
        over: set[tuple[str, Epoch]] = set()
        for event in self.world.events:
            match event:
                case e.CommitGranted():
                    granted[event.session, event.epoch] = (event.anchor, event.rate_mrps)
                case e.CommitRevoked() | e.CommitExpired():
                    over.add((event.session, event.epoch))
                case e.LeasesRegranted():
                    for regrant in event.regrants:
                        old = next(
                            (session, epoch)
                            for (session, epoch), (anchor, _) in granted.items()
                            if (session, anchor) == (regrant.session, regrant.anchor) and (session, epoch) not in over
                        )
                        granted[regrant.session, regrant.epoch] = granted.pop(old)
                case e.ReservationReleased():
                    del granted[event.session, event.epoch]
                case _:
                    pass
        held: dict[str, dict[str, int]] = defaultdict(dict)
        for (session, _), (anchor, rate) in granted.items():
            held[anchor][session] = rate
        for anchor, rates in held.items():
            assert sum(rates.values()) <= CAPACITY_MRPS[anchor]
            assert self.world.state.ledger.anchor_mrps(AnchorId(anchor)) == sum(rates.values())

    @invariant()
    def no_batch_is_counted_twice_and_no_session_beyond_its_contract(self) -> None:
        batches: set[tuple[str, str, int]] = set()
        requests: dict[str, int] = defaultdict(int)
        for event in self.world.events:
            if isinstance(event, SessionsMetered):
                batch = (event.metered[0].anchor, event.boot, event.batch)
                assert batch not in batches
                batches.add(batch)
                for each in event.metered:
                    requests[each.session] += each.requests
        for session in self.world.state.sessions.values():
            assert requests[session.session] == session.metered <= requests_max(session)

    @invariant()
    def epochs_only_rise(self) -> None:
        highest: dict[str, Epoch] = {}
        for event in self.world.events:
            epochs = (
                [(event.session, event.epoch)] if isinstance(event, e.CommitGranted)
                else [(r.session, r.epoch) for r in event.regrants] if isinstance(event, e.LeasesRegranted)
                else []
            )  # fmt: skip
            for session, epoch in epochs:
                assert epoch > highest.get(session, Epoch(0, 0))
                highest[session] = epoch

    @invariant()
    def a_session_that_is_available_has_a_lease_that_was_not_revoked(self) -> None:
        for session in self.world.state.sessions.values():
            if session.available:
                assert any(lease.live for lease in session.leases)

    @invariant()
    def a_switch_follows_a_live_target(self) -> None:
        phases: dict[tuple[str, int], list[RelocationPhase]] = defaultdict(list)
        for event in self.world.events:
            if isinstance(event, e.RelocationAdvanced):
                phases[event.session, event.number].append(event.phase)
        order = list(RelocationPhase)
        for path in phases.values():
            assert path == sorted(path, key=order.index)
            assert not {RelocationPhase.FAILED, RelocationPhase.SWITCHED} <= set(path)

    @invariant()
    def what_is_promised_is_provable_or_the_client_was_told(self) -> None:
        """Where nothing is due, every AVAILABLE session carries the bound that holds now, or is degraded."""
        state, now = self.world.state, self.world.now
        due_us = wake_at(state)
        if due_us is not None and due_us <= now.boot_us + 2 * MS:
            return  # one wake may still come
        for session in state.sessions.values():
            if session.available and session.lease is not None:
                finding = found(state, session, now)
                assert session.degraded == (finding.rejection is not None), (finding, session.contract)
                if finding.candidate is not None and finding.rejection is None:
                    bound = (finding.candidate.bound, finding.candidate.envelopes)
                    assert (session.lease.bound, session.lease.envelopes) == bound

    @invariant()
    def every_change_of_a_contract_is_told_once(self) -> None:
        told: dict[str, str] = {}
        for event in self.world.events:
            if isinstance(event, p.SessionDegraded):
                assert told.get(event.session) != event.constraint
                told[event.session] = event.constraint
            elif isinstance(event, p.SessionRestored):
                assert told.pop(event.session)
        for session in self.world.state.sessions.values():
            assert session.degraded == (session.session in told)

    def teardown(self) -> None:
        """The auditor, who shares no code with the engine, reads the evidence of the whole walk."""
        verifier = Verifier()
        for entry in self.world.entries:
            verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
        verdict = verifier.verdict()
        assert verdict.first_bad is None, verdict.first_bad
        assert verdict.invariants_ok


TestEngineWalk = EngineWalk.TestCase
TestEngineWalk.settings = profile(max_examples=60, stateful_step_count=40, deadline=None)

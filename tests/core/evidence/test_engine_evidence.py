"""What the engine writes, judged by the verifier: two programs that share only the contract."""

import random

import pytest

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.names import AnchorId, GatewayId
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.testing.world import ACCESS, ACCESS_TWO, World, intent

TERMS = LeaseTerms(lease_ms=1_000, drift_ppm=1_000, grace_ms=200, drain_ms_max=700)
SETTINGS = Settings(lease=TERMS, lease_ms_max=1_000, anchor_lost_ms=2_500, kept_ms=5_000)
SHORTER = Settings(
    lease=LeaseTerms(lease_ms=400, drift_ppm=1_000, grace_ms=200, drain_ms_max=300),
    lease_ms_max=400,
    anchor_lost_ms=2_500,
    kept_ms=5_000,
)
"""What an operator may restart with: what was promised before must be reckoned with all the same."""


class Walk:
    """Random commands, answers, faults, restarts, and pauses in which the controller sleeps through everything."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.world = World.started(SETTINGS)
        self.moves = (self.page, self.page, self.page, self.relocate, self.end, self.move, self.operate, self.beat,
                      self.install, self.answer, self.restart, self.oversleep)  # fmt: skip

    def attempt(self, command: c.Command) -> None:
        try:
            self.world.do(command)
        except AipagingError as error:
            if error.code == "LEDGER_BROKEN":  # anything else is a refusal
                raise

    def session(self) -> str:
        return self.dice.choice(sorted(self.world.state.sessions) or ["none"])

    def page(self) -> None:
        rate = self.dice.choice([1.0, 10.0, 25.0])
        self.world.page(intent(rate_rps=rate, duration_s=self.dice.randint(2, 30)))

    def relocate(self) -> None:
        self.attempt(c.Relocate(session=self.session(), cause=self.dice.choice(list(RelocationCause))))

    def end(self) -> None:
        if self.dice.random() < 0.4:
            self.attempt(c.End(session=self.session(), status_info=StatusInfo.DELETE_REQUESTED))

    def move(self) -> None:
        self.attempt(c.MoveClient(session=self.session(), place=self.dice.choice([ACCESS, ACCESS_TWO])))

    def operate(self) -> None:
        state = self.dice.choice([AnchorState.READY, AnchorState.DRAINING])
        self.attempt(c.SetAnchorState(anchor=AnchorId(self.dice.choice("ab")), state=state, cause="OPERATOR"))

    def beat(self) -> None:
        if self.dice.random() < 0.3:
            state = self.dice.choice([AnchorState.READY, AnchorState.LOST])
            self.attempt(c.Heartbeat(anchor=AnchorId(self.dice.choice("ab")), state=state))

    def install(self) -> None:
        session = self.world.state.sessions.get(self.session())
        if session is not None and session.lease is not None:
            lease = session.lease
            self.attempt(
                c.ConfirmInstalled(
                    session=session.session, anchor=lease.anchor, epoch=lease.epoch, gateway=GatewayId("gateway")
                )
            )

    def answer(self) -> None:
        if not self.world.effects:
            return
        effect = self.world.effects.pop(self.dice.randrange(len(self.world.effects)))
        if self.dice.random() < 0.3 and isinstance(effect, x.PrepareTarget | x.SwitchSteering):
            self.world.do(c.RelocationBroken(session=effect.session, number=effect.number, message="broken"))
        else:
            self.world.carry_out(effect)

    def restart(self) -> None:
        if self.dice.random() < 0.2:
            self.world.effects.clear()
            self.world.sleep(self.dice.choice([0, 5_000]))
            self.world.do(c.StartTerm(settings=self.dice.choice([SETTINGS, SHORTER]), software="test"))

    def oversleep(self) -> None:
        if self.dice.random() < 0.3:
            self.world.sleep(self.dice.choice([500, 1_500, 10_000]))

    def run(self, moves: int) -> None:
        for _ in range(moves):
            self.dice.choice(self.moves)()
            if self.dice.random() < 0.4:
                self.world.settle()
            beating = ("a", "b", "t") if self.dice.random() < 0.9 else ("a",)
            self.world.advance(self.dice.choice([1, 50, 400, 1_000]), beating=beating, settle=self.dice.random() < 0.6)


@pytest.mark.parametrize("seed", range(20))
def test_what_the_engine_writes_keeps_the_invariants(seed: int) -> None:
    walk = Walk(seed)
    walk.run(120)
    verifier = Verifier()
    for entry in walk.world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    verdict = verifier.verdict()
    assert verdict.ok, verdict.first_bad
    assert verdict.sessions > 0

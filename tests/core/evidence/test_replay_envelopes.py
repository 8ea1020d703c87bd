"""The auditor on promises: which histories of envelopes and contracts it accepts, and which it does not."""

from collections.abc import Callable
from typing import Any

import pytest

from aipaging.core.evidence.finding import Finding, Invariant
from aipaging.core.evidence.replay import Replay
from aipaging.core.foundation.time import SECOND

LEASE_MS_MAX = 2_000
ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)
SESSION = "s"


class Log:
    """Records of one session, fed one after the other."""

    def __init__(self) -> None:
        self.replay = Replay()
        self.now_us = SECOND
        self.seq = 0
        self.say(
            "TERM_STARTED", previous_term=0, drift_ppm=0, grace_ms=0, drain_ms_max=1_000, lease_ms_max=LEASE_MS_MAX,
            software="test",
        )  # fmt: skip
        self.say("DOMAIN_REGISTERED", domain="d", kind="compute", capacity_mrps=0, digest=ONE)
        self.say("ANCHOR_REGISTERED", anchor="a", domain="d", aisi="aisi://o/s/v", capacity_mrps=10_000)

    def say(self, record_type: str, leaves: tuple[dict[str, Any], ...] = (), **fields: Any) -> None:
        record = {
            **fields, "v": 1, "seq": self.seq, "type": record_type, "node": "n", "boot": "b", "term": 1,
            "wall_us": self.now_us, "boot_us": self.now_us, "prev": ONE,
        }  # fmt: skip
        self.seq += 1
        self.replay.feed(record, leaves)

    def accept(self, digest: str, sequence: int, *, lasts_s: int = 1_000, domain: str = "d") -> None:
        self.say(
            "ENVELOPE_ACCEPTED", domain=domain, segment="", digest=digest, sequence=sequence, valid_from_us=0,
            valid_until_us=self.now_us + lasts_s * SECOND, key_id="k",
        )  # fmt: skip

    def doubt(self, digest: str, *, clear: bool = False) -> None:
        if clear:
            self.say("ENVELOPE_CLEARED", domain="d", segment="", digest=digest)
        else:
            self.say("ENVELOPE_SUSPECTED", domain="d", segment="", digest=digest, reason="r")

    def page(self, digest: str, *, bound: str = "1.0e-4") -> None:
        self.say("SESSION_REQUESTED", session=SESSION, tenant="t", client="c", aisi="x", duration_ms=1)
        self.say(
            "COMMIT_GRANTED", session=SESSION, tenant="t", aisi="x", anchor="a", domains="d", epoch_term=1, epoch_n=1,
            lease_ms=LEASE_MS_MAX, rate_mrps=1, burst=1, delay_us=1, epsilon="0.001", epsilon_bound=bound, rung="r",
            assumptions="", envelopes=digest, cause="PAGED",
        )  # fmt: skip

    def rebind(self, digest: str, *, bound: str = "1.0e-4", n: int = 1) -> None:
        self.say(
            "COMMIT_REBOUND", session=SESSION, epoch_term=1, epoch_n=n, epsilon_bound=bound, rung="r", assumptions="",
            envelopes=digest,
        )  # fmt: skip

    def renew(self, *, times: int = 1) -> None:
        for renewal in range(1, times + 1):
            self.now_us += SECOND
            leaf = {"session": SESSION, "epoch_term": 1, "epoch_n": 1, "renewal": renewal, "lease_ms": LEASE_MS_MAX}
            self.say("LEASES_RENEWED", (leaf,), count=1, root=ONE)

    def degrade(self, constraint: str = "DELAY") -> None:
        self.say("SESSION_DEGRADED", session=SESSION, constraint=constraint)

    def restore(self) -> None:
        self.say("SESSION_RESTORED", session=SESSION)

    @property
    def finding(self) -> Finding | None:
        return self.replay.finding


def kept(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.accept(TWO, 2)
    log.rebind(TWO)
    log.renew(times=10)


def told(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.doubt(ONE)
    log.degrade()
    log.degrade("ENVELOPE")
    log.renew(times=10)
    log.doubt(ONE, clear=True)
    log.restore()


def in_time(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.accept(TWO, 2)
    log.renew()


@pytest.mark.parametrize("history", [kept, told, in_time])
def test_an_honest_history_is_accepted(history: Callable[[Log], None]) -> None:
    log = Log()
    history(log)
    assert log.finding is None, log.finding


def superseded_silently(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.accept(TWO, 2)
    log.renew(times=10)


def suspected_silently(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.doubt(ONE)
    log.renew(times=10)


def expired_silently(log: Log) -> None:
    log.accept(ONE, 1, lasts_s=3)
    log.page(ONE)
    log.renew(times=10)


def under_a_superseded_one(log: Log) -> None:
    log.accept(ONE, 1)
    log.accept(TWO, 2)
    log.page(ONE)


def under_a_suspect_one(log: Log) -> None:
    log.accept(ONE, 1)
    log.doubt(ONE)
    log.page(ONE)


def under_an_expired_one(log: Log) -> None:
    log.accept(ONE, 1, lasts_s=0)
    log.page(ONE)


def under_an_unknown_one(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(THREE)


def above_epsilon(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE, bound="1.1e-3")


def rebound_above_epsilon(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.accept(TWO, 2)
    log.rebind(TWO, bound="2.0e-3")


def degraded_twice(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.degrade()
    log.degrade()


def restored_for_nothing(log: Log) -> None:
    log.accept(ONE, 1)
    log.page(ONE)
    log.restore()


def rolled_back(log: Log) -> None:
    log.accept(TWO, 2)
    log.accept(ONE, 1)


def cleared_for_nothing(log: Log) -> None:
    log.accept(ONE, 1)
    log.doubt(ONE, clear=True)


def suspected_and_not_in_force(log: Log) -> None:
    log.doubt(ONE)


@pytest.mark.parametrize(
    "history",
    [
        superseded_silently,
        suspected_silently,
        expired_silently,
        under_a_superseded_one,
        under_a_suspect_one,
        under_an_expired_one,
        under_an_unknown_one,
        above_epsilon,
        rebound_above_epsilon,
        degraded_twice,
        restored_for_nothing,
        rolled_back,
        cleared_for_nothing,
        suspected_and_not_in_force,
    ],
)
def test_a_promise_that_was_broken_silently_is_found(history: Callable[[Log], None]) -> None:
    log = Log()
    history(log)
    assert log.finding is not None
    assert log.finding.invariant is Invariant.CONTRACT

"""Short logs written by hand: what the random histories do not show."""

import pytest

from aipaging.core.evidence.finding import Invariant, Verdict
from aipaging.core.evidence.log import EMPTY_LOG, Sealer
from aipaging.core.evidence.merkle import leaf_hash, tree_root
from aipaging.core.evidence.record import Draft, Fields
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.canonical import canonical_json
from aipaging.core.foundation.time import BootUs, Now, WallUs

DIGEST = "ab" * 32
MS = 1_000


class Script:
    """A log as it is written, line by line."""

    def __init__(self) -> None:
        self.sealer = Sealer("node", "boot", EMPTY_LOG)
        self.verifier = Verifier()
        self.term = 0
        self.us = 0
        self.start_term()
        self.say("DOMAIN_REGISTERED", domain="core", kind="transport", capacity_mrps=0, digest=DIGEST)
        for anchor in ("a", "b"):
            self.say("ANCHOR_REGISTERED", anchor=anchor, domain="core", aisi="aisi://o/s/v", capacity_mrps=2_000)

    def say(self, record_type: str, leaves: tuple[Fields, ...] = (), **fields: str | int) -> None:
        now = Now(boot_us=BootUs(self.us), wall_us=WallUs(1_790_000_000_000_000 + self.us))
        (entry,) = self.sealer.seal([Draft(type=record_type, fields=fields, leaves=leaves)], term=self.term, now=now)
        self.verifier.feed(entry.record, leaves=entry.leaves)

    def start_term(self) -> None:
        self.term += 1
        self.say(
            "TERM_STARTED", previous_term=self.term - 1, drift_ppm=1_000, grace_ms=100, drain_ms_max=500,
            lease_ms_max=2_000, software="test",
        )  # fmt: skip

    def request(self, session: str) -> None:
        self.say(
            "SESSION_REQUESTED", session=session, tenant="t", client="c", aisi="aisi://o/s/v", duration_ms=1,
            intent_commitment=DIGEST,
        )  # fmt: skip

    def refuse(self, session: str) -> None:
        self.say(
            "SESSION_REFUSED", session=session, tenant="t", client="c", constraint="CAPACITY", candidates=0,
            policies="", intent_commitment=DIGEST,
        )  # fmt: skip

    def grant(self, session: str, anchor: str, n: int, *, cause: str = "PAGED", rate: int = 1_000) -> None:
        self.say(
            "COMMIT_GRANTED", session=session, tenant="t", aisi="aisi://o/s/v", anchor=anchor, domains="core",
            epoch_term=self.term, epoch_n=n, lease_ms=1_000, rate_mrps=rate, burst=1, delay_us=1, epsilon="0.1",
            epsilon_bound="0.1", rung="x", envelopes=DIGEST, cause=cause,
        )  # fmt: skip

    def regrant(self, session: str, *anchors: tuple[str, int]) -> None:
        leaves = tuple(
            {"session": session, "anchor": anchor, "epoch_term": self.term, "epoch_n": n, "lease_ms": 1_000}
            for anchor, n in anchors
        )
        self.say("LEASES_REGRANTED", leaves)

    def about(self, record_type: str, session: str, term: int, n: int, **fields: str | int) -> None:
        self.say(record_type, session=session, epoch_term=term, epoch_n=n, **fields)

    def relocate(self, session: str, *phases: str, cause: str = "OPERATOR", target: str = "b") -> None:
        for phase in phases:
            at = "" if phase == "DETECTED" else target
            self.say(f"RELOCATION_{phase}", session=session, relocation="1", cause=cause, source="a", target=at)

    def verdict(self) -> Verdict:
        return self.verifier.verdict()


@pytest.fixture
def log() -> Script:
    return Script()


def broken(log: Script) -> Invariant:
    verdict = log.verdict()
    assert verdict.first_bad is not None
    assert verdict.first_bad.seq == verdict.records - 1, "the last line is the wrong one"
    return verdict.first_bad.invariant


def test_a_requested_session_may_be_refused_and_not_granted_afterwards(log: Script) -> None:
    log.request("s")
    log.refuse("s")
    assert log.verdict().sessions == 1
    log.grant("s", "a", 1)
    assert broken(log) is Invariant.SESSION


def test_a_removed_anchor_that_is_registered_again_may_be_sold_to_its_new_capacity(log: Script) -> None:
    log.say("ANCHOR_STATE_CHANGED", anchor="a", state="REMOVED", cause="")
    log.say("ANCHOR_REGISTERED", anchor="a", domain="core", aisi="aisi://o/s/v", capacity_mrps=1_000)
    log.request("s")
    log.grant("s", "a", 1)
    assert log.verdict().ok
    log.request("other")
    log.grant("other", "a", 1)
    assert broken(log) is Invariant.CAPACITY


def test_capacity_that_shrinks_below_what_is_sold_is_not_sold_again(log: Script) -> None:
    log.request("s")
    log.grant("s", "a", 1, rate=1_500)
    log.say("ANCHOR_REGISTERED", anchor="a", domain="core", aisi="aisi://o/s/v", capacity_mrps=1_000)
    log.grant("s", "a", 2, cause="RECOVERY", rate=1_500)
    assert log.verdict().ok, "the session holds that rate already"
    log.request("other")
    log.grant("other", "a", 1, rate=1)
    assert broken(log) is Invariant.CAPACITY


def test_one_session_counts_once_until_its_last_epoch_is_released(log: Script) -> None:
    log.request("s")
    log.grant("s", "a", 1, rate=2_000)
    log.us += 1_000 * MS
    log.about("COMMIT_EXPIRED", "s", 1, 1)
    log.grant("s", "a", 2, cause="RECOVERY", rate=2_000)
    log.us += 101 * MS
    log.about("RESERVATION_RELEASED", "s", 1, 1, anchor="a")
    assert log.verdict().ok
    log.request("other")
    log.grant("other", "a", 1, rate=1)
    assert broken(log) is Invariant.CAPACITY


@pytest.mark.parametrize("early_us", [0, 1])
def test_release_is_judged_to_the_microsecond(log: Script, early_us: int) -> None:
    log.request("s")
    log.grant("s", "a", 1)
    log.us += 1_001 * MS + 100 * MS - early_us  # lease, drift of 0.1 %, grace
    log.about("RESERVATION_RELEASED", "s", 1, 1, anchor="a")
    assert log.verdict().ok == (not early_us)


@pytest.mark.parametrize("early_us", [0, 1])
def test_release_after_a_restart_waits_for_the_longest_lease(log: Script, early_us: int) -> None:
    log.request("s")
    log.grant("s", "a", 1)
    log.us = 5  # the new boot's clock began anew
    log.start_term()
    log.us += 2_002 * MS + 100 * MS - early_us
    log.about("RESERVATION_RELEASED", "s", 1, 1, anchor="a")
    assert log.verdict().ok == (not early_us)


@pytest.mark.parametrize("late_us", [0, 1])
def test_steering_is_judged_to_the_microsecond(log: Script, late_us: int) -> None:
    log.request("s")
    log.grant("s", "a", 1)
    log.us += 1_000 * MS + late_us
    log.about("STEER_INSTALLED", "s", 1, 1, anchor="a", gateway="g")
    assert log.verdict().ok == (not late_us)


def relocating(log: Script) -> None:
    log.request("s")
    log.grant("s", "a", 1)
    log.relocate("s", "DETECTED", "DECIDED")


def test_a_relocation_goes_on_after_a_restart_that_granted_both_ends_anew(log: Script) -> None:
    relocating(log)
    log.grant("s", "b", 2, cause="RELOCATION")
    log.start_term()
    log.regrant("s", ("a", 3), ("b", 4))
    log.relocate("s", "TARGET_PREPARED", "SWITCHED")
    assert log.verdict().ok


def test_a_relocation_does_not_go_on_when_its_target_was_not_granted_anew(log: Script) -> None:
    relocating(log)
    log.grant("s", "b", 2, cause="RELOCATION")
    log.start_term()
    log.regrant("s", ("a", 3))
    log.relocate("s", "TARGET_PREPARED")
    assert broken(log) is Invariant.RELOCATION


def test_a_target_is_not_prepared_before_it_is_granted(log: Script) -> None:
    relocating(log)
    log.relocate("s", "TARGET_PREPARED")
    assert broken(log) is Invariant.RELOCATION


def test_mobility_may_end_at_the_anchor_where_it_began(log: Script) -> None:
    log.request("s")
    log.grant("s", "a", 1)
    log.relocate("s", "DETECTED", "DECIDED", cause="MOBILITY", target="a")
    log.grant("s", "a", 2, cause="RELOCATION")
    log.relocate("s", "TARGET_PREPARED", "SWITCHED", cause="MOBILITY", target="a")
    log.about("COMMIT_DRAINING", "s", 1, 1, drain_ms=500)
    log.about("STEER_INSTALLED", "s", 1, 2, anchor="a", gateway="g")
    assert log.verdict().ok
    log.about("STEER_INSTALLED", "s", 1, 1, anchor="a", gateway="g")
    assert broken(log) is Invariant.RELOCATION


def test_a_lost_source_excuses_that_it_does_not_serve(log: Script) -> None:
    relocating(log)
    log.grant("s", "b", 2, cause="RELOCATION")
    log.about("COMMIT_REVOKED", "s", 1, 1, cause="ANCHOR_LOST")
    log.relocate("s", "TARGET_PREPARED")
    log.say("ANCHOR_STATE_CHANGED", anchor="a", state="LOST", cause="HEARTBEATS_MISSED")
    log.relocate("s", "SWITCHED")
    assert log.verdict().ok


def test_the_source_serves_again_after_a_failed_relocation(log: Script) -> None:
    relocating(log)
    log.grant("s", "b", 2, cause="RELOCATION")
    log.relocate("s", "TARGET_PREPARED", "FAILED")
    log.about("COMMIT_REVOKED", "s", 1, 2, cause="RELOCATION_FAILED")
    log.about("COMMIT_REVOKED", "s", 1, 1, cause="RELOCATION_FAILED")
    log.grant("s", "a", 3, cause="RELOCATION_FAILED")
    log.about("STEER_INSTALLED", "s", 1, 3, anchor="a", gateway="g")
    assert log.verdict().ok


def test_what_reconciliation_removes_need_not_be_known(log: Script) -> None:
    log.about("STEER_REMOVED", "unknown", 1, 1, gateway="g", cause="RECONCILED")
    log.say("SESSION_FORGOTTEN", session="unknown")
    assert log.verdict().ok


def test_a_log_that_does_not_begin_with_a_term_is_caught() -> None:
    sealer = Sealer("node", "boot", EMPTY_LOG)
    now = Now(boot_us=BootUs(0), wall_us=WallUs(0))
    (entry,) = sealer.seal([Draft(type="SESSION_FORGOTTEN", fields={"session": "s"})], term=1, now=now)
    verifier = Verifier()
    verifier.feed(entry.record)
    assert verifier.verdict().first_bad.invariant is Invariant.EPOCHS


@pytest.mark.parametrize("leaf", [b"\xff", b"[]", b'{"session":1}'])
def test_leaves_that_cannot_be_read_are_caught_though_their_root_fits(log: Script, leaf: bytes) -> None:
    head = log.sealer.head
    record = canonical_json(
        {
            "v": 1, "seq": head.seq, "type": "LEASES_RENEWED", "node": "node", "boot": "boot", "term": 1, "wall_us": 1,
            "boot_us": 0, "prev": head.prev, "count": 1, "root": tree_root([leaf_hash(leaf)]).hex(),
        }
    )  # fmt: skip
    log.verifier.feed(record, leaves=(leaf,))
    verdict = log.verdict()
    assert (verdict.chain_ok, verdict.invariants_ok) == (True, False)
    assert verdict.first_bad.invariant is Invariant.SCHEMA

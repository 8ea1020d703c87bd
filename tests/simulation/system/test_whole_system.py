"""The whole system from seeds: unmutated code passes, planted bugs are found, a seed is a run."""

import json
from collections import Counter

import pytest
from click.testing import CliRunner

from aipaging.apps.simulate.system import system
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.system.campaign import Campaign, outcomes
from aipaging.simulation.system.mutants import MUTANTS, mutant_of
from aipaging.simulation.system.schedule import FAMILIES, families_of, schedule
from aipaging.testing.system_parts import real_parts

REGRESSIONS = (54, 92, 127, 156, 302, 486, 1533, 1697, 2043, 2283, 2424)
"""Seeds that found something once; see the track record in docs/background/whole-system-simulation.md."""

KILLING_SEED = {
    "sidecar-takes-any-epoch": 19,
    "renewal-without-fencing": 0,
    "term-stays": 2,
    "lease-from-the-answer": 7,
    "no-drift-margin": 0,
    "sidecar-times-from-a-receipt": 13,
    "cache-survives-suspend": 37,
    "used-when-silent": 7,
    "streams-never-cut": 0,
    "renewed-after-expiry": 22,
    "freed-at-the-deadline": 0,
    "freed-on-revocation": 0,
    "not-held-over-terms": 2,
    "sold-twice": 0,
    "source-released-first": 0,
    "drains-for-ever": 0,
    "switched-unprepared": 0,
    "before-the-sync": 0,
    "reads-do-not-wait": 1,
    "deposed-leader-answers": 2,
    "take-up-not-recorded": 0,
    "revocation-not-recorded": 2,
    "list-replaced": 17,
    "answer-not-judged": 3,
    "fence-not-pushed": 2,
    "any-bound": 3,
    "token-of-the-grant": 50,
    "reconcile-overtakes": 54,
    "counted-again": 22,
    "sessions-not-counted": 1,
    "spending-not-counted": 3,
    "kill-leaves-anchors": 0,
    "entitled-for-ever": 5,
    "equals-displace": 2,
    "envelope-of-before": 0,
    "domain-sold-twice": 0,
    "revocation-ignored": 29,
    "sidecar-from-the-answer": 0,
    "silence-extends": 4,
    "torn-batch-kept": 5,
    "snapshot-without-counts": 5,
}
"""By mutant: a seed that finds it, tried first. Seeds depend on every throw before: after a change, others may."""


def test_the_system_as_it_is_keeps_every_invariant() -> None:
    found = [(o.seed, str(o.found)) for o in outcomes(Campaign(parts=real_parts), range(40)) if o.found is not None]
    assert found == []


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_found_something_once_finds_nothing_now(seed: int) -> None:
    campaign = Campaign(parts=real_parts)
    assert campaign.ran(campaign.plan(seed)).found is None


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_thousand_seeds_keep_every_invariant() -> None:
    found = [(o.seed, str(o.found)) for o in outcomes(Campaign(parts=real_parts), range(1000)) if o.found is not None]
    assert found == []


GOVERNING_SEEDS = {29: ("tenancy", "disk"), 179: ("tenancy", "disk")}
"""Seeds that found something under families that were asked for; see there too."""


@pytest.mark.parametrize("seed", GOVERNING_SEEDS)
def test_a_seed_of_a_family_that_found_something_once_finds_nothing_now(seed: int) -> None:
    campaign = Campaign(parts=real_parts, families=GOVERNING_SEEDS[seed])
    assert campaign.ran(campaign.plan(seed)).found is None


def test_quotas_policies_switches_and_counts_under_faults_break_nothing() -> None:
    campaign = Campaign(parts=real_parts, families=("tenancy", "network", "crash"))
    ran = list(outcomes(campaign, range(6)))
    assert [(o.seed, str(o.found)) for o in ran if o.found is not None] == []


REACHED = {
    "cut", "slow", "loss", "overtaking", "message not over a cut", "message lost", "message doubled", "message slow",
    "stream held by a cut", "crash", "reboot", "restart-gateway", "restart-sidecar", "sidecar-down", "unhealthy",
    "disk-full", "disk-failing", "disk-slow", "append JOURNAL_FULL", "append JOURNAL_IO", "append JOURNAL_LOCKED",
    "batch lost", "jump", "suspended", "paused", "deadlines dropped after suspend", "backup restored", "takeover",
    "recovered from a snapshot", "anchor told of an end", "controller gave up", "move", "relocate", "drain", "tenant",
    "entitle", "policies", "kill", "settings",
}  # fmt: skip
"""What the usual families have to meet among a hundred seeds, each."""


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_every_kind_of_fault_meets_something() -> None:
    reached: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for outcome in outcomes(Campaign(parts=real_parts), range(100)):
        reached.update(outcome.reached)
        kinds.update(outcome.kinds)
    assert not REACHED - set(reached)
    governing = {"SPEND_CHARGED", "SWITCH_KILLED", "POLICY_APPLIED", "SESSION_PREEMPTED", "ROOM_CLAIMED",
                 "SESSIONS_METERED", "SETTINGS_CHANGED", "COMMIT_REBOUND"}  # fmt: skip
    assert not governing - set(kinds)


def test_a_batch_that_is_torn_was_never_stored() -> None:
    campaign = Campaign(parts=real_parts, families=("disk", "crash"))
    ran = list(outcomes(campaign, range(4, 12)))
    assert sum(o.reached.get("batch torn", 0) for o in ran), "no machine died over a batch"
    assert [(o.seed, str(o.found)) for o in ran if o.found is not None] == []


def test_clocks_that_drift_beyond_what_is_assumed_do_no_more_harm_than_their_excess() -> None:
    campaign = Campaign(parts=real_parts, families=("drift", "network"))
    found = [(o.seed, str(o.found)) for o in outcomes(campaign, range(8)) if o.found is not None]
    assert found == []


def test_classes_that_displace_one_another_break_nothing() -> None:
    quiet = Campaign(parts=real_parts, families=("preemption",))
    ran = list(outcomes(quiet, range(4)))
    assert [(o.seed, str(o.found)) for o in ran if o.found is not None] == []
    asked = sum(quiet.plan(seed).pages for seed in range(4))
    assert sum(o.pages for o in ran) > asked, "pages are asked again, for room was made for them"
    faulty = Campaign(parts=real_parts, families=("preemption", "network", "crash"))
    assert [(o.seed, str(o.found)) for o in outcomes(faulty, range(4, 8)) if o.found is not None] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_found(name: str) -> None:
    campaign = Campaign(parts=real_parts, mutant=name)
    seeds = (KILLING_SEED[name], *range(MUTANTS[name].seeds_end))
    assert any(campaign.ran(campaign.plan(seed)).found is not None for seed in seeds), f"{name} survives"
    assert KILLING_SEED[name] < MUTANTS[name].seeds_end


def test_one_seed_is_one_run() -> None:
    campaign = Campaign(parts=real_parts)
    first, again, other = (campaign.ran(campaign.plan(seed)) for seed in (7, 7, 8))
    assert first == again
    assert first.digest != other.digest


def test_what_is_left_after_shrinking_still_fails_and_every_act_is_needed() -> None:
    campaign = Campaign(parts=real_parts, mutant="sold-twice", steps=40)
    failing = campaign.ran(campaign.plan(0))
    least = campaign.shrunk(failing)
    assert failing.found is not None
    assert least.outcome.found is not None
    assert least.outcome.found.checker == failing.found.checker
    assert 1 < len(least.plan.acts) < len(campaign.plan(0).acts) / 2
    assert {act.kind for act in least.plan.acts} <= {"page", "drain"}, "capacity is sold twice by pages alone"


def test_a_schedule_is_the_same_every_time_and_every_fifth_is_quiet() -> None:
    assert schedule(3) == schedule(3)
    assert not any(act.fault for act in schedule(5).acts)
    assert any(act.fault for act in schedule(6).acts)
    assert schedule(3, steps=10).pages < schedule(3, steps=200).pages


def test_the_command_reports_failing_seeds_and_a_summary() -> None:
    outcome = CliRunner().invoke(
        system, ["--seeds", "0:2", "--mutant", "sold-twice", "--executor", "serial", "--shrink", "--json"]
    )
    lines = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert outcome.exit_code == 1
    assert lines[0]["seed"] == 0
    assert lines[0]["found"]["checker"] == "CAPACITY"
    assert lines[-2]["least"]
    assert lines[-1]["summary"]["seeds"] == 2


def test_the_command_lists_its_mutants() -> None:
    outcome = CliRunner().invoke(system, ["--list-mutants", "--json"])
    assert {each["name"] for each in json.loads(outcome.stdout)["mutants"]} == set(MUTANTS)


@pytest.mark.parametrize("seeds", ["", "5:5", "9:3", "a:b", "-1:4"])
def test_what_is_no_range_of_seeds_is_refused(seeds: str) -> None:
    outcome = CliRunner().invoke(system, ["--seeds", seeds])
    assert isinstance(outcome.exception, InvalidInputError | SystemExit)
    assert outcome.exit_code != 0


def test_unknown_words_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match="no mutant"):
        mutant_of("nothing")
    with pytest.raises(InvalidInputError, match="gremlins"):
        families_of("crash,gremlins")
    assert families_of("all") == FAMILIES
    assert families_of("none") == ()

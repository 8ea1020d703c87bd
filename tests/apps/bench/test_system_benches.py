"""The benchmarks that start a whole system: that they run and report in the agreed form, and that they would notice."""

import asyncio
import dataclasses
import json
import math

import pytest

from aipaging.apps.bench import expiry, relocation, whole_path
from aipaging.apps.bench.command import benchmark_names
from aipaging.apps.bench.expiry import Observed, Paged, Watched, tally
from aipaging.apps.bench.interleaved import Goal
from aipaging.testing.lease_times import LeaseTimes
from aipaging.testing.recording_upstream import SeenRequest
from aipaging.testing.traffic import Outcome

MS = 1_000


def assert_form(results):
    """The form that others rely on, and metrics that are told apart by their names."""
    names = [result.metric for result in results]
    assert names, "nothing was measured"
    assert len(set(names)) == len(names)
    for result in results:
        document = json.loads(json.dumps(dataclasses.asdict(result)))
        assert all(math.isfinite(document[key]) for key in ("ours", "spread")), document
        assert document["runs"] >= 1
        assert isinstance(document["ok"], bool)
        assert document["goal"]
        assert (document["peer"] is None) == (document["theirs"] is None)


def by_name(results):
    return {result.metric: result for result in results}


def test_they_are_found_by_name():
    assert {"whole-path", "expiry", "relocation"} <= set(benchmark_names())


@pytest.mark.real
def test_expiry_runs():
    results = asyncio.run(expiry.measure(leases_ms=[400], sessions=6, seed=1))
    assert_form(results)
    found = by_name(results)
    assert found["requests_at_upstream"].ours > 0
    assert found["requests_sent_after_lease_end_refused"].ours > 0


@pytest.mark.real
@pytest.mark.soak  # the expiry benchmark starts a system in the same way: tests are to take ten minutes
def test_relocation_runs():
    results = asyncio.run(relocation.measure(sessions=2, rounds=1, seed=1))
    assert_form(results)
    found = by_name(results)
    assert (found["moves"].ours, found["moves"].theirs) == (2, 2)
    assert found["requests"].ours > 0


@pytest.mark.real
@pytest.mark.soak  # the expiry benchmark starts a system in the same way: tests are to take ten minutes
def test_whole_path_runs():
    results = asyncio.run(whole_path.measure(runs=1, seconds=0.05))
    assert_form(results)
    assert {f"requests_per_s_{placement}_c16" for placement in ("free", "apart", "one_core")} <= set(by_name(results))


# A session of two leases, 1,000 to 1,200 ms and 1,100 to 1,300 ms on the boot clock, told to end at 1,310.
TIMES = LeaseTimes(begins_us=[1_000 * MS, 1_100 * MS], ends_us=[1_200 * MS, 1_300 * MS])


def observed(*, seen, outcomes=(), stream=False):
    system = Watched(
        paged=[Paged(session="one", stream=stream, ends_us=1_310 * MS)],
        times={"one": TIMES},
        seen=seen,
        outcomes=outcomes,
        timer_us=[0],
    )
    result = Observed()
    tally(result, system)
    return by_name(expiry.results(result, sessions=1))


def test_a_request_within_the_lease_is_not_late():
    found = observed(seen=[SeenRequest(key=0, started_us=1_299 * MS)])
    assert found["requests_started_after_lease_end"].ok
    assert found["request_late_ms_max"].ours == -1.0
    assert found["session_lost_early_ms_max"].ours == 1.0


def test_a_request_after_the_lease_is_noticed():
    found = observed(seen=[SeenRequest(key=0, started_us=1_301 * MS)])
    assert not found["requests_started_after_lease_end"].ok
    assert found["requests_started_after_answer_and_duration"].ok, "the client was told a later end"


def test_a_request_before_the_first_grant_is_noticed():
    assert not observed(seen=[SeenRequest(key=0, started_us=999 * MS)])["requests_started_after_lease_end"].ok


def test_a_request_in_a_gap_between_two_leases_is_noticed():
    times = LeaseTimes(begins_us=[1_000, 3_000], ends_us=[2_000, 4_000])
    assert [times.late_us(at_us) for at_us in (1_500, 2_500, 3_500, 4_500)] == [-500, 500, -500, 500]


def test_a_stream_that_is_cut_late_is_noticed():
    stream = SeenRequest(key=0, started_us=1_150 * MS, stream=True, last_us=1_340 * MS, ended_us=1_360 * MS)
    found = observed(seen=[stream], stream=True)
    assert not found["stream_cut_late_ms_max"].ok
    assert found["stream_token_late_ms_max"].ours == 40.0


def test_a_stream_that_nobody_cuts_is_noticed():
    stream = SeenRequest(key=0, started_us=1_150 * MS, stream=True, last_us=1_340 * MS)
    assert not observed(seen=[stream], stream=True)["streams_never_cut"].ok


def test_a_request_served_after_the_end_is_noticed_at_the_client():
    sent = Outcome(key=0, kind="json", sent_us=1_301 * MS, last_us=1_302 * MS, status=200, whole=True, code="")
    assert not observed(seen=[], outcomes=[sent])["requests_sent_after_lease_end_served"].ok


def test_a_stream_without_its_end_is_no_success():
    cut = Outcome(key=0, kind="stream", sent_us=0, last_us=1, status=200, whole=False, code="LEASE_ENDED")
    assert not cut.ok


def test_a_failed_request_of_a_relocated_session_misses_the_goal():
    assert not relocation.NONE.met(1)
    assert Goal(text="0", most=0).met(0)

"""The benchmarks of the controller's speed: that they are found, run, and report in the agreed form."""

import dataclasses
import json
import math

import pytest

from aipaging.apps.bench import paging, sessions
from aipaging.apps.bench.command import benchmark_names
from aipaging.apps.bench.engine_stage import engine_stage


def assert_form(results):
    names = [result.metric for result in results]
    assert names, "nothing was measured"
    assert len(set(names)) == len(names)
    for result in results:
        document = json.loads(json.dumps(dataclasses.asdict(result)))
        assert all(math.isfinite(document[key]) for key in ("ours", "spread")), document
        assert (document["peer"] is None) == (document["theirs"] is None)


def test_they_are_found_by_name():
    assert {"paging", "sessions"} <= set(benchmark_names())


async def test_every_page_of_the_stage_is_one_live_session_with_both_tokens(tmp_path):
    async with engine_stage(tmp_path, paging.SETTINGS) as stage:
        token = await stage.page(60)
        await stage.pages(20, at_once=7, different=True)
        held = stage.engine.state.sessions.values()
        assert token.count(".") == 2
        assert len(held) == 21
        assert all(session.available for session in held)
        assert len({session.intent.delay_ms for session in held}) > 15


async def test_sessions_runs_and_its_renewals_happen(tmp_path, monkeypatch):
    monkeypatch.setattr(sessions, "FEW", 20)
    results = await sessions.measure(sessions.Extent(sessions=300, watched_s=0.5, records=200))
    assert_form(results)
    found = {result.metric: result for result in results}
    assert found["renewals_per_s"].ours > 0
    assert found["us_per_record_replayed"].ours > 0


@pytest.mark.real
async def test_paging_runs():
    extent = paging.Extent(rounds=1, paced_s=0.5, closed_s=0.3, engine_pages=20)
    results = await paging.measure(extent)
    assert_form(results)
    found = {result.metric: result for result in results}
    assert found["http_pages_measured"].ours > 0
    assert found["http_page_ms_p50_at_50_per_s"].ours > 0 < found["bare_http_ms_p50_at_50_per_s"].ours

"""The sidecar's benchmark still runs, and reports what it promises; its numbers are not judged here."""

import pytest

from aipaging.apps.bench import sidecar


@pytest.mark.real
def test_it_measures_everything_it_promises(monkeypatch) -> None:
    for name, small in (
        ("RUNS_QUICK", 1),
        ("SECONDS_QUICK", 0.1),
        ("CUTS_QUICK", 3),
        ("STREAMS", 3),
        ("GAP_RUNS_QUICK", 1),
    ):
        monkeypatch.setattr(sidecar, name, small)
    results = {result.metric: result for result in sidecar.run(quick=True, seed=1)}
    assert {"added_p50_us_c1", "requests_per_s_c16", "added_event_gap_p99_ms_64_streams"} <= results.keys()
    assert results["failures_c16"].ours == 0
    assert results["requests_per_s_c16"].ours > 0
    assert results["requests_per_s_mutual_tls_c16"].ours > 0
    assert results["streams_cut_without_error"].ours == 0
    assert results["stream_cut_late_ms_median"].ours > -50, "cut before its time"

"""Where replications run: the same result in threads, processes and on a Dask cluster."""

import dataclasses
import threading
import time

import pytest

from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.simulation import executors
from aipaging.simulation.executors import Place, opened, place_of


def test_the_words_for_places() -> None:
    assert place_of("serial") == Place(kind="serial")
    assert place_of("threads:3") == Place(kind="threads", workers=3)
    assert place_of("processes").workers >= 1
    assert place_of("dask://host:8786").address == "tcp://host:8786"
    assert place_of("auto", 10).kind == "serial"
    assert place_of("auto", 10**6).kind == "threads"
    assert place_of("auto", 10**7).kind == "processes"
    for wrong in ("threads:0", "clouds", "dask://", "processes:x"):
        with pytest.raises(InvalidInputError, match="allowed are"):
            place_of(wrong)


def ran(build, place: Place):
    with opened(place) as executor:
        outcome = build.ran([build.domain()], [build.tenant()], packets=20_000, seed=4, executor=executor)
    return dataclasses.replace(outcome, seconds=0.0, compile_seconds=0.0)


def test_threads_give_the_same(build) -> None:
    assert ran(build, place_of("threads:3")) == ran(build, place_of("serial"))


@pytest.mark.real
def test_processes_and_dask_give_the_same(build) -> None:
    distributed = pytest.importorskip("distributed")
    alone = ran(build, place_of("serial"))
    assert ran(build, place_of("processes:2")) == alone
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address.removeprefix("tcp://")
        assert ran(build, place_of(f"dask://{address}")) == alone


@pytest.mark.real
def test_a_cluster_that_is_not_there(monkeypatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "DASK_TIMEOUT_S", 0.2)
    with pytest.raises(UnavailableError, match="no Dask scheduler"), opened(place_of("dask://127.0.0.1:1")):
        pass


@pytest.mark.real
def test_a_cluster_that_cannot_do_the_work_is_refused(build, monkeypatch) -> None:
    """Without workers, with workers of another version, and gone in the middle: Dask itself would wait for ever."""
    distributed = pytest.importorskip("distributed")

    def version(_name: str) -> str:
        return "ours" if threading.current_thread() is threading.main_thread() else "theirs"

    kind = {"threads_per_worker": 1, "processes": False, "protocol": "tcp", "dashboard_address": None}
    with distributed.LocalCluster(n_workers=0, **kind) as cluster:
        place = place_of("dask://" + cluster.scheduler_address.removeprefix("tcp://"))
        with monkeypatch.context() as patched:
            patched.setattr(executors, "DASK_TIMEOUT_S", 0.5)
            with pytest.raises(UnavailableError, match="has no workers"), opened(place):
                pass
        cluster.scale(1)
        with monkeypatch.context() as patched:
            patched.setattr(executors.metadata, "version", version)
            with pytest.raises(UnavailableError, match="needs aipaging ours and has theirs"), opened(place):
                pass

        def cancelled() -> None:
            with opened(place) as executor:
                waiting = executor.submit(time.sleep, 0.01)
                waiting.cancel()
                waiting.result()

        with pytest.raises(UnavailableError, match="went away"):
            cancelled()


def test_a_failure_in_a_pool_is_told(build) -> None:
    with pytest.raises(RuntimeError, match="lost"), opened(place_of("threads:2")):
        raise RuntimeError("lost")

"""Where replications run: the same result in threads, processes and on a Dask cluster."""

import dataclasses

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


def test_a_failure_in_a_pool_is_told(build) -> None:
    with pytest.raises(RuntimeError, match="lost"), opened(place_of("threads:2")):
        raise RuntimeError("lost")

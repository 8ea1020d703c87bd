"""What the sidecar answers itself."""

import asyncio
import json

import pytest
from tests.adapters.sidecar.conftest import SSE_HEAD, answer_ok, request, sending, session_id

from aipaging.core.foundation.errors import UnavailableError

PREPARE = json.dumps({"session": session_id(), "term": 1, "n": 1}).encode()


def prepare(body: bytes = PREPARE) -> bytes:
    return request(target="/aipaging/v1/prepare", body=body, commit=None)


async def test_prepare_is_answered_when_the_upstream_is_well(bench) -> None:
    status, _, body = await bench.ask(prepare())
    assert (status, body) == (204, b"")
    assert not bench.controller.asked, "a COMMIT that is not current yet must not be asked about"


@pytest.mark.parametrize("answer", [b"HTTP/1.1 503 Loading\r\ncontent-length: 0\r\n\r\n", b"garbage\r\n\r\n", b""])
async def test_prepare_and_health_ask_the_upstream_for_real(make_bench, answer, monkeypatch) -> None:
    monkeypatch.setattr("aipaging.adapters.sidecar.operations.HEALTH_CACHE_S", 0.0)
    bench = await make_bench()
    for asked in (prepare(), request("GET", "/aipaging/v1/health", commit=None)):
        bench.upstream.script = sending(answer)
        assert (await bench.ask(asked))[0] == 503
        bench.upstream.script = answer_ok
        assert (await bench.ask(asked))[0] in {200, 204}


async def test_prepare_does_not_rest_on_what_was_true_a_moment_ago(bench) -> None:
    assert (await bench.ask(request("GET", "/aipaging/v1/health", commit=None)))[0] == 200
    bench.upstream.script = sending(b"HTTP/1.1 503 Gone\r\ncontent-length: 0\r\n\r\n")
    answers = await asyncio.gather(*(bench.ask(prepare()) for _ in range(10)))
    assert {status for status, _, _ in answers} == {503}
    assert bench.upstream.all_bytes.count(b"GET /health") < 8, "a crowd of questions is to share an answer"


async def test_health_is_asked_for_once_by_a_crowd(bench) -> None:
    before = bench.upstream.all_bytes.count(b"GET /health")
    await asyncio.gather(*(bench.ask(request("GET", "/aipaging/v1/health", commit=None)) for _ in range(20)))
    assert bench.upstream.all_bytes.count(b"GET /health") - before <= 1


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request("GET", "/aipaging/v1/nothing", commit=None), 404),
        (request("GET", "/aipaging/v1/", commit=None), 404),
        (request("POST", "/aipaging/v1/health"), 405),
        (request("GET", "/aipaging/v1/prepare", commit=None), 405),
        (prepare(b"{}"), 400),
        (prepare(b"not json"), 400),
        (prepare(PREPARE.replace(b"0000", b"zzzz")), 400),
        (prepare(b" " * 5000), 413),
        (request(target="/aipaging/v1/prepare", body=b"0\r\n\r\n", extra="Transfer-Encoding: chunked\r\n"), 411),
    ],
)
async def test_other_paths_are_refused_and_never_reach_the_upstream(bench, raw, status) -> None:
    before = bench.upstream.all_bytes
    client = await bench.client()
    client.send(raw)
    assert (await client.response())[0] == status
    client.send(request("GET", "/aipaging/v1/health?x=1", commit=None))
    assert (await client.response())[0] == 200, "the connection is still in step"
    assert b"/aipaging" not in bench.upstream.all_bytes[len(before) :]


async def test_metrics_tell_of_tenants_and_outcomes(bench) -> None:
    bench.upstream.script = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    await bench.ask(request())
    await bench.ask(request(commit=None))
    bench.upstream.script = sending(SSE_HEAD + b"2\r\nhi\r\n", then="stall")
    client = await bench.client()
    client.send(request())
    await client.head()
    _, fields, raw = await bench.ask(request("GET", "/aipaging/v1/metrics", commit=None))
    text = raw.decode()
    assert fields["content-type"].startswith("text/plain; version=0.0.4")
    for line in (
        'aipaging_anchor_requests_total{tenant="acme",outcome="2xx"} 1',
        'aipaging_anchor_refused_total{tenant="",code="NO_COMMIT"} 1',
        'aipaging_anchor_in_flight_requests{tenant="acme"} 1',
        "aipaging_anchor_in_flight 1",
        "aipaging_anchor_receipts_verified_total 1",
        "aipaging_anchor_queue_seconds_count 2",
    ):
        assert line in text.split("\n")
    names = [line.split(" ")[2] for line in text.split("\n") if line.startswith("# TYPE")]
    assert len(names) == len(set(names))


async def test_a_heartbeat_says_how_it_is(bench) -> None:
    first = bench.controller.beats[0]
    assert (first.state, first.sequence, first.in_flight, first.queued) == ("READY", 1, 0, 0)
    assert len(first.boot) == 16


async def test_nothing_is_said_to_be_ready_before_the_keys_are_there(make_bench) -> None:
    bench = await make_bench(keys_there=False)
    status, _, _ = await bench.ask(request("GET", "/aipaging/v1/health", commit=None))
    assert (status, bench.controller.beats) == (503, [])
    bench.controller.keys_there.set()
    await bench.controller.beat_seen.wait()
    assert bench.controller.beats[0].state == "READY"
    assert (await bench.ask(request("GET", "/aipaging/v1/health", commit=None)))[0] == 200
    assert (await bench.ask(request()))[0] == 200


async def test_an_upstream_that_stays_away_makes_the_anchor_unhealthy(make_bench, monkeypatch) -> None:
    monkeypatch.setattr("aipaging.adapters.sidecar.operations.HEALTH_CACHE_S", 0.0)
    bench = await make_bench(url="http://127.0.0.1:1")
    while len(bench.controller.beats) < 3:
        bench.sidecar._beat_now.set()
        await asyncio.sleep(0.01)
    assert {beat.state for beat in bench.controller.beats[:3]} == {"UNHEALTHY"}, "what was never well is not READY"


async def test_one_failed_probe_of_a_healthy_upstream_is_forgiven(bench, monkeypatch) -> None:
    monkeypatch.setattr("aipaging.adapters.sidecar.operations.HEALTH_CACHE_S", 0.0)
    first = len(bench.controller.beats)
    bench.upstream.script = sending(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
    while len(bench.controller.beats) < first + 3:
        bench.sidecar._beat_now.set()
        await asyncio.sleep(0.01)
    states = [beat.state for beat in bench.controller.beats[first:]]
    assert states[0] == "READY"
    assert states[-1] == "UNHEALTHY"


async def test_log_lines_are_json_and_a_flood_is_bounded(bench) -> None:
    for _ in range(100):
        await bench.ask(request(commit="forged"))
    refused = [json.loads(line) for line in bench.log_lines if "receipt_refused" in line]
    assert len(refused) == 20
    bench.clocks.turn(1_000)
    await bench.ask(request(commit="forged"))
    last = json.loads(bench.log_lines[-1])
    assert (last["event"], last["suppressed"]) == ("receipt_refused", 80)


async def test_a_controller_that_comes_back_hears_of_its_anchors_before_it_gives_them_up(bench, monkeypatch) -> None:
    """It counts from its start: with pauses that had grown meanwhile, every anchor was LOST to a fresh controller."""
    pauses: list[float] = []

    async def slept(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 20:
            raise asyncio.CancelledError

    async def failing() -> float:
        raise UnavailableError("silent", code="CONNECT")

    bench.sidecar._interval_s = 0.5
    monkeypatch.setattr("aipaging.adapters.sidecar.sidecar.asyncio.sleep", slept)
    with pytest.raises(asyncio.CancelledError):
        await bench.sidecar._forever(failing)
    monkeypatch.undo()
    assert max(pauses) <= 0.5
    assert min(pauses) >= 0.05

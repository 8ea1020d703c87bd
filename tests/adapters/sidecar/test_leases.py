"""A lease lasts at most as long as the controller said, counted from when it was asked; then everything stops."""

import asyncio
import json

import pytest
from tests.adapters.sidecar.conftest import (
    EVENT,
    GATEWAYS,
    SSE_HEAD,
    answer_ok,
    cut_event,
    decoded,
    read_request,
    receipt,
    request,
    session_id,
)

from aipaging.adapters.sidecar.controller import HeartbeatAnswer, Revocations, RevokedEpoch
from aipaging.adapters.sidecar.framing import chunk
from aipaging.adapters.sidecar.sidecar import DRAIN_POLL_S
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.lease.holder import CLOCK_JUMP_US, HolderState


def streaming(first: bytes, head: bytes = SSE_HEAD):
    """Begin an answer and never finish it."""

    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(head + first)
        await reader.read()

    return script


async def started(bench, raw: bytes = b"") -> "object":
    """Return a client whose answer has begun."""
    client = await bench.client()
    client.send(raw or request())
    await client.head()
    return client


async def test_the_lease_is_asked_about_once_at_first_sight(bench) -> None:
    bench.controller.gate.clear()
    asking = [asyncio.create_task(bench.ask(request(body=b"%d" % n))) for n in range(5)]
    while bench.sidecar.path.gate.waiting < 5:
        await asyncio.sleep(0.001)
    bench.controller.gate.set()
    assert [body for _, _, body in await asyncio.gather(*asking)] == [b"%d" % n for n in range(5)]
    assert bench.controller.asked == [(session_id(), Epoch(1, 1))]
    await bench.ask(request())
    assert len(bench.controller.asked) == 1
    assert bench.verifier.verified == 1, "one signature check per receipt"


async def test_many_sessions_share_a_question(bench) -> None:
    bench.controller.gate.clear()
    asking = [asyncio.create_task(bench.ask(request(commit=receipt(n)))) for n in range(10)]
    while bench.sidecar.path.gate.waiting < 10:
        await asyncio.sleep(0.001)
    bench.controller.gate.set()
    await asyncio.gather(*asking)
    assert len(bench.controller.asked) == 10
    assert bench.controller.batches < 10


async def test_after_a_restart_nothing_is_known_and_everything_is_asked(make_bench) -> None:
    for _ in range(2):
        bench = await make_bench()
        assert (await bench.ask(request()))[0] == 200
        assert bench.controller.asked == [(session_id(), Epoch(1, 1))]


async def test_a_stream_is_cut_at_the_end_of_its_lease_with_an_error_and_no_end(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT) * 2)
    client = await started(bench)
    assert await client.reader.readexactly(2 * len(chunk(EVENT))) == chunk(EVENT) * 2
    bench.lapse(60_000 - 1)
    bench.lapse(1)
    body, ended = decoded(await client.until_closed())
    assert cut_event(body)
    assert not ended, "a cut is never a clean end"
    assert "LEASE_ENDED" in await bench.metric("aipaging_anchor_cut_total")


@pytest.mark.parametrize("part", range(1, len(chunk(EVENT)) - 1, 5))
async def test_a_stream_is_cut_wherever_it_stands(bench, part) -> None:
    bench.upstream.script = streaming(chunk(EVENT) + chunk(EVENT)[:part])
    client = await started(bench)
    got = await client.reader.readexactly(len(chunk(EVENT)))
    await asyncio.sleep(0.01)
    bench.lapse(60_000)
    body, ended = decoded(got + await client.until_closed())
    assert body.startswith(EVENT)
    assert cut_event(body)
    assert not ended


async def test_other_answers_are_broken_off(bench) -> None:
    bench.upstream.script = streaming(b"half", b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n")
    client = await started(bench)
    assert await client.reader.readexactly(4) == b"half"
    bench.lapse(60_000)
    assert await client.until_closed() == b""


async def test_compressed_events_are_broken_off_for_nothing_can_be_added(bench) -> None:
    head = SSE_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    bench.upstream.script = streaming(chunk(b"\x1f\x8b..."), head)
    client = await started(bench)
    bench.lapse(60_000)
    assert b"error" not in await client.until_closed()


async def test_a_request_that_waits_for_its_answer_is_given_back_at_the_end(bench) -> None:
    seen = asyncio.Event()

    async def script(reader, writer) -> None:
        await read_request(reader)
        seen.set()
        assert await reader.read() == b""
        seen.set()

    bench.upstream.script = script
    client = await bench.client()
    client.send(request())
    await seen.wait()
    seen.clear()
    bench.lapse(60_000)
    status, fields, body = await client.response()
    assert (status, json.loads(body)["error"]["code"]) == (503, "LEASE_ENDED")
    assert fields["retry-after"] == "1"
    assert fields["server-timing"] == "lease"
    await asyncio.wait_for(seen.wait(), 60)
    bench.upstream.script = answer_ok
    client.send(request(body=b"again"))
    assert (await client.response())[2] == b"again", "asked again, and granted"


@pytest.mark.parametrize(
    ("extra", "status"),
    [("", 503), (GATEWAYS, 308), (GATEWAYS + "x-aipaging-refused: 1.0\r\n", 503)],
    ids=["nobody repeats it", "the gateway does", "it did already"],
)
async def test_a_request_in_the_queue_is_given_back_at_the_end(make_bench, extra: str, status: int) -> None:
    bench = await make_bench(slots=1)
    bench.upstream.script = streaming(chunk(EVENT))
    await started(bench)
    before = bench.upstream.all_bytes
    client = await bench.client()
    client.send(request(commit=receipt(2), body=b"short", extra=extra))
    while not bench.sidecar.path.queue.waiting:
        await asyncio.sleep(0.001)
    bench.lapse(60_000)
    answer = await client.response()
    assert answer[0] == status
    assert json.loads(answer[2])["error"]["code"] == "LEASE_ENDED"
    assert answer[1].get("x-aipaging-refused") == ("1.1" if status == 308 else None)
    assert bench.sidecar.path.queue.waiting == 0
    assert bench.sidecar.path.queue.in_service == 0
    assert bench.upstream.all_bytes == before, "the model server never saw it"


async def test_a_request_in_the_queue_that_is_not_whole_is_not_repeated(make_bench) -> None:
    bench = await make_bench(slots=1)
    bench.upstream.script = streaming(chunk(EVENT))
    await started(bench)
    client = await bench.client()
    whole = request(commit=receipt(2), body=b"x" * 100, extra=GATEWAYS)
    client.send(whole[:-1])
    while not bench.sidecar.path.queue.waiting:
        await asyncio.sleep(0.001)
    bench.lapse(60_000)
    assert (await client.response())[0] == 503


async def test_nobody_who_reads_slowly_delays_the_cut(bench) -> None:
    head = SSE_HEAD + chunk(bytes(8 * 1024 * 1024))[: 8 * 1024 * 1024]
    bench.upstream.script = streaming(b"", head)
    client = await started(bench)
    client.writer.transport.pause_reading()
    while not any(side._full for side in bench.sidecar._reception.sides):
        await asyncio.sleep(0.001)
    bench.lapse(60_000)
    while bench.sidecar._reception.sides:
        await asyncio.sleep(0.001)  # closed although nobody reads
    client.writer.transport.resume_reading()
    assert len(await client.until_closed()) < 8 * 1024 * 1024


async def test_an_answer_extends_what_is_under_way(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    client = await started(bench)
    await client.reader.readexactly(len(chunk(EVENT)))
    for number in range(5):
        bench.lapse(30_000)
        while len(bench.controller.asked) < number + 2:
            await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)  # the answer is taken in
    assert bench.sidecar.path.gate.open_work == 1


async def test_a_silent_controller_changes_nothing_until_the_known_deadline(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    client = await started(bench)
    bench.controller.silent = True
    bench.lapse(59_999)
    await asyncio.sleep(0.01)
    assert bench.sidecar.path.gate.open_work == 1
    bench.lapse(1)
    body, ended = decoded(await client.until_closed())
    assert cut_event(body)
    assert not ended
    status, fields, body = await bench.ask(request())
    assert (status, json.loads(body)["error"]["code"]) == (503, "CONTROLLER_UNREACHABLE")
    assert fields["retry-after"] == "1"


async def test_time_counts_from_before_the_question_was_sent(bench) -> None:
    bench.controller.gate.clear()
    asking = asyncio.create_task(bench.ask(request()))
    while not bench.controller.asked:
        await asyncio.sleep(0.001)
    bench.clocks.turn(60_000)  # the answer took as long as the lease
    bench.controller.gate.set()
    status, _, body = await asking
    assert (status, json.loads(body)["error"]["code"]) == (403, "LEASE_ENDED")


async def test_a_lower_epoch_is_fenced(bench) -> None:
    assert (await bench.ask(request(commit=receipt(n=2))))[0] == 200
    status, _, body = await bench.ask(request(commit=receipt(n=1)))
    assert (status, json.loads(body)["error"]["code"]) == (409, "FENCED")
    assert (await bench.ask(request(commit=receipt(term=2, n=1))))[0] == 200


async def test_an_ended_lease_opens_nothing(bench) -> None:
    bench.controller.state = HolderState.ENDED
    before = bench.upstream.all_bytes
    for _ in range(2):
        status, _, body = await bench.ask(request())
        assert (status, json.loads(body)["error"]["code"]) == (403, "LEASE_ENDED")
    assert bench.upstream.all_bytes == before


async def test_a_draining_lease_admits_and_lets_finish(bench) -> None:
    bench.controller.state = HolderState.DRAINING
    bench.controller.current[session_id()] = Epoch(1, 2)
    assert (await bench.ask(request()))[0] == 200
    assert (await bench.ask(request()))[0] == 200


async def test_a_revocation_cuts_at_once_and_only_what_it_names(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    first, second = await started(bench), await started(bench, request(commit=receipt(2)))
    entry = RevokedEpoch(session=session_id(1), term=1, n=1)
    bench.controller.revoked.put_nowait(Revocations(term=1, sequence=1, entries=[entry]))
    body, ended = decoded(await first.until_closed())
    assert cut_event(body)
    assert not ended
    assert bench.sidecar.path.gate.open_work == 1
    second.close()
    assert (await bench.ask(request()))[0] == 403
    assert (await bench.ask(request("HEAD", commit=receipt(n=1)), bodyless=True))[0] == 403


async def test_a_lost_list_of_revocations_has_everything_asked_about(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    client = await started(bench)
    bench.controller.state = HolderState.ENDED
    bench.controller.revoked.put_nowait(Revocations(term=1, sequence=9, reset=True))
    body, ended = decoded(await client.until_closed())
    assert cut_event(body)
    assert not ended


async def test_an_old_leaders_list_is_not_followed(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    await started(bench)
    bench.controller.revoked.put_nowait(Revocations(term=5, sequence=1))
    entry = RevokedEpoch(session=session_id(1), term=1, n=1)
    bench.controller.revoked.put_nowait(Revocations(term=4, sequence=2, entries=[entry]))
    while not any("OLD_TERM" in line for line in bench.log_lines):
        await asyncio.sleep(0.001)
    assert bench.sidecar.path.gate.open_work == 1


async def test_a_suspend_cuts_everything_and_asks_again(bench) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    client = await started(bench)
    bench.clocks.suspended_us += CLOCK_JUMP_US
    bench.lapse(0)
    body, ended = decoded(await client.until_closed())
    assert cut_event(body)
    assert not ended
    bench.upstream.script = answer_ok
    assert (await bench.ask(request()))[0] == 200
    assert len(bench.controller.asked) == 2


@pytest.mark.parametrize("step_us", [-86_400_000_000, 86_400_000_000], ids=["back", "ahead"])
async def test_a_step_of_the_wall_clock_neither_cuts_nor_prolongs(bench, step_us) -> None:
    bench.upstream.script = streaming(chunk(EVENT))
    client = await started(bench)
    bench.clocks.wall_step_us = step_us
    bench.lapse(60_000 - 100)
    assert await client.reader.readexactly(len(chunk(EVENT))) == chunk(EVENT), "it was cut before its time"
    bench.lapse(100)
    body, ended = decoded(await client.until_closed())
    assert cut_event(body)
    assert not ended


async def test_a_drain_says_so_serves_on_and_ends_when_nothing_is_under_way(make_bench) -> None:
    bench = await make_bench()
    go_on = asyncio.Event()

    async def script(reader, writer) -> None:
        await read_request(reader)
        writer.write(SSE_HEAD + chunk(EVENT))
        await go_on.wait()
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await reader.read()

    bench.upstream.script = script
    client = await started(bench)
    bench.controller.beat_seen.clear()
    draining = asyncio.create_task(bench.sidecar.drain())
    await bench.controller.beat_seen.wait()
    assert bench.controller.beats[-1].state == "DRAINING"
    bench.upstream.script = answer_ok
    assert (await bench.ask(request(body=b"still served")))[2] == b"still served"
    bench.controller.state = HolderState.DRAINING  # the session has moved
    go_on.set()
    body, ended = decoded(await client.until_closed())
    assert body.endswith(b"data: [DONE]\n\n")
    assert ended
    await asyncio.wait_for(draining, 60)


async def test_an_idle_sidecar_says_that_it_drains_before_it_closes(make_bench) -> None:
    bench = await make_bench()
    bench.controller.hears.clear()
    draining = asyncio.create_task(bench.sidecar.drain())
    while bench.controller.beats[-1].state != "DRAINING":
        await asyncio.sleep(0.001)
    await asyncio.sleep(3 * DRAIN_POLL_S)
    assert (await bench.ask(request()))[0] == 200, "it closed before the controller had heard of it"
    bench.lapse(61_000)
    bench.controller.sessions = 1
    bench.controller.hears.set()
    while len(bench.controller.beats) < 3:  # it asks on, for a session that has sent nothing yet has still to move
        await asyncio.sleep(0.01)
    assert (await bench.ask(request()))[0] == 200, "it closed before its sessions had left"
    bench.lapse(61_000)
    bench.controller.sessions = 0
    await asyncio.wait_for(draining, 60)


@pytest.mark.parametrize("answers", [0, 1])
async def test_an_idle_sidecar_whose_controller_is_gone_does_not_wait(make_bench, monkeypatch, answers) -> None:
    async def heard_and_gone(beat: object) -> HeartbeatAnswer:
        bench.controller.beats.append(beat)
        if len(bench.controller.beats) > 1 + answers:
            raise UnavailableError("nobody", code="CONNECT")
        return HeartbeatAnswer(interval_ms=100, sessions=3)

    bench = await make_bench()
    monkeypatch.setattr(bench.controller, "heartbeat", heard_and_gone)
    async with asyncio.timeout(bench.sidecar._settings.timeouts.drain_s / 2):
        await bench.sidecar.drain()
    assert bench.controller.beats[1].state == "DRAINING"


async def test_a_drain_ends_with_the_leases_at_the_latest(make_bench) -> None:
    bench = await make_bench(drain_s=0.05)
    bench.upstream.script = streaming(chunk(EVENT))
    client = await started(bench)
    late = await bench.client()
    draining = asyncio.create_task(bench.sidecar.drain())
    while not bench.sidecar.path.closing:
        await asyncio.sleep(0.001)
    late.send(request())
    assert b" 200 " not in await late.until_closed()
    bench.lapse(60_000)
    assert cut_event(decoded(await client.until_closed())[0])
    await asyncio.wait_for(draining, 60)

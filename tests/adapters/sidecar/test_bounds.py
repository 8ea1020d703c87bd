"""Everything that a peer can make grow has a bound, and every loop that ends says so."""

import asyncio
import json

import pytest
from tests.adapters.sidecar.conftest import read_request, receipt, request, sending

from aipaging.adapters.sidecar import gate as gate_module
from aipaging.adapters.sidecar import gateway_side as side_module
from aipaging.adapters.sidecar.controller import Revocations
from aipaging.core.foundation.errors import UnverifiedError
from aipaging.core.lease.holder import HolderTerms


def code_of(body: bytes) -> str:
    return json.loads(body)["error"]["code"]


async def test_receipts_that_are_remembered_are_bounded_and_those_in_use_stay(bench, monkeypatch) -> None:
    monkeypatch.setattr(gate_module, "RECEIPTS_MAX", 4)
    for number in range(20):
        await bench.ask(request(commit=receipt(100 + number)))
        await bench.ask(request(commit=receipt(1)))
    assert len(bench.sidecar.path.gate._receipts) == 4
    assert bench.verifier.verified == 21, "the one that was in use all the time was verified once"


async def test_until_keys_are_there_nothing_passes(bench) -> None:
    bench.sidecar.path.gate.verifier = None
    status, _, body = await bench.ask(request())
    assert (status, code_of(body)) == (503, "CONTROLLER_UNREACHABLE")


async def test_an_unknown_key_has_the_keys_fetched_again(bench, monkeypatch) -> None:
    def unknown(token: str):
        raise UnverifiedError("unknown key", code="TOKEN_KEY_UNKNOWN")

    monkeypatch.setattr("aipaging.adapters.sidecar.sidecar.KEYS_PAUSE_S", 0.0)
    fetched = asyncio.Event()

    async def keys():
        fetched.set()
        return {"keys": ["one", "two"]}

    bench.controller.keys = keys
    bench.verifier.verify_commit = unknown
    assert (await bench.ask(request()))[0] == 403
    await asyncio.wait_for(fetched.wait(), 60)
    del bench.verifier.verify_commit
    assert (await bench.ask(request()))[0] == 200


async def test_requests_that_wait_for_the_controller_are_bounded(make_bench) -> None:
    bench = await make_bench(waiting=2)
    bench.controller.gate.clear()
    clients = [await bench.client() for _ in range(66)]
    for number, client in enumerate(clients):
        client.send(request(commit=receipt(number)))
    while bench.sidecar.path.gate.waiting < 66:
        await asyncio.sleep(0.001)
    status, _, body = await bench.ask(request(commit=receipt(99)))
    assert (status, code_of(body)) == (503, "SESSIONS_FULL")
    clients[0].close()
    while bench.sidecar.path.gate.waiting == 66:
        await asyncio.sleep(0.001)


async def test_sessions_that_are_told_apart_are_bounded(bench) -> None:
    bench.sidecar.path.gate.holder.terms = HolderTerms(sessions_max=2)
    statuses = [(await bench.ask(request(commit=receipt(number))))[0] for number in range(3)]
    assert statuses == [200, 200, 503]


async def test_who_waits_while_a_newer_epoch_is_asked_about_waits_on(bench) -> None:
    bench.controller.gate.clear()
    first = asyncio.create_task(bench.ask(request(commit=receipt(n=1))))
    while not bench.controller.asked:
        await asyncio.sleep(0.001)
    second = asyncio.create_task(bench.ask(request(commit=receipt(n=2), body=b"newer")))
    while bench.sidecar.path.gate.waiting < 2:
        await asyncio.sleep(0.001)
    bench.controller.gate.set()
    assert (await first)[0] == 409
    assert (await second)[2] == b"newer"
    assert len(bench.controller.asked) == 2


async def test_pipelined_requests_are_held_back_while_one_is_answered(bench) -> None:
    go_on = asyncio.Event()

    async def script(reader, writer) -> None:
        while True:
            await read_request(reader)
            await go_on.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    bench.upstream.script = script
    client = await bench.client()
    many = 3_000
    client.send(request(body=b"x" * 4_000) * many)
    former = -1
    while client.writer.transport.get_write_buffer_size() != former:
        former = client.writer.transport.get_write_buffer_size()
        await asyncio.sleep(0.05)
    assert former > 1_000_000, "the rest waits at the client"
    go_on.set()
    longest = 0
    for _ in range(many):
        assert (await client.response())[2] == b"ok"
        longest = max(longest, *(len(side._buffer) for side in bench.sidecar._reception.sides))
    assert longest < 1_000_000, "one read more than the bound, and not everything that was sent"


async def test_empty_lines_before_a_request_are_skipped_but_no_flood_of_them(bench) -> None:
    assert (await bench.ask(b"\r\n\r\n" + request()))[0] == 200
    assert (await bench.ask(b"\r\n" * 100_000))[0] == 400


async def test_answers_that_nobody_reads_hold_the_next_requests_back(bench) -> None:
    served = 0

    async def script(reader, writer) -> None:
        nonlocal served
        while True:
            await read_request(reader)
            served += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + bytes(1_000_000))
            await writer.drain()

    bench.upstream.script = script
    client = await bench.client()
    client.writer.transport.pause_reading()
    client.send(request() * 40)
    former = -1
    while served != former:
        former = served
        await asyncio.sleep(0.1)
    assert served < 30
    client.writer.transport.resume_reading()
    for _ in range(40):
        assert len((await client.response())[2]) == 1_000_000


async def test_a_reader_that_stops_for_good_is_disconnected(make_bench) -> None:
    bench = await make_bench(write_s=0.0)
    bench.upstream.script = sending(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n" + bytes(20_000_000))
    client = await bench.client()
    client.writer.transport.pause_reading()
    client.send(request())
    while not bench.sidecar._reception.sides:
        await asyncio.sleep(0.001)
    while bench.sidecar._reception.sides:
        await asyncio.sleep(0.01)
    assert bench.sidecar.path.queue.in_service == 0


async def test_connections_are_bounded(bench, monkeypatch) -> None:
    monkeypatch.setattr(side_module, "CONNECTIONS_MAX", 1)
    first = await bench.client()
    first.send(request())
    assert (await first.response())[0] == 200
    second = await bench.client()
    second.send(request())
    assert await second.until_closed() == b""


async def test_a_mistake_of_ours_in_a_loop_ends_the_sidecar(bench) -> None:
    bench.controller.revoked.put_nowait("not revocations at all")
    with pytest.raises(AttributeError):
        await asyncio.wait_for(bench.sidecar.failed, 60)


async def test_a_silent_controller_is_asked_again_ever_more_slowly(bench, monkeypatch) -> None:
    monkeypatch.setattr("aipaging.adapters.sidecar.sidecar.RETRY_S_MAX", 0.0)
    bench.controller.revoked.put_nowait(Revocations(term=3, sequence=1))
    for _ in range(3):
        bench.controller.revoked.put_nowait(Revocations(term=2, sequence=1))
    while sum("controller_step_failed" in line for line in bench.log_lines) < 3:
        await asyncio.sleep(0.01)
    bench.controller.revoked.put_nowait(Revocations(term=4, sequence=1))
    while bench.sidecar._followed != (4, 1):
        await asyncio.sleep(0.01)


async def test_a_certificate_that_is_due_is_renewed(bench, monkeypatch) -> None:
    monkeypatch.setattr("aipaging.adapters.sidecar.sidecar.RENEWAL_CHECK_S", 0.0)
    renewed = asyncio.Queue()

    due = [b"due", None]

    class Due:
        def renewal_request(self):
            return due.pop(0)

    bench.controller.renew_identity = renewed.put
    bench.sidecar._identity = Due()
    await bench.sidecar._renew()
    assert renewed.get_nowait() == b"due"
    await bench.sidecar._renew()
    assert renewed.empty()


async def test_closing_twice_is_closing_once(bench) -> None:
    await bench.sidecar.close()
    await bench.sidecar.close()
    assert sum("stopped" in line for line in bench.log_lines) == 1

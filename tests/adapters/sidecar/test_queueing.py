"""Slots, bounds and fairness, as clients see them."""

import asyncio
import json

from tests.adapters.sidecar.conftest import read_request, receipt, request


class SteppedUpstream:
    """Answers one request for each step."""

    def __init__(self) -> None:
        self.steps = asyncio.Semaphore(0)
        self.order: list[bytes] = []
        self.at_once = 0
        self.most = 0

    async def script(self, reader, writer) -> None:
        while True:
            _, body = await read_request(reader)
            self.order.append(body)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await self.steps.acquire()
            self.at_once -= 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def test_a_flood_does_not_delay_another_tenant_beyond_its_share(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=100)
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    flood = [
        asyncio.create_task(bench.ask(request(commit=receipt(1, tenant="greedy"), body=b"flood"))) for _ in range(30)
    ]
    while bench.sidecar.path.queue.waiting < 29:
        await asyncio.sleep(0.001)
    other = [
        asyncio.create_task(bench.ask(request(commit=receipt(2, tenant="modest"), body=b"other"))) for _ in range(3)
    ]
    while bench.sidecar.path.queue.waiting < 32:
        await asyncio.sleep(0.001)
    for _ in range(33):
        stepped.steps.release()
    assert all(answer[0] == 200 for answer in await asyncio.gather(*flood, *other))
    places = [place for place, body in enumerate(stepped.order) if body == b"other"]
    assert places[0] <= 2
    assert places[-1] <= 6, "equal reservations take turns"


async def test_a_larger_reservation_gets_a_larger_share(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=200)
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    asking = [asyncio.create_task(bench.ask(request(commit=receipt(3), body=b"first")))]
    while not bench.sidecar.path.queue.in_service:
        await asyncio.sleep(0.001)
    for number, (body, rate) in enumerate([(b"three", 3000), (b"one", 1000)]):
        commit = receipt(number, tenant=body.decode(), rate=rate)
        asking += [asyncio.create_task(bench.ask(request(commit=commit, body=body))) for _ in range(40)]
    while bench.sidecar.path.queue.waiting < 80:
        await asyncio.sleep(0.001)
    for _ in range(81):
        stepped.steps.release()
    await asyncio.gather(*asking)
    first_forty = stepped.order[1:41]
    assert abs(first_forty.count(b"three") - 30) <= 2


async def test_no_more_than_the_slots_are_at_the_upstream(make_bench) -> None:
    bench = await make_bench(slots=3, waiting=50)
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    asking = [asyncio.create_task(bench.ask(request())) for _ in range(20)]
    while bench.sidecar.path.queue.waiting < 17:
        await asyncio.sleep(0.001)
    for _ in range(20):
        stepped.steps.release()
    await asyncio.gather(*asking)
    assert stepped.most == 3


async def test_a_full_queue_says_when_to_come_back(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=2)
    bench.upstream.script = SteppedUpstream().script
    waiting = [await bench.client() for _ in range(3)]
    for number, client in enumerate(waiting):
        client.send(request(commit=receipt(number, tenant=f"t{number}")))
    while bench.sidecar.path.queue.waiting < 2:
        await asyncio.sleep(0.001)
    status, fields, body = await bench.ask(request(commit=receipt(9, tenant="t9")))
    assert (status, json.loads(body)["error"]["code"]) == (429, "QUEUE_FULL")
    assert int(fields["retry-after"]) >= 1


async def test_one_tenant_fills_at_most_half_of_the_queue(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=4)
    bench.upstream.script = SteppedUpstream().script
    clients = [await bench.client() for _ in range(4)]
    for number, client in enumerate(clients):
        client.send(request(commit=receipt(number, tenant="greedy")))
    assert (await clients[3].response())[0] == 429
    assert bench.sidecar.path.queue.waiting == 2
    other = await bench.client()
    other.send(request(commit=receipt(8, tenant="modest")))
    while bench.sidecar.path.queue.waiting < 3:
        await asyncio.sleep(0.001)


async def test_who_leaves_the_queue_is_not_served(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=10)
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    first, second = await bench.client(), await bench.client()
    first.send(request(body=b"first"))
    while not bench.sidecar.path.queue.in_service:
        await asyncio.sleep(0.001)
    second.send(request(body=b"second"))
    while not bench.sidecar.path.queue.waiting:
        await asyncio.sleep(0.001)
    second.close()
    while bench.sidecar.path.queue.waiting:
        await asyncio.sleep(0.001)
    stepped.steps.release()
    assert (await first.response())[0] == 200
    assert stepped.order == [b"first"]
    assert bench.sidecar.path.gate.open_work == 0


async def test_what_is_sent_while_it_waits_is_bounded(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=10)
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    first, second = await bench.client(), await bench.client()
    first.send(request(body=b"first"))
    while not bench.sidecar.path.queue.in_service:
        await asyncio.sleep(0.001)
    second.send(request(body=b"x" * 20_000_000))
    former = -1
    while second.writer.transport.get_write_buffer_size() != former:
        former = second.writer.transport.get_write_buffer_size()
        await asyncio.sleep(0.05)
    assert former > 5_000_000, "the client is held back"
    stepped.steps.release()
    stepped.steps.release()
    assert (await second.response())[0] == 200
    assert len(stepped.order[1]) == 20_000_000


async def test_the_sum_of_what_gateways_let_pass_is_held_to_the_contract(make_bench) -> None:
    bench = await make_bench()
    contract = receipt(rate=2000, burst=3)
    answers = [await bench.ask(request(commit=contract)) for _ in range(20)]  # the clock stands still
    statuses = [status for status, _, _ in answers]
    passed = statuses.count(200)
    assert passed == 3 + 2, "the burst, and what 1.01 s at 2.002/s may push together"
    assert statuses == [200] * passed + [429] * (20 - passed)
    _, fields, body = answers[-1]
    said = json.loads(body)["error"]
    assert said["code"] == "GUARDRAIL_EXCEEDED"
    assert "2 requests per second in bursts of 3" in said["message"]
    assert fields["retry-after"] == "1"
    assert bench.upstream.all_bytes.count(b"POST /v1/chat/completions") == passed, "the model server saw no more"
    other = await bench.ask(request(commit=receipt(2, rate=2000, burst=3)))
    assert other[0] == 200, "another session's contract is another"
    bench.clocks.turn(500)
    assert (await bench.ask(request(commit=contract)))[0] == 200


async def test_without_reservations_nothing_is_held_back_and_the_line_is_one(make_bench) -> None:
    bench = await make_bench(slots=1, waiting=100, reservations=False)
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    greedy = receipt(1, tenant="greedy", rate=1, burst=1)
    asking = [asyncio.create_task(bench.ask(request(commit=greedy, body=b"flood"))) for _ in range(20)]
    while bench.sidecar.path.queue.waiting < 19:
        await asyncio.sleep(0.001)
    asking.append(asyncio.create_task(bench.ask(request(commit=receipt(2, tenant="modest"), body=b"other"))))
    while bench.sidecar.path.queue.waiting < 20:
        await asyncio.sleep(0.001)
    for _ in range(21):
        stepped.steps.release()
    assert all(answer[0] == 200 for answer in await asyncio.gather(*asking))
    assert stepped.order[-1] == b"other"


async def test_a_reserved_slot_is_there_while_another_tenant_holds_all_it_can(make_bench) -> None:
    bench = await make_bench(slots=3, waiting=100, own=["acme=1"])
    stepped = SteppedUpstream()
    bench.upstream.script = stepped.script
    asking = [
        asyncio.create_task(bench.ask(request(commit=receipt(1, tenant="greedy"), body=b"flood"))) for _ in range(10)
    ]
    while bench.sidecar.path.queue.waiting < 8:
        await asyncio.sleep(0.001)
    assert bench.sidecar.path.queue.in_service == 2
    asking.append(asyncio.create_task(bench.ask(request(commit=receipt(2, tenant="acme"), body=b"acme"))))
    while len(stepped.order) < 3:
        await asyncio.sleep(0.001)
    assert stepped.order[2] == b"acme"
    for _ in range(11):
        stepped.steps.release()
    assert all(answer[0] == 200 for answer in await asyncio.gather(*asking))
    assert stepped.most == 3

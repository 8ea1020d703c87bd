"""What a sidecar counts, from answers as model servers give them, and how its counts reach the controller once."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aipaging.adapters.sidecar.usage import (
    BATCH_MAX,
    END_BYTES_MAX,
    WHOLE_BYTES_MAX,
    UsageMeter,
    UsageWatch,
    tokens_of,
)
from aipaging.core.foundation.names import SessionId

from .conftest import SSE_HEAD, Bench, BenchMaker, receipt, request, sending, session_id

USAGE = {"prompt_tokens": 12, "completion_tokens": 30, "total_tokens": 42}
CHUNK = b'data: {"object":"chat.completion.chunk","choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'
DONE = b"data: [DONE]\n\n"


def whole(body: bytes, *, status: int = 200, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def stream(*events: bytes) -> bytes:
    return SSE_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def completion(text: str = "hello", **usage: int) -> bytes:
    choices = [{"message": {"role": "assistant", "content": text}}]
    return json.dumps({"object": "chat.completion", "choices": choices, "usage": usage or USAGE}).encode()


def counted(bench: Bench) -> dict[SessionId, tuple[int, int]]:
    batch = bench.sidecar.path.meter.batch()
    return {} if batch is None else dict(batch.used)


LONG = "lorem ipsum " * WHOLE_BYTES_MAX
EMBEDDING = [{"object": "embedding", "embedding": [0.125] * 20_000}]

ANSWERS = {
    "chat": (whole(completion()), 42),
    "long chat": (whole(completion(LONG)), 42),
    "embeddings, said first": (
        whole(
            json.dumps({"object": "list", "usage": {"prompt_tokens": 8, "total_tokens": 8}, "data": EMBEDDING}).encode()
        ),
        8,
    ),
    "embeddings, said last": (
        whole(json.dumps({"object": "list", "data": EMBEDDING, "usage": {"prompt_tokens": 9}}).encode()),
        9,
    ),
    "responses": (whole(json.dumps({"usage": {"input_tokens": 4, "output_tokens": 5}}).encode()), 9),
    "a text that says it": (whole(json.dumps({"content": LONG + '{"usage": {"total_tokens": 7}}'}).encode()), 0),
    "nothing said": (whole(b'{"choices":[]}'), 0),
    "no number": (whole(b'{"usage":{"total_tokens":"many"}}'), 0),
    "an absurd number": (whole(b'{"usage":{"total_tokens":99999999999999999999}}'), 0),
    "a stream": (
        stream(
            CHUNK, CHUNK, b'data: {"object":"chat.completion.chunk","choices":[],"usage":{"total_tokens":17}}\n\n', DONE
        ),
        17,
    ),
    "a stream that goes on counting": (
        stream(
            *(
                b'data: {"object":"chat.completion.chunk","choices":[],"usage":{"total_tokens":%d}}\n\n' % n
                for n in (5, 6, 7)
            ),
            DONE,
        ),
        7,
    ),
    "a stream that does not say": (stream(CHUNK, DONE), 0),
}


@pytest.mark.parametrize(("answer", "tokens"), ANSWERS.values(), ids=ANSWERS)
async def test_an_answer_is_a_request_and_the_tokens_that_it_states(bench: Bench, answer: bytes, tokens: int) -> None:
    bench.upstream.script = sending(answer, then="on")
    assert (await bench.ask(request()))[0] == 200
    assert counted(bench) == {session_id(): (1, tokens)}
    unsaid = await bench.metric("aipaging_anchor_tokens_unsaid_total")
    assert unsaid == f"aipaging_anchor_tokens_unsaid_total {int(not tokens)}"


async def test_a_stream_of_responses_states_its_tokens_in_its_last_event(bench: Bench) -> None:
    done = {"type": "response.completed", "response": {"text": LONG, "usage": {"total_tokens": 23}}}
    events = [b'event: response.created\ndata: {"response":{"usage":null}}\n\n']
    events.append(b"event: response.completed\ndata: " + json.dumps(done).encode() + b"\n\n")
    bench.upstream.script = sending(stream(*events), then="on")
    await bench.ask(request(target="/v1/responses"))
    assert counted(bench) == {session_id(): (1, 23)}


async def test_what_was_not_served_counts_for_nothing(bench: Bench) -> None:
    for answer in (whole(completion(), status=500), whole(completion(), status=429), stream(CHUNK), b"nonsense"):
        bench.upstream.script = sending(answer)
        client = await bench.client()
        client.send(request())
        await client.reader.read(1)
    bench.upstream.script = sending(SSE_HEAD + b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK), then="stall")
    client = await bench.client()
    client.send(request())
    assert (await client.head())[0] == 200
    bench.lapse(61_000)
    assert b"LEASE_ENDED" in await client.until_closed()
    assert counted(bench) == {}


async def test_a_client_that_leaves_has_been_served(bench: Bench) -> None:
    said = b'data: {"object":"chat.completion.chunk","choices":[],"usage":{"total_tokens":3}}\n\n'
    bench.upstream.script = sending(SSE_HEAD + b"%x\r\n%b\r\n" % (len(said), said), then="stall")
    client = await bench.client()
    client.send(request())
    await client.head()
    await client.reader.readuntil(b"}}")
    client.close()
    while not (found := counted(bench)):
        await asyncio.sleep(0.01)
    assert found == {session_id(): (1, 3)}


async def test_sessions_and_requests_add_up(bench: Bench) -> None:
    bench.upstream.script = sending(whole(completion()), then="on")
    for session in (1, 2, 1):
        await bench.ask(request(commit=receipt(session)))
    assert counted(bench) == {session_id(1): (2, 84), session_id(2): (1, 42)}


async def test_a_batch_is_sent_again_unchanged_until_it_is_answered(make_bench: BenchMaker) -> None:
    bench = await make_bench(usage_s=0.01)
    bench.controller.deaf_to_usage = True
    bench.upstream.script = sending(whole(completion()), then="on")
    await bench.ask(request())
    await bench.controller.usage_heard.wait()
    await bench.ask(request())  # counted while the first batch is under way
    bench.controller.deaf_to_usage = False
    while len({batch.number for batch in bench.controller.usage_batches}) < 2:
        await asyncio.sleep(0.01)
    *first, last = bench.controller.usage_batches
    assert {(batch.number, batch.used[session_id()]) for batch in first} == {(1, (1, 42))}
    assert len(first) >= 2
    assert (last.number, last.used) == (2, {session_id(): (1, 42)})


async def test_a_drained_sidecar_says_what_it_counted_before_it_goes(bench: Bench) -> None:
    bench.upstream.script = sending(whole(completion()), then="on")
    await bench.ask(request())
    bench.clocks.turn(61_000)  # no lease is left to be drained
    await bench.sidecar.drain()
    (batch,) = bench.controller.usage_batches
    assert batch.used == {session_id(): (1, 42)}


async def test_a_count_that_is_not_believed_is_told_and_not_repeated(make_bench: BenchMaker) -> None:
    bench = await make_bench(usage_s=0.01)
    bench.controller.disbelieved = frozenset({session_id()})
    bench.upstream.script = sending(whole(completion()), then="on")
    await bench.ask(request())
    await bench.controller.usage_heard.wait()
    while "usage_refused_total 1" not in await bench.metric("aipaging_anchor_usage_refused_total"):
        await asyncio.sleep(0.01)
    assert any('"count_refused"' in line and "USAGE_IMPLAUSIBLE" in line for line in bench.log_lines)
    assert bench.sidecar.path.meter.batch() is None


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 9)), max_size=50), st.integers(0, 3))
def test_batches_hold_every_count_once(counts: list[tuple[int, int]], lost_answers: int) -> None:
    meter, said = UsageMeter(), {}
    for number, tokens in counts:
        meter.count(session_id(number), tokens)
    while (batch := meter.batch()) is not None:
        for _ in range(lost_answers):
            assert meter.batch() is batch
        assert len(batch.used) <= BATCH_MAX
        said[batch.number] = batch.used
        meter.taken(batch)
        meter.taken(batch)  # an answer that comes late changes nothing
    assert sorted(said) == list(range(1, len(said) + 1))
    assert sum(requests for used in said.values() for requests, _ in used.values()) == len(counts)
    assert sum(tokens for used in said.values() for _, tokens in used.values()) == sum(t for _, t in counts)


def test_more_sessions_than_a_batch_holds_take_several() -> None:
    meter = UsageMeter()
    for number in range(BATCH_MAX + 1):
        meter.count(session_id(number), 1)
    first = meter.batch()
    assert first is not None
    meter.taken(first)
    second = meter.batch()
    assert second is not None
    assert (len(first.used), len(second.used)) == (BATCH_MAX, 1)


@given(st.binary(max_size=64 * 1024), st.lists(st.integers(1, 9_000), max_size=20))
def test_a_watch_keeps_little_and_survives_everything(body: bytes, cuts: list[int]) -> None:
    watch = UsageWatch()
    for size in [*cuts, len(body) or 1]:
        watch.see(body[:size])
        kept = sum(len(piece) for piece in watch._pieces)
        assert kept <= WHOLE_BYTES_MAX + END_BYTES_MAX
        body = body[size:]
    assert watch.tokens is None or watch.tokens >= 0


@given(st.lists(st.integers(1, 40), min_size=1, max_size=400), st.integers(0, 20_000))
def test_pieces_do_not_matter(cuts: list[int], padding: int) -> None:
    body = completion("y" * padding)
    watch = UsageWatch()
    for size in [*cuts, len(body)]:
        watch.see(body[:size])
        body = body[size:]
    assert watch.tokens == 42


@pytest.mark.parametrize("said", [None, [], {}, {"total_tokens": -1}, {"total_tokens": True}, {"total_tokens": 1.5}, 7])
def test_what_is_no_count_is_none(said: object) -> None:
    assert tokens_of(said) is None

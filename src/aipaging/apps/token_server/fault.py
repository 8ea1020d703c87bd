"""Ways to break an answer on purpose, so that whoever stands before this server can be seen to notice."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from aipaging.core.foundation.errors import InvalidInputError

FaultKind = Literal[
    "reset",
    "truncate",
    "stall",
    "garbage",
    "429",
    "500",
    "400",
    "503",
    "refuse",
    "silent",
    "late",
    "malformed",
    "no-done",
    "trailing",
    "too-short",
    "too-long",
    "empty",
]

FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

STATUS_KINDS: Final = frozenset({"429", "500", "400", "503"})

UNANSWERED_KINDS: Final = frozenset({"refuse", "silent"})
"""Nothing of an answer is sent."""

RAW_KINDS: Final = frozenset({"too-short", "too-long"})
"""HTTP libraries refuse to send these, so they are written past ours."""

LATE_S: Final = 0.5
"""How late the first token of a `late` answer is: longer than a gateway's buffers, shorter than anybody's patience."""

FAULT_HEADER: Final = b"x-load-generator-fault"
"""A request may ask for a fault of its own: `x-load-generator-fault: reset:3`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken answer.

    Attributes:
        kind: `reset`: TCP reset. `truncate`: the connection ends without the terminating chunk. `stall`: nothing more
            comes. `garbage`: bytes that are no event, then a clean end without `[DONE]`. `429`, `500`: that status, or
            after tokens have been sent an error event and a truncation. `400`, `503`: likewise. `refuse`: TCP reset
            before any byte of an answer. `silent`: the request is taken, and nothing ever comes. `late`: the head comes
            at once, the first token half a second later. `malformed`: one event more that is no JSON, then the
            rest as if nothing were. `no-done`: all but `data: [DONE]`. `trailing`: bytes behind the end of a whole
            answer. `too-short`, `too-long`: the content length promises more than comes, or less. `empty`: a stream
            without a single event that ends well.
        after_tokens: Tokens that are sent before.
    """

    kind: FaultKind
    after_tokens: int = 0


def parsed_fault(text: str, *, field: str = "fault") -> Fault:
    """Return the fault `KIND` or `KIND:TOKENS`.

    Raises:
        InvalidInputError: It is not one.
    """
    name, colon, after = text.strip().partition(":")
    for kind in FAULT_KINDS:
        if kind == name and (not colon or (after.isascii() and after.isdigit() and len(after) < 7)):
            return Fault(kind=kind, after_tokens=int(after or 0))
    raise InvalidInputError(
        f"{field} is {text[:40]!r}: expected {', '.join(FAULT_KINDS)}, each with the number of tokens before it, such "
        "as truncate:5",
        field=field,
    )

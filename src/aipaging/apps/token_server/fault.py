"""Ways to break an answer on purpose, so that whoever stands before this server can be seen to notice."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from aipaging.core.foundation.errors import InvalidInputError

FaultKind = Literal["reset", "truncate", "stall", "garbage", "429", "500"]

FAULT_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)

FAULT_HEADER: Final = b"x-load-generator-fault"
"""A request may ask for a fault of its own: `x-load-generator-fault: reset:3`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One broken answer.

    Attributes:
        kind: `reset`: TCP reset. `truncate`: the connection ends without the terminating chunk. `stall`: nothing more
            comes. `garbage`: bytes that are no event, then a clean end without `[DONE]`. `429`, `500`: that status, or
            after tokens have been sent an error event and a truncation.
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

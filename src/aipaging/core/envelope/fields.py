"""The kinds of field that signed documents are made of."""

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.core.envelope.decimals import DECIMAL_CHARS_MAX, DECIMAL_PATTERN

END: Final = r"$(?!\n)"
"""The end of a text, and not before its last line feed."""

_NAME: Final = "[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?"


def about(what: str) -> Meta:
    """Return the description of a member."""
    return Meta(description=what)


Amount: TypeAlias = Annotated[str, Meta(max_length=DECIMAL_CHARS_MAX, pattern=DECIMAL_PATTERN)]
"""A decimal, exact, as a string."""
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern=f"^{_NAME}{END}")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Instant: TypeAlias = Annotated[
    str, Meta(max_length=20, pattern=rf"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}T[0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}}Z{END}")
]
Digest: TypeAlias = Annotated[str, Meta(max_length=64, pattern=f"^[0-9a-f]{{64}}{END}")]
Sentence: TypeAlias = Annotated[str, Meta(max_length=512, pattern=f"^[ -~]*{END}")]


class Closed(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """What every part of a document has in common: no member that the schema does not know."""

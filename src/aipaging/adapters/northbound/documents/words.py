"""The words that documents are made of, each with its grammar and its limits (CAMARA: no unbounded string or array).

Answers are encoded without checking; there the limits describe, in requests they are enforced.
"""

import datetime as dt
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.core.anchor.catalogue import DomainKind
from aipaging.core.anchor.intent import DataClass
from aipaging.core.envelope.envelope import Dependence
from aipaging.core.foundation.time import SECOND

END: Final = "$(?!\\n)"
"""The end and nothing after it: in Python's expressions `$` alone lets a line feed pass."""

NAME_PATTERN: Final = "^[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?" + END
SESSION_PATTERN: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}" + END
SERVICE_PATTERN: Final = "^aisi://[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64}" + END
PRINTABLE_PATTERN: Final = "^[ -~]*" + END
"""ASCII that shows: what is put in records, headers and terminals without escaping."""

ANSWER_ITEMS_MAX: Final = 1_000
"""Items in one list of an answer: about a megabyte; more is asked for page by page."""

PAGE_MAX: Final = 1_000_000
PER_PAGE_MAX: Final = 1_000
RATE_RPS_MAX: Final = 1_000_000_000.0
"""Capacity of a whole domain."""

Name: TypeAlias = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=NAME_PATTERN,
        description="Lower-case letters, digits, dots and hyphens, beginning and ending with a letter or digit.",
    ),
]
SessionIdText: TypeAlias = Annotated[str, Meta(max_length=36, pattern=SESSION_PATTERN, description="A session's id.")]
Aisi: TypeAlias = Annotated[
    str,
    Meta(
        max_length=256,
        pattern=SERVICE_PATTERN,
        description="AI service identity, `aisi://<operator>/<service>/<variant>`: never an address.",
    ),
]
Word: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._+-]*" + END)]
Text: TypeAlias = Annotated[str, Meta(max_length=512, pattern=PRINTABLE_PATTERN)]
Sentence: TypeAlias = Annotated[str, Meta(max_length=1024)]
Language: TypeAlias = Annotated[
    str,
    Meta(max_length=35, pattern="^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*" + END, description="ISO 639 code, such as `en`."),
]
Words: TypeAlias = Annotated[list[Word], Meta(max_length=32)]
Url: TypeAlias = Annotated[str, Meta(max_length=2048)]
Token: TypeAlias = Annotated[str, Meta(max_length=4096)]
Digest: TypeAlias = Annotated[str, Meta(max_length=64, pattern="^[0-9a-f]{64}" + END, description="Hex SHA-256.")]
Instant: TypeAlias = Annotated[dt.datetime, Meta(tz=True, extra_json_schema={"maxLength": 40})]

Probability: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
DelayMs: TypeAlias = Annotated[float, Meta(ge=0.0, le=1e9, description="Milliseconds.")]
RatePerSecond: TypeAlias = Annotated[float, Meta(ge=0.0, le=RATE_RPS_MAX, description="Requests per second.")]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Burst: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
Milliseconds: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Trust: TypeAlias = Annotated[int, Meta(ge=0, le=5, description="0 (none claimed) to 5 (hardware-attested).")]
Port: TypeAlias = Annotated[int, Meta(ge=1, le=65_535)]
Price: TypeAlias = Annotated[
    int, Meta(ge=0, le=10**15, description="Per 1,000 requests, in millionths of the catalogue's currency.")
]
Page: TypeAlias = Annotated[int, Meta(ge=1, le=PAGE_MAX, description="From 1 on.")]
PerPage: TypeAlias = Annotated[int, Meta(ge=1, le=PER_PAGE_MAX, description="The most that a page holds.")]

DataClassWord: TypeAlias = Literal["PUBLIC", "INTERNAL", "CONFIDENTIAL", "RESTRICTED"]
DomainKindWord: TypeAlias = Literal["ACCESS", "TRANSPORT", "COMPUTE"]
DependenceWord: TypeAlias = Literal["ANY", "CONDITIONAL", "INDEPENDENT"]

DATA_CLASS_WORDS: Final[dict[DataClass, DataClassWord]] = {
    DataClass.PUBLIC: "PUBLIC",
    DataClass.INTERNAL: "INTERNAL",
    DataClass.CONFIDENTIAL: "CONFIDENTIAL",
    DataClass.RESTRICTED: "RESTRICTED",
}
DOMAIN_KIND_WORDS: Final[dict[DomainKind, DomainKindWord]] = {
    DomainKind.ACCESS: "ACCESS",
    DomainKind.TRANSPORT: "TRANSPORT",
    DomainKind.COMPUTE: "COMPUTE",
}
DEPENDENCE_WORDS: Final[dict[Dependence, DependenceWord]] = {
    Dependence.ANY: "ANY",
    Dependence.CONDITIONAL: "CONDITIONAL",
    Dependence.INDEPENDENT: "INDEPENDENT",
}


class Pagination(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which part of a list an answer holds; beyond the end it is empty, and no error."""

    page: Page
    per_page: PerPage
    total_count: Annotated[Count, Meta(description="Items in all pages.")]
    total_pages: Annotated[Count, Meta(description="Pages of this size.")]


def instant(wall_us: int) -> dt.datetime:
    """Return an instant of the wall clock for a document, exact to the microsecond."""
    seconds, micros = divmod(wall_us, SECOND)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=micros)


def wall_us_of(moment: dt.datetime) -> int:
    """Return the instant of a document on the wall clock."""
    return (moment - dt.datetime.fromtimestamp(0, dt.UTC)) // dt.timedelta(microseconds=1)


def rate_of(mrps: int) -> float:
    """Return thousandths of a request per second as requests per second."""
    return mrps / 1000

"""What comes out of reading a sentence: a structured intent, where each field came from, and what is still open.

Nothing here commits to anything. A `Reading` is shown to whoever asked; only the structured intent is ever paged.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from aipaging.core.anchor.intent import Intent
from aipaging.core.foundation.names import DomainName

Value: TypeAlias = str | int | float | tuple[str, ...] | tuple[str, float]
"""What a field of an intent may hold before it is an intent; a quality is (benchmark, score)."""


class Status(enum.Enum):
    """What became of the sentence."""

    RESOLVED = "resolved"
    NEEDS_CLARIFICATION = "needs_clarification"
    NO_MATCH = "no_match"


class Source(enum.Enum):
    """Where the value of a field came from."""

    TEXT = "TEXT"
    REQUEST = "REQUEST"
    POLICY = "POLICY"
    DEFAULT = "DEFAULT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of the sentence: characters from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where one field came from.

    Attributes:
        field: Name of the field of `Intent`.
        value: What was read.
        source: The sentence, the structured part of the request, the operator's policy, or the default.
        span: The words, if it was the sentence.
        quote: The words themselves.
    """

    field: str
    value: Value
    source: Source
    span: Span | None = None
    quote: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What must be answered before the intent is complete.

    Attributes:
        field: The field that is missing, contradictory or not understood; "" if no field fits.
        message: The question, as a sentence.
        choices: Answers that would be understood, if there are few.
    """

    field: str
    message: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a sentence was read as.

    Attributes:
        status: RESOLVED: `intent` is complete. NEEDS_CLARIFICATION: see `questions`. NO_MATCH: this is not about an
            AI service that anybody here offers.
        intent: The structured intent, or None.
        provenance: One per field that has a value, in the order of the fields.
        questions: What is still open.
        task_confidence: How sure the task is, between 0 and 1.
    """

    status: Status
    intent: Intent | None
    provenance: tuple[Provenance, ...]
    questions: tuple[Question, ...]
    task_confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """The words that mean something here and now: those of the catalogue.

    Attributes:
        tasks: Tasks that are offered.
        access: Access domains and the region that each lies in.
        regions: Regions in which some compute domain lies.
        jurisdictions: Jurisdictions of compute domains.
        benchmarks: Benchmarks on which services have scores.
        licences: SPDX ids of the licences of services.
        currency: ISO 4217 code of the catalogue's prices.
    """

    tasks: tuple[str, ...]
    access: Mapping[DomainName, str] = field(default_factory=dict[DomainName, str])
    regions: tuple[str, ...] = ()
    jurisdictions: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    currency: str = "EUR"


FIELDS: Final = (
    "task",
    "modality",
    "place",
    "delay_ms",
    "epsilon",
    "delay_scope",
    "rate_rps",
    "burst",
    "duration_s",
    "quality",
    "language",
    "regions",
    "jurisdictions",
    "trust_min",
    "data_class",
    "licences",
    "cost_max",
    "prefer",
)
"""The fields of an intent, in the order in which they are shown."""

REQUIRED: Final = ("task", "place", "delay_ms")
"""Fields without a default: nobody guesses them."""

"""The configuration of a running controller, on the wire."""

from typing import Annotated

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import ANSWER_ITEMS_MAX, Instant, Sentence
from aipaging.runtime.http.faults import Fault

Part = Annotated[str, Meta(max_length=256, description="A section or a key of the file, or the name of an entry.")]


class ConfigurationProblem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A mistake in the file."""

    message: Annotated[Sentence, Meta(description="What is wrong, and what is allowed.")]
    field: Annotated[Part, Meta(description="Where, such as `limits.kept_ms`.")] | None = None
    line: Annotated[int, Meta(ge=1, le=10_000_000, description="In the file, from 1.")] | None = None


Problems = Annotated[
    list[ConfigurationProblem], Meta(max_length=ANSWER_ITEMS_MAX, description="Why the file as it is is not taken.")
]


class ConfigurationStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Which configuration a controller runs with, and how the file stands against it."""

    file: Annotated[str, Meta(max_length=4096, description="Where it was read.")]
    in_force_since: Annotated[Instant, Meta(description="When it was read and taken.")]
    applied: Annotated[list[Part], Meta(max_length=64, description="What the last reload changed.")] = []
    needs_restart: Annotated[
        list[Part], Meta(max_length=64, description="What differs in the file and waits for a restart.")
    ] = []
    left: Annotated[
        list[Part],
        Meta(max_length=ANSWER_ITEMS_MAX, description="Entries that went from the file: they stay until removed."),
    ] = []
    problems: Problems = []


class ConfigurationRefusal(Fault, frozen=True, kw_only=True, rename="camel"):
    """A file that was not taken: nothing has changed."""

    problems: Problems

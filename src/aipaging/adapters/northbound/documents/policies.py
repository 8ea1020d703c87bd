"""Policies on the wire."""

from typing import Annotated

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import Sentence


class PolicyStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The policies in force; an empty digest: none, everything is allowed."""

    digest: Annotated[str, Meta(max_length=64, pattern="^([0-9a-f]{64})?$", description="SHA-256 of the file.")]
    file: Annotated[str, Meta(max_length=4096, description="Where they were read.")]
    policies: Annotated[list[Annotated[str, Meta(max_length=128)]], Meta(max_length=2000, description="Their ids.")]
    error: Annotated[Sentence, Meta(description="Why the file as it is now was not taken.")] = ""

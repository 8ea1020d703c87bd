"""What was promised and by whom: signed originals, the key sets that they were held against, and how contracts stand.

Kept apart from the catalogue, which holds what admission computes with: nothing here enters a bound.
"""

import enum
from dataclasses import dataclass, field
from typing import Final

import msgspec

from aipaging.core.anchor.eligibility import Nearest
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import WallUs

ORIGINALS_MAX: Final = 4_096
"""Signed originals that are kept, those in force always: at a kilobyte each a few megabytes, 64 MB at the very worst.
Older ones are in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A signed envelope as it came, so that the digests in the evidence can be resolved.

    Attributes:
        domain: Who promised.
        segment: About what.
        sequence: Its sequence number.
        signed: The compact JWS.
        key_id: The key that signed it.
        accepted_us: When it was accepted.
    """

    domain: DomainName
    segment: str
    sequence: int
    signed: str
    key_id: str
    accepted_us: WallUs


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The keys that a domain calls its own.

    Attributes:
        jwks: The JWK Set, canonical JSON.
        key_ids: The keys in it that envelopes may be signed with.
        digest: Hex SHA-256 of `jwks`.
        source: Where it came from: FILE, URL or API.
    """

    jwks: str
    key_ids: tuple[str, ...]
    digest: str
    source: str


class ContractState(enum.Enum):
    """Whether what a session was promised is provable now."""

    HELD = "HELD"
    DEGRADED = "DEGRADED"


class Contract(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """How a session's contract stands.

    Attributes:
        state: Whether its bound is a theorem under the envelopes in force.
        since_us: Since when, wall clock.
        constraint: Of a degraded one: the constraint that fails where the session is.
        message: The sentence that says how.
        nearest: What could be promised there instead.
    """

    state: ContractState
    since_us: WallUs
    constraint: str = ""
    message: str = ""
    nearest: Nearest | None = None


@dataclass(slots=True)
class Promises:
    """Originals by digest, oldest first, and the key sets of domains that sign for themselves."""

    originals: dict[str, Original] = field(default_factory=dict[str, Original])
    key_sets: dict[DomainName, KeySet] = field(default_factory=dict[DomainName, KeySet])

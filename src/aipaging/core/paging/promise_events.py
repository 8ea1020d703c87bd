"""What has happened to promises: envelopes come and go, and contracts are held or not.

Part of `core.paging.events`: each becomes exactly one evidence record.
"""

from dataclasses import dataclass

from aipaging.core.anchor.eligibility import Nearest
from aipaging.core.envelope.admission import TailBound
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import DomainName, SessionId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.paging.promises import KeySet


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeAccepted:
    """A verified envelope is in force, in place of the one of its domain and segment before it.

    Attributes:
        envelope: What admission reads.
        boot_us: When.
        wall_us: When.
        signed: The signed original, a compact JWS.
        key_id: The key that signed it.
    """

    envelope: Envelope
    boot_us: BootUs
    wall_us: WallUs
    signed: str = ""
    key_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeSuspected:
    """An envelope in force is not believed any more: nothing is admitted under it."""

    domain: DomainName
    segment: str
    digest: str
    reason: str
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvelopeCleared:
    """A suspicion was taken back."""

    domain: DomainName
    segment: str
    digest: str
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysRegistered:
    """A domain signs for itself, with these keys and no others."""

    domain: DomainName
    key_set: KeySet


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitRebound:
    """A COMMIT rests on other envelopes than before, or its bound is another one; it still keeps its contract."""

    session: SessionId
    epoch: Epoch
    bound: TailBound
    envelopes: tuple[str, ...]
    boot_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionDegraded:
    """A session's contract is not provable any more where it is, or for another reason than before.

    Attributes:
        session: Whose.
        constraint: What fails.
        message: How.
        nearest: What could be promised instead.
        boot_us: When.
        wall_us: When.
    """

    session: SessionId
    constraint: str
    message: str
    nearest: Nearest | None
    boot_us: BootUs
    wall_us: WallUs


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRestored:
    """A session's contract is provable again."""

    session: SessionId
    boot_us: BootUs
    wall_us: WallUs

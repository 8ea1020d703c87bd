"""The port to what has been revoked, as enforcement points ask for it."""

from collections.abc import Sequence
from typing import Protocol

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId


class RevokedEpoch(Protocol):
    """Every epoch of the session up to and including this one is dead."""

    @property
    def session(self) -> SessionId:
        """Whose."""
        ...

    @property
    def epoch(self) -> Epoch:
        """The highest dead epoch."""
        ...


class Revocations(Protocol):
    """What was revoked since a place in the feed."""

    @property
    def term(self) -> int:
        """The leadership that speaks."""
        ...

    @property
    def sequence(self) -> int:
        """The place to ask from next."""
        ...

    @property
    def entries(self) -> Sequence[RevokedEpoch]:
        """What was revoked, the oldest first."""
        ...

    @property
    def reset(self) -> bool:
        """Whether the feed does not reach back to the place asked from: ask about every lease that is held."""
        ...


class RevocationFeed(Protocol):
    """Says what was revoked, as soon as it is."""

    async def since(self, term: int, sequence: int, *, wait_s: float) -> Revocations:
        """Return what was revoked after the place, waiting up to `wait_s` for the first entry."""
        ...

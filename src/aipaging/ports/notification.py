"""The ports of notifications: who signs them, who sends one, and what remembers how far they came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where events go.

    Attributes:
        key: Names it in lists and logs: `session:<id>` or `sink:<name>`; never the URL, which is private.
        tenant: Whose it is; "" for the operator's own.
        url: Where to post.
        token: Bearer token, or "".
        expires_us: When the token ends, wall clock, or 0 for never.
    """

    key: str
    tenant: str
    url: str = field(repr=False)
    token: str = field(default="", repr=False)
    expires_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a sink answered.

    Attributes:
        status: HTTP status; 0 when there was none.
        reason: What went wrong, in a word, where there was no status.
        retry_after_s: What it asked for, or 0.
        final: Whether trying again is of no use.
    """

    status: int = 0
    reason: str = ""
    retry_after_s: float = 0.0
    final: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """An event that was not delivered.

    Attributes:
        destination: The key of the destination.
        tenant: Whose.
        event_id: Of the event.
        event_type: Of the event.
        session: Whose event it is, or "".
        reason: Why, in a word.
        attempts: How often it was tried.
        wall_us: When it was given up.
    """

    destination: str
    tenant: str
    event_id: str
    event_type: str
    session: str
    reason: str
    attempts: int
    wall_us: int


class MessageSigner(Protocol):
    """Signs HTTP messages with a key of its own."""

    @property
    def key_id(self) -> str:
        """Names the key in the published key set."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return an Ed25519 signature."""
        ...


class Notifier(Protocol):
    """Posts one document to one place; never raises for what a sink does."""

    async def post(self, destination: Destination, body: bytes) -> Taken:
        """Return what became of one attempt, within a time limit of its own."""
        ...


class DeliveryLedger(Protocol):
    """What survives a restart. It blocks: it is called in a thread."""

    def progress(self) -> tuple[int | None, Mapping[str, int]]:
        """Return up to which record everything is settled (None on first use), and which destinations are ahead."""
        ...

    def save(self, settled: int, ahead: Mapping[str, int], dead: Sequence[DeadLetter]) -> None:
        """Keep how far it came, and what was given up since."""
        ...

    def dead_letters(self, first: int, count: int) -> tuple[int, Sequence[DeadLetter]]:
        """Return how many there are, and some of them, the newest first."""
        ...


class Notifications(Protocol):
    """Notifications, as those who take sinks see them."""

    def check(self, url: str) -> None:
        """Check a sink's URL as far as it can be without the network.

        Raises:
            InvalidInputError: It may not be used (`INVALID_SINK`).
        """
        ...

    async def dead_letters(self, first: int, count: int) -> tuple[int, Sequence[DeadLetter]]:
        """Return how many dead letters there are, and some of them, the newest first."""
        ...

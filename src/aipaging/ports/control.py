"""The port to the engine, as those who ask it use it."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import Now
from aipaging.core.paging.commands import Command, Reply
from aipaging.core.paging.state import State

T = TypeVar("T")


class ControlPlane(Protocol):
    """Takes commands and answers questions; every answer is durable before it is given."""

    @property
    def healthy(self) -> bool:
        """Whether it may grant time: it leads, and its journal is writable."""
        ...

    @property
    def ill(self) -> str:
        """Why it is not healthy, in a sentence; "" if it is."""
        ...

    @property
    def stalled_s(self) -> float:
        """For how many seconds the journal has not answered what it was given; 0 if nothing is under way."""
        ...

    async def submit(self, command: Command) -> Reply:
        """Carry a command out; returns when it is durable and what it promises is in force.

        Raises:
            AipagingError: It is not possible; nothing of it remains.
        """
        ...

    def note(self, command: Command) -> None:
        """Put a command on record for which nobody waits; it is lost where it is not possible now.

        Whoever reads is not kept waiting, and may read while nothing can be recorded.
        """
        ...

    async def view(self, read: Callable[[State, Now], T], of: SessionId | None = None) -> T:
        """Return what `read` makes of the state, once all that it may have seen is durable.

        Args:
            read: Looks at the state.
            of: The one session that it looks at; None if it looks at more.
        """
        ...

    async def erase(self, session: SessionId) -> bool:
        """Delete what is private of a session, and put that on record; return whether it was ever stored.

        Raises:
            RefusedError: It is live, or ended a short while ago.
            UnavailableError: It is not deleted, or not for good: ask again.
        """
        ...

"""What the engine asks of whoever carries effects out, and what it may record while the journal is ill."""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol, get_args

from aipaging.core.paging.effects import Effect, Restrictive
from aipaging.core.paging.events import Event, Observation
from aipaging.core.paging.records import RESTRICTIVE

RESTRICTIVE_EFFECTS: Final = (Restrictive,) if isinstance(Restrictive, type) else get_args(Restrictive)
"""What starts at once and waits for nothing; all other effects are permissive."""

_OBSERVATIONS: Final = get_args(Observation)


class Effects(Protocol):
    """Who carries effects out."""

    def prepare(self, effects: Sequence[Effect]) -> None:
        """Make ready what permissive effects will need, while the journal writes; nobody is told anything."""
        ...

    def restrict(self, effects: Sequence[Effect]) -> asyncio.Future[None]:
        """Start restrictive effects; the future is done when they are in force."""
        ...

    async def permit(self, effects: Sequence[Effect]) -> None:
        """Carry permissive effects out; return when what an answer must wait for is in force.

        Raises:
            UnavailableError: Steering could not be installed.
        """
        ...


def only_restrict(events: Sequence[Event]) -> bool:
    """Tell whether events do nothing but take away."""
    return all(type(event) in RESTRICTIVE or isinstance(event, _OBSERVATIONS) for event in events)

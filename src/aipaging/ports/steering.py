"""The port to the user plane."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.steering.grant import AnchorEndpoint, Fence, SteeringGrant, SteeringRenewal

OnInstalled: TypeAlias = Callable[[SessionId, AnchorId, Epoch, GatewayId], Awaitable[None]]
"""Called the first time a gateway takes up an epoch, and awaited before it may steer: the journal has it then."""


class SteeringDriver(Protocol):
    """Holds steering state in a user plane that enforces every deadline itself.

    `aipaging.testing.steering.check_steering_driver` proves an implementation.
    """

    lease_ms_min: int
    """The shortest lease that this user plane can hold."""

    async def place_anchors(self, anchors: Sequence[AnchorEndpoint]) -> None:
        """Make exactly these anchors reachable; return when every connected gateway knows them."""
        ...

    async def install(self, grants: Sequence[SteeringGrant]) -> None:
        """Steer these sessions; a higher epoch replaces a lower one without a gap.

        Returns when it is in force at every connected gateway: a request that starts afterwards reaches the
        grant's anchor, and none reaches the anchor of an older epoch.

        Raises:
            RefusedError: An epoch is lower than one already seen for its session (`FENCED`).
            UnavailableError: A gateway did not confirm; the older grant is still in force there.
        """
        ...

    async def renew(self, renewals: Sequence[SteeringRenewal]) -> None:
        """Move the deadlines of grants that are still held; unknown or fenced ones are left as they are."""
        ...

    async def revoke(self, fences: Sequence[Fence]) -> None:
        """Stop steering these epochs; return when no connected gateway starts a request under them."""
        ...

    async def reconcile(self, term: int, grants: Sequence[SteeringGrant]) -> None:
        """Begin a term: exactly these grants remain, whatever else is found in the user plane is removed."""
        ...

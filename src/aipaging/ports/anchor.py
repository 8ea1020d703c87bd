"""The port to an anchor's sidecar, as the controller uses it."""

from typing import Protocol

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.core.steering.grant import AnchorEndpoint


class AnchorClient(Protocol):
    """Asks an anchor whether it can take a session."""

    async def prepare(self, anchor: AnchorEndpoint, session: SessionId, epoch: Epoch) -> None:
        """Return once the anchor's sidecar has answered that it and its upstream are ready for the session.

        Raises:
            UnavailableError: It did not answer in time, is draining, or its upstream is not healthy.
        """
        ...

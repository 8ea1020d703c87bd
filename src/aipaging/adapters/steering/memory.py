"""The reference driver: the semantics of the port on an injected clock, with one gateway and no wire.

`route` is its data plane. It judges the deadline itself, at the moment of the request: nothing that the controller
does or fails to do makes a grant last longer.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from aipaging.adapters.steering.receipts import PackedReceipt, Receipts
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.core.steering.grant import AnchorEndpoint, Fence, SteeringGrant, SteeringRenewal
from aipaging.ports.steering import OnInstalled

MEMORY_GATEWAY: Final = GatewayId("memory")

FENCES_SWEEP_MIN: Final = 4_096
"""Fences are swept when they have doubled since the last time, and not before there are this many."""


class _Steered(msgspec.Struct, gc=False):
    """One session's steering; small, for there is one for every live session."""

    anchor: AnchorId
    epoch: Epoch
    deadline_us: BootUs
    token_expires_us: WallUs
    receipt: PackedReceipt | str


class MemorySteering:
    """Steers in this process; implements `ports.steering.SteeringDriver`."""

    lease_ms_min: int = 1
    """Deadlines are integers of microseconds and are judged at every request."""

    def __init__(
        self,
        clock: Callable[[], Now],
        *,
        gateway: GatewayId = MEMORY_GATEWAY,
        on_installed: OnInstalled | None = None,
    ) -> None:
        """Set up.

        Args:
            clock: Read at every call and every routed request.
            gateway: What the one gateway is called in evidence.
            on_installed: Awaited before an epoch is in force for the first time.
        """
        self._clock = clock
        self._gateway = gateway
        self._on_installed = on_installed
        self._term = 0
        self._anchors: frozenset[AnchorId] = frozenset()
        self._steered: dict[SessionId, _Steered] = {}
        self._receipts = Receipts()
        self._fences: dict[SessionId, Fence] = {}
        self._sweep_at = FENCES_SWEEP_MIN

    def route(self, session: SessionId) -> AnchorId | None:
        """Return the anchor that a request of the session reaches now, or None if it is refused."""
        steered = self._steered.get(session)
        if steered is None or steered.anchor not in self._anchors:
            return None
        now = self._clock()
        if steered.deadline_us <= now.boot_us or steered.token_expires_us <= now.wall_us:
            return None
        return steered.anchor

    def receipt(self, session: SessionId) -> str:
        """Return the receipt that goes along with the session's requests; empty if it is not steered."""
        steered = self._steered.get(session)
        return "" if steered is None else str(steered.receipt)

    async def place_anchors(self, anchors: Sequence[AnchorEndpoint]) -> None:
        """Make exactly these anchors reachable."""
        self._anchors = frozenset(anchor.anchor for anchor in anchors)

    async def install(self, grants: Sequence[SteeringGrant]) -> None:
        """Steer these sessions; see the port."""
        for grant in grants:
            self._check(grant)
        for grant in grants:
            known = self._steered.get(grant.session)
            if known is not None and known.epoch == grant.epoch:
                known.deadline_us = max(known.deadline_us, grant.deadline_us)
                continue
            if self._on_installed is not None:
                await self._on_installed(grant.session, grant.anchor, grant.epoch, self._gateway)
                self._check(grant)  # what was fenced while the journal wrote must not come into force
            receipt = self._receipts.packed(grant.anchor, grant.receipt)
            self._steered[grant.session] = _Steered(
                grant.anchor, grant.epoch, grant.deadline_us, grant.token_expires_us, receipt
            )

    async def renew(self, renewals: Sequence[SteeringRenewal]) -> None:
        """Move the deadlines of grants that are still held."""
        for renewal in renewals:
            known = self._steered.get(renewal.session)
            if known is not None and known.epoch == renewal.epoch:
                known.deadline_us = max(known.deadline_us, renewal.deadline_us)

    async def revoke(self, fences: Sequence[Fence]) -> None:
        """Stop steering these epochs at once."""
        for fence in fences:
            earlier = self._fences.get(fence.session)
            if earlier is None or earlier.epoch < fence.epoch:
                self._fences[fence.session] = fence
            known = self._steered.get(fence.session)
            if known is not None and known.epoch <= fence.epoch:
                del self._steered[fence.session]
        if len(self._fences) >= self._sweep_at:
            now_us = self._clock().boot_us
            self._fences = {key: fence for key, fence in self._fences.items() if fence.keep_until_us > now_us}
            self._sweep_at = max(FENCES_SWEEP_MIN, 2 * len(self._fences))

    async def reconcile(self, term: int, grants: Sequence[SteeringGrant]) -> None:
        """Begin a term: exactly these grants remain."""
        self._term = term
        self._steered.clear()
        self._fences.clear()
        await self.install(grants)

    def _check(self, grant: SteeringGrant) -> None:
        """Raise if the grant's epoch is lower than one already seen, or of an earlier term."""
        known = self._steered.get(grant.session)
        fence = self._fences.get(grant.session)
        lowest = Epoch(self._term, 0)
        if known is not None:
            same = grant.epoch == known.epoch and grant.anchor == known.anchor
            lowest = max(lowest, known.epoch if same else Epoch(known.epoch.term, known.epoch.n + 1))
        if fence is not None:
            lowest = max(lowest, Epoch(fence.epoch.term, fence.epoch.n + 1))
        if grant.epoch < lowest:
            raise RefusedError(
                f"epoch {grant.epoch} of session {grant.session} is fenced: the lowest that is taken is {lowest}",
                code="FENCED",
            )

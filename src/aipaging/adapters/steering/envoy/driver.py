"""The steering driver of Envoy gateways: table, revocation list and xDS in the right order.

A first grant needs no push: the gateway that gets a request asks. Only what a gateway may already hold has to be
fenced, and fencing waits until every connected gateway has confirmed. A gateway that is not connected holds what it
has until the COMMIT's deadline, and not longer.

After `UnavailableError` the new state stands here and is still being pushed; a silent gateway may steer by the old
epoch until its deadline. Going back takes a new, higher epoch.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from aipaging.adapters.steering.envoy.ads import CLUSTER, ROUTE, AdsServer
from aipaging.adapters.steering.envoy.revocations import RevocationFeed, RevocationList, RevocationPage
from aipaging.adapters.steering.envoy.steering_endpoint import SteeringEndpoint
from aipaging.adapters.steering.envoy.table import Steered, SteeringTable
from aipaging.core.foundation.names import GatewayId
from aipaging.core.foundation.time import MS, SECOND, BootUs, Now
from aipaging.core.steering.grant import AnchorEndpoint, Fence, SteeringGrant, SteeringRenewal
from aipaging.ports.signing import TokenVerifier
from aipaging.ports.steering import OnInstalled

CONFIRM_TIMEOUT_S: Final = 2.0
"""A gateway that has not confirmed after two seconds is reported; the push itself takes about a millisecond."""

WORKERS_APPLY_S: Final = 0.020
"""Envoy acknowledges on its main thread and its workers follow in their next loop; the filter reads its list at most
1 ms late. No message tells when a worker has done so; the sidecar's fence covers what this wait does not."""

FENCE_KEPT_US: Final = 1 * SECOND
"""How long beyond the old deadline the source epoch of a relocation stays on the list."""

WAIT_MS_MAX: Final = 30_000
"""The longest that a sidecar may wait for revocations in one request."""


class EnvoySteering:
    """Steers by Envoy; implements `ports.steering.SteeringDriver`."""

    lease_ms_min: int = 100
    """Refresh ahead begins at half of a lease and needs a round trip to the controller."""

    def __init__(self, xds: AdsServer, *, clock: Callable[[], Now]) -> None:
        """Set up.

        Args:
            xds: Where gateways connect; started and stopped by the caller.
            clock: The controller's clocks; deadlines of grants are on its boot clock.
        """
        self._xds = xds
        self._clock = clock
        self._table = SteeringTable()
        self._list = RevocationList()
        self._feed = RevocationFeed()

    def endpoint(
        self, *, verifier: TokenVerifier, on_installed: OnInstalled, gate: Callable[[], bool]
    ) -> SteeringEndpoint:
        """Return the application that answers gateways' look-ups from this driver."""
        return SteeringEndpoint(
            self._table,
            generation=lambda: self._list.generation,
            verifier=verifier,
            on_installed=on_installed,
            gate=gate,
            clock=self._clock,
        )

    @property
    def gateways(self) -> frozenset[GatewayId]:
        """Gateways that are connected now."""
        return self._xds.gateways

    async def place_anchors(self, anchors: Sequence[AnchorEndpoint]) -> None:
        """Make exactly these anchors reachable; see the port."""
        await self._confirm(CLUSTER, self._xds.publish_anchors(anchors))

    async def install(self, grants: Sequence[SteeringGrant]) -> None:
        """Steer these sessions; see the port."""
        now_us = self._clock().boot_us
        self._table.check(grants, now_us)
        known = any(self._table.knows(grant.session) for grant in grants)
        replaced = [old for grant in grants if (old := self._table.put(grant)) is not None]
        fences = [
            Fence(session=old.session, epoch=old.epoch, keep_until_us=BootUs(old.deadline_us + FENCE_KEPT_US))
            for old in replaced
            if _may_be_held(old, now_us)
        ]
        await self._fence(fences, now_us, known=known)

    async def renew(self, renewals: Sequence[SteeringRenewal]) -> None:
        """Move deadlines; gateways learn of them when they refresh."""
        for renewal in renewals:
            self._table.renew(renewal)

    async def revoke(self, fences: Sequence[Fence]) -> None:
        """Stop steering these epochs; see the port."""
        now_us = self._clock().boot_us
        self._feed.add(fences)
        known = any(self._table.knows(fence.session) for fence in fences)
        removed = [(fence, self._table.remove(fence, now_us)) for fence in fences]
        held = [fence for fence, old in removed if old is not None and _may_be_held(old, now_us)]
        await self._fence(held, now_us, known=known)

    async def reconcile(self, term: int, grants: Sequence[SteeringGrant]) -> None:
        """Begin a term; see the port. Gateways are served from the first call on."""
        self._table.begin(term, grants)
        self._list.begin(term)
        self._feed.begin(term)
        revision = self._xds.publish_revoked(self._list.encoded())
        self._xds.open()
        await self._confirm(ROUTE, revision)

    async def revocations_since(self, term: int, sequence: int, *, wait_ms: int) -> RevocationPage:
        """Return the revocations that followed `(term, sequence)`, waiting up to `wait_ms` for one."""
        wait_s = min(max(wait_ms, 0), WAIT_MS_MAX) * MS / SECOND
        return await self._feed.since(term, sequence, wait_s=wait_s)

    async def _fence(self, fences: Sequence[Fence], now_us: BootUs, *, known: bool) -> None:
        """Push fences, and wait for the gateways where a session was `known` before.

        Also without a new fence: an earlier one of the same session may still be on its way to a slow gateway.
        """
        if fences and self._list.add(fences, now_us):
            self._xds.publish_revoked(self._list.encoded())
        if fences or known:
            await self._confirm(ROUTE, self._xds.revision(ROUTE))

    async def _confirm(self, kind: str, revision: int) -> None:
        await self._xds.confirmed(kind, revision, timeout_s=CONFIRM_TIMEOUT_S)
        if self._xds.gateways:
            await asyncio.sleep(WORKERS_APPLY_S)


def _may_be_held(old: Steered, now_us: BootUs) -> bool:
    # No gateway's deadline is later than the COMMIT's, and none holds what it never asked for.
    return bool(old.gateways) and old.deadline_us > now_us

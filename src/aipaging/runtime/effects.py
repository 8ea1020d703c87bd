"""Carries the engine's effects out: steering, the make-before-break of a relocation, fences.

Whatever is slow or may fail runs in a task of its own with a time limit, and its outcome comes back to the engine
as a command. What a page's answer promises (steering is in force) is awaited; nothing else is.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Final

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, RefusedError, UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.steering.grant import AnchorEndpoint, Fence, SteeringGrant
from aipaging.ports.anchor import AnchorClient
from aipaging.ports.steering import SteeringDriver
from aipaging.runtime.engine import Engine
from aipaging.runtime.tokens import SessionTokens

LOG: Final = logging.getLogger("aipaging.effects")

RESTRICT_S_MAX: Final = 2.0
"""How long an answer waits for a fence to be confirmed; the fence itself goes on, and the deadline stands anyway."""

RECONCILE_RETRY_S: Final = 0.5
"""How soon placing anchors or reconciling is tried again when a gateway did not confirm."""


class SteeringEffects:
    """The effects of one engine on one user plane."""

    def __init__(self, engine: Engine, driver: SteeringDriver, anchors: AnchorClient, tokens: SessionTokens) -> None:
        self._engine = engine
        self._driver = driver
        self._anchors = anchors
        self._tokens = tokens
        self._tasks: set[asyncio.Task[None]] = set()
        self._placing = asyncio.Lock()

    def prepare(self, effects: Sequence[x.Effect]) -> None:
        """Sign what a page will be answered with, once it is durable."""
        for effect in effects:
            if isinstance(effect, x.InstallSteering):
                session = self._engine.state.sessions.get(effect.session)
                lease = session.lease_of(effect.epoch) if session is not None else None
                if session is not None and lease is not None and lease.live:
                    self._tokens.prepare(session, lease)

    def restrict(self, effects: Sequence[x.Effect]) -> asyncio.Future[None]:
        """Start fencing at once; the future is done when it is in force, or when that took too long."""
        fences = [fence for effect in effects if isinstance(effect, x.RevokeSteering) for fence in effect.fences]
        return self._spawn(self._revoke(fences))

    async def permit(self, effects: Sequence[x.Effect]) -> None:
        """Carry permissive effects out; return when what an answer must wait for is in force.

        Raises:
            UnavailableError: Steering could not be installed; the session has been taken back.
        """
        for effect in effects:
            match effect:
                case x.InstallSteering(session=session, epoch=epoch):
                    await self._install(session, epoch)
                case x.RenewSteering(renewals=renewals):
                    await self._driver.renew(renewals)
                case x.PlaceAnchors():
                    await self._place()
                case x.ReconcileSteering(term=term):
                    await self._reconcile(term)
                case x.PrepareTarget():
                    self._spawn(self._prepare(effect))
                case x.SwitchSteering():
                    self._spawn(self._switch(effect))
                case _:
                    raise TypeError(f"{type(effect).__name__} is not a permissive effect")

    async def stop(self) -> None:
        """Call off what is still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def endpoint(self, anchor_id: str) -> AnchorEndpoint | None:
        """Return where an anchor's sidecar listens."""
        return next((e for e in self._endpoints() if e.anchor == anchor_id), None)

    def _endpoints(self) -> list[AnchorEndpoint]:
        return [
            AnchorEndpoint(
                anchor=anchor.anchor,
                host=anchor.host,
                port=anchor.port,
                tls=anchor.tls,
                in_flight_max=anchor.in_flight_max,
            )
            for anchor in self._engine.state.catalogue.anchors.values()
        ]

    def _grant(self, session_id: SessionId, epoch: Epoch) -> SteeringGrant | None:
        """Return the grant of a COMMIT that is still live."""
        session = self._engine.state.sessions.get(session_id)
        lease = session.lease_of(epoch) if session is not None else None
        if session is None or lease is None or not lease.live:
            return None
        return self._tokens.grant(session, lease)

    async def _install(self, session: SessionId, epoch: Epoch) -> None:
        grant = self._grant(session, epoch)
        if grant is None:
            return
        try:
            await self._driver.install([grant])
        except (UnavailableError, RefusedError) as error:
            self._engine.effect_failed("install")
            LOG.warning("steering could not be installed", extra={"session": session, "reason": error.message})
            with contextlib.suppress(AipagingError):
                await self._engine.submit(c.SteeringFailed(session=session, epoch=epoch, message=error.message))
            raise UnavailableError(
                f"steering could not be installed: {error.message}", code="STEERING_FAILED"
            ) from error

    async def _place(self) -> None:
        async with self._placing:
            try:
                await self._driver.place_anchors(self._endpoints())
            except UnavailableError as error:
                self._engine.effect_failed("place")
                LOG.warning("a gateway did not confirm the anchors", extra={"reason": error.message})
                self._spawn(self._place_again())

    async def _place_again(self) -> None:
        await asyncio.sleep(RECONCILE_RETRY_S)
        await self._place()

    async def _reconcile(self, term: int) -> None:
        """Make the user plane hold exactly what the state says.

        Raises:
            UnavailableError: The driver could not; nothing may be admitted then.
        """
        sessions = self._engine.state.sessions.values()
        live = [s for s in sessions if s.available and s.lease is not None and s.lease.live]
        await self._driver.reconcile(term, [self._tokens.grant(s, s.lease) for s in live if s.lease is not None])

    async def _prepare(self, effect: x.PrepareTarget) -> None:
        endpoint = self.endpoint(effect.target)
        limit_s = self._engine.state.settings.prepare_ms_max / 1000
        try:
            if endpoint is None:
                raise UnavailableError(f"anchor {effect.target} is gone", code="ANCHOR_GONE")
            async with asyncio.timeout(limit_s):
                await self._anchors.prepare(endpoint, effect.session, effect.epoch)
        except (AipagingError, TimeoutError) as error:
            await self._broken(effect.session, effect.number, f"{effect.target} is not ready: {_reason(error)}")
            return
        await self._report(c.TargetPrepared(session=effect.session, number=effect.number))

    async def _switch(self, effect: x.SwitchSteering) -> None:
        grant = self._grant(effect.session, effect.epoch)
        if grant is None:
            return
        limit_s = self._engine.state.settings.prepare_ms_max / 1000
        try:
            async with asyncio.timeout(limit_s):
                await self._driver.install([grant])
        except (AipagingError, TimeoutError) as error:
            await self._broken(effect.session, effect.number, f"a gateway did not switch: {_reason(error)}")
            return
        await self._report(c.SwitchConfirmed(session=effect.session, number=effect.number))

    async def _broken(self, session: SessionId, number: int, message: str) -> None:
        self._engine.effect_failed("relocate")
        LOG.warning("relocation broken", extra={"session": session, "reason": message})
        await self._report(c.RelocationBroken(session=session, number=number, message=message))

    async def _report(self, command: c.Command) -> None:
        """Tell the engine an outcome; if it cannot take it, the relocation's time limit will."""
        with contextlib.suppress(AipagingError):
            await self._engine.submit(command)

    async def _revoke(self, fences: Sequence[Fence]) -> None:
        try:
            async with asyncio.timeout(RESTRICT_S_MAX):
                await self._driver.revoke(fences)
        except (UnavailableError, TimeoutError) as error:
            self._engine.effect_failed("revoke")
            LOG.warning("a gateway did not confirm a fence; its deadline stands", extra={"reason": _reason(error)})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _reason(error: BaseException) -> str:
    return error.message if isinstance(error, AipagingError) else f"no answer in time ({type(error).__name__})"

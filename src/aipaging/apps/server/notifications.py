"""The notifications of a controller: its key, its rules, its ledger, and where each event goes."""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aipaging.adapters.notification.address import sink_url
from aipaging.adapters.notification.courier import Courier, CourierWork
from aipaging.adapters.notification.http import HttpNotifier
from aipaging.adapters.notification.ledger import SqliteLedger
from aipaging.adapters.signing.files import read_private
from aipaging.adapters.signing.message_key import MessageKey
from aipaging.apps.server.config import ServerConfig
from aipaging.apps.server.config_notification import NotificationPlan, OperatorSink
from aipaging.apps.server.reloading import Step
from aipaging.core.foundation.names import SessionId
from aipaging.core.paging.state import State
from aipaging.ports.notification import DeadLetter, Destination
from aipaging.runtime.events.hub import EventHub, Told


def _token(sink: OperatorSink) -> str:
    return "" if sink.token_file is None else read_private(sink.token_file).decode("ascii", "replace").strip()


def _destinations(plan: NotificationPlan) -> list[tuple[Destination, frozenset[str]]]:
    """Return the operator's sinks and the events that each wants.

    Raises:
        AipagingError: The token of a sink cannot be read.
    """
    return [
        (Destination(key=f"sink:{sink.name}", tenant="", url=sink.url, token=_token(sink)), sink.events)
        for sink in plan.sinks
    ]


class ControllerNotifications:
    """The `Notifications` of one controller."""

    def __init__(
        self, data_dir: Path, plan: NotificationPlan, *, state: Callable[[], State], wall_us: Callable[[], int]
    ) -> None:
        """Open the key.

        Raises:
            AipagingError: The key, or the token of a sink, is not usable.
        """
        self._path = data_dir / "notifications.db"
        self._plan = plan
        self._state = state
        self._wall_us = wall_us
        self._key = MessageKey.open(data_dir / "keys")
        self._operators = _destinations(plan)
        self._ledger: SqliteLedger | None = None
        self._notifier: HttpNotifier | None = None
        self.courier: Courier | None = None

    def public_jwks(self, tokens: Mapping[str, object]) -> Mapping[str, object]:
        """Return a key set with the key of notifications beside those of tokens."""
        keys = tokens.get("keys")
        return {**tokens, "keys": [*(keys if isinstance(keys, list) else []), self._key.public_jwk()]}

    async def start(self, hub: EventHub, source: str) -> None:
        """Open the ledger and go on where it says; called when the journal's lock is held.

        Raises:
            UnavailableError: The ledger cannot be opened.
        """
        trust = ssl.create_default_context(cafile=str(self._plan.ca) if self._plan.ca else None)
        self._ledger = SqliteLedger(self._path)
        self._notifier = HttpNotifier(self._key, clock_s=time.time, allowed=self._plan.allow_networks, trust=trust)
        work = CourierWork(
            notifier=self._notifier,
            ledger=self._ledger,
            sinks=self._sinks,
            heard=self._heard,
            source=source,
            wall_us=self._wall_us,
            clock_s=time.monotonic,
        )
        self.courier = Courier(hub, work)
        await self.courier.start()

    async def stop(self) -> None:
        """Note how far it came, and let go."""
        if self.courier is not None:
            await self.courier.stop()
        if self._notifier is not None:
            await self._notifier.close()
        if self._ledger is not None:
            self._ledger.close()

    def prepared(self, wanted: ServerConfig) -> Step:
        """See `LivePart.prepared`: the operator's sinks, and where clients' sinks may be."""
        plan = wanted.notification
        if plan == self._plan:
            return Step()
        operators = _destinations(plan)

        def exchange() -> None:
            # Whom to trust waits for a restart: connections that are open know the old authorities.
            self._plan = replace(plan, ca=self._plan.ca)
            self._operators = operators
            if self._notifier is not None:
                self._notifier.allowed = plan.allow_networks

        return Step((), exchange)

    def check(self, url: str) -> None:
        """See `Notifications.check`."""
        sink_url(url, self._plan.allow_networks)

    async def dead_letters(self, first: int, count: int) -> tuple[int, Sequence[DeadLetter]]:
        """See `Notifications.dead_letters`."""
        if self._ledger is None:
            return 0, ()
        if self.courier is not None:
            await self.courier.save()
        return await asyncio.to_thread(self._ledger.dead_letters, first, count)

    def _heard(self, session: SessionId | None) -> bool:
        """Return whether anything of a session, or of what is no session's, goes to a sink."""
        known = self._state().sessions.get(session) if session is not None else None
        return bool(self._operators) or (known is not None and known.sink is not None)

    def _sinks(self, told: Told) -> list[Destination]:
        event = told.event
        found = [destination for destination, events in self._operators if not events or event.name in events]
        session = self._state().sessions.get(SessionId(event.session)) if event.session else None
        if session is not None and session.sink is not None:
            sink = session.sink
            found.append(
                Destination(
                    key=f"session:{session.session}",
                    tenant=session.tenant,
                    url=sink.url,
                    token=sink.token,
                    expires_us=sink.expires_us,
                )
            )
        return found

"""The sidecar as a whole: one listener, one upstream, one controller.

Order of a start: listen (nothing passes yet, for no receipt can be verified), fetch the keys, say READY. Order of an
end: say DRAINING and serve on while the controller moves the sessions away; when it counts none here any more, no lease
steers here and nothing is under way, or after `Timeouts.drain_s`, refuse what is new and let what is under way run to
the end of its lease; then close. Every loop below survives a silent controller: the data path goes on until the
deadlines it knows.
"""

import asyncio
import contextlib
import random
import secrets
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from aipaging.adapters.sidecar.controller import AnchorState, Heartbeat, NodeIdentity, Southbound
from aipaging.adapters.sidecar.data_path import DataPath, Waiting
from aipaging.adapters.sidecar.gate import LeaseGate
from aipaging.adapters.sidecar.gateway_side import GatewaySide, Reception, Role
from aipaging.adapters.sidecar.instruments import Instruments
from aipaging.adapters.sidecar.operations import Operations, UpstreamProbe
from aipaging.adapters.sidecar.settings import SidecarSettings
from aipaging.adapters.sidecar.upstream import UpstreamPool
from aipaging.adapters.sidecar.usage import UsageMeter
from aipaging.core.anchor.fair_queue import FairQueue
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, UnavailableError, UnverifiedError
from aipaging.core.foundation.names import SessionId
from aipaging.ports.signing import TokenVerifier

SWEEP_S: Final = 0.25
"""How often limits of waiting are looked at; the shortest of them are seconds."""

HEARTBEAT_S_MAX: Final = 30.0
"""Whatever the controller says: silence for longer is no heartbeat."""

RETRY_S_MIN: Final = 0.1
RETRY_S_MAX: Final = 5.0
"""Between attempts at a silent controller: doubling, with jitter, so that anchors do not come back in step. Never more
than a heartbeat's interval: a controller that comes back counts its time for losing an anchor from its start."""

INTERVAL_S: Final = 1.0
"""Between heartbeats until the controller has said how often it wants them."""

KEYS_S: Final = 300.0
"""How often the key set is fetched: a new key is published well before it is used."""

KEYS_PAUSE_S: Final = 1.0
"""Between two fetches, however many receipts name a key that is not known."""

FOLLOW_PAUSE_S: Final = 0.005
"""Between long polls: a revocation storm then comes in batches."""

RENEWAL_CHECK_S: Final = 30.0
"""A certificate lives for hours."""

DRAIN_ASK_S: Final = 0.5
"""How often the controller is asked, while draining, whether the sessions have moved."""

LEAVE_S_MAX: Final = 5.0
"""For the last bytes to leave when everything is finished."""

HEALTH_MISSES: Final = 2
"""Failed probes in a row before the anchor calls itself unhealthy: one may be a hiccup under load."""

DRAIN_POLL_S: Final = 0.05
BACKLOG: Final = 1024

MakeVerifier = Callable[[Mapping[str, Any]], TokenVerifier]


class Sidecar:
    """Stands before a model server and lets pass what has a lease."""

    def __init__(
        self,
        settings: SidecarSettings,
        controller: Southbound,
        make_verifier: MakeVerifier,
        *,
        identity: NodeIdentity | None,
        instruments: Instruments,
    ) -> None:
        """Put a sidecar together; call it inside the event loop that runs it.

        Args:
            settings: What the operator set.
            controller: Whom we ask; closed when we end.
            make_verifier: Turns a JWK Set into a verifier of receipts.
            identity: Our certificate; None only where the listener is plain text.
            instruments: Clocks, log and metrics.
        """
        self._settings = settings
        self._controller = controller
        self._make_verifier = make_verifier
        self._identity = identity
        self._instruments = instruments
        self._log = instruments.log
        self._boot = secrets.token_hex(8)
        self._draining = False
        self._served: int | None = None  # sessions, as the controller counts them; None: it has not heard of our drain
        self._doubted = False  # whether the last question about them was not answered
        self._closed = False
        self._keys: Mapping[str, Any] = {}
        self._followed = (0, 0)
        self._misses = HEALTH_MISSES - 1  # what has never been well is not forgiven a hiccup
        self._sequence = 0
        self._interval_s = INTERVAL_S
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._beat_now = asyncio.Event()
        self._may_speak = asyncio.Event()  # set when the keys are here, or when we drain: READY without keys is a lie
        self._probe = UpstreamProbe(settings.upstream)
        gate = LeaseGate(
            settings.anchor, controller, instruments, terms=settings.terms, waiting_max=settings.queue.waiting_max + 64
        )
        pool = UpstreamPool(settings.upstream, settings.timeouts, instruments, kept_max=settings.queue.slots)
        queue: FairQueue[Waiting] = FairQueue(settings.queue)
        self.path = DataPath(
            settings=settings, instruments=instruments, gate=gate, queue=queue, pool=pool, meter=UsageMeter()
        )
        self._operations = Operations(healthy=self._ready, healthy_now=self._ready_now, metrics=self._metrics_text)
        self._reception = Reception(
            path=self.path,
            operation=self._operations.begin,
            role_of=None if settings.plaintext else self._role_of,
        )
        self._server: asyncio.Server | None = None
        self._tls: ssl.SSLContext | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._sweeping: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """Return the port that is listened on."""
        assert self._server is not None, "not started"  # noqa: S101 our own mistake
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def start(self) -> None:
        """Listen, and begin to talk to the controller.

        Raises:
            UnavailableError: The address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        settings = self._settings
        if not settings.plaintext:
            assert self._identity is not None, "TLS needs an identity"  # noqa: S101 our own mistake
            self._tls = self._identity.server_context()
        try:
            self._server = await loop.create_server(
                lambda: GatewaySide(self._reception),
                settings.listen_host,
                settings.listen_port,
                ssl=self._tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=settings.timeouts.head_s if self._tls else None,
            )
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {settings.listen_host}:{settings.listen_port}: {error.strerror or error}",
                code="LISTEN_FAILED",
            ) from None
        self._sweep()
        steps = (self._refresh_keys, self._follow, self._beat, self._report, self._renew)
        self._tasks = [loop.create_task(self._forever(step), name=step.__name__) for step in steps]
        for task in self._tasks:
            task.add_done_callback(self._loop_ended)
        self._log.event("started", host=settings.listen_host, port=self.port, tls=self._tls is not None)

    def _loop_ended(self, task: asyncio.Task[None]) -> None:
        """A loop ends only by a mistake of ours: better to stop than to go on deaf."""
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.failed.done():
            self.failed.set_exception(error)

    async def drain(self) -> None:
        """Serve on while sessions are moved away, then finish what is under way, then close."""
        self._draining = True
        self._log.event("draining")
        self._may_speak.set()
        self._beat_now.set()
        gate, clocks = self.path.gate, self._instruments.clocks
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + self._settings.timeouts.drain_s
        ask_s = loop.time()
        # However idle we are: until the controller has heard of it and moved its sessions, requests are sent here.
        while loop.time() < give_up_s and (gate.holder.live(clocks.boot_us()) or self._under_way or self._served != 0):
            if loop.time() >= ask_s:
                gate.ask_about_all()
                self._beat_now.set()
                ask_s += DRAIN_ASK_S
            await asyncio.sleep(DRAIN_POLL_S)
        self.path.closing = True
        if self._server is not None:
            self._server.close()
        while self._under_way:  # every one of them ends with its lease at the latest
            self._close_idle()
            await asyncio.sleep(DRAIN_POLL_S)
        leave_s = loop.time() + LEAVE_S_MAX
        while self._reception.sides and loop.time() < leave_s:
            self._close_idle()
            await asyncio.sleep(DRAIN_POLL_S)
        with contextlib.suppress(AipagingError):
            await self._report()
        await self.close()

    def _close_idle(self) -> None:
        for side in list(self._reception.sides):
            if side.idle:
                side.transport.close()

    async def close(self) -> None:
        """Close everything now; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self.path.closing = True
        if self._server is not None:
            self._server.close()
        if self._sweeping is not None:
            self._sweeping.cancel()
        for task in [*self._tasks, *self._operations.tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._operations.tasks, return_exceptions=True)
        for side in list(self._reception.sides):
            side.transport.abort()
        self.path.gate.close()
        self.path.pool.close()
        await self._probe.close()
        await self._controller.close()
        self._log.event("stopped")

    @property
    def _under_way(self) -> bool:
        return bool(self.path.gate.open_work or self.path.gate.waiting or self._operations.tasks)

    @property
    def _takes_requests(self) -> bool:
        return self.path.gate.verifier is not None and not self._draining

    async def _ready(self) -> bool:
        return self._takes_requests and await self._probe.healthy()

    async def _ready_now(self) -> bool:
        return self._takes_requests and await self._probe.healthy_now() and self._takes_requests

    def _metrics_text(self) -> bytes:
        path = self.path
        gauges = {
            "in_flight": path.queue.in_service,
            "queued": path.queue.waiting,
            "asking": path.gate.waiting,
            "connections": len(self._reception.sides),
            "leases_held": len(path.gate.holder),
            "draining": int(self._draining),
        }
        return self._instruments.metrics.text(gauges, path.queue.waiting_of)

    def _role_of(self, transport: asyncio.BaseTransport) -> Role:
        certificate = transport.get_extra_info("peercert")
        assert self._identity is not None, "TLS needs an identity"  # noqa: S101 our own mistake
        role = self._identity.role_of(certificate or {})
        if role == "gateway":
            return "gateway"
        if role == "controller":
            return "controller"
        raise UnverifiedError("only gateways and the controller may connect here", code="ROLE_REFUSED")

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = self.path.now_s = loop.time()
        for side in list(self._reception.sides):
            side.check(now_s)
        self.path.pool.sweep(now_s)
        self._sweeping = loop.call_later(SWEEP_S, self._sweep)

    async def _forever(self, step: Callable[[], Awaitable[float]]) -> None:
        """Repeat `step`, which returns the seconds until the next time; back off while the controller is silent."""
        backoff_s = RETRY_S_MIN
        while True:
            try:
                pause_s = await step()
                backoff_s = RETRY_S_MIN
            except AipagingError as error:
                self._log.event("controller_step_failed", step=step.__name__, why=error.code)
                pause_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 jitter is no secret
                backoff_s = min(2 * backoff_s, RETRY_S_MAX, self._interval_s)
            await asyncio.sleep(pause_s)

    async def _refresh_keys(self) -> float:
        keys = await self._controller.keys()
        if keys != self._keys:
            self.path.gate.use_verifier(self._make_verifier(keys))
            self._keys = keys
            self._may_speak.set()
            self._log.event("keys_fetched")
        self.path.gate.unknown_key.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KEYS_S):
                await self.path.gate.unknown_key.wait()
        return KEYS_PAUSE_S

    async def _follow(self) -> float:
        said = await self._controller.revocations(*self._followed)
        if said.term < self._followed[0]:
            raise UnavailableError("an answer of an earlier term: its sender leads no more", code="OLD_TERM")
        gate = self.path.gate
        gate.revoke((SessionId(entry.session), Epoch(entry.term, entry.n)) for entry in said.entries)
        if said.reset or said.term > self._followed[0]:
            gate.ask_about_all()
        self._followed = (said.term, said.sequence)
        return FOLLOW_PAUSE_S

    async def _beat(self) -> float:
        await self._may_speak.wait()
        # How the model server is does not matter any more when we drain, and a hung one would hold up the farewell.
        self._misses = 0 if self._draining or await self._probe.healthy() else self._misses + 1
        self._sequence += 1
        state: AnchorState = "READY" if self._misses < HEALTH_MISSES else "UNHEALTHY"
        beat = Heartbeat(
            state="DRAINING" if self._draining else state,
            boot=self._boot,
            sequence=self._sequence,
            in_flight=self.path.queue.in_service,
            queued=self.path.queue.waiting,
        )
        try:
            answer = await self._controller.heartbeat(beat)
        except AipagingError:
            if beat.state == "DRAINING":
                # One answer may be late. After two, or where there never was one, nobody steers anybody anew.
                self._served, self._doubted = 0 if self._doubted else self._served or 0, True
            raise
        if beat.state == "DRAINING":
            self._served, self._doubted = answer.sessions, False
        self._interval_s = min(answer.interval_s, HEARTBEAT_S_MAX)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval_s):
                await self._beat_now.wait()
        self._beat_now.clear()
        return 0.0

    async def _report(self) -> float:
        """Say what sessions used; a batch that is not answered is sent again."""
        meter, metrics = self.path.meter, self._instruments.metrics
        while (batch := meter.batch()) is not None:
            for refused in await self._controller.usage(self._boot, batch):
                metrics.usage_refused += 1
                self._log.event("count_refused", session=refused.session, code=refused.code)
            meter.taken(batch)
        return self._settings.usage_s

    async def _renew(self) -> float:
        if self._identity is not None:
            request = await asyncio.to_thread(self._identity.renewal_request)
            if request is not None:
                await self._controller.renew_identity(request)
                self._log.event("identity_renewed")
        return RENEWAL_CHECK_S

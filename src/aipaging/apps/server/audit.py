"""The continuous audit of a controller: the gateway's access log, decoded and watched; its delays sent elsewhere."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aipaging import __version__
from aipaging.adapters.telemetry.live_delays import delay_points
from aipaging.adapters.telemetry.otlp_push import OtlpHistograms
from aipaging.apps.server.config import ServerConfig
from aipaging.core.audit.delays import DelayBook
from aipaging.core.foundation.time import WallUs
from aipaging.runtime.audit.live import LiveAudit
from aipaging.runtime.engine import Engine

LOG: Final = logging.getLogger("aipaging.audit")

EXPORT_S: Final = 10.0
"""Between two exports of the delays; a cumulative point makes up for those that were lost."""


def live_audit(config: ServerConfig, engine: Engine, *, dropped: Callable[[], Awaitable[int]]) -> LiveAudit | None:
    """Return the audit, None where the configuration wants none or no gateway carries traffic.

    Args:
        config: The configuration.
        engine: Whose state it reads, and which records what it finds.
        dropped: How many requests the gateway could not report.
    """
    if config.audit is None or config.gateway.driver != "envoy":
        return None
    from aipaging.adapters.telemetry.access_log import seen_requests  # noqa: PLC0415 - only where Envoy is installed

    return LiveAudit(
        engine,
        config.audit,
        decode=seen_requests,
        new_id=lambda: finding_id(engine.now().wall_us),
        software=f"aipaging {__version__}",
        dropped=dropped,
    )


def finding_id(wall_us: WallUs) -> str:
    """Return an id that sorts by time: milliseconds since the epoch, then 40 random bits, in hex."""
    return f"{wall_us // 1000:012x}-{secrets.token_hex(5)}"


class DelayExport:
    """Sends the delays that the audit measures, in threads: a collector that hangs holds up nobody."""

    def __init__(
        self, delays: DelayBook, endpoint: str, wall_clock: Callable[[], WallUs], *, every_s: float = EXPORT_S
    ) -> None:
        """Set up.

        Args:
            delays: What is sent.
            endpoint: OTLP over HTTP.
            wall_clock: Says when.
            every_s: Between two exports.

        Raises:
            UnavailableError: The extra `tracing` is not installed.
        """
        self._delays = delays
        self._exporter = OtlpHistograms(endpoint, service="aipaging-controller")
        self._clock = wall_clock
        self._every_s = every_s
        self._since_us = wall_clock()
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Send from now on."""
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Send a last time."""
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        await self._export()
        await asyncio.to_thread(self._exporter.close)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            await self._export()

    async def _export(self) -> None:
        points = delay_points(self._delays.histograms(), start_us=self._since_us, now_us=self._clock())
        if not await asyncio.to_thread(self._exporter.export, points):
            LOG.warning("delays were not exported: the collector did not take them")

"""The continuous audit of a controller: the gateway's access log, decoded, watched, and what is found."""

import secrets
from collections.abc import Awaitable, Callable

from aipaging import __version__
from aipaging.apps.server.config import ServerConfig
from aipaging.core.foundation.time import WallUs
from aipaging.runtime.audit.live import LiveAudit
from aipaging.runtime.engine import Engine


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

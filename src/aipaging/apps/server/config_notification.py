"""Where events are pushed, as the configuration says it."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aipaging.adapters.notification.address import Network


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSink:
    """A sink of the configuration.

    Attributes:
        name: Its name.
        url: Where to post.
        token_file: Holds the bearer token; None without one.
        events: Names of the events that it wants; empty for all.
    """

    name: str
    url: str
    token_file: Path | None = None
    events: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationPlan:
    """What the configuration says about notifications.

    Attributes:
        allow_networks: Private networks in which sinks may be.
        ca: PEM of whom to trust in place of the system's authorities.
        sinks: The operator's own.
    """

    allow_networks: tuple[Network, ...] = ()
    ca: Path | None = None
    sinks: tuple[OperatorSink, ...] = ()


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Return networks of the configuration, whose form was checked there."""
    return tuple(ipaddress.ip_network(text) for text in texts)

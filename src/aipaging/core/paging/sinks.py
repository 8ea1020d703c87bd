"""Where a session's client wants to hear of it: a sink and the token to show there.

Both are private: the record holds a commitment under the session's salt, the payload is encrypted under its key, and
erasing the key forgets them.
"""

from dataclasses import dataclass, field

from aipaging.core.foundation.names import SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Sink:
    """Where events go.

    Attributes:
        url: Checked by whoever took it; checked again before every use.
        token: Bearer token, or "".
        expires_us: When the token ends, wall clock; 0 for never.
    """

    url: str = field(repr=False)
    token: str = field(default="", repr=False)
    expires_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSink:
    """Tell a session's events to a sink from now on, or with None to nobody."""

    session: SessionId
    sink: Sink | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSet:
    """A session's events go to another sink, or to none."""

    session: SessionId
    sink: Sink | None

"""What a steering driver is asked to hold.

Ordering rules that every driver keeps: a grant is in force only until `deadline_us`, enforced where the traffic
passes; a grant of a higher epoch replaces the session's older one in one step (make-before-break); a lower epoch
than the highest seen is refused.
"""

from dataclasses import dataclass

import msgspec

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import BootUs, WallUs


class SteeringGrant(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session's traffic goes to one anchor until the deadline of its COMMIT.

    Attributes:
        session: Whose traffic.
        anchor: Where to.
        epoch: The fencing token of the COMMIT.
        deadline_us: The COMMIT's deadline on the controller's boot clock; nothing may be steered after it.
        token_expires_us: `exp` of the AIST as of the grant; an extended session has a later token with its own `exp`.
        receipt: The signed COMMIT receipt that the next enforcement point checks.
        rate_mrps: Guardrail: the reserved rate, in thousandths of a request per second, at least 1.
        burst: Guardrail: how many requests may come at once, at least 1.
    """

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    deadline_us: BootUs
    token_expires_us: WallUs
    receipt: str
    rate_mrps: int
    burst: int


class SteeringRenewal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The same epoch, with a later deadline."""

    session: SessionId
    epoch: Epoch
    deadline_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """Every epoch of the session up to and including `epoch` is dead.

    Attributes:
        session: Whose epochs.
        epoch: The highest dead epoch.
        keep_until_us: When the last enforcement point that might still hold it has let go (its deadline, drift
            and grace included); the fence may be forgotten then.
    """

    session: SessionId
    epoch: Epoch
    keep_until_us: BootUs


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorEndpoint:
    """Where an anchor's sidecar listens.

    Attributes:
        anchor: Its id.
        host: Address or DNS name.
        port: TCP port.
        tls: Whether the gateway speaks mutual TLS to it (plain text is for loopback only).
        in_flight_max: How many requests the gateway may have under way at it.
    """

    anchor: AnchorId
    host: str
    port: int
    tls: bool
    in_flight_max: int

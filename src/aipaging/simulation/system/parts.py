"""What a run is composed of beside the core: the seam for the controller's own adapters, and for planted bugs.

The protocols name what `controller` and `driver` use of the steering table, the revocation list, the feed and the
rule of what remains of a lease. `aipaging.testing.system_parts` hands in the real ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.core.lease.holder import HolderTerms, LeaseHolder
from aipaging.core.lease.machine import Lease
from aipaging.core.paging.commands import Command
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.step import step
from aipaging.core.steering.grant import Fence, SteeringGrant, SteeringRenewal


class Steered(Protocol):
    """One session's steering in the controller's table."""

    session: SessionId
    anchor: AnchorId
    epoch: Epoch
    deadline_us: BootUs
    token_expires_us: WallUs
    gateways: frozenset[GatewayId]


class Table(Protocol):
    """The controller's steering table."""

    def get(self, session: SessionId) -> Any:
        """Return the session's `Steered`, or None."""
        ...

    def knows(self, session: SessionId) -> bool:
        """Whether an epoch is held or fenced."""
        ...

    def begin(self, term: int, grants: Iterable[SteeringGrant]) -> None:
        """Hold exactly these."""
        ...

    def check(self, grants: Sequence[SteeringGrant], now_us: BootUs) -> None:
        """Raise unless these may be installed."""
        ...

    def put(self, grant: SteeringGrant) -> Any:
        """Hold a grant; return the `Steered` that it replaced, or None."""
        ...

    def renew(self, renewal: SteeringRenewal) -> None:
        """Move a deadline."""
        ...

    def remove(self, fence: Fence, now_us: BootUs) -> Any:
        """Fence; return the `Steered` that was dropped, or None."""
        ...

    def took_up(self, steered: Any, gateway: GatewayId) -> None:
        """Note that a gateway holds the epoch."""
        ...


class RevocationList(Protocol):
    """The gateways' list."""

    @property
    def generation(self) -> str:
        """`<term>.<generation>`."""
        ...

    def begin(self, term: int) -> None:
        """Start the list of a term."""
        ...

    def add(self, fences: Sequence[Fence], now_us: BootUs) -> bool:
        """Add; return whether it changed."""
        ...

    def encoded(self) -> str:
        """Return what gateways are told."""
        ...


class Feed(Protocol):
    """The sidecars' feed."""

    def begin(self, term: int) -> None:
        """Start the feed of a term."""
        ...

    def add(self, fences: Sequence[Fence]) -> None:
        """Append dead epochs."""
        ...

    def page(self, term: int, sequence: int) -> Any:
        """Return `(term, sequence, entries, reset)` as attributes."""
        ...


class Batch(Protocol):
    """Counts on their way."""

    @property
    def number(self) -> int:
        """Counts the batches of a boot from 1."""
        ...

    @property
    def used(self) -> Mapping[SessionId, tuple[int, int]]:
        """Requests and tokens of each session."""
        ...


class Meter(Protocol):
    """What sessions used, as a sidecar counts it."""

    def count(self, session: SessionId, tokens: int) -> None:
        """Count a request that was served."""
        ...

    def batch(self) -> Any:
        """Return the `Batch` that is under way, or the next, or None."""
        ...

    def taken(self, batch: Any) -> None:
        """Forget a batch: the controller has it."""
        ...


class RemainingRule(Protocol):
    """What remains of an epoch at an anchor: an answer with `state`, `remaining_ms` and `current`."""

    def __call__(self, state: State, anchor: AnchorId, session_id: SessionId, *, asked: Epoch, now: Now) -> Any:
        """Return the answer to a sidecar's question."""
        ...


def _holder() -> LeaseHolder:
    return LeaseHolder(terms=HolderTerms())


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a run is made of.

    Attributes:
        table: Makes the steering table of a controller's life.
        revocations: Makes its revocation list.
        feed: Makes its feed.
        remaining: The rule for sidecars' questions.
        grant: What the driver is asked to hold for one epoch of a session.
        accept: The command that puts an envelope into force.
        meter: Makes the counts of a sidecar's life.
        holder: Makes the lease holder of a sidecar's life.
        step: The core's decision.
    """

    table: Callable[[], Table]
    revocations: Callable[[], RevocationList]
    feed: Callable[[], Feed]
    remaining: RemainingRule
    grant: Callable[[Session, Lease], SteeringGrant]
    accept: Callable[[Envelope], Command]
    meter: Callable[[], Meter]
    holder: Callable[[], LeaseHolder] = _holder
    step: Callable[[State, Command, Now], Decision] = step

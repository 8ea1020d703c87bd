"""What the runtime has to do in the world after a step.

Permissive effects (they let something be steered) run only when the events of their step are durable.
Restrictive effects (they stop something) wait for nothing.
"""

from dataclasses import dataclass
from typing import TypeAlias

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.steering.grant import Fence, SteeringRenewal


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallSteering:
    """Steer a session by its present COMMIT; the page is answered when it is in force."""

    session: SessionId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewSteering:
    """Move deadlines."""

    renewals: tuple[SteeringRenewal, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileSteering:
    """Begin a term in the user plane: exactly the state's live COMMITs remain."""

    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceAnchors:
    """Make exactly the catalogue's anchors reachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareTarget:
    """Ask the target's sidecar whether it is ready; answer with TargetPrepared or RelocationBroken."""

    session: SessionId
    number: int
    target: AnchorId
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchSteering:
    """Steer by the target's COMMIT; answer with SwitchConfirmed or RelocationBroken."""

    session: SessionId
    number: int
    epoch: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokeSteering:
    """Restrictive: stop steering these epochs at once."""

    fences: tuple[Fence, ...]


Permissive: TypeAlias = (
    InstallSteering | RenewSteering | ReconcileSteering | PlaceAnchors | PrepareTarget | SwitchSteering
)
Restrictive: TypeAlias = RevokeSteering
Effect: TypeAlias = Permissive | Restrictive

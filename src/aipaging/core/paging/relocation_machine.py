"""A relocation, as a table of transitions: make before break.

Rule 1: everything that decides a relocation's phase is in the table below.
Rule 2: the source serves until SWITCHED; FAILED is reached only from phases in which it still does. There is no
row from SWITCHED to FAILED: what is switched is drained and released.

The phase words are those of 3GPP edge application relocation (TS 23.558) made explicit.
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aipaging.core.foundation.errors import IllegalTransitionError


class RelocationPhase(enum.Enum):
    """Where a relocation stands."""

    DETECTED = "DETECTED"
    DECIDED = "DECIDED"
    TARGET_PREPARED = "TARGET_PREPARED"
    SWITCHED = "SWITCHED"
    SOURCE_RELEASED = "SOURCE_RELEASED"
    FAILED = "FAILED"


class RelocationVerb(enum.Enum):
    """What happens to a relocation."""

    DECIDE = "decide"
    PREPARE = "prepare"
    SWITCH = "switch"
    RELEASE = "release"
    FAIL = "fail"


class RelocationCause(enum.Enum):
    """Why a session is moved."""

    OPERATOR = "OPERATOR"
    CLIENT = "CLIENT"
    ANCHOR_LOST = "ANCHOR_LOST"
    ANCHOR_DRAINING = "ANCHOR_DRAINING"
    MOBILITY = "MOBILITY"
    CONTRACT_UNPROVABLE = "CONTRACT_UNPROVABLE"
    PREEMPTED = "PREEMPTED"


TRANSITIONS: Final[Mapping[tuple[RelocationPhase, RelocationVerb], RelocationPhase]] = MappingProxyType(
    {
        (RelocationPhase.DETECTED, RelocationVerb.DECIDE): RelocationPhase.DECIDED,
        (RelocationPhase.DETECTED, RelocationVerb.FAIL): RelocationPhase.FAILED,
        (RelocationPhase.DECIDED, RelocationVerb.PREPARE): RelocationPhase.TARGET_PREPARED,
        (RelocationPhase.DECIDED, RelocationVerb.FAIL): RelocationPhase.FAILED,
        (RelocationPhase.TARGET_PREPARED, RelocationVerb.SWITCH): RelocationPhase.SWITCHED,
        (RelocationPhase.TARGET_PREPARED, RelocationVerb.FAIL): RelocationPhase.FAILED,
        (RelocationPhase.SWITCHED, RelocationVerb.RELEASE): RelocationPhase.SOURCE_RELEASED,
    }
)

OVER: Final = frozenset({RelocationPhase.SOURCE_RELEASED, RelocationPhase.FAILED})
"""The phases after which another relocation may begin."""

UNDER_WAY: Final = frozenset({RelocationPhase.DETECTED, RelocationPhase.DECIDED, RelocationPhase.TARGET_PREPARED})
"""The phases in which the source still serves."""


def advance(phase: RelocationPhase, verb: RelocationVerb) -> RelocationPhase:
    """Return the phase after `verb`.

    Raises:
        IllegalTransitionError: `verb` is not legal in `phase`.
    """
    try:
        return TRANSITIONS[phase, verb]
    except KeyError:
        raise IllegalTransitionError(machine="relocation", phase=phase.name, event=verb.name) from None

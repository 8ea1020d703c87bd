"""The session, as a table of transitions.

Rule 1: everything that decides a session's phase is in the table below.
Rule 2: no row leads to steering: steering follows the lease (`core.lease.machine`), not the session.

The phases are those of CAMARA quality-on-demand. REQUESTED is the inside of one page transaction: a session is
never seen in it from outside, but a refused one leaves its evidence there.

A session whose contract is not provable any more stays AVAILABLE: it is served, without the promise, and its client is
told so. Whether it is degraded stands beside the phase (`core.paging.promises`).
"""

import enum
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aipaging.core.foundation.errors import IllegalTransitionError


class SessionPhase(enum.Enum):
    """Where a session stands."""

    REQUESTED = "REQUESTED"
    AVAILABLE = "AVAILABLE"
    UNAVAILABLE = "UNAVAILABLE"


class StatusInfo(enum.Enum):
    """Why a session is UNAVAILABLE."""

    DURATION_EXPIRED = "DURATION_EXPIRED"
    NETWORK_TERMINATED = "NETWORK_TERMINATED"
    DELETE_REQUESTED = "DELETE_REQUESTED"
    ADMISSION_REFUSED = "ADMISSION_REFUSED"
    ANCHOR_LOST = "ANCHOR_LOST"
    PREEMPTED = "PREEMPTED"


class SessionVerb(enum.Enum):
    """What happens to a session."""

    ADMIT = "admit"
    REFUSE = "refuse"
    EXTEND = "extend"
    RELOCATE = "relocate"
    DEGRADE = "degrade"
    RESTORE = "restore"
    END = "end"


TRANSITIONS: Final[Mapping[tuple[SessionPhase, SessionVerb], SessionPhase]] = MappingProxyType(
    {
        (SessionPhase.REQUESTED, SessionVerb.ADMIT): SessionPhase.AVAILABLE,
        (SessionPhase.REQUESTED, SessionVerb.REFUSE): SessionPhase.UNAVAILABLE,
        (SessionPhase.AVAILABLE, SessionVerb.EXTEND): SessionPhase.AVAILABLE,
        (SessionPhase.AVAILABLE, SessionVerb.RELOCATE): SessionPhase.AVAILABLE,
        (SessionPhase.AVAILABLE, SessionVerb.DEGRADE): SessionPhase.AVAILABLE,
        (SessionPhase.AVAILABLE, SessionVerb.RESTORE): SessionPhase.AVAILABLE,
        (SessionPhase.AVAILABLE, SessionVerb.END): SessionPhase.UNAVAILABLE,
    }
)


def advance(phase: SessionPhase, verb: SessionVerb) -> SessionPhase:
    """Return the phase after `verb`.

    Raises:
        IllegalTransitionError: `verb` is not legal in `phase`.
    """
    try:
        return TRANSITIONS[phase, verb]
    except KeyError:
        raise IllegalTransitionError(machine="session", phase=phase.name, event=verb.name) from None

"""The admission lease (COMMIT) as its issuer sees it.

Rule 1: what decides a lease's phase is the table below and nothing else.
Rule 2: a lease lasts *at most* its duration where it is enforced. The issuer therefore counts its own deadline
from when it answered, and holds the capacity for the deadline stretched by drift, plus grace (Gray and Cheriton
1989; RFC 2131, 4.4.5 for the holder's side). The time between is dead time, never double use.

GRANTED may be renewed. DRAINING is the source of a relocation after the switch: work in flight goes on, nothing
new is granted time. REVOKED, EXPIRED and DRAINED are ends: only the reservation behind them still has to be
released. What a holder does with a lease is in `core.lease.holder`.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from zlib import crc32

import msgspec

from aipaging.core.envelope.admission import TailBound
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import IllegalTransitionError
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId
from aipaging.core.foundation.time import MS, BootUs, stretched_us


class LeasePhase(enum.Enum):
    """Where a lease stands."""

    GRANTED = "GRANTED"
    DRAINING = "DRAINING"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    DRAINED = "DRAINED"


class LeaseVerb(enum.Enum):
    """What happens to a lease."""

    RENEW = "renew"
    DRAIN = "drain"
    REVOKE = "revoke"
    EXPIRE = "expire"


TRANSITIONS: Final[Mapping[tuple[LeasePhase, LeaseVerb], LeasePhase]] = MappingProxyType(
    {
        (LeasePhase.GRANTED, LeaseVerb.RENEW): LeasePhase.GRANTED,
        (LeasePhase.GRANTED, LeaseVerb.DRAIN): LeasePhase.DRAINING,
        (LeasePhase.GRANTED, LeaseVerb.REVOKE): LeasePhase.REVOKED,
        (LeasePhase.GRANTED, LeaseVerb.EXPIRE): LeasePhase.EXPIRED,
        (LeasePhase.DRAINING, LeaseVerb.REVOKE): LeasePhase.REVOKED,
        (LeasePhase.DRAINING, LeaseVerb.EXPIRE): LeasePhase.DRAINED,
    }
)

RENEW_AT_NUMERATOR: Final = 5
RENEW_AT_DENOMINATOR: Final = 12
"""Renew after 5/12 of a lease on the average: the middle of the window from T/3 to T/2."""

RENEW_SPREAD_OF_LEASE: Final = 12
"""Over how much of a lease renewals are spread around that, each session at a place of its own: what began together,
or was held up together, does not come together for ever."""

_PLACES: Final = 1 << 16
"""Places within the spread."""

RENEW_TOGETHER_US: Final = 10_000
RENEW_TOGETHER_OF_LEASE: Final = 24
"""What falls due within so long, or within so much of a lease, falls due at once: many renewals are one record."""

LIVE: Final = frozenset({LeasePhase.GRANTED, LeasePhase.DRAINING})
"""The phases in which steering under the lease may exist."""


def advance(phase: LeasePhase, verb: LeaseVerb) -> LeasePhase:
    """Return the phase after `verb`.

    Raises:
        IllegalTransitionError: `verb` is not legal in `phase`.
    """
    try:
        return TRANSITIONS[phase, verb]
    except KeyError:
        raise IllegalTransitionError(machine="lease", phase=phase.name, event=verb.name) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTerms:
    """The times that every lease of a controller follows.

    Attributes:
        lease_ms: T, the duration of a grant or renewal.
        drift_ppm: rho, the most by which two clocks' rates differ.
        grace_ms: What the issuer adds after the holder's stretched deadline.
        drain_ms_max: How long the source of a relocation may finish its work.
    """

    lease_ms: int
    drift_ppm: int
    grace_ms: int
    drain_ms_max: int

    def release_us(self, granted_us: BootUs, deadline_us: BootUs) -> BootUs:
        """Return when the reservation behind a lease may be freed: never before the last holder let go."""
        lease_us = deadline_us - granted_us
        return BootUs(granted_us + stretched_us(lease_us, self.drift_ppm) + self.grace_ms * MS)


class Lease(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One COMMIT: an epoch of a session at one anchor.

    Attributes:
        anchor: Where the session may be steered.
        domains: The domains in which its rate is reserved.
        epoch: The fencing token.
        phase: Where it stands.
        rate_mrps: The reserved rate.
        granted_us: When the present duration began: the grant or the last renewal.
        deadline_us: When it ends unless renewed.
        bound: The tail bound that admitted it.
        envelopes: Digests of the envelopes that the bound rests on.
        renewal: How often it was renewed.
    """

    anchor: AnchorId
    domains: tuple[DomainName, ...]
    epoch: Epoch
    phase: LeasePhase
    rate_mrps: int
    granted_us: BootUs
    deadline_us: BootUs
    bound: TailBound
    envelopes: tuple[str, ...]
    renewal: int = 0

    @property
    def live(self) -> bool:
        """Whether steering under it may exist."""
        return self.phase in LIVE

    def renews_us(self, session: SessionId) -> BootUs:
        """Return when a session renews it: between 3/8 and 11/24, or up to 1/24 earlier together with others."""
        lease_us = self.deadline_us - self.granted_us
        place = crc32(session.encode()) % _PLACES
        early_us = lease_us * (2 * place - _PLACES) // (2 * _PLACES * RENEW_SPREAD_OF_LEASE)
        renew_us = self.granted_us + lease_us * RENEW_AT_NUMERATOR // RENEW_AT_DENOMINATOR + early_us
        return BootUs(renew_us - renew_us % max(1, min(RENEW_TOGETHER_US, lease_us // RENEW_TOGETHER_OF_LEASE)))

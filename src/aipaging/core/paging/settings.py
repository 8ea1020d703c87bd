"""The times and limits by which the engine decides; every change of them is recorded, so that replay decides alike.

A term begins with all of them. While it lasts, limits and the length of further leases may change: a lease is released
by the duration that it was granted for itself. Drift, grace, drains and the longest lease are what earlier leases, the
capacity held after a recovery and the auditor reckon with, so they change with a term only.
"""

from dataclasses import dataclass, field, replace

from aipaging.core.evidence.record import Fields
from aipaging.core.foundation.time import BootUs
from aipaging.core.lease.machine import LeaseTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an operator sets.

    Attributes:
        lease: The times of every lease.
        lease_ms_max: The longest lease that any term of this journal may have granted; capacity is held that long
            after a recovery.
        anchor_lost_ms: An anchor that was not heard of for so long is LOST.
        prepare_ms_max: A relocation whose target has not answered for so long fails.
        retry_ms: A relocation that must happen (anchor lost, draining) is tried again after so long.
        relocations_per_s: Relocations that must happen (anchor lost, draining) begin at most so fast, by class.
        kept_ms: An ended session is kept for pollers so long (CAMARA asks for 360 s).
        duration_s_max: The most that a session may last, extensions included.
        sessions_max: Live sessions; a page beyond it is refused.
    """

    lease: LeaseTerms = field(
        default_factory=lambda: LeaseTerms(lease_ms=10_000, drift_ppm=500, grace_ms=500, drain_ms_max=30_000)
    )
    lease_ms_max: int = 60_000
    anchor_lost_ms: int = 3_000
    prepare_ms_max: int = 2_000
    retry_ms: int = 1_000
    kept_ms: int = 360_000
    relocations_per_s: int = 5_000
    duration_s_max: int = 86_400
    sessions_max: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSettings:
    """Decide by other settings from now on, as far as a term may: what may not stays as it is."""

    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsChanged:
    """Other settings hold."""

    settings: Settings
    boot_us: BootUs


def within_term(present: Settings, wanted: Settings) -> Settings:
    """Return what may become of the `present` settings while their term lasts, as near to those `wanted` as can be.

    A lease does not become longer than the longest, nor than a drain: a gateway may use the source of a relocation for
    as long as its last lease.
    """
    lease_ms = wanted.lease.lease_ms
    if lease_ms > min(present.lease_ms_max, max(present.lease.drain_ms_max, present.lease.lease_ms)):
        lease_ms = present.lease.lease_ms
    return replace(wanted, lease=replace(present.lease, lease_ms=lease_ms), lease_ms_max=present.lease_ms_max)


def changed_fields(event: SettingsChanged, _state: object) -> Fields:
    """Return the public fields of a change: all that may change within a term."""
    settings = event.settings
    return {
        "lease_ms": settings.lease.lease_ms,
        "anchor_lost_ms": settings.anchor_lost_ms,
        "prepare_ms_max": settings.prepare_ms_max,
        "retry_ms": settings.retry_ms,
        "relocations_per_s": settings.relocations_per_s,
        "kept_ms": settings.kept_ms,
        "duration_s_max": settings.duration_s_max,
        "sessions_max": settings.sessions_max,
    }

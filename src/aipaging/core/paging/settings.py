"""The times and limits by which the engine decides; recorded with every term, so that replay decides alike."""

from dataclasses import dataclass, field

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

"""How long an epoch may go on at an anchor: what the controller grants a sidecar in time.

The rules, in order; `asked` is the epoch that the sidecar has seen, and the anchor is the asker's own:

1. The session's serving COMMIT is live on this anchor and not older than `asked`: ACTIVE, under the serving epoch.
   After a recovery, or a relocation that failed late, that epoch is higher than `asked`: the sidecar adopts it.
2. `asked` is the COMMIT of a relocation's target on this anchor: ACTIVE. An older epoch is not lifted to it: until
   the switch, gateways still send the older one.
3. The source of a relocation is on this anchor and not older than `asked`: DRAINING until the drain is over.
4. Everything else has ENDED.

Time is counted by the asker from its own sending, which was before `now`: it only ever relies on less.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, SessionId
from aipaging.core.foundation.time import MS, BootUs, Now, shrunk_us
from aipaging.core.lease.machine import Lease, LeasePhase
from aipaging.core.paging.state import State

LeaseWord: TypeAlias = Literal["ACTIVE", "DRAINING", "ENDED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """What remains of one epoch at one anchor.

    Attributes:
        state: Whether work may begin, may only end, or must be cut.
        remaining_ms: For how long; 0 when it has ended.
        current: The epoch that the answer is about.
    """

    state: LeaseWord
    remaining_ms: int
    current: Epoch


def remaining(state: State, anchor: AnchorId, session_id: SessionId, *, asked: Epoch, now: Now) -> Remaining:
    """Return what remains of the epoch at the anchor."""
    session = state.sessions.get(session_id)
    ended = Remaining(state="ENDED", remaining_ms=0, current=asked)
    if session is None or not session.available:
        return ended
    serving, target, source = session.lease, session.target, session.source
    if serving is not None and serving.anchor == anchor and asked <= serving.epoch:
        found: tuple[LeaseWord, Lease] = ("ACTIVE", serving)
    elif target is not None and target.anchor == anchor and asked == target.epoch:
        found = ("ACTIVE", target)
    elif source is not None and source.anchor == anchor and asked <= source.epoch:
        found = ("DRAINING", source)
    else:
        return ended
    word, lease = found
    left_ms = _left_ms(lease, word, now.boot_us, state.settings.lease.drift_ppm)
    return Remaining(state=word, remaining_ms=left_ms, current=lease.epoch) if left_ms > 0 else ended


def _left_ms(lease: Lease, word: LeaseWord, now_us: BootUs, drift_ppm: int) -> int:
    phase = LeasePhase.DRAINING if word == "DRAINING" else LeasePhase.GRANTED
    if lease.phase is not phase or lease.deadline_us <= now_us:
        return 0
    return shrunk_us(lease.deadline_us - now_us, drift_ppm) // MS

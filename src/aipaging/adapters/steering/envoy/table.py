"""Which session goes where, until when: what look-ups are answered from.

Ordering rules: the highest epoch of a session that was ever seen stays known for as long as an enforcement point
might hold it, so that a lower one is refused; an entry past its deadline answers nothing.

Left out: who has been told (the ADS), and the journal (the caller's).
"""

from collections.abc import Iterable, Sequence
from typing import Final

from aipaging.adapters.steering.receipts import Receipts
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import AnchorId, GatewayId, SessionId
from aipaging.core.foundation.time import BootUs, WallUs
from aipaging.core.steering.grant import Fence, SteeringGrant, SteeringRenewal

SESSIONS_MAX: Final = 250_000
"""Sessions of one controller: 130 MB, receipts included. One more is refused rather than another forgotten."""

FENCES_SWEEP_MIN: Final = 4_096
"""Fences are swept when they have doubled since the last time, and not before there are this many."""

_NOBODY: Final[frozenset[GatewayId]] = frozenset()


class Steered:
    """One session's steering. Mutable and slotted: there are up to 250,000."""

    __slots__ = (
        "anchor", "burst", "deadline_us", "epoch", "gateways", "rate_mrps", "receipt", "session", "token_expires_us",
    )  # fmt: skip

    def __init__(self, grant: SteeringGrant, receipts: Receipts) -> None:
        self.session: SessionId = grant.session
        self.anchor: AnchorId = grant.anchor
        self.epoch: Epoch = grant.epoch
        self.deadline_us: BootUs = grant.deadline_us
        self.token_expires_us: WallUs = grant.token_expires_us
        self.receipt = receipts.packed(grant.anchor, grant.receipt)
        self.rate_mrps: int = grant.rate_mrps
        self.burst: int = grant.burst
        self.gateways: frozenset[GatewayId] = _NOBODY


class SteeringTable:
    """Sessions by id, and the fences of those that are gone."""

    def __init__(self) -> None:
        self.term = 0
        self._sessions: dict[SessionId, Steered] = {}
        self._receipts = Receipts()
        self._fences: dict[SessionId, Fence] = {}
        self._sweep_at = FENCES_SWEEP_MIN
        # Thousands of entries share a handful of gateway sets.
        self._gateway_sets: dict[frozenset[GatewayId], frozenset[GatewayId]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, session: SessionId) -> Steered | None:
        """Return the session's steering, whether or not its deadline has passed."""
        return self._sessions.get(session)

    def knows(self, session: SessionId) -> bool:
        """Whether an epoch of the session is held, or is fenced and might still be held by a gateway."""
        return session in self._sessions or session in self._fences

    def begin(self, term: int, grants: Iterable[SteeringGrant]) -> None:
        """Forget everything; hold exactly these grants.

        Raises:
            RefusedError: A grant is of a lower term; nothing has changed then.
        """
        found = {grant.session: Steered(grant, self._receipts) for grant in grants}
        for steered in found.values():
            if steered.epoch.term < term:
                raise _fenced(steered.session, steered.epoch, Epoch(term, 0))
            known = self._sessions.get(steered.session)
            if known is not None and known.epoch > steered.epoch:
                # Of this term already: a relocation has switched while the term was on its way to the gateways.
                found[steered.session] = known
        self.term = term
        self._sessions = found
        self._fences = {}
        self._gateway_sets = {}

    def check(self, grants: Sequence[SteeringGrant], now_us: BootUs) -> None:
        """Raise unless all of these may be installed.

        Raises:
            RefusedError: An epoch is lower than one already seen (`FENCED`).
            UnavailableError: The table is full (`TABLE_FULL`).
        """
        for grant in grants:
            if grant.epoch.term < self.term:
                raise _fenced(grant.session, grant.epoch, Epoch(self.term, 0))
            known = self._sessions.get(grant.session)
            if known is not None and (
                grant.epoch < known.epoch or (grant.epoch == known.epoch and grant.anchor != known.anchor)
            ):
                raise _fenced(grant.session, grant.epoch, known.epoch)
            fence = self._fences.get(grant.session)
            if fence is not None and grant.epoch <= fence.epoch:
                raise _fenced(grant.session, grant.epoch, fence.epoch)
        if len(self._sessions) + len(grants) > SESSIONS_MAX:
            self.sweep(now_us)
            if len(self._sessions) + len(grants) > SESSIONS_MAX:
                raise UnavailableError(
                    f"{len(self._sessions)} sessions are steered and {SESSIONS_MAX} is the most that one controller "
                    "holds: end sessions or add a shard",
                    code="TABLE_FULL",
                )

    def put(self, grant: SteeringGrant) -> Steered | None:
        """Hold a grant that passed `check`; return the lower epoch that it replaced, if any."""
        known = self._sessions.get(grant.session)
        if known is not None and known.epoch == grant.epoch:
            known.deadline_us = max(known.deadline_us, grant.deadline_us)
            return None
        self._sessions[grant.session] = Steered(grant, self._receipts)
        return known

    def renew(self, renewal: SteeringRenewal) -> None:
        """Move the deadline of the epoch if it is still the one that is held."""
        known = self._sessions.get(renewal.session)
        if known is not None and known.epoch == renewal.epoch:
            known.deadline_us = max(known.deadline_us, renewal.deadline_us)

    def remove(self, fence: Fence, now_us: BootUs) -> Steered | None:
        """Remember the fence; drop and return the session's steering if the fence covers it."""
        if len(self._fences) >= self._sweep_at:
            self.sweep(now_us)
            self._sweep_at = max(FENCES_SWEEP_MIN, 2 * len(self._fences))
        earlier = self._fences.get(fence.session)
        if earlier is None or earlier.epoch < fence.epoch:
            self._fences[fence.session] = fence
        known = self._sessions.get(fence.session)
        if known is None or fence.epoch < known.epoch:
            return None
        return self._sessions.pop(fence.session)

    def took_up(self, steered: Steered, gateway: GatewayId) -> None:
        """Note that a gateway holds the epoch from now on."""
        gateways = steered.gateways | {gateway}
        steered.gateways = self._gateway_sets.setdefault(gateways, gateways)

    def sweep(self, now_us: BootUs) -> None:
        """Drop what nobody can hold any more: steering past its deadline, fences past theirs."""
        self._sessions = {key: held for key, held in self._sessions.items() if held.deadline_us > now_us}
        self._fences = {key: fence for key, fence in self._fences.items() if fence.keep_until_us > now_us}


def _fenced(session: SessionId, epoch: Epoch, seen: Epoch) -> RefusedError:
    return RefusedError(
        f"epoch {epoch} of session {session} is fenced: {seen} has been seen; ask for a new grant", code="FENCED"
    )

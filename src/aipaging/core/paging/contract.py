"""Whether what a session was promised is still a theorem, and what its client is told.

A session is looked at where it is, with everything that admission looks at, as if its anchor took sessions: anchors
that are lost or drain are relocation's matter. There are three findings:

* provable, as before: nothing happened, nothing is recorded;
* provable under other envelopes or with another bound: COMMIT_REBOUND, so that every session carries the bound that
  holds for it now;
* not provable: SESSION_DEGRADED, once, until SESSION_RESTORED.
"""

from dataclasses import dataclass
from typing import Final

from aipaging.core.anchor.eligibility import Candidate, Rejection
from aipaging.core.foundation.time import MS, BootUs, Now
from aipaging.core.paging.decision import candidates_for
from aipaging.core.paging.events import Event
from aipaging.core.paging.promise_events import CommitRebound, SessionDegraded, SessionRestored
from aipaging.core.paging.state import Session, State

RETRY_MAX: Final = 32
"""A degraded session is looked at again at most this many times slower than the first time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How a session's contract stands where it is.

    Attributes:
        candidate: The session's own anchor, examined for its intent; None if the anchor is gone.
        rejection: Why the contract is not provable there, or None.
    """

    candidate: Candidate | None
    rejection: Rejection | None


def found(state: State, session: Session, now: Now) -> Finding:
    """Return whether the session's contract is provable now, where the session is."""
    lease = session.lease
    if lease is None:
        return Finding(candidate=None, rejection=Rejection(constraint="COMMIT", message="there is no COMMIT"))
    looked = candidates_for(state, session.session, session.intent, now, only=lease.anchor, as_ready=True)
    if not looked:
        message = f"anchor {lease.anchor} is gone"
        return Finding(candidate=None, rejection=Rejection(constraint="HEALTH", message=message))
    here = looked[0]
    rejection = here.rejection
    if rejection is None and here.path != lease.domains:
        # The rate is reserved on another path than the one that the bound would be about.
        message = f"the COMMIT is for the path {' - '.join(lease.domains)}, and the path is {' - '.join(here.path)} now"
        rejection = Rejection(constraint="PATH", message=message)
    return Finding(candidate=here, rejection=rejection)


def told(session: Session, finding: Finding, now: Now) -> list[Event]:
    """Return what is recorded, and told to the client, of a finding; nothing if nothing changed."""
    rejection = finding.rejection
    if rejection is not None:
        contract = session.contract
        if session.degraded and contract is not None and contract.constraint == rejection.constraint:
            return []
        return [
            SessionDegraded(
                session=session.session,
                constraint=rejection.constraint,
                message=rejection.message,
                nearest=rejection.nearest,
                boot_us=now.boot_us,
                wall_us=now.wall_us,
            )
        ]
    events = _rebound(session, finding, now)
    if session.degraded and (events or _rests_on(session, finding)):
        events.append(SessionRestored(session=session.session, boot_us=now.boot_us, wall_us=now.wall_us))
    return events


def _rests_on(session: Session, finding: Finding) -> bool:
    """Tell whether the serving COMMIT carries the bound that was found."""
    lease, candidate = session.lease, finding.candidate
    if lease is None or candidate is None:
        return False
    return (lease.envelopes, lease.bound) == (candidate.envelopes, candidate.bound)


def _rebound(session: Session, finding: Finding, now: Now) -> list[Event]:
    lease, candidate = session.lease, finding.candidate
    if lease is None or candidate is None or candidate.bound is None or _rests_on(session, finding):
        return []
    if not lease.live or lease.deadline_us <= now.boot_us:
        return []  # what has expired is granted anew or ended first
    return [
        CommitRebound(
            session=session.session,
            epoch=lease.epoch,
            bound=candidate.bound,
            envelopes=candidate.envelopes,
            boot_us=now.boot_us,
        )
    ]


def again_us(state: State, session: Session, now: Now) -> BootUs:
    """Return when a degraded session is looked at again: after as long as it has been degraded, within limits.

    The instants lie on a grid, so that several reasons to look again become one look.
    """
    retry_us = state.settings.retry_ms * MS
    degraded_us = now.wall_us - session.contract.since_us if session.degraded and session.contract is not None else 0
    wait_us = min(max(degraded_us, retry_us), RETRY_MAX * retry_us)
    return BootUs(-(-(now.boot_us + wait_us) // retry_us) * retry_us)

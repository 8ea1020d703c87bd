"""One wake, as it grows: what it came to so far, and what it puts off."""

from dataclasses import dataclass, field
from typing import Final

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import BootUs, Now
from aipaging.core.lease.expiry import NO_EPOCH, Due
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.events import CommitGranted, Renewal
from aipaging.core.paging.state import State
from aipaging.core.steering.grant import SteeringRenewal

RESTRICTED_RETRY_US: Final = 1_000_000
"""When to look again at what has to wait for the journal to be well."""


@dataclass(slots=True)
class Waking:
    """One wake.

    Attributes:
        state: What is known.
        now: The instant.
        decision: What it came to so far.
        touched: Who was decided about: nobody is twice in one wake.
        looked: Which sessions' contracts were looked at.
        renewals: COMMITs that are renewed, in one record.
        steering: Their new deadlines.
        granted: Whether a COMMIT was granted: a second grant would not see the first.
        when_us: When the entry that is looked at was due.
        restrictive: Do only what takes away.
        turn: Whose turn in the line it is.
        turn_us: When the next turn is due that this wake may not take any more; None: it is on the agenda.
    """

    state: State
    now: Now
    decision: Decision = field(default_factory=Decision)
    touched: set[str] = field(default_factory=set[str])
    looked: set[str] = field(default_factory=set[str])
    renewals: list[Renewal] = field(default_factory=list)
    steering: list[SteeringRenewal] = field(default_factory=list)
    granted: bool = False
    when_us: int = 0
    restrictive: bool = False
    turn: str = ""
    turn_us: int | None = None

    def add(self, subject: str, decision: Decision) -> None:
        """Take a decision about a subject over; while only restrictive ones are taken, look again later."""
        if self.restrictive and any(isinstance(event, CommitGranted) for event in decision.events):
            self.later(self.now.boot_us + RESTRICTED_RETRY_US, Due.RELOCATION, subject, NO_EPOCH)
            return
        if decision.events:
            self.touched.add(subject)
        self.decision.events += decision.events
        self.decision.effects += decision.effects

    def later(self, when_us: int, due: Due, subject: str, epoch: Epoch) -> None:
        """Put an entry back."""
        self.state.queue.add(BootUs(when_us), due, subject, epoch=epoch)

"""Planted bugs: each has to be found by a checker, or the checkers see too little.

A mutant replaces functions for the length of a `with`, in the core and in the models, or hands other parts to the
run; product code has no switch for any of it. Runs of a mutant are of one process: nothing else may run meanwhile.
"""

import contextlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.system import planted
from aipaging.simulation.system import planted_more as more
from aipaging.simulation.system.parts import Parts
from aipaging.simulation.system.planted import Patch


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One planted bug.

    Attributes:
        name: How it is asked for.
        what: What it does, in a sentence.
        patches: What is replaced while it is in force.
        parts: What becomes of the parts of a run.
        seeds_end: It is found among the seeds below this one.
        faults: The fault families that it needs, or None for the usual.
    """

    name: str
    what: str
    patches: Callable[[], list[Patch]] = list
    parts: Callable[[Parts], Parts] = lambda parts: parts
    seeds_end: int = 60
    faults: tuple[str, ...] | None = None

    @contextlib.contextmanager
    def in_force(self) -> Generator[None]:
        """Have it in force."""
        before: list[Patch] = []
        try:
            for owner, attribute, replacement in self.patches():
                before.append((owner, attribute, getattr(owner, attribute)))
                setattr(owner, attribute, replacement)
            yield
        finally:
            for owner, attribute, original in reversed(before):
                setattr(owner, attribute, original)


def mutant_of(name: str) -> Mutant:
    """Return the mutant of a name.

    Raises:
        InvalidInputError: There is none.
    """
    if name not in MUTANTS:
        raise InvalidInputError(f"there is no mutant {name!r}: there are {', '.join(MUTANTS)}", field="mutant")
    return MUTANTS[name]


_PLANTED: Final[Mapping[str, tuple[str, Callable[[], list[Patch]]]]] = {
    "sidecar-takes-any-epoch": ("A sidecar admits lower epochs after higher ones.", planted.any_epoch),
    "renewal-without-fencing": ("A renewal does not look at its epoch.", planted.renew_any_epoch),
    "term-stays": ("A restart does not raise the term.", planted.term_stays),
    "lease-from-the-answer": (
        "A gateway counts a lease from the answer, not from the asking.",
        planted.from_the_answer,
    ),
    "no-drift-margin": ("Nobody takes drift off a lease.", planted.no_margin),
    "sidecar-times-from-a-receipt": ("A receipt alone grants a sidecar time.", planted.from_a_receipt),
    "cache-survives-suspend": ("A gateway's clock does not count suspend.", planted.survives_suspend),
    "used-when-silent": ("A gateway uses what it has when nobody answers.", planted.used_when_silent),
    "streams-never-cut": ("A sidecar does not cut streams at the deadline.", planted.never_cut),
    "renewed-after-expiry": ("The controller renews what has expired.", planted.renew_after_expiry),
    "freed-at-the-deadline": ("Capacity is free at the deadline, without drift and grace.", planted.free_at_deadline),
    "freed-on-revocation": ("Capacity is free once a COMMIT is revoked.", planted.free_on_revoke),
    "not-held-over-terms": ("A new term does not hold what the last one granted.", planted.not_held_over_terms),
    "sold-twice": ("Admission forgets what others have reserved.", planted.sold_twice),
    "source-released-first": ("A relocation revokes the source before the target is installed.", planted.source_first),
    "drains-for-ever": ("The drain of a source has no end.", planted.drains_for_ever),
    "switched-unprepared": ("Gateways are told of a target that nobody prepared.", planted.relocate_unprepared),
    "before-the-sync": ("Effects and answers come before the sync.", planted.before_the_sync),
    "reads-do-not-wait": ("Reads show what is not durable.", planted.reads_do_not_wait),
    "deposed-leader-answers": ("A leader answers after its leadership.", planted.deposed_answers),
    "take-up-not-recorded": ("A gateway's take-up is on no record.", planted.not_on_record),
    "revocation-not-recorded": ("State changes without a record.", planted.no_record_of_ends),
    "list-replaced": ("A gateway takes the latest list, not the strictest.", planted.list_replaced),
    "fence-not-pushed": ("A revocation is confirmed and never pushed.", planted.not_pushed),
    "answer-not-judged": ("A gateway does not judge an answer by the list of its arrival.", planted.unjudged_answers),
    "any-bound": ("Admission does not compare the bound with what was asked.", planted.any_bound),
    "token-of-the-grant": ("An extension does not reach the gateways.", planted.token_of_the_grant),
    "reconcile-overtakes": ("A term that reaches the table late undoes a switch.", list),
    "counted-again": ("A batch of counts that comes again is counted again.", more.counted_again),
    "sessions-not-counted": ("Sessions of a tenant are not counted.", more.sessions_not_counted),
    "spending-not-counted": ("What a tenant has spent is forgotten.", more.spending_not_counted),
    "kill-leaves-anchors": ("An anchor that is stopped is still chosen.", more.kill_leaves_anchors),
    "entitled-for-ever": ("Who is entitled once is entitled for ever.", more.entitled_for_ever),
    "equals-displace": ("A class displaces its equals.", more.equals_displace),
    "envelope-of-before": ("Admission goes by the first envelope of a domain.", more.envelope_of_before),
    "domain-sold-twice": ("Admission forgets what others have reserved in a domain.", more.domain_sold_twice),
    "revocation-ignored": ("A sidecar does not end what it is told has ended.", more.revocation_ignored),
    "sidecar-from-the-answer": ("A sidecar counts its time from the answer.", more.sidecar_from_the_answer),
    "silence-extends": ("A question without an answer leaves a sidecar more time.", more.silence_extends),
    "torn-batch-kept": ("Records of a batch without an end are taken for durable.", more.torn_batch_kept),
    "snapshot-without-counts": ("A snapshot forgets which counts were taken.", more.snapshot_without_counts),
}

_MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    "sidecar-takes-any-epoch": {"faults": ("pause", "backup", "leadership")},
    "no-drift-margin": {"parts": planted.no_margin_parts},
    "drains-for-ever": {"parts": planted.drains_for_ever_parts},
    "token-of-the-grant": {"seeds_end": 120},
    "reads-do-not-wait": {"faults": ("disk",)},
    "list-replaced": {"faults": ("races",)},
    "answer-not-judged": {"faults": ("races",)},
    "reconcile-overtakes": {"parts": planted.reconcile_overtakes, "seeds_end": 80},
    "counted-again": {"faults": ("tenancy", "network")},
    "sessions-not-counted": {"faults": ("tenancy",)},
    "spending-not-counted": {"faults": ("tenancy",)},
    "kill-leaves-anchors": {"faults": ("tenancy",)},
    "entitled-for-ever": {"faults": ("tenancy",)},
    "equals-displace": {"faults": ("preemption",)},
    "revocation-ignored": {"faults": ("network", "leadership")},
    "torn-batch-kept": {"faults": ("disk", "crash")},
    "snapshot-without-counts": {"faults": ("tenancy", "crash")},
}

MUTANTS: Final = {
    name: Mutant(name=name, what=what, patches=patches, **_MORE.get(name, {}))
    for name, (what, patches) in _PLANTED.items()
}
"""By name."""

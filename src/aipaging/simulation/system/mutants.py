"""Planted bugs: each has to be found by a checker, or the checkers see too little.

A mutant replaces functions for the length of a `with`, in the core and in the models, or hands other parts to the
run; product code has no switch for any of it. Runs of a mutant are of one process: nothing else may run meanwhile.
"""

import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.system import planted
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


_ALL: Final = (
    Mutant(
        name="sidecar-takes-any-epoch",
        what="A sidecar admits lower epochs after higher ones.",
        patches=planted.any_epoch,
        seeds_end=130,
    ),
    Mutant(
        name="renewal-without-fencing", what="A renewal does not look at its epoch.", patches=planted.renew_any_epoch
    ),
    Mutant(name="term-stays", what="A restart does not raise the term.", patches=planted.term_stays),
    Mutant(
        name="lease-from-the-answer",
        what="A gateway counts a lease from the answer, not from the asking.",
        patches=planted.from_the_answer,
    ),
    Mutant(
        name="no-drift-margin",
        what="Nobody takes drift off a lease.",
        patches=planted.no_margin,
        parts=planted.no_margin_parts,
    ),
    Mutant(
        name="sidecar-times-from-a-receipt",
        what="A receipt alone grants a sidecar time.",
        patches=planted.from_a_receipt,
    ),
    Mutant(
        name="cache-survives-suspend",
        what="A gateway's clock does not count suspend.",
        patches=planted.survives_suspend,
    ),
    Mutant(
        name="used-when-silent",
        what="A gateway uses what it has when nobody answers.",
        patches=planted.used_when_silent,
    ),
    Mutant(name="streams-never-cut", what="A sidecar does not cut streams at the deadline.", patches=planted.never_cut),
    Mutant(
        name="renewed-after-expiry", what="The controller renews what has expired.", patches=planted.renew_after_expiry
    ),
    Mutant(
        name="freed-at-the-deadline",
        what="Capacity is free at the deadline, without drift and grace.",
        patches=planted.free_at_deadline,
    ),
    Mutant(
        name="freed-on-revocation", what="Capacity is free once a COMMIT is revoked.", patches=planted.free_on_revoke
    ),
    Mutant(
        name="not-held-over-terms",
        what="A new term does not hold what the last one granted.",
        patches=planted.not_held_over_terms,
    ),
    Mutant(name="sold-twice", what="Admission forgets what others have reserved.", patches=planted.sold_twice),
    Mutant(
        name="source-released-first",
        what="A relocation revokes the source before the target is installed.",
        patches=planted.source_first,
    ),
    Mutant(
        name="drains-for-ever",
        what="The drain of a source has no end.",
        patches=planted.drains_for_ever,
        parts=planted.drains_for_ever_parts,
    ),
    Mutant(
        name="switched-unprepared",
        what="Gateways are told of a target that nobody prepared.",
        patches=planted.relocate_unprepared,
    ),
    Mutant(name="before-the-sync", what="Effects and answers come before the sync.", patches=planted.before_the_sync),
    Mutant(name="reads-do-not-wait", what="Reads show what is not durable.", patches=planted.reads_do_not_wait),
    Mutant(
        name="deposed-leader-answers", what="A leader answers after its leadership.", patches=planted.deposed_answers
    ),
    Mutant(name="take-up-not-recorded", what="A gateway's take-up is on no record.", patches=planted.not_on_record),
    Mutant(name="revocation-not-recorded", what="State changes without a record.", patches=planted.no_record_of_ends),
    Mutant(
        name="list-replaced",
        what="A gateway takes the latest list, not the strictest.",
        patches=planted.list_replaced,
        faults=("races",),
    ),
    Mutant(name="fence-not-pushed", what="A revocation is confirmed and never pushed.", patches=planted.not_pushed),
    Mutant(
        name="answer-not-judged",
        what="A gateway does not judge an answer by the list of its arrival.",
        patches=planted.unjudged_answers,
        faults=("races",),
    ),
    Mutant(
        name="any-bound", what="Admission does not compare the bound with what was asked.", patches=planted.any_bound
    ),
    Mutant(
        name="token-of-the-grant", what="An extension does not reach the gateways.", patches=planted.token_of_the_grant
    ),
    Mutant(
        name="reconcile-overtakes",
        what="A term that reaches the table late undoes a switch.",
        parts=planted.reconcile_overtakes,
        seeds_end=80,
    ),
)

MUTANTS: Final = {mutant.name: mutant for mutant in _ALL}
"""By name."""

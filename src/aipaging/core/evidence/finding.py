"""What a verification says: the invariants by name, what was found against them, and the verdict."""

import enum
from dataclasses import dataclass


class Invariant(enum.Enum):
    """What every log must keep; the letters are used in findings and documents."""

    STEERING = "a lease-gated steering"
    RELOCATION = "b make-before-break"
    EPOCHS = "c rising epochs and terms"
    CAPACITY = "d capacity sold once"
    RELEASE = "e release after deadline, drift and grace"
    SESSION = "f session life"
    ORDER = "g contiguous order"
    CONTRACT = "h promises in force"
    TENANCY = "i quotas, switches, classes"
    SCHEMA = "record schema"
    TREE = "Merkle tree"
    SIGNATURE = "checkpoint signature"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One record that breaks an invariant.

    Attributes:
        seq: Its place in the log.
        type: Its type; empty when the record is missing or cannot be read.
        what: What is wrong, in a plain sentence.
        invariant: What it breaks.
    """

    seq: int
    type: str
    what: str
    invariant: Invariant


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was checked and what came of it.

    Attributes:
        records: Records read.
        chain_ok: Every record names its predecessor.
        tree_ok: Every checkpoint, stored or witnessed, is of this log: nothing was cut, forked or rewritten.
        signatures_ok: Every checkpoint was signed by the log's key.
        invariants_ok: The replay found nothing.
        first_bad: The first record that something is wrong with.
        sessions: Sessions seen.
    """

    records: int
    chain_ok: bool
    tree_ok: bool
    signatures_ok: bool
    invariants_ok: bool
    first_bad: Finding | None
    sessions: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.chain_ok and self.tree_ok and self.signatures_ok and self.invariants_ok


class Violation(Exception):  # noqa: N818 - not a failure of ours: a judgement, turned into a finding
    """Raised inside the replay by the record that breaks an invariant."""

    def __init__(self, invariant: Invariant, what: str) -> None:
        super().__init__(what)
        self.invariant = invariant
        self.what = what

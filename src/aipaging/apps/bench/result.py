"""What a benchmark reports."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """One measured number, beside its peer's from the same run.

    Attributes:
        metric: What was measured, such as `requests_per_second_c16`.
        unit: Its unit.
        ours: Our number (the median of the runs).
        peer: Who the peer is, or None.
        theirs: The peer's number, measured interleaved with ours, or None.
        ratio: ours / theirs, or None.
        goal: The goal in words, such as ">= 0.85".
        ok: Whether the goal was met.
        runs: How many runs.
        spread: (largest - smallest) / median of our runs.
    """

    metric: str
    unit: str
    ours: float
    peer: str | None
    theirs: float | None
    ratio: float | None
    goal: str
    ok: bool
    runs: int
    spread: float

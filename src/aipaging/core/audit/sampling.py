"""Realised compliance from records opened at random: a confidence sequence for sampling without replacement.

The period's records are fixed before the seed is drawn, so how requests depend on one another does not matter: only the
order of opening is random, and that order is ours. The prior-posterior ratio of a beta-binomial prior
[WaudbySmithRamdas2020] is, at the true number of exceedances, a martingale of mean one; by Ville's inequality it
passes 1/alpha with probability alpha at most, over all openings together. So one may look after every record and stop
whenever the verdict is there.
"""

import math
from dataclasses import dataclass

import numpy as np

from aipaging.core.audit.special import Floats, betaln, gammaln
from aipaging.core.audit.telemetry import Integers, Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class HypergeometricSequence:
    """The prior-posterior-ratio sequence of a population.

    Attributes:
        population: Records that may be opened.
        prior: a and b of the beta law that the fraction of exceedances is mixed over.
    """

    population: int
    prior: tuple[float, float]

    @classmethod
    def centred(cls, population: int, epsilon: float) -> "HypergeometricSequence":
        """Return the sequence whose prior has mean about epsilon, where the verdict is decided."""
        return cls(population=population, prior=(1.0, 1.0 / epsilon))

    def log_evidence(self, total: Integers | int, opened: Integers, exceeding: Integers) -> Floats:
        """Return the log e-value against exactly `total` exceedances in the population, after each opening.

        It is the marginal likelihood of what was opened over its likelihood under `total`; infinite where `total` is
        impossible.
        """
        a, b = self.prior
        marginal = betaln(a + exceeding, b + opened - exceeding) - betaln(a, b)
        rest, hidden = np.asarray(total) - exceeding, self.population - opened
        possible = (rest >= 0) & (rest <= hidden)
        rest = np.where(possible, rest, 0)
        # P(this series of openings | total): the orders of the hidden part over the orders of all.
        likelihood = _log_choose(hidden, rest) - _log_choose(np.asarray(self.population), np.asarray(total))
        return np.where(possible, marginal - likelihood, np.inf)

    def log_evidence_at_most(self, total: int, opened: Integers, exceeding: Integers) -> Floats:
        """Return the log e-value against at most `total` exceedances: the least over all such numbers."""
        if total < 0:
            return np.full(len(opened), np.inf)
        return self.log_evidence(np.minimum(self._likeliest(opened, exceeding), total), opened, exceeding)

    def log_evidence_at_least(self, total: int, opened: Integers, exceeding: Integers) -> Floats:
        """Return the log e-value against at least `total` exceedances."""
        if total > self.population:
            return np.full(len(opened), np.inf)
        return self.log_evidence(np.maximum(self._likeliest(opened, exceeding), total), opened, exceeding)

    def bounds(self, opened: int, exceeding: int, *, alpha: float) -> tuple[int, int]:
        """Return the least and the greatest number of exceedances in the population that is not refuted."""
        count, late = np.asarray([opened]), np.asarray([exceeding])
        refuted = math.log(1 / alpha)
        middle = int(self._likeliest(count, late)[0])

        def fits(total: int) -> bool:
            return float(self.log_evidence(total, count, late)[0]) < refuted

        # The likelihood has one peak, so what is not refuted is an interval around it.
        low, wrong = middle, exceeding - 1
        while low - wrong > 1:
            half = (low + wrong) // 2
            low, wrong = (half, wrong) if fits(half) else (low, half)
        high, wrong = middle, self.population - opened + exceeding + 1
        while wrong - high > 1:
            half = (high + wrong) // 2
            high, wrong = (half, wrong) if fits(half) else (high, half)
        return low, high

    def _likeliest(self, opened: Integers, exceeding: Integers) -> Integers:
        best = (self.population + 1) * exceeding // np.maximum(opened, 1)
        return np.clip(best, exceeding, self.population - opened + exceeding)


def _log_choose(n: Integers, k: Integers) -> Floats:
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFinding:
    """What opening decided.

    Attributes:
        violated_at: Opening at which more exceedances than allowed were established, None where they were not.
        compliant_at: Opening at which compliance was.
        low: Lower bound of the exceedances in the population.
        high: Upper bound, with everything unknown counted as late.
        log_e_violated: Greatest log e-value against compliance.
        log_e_compliant: Greatest log e-value against violation.
        closing: The two log e-values after the last opening: e-values of one stopping time, which e-BH may compare.
    """

    violated_at: int | None
    compliant_at: int | None
    low: int
    high: int
    log_e_violated: float
    log_e_compliant: float
    closing: tuple[float, float] = (0.0, 0.0)


def judge_openings(
    sequence: HypergeometricSequence, certain: Mask, possible: Mask, *, allowed: int, missing: int, alpha: float
) -> SampledFinding:
    """Return what records opened in random order establish, looking after each of them.

    Args:
        sequence: The sequence of the committed records.
        certain: Whether each opened record exceeded for certain.
        possible: Whether it may have.
        allowed: How many exceedances the contract allows, in committed and missing records together.
        missing: Records that the period must hold and that were not committed: all of them may have exceeded.
        alpha: Error probability of each side.
    """
    opened = np.arange(1, len(certain) + 1, dtype=np.int64)
    least = np.cumsum(certain, dtype=np.int64)
    most = np.cumsum(possible, dtype=np.int64)
    against_compliance = sequence.log_evidence_at_most(allowed, opened, least)
    if allowed - missing < 0:
        against_violation = np.zeros(len(opened))
    else:
        against_violation = sequence.log_evidence_at_least(allowed - missing + 1, opened, most)
    count = len(certain)
    low = sequence.bounds(count, int(least[-1]), alpha=alpha)[0] if count else 0
    high = sequence.bounds(count, int(most[-1]), alpha=alpha)[1] if count else sequence.population
    return SampledFinding(
        violated_at=_first(against_compliance, alpha),
        compliant_at=_first(against_violation, alpha),
        low=low,
        high=high + missing,
        log_e_violated=float(against_compliance.max(initial=0.0)),
        log_e_compliant=float(against_violation.max(initial=0.0)),
        closing=(float(against_compliance[-1]), float(against_violation[-1])) if count else (0.0, 0.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Openings:
    """Opened records of a commitment, some of them about the contract.

    Attributes:
        committed: Records in the commitment.
        opened: How many of them were opened.
        mine: How many of those are of the contract's tenant and period.
        certain: Of those, exceedances for certain.
        possible: Exceedances if everything unknown was late.
    """

    committed: int
    opened: int
    mine: int
    certain: int
    possible: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeBounds:
    """What openings establish about a contract's share of a commitment, at one stopping time.

    Attributes:
        records: Its records in the commitment, at least and at most.
        exceedances: Exceedances among them, at least and at most.
    """

    records: tuple[int, int]
    exceedances: tuple[int, int]


def bound_scope(openings: Openings, *, epsilon: float, alpha: float) -> ScopeBounds:
    """Return bounds on how many committed records a contract is about, and on how many of those exceeded.

    Who sees the opened records alone does not know the first number. Both bounds come from confidence sequences over
    the whole commitment, at half of alpha each, so together they err with probability alpha at most, at any time.

    Args:
        openings: What was opened.
        epsilon: Of the contract, where the sequence is sharp.
        alpha: Error probability of each side.
    """
    flat = HypergeometricSequence(population=openings.committed, prior=(1.0, 1.0))
    sharp = HypergeometricSequence.centred(openings.committed, epsilon)
    return ScopeBounds(
        records=flat.bounds(openings.opened, openings.mine, alpha=alpha / 2),
        exceedances=(
            sharp.bounds(openings.opened, openings.certain, alpha=alpha / 2)[0],
            sharp.bounds(openings.opened, openings.possible, alpha=alpha / 2)[1],
        ),
    )


def _first(log_e: Floats, alpha: float) -> int | None:
    reached = np.flatnonzero(log_e >= math.log(1 / alpha))
    return int(reached[0]) + 1 if reached.size else None

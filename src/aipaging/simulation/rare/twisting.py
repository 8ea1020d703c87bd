"""Importance sampling of one first-come-first-served domain, twisted by theta*, the decay of the network calculus.

A packet's delay is its own service and the work found, which is the highest point of a walk backwards in time: arrivals
lift it, time lowers it. Under the true law that walk drifts down and hardly ever passes a high target. Twisted by
theta*, where the sum over sources of the growth of E exp(theta work) equals theta, it drifts up and always does, and
the weight exp(-theta height) makes the mean right, with a relative error that hardly grows as the probability falls.
Referred to in Siegmund, "Importance sampling in the Monte Carlo study of sequential tests" (1976); for Markov-modulated
arrivals with the eigenvector of the twisted chain, Asmussen, "Applied Probability and Queues", XIII.8.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.pollaczek import lundberg_decay
from aipaging.core.calculus.rounding import largest_root
from aipaging.core.calculus.work import ConstantWork, ExponentialWork
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.kernels import work as laws
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.kernels.walk import twisted_walks
from aipaging.simulation.rare.part import Line, Source
from aipaging.simulation.scenario import Work

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Twist:
    """A twisted domain, ready for its kernel.

    Attributes:
        decay_per_ms: theta*.
        chains: See `kernels.walk.twisted_walks`.
        laws: See there.
        own: E exp(theta S) of the tenant in question.
    """

    decay_per_ms: float
    chains: tuple[Floats, Floats, Floats, Floats]
    laws: tuple[Integers, Floats]
    own: float


def why_not(line: Line) -> str | None:
    """Return why a line cannot be twisted, None where it can."""
    if len(line.domains) > 1:
        return "the route has several domains (state-independent twisting fails on tandems)"
    if any(source.period_ms for source in line.sources):
        return "a tenant is periodic"
    if any(tenant.work.law in {laws.LOGNORMAL, laws.PARETO} for tenant in line.tenants):
        return "a law of work is heavy-tailed under its cap"
    return None


def twisted(line: Line) -> Twist:
    """Return the twist of a domain.

    Raises:
        InvalidInputError: `why_not` has a reason.
    """
    if reason := why_not(line):
        raise InvalidInputError(f"importance sampling does not apply: {reason}; use splitting", field="method")
    theta = decay_per_ms(line)
    growth = np.array([_mgf(tenant.work, line.slowness[0] * theta) for tenant in line.tenants])
    modes = max(len(source.jumps) for source in line.sources)
    count, tenants = len(line.sources), len(line.tenants)
    jumps, rates = np.zeros((count, modes, modes)), np.zeros((count, modes, tenants))
    vectors, met = np.ones((count, modes)), np.ones((count, modes))
    for place, source in enumerate(line.sources):
        size = len(source.jumps)
        reversed_jumps = _reversed(source)
        _, vector = _growth(reversed_jumps, source.rates, growth)
        jumps[place, :size, :size] = reversed_jumps * vector[None, :] / vector[:, None]
        rates[place, :size] = source.rates * growth
        vectors[place, :size] = vector
        # Packets of a modulated tenant meet its chain in the modes that send them.
        weights = source.stationary * (source.rates[:, 0] if source.rates[:, 0].any() else 1.0)
        met[place, :size] = np.cumsum(weights / weights.sum())
    return Twist(
        decay_per_ms=theta,
        chains=(jumps, rates, vectors, met),
        laws=_twisted_laws(line, theta),
        own=float(growth[0]),
    )


def sample(twist: Twist, target_ms: float, runs: int, seed: np.random.SeedSequence) -> Floats:
    """Return the sum of the weights of some walks, the sum of their squares, and the events simulated."""
    sums = np.zeros(3)
    aim = np.array([target_ms, twist.decay_per_ms, twist.own, 0.0, runs])
    twisted_walks(stream(seed), twist.chains, twist.laws, aim, sums)
    return sums


def decay_per_ms(line: Line) -> float:
    """Return theta* of a single domain, per millisecond of delay."""
    slowness = line.slowness[0]
    works = {tenant.work for tenant in line.tenants}
    rates = [source.rates.sum() for source in line.sources]
    known = _calculus_work(next(iter(works))) if len(works) == 1 else None
    if known is not None and all(len(source.jumps) == 1 for source in line.sources):
        return lundberg_decay(known, arrival_rate=float(sum(rates)), capacity=1.0 / slowness) / slowness
    ends = [1.0 / (w.mean * slowness) for w in works if w.law == laws.EXPONENTIAL]
    scale = min(ends) if ends else 1.0 / (max(w.mean for w in works) * slowness)

    def excess(u: float) -> float:
        theta = u * scale
        growth = np.array([_mgf(tenant.work, slowness * theta) for tenant in line.tenants])
        if not np.isfinite(growth).all():
            return math.inf
        return sum(_growth(_reversed(s), s.rates, growth)[0] for s in line.sources) - theta

    return largest_root(excess, 1.0 if ends else math.inf) * scale


def _reversed(source: Source) -> Floats:
    shares = source.stationary
    back: Floats = source.jumps.T * shares[None, :] / shares[:, None]
    return back


def _growth(jumps: Floats, rates: Floats, growth: Floats) -> tuple[float, Floats]:
    """Return the growth rate of E exp(theta work) of a chain, and its positive eigenvector."""
    matrix = jumps - np.diag(jumps.sum(axis=1)) + np.diag(rates @ (growth - 1.0))
    found = np.linalg.eig(matrix)
    values: Floats = np.real(found[0])
    vectors: Floats = np.real(found[1])
    largest = int(np.argmax(values))
    vector = np.abs(vectors[:, largest])
    return float(values[largest]), np.asarray(vector / vector.max(), np.float64)


def _calculus_work(work: Work) -> ConstantWork | ExponentialWork | None:
    if work.law == laws.CONSTANT:
        return ConstantWork(value=work.mean)
    return ExponentialWork(mean=work.mean) if work.law == laws.EXPONENTIAL else None


def _mgf(work: Work, theta: float) -> float:
    """Return E exp(theta X)."""
    known = _calculus_work(work)
    if known is not None:
        exponent = known.log_mgf(theta)
        return math.exp(exponent) if exponent < 600.0 else math.inf
    if work.law == laws.UNIFORM:
        low, high = work.parameters
        return math.exp(theta * low) * math.expm1(theta * (high - low)) / (theta * (high - low))
    values, shares = _discrete(work)
    return float(shares @ np.exp(np.minimum(theta * values, 600.0)))


def _discrete(work: Work) -> tuple[Floats, Floats]:
    pairs = np.array(work.parameters).reshape(-1, 2)
    return pairs[:, 0], np.diff(pairs[:, 1], prepend=0.0)


def _twisted_laws(line: Line, theta: float) -> tuple[Integers, Floats]:
    """Return the laws of the service times under the twist."""
    rows: list[list[float]] = []
    slowness = line.slowness[0]
    for tenant in line.tenants:
        work = tenant.work
        if work.law == laws.CONSTANT:
            rows.append([work.mean * slowness])
        elif work.law == laws.EXPONENTIAL:
            mean = work.mean * slowness
            rows.append([mean / (1.0 - theta * mean)])
        elif work.law == laws.UNIFORM:
            low, high = work.parameters
            rows.append([low * slowness, (high - low) * slowness, theta])
        else:
            values, shares = _discrete(work)
            tilted = shares * np.exp(theta * slowness * (values - values.max()))
            cumulated = np.cumsum(tilted / tilted.sum())
            cumulated[-1] = math.inf  # whatever rounding left of it, the last value ends the law
            rows.append(np.column_stack([values * slowness, cumulated]).ravel().tolist())
    parameters = np.zeros((len(rows), max(map(len, rows))))
    for place, row in enumerate(rows):
        parameters[place, : len(row)] = row
    return np.array([tenant.work.law for tenant in line.tenants]), parameters

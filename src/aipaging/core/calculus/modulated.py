"""Markov-modulated arrivals of any finite chain: work per slot, fluid, and Markov-modulated Poisson jobs.

What a chain sends is bounded by the Perron root of its kernel weighted with the moments of each state. The
martingale of the backlog needs the right Perron vector of the *time-reversed* chain, since a backlog looks back;
moments over an interval need that of the chain itself ([Asmussen2003], ch. XI; proofs: markov.md).

No accuracy of the eigenvectors is assumed: for any positive vector g the growth is taken as max (K g) / g, which
makes the process a supermartingale whatever the eigenvalue solver returned (Collatz and Wielandt).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.errors import require_non_negative, require_positive
from aipaging.core.calculus.work import Work
from aipaging.core.foundation.errors import InvalidInputError

Floats: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = tuple[tuple[float, ...], ...]

STATES_MAX: Final = 64
"""Larger chains take longer than the `sharp` class allows."""

_ROW: Final = 1e-9
_TWO: Final = 2
_LEAST_WEIGHT: Final = 1e-280
_EXPONENT_MAX: Final = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovSlots:
    """`count` independent stationary chains; in a slot spent in state i a chain sends works[i], or nothing.

    Attributes:
        count: Number of chains, all alike.
        transition: P(next state | state), one row per state.
        works: The work of a slot in each state, drawn afresh; None sends nothing.
    """

    count: int
    transition: Matrix
    works: tuple[Work | None, ...]

    def __post_init__(self) -> None:
        require_positive(count=self.count)
        object.__setattr__(self, "transition", _rows(self.transition))
        object.__setattr__(self, "works", tuple(self.works))
        _require_square(self.transition, len(self.works), "transition")
        rows = np.array(self.transition)
        if np.any(rows < 0.0) or np.any(np.abs(rows.sum(axis=1) - 1.0) > _ROW):
            raise InvalidInputError("every row must be >= 0 and sum to 1", field="transition")

    @property
    def mean_rate(self) -> float:
        """Mean work per slot of all chains."""
        means = np.array([work.mean if work else 0.0 for work in self.works])
        return self.count * float(stationary_law(self.transition, slotted=True) @ means)


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovFluid:
    """`count` independent stationary chains in continuous time; a chain sends at rates[i] while in state i.

    Attributes:
        count: Number of chains, all alike.
        generator: Rates of change between states; every row sums to 0.
        rates: Work per unit of time in each state.
    """

    count: int
    generator: Matrix
    rates: tuple[float, ...]

    def __post_init__(self) -> None:
        require_positive(count=self.count)
        object.__setattr__(self, "generator", _rows(self.generator))
        object.__setattr__(self, "rates", tuple(map(float, self.rates)))
        _require_generator(self.generator, len(self.rates))
        for rate in self.rates:
            require_non_negative(rates=rate)

    @property
    def mean_rate(self) -> float:
        """Mean work per unit of time of all chains."""
        return self.count * float(stationary_law(self.generator, slotted=False) @ np.array(self.rates))


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkovPoisson:
    """`count` independent stationary chains; in state i jobs arrive at rates[i] (MMPP), each with `work`.

    Attributes:
        count: Number of chains, all alike.
        generator: Rates of change between states; every row sums to 0.
        rates: Jobs per unit of time in each state.
        work: What a job brings.
    """

    count: int
    generator: Matrix
    rates: tuple[float, ...]
    work: Work

    def __post_init__(self) -> None:
        require_positive(count=self.count)
        object.__setattr__(self, "generator", _rows(self.generator))
        object.__setattr__(self, "rates", tuple(map(float, self.rates)))
        _require_generator(self.generator, len(self.rates))
        for rate in self.rates:
            require_non_negative(rates=rate)

    @property
    def mean_rate(self) -> float:
        """Mean work per unit of time of all chains."""
        jobs = float(stationary_law(self.generator, slotted=False) @ np.array(self.rates))
        return self.count * jobs * self.work.mean


def _rows(matrix: Matrix) -> Matrix:
    """Return a matrix as plain numbers in tuples, so that a value with it can be compared, hashed and rebuilt."""
    return tuple(tuple(map(float, row)) for row in matrix)


def _require_square(matrix: Matrix, states: int, name: str) -> None:
    if not 1 <= states <= STATES_MAX:
        raise InvalidInputError(f"a chain needs 1 to {STATES_MAX} states", field=name)
    if len(matrix) != states or any(len(row) != states for row in matrix):
        raise InvalidInputError(f"needs {states} rows of {states} numbers, one per state", field=name)
    if not np.all(np.isfinite(np.array(matrix))):
        raise InvalidInputError("must be finite", field=name)


def _require_generator(generator: Matrix, states: int) -> None:
    _require_square(generator, states, "generator")
    rows = np.array(generator)
    rates = rows - np.diag(np.diag(rows))
    if np.any(rates < 0.0) or np.any(np.abs(rows.sum(axis=1)) > _ROW * np.maximum(rates.sum(axis=1), 1e-300)):
        raise InvalidInputError("rates between states must be >= 0 and every row sum to 0", field="generator")


@lru_cache(maxsize=512)
def stationary_law(matrix: Matrix, *, slotted: bool) -> Floats:
    """Return the stationary law of a chain.

    Raises:
        InvalidInputError: There is more than one, or some state is never visited.
    """
    kernel = np.array(matrix)
    states = len(kernel)
    speed = 1.0 if slotted else float(np.abs(kernel).max()) or 1.0
    balance = (kernel - np.eye(states) if slotted else kernel / speed).T
    system = np.vstack([balance, np.ones(states)])
    law, _, rank, _ = np.linalg.lstsq(system, np.concatenate([np.zeros(states), [1.0]]), rcond=1e-14)
    if rank < states or np.any(law <= 0.0):
        raise InvalidInputError("every state must be reachable from every other", field="transition")
    positive: Floats = law / law.sum()
    return positive


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Modulation:
    """What a product martingale needs to know of one class of chains.

    Attributes:
        count: Number of chains.
        slotted: Whether time is counted in slots.
        kernel: Transition matrix or generator.
        law: Its stationary law.
        log_moments: Per state, ln E exp(theta work) of a slot, or its rate in continuous time; inf where infinite.
        largest: Per state, the most work of a slot, or per unit of time; inf where jobs arrive.
        theta_max: End of the domain of the moments.
    """

    count: int
    slotted: bool
    kernel: Floats
    law: Floats
    log_moments: Callable[[float], Floats]
    largest: Floats
    theta_max: float

    @property
    def peak_rate(self) -> float:
        """The most work of all chains per slot, or per unit of time."""
        return self.count * float(self.largest.max())

    def reversed_kernel(self) -> Floats:
        """Return the kernel of the chain read backwards."""
        backwards: Floats = (self.kernel * self.law[:, None]).T / self.law[:, None]
        return backwards

    def growth(self, theta: float, *, backwards: bool) -> tuple[float, Floats]:
        """Return (growth of ln E exp(theta A) per unit of time, ln of the Perron vector), of one chain."""
        moments = self.log_moments(theta)
        if not np.all(np.isfinite(moments)):
            return math.inf, np.zeros(len(moments))
        if len(moments) == 1:
            return float(moments[0]), np.zeros(1)
        kernel = self.reversed_kernel() if backwards else self.kernel
        if self.slotted:
            top = float(moments.max())
            weighted = kernel * np.exp(moments - top)[None, :]
            root, log_vector = perron(weighted)
            return (math.log(root) + top if root > 0.0 else -math.inf), log_vector
        shift = float(np.max(np.maximum(0.0, -np.diag(kernel) - moments)))
        root, log_vector = perron(kernel + np.diag(moments + shift))
        return root - shift, log_vector


def perron(matrix: Floats) -> tuple[float, Floats]:
    """Return (max (K g) / g, ln g) for a positive g close to the right Perron vector of a non-negative matrix."""
    if len(matrix) == _TWO:
        half = 0.5 * float(matrix[0, 0] - matrix[1, 1])
        # Of the two forms of the vector the one without cancellation.
        spread = math.sqrt(half * half + float(matrix[0, 1] * matrix[1, 0]))
        upper = np.array([half + spread, float(matrix[1, 0])])
        lower = np.array([float(matrix[0, 1]), spread - half])
        vector = upper if half > 0.0 else lower
    else:
        values, vectors = np.linalg.eig(matrix)
        vector = np.abs(np.real(vectors[:, int(np.argmax(np.real(values)))]))
    vector = np.maximum(vector / vector.max(), _LEAST_WEIGHT)
    # One step smooths entries that the solver returned as noise.
    vector = np.maximum(matrix @ vector, _LEAST_WEIGHT)
    vector /= vector.max()
    root = float(np.max(matrix @ vector / vector)) * (1.0 + 1e-14)
    return root, np.log(vector)


def modulation_of(arrival: MarkovSlots | MarkovFluid | MarkovPoisson) -> Modulation:
    """Return the description of a chain for the product martingale."""
    if isinstance(arrival, MarkovSlots):
        works = arrival.works
        return Modulation(
            count=arrival.count, slotted=True, kernel=np.array(arrival.transition),
            law=stationary_law(arrival.transition, slotted=True),
            log_moments=lambda theta: np.array([work.log_mgf(theta) if work else 0.0 for work in works]),
            largest=np.array([work.largest if work else 0.0 for work in works]),
            theta_max=min((work.theta_max for work in works if work), default=math.inf),
        )  # fmt: skip
    kernel, rates = np.array(arrival.generator), np.array(arrival.rates)
    law = stationary_law(arrival.generator, slotted=False)
    if isinstance(arrival, MarkovFluid):
        return Modulation(
            count=arrival.count, slotted=False, kernel=kernel, law=law,
            log_moments=lambda theta: theta * rates, largest=rates, theta_max=math.inf,
        )  # fmt: skip
    work = arrival.work
    return Modulation(
        count=arrival.count, slotted=False, kernel=kernel, law=law,
        log_moments=lambda theta: rates * exp_minus_one(work.log_mgf(theta)),
        largest=np.where(rates > 0.0, math.inf, 0.0), theta_max=work.theta_max,
    )  # fmt: skip


def exp_minus_one(log_moment: float) -> float:
    """Return exp(x) - 1, or inf where it would overflow soon."""
    return math.expm1(log_moment) if log_moment < _EXPONENT_MAX else math.inf

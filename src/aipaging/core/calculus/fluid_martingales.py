"""Fluid on/off flows: every exponential martingale of the backlog at once, in doubles.

One martingale charges each passage as if the least number of flows that overloads the server were on. With as many
martingales as there are overloading states, weighted so that they sum to 1 in each of them, the passage costs
what it is: optional stopping is then an equality, and the weights are those of [AnickMitraSondhi1982] (the proof is in
martingale.md).

The terms alternate in sign. What cancels costs digits, which are added: near an empty queue that can be more than the
sum itself, and the single martingale is then the better bound. What no backlog changes is worked out once.
"""

import math
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.fluid_exact import FLOWS_MAX, eigenvector_factors, negative_eigenvalues, overloading_below
from aipaging.core.calculus.onoff import FluidOnOff

DIGITS: Final = 40
"""Of the eigenvalues: the discriminant of two that lie close loses a few, doubles hold 16."""

ALLOWANCE: Final = 1e-9
"""Of the sum of absolute values. A weight is a product of up to 400 ratios z/(z - y); with eigenvalues 1e-3 apart,
relatively, each is off by 2e-13, and logarithms of size 1000 and the exponent by as much again."""

_LEAST: Final = 1e-300

Floats: TypeAlias = NDArray[np.float64]


def fluid_martingales(flows: FluidOnOff, capacity: float, backlog: float) -> float:
    """Return ln of a bound on P(Q > backlog), inf where doubles cannot tell.

    Args:
        flows: Whose mean rate is below the capacity and whose peak rate is above it.
        capacity: Work per unit of time.
        backlog: x, at least 0.
    """
    if flows.count > FLOWS_MAX:
        return math.inf
    decays, signs, log_weights = _terms(flows, capacity)
    logs = log_weights - decays * (backlog * flows.on_to_off / flows.peak)
    largest = float(logs.max())
    sizes = np.exp(logs - largest)
    total = float(signs @ sizes) + ALLOWANCE * float(sizes.sum())
    return largest + math.log(total) if total > _LEAST else math.inf


@lru_cache(maxsize=256)
def _terms(flows: FluidOnOff, capacity: float) -> tuple[Floats, Floats, Floats]:
    """Return the decays, per unit of work over P/beta, and sign and ln of the absolute value of every weight."""
    n = flows.count
    with localcontext() as context:
        context.prec = DIGITS
        ratio = Decimal(flows.off_to_on) / Decimal(flows.on_to_off)
        c, servers = overloading_below(flows, capacity)
        found = negative_eigenvalues(n, ratio, c, n - servers)
        factors = np.array([[float(part) for part in eigenvector_factors(z, n, ratio, c)] for z in found])
    powers, bases = factors[:, 0], factors[:, 1:]
    decays = -np.array([float(z) for z in found])
    gaps = decays[:, None] - decays[None, :]
    np.fill_diagonal(gaps, 1.0)
    log_ratios = np.log(decays).sum() - np.log(decays) - np.log(np.abs(gaps)).sum(axis=0)
    log_sums = powers * np.log(np.abs(bases[:, 0])) + (n - powers) * np.log(np.abs(bases[:, 1]))
    log_on = -n * math.log1p(flows.on_to_off / flows.off_to_on)
    # The decays rise: z_i/(z_i - z_j) is negative for the smaller z_i. A base is negative where r > 1.
    negative = np.arange(len(decays)) + powers * (bases[:, 0] < 0.0) + (n - powers) * (bases[:, 1] < 0.0)
    return decays, np.where(negative % 2 == 0, 1.0, -1.0), log_on + log_ratios + log_sums

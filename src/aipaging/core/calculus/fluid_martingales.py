"""Fluid on/off flows: every exponential martingale of the backlog at once, in doubles.

One martingale charges each passage as if the least number of flows that overloads the server were on. With as many
martingales as there are overloading states, weighted so that they sum to 1 in each of them, the passage costs
what it is: optional stopping is then an equality, and the weights are those of [AnickMitraSondhi1982] (the proof is in
martingale.md).

Every weight is positive, so nothing cancels and doubles do. What no backlog changes is worked out once.
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
"""Relative, added to the sum. A weight is a product of up to 400 ratios z/(z - y); with eigenvalues 1e-3 apart,
relatively, each is off by 2e-13, and logarithms of size 1000 and the exponent by as much again."""

Floats: TypeAlias = NDArray[np.float64]


def fluid_martingales(flows: FluidOnOff, capacity: float, backlog: float) -> tuple[float, int]:
    """Return (ln of a bound on P(Q > backlog), how many martingales); (inf, 0) for more than `FLOWS_MAX` flows.

    Args:
        flows: Whose mean rate is below the capacity and whose peak rate is above it.
        capacity: Work per unit of time.
        backlog: x, at least 0.
    """
    if flows.count > FLOWS_MAX:
        return math.inf, 0
    decays, log_weights = _terms(flows, capacity)
    logs = log_weights - decays * (backlog * flows.on_to_off / flows.peak)
    largest = float(logs.max())
    return largest + math.log(float(np.exp(logs - largest).sum())) + ALLOWANCE, len(decays)


@lru_cache(maxsize=256)
def _terms(flows: FluidOnOff, capacity: float) -> tuple[Floats, Floats]:
    """Return the decays, per unit of work over P/beta, and ln of every weight."""
    n = flows.count
    with localcontext() as context:
        context.prec = DIGITS
        ratio = Decimal(flows.off_to_on) / Decimal(flows.on_to_off)
        c, servers = overloading_below(flows, capacity)
        found = negative_eigenvalues(n, ratio, c, n - servers)
        factors = np.array([[float(part) for part in eigenvector_factors(z, n, ratio, c)] for z in found])
    powers, bases = factors[:, 0], np.abs(factors[:, 1:])
    decays = -np.array([float(z) for z in found])
    gaps = np.abs(decays[:, None] - decays[None, :])
    np.fill_diagonal(gaps, 1.0)
    log_ratios = np.log(decays).sum() - np.log(decays) - np.log(gaps).sum(axis=0)
    log_sums = powers * np.log(bases[:, 0]) + (n - powers) * np.log(bases[:, 1])
    log_on = -n * math.log1p(flows.on_to_off / flows.off_to_on)
    return decays, log_on + log_ratios + log_sums

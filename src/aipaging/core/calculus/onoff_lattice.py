"""An enclosing lattice for slotted on/off flows: one class, or two under strict priority.

The joint tail G_k(y) = P(k flows on, backlog > y) of the stationary queue is a fixed point of a monotone
operator T (one slot of Lindley's recursion). The martingale gives a G0 >= G; then every iterate T^m G0 is
>= G as well, and they fall towards it. Stopping early, or ending the lattice at a level beyond which the
martingale envelope is kept, costs tightness and never validity. Iterating from the empty state, as referees
do, would converge from below and is not a bound.

Tails are stored times exp(theta* y), so that a probability of 1e-300 is an ordinary number. All terms are
positive: m iterations over n + 1 states lose at most a few m n ulp, covered by the allowance.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.calculus.errors import overloaded
from aipaging.core.calculus.onoff import SlottedOnOff, log_least_weight, slotted_decay
from aipaging.core.calculus.rounding import exp_up

Floats: TypeAlias = NDArray[np.float64]

DENOMINATOR_MAX: Final = 24
"""Cells per peak. A capacity that is no multiple of a cell is rounded down to one, the safe side."""

CELLS_MAX: Final = 6000
EFFORT_MAX: Final = 1.2e9
"""Iterations times matrix entries times cells: a few hundred milliseconds. Stopping early is valid."""

MULTIPLICATIONS_PER_BLOCK: Final = 250_000
"""OpenBLAS starts threads above 2**18."""

RELATIVE: Final = 1e-9
SETTLED: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogLattice:
    """An upper bound on P(k on, q > j cells) for all k, j, stored times exp(tilt * j).

    Attributes:
        scaled: Row k, column j.
        tilt: theta* times the work of a cell.
        cell: Work of a cell.
        capacity_cells: Cells served per slot.
        peak_cells: Cells that one flow sends in a slot while on.
    """

    scaled: Floats
    tilt: float
    cell: float
    capacity_cells: int
    peak_cells: int

    def tail(self, backlog: float) -> float:
        """Return the bound on P(q > backlog)."""
        j = min(math.floor(backlog / self.cell + 1e-9), self.scaled.shape[1] - 1)
        return exp_up(math.log(float(self.scaled[:, j].sum())) - self.tilt * j, RELATIVE)


def transition(flows: SlottedOnOff) -> Floats:
    """Return the transition matrix of the number of flows that are on."""
    n = flows.count
    matrix = np.zeros((n + 1, n + 1))
    for k in range(n + 1):
        stay = _binomial(k, flows.stay_on)
        start = _binomial(n - k, 1.0 - flows.stay_off)
        matrix[k] = np.convolve(stay, start)
    return matrix


def backlog_lattice(flows: SlottedOnOff, capacity: float, backlog: float) -> BacklogLattice | None:
    """Return a lattice that encloses the tail from above up to `backlog`, or None if it would be too large.

    Raises:
        UnstableError: The mean rate reaches the capacity.
    """
    theta = slotted_decay(flows, capacity)
    ratio = Fraction(capacity / flows.peak).limit_denominator(DENOMINATOR_MAX)
    if abs(float(ratio) * flows.peak - capacity) > 1e-12 * capacity:
        ratio = Fraction(math.floor(capacity / flows.peak * DENOMINATOR_MAX), DENOMINATOR_MAX)
    peak, serve = ratio.denominator, ratio.numerator
    cell = flows.peak / peak
    cells = math.ceil(backlog / cell)
    last = cells + cells // 4 + 12 * serve
    if last > CELLS_MAX or overloaded(flows.mean_rate, serve * cell):
        return None
    theta = min(theta, slotted_decay(flows, serve * cell))
    settled = _iterate(flows, theta * cell, cells=(peak, serve), last=last, target=min(cells, last))
    return BacklogLattice(scaled=settled, tilt=theta * cell, cell=cell, capacity_cells=serve, peak_cells=peak)


def _iterate(flows: SlottedOnOff, tilt: float, *, cells: tuple[int, int], last: int, target: int) -> Floats:
    """Apply T to the martingale envelope until the tail at `target` has settled."""
    peak, serve = cells
    n = flows.count
    on = np.arange(n + 1)
    matrix = transition(flows)
    weight = _binomial(n, flows.on_probability)
    theta = tilt * peak / flows.peak
    capacity = serve * flows.peak / peak
    log_on = flows.log_on_weight(theta, tilt * serve / n)
    log_least = log_least_weight(flows, capacity, log_on)
    # P(q > y | k on) <= g(k) exp(theta (a(k) - C)) / min g * exp(-theta y), scaled by exp(theta y).
    envelope = weight * np.exp(on * log_on + tilt * (on * peak - serve) - log_least)
    # Where the ceiling is that high the envelope is lower anyway.
    growth = np.exp(np.minimum(tilt * np.arange(last + 1), 600.0))
    ceiling = weight[:, None] * growth
    current: Floats = np.minimum(envelope[:, None], ceiling)
    shifts = [serve - k * peak for k in range(n + 1)]
    factors = np.exp(-tilt * np.array(shifts, dtype=np.float64))
    beyond = matrix.T @ envelope
    mixed = np.empty_like(current)
    before = math.inf
    climb = _tilted_drift(flows, theta, capacity) * peak / flows.peak
    steps_min = 20 + int(1.5 * target / max(climb, 1e-3))
    for step in range(int(EFFORT_MAX / ((n + 3) ** 2 * last))):
        _mix(matrix.T, current, mixed)
        following = ceiling.copy()
        for k, shift in enumerate(shifts):
            _shift_row(following[k], mixed[k], shift, beyond[k])
            np.multiply(following[k, max(0, -shift) :], factors[k], out=following[k, max(0, -shift) :])
        np.minimum(following, current, out=current)
        if step % 10 == 9 and step >= steps_min:
            now = float(current[:, target].sum())
            if now > before * (1.0 - SETTLED):
                break
            before = now
    return current


def _mix(matrix: Floats, source: Floats, out: Floats) -> None:
    """Write matrix @ source to `out`, in blocks that the linear algebra library does in one thread.

    With more threads than free processors it spins for longer than the product takes.
    """
    width = max(8, MULTIPLICATIONS_PER_BLOCK // matrix.size)
    for first in range(0, source.shape[1], width):
        np.matmul(matrix, source[:, first : first + width], out=out[:, first : first + width])


def _tilted_drift(flows: SlottedOnOff, theta: float, capacity: float) -> float:
    """Return how fast a backlog typically builds up on its way to a high level, in work per slot."""
    change = 1e-4 * theta
    slope = (flows.log_eigenvalue(theta + change) - flows.log_eigenvalue(theta - change)) / (2.0 * change)
    return flows.count * slope - capacity


def _shift_row(row: Floats, source: Floats, shift: int, beyond: float) -> None:
    """Write source[j + shift] to row[j]; beyond the lattice the envelope, below 0 the ceiling that is there."""
    size = len(row)
    if shift >= 0:
        row[: max(0, size - shift)] = source[shift:]
        row[max(0, size - shift) :] = beyond
    elif -shift < size:
        row[-shift:] = source[: size + shift]


def priority_tail(lattice: BacklogLattice, cross: SlottedOnOff, delay: int) -> float:
    """Return a bound on P(W > delay) of the low class: `cross` of the lattice's flows have priority.

    All flows of the lattice are alike and exchangeable, so given the backlog and k flows on, the number of
    cross flows among them is hypergeometric. The work present at t leaves after `delay` slots or later if
    the backlog, fed by the cross flows alone, stays above 0 for `delay` slots.
    """
    scaled, total = lattice.scaled, lattice.scaled.shape[0] - 1
    split = _hypergeometric(total, cross.count)
    joint = split.T @ scaled
    survive = _survival(lattice, cross, delay)
    # Abel summation: sum_j P(q = j) s(j) = sum_j P(q > j) (s(j + 1) - s(j)); s rises with j, so an upper
    # bound on the tail gives an upper bound on the sum. Beyond the last level s is 1.
    width = scaled.shape[1]
    ahead = np.concatenate([survive[:, 1:], np.ones((cross.count + 1, 1))], axis=1)
    steps = np.maximum(ahead - survive, 0.0)
    start = int(np.argmax(steps.max(axis=0) > 0.0))
    fading = np.exp(-lattice.tilt * np.arange(width - start))
    value = float(np.sum(joint[:, start:] * steps[:, start:] * fading))
    return exp_up(math.log(value) - lattice.tilt * start, RELATIVE) if value > 0.0 else 0.0


def _survival(lattice: BacklogLattice, cross: SlottedOnOff, delay: int) -> Floats:
    """Return s(k, j): the probability that a backlog of j cells, k cross flows on, outlives `delay` slots."""
    width = lattice.scaled.shape[1]
    matrix = transition(cross)
    current = np.ones((cross.count + 1, width))
    current[:, 0] = 0.0
    for _ in range(delay):
        moved = np.ones_like(current)
        for k in range(cross.count + 1):
            shift = k * lattice.peak_cells - lattice.capacity_cells
            if shift >= 0:
                moved[k, : max(0, width - shift)] = current[k, shift:]
            else:
                moved[k, : -shift + 1] = 0.0
                moved[k, -shift:] = current[k, : width + shift] if -shift < width else 0.0
        current = matrix @ moved
        current[:, 0] = 0.0
    capped: Floats = np.minimum(current, 1.0)
    return capped


def _hypergeometric(total: int, chosen: int) -> Floats:
    """Return the matrix P(i of the chosen flows are on | k of the total are on), row k, column i."""
    matrix = np.zeros((total + 1, chosen + 1))
    for k in range(total + 1):
        for i in range(max(0, k - (total - chosen)), min(k, chosen) + 1):
            matrix[k, i] = math.comb(chosen, i) * math.comb(total - chosen, k - i) / math.comb(total, k)
    return matrix


def _binomial(n: int, p: float) -> Floats:
    """Return the probabilities of 0..n successes."""
    return np.array([math.comb(n, k) * p**k * (1.0 - p) ** (n - k) for k in range(n + 1)])

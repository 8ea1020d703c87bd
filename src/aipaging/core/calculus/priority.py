"""Two classes of slotted on/off flows under strict priority: the low class, whatever it is served before.

Exact-from-above on a lattice where capacity and peak are commensurable and the classes alike; otherwise a
product martingale over both classes, stopped at t, and the cross traffic of the next d slots by its own moment.
Proofs: `docs/background/calculus/priority.md`.
"""

import math
from typing import Final

import numpy as np

from aipaging.core.calculus.bound import RungClass, TailBound, bound_of_log, certain, least
from aipaging.core.calculus.errors import UnstableError, never_exceeds, overloaded
from aipaging.core.calculus.onoff import SlottedOnOff, log_least_weight, slotted_decay
from aipaging.core.calculus.onoff_lattice import backlog_lattice, priority_tail
from aipaging.core.foundation.errors import InvalidInputError

_ASSUMPTIONS = ("independent-flows", "stationary", "flows-alike")


def low_priority_tail(
    own: SlottedOnOff, cross: SlottedOnOff, *, capacity: float, delay: int, rung_class: RungClass
) -> TailBound:
    """Return a bound on P(W > delay) of `own` when `cross`, alike flows, are always served first.

    It also holds under blind multiplexing, of which strict priority is the worst.

    Raises:
        UnstableError: The mean rates reach the capacity.
        InvalidInputError: The flows of the two classes differ.
    """
    if (own.stay_off, own.stay_on, own.peak) != (cross.stay_off, cross.stay_on, cross.peak):
        raise InvalidInputError("the flows of both classes must be alike", field="cross")
    both = SlottedOnOff(count=own.count + cross.count, stay_off=own.stay_off, stay_on=own.stay_on, peak=own.peak)
    if overloaded(both.mean_rate, capacity):
        raise UnstableError
    if never_exceeds(both.peak_rate, capacity):
        return certain(0.0, "deterministic-cap", ("peak-rate",))
    thetas = _THETAS if rung_class is RungClass.SHARP else _THETAS_FAST
    rungs = [_martingale(both, cross, (capacity, delay), thetas)]
    lattice = backlog_lattice(both, capacity, capacity * delay) if rung_class is RungClass.SHARP else None
    if lattice is not None:
        rungs.append(
            TailBound(
                probability=priority_tail(lattice, cross, delay),
                rung="priority-lattice",
                assumptions=_ASSUMPTIONS,
                numeric_error=1e-9,
            )
        )
    return least(rungs)


_THETAS: Final = (*np.linspace(0.3, 0.98, 18).tolist(), 1.0)
"""Of theta*; any below it is valid."""

_THETAS_FAST: Final = (0.7, 0.9, 1.0)


def _martingale(
    both: SlottedOnOff, cross: SlottedOnOff, question: tuple[float, int], thetas: tuple[float, ...]
) -> TailBound:
    """Minimise over theta <= theta* the bound on P(q + A_x(t, t + d) > C d)."""
    end = slotted_decay(both, question[0])
    best, best_theta = 0.0, 0.0
    for fraction in thetas:
        theta = end * fraction
        value = _log_bound(both, cross, question, theta)
        if value < best:
            best, best_theta = value, theta
    return bound_of_log(best, "priority-martingale", _ASSUMPTIONS, theta=best_theta)


def _log_bound(both: SlottedOnOff, cross: SlottedOnOff, question: tuple[float, int], theta: float) -> float:
    capacity, delay = question
    n, n_own = both.count, both.count - cross.count
    c = capacity / n
    on = both.on_probability
    log_on = both.log_on_weight(theta, both.log_eigenvalue(theta))
    # E over the state at t of g exp(theta (a - c)): one factor per flow.
    start_off, start_on = (1.0 - on) * math.exp(-theta * c), on * math.exp(log_on + theta * (both.peak - c))
    log_own = math.log(start_off + start_on)
    grow = _log_growth(both, theta, delay)
    log_cross = _log_add(math.log(start_off) + grow[0], math.log(start_on) + grow[1])
    value = n_own * log_own + cross.count * log_cross
    value -= log_least_weight(both, capacity, log_on) + theta * capacity * delay
    if never_exceeds(cross.peak_rate, capacity):
        return value
    # The cross traffic may exceed C d by itself: then nothing is claimed of the backlog.
    alone = min(
        _log_cross_alone(cross, capacity * delay, delay, theta * factor) for factor in (0.5, 1.0, 1.5, 2.0, 3.0)
    )
    return _log_add(value, alone)


def _log_growth(flows: SlottedOnOff, theta: float, slots: int) -> tuple[float, float]:
    """Return ln E exp(theta A(t, t + slots)) of one flow, given that it is off, or on, at t."""
    log_p, log_up = math.log(flows.stay_off), math.log1p(-flows.stay_off)
    log_q, log_down = math.log(flows.stay_on), math.log1p(-flows.stay_on)
    peak = theta * flows.peak
    log_off, log_on = 0.0, 0.0
    for _ in range(slots):
        sent = peak + log_on
        log_off, log_on = _log_add(log_p + log_off, log_up + sent), _log_add(log_down + log_off, log_q + sent)
    return log_off, log_on


def _log_add(one: float, other: float) -> float:
    """Return ln(exp(one) + exp(other)); three times as fast as the array function on two numbers."""
    return max(one, other) + math.log1p(math.exp(-abs(one - other)))


def _log_cross_alone(cross: SlottedOnOff, work: float, slots: int, theta: float) -> float:
    grow = _log_growth(cross, theta, slots)
    on = cross.on_probability
    each = _log_add(math.log1p(-on) + grow[0], math.log(on) + grow[1])
    return cross.count * each - theta * work

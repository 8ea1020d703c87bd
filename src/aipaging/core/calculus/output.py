"""What leaves a path: an exponential envelope of the departures, so that a next path can be bounded on its own.

D(s, t) <= max over u of A(u, t) - S(u, s), so an output obeys the union (or Doob) bound of a backlog with the arrivals
of (s, t] on top, and those are paid for by the rate: P(D(s, t) > rho (t - s) + x) <= M exp(-theta x) with
rho = rho_A(theta) ([Fidler2006]; proof: union.md). Bounding node by node with it is valid and loose; tandems are
bounded as a whole wherever they can be.
"""

from collections.abc import Sequence

import numpy as np

from aipaging.core.calculus.arrivals import Arrival, mean_rate
from aipaging.core.calculus.domain import CrossFlow, Domain
from aipaging.core.calculus.errors import NotAttestedError, UnstableError, require_positive
from aipaging.core.calculus.interval import moments_of
from aipaging.core.calculus.path_shape import in_slots, path_of, require_one_time, require_stable, stages_of
from aipaging.core.calculus.regulated import ExponentiallyBounded
from aipaging.core.calculus.rounding import RELATIVE_UP
from aipaging.core.calculus.tandem_union import Crossing, UnionTandem, log_output_factor, theta_end


def output_of_path(
    arrival: Arrival, domains: Sequence[Domain], *, rate: float, crossing: Sequence[CrossFlow] = ()
) -> ExponentiallyBounded:
    """Return an envelope of what leaves a path in slots, with a rate between the mean and the least service.

    Args:
        arrival: The flow.
        domains: In order, independent of each other.
        rate: Of the envelope; the larger, the faster its tail decays.
        crossing: Cross traffic over several domains.

    Raises:
        UnstableError: Some domain is overloaded, or the rate is not above the mean.
        NotAttestedError: The path is not in slots, or its parts may depend on each other.
    """
    require_positive(rate=rate)
    path = path_of(arrival, domains, crossing)
    require_one_time(path)
    require_stable(path)
    if not in_slots(path) or path.any_dependence:
        raise NotAttestedError("an output is bounded in slots, of parts that are independent of each other")
    if rate <= mean_rate(path.arrival):
        raise UnstableError("the rate of an output must be above the mean rate of the arrivals")
    stages, spans = stages_of(path)
    tandem = UnionTandem(
        arrival=moments_of([path.arrival]), stages=tuple(stages),
        crossings=tuple(Crossing(moments=moments_of([flow]), first=f, last=t) for flow, f, t in spans),
    )  # fmt: skip
    low, high = 0.0, theta_end(tandem)

    def slack(theta: float) -> float:
        return theta * rate - float(tandem.arrival.log_growth(np.array([theta]))[0])

    if slack(high) < 0.0:
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if slack(middle) >= 0.0 else (low, middle)
        high = low
    # At the very end the series diverges; a little before it the factor is least against the decay lost.
    decay = min(((log_output_factor(tandem, high * f), high * f) for f in (0.999, 0.99, 0.95, 0.9, 0.8)), key=_cost)[1]
    factor = float(np.exp(log_output_factor(tandem, decay))) * (1.0 + RELATIVE_UP)
    return ExponentiallyBounded(rate=rate, prefactor=factor, decay=decay * (1.0 - RELATIVE_UP))


def _cost(candidate: tuple[float, float]) -> float:
    """Return the burst at 1e-6: where the envelope ends there is the better."""
    log_factor, decay = candidate
    return (log_factor - float(np.log(1e-6))) / decay

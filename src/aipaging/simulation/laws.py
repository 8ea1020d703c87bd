"""Laws of work: their moments and the parameters that the kernels want."""

import math
from typing import Any, Final

import numpy as np

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.kernels import work as kernel
from aipaging.simulation.scenario import Floats, Work

TOKENS_MAX: Final = 10**6
"""Caps up to here are summed token by token; beyond any window of a model, rounding up is taken as half a token."""


def law_of(kind: str, values: dict[str, Any]) -> Work:
    """Return the law of a kind, its values being of the right types.

    Raises:
        InvalidInputError: The values contradict one another; `field` names one of them.
    """
    numbers = {key: float(value) for key, value in values.items() if not isinstance(value, list)}
    match kind:
        case "constant":
            value = numbers["value"]
            return Work(law=kernel.CONSTANT, parameters=(value,), mean=value, second_moment=value * value)
        case "exponential":
            mean = numbers["mean"]
            return Work(law=kernel.EXPONENTIAL, parameters=(mean,), mean=mean, second_moment=2.0 * mean * mean)
        case "uniform":
            return _uniform(**numbers)
        case "log-normal":
            return _log_normal(**numbers)
        case "pareto":
            return _pareto(**numbers)
        case _:
            return _discrete(values["values"], values["probabilities"])


def _uniform(low: float, high: float) -> Work:
    if high <= low:
        raise InvalidInputError(f"must be above low ({low:g}), not {high:g}", field="high")
    return Work(
        law=kernel.UNIFORM,
        parameters=(low, high),
        mean=0.5 * (low + high),
        second_moment=(low * low + low * high + high * high) / 3.0,
    )


def _log_normal(median: float, sigma: float, cap: float) -> Work:
    from scipy.special import log_ndtr  # noqa: PLC0415 - slow to import, and most laws do without

    z = math.log(cap / median) / sigma

    def moment(k: int) -> float:
        # In logarithms: the moments of the law without its cap are beyond every number where sigma is large.
        below = k * math.log(median) + 0.5 * (k * sigma) ** 2 + float(log_ndtr(z - k * sigma))
        return math.exp(below) + math.exp(k * math.log(cap) + float(log_ndtr(-z)))

    return Work(law=kernel.LOGNORMAL, parameters=(median, sigma, cap), mean=moment(1), second_moment=moment(2))


def _pareto(minimum: float, alpha: float, cap: float) -> Work:
    if cap < minimum:
        raise InvalidInputError(f"must be at least minimum ({minimum:g}), not {cap:g}", field="cap")

    def moment(k: int) -> float:
        # minimum**k + integral from minimum to cap of k x**(k-1) (minimum/x)**alpha; expm1 is exact near k = alpha.
        stretch = math.log(cap / minimum)
        power = k - alpha
        above = stretch if power == 0.0 else math.expm1(power * stretch) / power
        return minimum**k * (1.0 + k * above)

    return Work(law=kernel.PARETO, parameters=(minimum, alpha, cap), mean=moment(1), second_moment=moment(2))


def _discrete(values: list[float], probabilities: list[float]) -> Work:
    if len(values) != len(probabilities):
        raise InvalidInputError(f"{len(probabilities)} of them for {len(values)} values", field="probabilities")
    if abs(math.fsum(probabilities) - 1.0) > 1e-9:
        raise InvalidInputError(f"they add up to {math.fsum(probabilities):g}, not to 1", field="probabilities")
    parameters: list[float] = []
    cumulated = 0.0
    for value, probability in zip(values, probabilities, strict=True):
        cumulated += probability
        parameters += [float(value), cumulated]
    pairs = list(zip(values, probabilities, strict=True))
    return Work(
        law=kernel.DISCRETE,
        parameters=tuple(parameters),
        mean=math.fsum(p * x for x, p in pairs),
        second_moment=math.fsum(p * x * x for x, p in pairs),
    )


def recorded_law(works: Floats) -> Work:
    """Return the moments of recorded work, which is replayed and never drawn."""
    mean = float(works.mean())
    return Work(law=kernel.CONSTANT, parameters=(mean,), mean=mean, second_moment=float((works**2).mean()))


def least_of(work: Work) -> float:
    """Return the least work that a packet may bring."""
    match work.law:
        case kernel.CONSTANT | kernel.PARETO | kernel.UNIFORM:
            return work.parameters[0]
        case kernel.DISCRETE:
            return min(work.parameters[::2])
        case _:
            return 0.0


def mean_tokens(work: Work) -> float:
    """Return the mean of the work rounded up to whole tokens, one at least."""
    if work.law == kernel.EXPONENTIAL:
        return -1.0 / math.expm1(-1.0 / work.mean)
    if work.law == kernel.UNIFORM:
        low, high = work.parameters
        return (_ceiling_integral(high) - _ceiling_integral(low)) / (high - low)
    if work.law in {kernel.CONSTANT, kernel.DISCRETE}:
        pairs = work.parameters if work.law == kernel.DISCRETE else (*work.parameters, 1.0)
        shares = np.diff(pairs[1::2], prepend=0.0)
        return math.fsum(p * max(math.ceil(x), 1) for x, p in zip(pairs[::2], shares, strict=True))
    cap = work.parameters[2]
    if cap > TOKENS_MAX:
        return work.mean + 0.5
    # The sum of P(X > k) over whole k below the cap; the first is 1.
    return 1.0 + float(_above(work, np.arange(1.0, math.ceil(cap))).sum())


def _above(work: Work, tokens: Floats) -> Floats:
    from scipy.special import ndtr  # noqa: PLC0415 - slow to import

    first, second = work.parameters[:2]
    if work.law == kernel.PARETO:
        return np.asarray(np.minimum((first / tokens) ** second, 1.0), np.float64)
    return np.asarray(ndtr((math.log(first) - np.log(tokens)) / second), np.float64)


def _ceiling_integral(end: float) -> float:
    """Return the integral of ceil(x) from 0."""
    whole = math.floor(end)
    return 0.5 * whole * (whole + 1.0) + (end - whole) * (whole + 1.0)

"""Laws of work: their moments and the parameters that the kernels want."""

import math
from typing import Any

from scipy.special import ndtr

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.kernels import work as kernel
from aipaging.simulation.scenario import Work


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
    z = math.log(cap / median) / sigma

    def moment(k: int) -> float:
        whole = median**k * math.exp(0.5 * (k * sigma) ** 2)
        return whole * float(ndtr(z - k * sigma)) + cap**k * float(ndtr(-z))

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

"""How much work each packet brings."""

import math
from typing import Final

import numpy as np

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Words, exponential, normal, uniform

CONSTANT: Final = 0
EXPONENTIAL: Final = 1
LOGNORMAL: Final = 2
PARETO: Final = 3
UNIFORM: Final = 4
DISCRETE: Final = 5


@compiled
def fill_work(state: Words, law: int, parameters: Floats, works: Floats) -> None:
    """Write the work of the next packets.

    Args:
        state: The random stream.
        law: One of the constants of this module.
        parameters: value | mean | median, sigma, cap | minimum, alpha, cap | low, high | value, cumulated, ...
        works: Where to.
    """
    if law == CONSTANT:
        works[:] = parameters[0]
    elif law == EXPONENTIAL:
        for j in range(works.shape[0]):
            works[j] = parameters[0] * exponential(state)
    else:
        _fill_bounded(state, law, parameters, works)


@compiled
def _fill_bounded(state: Words, law: int, parameters: Floats, works: Floats) -> None:
    if law == LOGNORMAL:
        for j in range(works.shape[0]):
            works[j] = min(parameters[0] * math.exp(parameters[1] * normal(state)), parameters[2])
    elif law == PARETO:
        for j in range(works.shape[0]):
            works[j] = min(parameters[0] * math.exp(exponential(state) / parameters[1]), parameters[2])
    elif law == UNIFORM:
        for j in range(works.shape[0]):
            works[j] = parameters[0] + (parameters[1] - parameters[0]) * uniform(state)
    else:
        _fill_discrete(state, parameters, works)


@compiled
def _fill_discrete(state: Words, parameters: Floats, works: Floats) -> None:
    for j in range(works.shape[0]):
        draw = uniform(state)
        pair = 0
        while pair + 2 < parameters.shape[0] and draw >= parameters[pair + 1]:
            pair += 2
        works[j] = parameters[pair]


@compiled
def one_work(state: Words, law: Floats) -> float:
    """Return the work of one packet; `law` holds the law, the number of its parameters, and its parameters."""
    if law[0] == EXPONENTIAL:
        return float(law[2] * exponential(state))
    drawn = np.empty(1)
    fill_work(state, int(law[0]), law[2 : 2 + int(law[1])], drawn)
    return float(drawn[0])

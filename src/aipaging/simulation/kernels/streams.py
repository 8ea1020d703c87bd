"""Random numbers inside compiled loops: xoshiro256++ and a ziggurat for the exponential law.

A state is an array of four words, filled from a `numpy.random.SeedSequence`; each stream of a run (the arrivals of one
tenant in one replication, say) has its own, so what one stream draws never depends on another or on who runs it.
Referred to as xoshiro256++ in Blackman and Vigna, "Scrambled linear pseudorandom number generators" (2021), and as the
ziggurat method in Marsaglia and Tsang (2000).
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.simulation.kernels.compiled import compiled

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Words = NDArray[np.uint64]

_U11 = np.uint64(11)
_U17 = np.uint64(17)
_U19 = np.uint64(19)
_U23 = np.uint64(23)
_U41 = np.uint64(41)
_U45 = np.uint64(45)
_LAYER_MASK = np.uint64(255)
_UNIT: Final = 2.0**-53

_LAYERS: Final = 256
_TAIL: Final = 7.69711747013104972
"""Where the lowest layer of the ziggurat becomes the tail, for 256 layers of equal area."""


def _ziggurat() -> tuple[Floats, Floats]:
    area = (_TAIL + 1.0) * math.exp(-_TAIL)
    edges = np.zeros(_LAYERS + 1)
    edges[0] = area * math.exp(_TAIL)
    edges[1] = _TAIL
    for layer in range(1, _LAYERS - 1):
        edges[layer + 1] = -math.log(math.exp(-edges[layer]) + area / edges[layer])
    return edges, np.exp(-edges)


_EDGES, _HEIGHTS = _ziggurat()


def stream(seed: np.random.SeedSequence) -> Words:
    """Return the state of a new stream."""
    return np.asarray(seed.generate_state(4, np.uint64), np.uint64)


@compiled
def word(state: Words) -> np.uint64:
    """Return 64 random bits."""
    a, b, c, d = state[0], state[1], state[2], state[3]
    mixed = a + d
    result: np.uint64 = ((mixed << _U23) | (mixed >> _U41)) + a
    shifted = b << _U17
    c ^= a
    d ^= b
    b ^= c
    a ^= d
    c ^= shifted
    state[0] = a
    state[1] = b
    state[2] = c
    state[3] = (d << _U45) | (d >> _U19)
    return result


@compiled
def uniform(state: Words) -> float:
    """Return a number of [0, 1)."""
    return float(word(state) >> _U11) * _UNIT


@compiled
def exponential(state: Words) -> float:
    """Return an exponential number of mean 1."""
    shift = 0.0
    while True:
        bits = word(state)
        layer = bits & _LAYER_MASK
        x: float = float(bits >> _U11) * _UNIT * _EDGES[layer]
        above = layer + np.uint64(1)
        if x < _EDGES[above]:
            return shift + x
        if layer == 0:
            shift += _TAIL  # the law has no memory: its tail is itself, moved
            continue
        low = _HEIGHTS[layer]
        if low + uniform(state) * (_HEIGHTS[above] - low) < math.exp(-x):
            return shift + x


@compiled
def normal(state: Words) -> float:
    """Return a standard normal number (Box and Muller, one of the pair)."""
    return math.sqrt(2.0 * exponential(state)) * math.cos(2.0 * math.pi * uniform(state))

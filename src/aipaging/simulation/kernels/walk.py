"""Importance sampling of a first-come-first-served server: the walk of its workload, backwards in time, twisted."""

import math
from typing import Final

import numpy as np

from aipaging.simulation.kernels.compiled import compiled
from aipaging.simulation.kernels.streams import Floats, Integers, Words, exponential, uniform
from aipaging.simulation.kernels.work import CONSTANT, DISCRETE, EXPONENTIAL

STEPS_MAX: Final = 10_000_000
"""Events of one walk: its drift is upwards, so that it ends after some multiple of the target; this is a guard."""


@compiled
def twisted_walks(
    dice: Words, chains: tuple[Floats, Floats, Floats, Floats], laws: tuple[Integers, Floats], aim: Floats, sums: Floats
) -> None:
    """Add up the weights of walks that pass the target.

    Args:
        dice: The random stream.
        chains: Jump rates [chain, mode, mode], arrival rates [chain, mode, tenant], eigenvector [chain, mode] and the
            cumulated law of the mode that the packet meets [chain, mode]; the first two reversed and twisted.
        laws: Law of each tenant's service time, and its twisted parameters [tenant, parameter].
        aim: Target, theta, E exp(theta S) of the packet's own service, its tenant, number of walks.
        sums: Sum of the weights, sum of their squares, events.
    """
    jumps, rates, vectors, met = chains
    count = jumps.shape[0]
    modes = np.zeros(count, np.int64)
    target, theta, own = aim[0], aim[1], int(aim[3])
    for _ in range(int(aim[4])):
        height = twisted_service(dice, laws[0][own], laws[1][own])
        weight = aim[2]
        if height <= target:
            for chain in range(count):
                modes[chain] = _drawn(uniform(dice), met[chain])
                weight *= vectors[chain, modes[chain]]
            for _step in range(STEPS_MAX):
                height = _event(dice, jumps, rates, laws, modes, height)
                sums[2] += 1.0
                if height > target:
                    break
            for chain in range(count):
                weight /= vectors[chain, modes[chain]]
        weight *= math.exp(-theta * height)
        sums[0] += weight
        sums[1] += weight * weight


@compiled
def _event(
    dice: Words, jumps: Floats, rates: Floats, laws: tuple[Integers, Floats], modes: Integers, height: float
) -> float:
    """Take one step: a chain jumps or a packet arrives; returns the height behind it."""
    total = 0.0
    for chain in range(modes.shape[0]):
        total += jumps[chain, modes[chain]].sum() + rates[chain, modes[chain]].sum()
    height -= exponential(dice) / total
    left = uniform(dice) * total
    for chain in range(modes.shape[0]):
        mode = modes[chain]
        for other in range(jumps.shape[2]):
            left -= jumps[chain, mode, other]
            if left < 0.0:
                modes[chain] = other
                return height
        for tenant in range(rates.shape[2]):
            left -= rates[chain, mode, tenant]
            if left < 0.0:
                return height + twisted_service(dice, laws[0][tenant], laws[1][tenant])
    return height  # rounding left nothing to happen: the step was time alone


@compiled
def _drawn(draw: float, cumulated: Floats) -> int:
    place = 0
    while place + 1 < cumulated.shape[0] and draw >= cumulated[place]:
        place += 1
    return place


@compiled
def twisted_service(dice: Words, law: int, parameters: Floats) -> float:
    """Return a service time of the twisted law: value | mean | value, cumulated, ... | low, width, theta."""
    if law == CONSTANT:
        fixed: float = parameters[0]
        return fixed
    if law == EXPONENTIAL:
        drawn: float = parameters[0] * exponential(dice)
        return drawn
    if law == DISCRETE:
        draw = uniform(dice)
        pair = 0
        while pair + 2 < parameters.shape[0] and draw >= parameters[pair + 1]:
            pair += 2
        chosen: float = parameters[pair]
        return chosen
    low, width, theta = parameters[0], parameters[1], parameters[2]
    between: float = low + math.log1p(uniform(dice) * math.expm1(theta * width)) / theta
    return between

"""Disciplines that share a server, packet by packet against plain walks that are written another way."""

import heapq
import math
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from aipaging.simulation.reading import read_scenario
from aipaging.simulation.stations import Station

Packets = list[tuple[float, float]]
WEIGHTS = (0.6, 0.2, 0.2)
QUANTA = (3.0, 1.0, 0.5)


@pytest.fixture(scope="module")
def packets() -> list[Packets]:
    """Instants and work of three tenants at a load of 0.9."""
    rng = np.random.default_rng(99)
    works = (rng.exponential(1.0, 3000), rng.exponential(0.5, 3000), rng.uniform(0.5, 2.0, 3000))
    instants = [np.cumsum(rng.exponential(3.0, 3000)) for _ in works]
    return [list(zip(t.tolist(), w.tolist(), strict=True)) for t, w in zip(instants, works, strict=True)]


def through(build, discipline: str, packets: list[Packets]) -> list[list[float]]:
    """Return the departures, decided in stretches of several lengths."""
    tenants = [
        build.tenant(str(k), reserved_rate_per_ms=w, quantum=q)
        for k, (w, q) in enumerate(zip(WEIGHTS, QUANTA, strict=True))
    ]
    document = {"domain": [build.domain(discipline=discipline)], "tenant": tenants}
    scenario = read_scenario(document, folder=Path())
    station = Station(scenario.domains[0], scenario.tenants, np.random.SeedSequence(0))
    for row, each in enumerate(packets):
        station.rows.append(row, np.array([[t, w, t] for t, w in each]).T, ordered=True)
    left: list[list[float]] = [[] for _ in packets]
    for horizon in (*np.linspace(0.0, 4000.0, 777), 6000.0, math.inf):
        station.serve(float(horizon))
        for row in range(len(left)):
            left[row] += station.served(row)[0].tolist()
    return left


def merged(packets: list[Packets]) -> list[tuple[float, int, float]]:
    return sorted((t, row, w) for row, each in enumerate(packets) for t, w in each)


def shared_fluid(packets: list[Packets]) -> list[list[float]]:
    """Generalised processor sharing from event to event, without virtual time."""
    queues: list[deque[float]] = [deque() for _ in packets]
    left: list[list[float]] = [[] for _ in packets]
    now = 0.0
    for instant, row, work in [*merged(packets), (math.inf, 0, 0.0)]:
        while busy := [k for k, queue in enumerate(queues) if queue]:
            whole = sum(WEIGHTS[k] for k in busy)
            step, first = min((queues[k][0] * whole / WEIGHTS[k], k) for k in busy)
            if now + step > instant:
                for k in busy:
                    queues[k][0] -= (instant - now) * WEIGHTS[k] / whole
                break
            now += step
            for k in busy:
                queues[k][0] -= step * WEIGHTS[k] / whole
            queues[first].popleft()
            left[first].append(now)
        now = instant
        queues[row].append(work)
    return left


def in_turn(packets: list[Packets]) -> list[list[float]]:
    """Deficit round robin with the list of active queues, as its authors wrote it."""
    arrivals = deque(merged(packets))
    queues: list[deque[float]] = [deque() for _ in packets]
    left: list[list[float]] = [[] for _ in packets]
    active: deque[int] = deque()
    deficits = [0.0] * len(packets)
    now = 0.0

    def arrive(serving: int) -> None:
        while arrivals and arrivals[0][0] <= now:
            _, row, work = arrivals.popleft()
            queues[row].append(work)
            if row != serving and row not in active:
                active.append(row)

    while arrivals or active:
        if not active:
            now = max(now, arrivals[0][0])
            arrive(-1)
        row = active.popleft()
        deficits[row] += QUANTA[row]
        while queues[row] and queues[row][0] <= deficits[row]:
            work = queues[row].popleft()
            deficits[row] -= work
            now += work
            left[row].append(now)
            arrive(row)
        if queues[row]:
            active.append(row)
        else:
            deficits[row] = 0.0
    return left


def by_tag(packets: list[Packets]) -> list[list[float]]:
    """Self-clocked fair queueing with tags given on arrival."""
    arrivals = deque(merged(packets))
    left: list[list[float]] = [[] for _ in packets]
    last, clock, now = [0.0] * len(packets), 0.0, 0.0
    waiting: list[tuple[float, int, float]] = []
    while arrivals or waiting:
        if not waiting:
            now = max(now, arrivals[0][0])
        while True:
            while arrivals and arrivals[0][0] <= now:
                _, row, work = arrivals.popleft()
                last[row] = max(last[row], clock) + work / WEIGHTS[row]
                heapq.heappush(waiting, (last[row], row, work))
            if waiting:
                break
            now = arrivals[0][0]
        clock, row, work = heapq.heappop(waiting)
        now += work
        left[row].append(now)
    return left


WALKS = {"reserved": shared_fluid, "round-robin": in_turn, "fair": by_tag}


@pytest.mark.parametrize("discipline", WALKS)
def test_every_departure_is_that_of_the_walk(build, packets, discipline) -> None:
    found, expected = through(build, discipline, packets), WALKS[discipline](packets)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)

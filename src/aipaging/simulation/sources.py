"""A tenant at run time: when it sends, and how much work each packet brings."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr

from aipaging.simulation.kernels import arrivals as kernels
from aipaging.simulation.kernels.regulator import police, shape
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.kernels.work import fill_work
from aipaging.simulation.scenario import (
    Copula,
    Correlated,
    Modulated,
    Modulator,
    Periodic,
    Poisson,
    Tenant,
    Trace,
    Work,
)
from aipaging.simulation.stations import Rows

Floats: TypeAlias = NDArray[np.float64]
Fill: TypeAlias = Callable[[float, Floats], int]

SEGMENTS_FIRST: Final = 256
PACKETS_AT_ONCE: Final = 1024


class Path:
    """The path of a modulator at run time; tenants that share the modulator share the path."""

    def __init__(self, modulator: Modulator, seed: np.random.SeedSequence) -> None:
        self._state = stream(seed)
        self._jumps = np.array(modulator.jumps_per_ms)
        first = np.random.default_rng(seed.spawn(1)[0])
        mode = int(first.choice(len(self._jumps), p=_shares(modulator)))
        # The rest of an exponential time is exponential: the chain begins in its stationary law.
        self._progress = np.array([first.exponential() / self._jumps[mode].sum(), mode])
        self.segments: Floats = np.zeros((2, 0))

    def extend(self, horizon: float) -> None:
        """Draw the segments from the one that was under way to the horizon."""
        parts: list[Floats] = []
        while True:
            room = np.empty((2, SEGMENTS_FIRST))
            count = kernels.modulator_path(self._state, self._jumps, self._progress, horizon, room)
            parts.append(room[:, :count])
            if self._progress[0] > horizon:
                break
        # A part begins with the segment that the one before ended with.
        self.segments = np.concatenate([parts[0], *(part[:, 1:] for part in parts[1:])], axis=1)


class Slots:
    """The slots of a copula at run time: for each tenant, where in its law the rate of each slot lies."""

    def __init__(self, copula: Copula, members: Sequence[str], seed: np.random.SeedSequence) -> None:
        normal, scale = seed.spawn(2)
        self._copula = copula
        self._normal = np.random.default_rng(normal)
        self._scale = np.random.default_rng(scale)
        self._place = {name: 1 + k for k, name in enumerate(members)}
        self._drawn = 0
        self._kept = np.zeros((0, 1 + len(members)))

    def extend(self, horizon: float) -> None:
        """Draw the slots from the one that was under way to the horizon."""
        needed = math.floor(horizon / self._copula.slot_ms) + 1 - self._drawn
        numbers = self._normal.standard_normal((max(needed, 0), self._kept.shape[1]))
        levels = math.sqrt(self._copula.correlation) * numbers[:, :1]
        levels = levels + math.sqrt(1.0 - self._copula.correlation) * numbers
        degrees = self._copula.degrees
        if degrees < math.inf:
            levels /= np.sqrt(self._scale.chisquare(degrees, (len(levels), 1)) / degrees)
            levels = stdtr(degrees, levels)
        else:
            levels = ndtr(levels)
        self._drawn += len(levels)
        self._kept = np.concatenate([self._kept[-1:], levels])

    def segments(self, tenant: str, cumulated: Floats) -> Floats:
        """Return ends and modes of a tenant's slots, from the one that was under way."""
        modes = np.searchsorted(cumulated[:-1], self._kept[:, self._place[tenant]], side="right")
        found = np.empty((2, len(modes)))
        found[0] = self._copula.slot_ms * np.arange(self._drawn - len(modes) + 1, self._drawn + 1)
        found[1] = modes
        return found


class Source:
    """One tenant at run time."""

    def __init__(self, tenant: Tenant, seed: np.random.SeedSequence, paths: Mapping[str, "Path | Slots"]) -> None:
        arrivals, work, phase, prompt = seed.spawn(4)
        self._state = stream(arrivals)
        self._rng = np.random.default_rng(phase)
        self._works = _drawer(tenant.work, work)
        self._prompts = None if tenant.prompt is None else _drawer(tenant.prompt, prompt)
        self._fill = self._filler(tenant, paths, phase)
        self._bucket: Floats | None = None
        self._regulate = police
        if tenant.bucket is not None:
            self._bucket = np.array([tenant.bucket.burst, 0.0, tenant.bucket.rate_per_ms, tenant.bucket.burst])
            self._regulate = shape if tenant.bucket.holds else police

    def send(self, rows: Rows, row: int, horizon: float) -> tuple[Floats, Floats]:
        """Add the packets that are sent up to the horizon to a row.

        Returns:
            When each was sent, and when each was sent that the policer lost.
        """
        first = int(rows.counts[row])
        while True:
            room = rows.room(row, PACKETS_AT_ONCE)
            count = self._fill(horizon, room[0])
            self._works(room[1, :count])
            room[2, :count] = room[0, :count]
            if self._prompts is not None:
                self._prompts(room[3, :count])
            elif len(room) > 3:
                room[3, :count] = 0.0
            rows.counts[row] += count
            if count < room.shape[1]:
                break
        last = int(rows.counts[row])
        cells = rows.cells[row]
        sent = cells[2, first:last].copy()
        if self._bucket is None:
            return sent, sent[:0]
        self._regulate(cells, first, last, self._bucket)
        passed = ~np.isnan(cells[0, first:last])
        kept = int(passed.sum())
        cells[:, first : first + kept] = cells[:, first:last][:, passed]
        rows.counts[row] = first + kept
        return sent, sent[~passed]

    def _filler(self, tenant: Tenant, paths: Mapping[str, "Path | Slots"], seed: np.random.SeedSequence) -> Fill:
        match tenant.arrivals:
            case Poisson(rate_per_ms=rate):
                return self._poisson(1.0 / rate)
            case Periodic(interval_ms=interval):
                return self._periodic(interval)
            case Modulated() as modulated:
                shared = paths.get(modulated.modulator.name)
                own = shared if isinstance(shared, Path) else Path(modulated.modulator, seed.spawn(1)[0])
                return self._modulated(np.array(modulated.rates_per_ms), own, extends=shared is None)
            case Correlated() as correlated:
                slots = paths[f"copula {correlated.copula.name}"]
                assert isinstance(slots, Slots), "every copula has its slots"  # noqa: S101
                cumulated = np.cumsum(correlated.probabilities)
                return self._of_segments(
                    np.array(correlated.rates_per_ms), lambda _horizon: slots.segments(tenant.name, cumulated)
                )
            case Trace() as trace:
                return self._trace(trace)

    def _poisson(self, gap: float) -> Fill:
        progress = np.array([gap * self._rng.exponential()])

        def fill(horizon: float, times: Floats) -> int:
            return kernels.poisson(self._state, gap, progress, horizon, times)

        return fill

    def _periodic(self, gap: float) -> Fill:
        progress = np.array([gap * self._rng.random(), 0.0])

        def fill(horizon: float, times: Floats) -> int:
            return kernels.periodic(gap, progress, horizon, times)

        return fill

    def _modulated(self, rates: Floats, path: Path, *, extends: bool) -> Fill:
        def segments(horizon: float) -> Floats:
            if extends:
                path.extend(horizon)
            return path.segments

        return self._of_segments(rates, segments)

    def _of_segments(self, rates: Floats, segments: Callable[[float], Floats]) -> Fill:
        progress = np.array([0.0, self._rng.exponential(), -1.0, 0.0])
        path = [np.zeros((2, 0))]

        def fill(horizon: float, times: Floats) -> int:
            if horizon > progress[2]:
                path[0] = segments(horizon)
                progress[2:] = horizon, 0.0
            return kernels.modulated(self._state, path[0], rates, progress, times)

        return fill

    def _trace(self, trace: Trace) -> Fill:
        instants, count = trace.instants_ms, len(trace.instants_ms)
        begun = int(self._rng.integers(count))
        at = [begun]  # the next packet to send

        def instant(numbers: NDArray[np.int64]) -> Floats:
            shifted: Floats = instants[numbers % count] + (numbers // count) * trace.period_ms - instants[begun]
            return shifted

        def fill(horizon: float, times: Floats) -> int:
            upcoming = instant(np.arange(at[0], at[0] + len(times)))
            sent = int(np.searchsorted(upcoming, horizon, side="right"))
            times[:sent] = upcoming[:sent]
            at[0] += sent
            return sent

        if trace.works is not None:
            self._works = _in_order(trace.works, begun)
        if trace.prompts is not None:
            self._prompts = _in_order(trace.prompts, begun)
        return fill


def _in_order(recorded: Floats, begun: int) -> Callable[[Floats], None]:
    """Return what writes recorded numbers one after another, in a circle."""
    at = [begun]

    def take(numbers: Floats) -> None:
        numbers[:] = recorded[np.arange(at[0], at[0] + len(numbers)) % len(recorded)]
        at[0] += len(numbers)

    return take


def _drawer(law: Work, seed: np.random.SeedSequence) -> Callable[[Floats], None]:
    dice, parameters = stream(seed), np.array(law.parameters)

    def draw(numbers: Floats) -> None:
        fill_work(dice, law.law, parameters, numbers)

    return draw


def _shares(modulator: Modulator) -> Floats:
    shares = modulator.stationary()
    normal: Floats = shares / shares.sum()
    return normal

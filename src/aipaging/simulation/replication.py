"""One replication: the network in stretches of time, domain after domain, from an empty start.

Within a stretch every source sends up to its end, and every domain, in the order of the routes, decides what can be
decided up to it. What leaves a domain later waits for the next stretch, so memory is bounded by the stretch and by what
waits in the queues, however many packets there are; and the result does not depend on the length of the stretch.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from aipaging.simulation.counts import Counted, Counter
from aipaging.simulation.kernels.streams import stream
from aipaging.simulation.kernels.work import fill_work
from aipaging.simulation.load import Load
from aipaging.simulation.scenario import Correlated, Modulated, Scenario
from aipaging.simulation.sources import Path, Slots, Source
from aipaging.simulation.stations import Floats, Station

STRETCH_PACKETS: Final = 8192
"""Packets per stretch, all tenants together: what the caches hold while a stretch passes through the domains."""

STRETCH_PACKETS_PER_TENANT: Final = 256
"""With many tenants a stretch grows, so that the work per row outweighs the call for it."""

AFTERMATH_STRETCHES_MAX: Final = 64
"""Sources go on until the last counted packet has left, so that it meets the same traffic; but no longer than this.
In an overload they stop at once: the last packets would wait for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one replication is to do.

    Attributes:
        scenario: What is simulated.
        load: What its domains are offered.
        seed: Of the whole run.
        number: Which replication.
        packets: How many packets it counts.
    """

    scenario: Scenario
    load: Load
    seed: int
    number: int
    packets: int


def replicate(order: Order) -> list[Counted]:
    """Run one replication; returns the counts of every tenant."""
    return _Network(order).run()


class _Network:
    """The state of one replication."""

    def __init__(self, order: Order) -> None:
        scenario = order.scenario
        self._order = order
        # Every replication, tenant and domain has streams of its own: who runs it, and when, changes nothing.
        root = np.random.SeedSequence(entropy=order.seed, spawn_key=(order.number,))
        for_domains, for_tenants, for_paths, for_copulas, for_works = root.spawn(5)
        self._tenants = scenario.tenants
        visits = [[t for t in self._tenants if d.name in t.route] for d in scenario.domains]
        domains = zip(scenario.domains, visits, for_domains.spawn(len(visits)), strict=True)
        # Instant, work, instant of sending, and the prompt where somebody sends one.
        fields = 4 if any(tenant.prompt is not None for tenant in self._tenants) else 3
        self._stations = [Station(domain, tenants, seed, fields=fields) for domain, tenants, seed in domains]
        place = {domain.name: index for index, domain in enumerate(scenario.domains)}
        # For every station and row: the tenant, and the station and row that come next (none: the end of the route).
        hops = {t.name: [(place[d], visits[place[d]].index(t)) for d in t.route] for t in self._tenants}
        self._first = [hops[t.name][0] for t in self._tenants]
        self._next: list[list[tuple[int, tuple[int, int] | None]]] = [[] for _ in visits]
        for station, tenants in enumerate(visits):
            for row, tenant in enumerate(tenants):
                way = hops[tenant.name]
                after = way.index((station, row)) + 1
                following = way[after] if after < len(way) else None
                self._next[station].append((self._tenants.index(tenant), following))
        modulators = {
            t.arrivals.modulator.name: t.arrivals.modulator
            for t in self._tenants
            if isinstance(t.arrivals, Modulated) and t.arrivals.modulator.name
        }
        seeds = for_paths.spawn(len(modulators))
        self._paths: dict[str, Path | Slots] = {
            name: Path(modulators[name], seed) for name, seed in zip(modulators, seeds, strict=True)
        }
        self._paths |= self._slots(for_copulas)
        # Where a packet gets new work: by tenant and the station it enters.
        self._new_work = {
            (t, place[domain]): (stream(seed), law.law, np.array(law.parameters))
            for t, (tenant, seeds) in enumerate(zip(self._tenants, for_works.spawn(len(self._tenants)), strict=True))
            for (domain, law), seed in zip(tenant.work_at.items(), seeds.spawn(len(tenant.work_at)), strict=True)
        }
        seeds = for_tenants.spawn(len(self._tenants))
        self._sources = [Source(t, seed, self._paths) for t, seed in zip(self._tenants, seeds, strict=True)]
        self._counters = [Counter(t.targets_ms, order.load.warm_up_ms) for t in self._tenants]

    def _slots(self, root: np.random.SeedSequence) -> dict[str, Slots]:
        members: dict[str, list[str]] = {}
        copulas = {
            t.arrivals.copula.name: t.arrivals.copula for t in self._tenants if isinstance(t.arrivals, Correlated)
        }
        for tenant in self._tenants:
            if isinstance(tenant.arrivals, Correlated):
                members.setdefault(tenant.arrivals.copula.name, []).append(tenant.name)
        seeds = zip(copulas, root.spawn(len(copulas)), strict=True)
        return {f"copula {name}": Slots(copulas[name], members[name], seed) for name, seed in seeds}

    def run(self) -> list[Counted]:
        """Run to the end."""
        load = self._order.load
        packets = max(STRETCH_PACKETS, STRETCH_PACKETS_PER_TENANT * len(self._tenants))
        # A short replication is not drowned in packets that nobody counts.
        packets = max(min(packets, self._order.packets // 2), 64)
        stretch = packets / load.packets_per_ms
        horizon, missing, after = 0.0, self._order.packets, 0
        limit = 0 if load.overloaded else AFTERMATH_STRETCHES_MAX
        while True:
            horizon += stretch
            missing = self._send(horizon, missing)
            self._pass(horizon)
            if missing > 0:
                continue
            if after >= limit or all(counter.on_their_way == 0 for counter in self._counters):
                break
            after += 1
        self._pass(np.inf)
        return [counter.counted() for counter in self._counters]

    def _send(self, horizon: float, missing: int) -> int:
        """Let every source send; returns how many packets are still to be counted."""
        for path in self._paths.values():
            path.extend(horizon)
        sent: list[tuple[Floats, Floats]] = []
        for source, (station, row) in zip(self._sources, self._first, strict=True):
            sent.append(source.send(self._stations[station].rows, row, horizon))
        if missing > 0:
            missing = self._close_window([instants for instants, _ in sent], missing)
        for counter, (instants, lost) in zip(self._counters, sent, strict=True):
            counter.send(instants)
            counter.lose(lost)
        return missing

    def _close_window(self, sent: list[Floats], missing: int) -> int:
        counted = np.concatenate([instants[instants >= self._order.load.warm_up_ms] for instants in sent])
        if len(counted) >= missing:
            last = float(np.partition(counted, missing - 1)[missing - 1])
            for counter in self._counters:
                counter.close(last)
        return missing - len(counted)

    def _pass(self, horizon: float) -> None:
        for station, following in zip(self._stations, self._next, strict=True):
            station.serve(horizon)
            for row, (tenant, onward) in enumerate(following):
                block = station.served(row)
                if onward is None:
                    self._counters[tenant].arrive(block)
                    continue
                if station.may_lose:
                    block = self._without_lost(block, tenant)
                place, target = onward
                if (tenant, place) in self._new_work:
                    dice, law, parameters = self._new_work[tenant, place]
                    block = block.copy()
                    fill_work(dice, law, parameters, block[1])
                self._stations[place].rows.append(target, block, ordered=station.ordered)

    def _without_lost(self, block: Floats, tenant: int) -> Floats:
        lost = np.isnan(block[0])
        self._counters[tenant].lose(block[2, lost])
        return block[:, ~lost]

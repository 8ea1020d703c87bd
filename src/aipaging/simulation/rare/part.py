"""The part of a scenario that decides one tenant's delay: a line of domains and who joins where."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation.scenario import Domain, Modulated, Periodic, Poisson, Scenario, Tenant, Work

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A Markov chain and the tenants whose Poisson packets it modulates; a Poisson tenant has a chain of one mode.

    Attributes:
        joins: Place on the line of the first domain of its tenants.
        jumps: Rates of the jumps [mode, mode].
        rates: Packets per ms [mode, tenant of the line].
        stationary: Long-run share of time in each mode.
        period_ms: The gap of a periodic tenant, 0 for others.
    """

    joins: int
    jumps: Floats
    rates: Floats
    stationary: Floats
    period_ms: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Line:
    """What decides the delay of one tenant.

    Attributes:
        domains: In the order of its route.
        slowness: Milliseconds per unit of work, by domain.
        tenants: Who is served in them in order of arrival; the tenant in question is the first.
        last: By tenant the place of its last domain on the line.
        sources: Where packets come from.
    """

    domains: tuple[Domain, ...]
    slowness: tuple[float, ...]
    tenants: tuple[Tenant, ...]
    last: tuple[int, ...]
    sources: tuple[Source, ...]

    @property
    def latency_ms(self) -> float:
        """What the domains add whatever is sent."""
        return sum(domain.latency_ms for domain in self.domains)


def line_of(scenario: Scenario, name: str) -> Line:
    """Return the line of a tenant.

    Raises:
        InvalidInputError: There is no such tenant, or its delay is not decided by a line of first-come-first-served
            domains.
    """
    tagged = next((tenant for tenant in scenario.tenants if tenant.name == name), None)
    if tagged is None:
        there = ", ".join(tenant.name for tenant in scenario.tenants)
        raise InvalidInputError(f"there is no tenant {name!r}; there are: {there}", field="tenant")
    known = {domain.name: domain for domain in scenario.domains}
    domains = tuple(known[each] for each in tagged.route)
    slowness = tuple(_slowness(domain, tagged) for domain in domains)
    shared = [domain.name for domain in domains if domain.discipline == "fifo"]
    others = [t for t in scenario.tenants if t is not tagged and set(t.route) & set(shared)]
    tenants = (tagged, *others)
    joins, last = [], []
    for tenant in tenants:
        first, end = _stretch(tenant, tagged.route)
        joins.append(first)
        last.append(end)
    sources = tuple(_sources(tenants, joins))
    return Line(domains=domains, slowness=slowness, tenants=tenants, last=tuple(last), sources=sources)


def _slowness(domain: Domain, tagged: Tenant) -> float:
    own = domain.discipline == "reserved" and not domain.work_conserving
    if own:
        return 1.0 / tagged.reserved_rate_per_ms[domain.name]
    plain = domain.servers == 1 and not domain.loses and domain.impairment is None and domain.retry is None
    if domain.discipline != "fifo" or not plain:
        raise InvalidInputError(
            f"domain {domain.name!r}: rare delays are estimated behind domains in order of arrival (`fifo`) with one "
            "server and no limit, impairment or retry, or behind reservations that are not shared; simulate this one "
            "without a rare target",
            code="NOT_RARE_READY",
            field=f"domain.{domain.name}",
        )
    return 1.0 / domain.rate_per_ms


def _stretch(tenant: Tenant, line: tuple[str, ...]) -> tuple[int, int]:
    """Return the places of a tenant's first and last domain on the line."""
    where = f"tenant.{tenant.name}.route"
    places = [line.index(each) for each in tenant.route if each in line]
    begins = tenant.route[0] in line
    together = tenant.route[: len(places)] == line[places[0] : places[0] + len(places)]
    if not (begins and together):
        raise InvalidInputError(
            f"tenant {tenant.name!r} joins the line {' -> '.join(line)} from outside or leaves it and comes back: rare "
            "delays are estimated where every tenant begins on the line and leaves it once",
            code="NOT_RARE_READY",
            field=where,
        )
    if tenant.bucket is not None:
        raise InvalidInputError(
            f"tenant {tenant.name!r} has a regulator, which rare estimates do not follow: leave it out",
            code="NOT_RARE_READY",
            field=f"tenant.{tenant.name}.regulator",
        )
    return places[0], places[-1]


def _sources(tenants: tuple[Tenant, ...], joins: list[int]) -> list[Source]:
    found: dict[str, Source] = {}
    for place, (tenant, join) in enumerate(zip(tenants, joins, strict=True)):
        jumps, rates, stationary = np.zeros((1, 1)), np.zeros((1, len(tenants))), np.ones(1)
        period, name = 0.0, ""
        match tenant.arrivals:
            case Poisson(rate_per_ms=rate):
                rates[0, place] = rate
            case Periodic(interval_ms=period):
                rates[0, place] = 1.0 / period
            case Modulated(rates_per_ms=each, modulator=modulator):
                jumps, stationary, name = np.array(modulator.jumps_per_ms), modulator.stationary(), modulator.name
                rates = np.zeros((len(jumps), len(tenants)))
                rates[:, place] = each
            case _:
                raise InvalidInputError(
                    f"tenant {tenant.name!r}: rare estimates need arrivals whose law is known: poisson, periodic, "
                    "on-off, mmpp or modulated",
                    code="NOT_RARE_READY",
                    field=f"tenant.{tenant.name}.arrivals",
                )
        if name and name in found:
            rates = rates + found[name].rates
            if found[name].joins != join:
                raise InvalidInputError(
                    f"tenants that share the modulator {name!r} must begin at the same domain for rare estimates",
                    code="NOT_RARE_READY",
                    field=f"tenant.{tenant.name}.route",
                )
        key = name or f" {place}"
        found[key] = Source(joins=join, jumps=jumps, rates=rates, stationary=stationary, period_ms=period)
    return list(found.values())


def law_at(tenant: Tenant, domain: str) -> Work | None:
    """Return the law that a tenant's work is drawn from on entering a domain, None where it keeps what it has."""
    return tenant.work if tenant.route[0] == domain else tenant.work_at.get(domain)

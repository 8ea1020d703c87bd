"""Laws that hold for every kind of arrival and service and in both classes of rungs."""

import math
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core import calculus as c

EXPONENTIAL, CONSTANT = c.ExponentialWork(mean=1.0), c.ConstantWork(value=1.0)
CAPPED = c.TruncatedLogNormalWork(median=0.5, sigma=1.0, cap=4.0)
PARETO = c.TruncatedParetoWork(minimum=0.5, alpha=1.5, cap=6.0)
DICE = c.DiscreteWork(values=(0.0, 1.0, 3.0), probabilities=(0.5, 0.3, 0.2))
WORKS: tuple[c.Work, ...] = (EXPONENTIAL, CONSTANT, CAPPED, PARETO, DICE)

CONTINUOUS: tuple[c.Arrival, ...] = (
    *(c.CompoundPoisson(rate=0.5, work=work) for work in WORKS),
    c.FluidOnOff(count=3, off_to_on=0.2, on_to_off=0.5, peak=0.6),
    c.MarkovFluid(count=2, generator=((-0.3, 0.2, 0.1), (0.5, -0.5, 0.0), (0.0, 1.0, -1.0)), rates=(0.0, 0.5, 1.0)),
    c.MarkovPoisson(count=1, generator=((-0.1, 0.1), (0.4, -0.4)), rates=(0.2, 1.0), work=CAPPED),
    c.Superposition(
        parts=(
            c.CompoundPoisson(rate=0.2, work=EXPONENTIAL),
            c.FluidOnOff(count=2, off_to_on=0.2, on_to_off=0.5, peak=0.4),
            c.TokenBucket(burst=0.5, rate=0.1),
        )
    ),
)
SLOTTED: tuple[c.Arrival, ...] = (
    *(c.SlottedWork(works=(c.scaled_work(work, 0.6),)) for work in WORKS),
    c.SlottedWork(works=(c.ExponentialWork(mean=0.3), c.ExponentialWork(mean=0.2))),
    c.SlottedOnOff(count=3, stay_off=0.9, stay_on=0.7, peak=0.7),
    c.SlottedOnOff(count=3, stay_off=0.3, stay_on=0.1, peak=0.4),
    c.MarkovSlots(count=2, transition=((0.8, 0.2), (0.4, 0.6)), works=(None, c.ExponentialWork(mean=0.6))),
    c.LeakyBuckets(count=4, burst=2.0, rate=0.15),
    c.ExponentiallyBounded(rate=0.6, prefactor=1.5, decay=2.0),
    c.Superposition(
        parts=(
            c.SlottedWork(works=(c.ExponentialWork(mean=0.3),)),
            c.LeakyBuckets(count=2, burst=1.0, rate=0.1),
            c.ExponentiallyBounded(rate=0.1, prefactor=1.0, decay=3.0),
        )
    ),
    c.Superposition(parts=(c.LeakyBuckets(count=2, burst=1.0, rate=0.1), c.LeakyBuckets(count=1, burst=3.0, rate=0.3))),
)
SERVICES: tuple[c.Service, ...] = (
    c.RateLatency(rate=1.2, latency=0.0),
    c.RateLatency(rate=1.2, latency=1.5),
    c.OnOffService(rate=1.4, availability=0.9),
    c.RandomService(work=c.ExponentialWork(mean=1.4)),
    c.RandomService(work=c.TruncatedParetoWork(minimum=1.0, alpha=3.0, cap=3.0)),
    c.ImpairedRateLatency(rate=1.2, latency=1.0, prefactor=0.8, decay=4.0),
)
EVERYTHING = (
    *WORKS, *CONTINUOUS, *SLOTTED, *SERVICES,
    c.TokenBucket(burst=1.0, rate=0.3),
    c.ExponentialServer(rate=1.5),
    c.DelayContract(offset_ms=1.0, prefactor=0.5, decay_per_ms=0.7),
    c.MeasuredLatency(delays=(1.0, 2.0), exceedances=(0.5, 0.1)),
    c.BatchingServer(slots=4, base_time=0.02, time_per_request=0.01, reserved_slots=2, tokens_max=64),
    c.Domain(name="d", service=SERVICES[0], cross=(SLOTTED[0],), discipline=c.Discipline.BLIND),
    c.CrossFlow(arrival=SLOTTED[0], first=0, last=1),
    c.BudgetPart(delay_ms=1.0, epsilon=0.1),
    c.bound_path(CONTINUOUS[0], [c.Domain(name="d", service=SERVICES[0])], 3.0).bound,
)  # fmt: skip
UNITS = st.sampled_from([1e-6, 1e-3, 0.1, 10.0, 1e3, 1e6])


def scaled(value: Any, time: float, work: float) -> Any:
    """Return the same system in other units: times multiplied by `time`, amounts of work by `work`."""
    by_work = {"peak": work, "burst": work, "decay": 1.0 / work, "latency": time}
    by_name = {"off_to_on": 1.0 / time, "on_to_off": 1.0 / time, "rate": work / time, "rates": work / time}
    if isinstance(value, c.CompoundPoisson | c.MarkovPoisson):
        by_name |= {"rate": 1.0 / time, "rates": 1.0 / time}
    if isinstance(value, c.FluidOnOff):
        by_work["peak"] = work / time
    changes: dict[str, Any] = {}
    for field in fields(value):
        old = getattr(value, field.name)
        factor = (by_work | by_name).get(field.name)
        if field.name == "generator":
            changes["generator"] = tuple(tuple(x / time for x in row) for row in old)
        elif field.name == "parts":
            changes["parts"] = tuple(scaled(part, time, work) for part in old)
        elif field.name == "works":
            changes["works"] = tuple(c.scaled_work(w, work) if w else None for w in old)
        elif field.name == "work":
            changes["work"] = c.scaled_work(old, work)
        elif factor is not None:
            changes[field.name] = tuple(x * factor for x in old) if isinstance(old, tuple) else old * factor
    return replace(value, **changes)


def probability(
    arrival: object, services: list[object], delay: float, rung_class: c.RungClass, **more: object
) -> float:
    domains = [c.Domain(name="d", service=service, **more) for service in services]  # type: ignore[arg-type]
    return c.bound_path(arrival, domains, delay, rung_class=rung_class).bound.probability  # type: ignore[arg-type]


PAIRS = [
    *((a, s, False) for a in SLOTTED for s in SERVICES),
    *((a, s, True) for a in CONTINUOUS for s in SERVICES[:2]),
]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PAIRS), st.sampled_from([0.0, 4.0, 17.0]), UNITS, UNITS, st.sampled_from(list(c.RungClass)))
def test_units_do_not_matter(
    pair: tuple[object, object, bool], delay: float, time: float, work: float, rung_class: c.RungClass
) -> None:
    arrival, service, continuous = pair
    factor = time if continuous else 1.0
    before = probability(arrival, [service], delay, rung_class)
    after = probability(scaled(arrival, factor, work), [scaled(service, factor, work)], delay * factor, rung_class)
    assert after == pytest.approx(before, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(PAIRS), st.sampled_from(list(c.RungClass)))
def test_more_delay_never_costs(pair: tuple[object, object, bool], rung_class: c.RungClass) -> None:
    arrival, service, _ = pair
    at = [probability(arrival, [service], delay, rung_class) for delay in (0.0, 2.0, 5.0, 11.0, 30.0, 90.0)]
    assert all(0.0 <= p <= 1.0 for p in at)
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in pairwise(at))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from([p for p in PAIRS if not p[2]]), st.sampled_from(list(c.Dependence)))
def test_more_domains_and_less_known_never_help(pair: tuple[object, object, bool], dependence: c.Dependence) -> None:
    arrival, service, _ = pair
    at = [probability(arrival, [service] * hops, 60.0, c.RungClass.FAST, dependence=dependence) for hops in (1, 2, 4)]
    assert all(later >= earlier * (1 - 1e-6) for earlier, later in pairwise(at))
    independent = probability(arrival, [service] * 2, 60.0, c.RungClass.FAST)
    assert at[1] >= independent * (1 - 1e-6)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(SLOTTED), st.sampled_from(SLOTTED), st.sampled_from(list(c.Discipline)))
def test_cross_traffic_never_helps(own: c.Arrival, cross: c.Arrival, discipline: c.Discipline) -> None:
    server = c.RateLatency(rate=3.0, latency=0.0)
    alone = probability(own, [server], 6.0, c.RungClass.SHARP)
    shared = probability(own, [server], 6.0, c.RungClass.SHARP, cross=(cross,), discipline=discipline)
    tied = probability(
        own, [server], 6.0, c.RungClass.SHARP, cross=(cross,), discipline=discipline, dependence=c.Dependence.ANY
    )
    assert shared >= alone * (1 - 1e-6)
    assert tied >= alone * (1 - 1e-6)
    if discipline is c.Discipline.RESERVED:
        assert shared == tied == alone


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(PAIRS), st.sampled_from([1.05, 1.5, 4.0]))
def test_more_service_never_costs(pair: tuple[object, object, bool], factor: float) -> None:
    arrival, service, _ = pair
    # Faster by a factor: the same as less work by that factor.
    slower = probability(arrival, [service], 12.0, c.RungClass.FAST)
    faster = probability(scaled(arrival, 1.0, 1.0 / factor), [service], 12.0, c.RungClass.FAST)
    if not isinstance(arrival, c.ExponentiallyBounded | c.Superposition):
        assert faster <= slower * (1 + 1e-6)


@pytest.mark.parametrize("arrival", [*SLOTTED, *CONTINUOUS], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("rung_class", list(c.RungClass))
def test_overload_has_a_name_and_no_number(arrival: c.Arrival, rung_class: c.RungClass) -> None:
    for load in (1.0, 1.5):
        rate = c.mean_rate(arrival) / load
        for domains in ([c.RateLatency(rate=rate, latency=0.0)], [c.RateLatency(rate=rate, latency=1.0)] * 2):
            with pytest.raises(c.UnstableError):
                probability(arrival, list(domains), 10.0, rung_class)
        if c.is_slotted(arrival):
            with pytest.raises(c.UnstableError):
                probability(arrival, [c.OnOffService(rate=rate, availability=0.9)], 10.0, rung_class)


@pytest.mark.parametrize("value", EVERYTHING, ids=lambda v: type(v).__name__)
def test_repr_rebuilds_every_value(value: object) -> None:
    assert eval(repr(value), dict(vars(c))) == value
    with pytest.raises((AttributeError, TypeError)):
        value.name = 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("arrival", [*SLOTTED, *CONTINUOUS], ids=lambda a: type(a).__name__)
def test_far_tails_are_numbers(arrival: c.Arrival) -> None:
    capacity = 1.05 * c.mean_rate(arrival)
    for delay in (0.0, 1e6):
        found = probability(arrival, [c.RateLatency(rate=capacity, latency=0.0)], delay, c.RungClass.SHARP)
        assert 0.0 <= found <= 1.0
    answer = c.delay_of_path(
        arrival,
        [c.Domain(name="d", service=c.RateLatency(rate=capacity, latency=0.0))],
        1e-40,
        rung_class=c.RungClass.FAST,
    )
    assert math.isfinite(answer.delay)
    assert answer.bound.probability <= 1e-40

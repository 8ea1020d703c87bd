"""The ladder of one path: reduce what is deterministic exactly, then the rungs that are proven for what is left.

A shape for which no rung has a proof is refused by name, never approximated: `NotAttestedError` says which
assumption would be needed.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final

from aipaging.core.calculus.any_dependence import any_dependence_tandem
from aipaging.core.calculus.arrivals import (
    CONTINUOUS,
    Arrival,
    CompoundPoisson,
    is_slotted,
    mean_rate,
    parts_of,
    superpose,
)
from aipaging.core.calculus.bound import RungClass, TailBound, bound_of_log, certain, least
from aipaging.core.calculus.deterministic import RateLatency, TokenBucket, convolve
from aipaging.core.calculus.domain import Discipline, ExponentialServer, Measure, OnOffService
from aipaging.core.calculus.errors import NotAttestedError, UnstableError, overloaded
from aipaging.core.calculus.interval import Floats, IntervalMoments, moments_of
from aipaging.core.calculus.onoff import SlottedOnOff
from aipaging.core.calculus.path_shape import (
    Path,
    in_slots,
    one_exponential,
    require_one_time,
    require_stable,
    stages_of,
)
from aipaging.core.calculus.pollaczek import lundberg_decay, sojourn_tail
from aipaging.core.calculus.priority import low_priority_tail
from aipaging.core.calculus.product import JobMoment, blind_tail
from aipaging.core.calculus.queue_exact import exponential_slots
from aipaging.core.calculus.rate_split import RATE_TOLERANCE, RATE_TOLERANCE_FAST, rate_split_tail
from aipaging.core.calculus.rounding import whole_slots
from aipaging.core.calculus.single_hop import backlog_tail
from aipaging.core.calculus.tandem import PASSES, PASSES_FAST, log_constant
from aipaging.core.calculus.tandem_hop import (
    exponential_cross_bound,
    exponential_onoff_bound,
    exponential_servers_tail,
)
from aipaging.core.calculus.tandem_union import Crossing, Stage, UnionTandem, theta_end, union_tail
from aipaging.core.calculus.work import ExponentialWork

SAMPLES: Final = (2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Into how many steps a delay in continuous time is cut; the best is taken, any is valid."""

SAMPLES_FAST: Final = (16, 192)

_INDEPENDENT: Final = ("independent-flows", "stationary", "independent-domains")
_DEPENDENT: Final = ("stationary", "any-dependence")


def path_tail(path: Path, delay: float) -> TailBound:
    """Return the least bound on P(delay of the path > delay).

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
    """
    require_one_time(path)
    services = [domain.service for domain in path.domains]
    shared = bool(path.crossing) or any(domain.cross for domain in path.domains)
    if any(isinstance(s, ExponentialServer) for s in services):
        return _exponential_servers(path, delay, shared=shared)
    if not shared and all(isinstance(s, RateLatency) for s in services):
        return _reserved(path, convolve([s for s in services if isinstance(s, RateLatency)]), delay)
    if path.measure is Measure.SOJOURN and not is_slotted(path.arrival) and len(services) > 1:
        raise NotAttestedError("a sojourn over several shared domains is bounded in slots only")
    require_stable(path)
    rungs = _single(path, delay) if len(path.domains) == 1 else []
    if rungs and path.rung_class is RungClass.FAST:
        # One queue has rungs of its own; the union over cuts seldom beats them, and costs more than they do.
        return least(rungs)
    rungs.extend(_exponential_slots(path, delay))
    if in_slots(path):
        rungs.append(_union(path, whole_slots(delay), 0.0))
    elif path.measure is Measure.VIRTUAL and not path.any_dependence:
        rungs.append(_sampled(path, delay))
    if not rungs:
        raise NotAttestedError("no rung is proven for these arrivals, cross traffic and disciplines together")
    return least(rungs)


def path_backlog_tail(path: Path, backlog: float) -> TailBound:
    """Return a bound on P(work of the flow inside the path > backlog).

    Raises:
        UnstableError: Some domain is overloaded.
        NotAttestedError: No rung is proven for this path.
    """
    require_one_time(path)
    require_stable(path)
    rungs: list[TailBound] = []
    first = path.domains[0].service
    if len(path.domains) == 1 and isinstance(first, RateLatency) and first.latency == 0.0 and not path.crossing:
        together = superpose((path.arrival, *path.domains[0].cross))
        independent = not path.domains[0].cross or not path.any_dependence
        if together is not None and independent:
            # The flow's own backlog is part of the whole backlog, in whatever order it is served.
            rungs.append(backlog_tail(together, first.rate, backlog, path.rung_class))
    if in_slots(path) and not any(isinstance(d.service, ExponentialServer) for d in path.domains):
        rungs.append(_union(path, 0, backlog))
    if not rungs:
        raise NotAttestedError("a backlog is bounded in slots, or at one server of constant rate")
    return least(rungs)


def _exponential_servers(path: Path, delay: float, *, shared: bool) -> TailBound:
    services = [domain.service for domain in path.domains]
    rates = [s.rate for s in services if isinstance(s, ExponentialServer)]
    if not isinstance(path.arrival, CompoundPoisson) or len(rates) < len(services):
        raise NotAttestedError("exponential servers are bounded for Poisson jobs on a path of such servers only")
    if shared:
        raise NotAttestedError("exponential servers with cross traffic: give the total arrival rate instead")
    return exponential_servers_tail(path.arrival.rate, rates, delay)


def _reserved(path: Path, whole: RateLatency, delay: float) -> TailBound:
    """Compose exactly: the backlog at the least rate exceeds R (d - sum T)."""
    if is_slotted(path.arrival) and not (len(path.domains) == 1 and whole.latency == 0.0):
        delay = float(whole_slots(delay))
    if overloaded(mean_rate(path.arrival), whole.rate) and not isinstance(path.arrival, TokenBucket):
        raise UnstableError
    if delay < whole.latency:
        return certain(1.0, "trivial", ())
    if path.measure is Measure.SOJOURN and isinstance(path.arrival, CompoundPoisson):
        return _job(path.arrival, whole, delay - whole.latency, path.rung_class)
    if path.measure is Measure.SOJOURN and any(isinstance(p, CONTINUOUS) for p in parts_of([path.arrival])):
        raise NotAttestedError("a sojourn in continuous time needs Poisson jobs")
    return backlog_tail(path.arrival, whole.rate, whole.rate * (delay - whole.latency), path.rung_class)


def _job(arrival: CompoundPoisson, server: RateLatency, left: float, rung_class: RungClass) -> TailBound:
    """Bound waiting plus own service of Poisson jobs: the laws convolved."""
    assumptions = ("poisson-arrivals", "independent-work", "fifo", "stationary")
    work = arrival.work
    if isinstance(work, ExponentialWork):
        decay = server.rate / work.mean - arrival.rate
        return bound_of_log(-decay * left, "mm1-exact", assumptions, theta=decay / server.rate)
    end = lundberg_decay(work, arrival_rate=arrival.rate, capacity=server.rate)
    rungs = [
        bound_of_log(work.log_mgf(end * f) - end * f * server.rate * left, "lundberg", assumptions, theta=end * f)
        for f in (1.0, 0.9, 0.75, 0.5, 0.25)
    ]
    if rung_class is RungClass.SHARP:
        late = sojourn_tail(work, arrival_rate=arrival.rate, delay=left, capacity=server.rate)
        rungs.insert(
            0,
            TailBound(probability=late, rung="pollaczek-khinchine", assumptions=assumptions, numeric_error=1e-7),
        )
    return least(rungs)


def _single(path: Path, delay: float) -> list[TailBound]:
    """Return the rungs of one domain of constant rate behind a latency, cross traffic and all."""
    domain = path.domains[0]
    server = domain.service
    if not isinstance(server, RateLatency):
        return []
    cross = (*domain.cross, *(c.arrival for c in path.crossing))
    slotted = in_slots(path)
    left = (whole_slots(delay) if slotted and server.latency > 0.0 else delay) - server.latency
    if path.any_dependence:
        return _split(path, cross, server, whole_slots(delay))
    rungs: list[TailBound] = []
    if left < 0.0:
        return [certain(1.0, "trivial", ())]
    job = _job_moment(path)
    together = superpose((path.arrival, *cross))
    if together is not None and domain.discipline is Discipline.FIFO and job is None:
        rungs.append(backlog_tail(together, server.rate, server.rate * left, path.rung_class))
    if server.latency > 0.0:
        return rungs
    blind = blind_tail(
        [path.arrival],
        cross,
        capacity=server.rate,
        delay=whole_slots(delay) if slotted else delay,
        job_moment=job,
        rung_class=path.rung_class,
    )
    own, other = path.arrival, superpose(cross)
    alike = isinstance(own, SlottedOnOff) and isinstance(other, SlottedOnOff) and replace(other, count=own.count) == own
    if alike and isinstance(own, SlottedOnOff) and isinstance(other, SlottedOnOff):
        slots = whole_slots(delay)
        rungs.append(
            low_priority_tail(own, other, capacity=server.rate, delay=slots, rung_class=path.rung_class)
        )  # fmt: skip
    if blind is not None:
        rungs.append(blind)
    return rungs


def _job_moment(path: Path) -> JobMoment | None:
    """Return the moment of a job's own work where its sojourn is asked for; slots contain their own arrivals."""
    if path.measure is not Measure.SOJOURN or in_slots(path):
        return None
    if not isinstance(path.arrival, CompoundPoisson):
        raise NotAttestedError("a sojourn in continuous time needs Poisson jobs")
    return path.arrival.work.log_mgf


def _split(path: Path, cross: Sequence[Arrival], server: RateLatency, slots: int) -> list[TailBound]:
    """Return the rate split of two flows of exponential slots; other dependent flows go to the union."""
    own_mean, cross_mean = one_exponential(path.arrival), one_exponential(superpose(cross))
    if own_mean is None or cross_mean is None or server.latency > 0.0:
        return []
    value, share = rate_split_tail(
        lambda c: exponential_slots(own_mean, c),
        lambda c: exponential_slots(cross_mean, c),
        means=(own_mean, cross_mean),
        capacity=server.rate,
        delay=slots,
        tolerance=RATE_TOLERANCE if path.rung_class is RungClass.SHARP else RATE_TOLERANCE_FAST,
    )
    assumptions = ("independent-slots-per-flow", "stationary", "any-dependence-between-flows")
    return [TailBound(probability=value, rung="rate-split", assumptions=assumptions, parameters={"share": share})]


def _exponential_slots(path: Path, delay: float) -> list[TailBound]:
    """Return the rungs for one exponential work per slot through like kinds of domains."""
    mean = one_exponential(path.arrival)
    if mean is None or path.any_dependence or path.crossing:
        return []
    services = [domain.service for domain in path.domains]
    pairs = [(s.rate, s.availability) for s in services if isinstance(s, OnOffService)]
    if len(pairs) == len(services) and not any(d.cross for d in path.domains):
        return [exponential_onoff_bound(mean, pairs, delay=whole_slots(delay), rung_class=path.rung_class)]
    rates = [s.rate for s in services if isinstance(s, RateLatency) and s.latency == 0.0]
    crosses = [one_exponential(superpose(d.cross)) if d.cross else None for d in path.domains]
    means = [c for c in crosses if c is not None]
    if len(rates) == len(means) == len(services):
        return [exponential_cross_bound(mean, means, rates, delay=whole_slots(delay), rung_class=path.rung_class)]
    return []


def _union(path: Path, slots: int, backlog: float) -> TailBound:
    passes = PASSES if path.rung_class is RungClass.SHARP else PASSES_FAST
    tandem = _union_tandem(path)
    if path.any_dependence:
        bound = union_tail(tandem, slots=slots, backlog=backlog, assumptions=_DEPENDENT, passes=passes)
        return replace_rung(bound, "excess-split")
    return union_tail(tandem, slots=slots, backlog=backlog, assumptions=_INDEPENDENT, passes=passes)


@lru_cache(maxsize=512)
def _union_tandem(path: Path) -> UnionTandem:
    """Return the path in moments, which no question changes."""
    stages, spans = stages_of(path)
    if path.any_dependence:
        return any_dependence_tandem(path.arrival, stages, spans)
    return _independent(path.arrival, stages, spans)


def replace_rung(bound: TailBound, rung: str) -> TailBound:
    """Return the bound under the name of the rung that set it up."""
    return bound if bound.rung == "trivial" else replace(bound, rung=rung)


def _independent(arrival: Arrival, stages: Sequence[Stage], spans: Sequence[tuple[Arrival, int, int]]) -> UnionTandem:
    return UnionTandem(
        arrival=moments_of([arrival]), stages=tuple(stages),
        crossings=tuple(Crossing(moments=moments_of([flow]), first=f, last=t) for flow, f, t in spans),
    )  # fmt: skip


def _sampled(path: Path, delay: float) -> TailBound:
    """Bound a path in continuous time by cutting it at multiples of a step that divides the delay.

    A cut moved to the grid costs every domain one step of service and every cross flow one step of traffic.
    """
    whole = _union_tandem(path)
    latency = math.fsum(stage.latency for stage in whole.stages if stage.shifts)
    if delay <= latency:
        return certain(1.0, "trivial", ())
    # Growth and service of a step are those of a unit of time, times the step: the same thetas are stable.
    end = theta_end(whole)
    fast = path.rung_class is RungClass.FAST
    return least(
        [
            union_tail(
                _cut(whole, (delay - latency) / samples), slots=samples, backlog=0.0, assumptions=_INDEPENDENT,
                passes=PASSES_FAST if fast else PASSES, end=end,
            )
            for samples in (SAMPLES_FAST if fast else SAMPLES)
        ]
    )  # fmt: skip


def _cut(whole: UnionTandem, step: float) -> UnionTandem:
    def skipped(crossing: Crossing) -> float:
        return math.fsum(s.latency for s in whole.stages[crossing.first : crossing.last + 1] if s.shifts)

    moments = {
        (of, latency): _stepped(of, step, step + latency)
        for of, latency in {(c.moments, skipped(c)) for c in whole.crossings}
    }
    return UnionTandem(
        arrival=_stepped(whole.arrival, step, 0.0),
        stages=tuple(_sampled_stage(stage, step) for stage in whole.stages),
        crossings=tuple(replace(c, moments=moments[c.moments, skipped(c)]) for c in whole.crossings),
    )


def _sampled_stage(stage: Stage, step: float) -> Stage:
    """Return a stage of constant rate in steps: one step of service is lost, and a latency that does not shift."""
    lost = stage.rate * (step + (0.0 if stage.shifts else stage.latency))

    def log_sigma(theta: Floats) -> Floats:
        return theta * lost

    return replace(
        stage,
        log_service=log_constant(stage.rate * step),
        log_sigma=log_sigma,
        latency=0.0,
        rate=stage.rate * step,
        memoryless=False,
    )


def _stepped(moments: IntervalMoments, step: float, more: float) -> IntervalMoments:
    """Return moments per step, with `more` time of growth on top."""
    return IntervalMoments(
        log_sigma=lambda theta: moments.log_sigma(theta) + (more * moments.log_growth(theta) if more else 0.0),
        log_growth=lambda theta: step * moments.log_growth(theta),
        theta_max=moments.theta_max, memoryless=False,
    )  # fmt: skip

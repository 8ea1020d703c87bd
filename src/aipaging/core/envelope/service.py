"""How a domain serves a session, and the delay contract that a session's token bucket makes of it.

A delay contract says what a domain promises; a *service model* says why, so that the promise follows the session's own
rate and burst. Each model gives a contract (T, M, eta) for a session that is within its token bucket (r, b), counted in
requests, at the entrance of the domain. The proofs are in `docs/background/envelopes-and-bounds.md`.

Two models are *shared*: what they give one session depends on the bursts of everybody in the same queue. Their delay
is known only together with the queue (`SharedQueue`).

Units: milliseconds and requests. Offsets and prefactors are rounded up, decay rates down.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec

from aipaging.core.calculus.llm import BatchingServer
from aipaging.core.calculus.risk_budget import DelayContract

UP: Final = 1.0 + 1e-12
"""What every offset and prefactor is multiplied with: covers a dozen operations on doubles."""

DOWN: Final = 1.0 - 1e-12
"""The same for decay rates."""

CACHED: Final = 8192
"""Contracts remembered: those of a thousand domains for a handful of traffic classes."""

EXPONENT_MAX: Final = 600.0
"""Where exp() stops making sense; a chance of exp(-600) is below everything that is asked for."""

TILTS: Final = 24
"""Tilts that are tried for slots; each gives a valid contract, and the best is within a few percent of the optimum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A session's token bucket: at most burst + rate t requests in any time t.

    Attributes:
        rate_per_ms: r, requests per ms.
        burst: b, requests.
    """

    rate_per_ms: float
    burst: int

    @classmethod
    def of(cls, rate_mrps: int, burst: int) -> "Traffic":
        """Return the bucket of a rate in thousandths of a request per second."""
        return cls(rate_per_ms=rate_mrps / 1e6, burst=burst)


class _Model(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every service model has in common: it can stand in a journal."""


class ReservedRate(_Model, frozen=True, kw_only=True, tag="rate-latency"):
    """A service curve of each session's own: after `latency_ms`, `rate_per_ms` requests per ms."""

    rate_per_ms: float
    latency_ms: float


class ReservedRateDeficit(_Model, frozen=True, kw_only=True, tag="rate-latency-deficit"):
    """The same, but for a deficit over any interval with P(deficit > x requests) <= prefactor exp(-decay x)."""

    rate_per_ms: float
    latency_ms: float
    prefactor: float
    decay_per_request: float


class OnOffSlots(_Model, frozen=True, kw_only=True, tag="on-off-slots"):
    """Slots of a session's own: each serves `requests_per_slot` with probability `availability`, else nothing."""

    slot_ms: float
    requests_per_slot: float
    availability: float


class SharedRate(_Model, frozen=True, kw_only=True, tag="shared-rate"):
    """One queue for all sessions of the domain, first in first out, at `rate_per_ms` after `latency_ms`."""

    rate_per_ms: float
    latency_ms: float
    burst_total_max: int


class ReservedSlots(_Model, frozen=True, kw_only=True, tag="reserved-slots"):
    """A batching language-model server with slots of each tenant's own; a tenant's sessions share its slots."""

    slots: int
    base_ms: float
    per_request_ms: float
    slots_per_tenant: int
    tokens_max: int
    burst_total_max: int

    @property
    def curve(self) -> tuple[float, float]:
        """Requests per ms and latency in ms that a tenant's slots give, if every request has the most tokens."""
        curve = BatchingServer(
            slots=self.slots,
            base_time=self.base_ms,
            time_per_request=self.per_request_ms,
            reserved_slots=self.slots_per_tenant,
            tokens_max=self.tokens_max,
        ).token_service_curve()
        return curve.rate / self.tokens_max * DOWN, curve.latency * UP

    @property
    def tenants_max(self) -> int:
        """How many tenants can have slots of their own."""
        return self.slots // self.slots_per_tenant


ServiceModel: TypeAlias = ReservedRate | ReservedRateDeficit | OnOffSlots | SharedRate | ReservedSlots


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCurve:
    """A queue that several sessions share: rate and latency of what serves it."""

    rate_per_ms: float
    latency_ms: float
    per_tenant: bool

    def delay_ms(self, burst: float) -> float:
        """Return the longest delay if the token buckets in it hold `burst` requests together, rounded up.

        With sum r_i <= R: latency + sum b_i / R [LeBoudecThiran2001, theorem 1.4.2].
        """
        return (self.latency_ms + burst / self.rate_per_ms) * UP


def queue_curve(model: ServiceModel | None) -> QueueCurve | None:
    """Return the queue that sessions share in this model, or None if each has its own."""
    if model is None:  # most domains, and asked of each of them for every page
        return None
    return _curve(model) if isinstance(model, SharedRate | ReservedSlots) else None


@lru_cache(maxsize=CACHED)
def _curve(model: SharedRate | ReservedSlots) -> QueueCurve:
    if isinstance(model, SharedRate):
        return QueueCurve(rate_per_ms=model.rate_per_ms, latency_ms=model.latency_ms, per_tenant=False)
    rate_per_ms, latency_ms = model.curve
    return QueueCurve(rate_per_ms=rate_per_ms, latency_ms=latency_ms, per_tenant=True)


def mean_rate_per_ms(model: ServiceModel) -> float:
    """Return the rate below which a session's rate must stay, rounded down."""
    if isinstance(model, OnOffSlots):
        return model.requests_per_slot * model.availability / model.slot_ms * DOWN
    if isinstance(model, ReservedSlots):
        return model.curve[0]
    return model.rate_per_ms


def worst_contract(model: ServiceModel, traffic: Traffic, epsilon: float) -> DelayContract | None:
    """Return a contract that holds whoever else is there, as far as the domain lets anybody in.

    Args:
        model: The model.
        traffic: The largest session that the guardrail lets in.
        epsilon: Where the tail should be tight, if there is a choice.
    """
    queue = queue_curve(model)
    if queue is not None:
        burst_max = model.burst_total_max if isinstance(model, SharedRate | ReservedSlots) else 0
        if traffic.rate_per_ms > queue.rate_per_ms or traffic.burst > burst_max:
            return None
        return DelayContract(offset_ms=queue.delay_ms(burst_max), prefactor=0.0, decay_per_ms=1.0)
    return session_contract(model, traffic.rate_per_ms, traffic.burst, epsilon)


@lru_cache(maxsize=CACHED)
def session_contract(model: ServiceModel, rate_per_ms: float, burst: int, epsilon: float) -> DelayContract | None:
    """Return the contract of one session's delay in a domain that it does not share, or None if it overloads it.

    Args:
        model: Not one of the shared models.
        rate_per_ms: r, of the session's bucket at the entrance.
        burst: b.
        epsilon: Where the tail should be tight, if there is a choice.
    """
    if isinstance(model, ReservedRate):
        if rate_per_ms > model.rate_per_ms:
            return None
        offset_ms = (model.latency_ms + burst / model.rate_per_ms) * UP
        return DelayContract(offset_ms=offset_ms, prefactor=0.0, decay_per_ms=1.0)
    if isinstance(model, ReservedRateDeficit):
        return _with_deficit(model, rate_per_ms, burst)
    if isinstance(model, OnOffSlots):
        return _in_slots(model, rate_per_ms, burst, epsilon)
    return None


def _with_deficit(model: ReservedRateDeficit, rate_per_ms: float, burst: int) -> DelayContract | None:
    """T = latency + (b + r h) / R, eta = decay R, M' = M R / (R - r): the union over a grid of steps.

    The step is h = ln(R / r) / (decay (R - r)), the best for long delays. What it costs is in T, not in M': a deficit
    is bounded for x >= 0 only, so that a factor in M' would claim too much where M < 1.
    """
    served = model.rate_per_ms
    spare = served - rate_per_ms
    if spare <= served * 1e-9:
        return None
    step_ms = math.log(served / rate_per_ms) / (model.decay_per_request * spare)
    return DelayContract(
        offset_ms=(model.latency_ms + (burst + rate_per_ms * step_ms) / served) * UP,
        prefactor=model.prefactor * served / spare * (1.0 + 1e-9),
        decay_per_ms=model.decay_per_request * served * DOWN,
    )


def _in_slots(model: OnOffSlots, rate_per_ms: float, burst: int, epsilon: float) -> DelayContract | None:
    """P(D > d) <= exp(theta (b + r s)) g^(d/s - 2), g = 1 - p + p exp(-theta c), wherever g exp(theta r s) <= 1."""
    if rate_per_ms >= mean_rate_per_ms(model):
        return None
    per_slot = rate_per_ms * model.slot_ms
    ahead = burst + per_slot
    log_risk = -math.log(epsilon)
    best: tuple[float, float, float] | None = None
    top = _tilt_max(model, per_slot)
    for step in range(TILTS):
        tilt = top * 0.75**step
        decay_per_ms = -_log_slot(model, tilt) / model.slot_ms * DOWN
        if decay_per_ms <= 0.0:
            break
        offset_ms = (tilt * ahead / decay_per_ms + 2.0 * model.slot_ms) * UP
        reach_ms = offset_ms + log_risk / decay_per_ms
        if best is None or reach_ms < best[0]:
            best = (reach_ms, offset_ms, decay_per_ms)
    return DelayContract(offset_ms=best[1], prefactor=1.0, decay_per_ms=best[2]) if best else None


def _log_slot(model: OnOffSlots, tilt: float) -> float:
    """Return ln E exp(-tilt S) of one slot's service S, rounded up."""
    value = model.availability * -math.expm1(-tilt * model.requests_per_slot)
    return (math.log1p(-value) if value < 1.0 else -tilt * model.requests_per_slot) * DOWN


def _tilt_max(model: OnOffSlots, per_slot: float) -> float:
    """Return the largest tilt for which what arrives in a slot does not outgrow what leaves, rounded down."""
    high = EXPONENT_MAX / model.requests_per_slot
    if _log_slot(model, high) + high * per_slot <= 0.0:
        return high
    low = 0.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _log_slot(model, middle) + middle * per_slot <= 0.0:
            low = middle
        else:
            high = middle
    return low * (1.0 - 1e-9)

"""The service models of an envelope document, and what admission reads of them.

Every number is rounded to the side that promises less: rates, availability and decay down, latencies, slots and
prefactors up.
"""

from typing import Annotated, Final, TypeAlias

from msgspec import Meta

from aipaging.core.envelope.decimals import at_least, at_most
from aipaging.core.envelope.fields import Amount, Closed, about
from aipaging.core.envelope.service import (
    OnOffSlots,
    ReservedRate,
    ReservedRateDeficit,
    ReservedSlots,
    ServiceModel,
    SharedRate,
)
from aipaging.core.foundation.errors import InvalidInputError

BURST_TOTAL_MAX: Final = 10_000_000
"""Ten times the largest burst of one session: what a queue holds is memory somewhere."""

SLOTS_MAX: Final = 65_536
"""Requests in one batch: far above any accelerator's."""

_MS_PER_S: Final = 1000.0

_BurstTotal: TypeAlias = Annotated[int, Meta(ge=1, le=BURST_TOTAL_MAX)]
_Slots: TypeAlias = Annotated[int, Meta(ge=1, le=SLOTS_MAX)]


class RateLatencyModel(Closed, frozen=True, kw_only=True, tag="rate-latency", tag_field="kind"):
    """A service curve for one session, FIFO within it: after latencyMs, at least serviceRateRps requests a second."""

    service_rate_rps: Annotated[Amount, about("R: the reserved rate, requests per second; at least the guardrail's.")]
    latency_ms: Annotated[Amount, about("The latency of the curve, ms.")]


class RateLatencyDeficitModel(Closed, frozen=True, kw_only=True, tag="rate-latency-deficit", tag_field="kind"):
    """A rate-latency curve that may fall short: over any interval, P(by more than x) <= M exp(-decay x)."""

    service_rate_rps: Annotated[Amount, about("R: the reserved rate, requests per second; above the guardrail's.")]
    latency_ms: Annotated[Amount, about("The latency of the curve, ms.")]
    deficit_prefactor: Annotated[Amount, about("M: of the deficit's tail.")]
    deficit_decay_per_request: Annotated[Amount, about("How fast the deficit's tail falls, per request.")]


class OnOffSlotsModel(Closed, frozen=True, kw_only=True, tag="on-off-slots", tag_field="kind"):
    """A wireless link in slots of one session's own; slots are independent, and what is not used is gone."""

    slot_ms: Annotated[Amount, about("Length of a slot, ms.")]
    requests_per_slot: Annotated[Amount, about("Requests that a slot serves when it is on.")]
    availability: Annotated[Amount, about("Probability that a slot is on.")]


class SharedRateModel(Closed, frozen=True, kw_only=True, tag="shared-rate", tag_field="kind"):
    """One FIFO queue for all sessions in the domain: everybody's burst is part of everybody's delay."""

    service_rate_rps: Annotated[Amount, about("C: the rate that serves the queue, requests per second.")]
    latency_ms: Annotated[Amount, about("Delay without any queue, ms.")]
    burst_total_max: Annotated[_BurstTotal, about("Most requests that the bursts of all sessions amount to.")]


class ReservedSlotsModel(Closed, frozen=True, kw_only=True, tag="reserved-slots", tag_field="kind"):
    """A batching language-model server with slots of each tenant's own; guardrails.maxTokens caps every request."""

    slots: Annotated[_Slots, about("B: requests in a full batch.")]
    base_iteration_ms: Annotated[Amount, about("tau0: an iteration before any request, ms.")]
    per_request_ms: Annotated[Amount, about("tau1: what each request adds, capped prefill included, ms.")]
    slots_per_tenant: Annotated[_Slots, about("b: slots that a tenant has for itself; at most B.")]
    burst_total_max: Annotated[_BurstTotal, about("Most requests that the bursts of one tenant's sessions amount to.")]


Served: TypeAlias = RateLatencyModel | RateLatencyDeficitModel | OnOffSlotsModel | SharedRateModel | ReservedSlotsModel
"""The models that say how a domain serves."""

SERVED_TYPES: Final = (
    RateLatencyModel,
    RateLatencyDeficitModel,
    OnOffSlotsModel,
    SharedRateModel,
    ReservedSlotsModel,
)


def service_of(model: Served, *, tokens_max: int) -> ServiceModel:
    """Return what admission reads of a model.

    Args:
        model: As it stands in the document.
        tokens_max: `maxTokens` of the guardrails.

    Raises:
        InvalidInputError: A number is not positive that must be, or an availability above 1.
    """
    match model:
        case OnOffSlotsModel():
            availability = _positive(at_most(model.availability), "availability")
            if at_least(model.availability) > 1.0:
                raise InvalidInputError("model.availability is above 1", field="model.availability")
            return OnOffSlots(
                slot_ms=_positive(at_least(model.slot_ms), "slotMs"),
                requests_per_slot=_positive(at_most(model.requests_per_slot), "requestsPerSlot"),
                availability=availability,
            )
        case ReservedSlotsModel():
            return _slots(model, tokens_max)
        case SharedRateModel():
            return SharedRate(
                rate_per_ms=_rate_per_ms(model.service_rate_rps),
                latency_ms=at_least(model.latency_ms),
                burst_total_max=model.burst_total_max,
            )
        case RateLatencyDeficitModel():
            return ReservedRateDeficit(
                rate_per_ms=_rate_per_ms(model.service_rate_rps),
                latency_ms=at_least(model.latency_ms),
                prefactor=at_least(model.deficit_prefactor),
                decay_per_request=_positive(at_most(model.deficit_decay_per_request), "deficitDecayPerRequest"),
            )
        case RateLatencyModel():
            return ReservedRate(rate_per_ms=_rate_per_ms(model.service_rate_rps), latency_ms=at_least(model.latency_ms))


def _slots(model: ReservedSlotsModel, tokens_max: int) -> ReservedSlots:
    if tokens_max < 1:
        raise InvalidInputError(
            "guardrails.maxTokens must be at least 1: without it a request may hold its slot for ever",
            field="guardrails.maxTokens",
        )
    if model.slots_per_tenant > model.slots:
        raise InvalidInputError("model.slotsPerTenant is above model.slots", field="model.slotsPerTenant")
    return ReservedSlots(
        slots=model.slots,
        base_ms=_positive(at_least(model.base_iteration_ms), "baseIterationMs"),
        per_request_ms=at_least(model.per_request_ms),
        slots_per_tenant=model.slots_per_tenant,
        tokens_max=tokens_max,
        burst_total_max=model.burst_total_max,
    )


def _rate_per_ms(rate_rps: str) -> float:
    # Not rounded further: division keeps the order, so a session at exactly the service rate is served. What is
    # computed with the rate has its own allowance.
    return _positive(at_most(rate_rps), "serviceRateRps") / _MS_PER_S


def _positive(number: float, member: str) -> float:
    if number <= 0.0:
        raise InvalidInputError(f"model.{member} must be above 0", field=f"model.{member}")
    return number

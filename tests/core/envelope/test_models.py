"""Service models in documents: what admission reads is on the safe side, and nonsense is named."""

import msgspec
import pytest

from aipaging.core.envelope.document import (
    EnvelopeDocument,
    Guardrails,
    Model,
    Reservation,
    canonical_bytes,
    digest_of,
    document_from,
    envelope_of,
    require_consistent,
)
from aipaging.core.envelope.models import (
    OnOffSlotsModel,
    RateLatencyDeficitModel,
    RateLatencyModel,
    ReservedSlotsModel,
    SharedRateModel,
)
from aipaging.core.envelope.service import OnOffSlots, ReservedRateDeficit, ReservedSlots, SharedRate
from aipaging.core.foundation.errors import InvalidInputError

SLOTS = ReservedSlotsModel(slots=8, base_iteration_ms="1", per_request_ms="0.1", slots_per_tenant=4, burst_total_max=20)
MODELS: list[Model] = [
    RateLatencyModel(service_rate_rps="50.1", latency_ms="3.1"),
    RateLatencyDeficitModel(
        service_rate_rps="50.1", latency_ms="3.1", deficit_prefactor="0.3", deficit_decay_per_request="0.7"
    ),
    OnOffSlotsModel(slot_ms="1.1", requests_per_slot="1", availability="0.7"),
    SharedRateModel(service_rate_rps="1000.1", latency_ms="2.3", burst_total_max=100),
    SLOTS,
]


def document(model: Model, *, max_tokens: int = 8) -> EnvelopeDocument:
    return EnvelopeDocument(
        version=1,
        domain="edge",
        sequence=1,
        not_before="2026-11-22T00:00:00Z",
        not_after="2026-12-22T00:00:00Z",
        guardrails=Guardrails(rate_rps="20", burst=10, max_tokens=max_tokens),
        model=model,
        reservation=Reservation(tenant_capacity_rps="40"),
    )


@pytest.mark.parametrize("model", MODELS)
def test_a_document_of_every_model_is_read_back_and_promises_a_contract(model: Model) -> None:
    made = document(model)
    again = document_from(canonical_bytes(made))
    assert again == made
    read = envelope_of(again, digest_of(again))
    assert read.service is not None
    assert read.tenant_capacity_mrps == 40_000
    assert read.contract.offset_ms > 0.0


def test_numbers_are_rounded_to_the_safe_side() -> None:
    read = [envelope_of(document(model), "").service for model in MODELS]
    deficit, air, shared, slots = read[1:]
    assert isinstance(deficit, ReservedRateDeficit)
    assert isinstance(air, OnOffSlots)
    assert isinstance(shared, SharedRate)
    assert isinstance(slots, ReservedSlots)
    assert deficit.rate_per_ms <= 0.0501
    assert deficit.prefactor >= 0.3
    assert deficit.decay_per_request <= 0.7
    assert air.slot_ms >= 1.1
    assert air.availability <= 0.7
    assert shared.rate_per_ms <= 1.0001
    assert slots.tokens_max == 8
    assert slots.tenants_max == 2


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (OnOffSlotsModel(slot_ms="1", requests_per_slot="1", availability="1.1"), "model.availability"),
        (OnOffSlotsModel(slot_ms="0", requests_per_slot="1", availability="1"), "model.slotMs"),
        (OnOffSlotsModel(slot_ms="1000", requests_per_slot="1", availability="0.5"), "model"),
        (SharedRateModel(service_rate_rps="0", latency_ms="1", burst_total_max=10), "model.serviceRateRps"),
        (SharedRateModel(service_rate_rps="100", latency_ms="1", burst_total_max=9), "model"),
        (RateLatencyModel(service_rate_rps="19", latency_ms="1"), "model"),
        (
            RateLatencyDeficitModel(
                service_rate_rps="50", latency_ms="1", deficit_prefactor="1", deficit_decay_per_request="0"
            ),
            "model.deficitDecayPerRequest",
        ),
        (msgspec.structs.replace(SLOTS, slots_per_tenant=9), "model.slotsPerTenant"),
    ],
)
def test_nonsense_is_named(model: Model, field: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        require_consistent(document(model))
    assert raised.value.field == field


def test_slots_need_a_cap_on_tokens() -> None:
    with pytest.raises(InvalidInputError) as raised:
        require_consistent(document(SLOTS, max_tokens=0))
    assert raised.value.field == "guardrails.maxTokens"


def test_a_tenants_cap_is_not_rounded_to_no_cap() -> None:
    tiny = msgspec.structs.replace(document(MODELS[0]), reservation=Reservation(tenant_capacity_rps="0.0001"))
    with pytest.raises(InvalidInputError) as raised:
        require_consistent(tiny)
    assert raised.value.field == "reservation.tenantCapacityRps"


def test_a_session_at_exactly_the_service_rate_is_served() -> None:
    require_consistent(document(RateLatencyModel(service_rate_rps="20", latency_ms="1")))

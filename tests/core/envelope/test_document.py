"""The envelope as a document: what is refused, what it becomes, and that it never becomes more than it says."""

import json
import math
import re
from decimal import Decimal

import msgspec
import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.envelope.decimals import (
    DECIMAL_CHARS_MAX,
    DECIMAL_PATTERN,
    at_least,
    at_most,
    decimal_down,
    decimal_up,
)
from aipaging.core.envelope.document import (
    DOCUMENT_BYTES_MAX,
    DOCUMENT_DEPTH_MAX,
    DOCUMENT_TYPES,
    PARTS_MAX,
    canonical_bytes,
    digest_of,
    document_from,
    envelope_of,
    instant_of,
    is_canonical,
    wall_us_of,
)
from aipaging.core.envelope.envelope import Dependence
from aipaging.core.foundation.errors import InvalidInputError

DOCUMENT = {
    "version": 1,
    "domain": "transport-fr",
    "segment": "aisi://op/embed/minilm",
    "sequence": 7,
    "notBefore": "2026-11-22T00:00:00Z",
    "notAfter": "2026-12-22T00:00:00Z",
    "guardrails": {"rateRps": "20.5", "burst": 10, "maxTokens": 512, "lossMax": "0.001", "regions": ["eu-west"]},
    "model": {"kind": "delay-contract", "offsetMs": "2.1", "prefactor": "1", "decayPerMs": "0.3"},
    "impairment": {"loss": "0.0001", "error": "1e-5"},
    "dependence": {"clause": "conditional", "commonCauses": ["power-west"]},
    "calibration": {
        "windowStart": "2026-11-01T00:00:00Z",
        "windowEnd": "2026-11-20T00:00:00Z",
        "samples": 1000,
        "effectiveSamples": 900,
        "method": "measured",
        "confidence": "0.95",
        "epsilonFloor": "0.002",
    },
    "reservation": {"capacityRps": "100", "priceMicrosPerRpsHour": 5000, "currency": "EUR"},
    "parts": [],
}


def changed(path: str, value: object) -> bytes:
    document = json.loads(json.dumps(DOCUMENT))
    *parents, name = path.split(".")
    place = document
    for parent in parents:
        place = place[parent]
    place[name] = value
    return json.dumps(document).encode()


def test_it_reads_back_what_it_writes() -> None:
    document = document_from(json.dumps(DOCUMENT).encode())
    raw = canonical_bytes(document)
    assert document_from(raw) == document
    assert is_canonical(raw)
    assert raw == rfc8785.dumps(json.loads(raw))
    assert not is_canonical(json.dumps(json.loads(raw), indent=1).encode())


def test_a_name_that_stands_twice_is_not_canonical() -> None:
    raw = canonical_bytes(document_from(json.dumps(DOCUMENT).encode()))
    assert not is_canonical(raw.replace(b'"sequence":7', b'"sequence":9,"sequence":7'))


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("version", 2, "version"),
        ("surprise", 1, None),
        ("domain", "Transport", "domain"),
        ("domain", "transport\n", "domain"),
        ("sequence", 0, "sequence"),
        ("notBefore", "2026-13-22T00:00:00Z", "notBefore"),
        ("notBefore", "2026-11-22T00:00:00+01:00", "notBefore"),
        ("notAfter", "2026-11-22T00:00:00Z", "notAfter"),
        ("notAfter", "2028-11-22T00:00:00Z", "notAfter"),
        ("guardrails.rateRps", 20.5, "guardrails.rateRps"),
        ("guardrails.rateRps", "0.0001", "guardrails.rateRps"),
        ("guardrails.rateRps", "-1", "guardrails.rateRps"),
        ("guardrails.rateRps", "1e999", "guardrails.rateRps"),
        ("guardrails.rateRps", "NaN", "guardrails.rateRps"),
        ("guardrails.rateRps", "٣", "guardrails.rateRps"),
        ("guardrails.burst", 0, "guardrails.burst"),
        ("model.decayPerMs", "0", "model.decayPerMs"),
        ("model.kind", "magic", "model.kind"),
        ("impairment.loss", "1.5", "impairment.loss"),
        ("dependence.clause", "strong", "dependence.clause"),
        ("calibration.epsilonFloor", "2", "calibration.epsilonFloor"),
        ("calibration.method", "caf\xe9", "calibration.method"),
        ("reservation.capacityRps", "0.0001", "reservation.capacityRps"),
        ("reservation.currency", "euro", "reservation.currency"),
        ("parts", [{"domain": "a", "sequence": 1, "digest": "0" * 63}], "parts[0].digest"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(path: str, value: object, field: str | None) -> None:
    with pytest.raises(InvalidInputError) as caught:
        document_from(changed(path, value))
    if field is not None:
        assert caught.value.field == field


def test_a_number_is_told_to_be_a_decimal_in_quotation_marks() -> None:
    with pytest.raises(InvalidInputError, match="quotation marks"):
        document_from(changed("model.offsetMs", 2.1))


def test_size_and_depth_are_limited() -> None:
    with pytest.raises(InvalidInputError, match="bytes"):
        document_from(b" " * (DOCUMENT_BYTES_MAX + 1))
    with pytest.raises(InvalidInputError):
        document_from(b'{"parts":' + b"[" * 10_000)
    with pytest.raises(InvalidInputError):
        document_from(b"\xff\xfe")

    def depth(value: object) -> int:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return 0 if inner is None else 1 + max(map(depth, inner), default=0)

    assert depth({**DOCUMENT, "parts": [{"domain": "a"}]}) == DOCUMENT_DEPTH_MAX


def test_the_largest_composite_fits() -> None:
    part = {"domain": "d" * 64, "sequence": 2**53 - 1, "digest": "f" * 64, "reshaperDelayMs": "1.5"}
    document = document_from(changed("parts", [part] * PARTS_MAX))
    assert len(canonical_bytes(document)) < DOCUMENT_BYTES_MAX
    with pytest.raises(InvalidInputError):
        document_from(changed("parts", [part] * (PARTS_MAX + 1)))


def test_conversion_is_conservative() -> None:
    document = document_from(json.dumps(DOCUMENT).encode())
    envelope = envelope_of(document, digest_of(document))
    assert Decimal(envelope.contract.offset_ms) >= Decimal("2.1")
    assert Decimal(envelope.contract.decay_per_ms) <= Decimal("0.3")
    assert envelope.loss >= 0.001, "the guardrail is larger than the impairment"
    assert envelope.error >= 1e-5 + 0.002, "below the floor of its calibration a model says nothing"
    assert envelope.rate_mrps_max == 20_500
    assert envelope.capacity_mrps == 100_000
    assert envelope.dependence is Dependence.CONDITIONAL
    assert envelope.common_cause == "power-west"
    assert envelope.digest == digest_of(document)


def test_several_common_causes_claim_nothing() -> None:
    document = document_from(changed("dependence", {"clause": "independent", "commonCauses": ["a", "b"]}))
    assert envelope_of(document, "").dependence is Dependence.ANY


def test_a_rate_latency_curve_is_a_deterministic_contract() -> None:
    model = {"kind": "rate-latency", "serviceRateRps": "50", "latencyMs": "3"}
    contract = envelope_of(document_from(changed("model", model)), "").contract
    assert contract.prefactor == 0.0
    assert contract.offset_ms == pytest.approx(3 + 10 / 50 * 1000)
    assert contract.offset_ms >= 203
    with pytest.raises(InvalidInputError, match="without bound"):
        document_from(changed("model", {**model, "serviceRateRps": "20"}))


@given(st.from_regex(DECIMAL_PATTERN.removesuffix(r"(?!\n)"), fullmatch=True))
def test_doubles_stand_on_the_asked_side_of_decimals(decimal: str) -> None:
    assert len(decimal) <= DECIMAL_CHARS_MAX
    assert Decimal(at_most(decimal)) <= Decimal(decimal)
    if math.isfinite(at_least(decimal)):
        assert Decimal(at_least(decimal)) >= Decimal(decimal)


@given(st.floats(min_value=1e-90, max_value=1e14))
def test_written_decimals_stand_on_the_asked_side_and_are_of_the_grammar(number: float) -> None:
    up, down = decimal_up(number), decimal_down(number)
    assert Decimal(down) <= Decimal(number) <= Decimal(up)
    assert float(up) == pytest.approx(number, rel=1e-10)
    for text in (up, down):
        assert len(text) <= DECIMAL_CHARS_MAX
        assert re.fullmatch(DECIMAL_PATTERN, text)


def test_instants_are_exact() -> None:
    assert instant_of(wall_us_of("2026-11-22T01:02:03Z", field="x")) == "2026-11-22T01:02:03Z"


@pytest.mark.parametrize("kind", DOCUMENT_TYPES)
def test_every_member_is_described(kind: type) -> None:
    (schema,) = [part for name, part in msgspec.json.schema_components([kind])[1].items() if name == kind.__name__]
    undescribed = [name for name, member in schema["properties"].items() if "description" not in member]
    assert set(undescribed) <= {"kind"}

"""Tail-Risk Envelopes on the wire, as plain documents from a trusted operator.

`envelope_from_document` stands where the verification of signed envelopes will: bytes in, envelope out.
"""

from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import (
    ANSWER_ITEMS_MAX,
    DEPENDENCE_WORDS,
    END,
    RATE_RPS_MAX,
    Burst,
    Count,
    DependenceWord,
    Digest,
    Instant,
    Name,
    Probability,
    RatePerSecond,
    instant,
    rate_of,
    wall_us_of,
)
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import WallUs
from aipaging.runtime.http.documents import decoded

MRPS: Final = 0.001
"""The least rate that is told from none."""

_DEPENDENCES: Final = {word: dependence for dependence, word in DEPENDENCE_WORDS.items()}


class ContractDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A delay contract: P(delay > offsetMs + x) <= prefactor * exp(-decayPerMs * x) for every x >= 0, in ms."""

    offset_ms: Annotated[float, Meta(ge=0.0, le=1e9)]
    prefactor: Annotated[float, Meta(ge=0.0, le=1e12)]
    decay_per_ms: Annotated[float, Meta(gt=0.0, le=1e9)]


class EnvelopeDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The Tail-Risk Envelope of one domain, or of one service in it (`segment`)."""

    domain: Name
    sequence: Annotated[Count, Meta(description="Rises with every version; a lower one is refused.")]
    contract: ContractDocument
    rate_per_second_max: Annotated[
        float, Meta(ge=0.001, le=RATE_RPS_MAX, description="Guardrail: the rate of one session.")
    ]
    burst_max: Annotated[Burst, Meta(description="Guardrail: the burst of one session.")]
    valid_from: Instant
    valid_until: Instant
    segment: Annotated[
        str,
        Meta(
            max_length=256,
            pattern="^(aisi://[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64})?" + END,
            description="The AISI that it is about; empty for all traffic of the domain.",
        ),
    ] = ""
    loss: Annotated[Probability, Meta(description="That a request is lost.")] = 0.0
    error: Annotated[Probability, Meta(description="That a request fails.")] = 0.0
    capacity_per_second: Annotated[
        RatePerSecond, Meta(description="What may be reserved in total under it; 0 is unlimited.")
    ] = 0.0
    dependence: DependenceWord = "ANY"
    common_cause: Annotated[str, Meta(max_length=64, pattern="^[a-z0-9.-]*" + END)] = ""


class AcceptedEnvelope(EnvelopeDocument, frozen=True, kw_only=True, rename="camel"):
    """An envelope in force."""

    digest: Digest


class EnvelopeList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The envelopes in force."""

    envelopes: Annotated[list[AcceptedEnvelope], Meta(max_length=ANSWER_ITEMS_MAX)]


_DECODER: Final = msgspec.json.Decoder(EnvelopeDocument)


def envelope_from_document(raw: bytes) -> Envelope:
    """Return the envelope in a plain document.

    Raises:
        InvalidInputError: It does not fit, or its validity ends before it begins.
    """
    document = decoded(_DECODER, raw)
    if document.valid_until <= document.valid_from:
        raise InvalidInputError("validUntil is not after validFrom", field="validUntil")
    if 0.0 < document.capacity_per_second < MRPS:
        raise InvalidInputError(
            "capacityPerSecond is below 0.001: 0 (unlimited) or at least 0.001 is allowed",
            code="OUT_OF_RANGE",
            field="capacityPerSecond",
        )
    contract = document.contract
    return Envelope(
        domain=DomainName(document.domain),
        segment=document.segment,
        sequence=document.sequence,
        contract=DelayContract(
            offset_ms=contract.offset_ms, prefactor=contract.prefactor, decay_per_ms=contract.decay_per_ms
        ),
        loss=document.loss,
        error=document.error,
        rate_mrps_max=_mrps(document.rate_per_second_max),
        burst_max=document.burst_max,
        capacity_mrps=_mrps(document.capacity_per_second),
        valid_from_us=WallUs(wall_us_of(document.valid_from)),
        valid_until_us=WallUs(wall_us_of(document.valid_until)),
        dependence=_DEPENDENCES.get(document.dependence, Dependence.ANY),
        common_cause=document.common_cause,
        digest=sha256(raw).hexdigest(),
    )


def _mrps(rate_per_second: float) -> int:
    """Return thousandths of a request per second, rounded down: never more is promised than was said."""
    return int(rate_per_second * 1000 + 1e-6)


def envelope_document(envelope: Envelope) -> AcceptedEnvelope:
    """Return the document of an envelope in force."""
    contract = envelope.contract
    return AcceptedEnvelope(
        domain=envelope.domain,
        segment=envelope.segment,
        sequence=envelope.sequence,
        contract=ContractDocument(
            offset_ms=contract.offset_ms, prefactor=contract.prefactor, decay_per_ms=contract.decay_per_ms
        ),
        loss=envelope.loss,
        error=envelope.error,
        rate_per_second_max=rate_of(envelope.rate_mrps_max),
        burst_max=envelope.burst_max,
        capacity_per_second=rate_of(envelope.capacity_mrps),
        valid_from=instant(envelope.valid_from_us),
        valid_until=instant(envelope.valid_until_us),
        dependence=DEPENDENCE_WORDS[envelope.dependence],
        common_cause=envelope.common_cause,
        digest=envelope.digest,
    )

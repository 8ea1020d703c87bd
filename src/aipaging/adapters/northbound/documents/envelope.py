"""Tail-Risk Envelopes on the wire: signed ones, plain statements of the operator, and what is in force.

`envelope_from_document` reads a plain statement; it becomes an envelope only by being signed and verified.
"""

from base64 import urlsafe_b64decode
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import (
    ANSWER_ITEMS_MAX,
    DEPENDENCE_WORDS,
    END,
    PRINTABLE_PATTERN,
    RATE_RPS_MAX,
    Burst,
    Count,
    DependenceWord,
    Digest,
    Instant,
    Name,
    Probability,
    RatePerSecond,
    Sentence,
    instant,
    rate_of,
    wall_us_of,
)
from aipaging.core.calculus.risk_budget import DelayContract
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import Now, WallUs
from aipaging.core.paging.promises import KeySet
from aipaging.core.paging.state import State
from aipaging.runtime.http.documents import decoded

MRPS: Final = 0.001
"""The least rate that is told from none."""

_DEPENDENCES: Final = {word: dependence for dependence, word in DEPENDENCE_WORDS.items()}


class DelayContractDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A delay contract: P(delay > offsetMs + x) <= prefactor * exp(-decayPerMs * x) for every x >= 0, in ms."""

    offset_ms: Annotated[float, Meta(ge=0.0, le=1e9, description="Before it nothing is promised, milliseconds.")]
    prefactor: Annotated[
        float, Meta(ge=0.0, le=1e12, description="The bound at the offset; above 1 it says nothing there.")
    ]
    decay_per_ms: Annotated[float, Meta(gt=0.0, le=1e9, description="How fast the tail falls.")]


class EnvelopeDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The Tail-Risk Envelope of one domain, or of one service in it (`segment`)."""

    domain: Name
    sequence: Annotated[int, Meta(ge=1, le=2**53 - 1, description="Rises with every version; a lower one is refused.")]
    contract: DelayContractDocument
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
    dependence: Annotated[DependenceWord, Meta(description="How its delay depends on that of other domains.")] = "ANY"
    common_cause: Annotated[
        str,
        Meta(max_length=64, pattern="^[a-z0-9.-]*" + END, description="Domains with the same word are late together."),
    ] = ""


KeyIdText: TypeAlias = Annotated[str, Meta(max_length=64)]
Member: TypeAlias = Annotated[str, Meta(max_length=1_024)]


class SignedEnvelopeRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A signed envelope in JSON; the bare JWS as `application/jose` is the same."""

    envelope: Annotated[
        str, Meta(max_length=32_768, pattern=r"^[A-Za-z0-9_.-]+" + END, description="Compact JWS, `ai-envelope+jwt`.")
    ]


EnvelopeStateWord: TypeAlias = Literal["IN_FORCE", "EXPIRED", "SUSPECT"]


class AcceptedEnvelope(EnvelopeDocument, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The newest envelope of a domain and segment; nothing is admitted under one that is EXPIRED or SUSPECT."""

    digest: Annotated[Digest, Meta(description="SHA-256 of the signed document; the evidence names it by that.")]
    state: Annotated[EnvelopeStateWord, Meta(description="Whether anything is admitted under it.")]
    key_id: Annotated[str, Meta(max_length=64, description="The key that signed it.")]
    reason: Annotated[Sentence, Meta(description="Of a SUSPECT one: why.")] = ""


class EnvelopeList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The newest envelopes of all domains and segments."""

    envelopes: Annotated[
        list[AcceptedEnvelope], Meta(max_length=ANSWER_ITEMS_MAX, description="The newest of each domain and segment.")
    ]


class OriginalEnvelope(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A signed original, by the digest that the evidence names it by; `document` is what was signed."""

    domain: Name
    segment: Annotated[str, Meta(max_length=256, description="The AISI that it is about; empty for all traffic.")]
    sequence: Annotated[Count, Meta(description="Of this version.")]
    digest: Digest
    key_id: Annotated[str, Meta(max_length=64, description="The key that signed it.")]
    accepted_at: Instant
    newest: Annotated[bool, Meta(description="Whether no newer one was accepted.")]
    signed: Annotated[str, Meta(max_length=32_768, description="The compact JWS, as it came.")]
    document: Annotated[dict[str, Any], Meta(description="What was signed.")]
    state: Annotated[EnvelopeStateWord, Meta(description="How the newest one stands.")] | None = None
    reason: Annotated[Sentence, Meta(description="Of a SUSPECT one: why.")] = ""


class SuspicionRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Why an envelope is not believed any more."""

    reason: Annotated[
        str, Meta(min_length=1, max_length=256, pattern=PRINTABLE_PATTERN, description="It stands in the evidence.")
    ]


class DomainKeysDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The keys that a domain's envelopes are held against."""

    domain: Name
    key_ids: Annotated[
        list[KeyIdText], Meta(max_length=16, description="RFC 7638 thumbprints, or the names that the domain gave.")
    ]
    digest: Digest
    source: Annotated[Literal["FILE", "URL", "API"], Meta(description="Where the set comes from.")]
    keys: Annotated[list[dict[str, Member]], Meta(max_length=16, description="The JWK Set's keys (RFC 7517).")]


class JwksRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A JWK Set (RFC 7517): all keys that a domain signs envelopes with from now on, and no others."""

    keys: Annotated[list[dict[str, Any]], Meta(max_length=16, description="Public keys, each with a `kid`.")]


_SOURCES: Final[dict[str, Literal["FILE", "URL", "API"]]] = {"FILE": "FILE", "URL": "URL", "API": "API"}
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


def state_of(state: State, envelope: Envelope, now: Now) -> EnvelopeStateWord:
    """Return how an envelope stands."""
    if envelope.digest in state.catalogue.suspect:
        return "SUSPECT"
    return "EXPIRED" if now.wall_us >= envelope.valid_until_us else "IN_FORCE"


def original_document(state: State, digest: str, now: Now) -> OriginalEnvelope:
    """Return the signed original with a digest.

    Raises:
        InvalidInputError: It is not kept here (`NOT_FOUND`).
    """
    original = state.promises.originals.get(digest)
    if original is None:
        raise InvalidInputError(f"no envelope with the digest {digest} is kept", code="NOT_FOUND", field="digest")
    newest = state.catalogue.envelopes.get((original.domain, original.segment))
    is_newest = newest is not None and newest.digest == digest
    return OriginalEnvelope(
        domain=original.domain,
        segment=original.segment,
        sequence=original.sequence,
        digest=digest,
        key_id=original.key_id,
        accepted_at=instant(original.accepted_us),
        newest=is_newest,
        signed=original.signed,
        document=_payload_of(original.signed),
        state=state_of(state, newest, now) if newest is not None and is_newest else None,
        reason=state.catalogue.suspect.get(digest, ""),
    )


def _payload_of(signed: str) -> dict[str, Any]:
    """Return the payload of a JWS that was verified when it was accepted."""
    payload = signed.split(".")[1] if signed.count(".") == 2 else ""
    return msgspec.json.decode(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)) or b"{}", type=dict[str, Any])


def keys_document(domain: DomainName, key_set: KeySet) -> DomainKeysDocument:
    """Return the document of a domain's key set."""
    return DomainKeysDocument(
        domain=domain,
        key_ids=list(key_set.key_ids),
        digest=key_set.digest,
        source=_SOURCES.get(key_set.source, "API"),
        keys=msgspec.json.decode(key_set.jwks, type=dict[str, list[dict[str, str]]])["keys"],
    )


def _shown(number: float) -> float:
    """Return a number without the last digits, in which rounding towards less promise shows."""
    return float(f"{number:.9g}")


def envelope_document(state: State, envelope: Envelope, now: Now) -> AcceptedEnvelope:
    """Return the document of the newest envelope of a domain and segment."""
    original = state.promises.originals.get(envelope.digest)
    contract = envelope.contract
    return AcceptedEnvelope(
        domain=envelope.domain,
        segment=envelope.segment,
        sequence=envelope.sequence,
        contract=DelayContractDocument(
            offset_ms=_shown(contract.offset_ms),
            prefactor=_shown(contract.prefactor),
            decay_per_ms=_shown(contract.decay_per_ms),
        ),
        loss=_shown(envelope.loss),
        error=_shown(envelope.error),
        rate_per_second_max=rate_of(envelope.rate_mrps_max),
        burst_max=envelope.burst_max,
        capacity_per_second=rate_of(envelope.capacity_mrps),
        valid_from=instant(envelope.valid_from_us),
        valid_until=instant(envelope.valid_until_us),
        dependence=DEPENDENCE_WORDS[envelope.dependence],
        common_cause=envelope.common_cause,
        digest=envelope.digest,
        state=state_of(state, envelope, now),
        key_id=original.key_id if original is not None else "",
        reason=state.catalogue.suspect.get(envelope.digest, ""),
    )

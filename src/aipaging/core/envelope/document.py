"""The Tail-Risk Envelope as a document: what a domain signs.

Bytes in, a checked document out; `envelope_of` turns it into the value that admission reads. Numbers that are not
counts are decimal strings (see the decision record on canonical bytes): with ASCII strings and integers alone, compact
JSON with sorted keys *is* RFC 8785, and whoever computes with a decimal rounds it towards less promise.

What a document says is not believed here: that is `trust`.
"""

import datetime as dt
import re
from hashlib import sha256
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.core.calculus.risk_budget import DelayContract, combined_failure
from aipaging.core.envelope.decimals import at_least, at_most, thousandths_down
from aipaging.core.envelope.envelope import Dependence, Envelope
from aipaging.core.envelope.fields import END, Amount, Closed, Count, Digest, Instant, Name, Sentence, about
from aipaging.core.envelope.models import (
    SERVED_TYPES,
    OnOffSlotsModel,
    RateLatencyDeficitModel,
    RateLatencyModel,
    ReservedSlotsModel,
    SharedRateModel,
    service_of,
)
from aipaging.core.envelope.service import ServiceModel, Traffic, worst_contract
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.foundation.time import SECOND, WallUs

SCHEMA_VERSION: Final = 1
"""The version of this schema; a reader refuses every other one."""

DOCUMENT_BYTES_MAX: Final = 16 * 1024
"""A composite of 64 parts has below 12 KiB; nobody makes us parse more."""

DOCUMENT_DEPTH_MAX: Final = 3
"""Objects and arrays inside one another. The types are closed and not recursive: deeper is refused where it stands."""

PARTS_MAX: Final = 64
"""Parts of a composite: a path crosses a handful of domains, a composite of composites a few more."""

REGIONS_MAX: Final = 32
COMMON_CAUSES_MAX: Final = 16
"""Beyond that, a domain does not know what it depends on: clause `none` says so."""

VALIDITY_S_MAX: Final = 400 * 86_400
"""A promise for longer than a year and a bit is not measured any more, and a stolen key would sign for ever."""

EPSILON_TIGHT: Final = 1e-6
"""Where the tail of a service model is tight when it is shown or published; admission asks with its own epsilon."""

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


Clause: TypeAlias = Literal["none", "conditional", "independent"]


class Guardrails(Closed, frozen=True, kw_only=True):
    """The traffic for which the promise is made, and the limits that the domain keeps."""

    rate_rps: Annotated[Amount, about("Sustained rate of one session, requests per second; at least 0.001.")]
    burst: Annotated[Annotated[int, Meta(ge=1, le=1_000_000)], about("Burst of one session, requests.")]
    max_tokens: Annotated[Count, about("Most tokens that a request may generate; 0: not limited.")] = 0
    concurrency: Annotated[Count, about("Most requests of one session at a time; 0: not limited.")] = 0
    loss_max: Annotated[Amount, about("Probability of loss that the domain keeps within; the larger counts.")] = "0"
    error_max: Annotated[Amount, about("Probability of failure that it keeps within; the larger counts.")] = "0"
    regions: Annotated[
        tuple[Name, ...],
        Meta(max_length=REGIONS_MAX, description="Where traffic may be processed; empty: nothing is said."),
    ] = ()


class DelayContractModel(Closed, frozen=True, kw_only=True, tag="delay-contract", tag_field="kind"):
    """P(delay > offsetMs + x) <= prefactor * exp(-decayPerMs * x) for every x >= 0, in ms."""

    offset_ms: Annotated[Amount, about("T: the delay below which nothing is promised, ms.")]
    prefactor: Annotated[Amount, about("M: the probability at the offset; may exceed 1; 0 is a deterministic promise.")]
    decay_per_ms: Annotated[Amount, about("eta: how fast the tail falls, per ms.")]


Model: TypeAlias = (
    DelayContractModel
    | RateLatencyModel
    | RateLatencyDeficitModel
    | OnOffSlotsModel
    | SharedRateModel
    | ReservedSlotsModel
)


class Impairment(Closed, frozen=True, kw_only=True):
    """Requests that never come back as answers; they count as exceedances at every delay."""

    loss: Annotated[Amount, about("Probability that a request is lost.")] = "0"
    error: Annotated[Amount, about("Probability that a request fails or times out.")] = "0"


class DependenceClause(Closed, frozen=True, kw_only=True):
    """What is claimed about the dependence on the other domains of a path."""

    clause: Annotated[
        Clause,
        about(
            "`none`: nothing is claimed. `conditional`: the model holds whatever happened in the domains before. "
            "`independent`: the delay is independent of the other domains'."
        ),
    ] = "none"
    common_causes: Annotated[
        tuple[Name, ...],
        Meta(
            max_length=COMMON_CAUSES_MAX,
            description="Shared causes of delay; domains that name the same one are never independent.",
        ),
    ] = ()


class Calibration(Closed, frozen=True, kw_only=True):
    """The evidence behind the model."""

    window_start: Annotated[Instant, about("First measurement, UTC.")]
    window_end: Annotated[Instant, about("Last measurement, UTC.")]
    samples: Annotated[Count, about("Measured requests.")]
    effective_samples: Annotated[Count, about("What they are worth as independent ones.")]
    method: Annotated[Sentence, about("How the model was derived, and what that assumes.")]
    confidence: Annotated[Amount, about("Probability, before measuring, that the model would hold.")]
    epsilon_floor: Annotated[Amount, about("The probability below which the measurements say nothing.")]


class Reservation(Closed, frozen=True, kw_only=True):
    """What may be reserved under the envelope, and at which price."""

    capacity_rps: Annotated[Amount, about("Rate to be reserved in total, requests per second; 0: unlimited.")] = "0"
    tenant_capacity_rps: Annotated[
        Amount, about("Of it, the most that one tenant may reserve, requests per second; 0: no limit of its own.")
    ] = "0"
    price_micros_per_rps_hour: Annotated[
        Count, about("Price of one reserved request per second for an hour, in millionths of the currency.")
    ] = 0
    currency: Annotated[
        str, Meta(pattern=f"^([A-Z]{{3}})?{END}", max_length=3, description="ISO 4217; empty: no price is given.")
    ] = ""


class Part(Closed, frozen=True, kw_only=True):
    """One envelope of a composite, in the order of the path."""

    domain: Annotated[Name, about("Who signed it.")]
    sequence: Annotated[Count, about("Its sequence number.")]
    digest: Annotated[Digest, about("Hex SHA-256 of its canonical bytes.")]
    reshaper_delay_ms: Annotated[Amount, about("Delay charged for the re-shaper before it, ms.")] = "0"


class EnvelopeDocument(Closed, frozen=True, kw_only=True):
    """The Tail-Risk Envelope of a domain, of one service in it, or of a composite of several."""

    version: Annotated[Literal[1], about("Version of this schema.")]
    domain: Annotated[Name, about("Who promises, and with whose key it is signed.")]
    segment: Annotated[
        str,
        Meta(
            max_length=256,
            pattern="^(aisi://[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64}/[a-z0-9.-]{1,64})?" + END,
            description="The AISI that it is about; empty: all traffic of the domain.",
        ),
    ] = ""
    sequence: Annotated[
        Annotated[int, Meta(ge=1, le=2**53 - 1)],
        about("Rises with every envelope of the same domain and segment; a lower one is refused."),
    ]
    not_before: Annotated[Instant, about("Begin of validity, UTC.")]
    not_after: Annotated[Instant, about("End of validity, UTC; exclusive.")]
    guardrails: Annotated[Guardrails, about("For which traffic it holds.")]
    model: Annotated[Model, about("The stochastic model of the delay: one of the kinds below.")]
    impairment: Annotated[Impairment, about("Loss and error.")] = Impairment()
    dependence: Annotated[DependenceClause, about("What is claimed about other domains.")] = DependenceClause()
    calibration: Annotated[Calibration | None, about("Where the model comes from; null: it is an assertion.")] = None
    reservation: Annotated[Reservation, about("Capacity and price.")] = Reservation()
    parts: Annotated[
        tuple[Part, ...], Meta(max_length=PARTS_MAX, description="Of a composite: its parts; otherwise empty.")
    ] = ()


DOCUMENT_TYPES: Final = (
    EnvelopeDocument,
    Guardrails,
    DelayContractModel,
    *SERVED_TYPES,
    Impairment,
    DependenceClause,
    Calibration,
    Reservation,
    Part,
)
"""Every object of the document, in the order of its reference."""

CLAUSES: Final = {
    "none": Dependence.ANY,
    "conditional": Dependence.CONDITIONAL,
    "independent": Dependence.INDEPENDENT,
}

_DECODER: Final = msgspec.json.Decoder(EnvelopeDocument)
_ENCODER: Final = msgspec.json.Encoder(order="sorted")
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `\$?\.?(?P<path>[^`]*)`)?$", re.DOTALL)


def document_from(raw: bytes) -> EnvelopeDocument:
    """Return the document in `raw`, checked; it may be laid out in any way.

    Raises:
        InvalidInputError: It is too long, not JSON, does not fit, or contradicts itself.
    """
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise InvalidInputError(f"the envelope has {len(raw)} bytes: at most {DOCUMENT_BYTES_MAX} are allowed")
    try:
        document = _DECODER.decode(raw)
    except msgspec.ValidationError as error:
        raise _misfit(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInputError("the envelope is not JSON") from None
    require_consistent(document)
    return document


def canonical_bytes(document: EnvelopeDocument) -> bytes:
    """Return the RFC 8785 bytes of a document: what is signed and digested. Members at their default are left out."""
    members: dict[str, object] = msgspec.to_builtins(document)
    return _ENCODER.encode({name: value for name, value in members.items() if value != {}})


def is_canonical(raw: bytes) -> bool:
    """Return whether bytes that hold a document are the RFC 8785 form of what they say (so no name stands twice)."""
    return _ENCODER.encode(msgspec.json.decode(raw)) == raw


def digest_of(document: EnvelopeDocument) -> str:
    """Return the hex SHA-256 of the canonical bytes."""
    return sha256(canonical_bytes(document)).hexdigest()


def wall_us_of(instant: str, *, field: str) -> WallUs:
    """Return an instant of a document on the wall clock.

    Raises:
        InvalidInputError: There is no such day or time of day.
    """
    try:
        moment = dt.datetime.fromisoformat(instant)
    except ValueError:
        raise InvalidInputError(f"{field} is {instant}: there is no such instant", field=field) from None
    return WallUs(int((moment - _EPOCH).total_seconds()) * SECOND)


def instant_of(wall_us: WallUs) -> str:
    """Return an instant of the wall clock for a document, rounded down to the second."""
    return (_EPOCH + dt.timedelta(seconds=wall_us // SECOND)).strftime("%Y-%m-%dT%H:%M:%SZ")


def require_consistent(document: EnvelopeDocument) -> None:
    """Raise unless the members of a document agree with each other.

    Raises:
        InvalidInputError: They do not; the error names the member.
    """
    start = wall_us_of(document.not_before, field="notBefore")
    end = wall_us_of(document.not_after, field="notAfter")
    if not start < end <= start + VALIDITY_S_MAX * SECOND:
        raise InvalidInputError(
            f"notAfter must be after notBefore, by at most {VALIDITY_S_MAX // 86_400} days", field="notAfter"
        )
    if thousandths_down(document.guardrails.rate_rps) < 1:
        raise InvalidInputError("guardrails.rateRps must be at least 0.001", field="guardrails.rateRps")
    reservation = document.reservation
    for member, limit in (
        ("capacityRps", reservation.capacity_rps),
        ("tenantCapacityRps", reservation.tenant_capacity_rps),
    ):
        if float(limit) > 0.0 and thousandths_down(limit) < 1:
            # Rounded down it would be 0, which is unlimited.
            raise InvalidInputError(f"reservation.{member} must be 0 or at least 0.001", field=f"reservation.{member}")
    _require_probabilities(document)
    if document.calibration is not None:
        wall_us_of(document.calibration.window_start, field="calibration.windowStart")
        wall_us_of(document.calibration.window_end, field="calibration.windowEnd")
    contract_of(document)


def model_service(document: EnvelopeDocument) -> ServiceModel | None:
    """Return how the domain serves, or None if it promises a delay contract and nothing else.

    Raises:
        InvalidInputError: The model's numbers are not those of a service.
    """
    if isinstance(document.model, DelayContractModel):
        return None
    return service_of(document.model, tokens_max=document.guardrails.max_tokens)


def contract_of(document: EnvelopeDocument) -> DelayContract:
    """Return the delay contract that the model amounts to for every session within the guardrails, rounded up.

    Raises:
        InvalidInputError: The model's numbers are not those of a contract.
    """
    model = document.model
    if isinstance(model, DelayContractModel):
        decay_per_ms = at_most(model.decay_per_ms)
        if decay_per_ms <= 0.0:
            raise InvalidInputError("model.decayPerMs must be above 0", field="model.decayPerMs")
        return DelayContract(
            offset_ms=at_least(model.offset_ms), prefactor=at_least(model.prefactor), decay_per_ms=decay_per_ms
        )
    guardrails = document.guardrails
    largest = Traffic(rate_per_ms=at_least(guardrails.rate_rps) / 1000.0, burst=guardrails.burst)
    service = service_of(model, tokens_max=guardrails.max_tokens)
    contract = worst_contract(service, largest, EPSILON_TIGHT)
    if contract is None:
        raise InvalidInputError(
            "the model must serve more than guardrails.rateRps, and its queue hold guardrails.burst: otherwise the "
            "delay grows without bound",
            field="model",
        )
    return contract


def envelope_of(document: EnvelopeDocument, digest: str) -> Envelope:
    """Return the value that admission reads; it never promises more than the document.

    * Probabilities and offsets round up, decay rates, rates and capacity down.
    * Of impairment and guardrail the larger counts, for loss and for error.
    * Below the floor of its calibration a model says nothing: the floor is added to the error, so that the promise is
      P(delay > d) <= model(d) + floor, which is true on both sides of the floor.
    * Several common causes do not fit into the one of the value: then no independence is claimed.
    """
    floor = at_least(document.calibration.epsilon_floor) if document.calibration is not None else 0.0
    error = max(at_least(document.impairment.error), at_least(document.guardrails.error_max))
    causes = document.dependence.common_causes
    return Envelope(
        domain=DomainName(document.domain),
        segment=document.segment,
        sequence=document.sequence,
        contract=contract_of(document),
        loss=max(at_least(document.impairment.loss), at_least(document.guardrails.loss_max)),
        error=combined_failure([error, floor], independent=False),
        rate_mrps_max=thousandths_down(document.guardrails.rate_rps),
        burst_max=document.guardrails.burst,
        capacity_mrps=thousandths_down(document.reservation.capacity_rps),
        valid_from_us=wall_us_of(document.not_before, field="notBefore"),
        valid_until_us=wall_us_of(document.not_after, field="notAfter"),
        service=model_service(document),
        tenant_capacity_mrps=thousandths_down(document.reservation.tenant_capacity_rps),
        dependence=CLAUSES[document.dependence.clause] if len(causes) <= 1 else Dependence.ANY,
        common_cause=causes[0] if causes else "",
        digest=digest,
    )


def _require_probabilities(document: EnvelopeDocument) -> None:
    calibration = document.calibration
    probabilities = {
        "impairment.loss": document.impairment.loss,
        "impairment.error": document.impairment.error,
        "guardrails.lossMax": document.guardrails.loss_max,
        "guardrails.errorMax": document.guardrails.error_max,
        "calibration.confidence": calibration.confidence if calibration is not None else "0",
        "calibration.epsilonFloor": calibration.epsilon_floor if calibration is not None else "0",
    }
    for field, decimal in probabilities.items():
        if at_least(decimal) > 1.0:
            raise InvalidInputError(f"{field} is {decimal}: a probability is at most 1", field=field)


def _misfit(text: str) -> InvalidInputError:
    match = _AT.match(text)
    what, path = (match["what"], match["path"]) if match else (text, None)
    if "Expected `str`, got `float`" in what or "Expected `str`, got `int`" in what:
        what += ': amounts are decimals in quotation marks, such as "2.5"'
    return InvalidInputError(f"{path or 'the envelope'}: {what[:1].lower()}{what[1:]}", field=path or None)

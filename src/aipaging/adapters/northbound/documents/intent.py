"""The structured intent on the wire."""

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.words import (
    DATA_CLASS_WORDS,
    Aisi,
    Burst,
    DataClassWord,
    Language,
    Name,
    Price,
    Probability,
    Sentence,
    Text,
    Trust,
    Word,
    Words,
)
from aipaging.core.anchor.eligibility import Candidate, Nearest, Rejection
from aipaging.core.anchor.intent import DataClass, DelayScope, Intent, Preference, Quality
from aipaging.core.envelope.admission import TailBound
from aipaging.core.foundation.names import DomainName


class QualityDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A least score on one named benchmark."""

    benchmark: Annotated[Text, Meta(min_length=1, description="Whose scores are compared, such as `MTEB`.")]
    score_min: Annotated[float, Meta(ge=-1e9, le=1e9, description="The least score that will do.")]


class IntentDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What a client wants: never which model, never where.

    `task`, `place` and `delayMs` are required. Every property but `prefer` is a hard constraint: an anchor that
    fails one is not eligible. `delayMs` may be exceeded with probability `epsilon` at most.
    """

    task: Annotated[Word, Meta(description="What is to be done, such as `embeddings` or `chat`.")]
    place: Annotated[Name, Meta(description="The client's access domain.")]
    delay_ms: Annotated[float, Meta(ge=0.001, le=3_600_000.0, description="The delay target, milliseconds.")]
    rate_per_second: Annotated[
        float, Meta(ge=0.001, le=1_000_000.0, description="Sustained requests per second: what is reserved.")
    ] = 1.0
    modality: Annotated[Word, Meta(description="What goes in, such as `text`.")] = "text"
    epsilon: Annotated[float, Meta(ge=1e-12, le=0.5, description="How often the target may be missed.")] = 0.001
    delay_scope: DelayScope = DelayScope.RESPONSE
    burst: Annotated[Burst, Meta(description="Requests that may come at once.")] = 1
    duration_s: Annotated[int, Meta(ge=1, le=86_400, description="How long the session is wanted, seconds.")] = 600
    quality: QualityDocument | None = None
    language: Language | None = None
    regions: Annotated[Words, Meta(description="Where it may be computed, in either case; empty: anywhere.")] = (
        msgspec.field(default_factory=list[str])
    )
    jurisdictions: Annotated[Words, Meta(description="Whose law may apply, in either case; empty: any.")] = (
        msgspec.field(default_factory=list[str])
    )
    trust_min: Trust = 0
    data_class: Annotated[DataClassWord, Meta(description="How sensitive the requests are.")] = "PUBLIC"
    licences: Annotated[Words, Meta(description="Licences that the model may have; empty: any.")] = msgspec.field(
        default_factory=list[str]
    )
    cost_max: Price | None = None
    prefer: Preference = Preference.COST


def intent_of(document: IntentDocument) -> Intent:
    """Return the intent that a document says.

    Raises:
        InvalidInputError: A number is out of its range.
    """
    quality = document.quality
    return Intent(
        task=document.task,
        modality=document.modality,
        place=DomainName(document.place),
        delay_ms=document.delay_ms,
        epsilon=document.epsilon,
        delay_scope=document.delay_scope,
        rate_rps=document.rate_per_second,
        burst=document.burst,
        duration_s=document.duration_s,
        quality=Quality(benchmark=quality.benchmark, score_min=quality.score_min) if quality else None,
        language=document.language or "",
        regions=_names(document.regions),
        jurisdictions=_names(document.jurisdictions),
        trust_min=document.trust_min,
        data_class=DataClass[document.data_class],
        licences=tuple(document.licences),
        cost_max=document.cost_max,
        prefer=document.prefer,
    ).checked()


def _names(words: Iterable[str]) -> tuple[str, ...]:
    """Return names as the catalogue has them, each once: people write "EU", as ISO 3166 does."""
    return tuple(dict.fromkeys(word.lower() for word in words))


def intent_document(intent: Intent) -> IntentDocument:
    """Return the document of an intent, every default filled in."""
    quality = intent.quality
    return IntentDocument(
        task=intent.task,
        place=intent.place,
        delay_ms=intent.delay_ms,
        rate_per_second=intent.rate_rps,
        modality=intent.modality,
        epsilon=intent.epsilon,
        delay_scope=intent.delay_scope,
        burst=intent.burst,
        duration_s=intent.duration_s,
        quality=QualityDocument(benchmark=quality.benchmark, score_min=quality.score_min) if quality else None,
        language=intent.language or None,
        regions=list(intent.regions),
        jurisdictions=list(intent.jurisdictions),
        trust_min=intent.trust_min,
        data_class=DATA_CLASS_WORDS[intent.data_class],
        licences=list(intent.licences),
        cost_max=intent.cost_max,
        prefer=intent.prefer,
    )


class DomainBudgetDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What one domain may use of the session's delay and risk."""

    domain: Name
    delay_ms: Annotated[float, Meta(ge=0.0, le=1e9, description="Its share of the delay, milliseconds.")]
    epsilon: Annotated[Probability, Meta(description="Its share of the risk.")]
    failure: Annotated[Probability, Meta(description="Of a request being lost or failing in this domain.")]


class BoundDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The theorem behind a promise: P(delay > `delayMs`, or lost, or failed) <= `epsilonBound`."""

    delay_ms: Annotated[float, Meta(ge=0.0, le=1e9, description="Of the promise, milliseconds.")]
    epsilon: Annotated[Probability, Meta(description="What was asked for.")]
    epsilon_bound: Annotated[Probability, Meta(description="What is proven; at most `epsilon` where admitted.")]
    rung: Annotated[Sentence, Meta(description="Which bound it is.")]
    assumptions: Annotated[list[Sentence], Meta(max_length=32, description="What the theorem rests on.")]
    budget: Annotated[list[DomainBudgetDocument], Meta(max_length=32, description="One per domain, client first.")]


class NearestDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What would pass the constraint that failed, everything else in the intent as it is; each alone.

    `POST /intents/resolve` tries what it proposes: each would be admitted, if one change alone is enough.
    """

    delay_ms: Annotated[float, Meta(ge=0, description="The least delay that can be promised.")] | None = None
    epsilon: Annotated[float, Meta(ge=0, le=1, description="The least epsilon that can be promised.")] | None = None
    rate_per_second: Annotated[float, Meta(ge=0, description="The highest rate.")] | None = None
    burst: Annotated[int, Meta(ge=0, le=2**31 - 1, description="The largest burst.")] | None = None


class RejectionDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The first constraint that a candidate failed."""

    constraint: Annotated[Word, Meta(description="Which one, such as PLACE, TRUST or BOUND.")]
    message: Annotated[Sentence, Meta(description="What was found, and what was wanted.")]
    nearest: NearestDocument | None = None


class CandidateDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One anchor, looked at for one intent."""

    anchor_id: Name
    aisi: Aisi
    eligible: Annotated[bool, Meta(description="Whether it passed every constraint.")]
    path: Annotated[list[Name], Meta(max_length=32, description="The domains from the client to the anchor.")]
    bound: BoundDocument | None = None
    rejection: RejectionDocument | None = None


def bound_document(bound: TailBound, epsilon: float) -> BoundDocument:
    """Return the document of a bound on which a session with this epsilon rests."""
    return BoundDocument(
        delay_ms=bound.delay_ms,
        epsilon=epsilon,
        epsilon_bound=bound.epsilon_bound,
        rung=bound.rung,
        assumptions=list(bound.assumptions),
        budget=[
            DomainBudgetDocument(domain=part.domain, delay_ms=part.delay_ms, epsilon=part.epsilon, failure=part.failure)
            for part in bound.budget
        ],
    )


def nearest_document(near: Nearest | None) -> NearestDocument | None:
    """Return the document of what would pass a constraint that failed."""
    if near is None:
        return None
    return NearestDocument(
        delay_ms=near.delay_ms, epsilon=near.epsilon, rate_per_second=near.rate_rps, burst=near.burst
    )


def _rejection_document(rejection: Rejection) -> RejectionDocument:
    return RejectionDocument(
        constraint=rejection.constraint, message=rejection.message, nearest=nearest_document(rejection.nearest)
    )


def candidate_document(candidate: Candidate, epsilon: float) -> CandidateDocument:
    """Return the document of a candidate."""
    rejection = candidate.rejection
    return CandidateDocument(
        anchor_id=candidate.anchor,
        aisi=candidate.aisi,
        eligible=rejection is None,
        path=list(candidate.path),
        bound=bound_document(candidate.bound, epsilon) if candidate.bound else None,
        rejection=_rejection_document(rejection) if rejection else None,
    )

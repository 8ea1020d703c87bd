"""Sentences and what was read in them, on the wire."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from aipaging.adapters.northbound.documents.intent import IntentDocument, QualityDocument, intent_document
from aipaging.adapters.northbound.documents.words import (
    Burst,
    Count,
    DataClassWord,
    Language,
    Name,
    Price,
    Probability,
    Sentence,
    Trust,
    Word,
    Words,
)
from aipaging.core.anchor.intent import DelayScope, Preference
from aipaging.core.wording.lexical import TEXT_CHARS_MAX
from aipaging.core.wording.reading import Provenance, Question, Reading, Value

WIRE_NAMES: Final[Mapping[str, str]] = {
    "rate_rps": "ratePerSecond",
    "delay_ms": "delayMs",
    "delay_scope": "delayScope",
    "duration_s": "durationS",
    "trust_min": "trustMin",
    "data_class": "dataClass",
    "cost_max": "costMax",
}
"""Fields of an intent whose name on the wire is another."""

FIELDS_MAX: Final = 32
QUESTIONS_MAX: Final = 32

StatusWord: TypeAlias = Literal["resolved", "needs_clarification", "no_match"]
SourceWord: TypeAlias = Literal["TEXT", "REQUEST", "POLICY", "DEFAULT"]


class KnownFields(
    msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """Fields of the intent that are known without reading; they hold against the sentence."""

    task: Annotated[Word, Meta(description="What is to be done.")] | None = None
    place: Name | None = None
    delay_ms: Annotated[float, Meta(ge=0.001, le=3_600_000.0, description="The delay target, milliseconds.")] | None = (
        None
    )
    rate_per_second: (
        Annotated[float, Meta(ge=0.001, le=1_000_000.0, description="Sustained requests per second.")] | None
    ) = None
    modality: Annotated[Word, Meta(description="What goes in.")] | None = None
    epsilon: Annotated[float, Meta(ge=1e-12, le=0.5, description="How often the target may be missed.")] | None = None
    delay_scope: DelayScope | None = None
    burst: Annotated[Burst, Meta(description="Requests that may come at once.")] | None = None
    duration_s: Annotated[int, Meta(ge=1, le=86_400, description="How long the session is wanted, seconds.")] | None = (
        None
    )
    quality: QualityDocument | None = None
    language: Language | None = None
    regions: Annotated[Words, Meta(description="Where it may be computed.")] | None = None
    jurisdictions: Annotated[Words, Meta(description="Whose law may apply.")] | None = None
    trust_min: Trust | None = None
    data_class: Annotated[DataClassWord, Meta(description="How sensitive the requests are.")] | None = None
    licences: Annotated[Words, Meta(description="Licences that the model may have.")] | None = None
    cost_max: Price | None = None
    prefer: Preference | None = None


class InterpretRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What is wanted, in a sentence or a few."""

    text: Annotated[str, Meta(min_length=1, max_length=TEXT_CHARS_MAX, description="English.")]
    intent: Annotated[KnownFields, Meta(description="Fields that are known already; they hold against the text.")] = (
        KnownFields()
    )


class SpanDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the text: characters from `start` up to, not including, `end`."""

    start: Annotated[Count, Meta(description="Of its first character, from 0.")]
    end: Annotated[Count, Meta(description="After its last character.")]


class FieldDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One field of the intent and where it came from."""

    field: Annotated[Word, Meta(description="Its name in the intent.")]
    value: Annotated[Any, Meta(description="As the intent holds it.")]
    source: Annotated[SourceWord, Meta(description="TEXT, REQUEST, DEFAULT or POLICY.")]
    span: SpanDocument | None = None
    quote: Annotated[str, Meta(max_length=TEXT_CHARS_MAX, description="What the text says there.")] = ""


class QuestionDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What must be answered before the intent is complete."""

    message: Annotated[Sentence, Meta(description="What to ask the person.")]
    field: Annotated[str, Meta(max_length=64, description="The field that the answer is for.")] = ""
    choices: Annotated[list[Name], Meta(max_length=32, description="What may be answered, where it is a choice.")] = (
        msgspec.field(default_factory=list[str])
    )


class Interpretation(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What the text was read as. Nothing is committed to: page the `intent` if it is what was meant."""

    status: Annotated[StatusWord, Meta(description="Whether there is an intent to page.")]
    fields: Annotated[
        list[FieldDocument], Meta(max_length=FIELDS_MAX, description="Every field that was read, given or defaulted.")
    ]
    questions: Annotated[
        list[QuestionDocument], Meta(max_length=QUESTIONS_MAX, description="What must be answered first.")
    ]
    task_confidence: Annotated[Probability, Meta(description="How sure the reading of the task is.")]
    intent: IntentDocument | None = None


def known_of(known: KnownFields) -> dict[str, Value]:
    """Return the fields that a request says in structured form, under the core's names and types."""
    said: dict[str, Value] = {}
    for name in known.__struct_fields__:
        value = getattr(known, name)
        if value is None:
            continue
        if isinstance(value, QualityDocument):
            said[name] = (value.benchmark, value.score_min)
        elif isinstance(value, list):
            said[name] = tuple(value)
        elif isinstance(value, DelayScope | Preference):
            said[name] = value.value
        else:
            said["rate_rps" if name == "rate_per_second" else name] = value
    return said


def interpretation(reading: Reading) -> Interpretation:
    """Return the document of a reading."""
    return Interpretation(
        status=reading.status.value,
        fields=[_field(one) for one in reading.provenance],
        questions=[_question(one) for one in reading.questions[:QUESTIONS_MAX]],
        task_confidence=min(1.0, reading.task_confidence),
        intent=intent_document(reading.intent) if reading.intent is not None else None,
    )


def _field(one: Provenance) -> FieldDocument:
    value: object = one.value
    if one.field == "quality" and isinstance(one.value, tuple):
        value = {"benchmark": one.value[0], "scoreMin": one.value[1]}
    return FieldDocument(
        field=WIRE_NAMES.get(one.field, one.field),
        value=value,
        source=one.source.value,
        span=SpanDocument(start=one.span.start, end=one.span.end) if one.span is not None else None,
        quote=one.quote,
    )


def _question(one: Question) -> QuestionDocument:
    field = one.field.removeprefix("intent.")
    return QuestionDocument(message=one.message, field=WIRE_NAMES.get(field, field), choices=list(one.choices))

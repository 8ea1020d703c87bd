"""The fields of an intent as keyword arguments, so that a type checker knows them."""

from typing import TypedDict

from aipaging.adapters.northbound.documents.intent import QualityDocument
from aipaging.adapters.northbound.documents.words import DataClassWord
from aipaging.core.anchor.intent import DelayScope, Preference


class IntentFields(TypedDict, total=False):
    """What `page` and `resolve` take: `task`, `place` and `delay_ms`, and whichever of the others matter.

    They mean what the members of `IntentDocument` mean, and have its defaults.
    """

    task: str
    place: str
    delay_ms: float
    rate_per_second: float
    modality: str
    epsilon: float
    delay_scope: DelayScope
    burst: int
    duration_s: int
    quality: QualityDocument | None
    language: str | None
    regions: list[str]
    jurisdictions: list[str]
    trust_min: int
    data_class: DataClassWord
    licences: list[str]
    cost_max: int | None
    prefer: Preference

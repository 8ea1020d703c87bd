"""The section about free text: what a sentence means where it says nothing."""

from typing import Final

from aipaging.apps.server.config_fields import Field, Section, Table, choice, integer, number, several, text
from aipaging.core.anchor.intent import (
    BURST_MAX,
    DURATION_S_MAX,
    EPSILON_MIN,
    RATE_RPS_MAX,
    TRUST_MAX,
    DataClass,
    Preference,
)
from aipaging.core.wording.reading import Value

_PRICE_MAX: Final = 10**15

FREE_TEXT: Final = Section(
    name="free_text",
    about="What a sentence means where it says nothing, as the operator has it: its source is POLICY. "
    "What binds everybody, however they ask, is a policy in Cedar.",
    fields={
        "epsilon": Field(kind=number(EPSILON_MIN, 0.5), about="How often the delay target may be missed."),
        "rate_rps": Field(kind=number(0.001, RATE_RPS_MAX), about="Requests per second."),
        "burst": Field(kind=integer(1, BURST_MAX), about="Requests at once."),
        "duration_s": Field(kind=integer(1, DURATION_S_MAX), about="How long a session lasts."),
        "language": Field(kind=text(), about="Language, as an ISO 639 code."),
        "regions": Field(kind=several(text()), about="Where it may be computed."),
        "jurisdictions": Field(kind=several(text()), about="Whose law may apply."),
        "trust_min": Field(kind=integer(0, TRUST_MAX), about="The least trust level of every domain."),
        "data_class": Field(
            kind=choice(*(each.name.lower() for each in DataClass)), about="What every domain must be cleared for."
        ),
        "licences": Field(kind=several(text()), about="Licences that the model may have (SPDX)."),
        "cost_max": Field(
            kind=integer(0, _PRICE_MAX), about="The most per 1,000 requests, in millionths of the currency."
        ),
        "prefer": Field(kind=choice(*(each.value.lower() for each in Preference)), about="What ranks first."),
    },
)


def unsaid_of(table: Table) -> dict[str, Value]:
    """Return what the operator sets for fields of which a sentence says nothing, under the core's names."""
    said = {name: table.get(name) for name in FREE_TEXT.fields if table.get(name) is not None}
    return {name: value.upper() if name in {"data_class", "prefer"} else value for name, value in said.items()}

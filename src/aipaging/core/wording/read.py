"""From a sentence to a structured intent.

    numbers with units, percentiles, money     `quantities`    a grammar
    countries, unions, regions, access domains `places`        tables and the catalogue
    language, trust, sensitivity, licence      `constraints`   tables
    the task                                   `tasks`         words that name it, else likeness, else a question
    what is left                               `residue`       questions

Every field says where it came from. Numbers and wishes that nothing has understood are asked about: what was said is
never silently dropped. Hard constraints only narrow: a sentence with one more constraint never finds more than without.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from aipaging.core.anchor.intent import DataClass, DelayScope, Intent, Preference, Quality
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.wording.constraints import read_constraints
from aipaging.core.wording.lexical import TEXT_CHARS_MAX
from aipaging.core.wording.places import read_places
from aipaging.core.wording.quantities import read_quantities
from aipaging.core.wording.reading import (
    FIELDS,
    REQUIRED,
    Provenance,
    Question,
    Reading,
    Source,
    Status,
    Value,
    Vocabulary,
)
from aipaging.core.wording.residue import ask_about_numbers, ask_about_wishes
from aipaging.core.wording.scan import Scan
from aipaging.core.wording.tasks import MODALITIES, TaskFound, TaskReader

DEFAULTS: Final[Mapping[str, Value]] = MappingProxyType(
    {
        "modality": "text",
        "epsilon": 0.001,
        "delay_scope": "RESPONSE",
        "rate_rps": 1.0,
        "burst": 1,
        "duration_s": 600,
        "language": "",
        "regions": (),
        "jurisdictions": (),
        "trust_min": 0,
        "data_class": "PUBLIC",
        "licences": (),
        "prefer": "COST",
    }
)
"""What holds where nothing is said: the defaults of the structured intent."""

_MISSING: Final = MappingProxyType(
    {
        "task": "which task is wanted?",
        "place": "which access domain is the client in?",
        "delay_ms": "within which delay must an answer come, such as 250 ms?",
    }
)


def read(
    text: str,
    vocabulary: Vocabulary,
    tasks: TaskReader,
    *,
    given: Mapping[str, Value] | None = None,
    policy: Mapping[str, Value] | None = None,
) -> Reading:
    """Return what a sentence asks for.

    Args:
        text: The sentence, or a few.
        vocabulary: The words of the catalogue.
        tasks: Tells tasks.
        given: Fields that the request says in structured form; they hold against the sentence.
        policy: Fields that the operator sets where neither says anything.

    Raises:
        InvalidInputError: The text is empty or too long.
    """
    if not text.strip() or len(text) > TEXT_CHARS_MAX:
        raise InvalidInputError(
            f"text has {len(text)} characters: 1 to {TEXT_CHARS_MAX}, not all blank, are allowed", field="text"
        )
    scan = Scan(text)
    read_quantities(scan, vocabulary.currency)
    read_places(scan, vocabulary)
    translates = "translat" in scan.lowered
    read_constraints(scan, vocabulary, translates=translates)
    task = tasks.read(scan)
    ask_about_numbers(scan)
    provenance = _together(scan, given or {}, policy or {}, task)
    said = {one.field: one.value for one in provenance}
    nothing = _nothing_here(scan, vocabulary, task, said, given=given or {})
    if not nothing:
        ask_about_wishes(scan, vocabulary, task)
    questions = _open_questions(scan, vocabulary, task, said, given=given or {})
    if nothing:
        return Reading(
            status=Status.NO_MATCH,
            intent=None,
            provenance=provenance,
            questions=questions,
            task_confidence=task.confidence,
        )
    intent, wrong = (None, None) if questions else _intent(said)
    questions = questions if wrong is None else (*questions, wrong)
    return Reading(
        status=Status.NEEDS_CLARIFICATION if questions else Status.RESOLVED,
        intent=intent,
        provenance=provenance,
        questions=questions,
        task_confidence=task.confidence,
    )


def _together(
    scan: Scan, given: Mapping[str, Value], policy: Mapping[str, Value], task: TaskFound
) -> tuple[Provenance, ...]:
    """Return every field that has a value, the structured request first, then sentence, policy, default."""
    read = {one.field: one for one in scan.found}
    defaults = {**DEFAULTS, "modality": MODALITIES.get(task.task, "text")}
    found: list[Provenance] = []
    for name in FIELDS:
        if name in given:
            found.append(Provenance(field=name, value=given[name], source=Source.REQUEST))
        elif name in read:
            found.append(read[name])
        elif name in policy:
            found.append(Provenance(field=name, value=policy[name], source=Source.POLICY))
        elif name in defaults:
            found.append(Provenance(field=name, value=defaults[name], source=Source.DEFAULT))
    return tuple(found)


def _open_questions(
    scan: Scan, vocabulary: Vocabulary, task: TaskFound, said: Mapping[str, Value], *, given: Mapping[str, Value]
) -> tuple[Question, ...]:
    choices = {"task": task.choices or vocabulary.tasks, "place": tuple(map(str, vocabulary.access)), "delay_ms": ()}
    asked = [question for question in scan.questions if question.field not in given]
    missing = [
        Question(field=name, message=_MISSING[name], choices=choices[name][:16])
        for name in REQUIRED
        if name not in said and not any(question.field == name for question in asked)
    ]
    return (*missing, *asked)


def _nothing_here(
    scan: Scan, vocabulary: Vocabulary, task: TaskFound, said: Mapping[str, Value], *, given: Mapping[str, Value]
) -> bool:
    """Return whether the sentence asks for nothing that is offered.

    A sentence without a task that speaks of delays or rates is asked what it wants; one without either is about
    something else.
    """
    if "task" in said:
        return said["task"] not in vocabulary.tasks
    if task.choices:
        return not set(task.choices) & set(vocabulary.tasks)
    technical = {"delay_ms", "rate_rps", "epsilon", "burst", "delay_scope", "cost_max", "quality"}
    return not technical & ({one.field for one in scan.found} | given.keys())


def _intent(said: Mapping[str, Value]) -> tuple[Intent | None, Question | None]:
    """Return the intent, or the question that its limits raise."""
    quality = said.get("quality")
    values: dict[str, object] = {
        **said,
        "place": DomainName(str(said["place"])),
        "delay_scope": DelayScope(str(said["delay_scope"])),
        "data_class": DataClass[str(said["data_class"])],
        "prefer": Preference(str(said["prefer"])),
        "quality": Quality(benchmark=str(quality[0]), score_min=float(quality[1]))
        if isinstance(quality, tuple)
        else None,
    }
    try:
        return Intent(**values).checked(), None  # type: ignore[arg-type]  # every field was read with its type
    except InvalidInputError as error:
        return None, Question(field=error.field or "", message=error.message)

"""Laws of reading: the same in other words gives the same; one more constraint never finds more."""

import string
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName
from aipaging.core.wording.numbers import value_of
from aipaging.core.wording.read import read
from aipaging.core.wording.reading import Reading, Status, Vocabulary
from aipaging.core.wording.tasks import keyword_reader

VOCABULARY = Vocabulary(
    tasks=("embeddings", "chat", "translation"),
    access={DomainName("access-paris"): "paris", DomainName("access-dublin"): "dublin"},
    regions=("paris", "dublin", "ashburn"),
    jurisdictions=("fr", "ie", "us"),
    benchmarks=("sts-b",),
    licences=("Apache-2.0",),
)
TASKS = keyword_reader()

PARTS = (
    ("embed English text", "vectorise text in English", "I need embeddings of English sentences"),
    ("from Paris", "via access-paris", "we are in Paris"),
    ("p99.9 under 250 ms", "within a quarter of a second for 99.9% of requests", "250ms at the 99.9th percentile",
     "at most 1 in 1000 slower than 0.25 s", "three nines below 250 milliseconds"),
    ("40 requests/s", "2400 requests per minute", "forty queries a second", "40 rps"),
    ("bursts of 8", "8 at once", "up to 8 concurrent requests"),
    ("for an hour", "for 60 minutes", "for 3600 seconds", "1 hour session"),
    ("data must not leave France", "French servers only", "hosted in France"),
)  # fmt: skip
TIGHTER = (
    "EU only", "not in the US", "trust level 3", "confidential data", "Apache licence", "sts-b at least 80",
    "at most 3 cents per thousand requests", "in Dublin", "hardware attested",
)  # fmt: skip


def fields(reading: Reading) -> dict[str, object]:
    return {one.field: one.value for one in reading.provenance}


@given(st.tuples(*(st.sampled_from(words) for words in PARTS)), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_paraphrases_units_and_order_give_the_same(chosen: tuple[str, ...], dice: object) -> None:
    plain = read(", ".join(words[0] for words in PARTS), VOCABULARY, TASKS)
    assert plain.status is Status.RESOLVED
    parts = list(chosen)
    dice.shuffle(parts)  # type: ignore[attr-defined]
    other = read("; ".join(parts), VOCABULARY, TASKS)
    assert other.status is Status.RESOLVED, (parts, other.questions)
    assert fields(other) == fields(plain), parts


@given(st.lists(st.sampled_from(TIGHTER), unique=True, min_size=1, max_size=4))
@settings(max_examples=80, deadline=None)
def test_one_more_constraint_only_narrows(more: list[str]) -> None:
    base = ", ".join(words[0] for words in PARTS[:3])
    loose, tight = read(base, VOCABULARY, TASKS), read(", ".join((base, *more)), VOCABULARY, TASKS)
    assert loose.intent is not None
    if tight.intent is None:
        assert tight.questions
        return
    before, after = loose.intent, tight.intent
    assert (after.task, after.place, after.delay_ms, after.epsilon) == (
        before.task, before.place, before.delay_ms, before.epsilon,
    )  # fmt: skip
    assert after.trust_min >= before.trust_min
    assert after.data_class >= before.data_class
    assert after.cost_max is None or before.cost_max is None
    for allowed_before, allowed in (
        (before.regions, after.regions),
        (before.jurisdictions, after.jurisdictions),
        (before.licences, after.licences),
    ):
        assert not allowed_before or set(allowed) <= set(allowed_before)


@pytest.mark.parametrize("order", list(permutations(("EU only", "not in Ireland", "users in Dublin"))))
def test_the_order_of_places_does_not_matter(order: tuple[str, ...]) -> None:
    reading = read("embeddings within 200 ms, " + ", ".join(order), VOCABULARY, TASKS)
    assert reading.intent is not None
    assert (reading.intent.place, reading.intent.jurisdictions) == ("access-dublin", ("fr",))


@given(st.text(max_size=200))
@settings(max_examples=150, deadline=None)
def test_anything_can_be_read_and_spans_quote_the_text(text: str) -> None:
    if not text.strip():
        return
    reading = read(text, VOCABULARY, TASKS)
    for one in reading.provenance:
        if one.span is not None:
            assert text[one.span.start : one.span.end] == one.quote
    assert (reading.intent is not None) == (reading.status is Status.RESOLVED)


@given(st.integers(1, 10**6).filter(lambda n: n not in {24, 7}))
@settings(max_examples=100, deadline=None)
def test_a_number_that_means_nothing_is_asked_about(number: int) -> None:
    reading = read(f"embed text from Paris within 250 ms zorp {number} zorp", VOCABULARY, TASKS)
    assert reading.status is Status.NEEDS_CLARIFICATION
    assert any(str(number) in question.message for question in reading.questions)


@given(st.integers(0, 10**9), st.integers(0, 999))
def test_numbers_with_separators_are_those_without(whole: int, thousandths: int) -> None:
    assert value_of(f"{whole:,}") == value_of(str(whole)) == whole
    assert value_of(f"{whole}.{thousandths:03d}") * 1000 == whole * 1000 + thousandths


@given(st.dictionaries(st.sampled_from(("delay_ms", "rate_rps", "duration_s")), st.integers(1, 5000), min_size=1))
@settings(max_examples=50, deadline=None)
def test_what_is_given_in_structure_holds_against_the_sentence(given_fields: dict[str, int]) -> None:
    reading = read(", ".join(words[0] for words in PARTS), VOCABULARY, TASKS, given=given_fields)
    assert {name: fields(reading)[name] for name in given_fields} == given_fields


def test_policy_stands_behind_the_sentence_and_before_the_default() -> None:
    policy = {"trust_min": 4, "rate_rps": 3.0}
    reading = read("embed text from Paris within 250 ms, 40 rps", VOCABULARY, TASKS, policy=policy)
    sources = {one.field: (one.value, one.source.value) for one in reading.provenance}
    assert sources["trust_min"] == (4, "POLICY")
    assert sources["rate_rps"] == (40.0, "TEXT")
    assert sources["burst"] == (1, "DEFAULT")


def test_a_book_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"text has .* characters"):
        read(string.ascii_letters * 100, VOCABULARY, TASKS)

from pathlib import Path

import pytest

from aipaging.core.foundation.names import DomainName
from aipaging.core.wording.read import DEFAULTS, read
from aipaging.core.wording.reading import Reading, Source, Status, Vocabulary
from aipaging.core.wording.tasks import TaskReader, keyword_reader

VOCABULARY = Vocabulary(
    tasks=(
        "embeddings", "chat", "translation", "transcription", "summarization", "classification", "moderation",
        "reranking", "question-answering", "extraction", "code-completion",
    ),
    access={DomainName("access-paris"): "paris", DomainName("access-dublin"): "dublin"},
    regions=("paris", "dublin", "frankfurt", "ashburn"),
    jurisdictions=("fr", "ie", "de", "us"),
    benchmarks=("sts-b", "mteb", "mmlu"),
    licences=("Apache-2.0",),
)  # fmt: skip
CASES = [
    line
    for line in (Path(__file__).parent / "cases.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]
LISTS = {"regions", "jurisdictions", "licences"}
NUMBERS = {"delay_ms", "epsilon", "rate_rps", "burst", "duration_s", "trust_min", "cost_max"}


@pytest.fixture(scope="module")
def tasks() -> TaskReader:
    return keyword_reader()


def value(name: str, text: str) -> object:
    if name in LISTS:
        return tuple(text.split(","))
    if name == "quality":
        benchmark, _, score = text.partition(":")
        return benchmark, float(score)
    return float(text) if name in NUMBERS else text


def said(reading: Reading) -> dict[str, object]:
    return {
        one.field: one.value
        for one in reading.provenance
        if one.source is Source.TEXT or one.value != DEFAULTS.get(one.field)
    }


@pytest.mark.parametrize("line", CASES)
def test_a_sentence_says_what_it_says(line: str, tasks: TaskReader) -> None:
    text, _, rest = line.partition(" => ")
    words = rest.split()
    expected = {w.partition("=")[0]: value(*w.split("=", 1)) for w in words if "=" in w}
    asked = {w[1:] for w in words if w.startswith("?")}
    reading = read(text, VOCABULARY, tasks)
    assert said(reading) == expected
    assert {question.field for question in reading.questions} >= asked
    if "!" in words:
        assert reading.status is Status.NO_MATCH
    elif asked:
        assert reading.status is Status.NEEDS_CLARIFICATION
    else:
        assert reading.questions == ()
        assert reading.status is Status.RESOLVED
        assert reading.intent is not None


def test_there_are_two_hundred_cases() -> None:
    assert len(CASES) >= 200

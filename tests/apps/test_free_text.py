"""What reads free text is made ready before it is asked for, and what cannot be made says so to whoever asks."""

import os
import subprocess
import sys
from threading import Event
from typing import Any

import pytest

from aipaging.apps.server import free_text
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.wording.read import read
from aipaging.core.wording.reading import Status, Vocabulary
from aipaging.core.wording.tasks import TaskReader, keyword_reader


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Say when a reader is made; the words alone do for these tests."""
    happened = Event()

    def make(choice: str) -> Any:
        happened.set()
        if choice == "minilm":
            raise UnavailableError("not installed", code="EXTRA_NOT_INSTALLED")
        return keyword_reader()

    monkeypatch.setattr(free_text, "task_reader", make)
    return happened


@pytest.fixture(scope="module")
def minilm() -> TaskReader:
    try:
        return free_text.task_reader("minilm")
    except UnavailableError as error:
        pytest.skip(error.message)


def test_it_is_made_before_the_first_sentence(made: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_text, "WARM_UP_AFTER_S", 0.0)
    reader = free_text.warmed("auto")
    assert made.wait(30)
    assert reader() is keyword_reader()


def test_an_early_sentence_does_not_wait_for_the_time_to_come(made: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_text, "WARM_UP_AFTER_S", 3600.0)
    reader = free_text.warmed("auto")
    assert not made.is_set()
    assert reader() is keyword_reader()


def test_words_alone_are_made_for_the_first_sentence(made: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_text, "WARM_UP_AFTER_S", 0.0)
    reader = free_text.warmed("keywords")
    assert not made.is_set()
    assert reader() is keyword_reader()


@pytest.mark.parametrize("text", ["a " * 1000, "not in " * 280, "1,111" * 400, "- " * 1000, "\U0001f600" * 2000])
def test_a_text_of_more_pieces_than_the_model_takes_is_read(text: str, minilm: TaskReader) -> None:
    reading = read(text[:2000], Vocabulary(tasks=("embeddings",)), minilm)
    assert reading.status is not Status.RESOLVED


@pytest.mark.usefixtures("made")
def test_every_sentence_hears_why_it_cannot_be_read() -> None:
    reader = free_text.warmed("minilm")
    for _ in range(2):
        with pytest.raises(UnavailableError, match="not installed"):
            reader()


def test_linear_algebra_leaves_the_other_processors_to_the_gateway() -> None:
    program = "import os, aipaging.apps.server.command; print(len(os.listdir('/proc/self/task')))"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OPENBLAS", "OMP"))}
    told = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1"]

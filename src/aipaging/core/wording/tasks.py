"""Which task a sentence asks for: by the words that name one, else by likeness to examples, else nothing.

The examples are ours, a dozen or so per task, and what nobody pages for is among them under no task at all. Numbers and
constraints that have been understood are left out before the sentence is looked at: they say nothing about the task.
"""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aipaging.core.wording.classifier import Choice, Classifier, threshold_for
from aipaging.core.wording.examples import EXAMPLES, NONE
from aipaging.core.wording.scan import Scan

Embed: TypeAlias = Callable[[Sequence[str]], NDArray[np.float64]]
"""Sentences in, one row of unit length each out."""

KEYWORDS: Final = MappingProxyType(
    {
        "embeddings": r"embed(?:s|ded|ding|dings)?|vectori[sz]\w*|sentence\svectors?|semantic\svectors?",
        "chat": (
            r"chat\w*|assistant|conversational|dialogue|talk\sto\s(?:a\smodel|(?:our\s|my\s|"
            r"the\s)?(?:customers|users|clients|people|visitors))|copilot"),
        "summarization": r"summari[sz]\w*|summary|summaries|tl;dr|digests?|condense\w*",
        "translation": r"translat\w*",
        "transcription": r"transcri\w*|speech[\s-]to[\s-]text|speech\srecognition|dictation|captions?|subtitles?|asr",
        "speech-synthesis": (
            r"text[\s-]to[\s-]speech|tts|read\w*\saloud|speech\ssynthesis|voice\sover|"
            r"synthesi[sz]e\sspeech"),
        "classification": (
            r"classif(?:y|ies|ied|ication|ier)\s(?!images?|pictures?|photos?)|categori[sz]\w*|"
            r"label\w*\stexts?|topic\slabels?|sentiment"),
        "moderation": r"moderat\w*|toxic\w*|hate\sspeech|abusive|content\ssafety|spam\sfilter\w*",
        "reranking": r"re-?rank\w*|relevance\sscor\w*|rank\ssearch\sresults",
        "question-answering": r"question[\s-]answering|answer\squestions|q&a|rag",
        "code-completion": (
            r"code[\s-](?:completion|generation|assistant)|complete\scode|autocomplet\w*|"
            r"generate\scode|write\scode|coding\smodel"),
        "extraction": r"extract\w*|named\sentit\w*|ner|entity\srecognition|pull\sout\sfields",
        "image-classification": (
            r"(?:classif\w*|label\w*|tag\w*|recogni[sz]e)\s(?:\w+\s){0,2}(?:images?|pictures?|"
            r"photos?)|image\s(?:classification|tagging|recognition)"),
        "object-detection": (
            r"(?:detect|count|find|locate)\w*\s(?:\w+\s){0,2}(?:objects?|people|cars|vehicles|faces|"
            r"defects)|object\sdetection"),
        "image-generation": (
            r"(?:generat\w*|create|draw\w*|paint|render)\s(?:\w+\s){0,2}(?:images?|pictures?|"
            r"illustrations?|art\w*)|image\sgeneration|text[\s-]to[\s-]image"),
        "ocr": (
            r"ocr|read\s(?:\w+\s){0,2}scan\w*|scanned\s(?:documents|invoices|receipts|pages)|"
            r"text\s(?:from|in)\simages?"
        ),
    }
)  # fmt: skip
"""Words that name a task outright."""

MODALITIES: Final = MappingProxyType(
    {
        "transcription": "audio", "image-classification": "image", "object-detection": "image", "ocr": "image",
    }
)  # fmt: skip
"""What a task works on, where it is not text."""

ABSTAINED_SHARE: Final = 0.05
"""Of sentences that ask for a task, this share is asked again rather than guessed (on folds of the examples)."""

SURE: Final = 0.5
"""A task less likely than that, of all tasks, is asked about."""

_BESIDE: Final = re.compile(r"[,;.&+]|\b(?:and|or|then|plus|also|but|as\swell\sas)\b")

_FOLDS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFound:
    """What a sentence asks for.

    Attributes:
        task: The task, or "" if it asks for none.
        confidence: Between 0 and 1; 1 where the sentence names it.
        choices: If it is not clear: the tasks that it may be.
        described: Whether it was told by likeness, and no word names it.
    """

    task: str
    confidence: float
    choices: tuple[str, ...] = ()
    described: bool = False


class TaskReader:
    """Tells tasks, with a model's embeddings or without."""

    def __init__(self, embed: Embed | None = None) -> None:
        """Learn the examples, and how sure is sure enough."""
        self._embed = embed
        pairs = [(text, task) for task, texts in EXAMPLES.items() for text in texts]
        self._texts = [text for text, _ in pairs]
        self._labels = [task for _, task in pairs]
        rows = None if embed is None else embed(self._texts)
        self._classifier = Classifier.fitted(self._texts, self._labels, rows)
        self._least = self._calibrated(rows)

    def _calibrated(self, rows: NDArray[np.float64] | None) -> float:
        """Return the least score that is in scope, from examples that the classifier of their fold has not seen."""
        seen: list[float] = []
        for fold in range(_FOLDS):
            kept = [place for place in range(len(self._texts)) if place % _FOLDS != fold]
            held = [place for place in range(fold, len(self._texts), _FOLDS) if self._labels[place] != NONE]
            part = Classifier.fitted(
                [self._texts[place] for place in kept],
                [self._labels[place] for place in kept],
                None if rows is None else rows[kept],
            )
            choices = part.choices([self._texts[place] for place in held], None if rows is None else rows[held])
            seen += [choice.in_scope for choice in choices]
        return threshold_for(np.array(seen), ABSTAINED_SHARE)

    def read(self, scan: Scan) -> TaskFound:
        """Return the task that a sentence asks for, and mark the words that name it."""
        named: dict[str, re.Match[str]] = {}
        denied: list[re.Match[str]] = []
        for task, words in KEYWORDS.items():
            for match in scan.matches(re.compile(rf"\b(?:{words})(?!\w)")):
                if scan.negated(match):
                    denied.append(match)
                else:
                    named.setdefault(task, match)
        for match in denied:
            # "Not a chatbot, but embeddings": nothing that is like a chatbot is wanted.
            scan.take(match)
        if len(named) == 1:
            ((task, match),) = named.items()
            scan.take(match, "task", task)
            return TaskFound(task=task, confidence=1.0)
        if len(named) > 1:
            return self._among(scan, named)
        return TaskFound(task="", confidence=0.0) if denied else self._by_likeness(scan)

    def _by_likeness(self, scan: Scan) -> TaskFound:
        choice = self._likeliest(scan)
        if choice is None or choice.label == NONE or choice.in_scope < self._least:
            return TaskFound(task="", confidence=0.0)
        if choice.probability < SURE:
            choices = tuple(task for task in (choice.label, choice.second) if task != NONE)
            return TaskFound(task="", confidence=choice.probability, choices=choices)
        scan.say("task", choice.label, 0, len(scan.lowered))
        return TaskFound(task=choice.label, confidence=choice.probability, described=True)

    def _among(self, scan: Scan, named: dict[str, re.Match[str]]) -> TaskFound:
        """Decide between several tasks that are named: by likeness if it is sure and they are no list, else ask."""
        choice = self._likeliest(scan)
        if (
            choice is not None
            and choice.label in named
            and choice.probability >= SURE
            and not _listed(scan, list(named.values()))
        ):
            scan.take(named[choice.label], "task", choice.label)
            for task, match in named.items():
                if task != choice.label:
                    scan.take(match)
            return TaskFound(task=choice.label, confidence=choice.probability)
        return TaskFound(task="", confidence=0.0, choices=tuple(named))

    def _likeliest(self, scan: Scan) -> Choice | None:
        rest = "".join(c if not taken else " " for c, taken in zip(scan.lowered, scan.taken, strict=True))
        rest = " ".join(rest.split())
        if not rest:
            return None
        rows = None if self._embed is None else self._embed([rest])
        return self._classifier.choices([rest], rows)[0]


def _listed(scan: Scan, named: Sequence[re.Match[str]]) -> bool:
    """Return whether tasks stand beside one another, as in "translate and summarise": then two are wanted."""
    ordered = sorted(named, key=lambda match: match.start())
    return any(_BESIDE.search(scan.lowered[one.end() : other.start()]) for one, other in pairwise(ordered))


@functools.cache
def keyword_reader() -> TaskReader:
    """Return what tells tasks by words alone; made once, for it takes a good part of a second."""
    return TaskReader()

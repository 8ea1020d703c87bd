"""What nobody has understood, and must be asked about: what was said is never silently dropped.

Three nets, the finest first: numbers; words that only ever state a wish that an intent has no field for; and clauses
that state something ("must", "only", "not", or a few words between commas) of which nothing was understood. What tells
a story ("we build a search engine for recipes") is let be.
"""

import re
from collections.abc import Iterator
from typing import Final

from aipaging.core.wording.reading import Vocabulary
from aipaging.core.wording.scan import CLAUSE_ENDS, Scan
from aipaging.core.wording.tasks import TaskFound

QUESTIONS_MAX: Final = 8
"""Of what was not understood: whoever is asked more than that writes the sentence anew."""

_NUMBER: Final = re.compile(r"(?<![\w.-])[+-]?\d[\d.,]*(?:\s?[a-z%µ]+)?")

_WHEN: Final = (
    r"until|till|forever|permanent(?:ly)?|indefinitely|starting|beginning|tomorrow|tonight|weekends?|"
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)days?|(?:per|an?|each|every|one|this|next)\s(?:month|year)|"
    r"(?:business|office|working)\shours"
)
_WHERE: Final = (
    r"(?:asia|africa|oceania|antarctica|middle\seast|(?:north|south|latin|central)\samericas?|apac|emea|gulf|balkans|"
    r"scandinavia|nordics?|benelux|baltics?|dach)(?!\w)|on[\s-]?prem\w*|in[\s-]country|"
    r"(?:hosted|processed|process|stored|store|run|running|kept|keep|stays?|remains?|located|computed|executed|served)"
    r"\s(?:\w+\s)?(?:in|on|at|within|inside|by)\s(?:the\s|an?\s)?(?!the\b|an?\b|real\b|time\b)[a-z]\w+"
)
_MODEL: Final = (
    r"(?:gpt|llama|mi[sx]tral|qwen|gemma|claude|gemini|minilm|bert|bge|jina|mpnet|whisper|deepseek|falcon|phi-?\d|"
    r"command-r|chatgpt|all-minilm)[\w.-]*"
)
_HARDWARE: Final = r"gpus?|cpus?|tpus?|npus?|nvidia|a100|h100|fpgas?|spot\sinstances?|dedicated|bare\smetal"
_PROMISE: Final = (
    r"\w*complian(?:t|ce)|certifi\w*|accredited|hipaa|iso|soc\s?2|pci|sox|fedramp|c5|audit(?:ed|able)|encrypt\w*|"
    r"retention|retain\w*|logg(?:ed|ing)|no\slogs?|anonymi[sz]\w*|deleted?|train(?:ed|ing)?\son|sovereign\w*|renewable\w*|"
    r"green|carbon|solar|sustainab\w*|jitter|redundan\w*|private(?:ly)?|privacy|secure(?:ly)?|security|failover|replica\w*|free\sof\scharge|for\sfree"
)
_WISHES: Final = (
    ("duration_s", _WHEN, "a session begins at once and lasts for a while, such as 2 hours: how long?"),
    ("", _WHERE, "that is no region or jurisdiction that is known here: which of those offered may it be?"),
    ("quality", _MODEL, "a model is not asked for by name, but by task and quality: leave it out?"),
    ("", _HARDWARE, "hardware is not something an intent can ask for: leave it out?"),
    ("", _PROMISE, "that is not something an intent can ask for: leave it out?"),
)
"""Words that state a wish for which there is no field, and what to ask."""

_CUE: Final = re.compile(
    r"(?:\b(?:not|no|never|none|nothing|without|cannot|neither|nor|except|exclud\w+|avoid\w*|outside|unless|"
    r"must|only|exclusively|mandatory|required?|requires|shall|at\s(?:least|most)|minimum|maximum|guarantee\w*|strictly)\b|"
    r"n['\u2019]t\b)"
)
"""Words that bind: a clause with one of them states a constraint."""

_JOIN: Final = re.compile(r"\s(?:and|but|while|whereas)\s")
_WORD: Final = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_STORY: Final = re.compile(
    r"^\W*(?:we|i|our|my|it|its|it's|this|that|these|they|there|the|an?|for|because|so|since|as|which|who|if|when|used|and)\b"
)
_POLITE: Final = re.compile(
    r"hello|hi|hey|dear|please|pls|thanks|thank|you|much|very|kindly|could|can|would|will|may|might|let|us|me|we|i|need|want|like|get|give|have|has|do|does|to|for|"
    r"of|the|a|an|it|is|be|this|that|with|in|on|at|by|and|or|some|any|good|morning|afternoon|evening|day|regards|best|cheers|greetings|sir|madam|team|ok|okay|great|sorry|lot|lots|advance"
)
"""Words that ask for nothing."""

CLAUSE_WORDS_MAX: Final = 6
"""A clause of more words, none of which binds, tells a story."""


def ask_about_numbers(scan: Scan) -> None:
    """Ask about every number that nothing has understood."""
    for match in scan.matches(_NUMBER):
        _ask(scan, "", f"what does {scan.written(match).strip()!r} mean?")
        scan.take(match)


def ask_about_wishes(scan: Scan, vocabulary: Vocabulary, task: TaskFound) -> None:
    """Ask about every wish for which there is no field, and every clause that binds and was not understood."""
    for field, words, message in _WISHES:
        for match in scan.matches(re.compile(rf"(?<![\w-])(?:{words})(?:\s(?:{words}))*(?![\w-])")):
            choices = vocabulary.jurisdictions[:8] if words is _WHERE else ()
            _ask(scan, field, f"{scan.written(match)!r}: {message}", *choices)
            scan.take(match)
    # Where no word names the task, the first clause of which nothing else was understood is what tells it.
    tells_task = task.described
    for start, end in _clauses(scan):
        if tells_task and not any(scan.taken[start:end]) and not _CUE.search(scan.lowered, start, end):
            tells_task = False
            continue
        for first, last in _parts(scan, start, end):
            if _states_something(scan, first, last, alone=last - first == end - start):
                words = scan.text[scan.origins[first] : scan.origins[last - 1] + 1].strip()
                _ask(scan, "", f"{words!r} was not understood: what does it ask for?")


def _ask(scan: Scan, field: str, message: str, *choices: str) -> None:
    if sum(question.field == "" for question in scan.questions) < QUESTIONS_MAX:
        scan.ask(field, message, *choices)


def _clauses(scan: Scan) -> Iterator[tuple[int, int]]:
    """Yield the parts of a sentence between punctuation; a comma or a point within a number is none."""
    start = 0
    for place, character in enumerate(scan.lowered):
        ends = character in CLAUSE_ENDS or character == "."
        if ends and not (character in ".,:" and scan.lowered[place + 1 : place + 2].strip()):
            yield start, place
            start = place + 1
    yield start, len(scan.lowered)


def _parts(scan: Scan, start: int, end: int) -> Iterator[tuple[int, int]]:
    for join in _JOIN.finditer(scan.lowered, start, end):
        yield start, join.start()
        start = join.end()
    yield start, end


def _states_something(scan: Scan, start: int, end: int, *, alone: bool) -> bool:
    """Return whether a part of which nothing was understood states a constraint."""
    if any(scan.taken[start:end]):
        return False
    part = scan.lowered[start:end]
    words = [word for word in _WORD.findall(part) if not _POLITE.fullmatch(word)]
    if not words:
        return False
    return _CUE.search(part) is not None or (alone and len(words) <= CLAUSE_WORDS_MAX and not _STORY.search(part))

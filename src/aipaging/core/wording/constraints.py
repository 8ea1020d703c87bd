"""Everything that is neither a quantity nor a place: language, trust, sensitivity, licence, quality, preference."""

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

from aipaging.core.anchor.intent import TRUST_MAX
from aipaging.core.wording.numbers import NUMBER, value_of
from aipaging.core.wording.reading import Vocabulary
from aipaging.core.wording.scan import Scan

LANGUAGES: Final = MappingProxyType(
    {
        "english": "en",
        "german": "de",
        "french": "fr",
        "spanish": "es",
        "italian": "it",
        "portuguese": "pt",
        "dutch": "nl",
        "polish": "pl",
        "swedish": "sv",
        "danish": "da",
        "norwegian": "no",
        "finnish": "fi",
        "czech": "cs",
        "greek": "el",
        "hungarian": "hu",
        "romanian": "ro",
        "bulgarian": "bg",
        "croatian": "hr",
        "slovak": "sk",
        "slovenian": "sl",
        "estonian": "et",
        "latvian": "lv",
        "lithuanian": "lt",
        "irish": "ga",
        "turkish": "tr",
        "arabic": "ar",
        "hebrew": "he",
        "hindi": "hi",
        "chinese": "zh",
        "mandarin": "zh",
        "japanese": "ja",
        "korean": "ko",
        "russian": "ru",
        "ukrainian": "uk",
        "vietnamese": "vi",
        "thai": "th",
    }
)
"""English names of languages, and their ISO 639-1 codes."""

_LANGUAGE: Final = re.compile(rf"\b(?:{'|'.join(LANGUAGES)})\b")
_TARGET: Final = re.compile(r"\b(?:to|into|in)\s$")
_SOURCE: Final = re.compile(r"\bfrom\s(?:the\s)?$")

_TRUST: Final = re.compile(
    rf"\btrust(?:ed)?(?:\s(?:level|score|floor|of|at\sleast|minimum|min|is|>=|≥))*\s?(?:[:=]|"
    rf">=|≥)?\s?(?P<level>{NUMBER})\b(?:\sor\s(?:more|higher|better|above))?"
)
_ATTESTED: Final = re.compile(
    r"\b(?:hardware[\s-]attest\w*|attested(?:\shardware)?|confidential\scomputing|"
    r"(?:trusted\sexecution\senvironment|tees?)\b(?:\sonly)?|enclaves?)\b"
)

_VAGUE_TRUST: Final = re.compile(
    r"\b(?:(?:high(?:ly|est|er)?|low(?:est)?|full(?:y)?|maxim(?:um|al)|medium|some|more|better)[\s-]trust(?:ed|worthy)?|"
    r"trust(?:ed|worthy)\s(?!execution)\w+|trust\s(?:level\s)?(?:at\smost|below|under|up\sto|between)\b)"
)

_CLASSES: Final = (
    (
        "RESTRICTED",
        (
            r"restricted|secret|classified|(?:health|medical|patients?'?|clinical|biometric|"
            r"genetic)(?:\s\w+)?\s(?:data|records?|notes?|files?|reports?|letters?)"
        ),
    ),
    (
        "CONFIDENTIAL",
        (
            r"confidential|personal(?:ly\sidentifiable)?\s(?:data|information)|pii|gdpr(?:[\s-]complian(?:t|ce))?|"
            r"customer\s(?:data|records?)|sensitive"
        ),
    ),
    ("INTERNAL", r"internal|in-house|company\s(?:data|documents?)"),
    (
        "PUBLIC",
        (
            r"public(?:ly\savailable)?\s(?:data|text|documents?|information|web)|nothing\ssensitive|"
            r"not\ssensitive|non-sensitive"
        ),
    ),
)
"""Words for how sensitive data is, the most sensitive first. Special categories (GDPR article 9) are RESTRICTED, other
personal data is CONFIDENTIAL."""

_LICENCES: Final = (
    ("Apache-2.0", r"apache(?:[\s-]?(?:2(?:\.0)?|licen[cs]ed?))*"),
    ("MIT", r"mit(?:[\s-]licen[cs]ed?)?"),
    ("BSD-3-Clause", r"bsd(?:-3-clause|[\s-]3)?(?:[\s-]licen[cs]ed?)?"),
    ("CC-BY-4.0", r"cc[\s-]by(?:[\s-]4(?:\.0)?)?"),
)
_EITHER: Final = re.compile(r"\b(?:or|and)\b|[/&]")
_OPEN: Final = re.compile(
    r"\b(?:permissive(?:ly)?|open[\s-]source|open)[\s-](?:licen[cs]ed?s?|models?|weights?)(?:\sonly)?\b"
)
_OPEN_LICENCES: Final = ("Apache-2.0", "BSD-3-Clause", "MIT")

_PREFERENCES: Final = (
    (
        "COST",
        (
            r"cheap(?:est|ly)?|low(?:est)?[\s-](?:cost|price)|least\sexpensive|"
            r"as\scheap\sas\spossible|save\smoney|inexpensive"
        ),
    ),
    (
        "DELAY",
        (
            r"fastest|lowest[\s-](?:latency|delay)|as\sfast\sas\spossible|quickest|latency\sfirst|"
            r"speed\s(?:matters|first)"
        ),
    ),
    (
        "QUALITY",
        (
            r"(?:best|highest|top)[\s-](?:quality|accuracy|model|results?)|most\s(?:accurate|capable)|"
            r"quality\s(?:matters|first)"
        ),
    ),
)
_GENERIC_BENCHMARKS: Final = ("mteb", "mmlu", "sts-b", "gsm8k", "humaneval", "bleu", "wer")


def read_constraints(scan: Scan, vocabulary: Vocabulary, *, translates: bool) -> None:
    """Read what is left of the constraints; `translates`: a second language is the one that is translated into."""
    _quality(scan, vocabulary)
    _trust(scan)
    _data_class(scan)
    _licences(scan, vocabulary)
    _language(scan, translates=translates)
    for name, words in _PREFERENCES:
        for match in scan.matches(re.compile(rf"\b(?:{words})\b")):
            if scan.negated(match):
                _taken_back(scan, match, "prefer", *(other for other, _ in _PREFERENCES))
            else:
                scan.take(match, "prefer", name)


def _quality(scan: Scan, vocabulary: Vocabulary) -> None:
    known = {name.lower(): name for name in vocabulary.benchmarks}
    names = "|".join(re.escape(name) for name in sorted({*known, *_GENERIC_BENCHMARKS}, key=len, reverse=True))
    pattern = re.compile(
        rf"\b(?P<name>{names})(?:\s(?:score|of|at\sleast|above|over|better\sthan|minimum|from|"
        rf"is))*\s?(?:>=|≥|>|:|=)?\s?(?P<score>{NUMBER})(?:\sor\s(?:more|better|higher))?"
        rf"|(?P<first>{NUMBER})(?:\sor\s(?:more|better|higher))?\son\s(?P<second>{names})\b"
    )
    for match in scan.matches(pattern):
        name = match["name"] or match["second"]
        score = float(value_of(match["score"] or match["first"]))
        scan.take(match, "quality", (known.get(name, name), score))


def _trust(scan: Scan) -> None:
    for match in scan.matches(_TRUST):
        level = value_of(match["level"])
        if scan.negated(match):
            _taken_back(scan, match, "trust_min", *map(str, range(TRUST_MAX + 1)))
        elif level == int(level):
            scan.take(match, "trust_min", int(level))
    for match in scan.matches(_ATTESTED):
        if scan.negated(match):
            _taken_back(scan, match, "trust_min", *map(str, range(TRUST_MAX + 1)))
        else:
            scan.take(match, "trust_min", TRUST_MAX)
    for match in scan.matches(_VAGUE_TRUST):
        scan.ask("trust_min", f"{scan.written(match)!r}: which trust level, from 0 to {TRUST_MAX}, is the least?")
        scan.take(match)


def _taken_back(scan: Scan, match: re.Match[str], field: str, *choices: str) -> None:
    """Ask what holds instead of a word that a "no" or a "not" before it takes back."""
    scan.ask(field, f"not {scan.written(match)!r}: what is allowed instead?", *choices)
    scan.take(match)


def _data_class(scan: Scan) -> None:
    """Read how sensitive the data is; of several words the most sensitive counts."""
    denied: list[re.Match[str]] = []
    for name, words in _CLASSES:
        for match in scan.matches(re.compile(rf"\b(?:{words})\b")):
            if not match[0].startswith("no") and scan.negated(match):
                denied.append(match)
            elif scan.value("data_class") is None:
                scan.take(match, "data_class", name)
            else:
                scan.take(match)
    for match in denied:
        scan.take(match)
        if scan.value("data_class") is None:
            names = [name for name, _ in reversed(_CLASSES)]
            scan.ask("data_class", f"not {scan.written(match)!r}: how sensitive is the data, then?", *names)


def _licences(scan: Scan, vocabulary: Vocabulary) -> None:
    spans: list[tuple[int, int]] = []
    names: set[str] = set()
    offered = [(known, re.escape(known.lower())) for known in vocabulary.licences]
    for name, words in [*_LICENCES, *offered]:
        for match in scan.matches(re.compile(rf"\b(?:{words})(?!\w)")):
            _licence(scan, match, (name,), vocabulary, found=(names, spans))
    for match in scan.matches(_OPEN):
        _licence(scan, match, _OPEN_LICENCES, vocabulary, found=(names, spans))
    if names:
        spans.sort()
        scan.say("licences", tuple(sorted(names)), spans[0][0], spans[-1][1])
        if len(spans) > 1 and not _EITHER.search(scan.lowered[spans[-2][1] : spans[-1][0]]):
            # One more constraint is not one more choice, unless it says so: "MIT, BSD or Apache".
            scan.ask("licences", f"is any of {', '.join(sorted(names))} acceptable?", *sorted(names))


def _licence(
    scan: Scan,
    match: re.Match[str],
    meant: Sequence[str],
    vocabulary: Vocabulary,
    *,
    found: tuple[set[str], list[tuple[int, int]]],
) -> None:
    if scan.negated(match):
        _taken_back(scan, match, "licences", *vocabulary.licences)
        return
    scan.take(match)
    found[0].update(meant)
    found[1].append(match.span())


def _language(scan: Scan, *, translates: bool) -> None:
    found = list(scan.matches(_LANGUAGE))
    for match in [match for match in found if scan.negated(match)]:
        found.remove(match)
        _taken_back(scan, match, "language")
    for match in found:
        scan.take(match)
    if len(found) > 1 and translates:
        # What is translated into decides which model can do it.
        target = [match for match in found if _TARGET.search(scan.before(match))]
        found = target[-1:] or [match for match in found if not _SOURCE.search(scan.before(match))][-1:]
    for match in found:
        scan.say("language", LANGUAGES[match[0]], *match.span())

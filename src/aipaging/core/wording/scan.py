"""A sentence while it is read: which characters have been understood, and what they said."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from aipaging.core.wording.reading import Provenance, Question, Source, Span, Value

CLAUSE_ENDS: Final = frozenset(",;!?()[]{}")
"""Punctuation that ends a clause; a colon joins: `latency: 250 ms`."""

_NEGATION: Final = re.compile(
    r"(?:\b(?:not|no|non|never|none|nothing|without|neither|nor|cannot|excluding|exclude|except|avoid\w*|instead\sof|"
    r"(?:rather|other)\sthan|apart\sfrom|(?:any|every|all)(?:thing|\s\w+)?\sbut)\b|n['\u2019]t\b)(?!\s(?:only|just|merely)\b)(?P<between>(?:(?!\bbut\b)[^.])*)$"
)


@dataclass(slots=True)
class Scan:
    """One pass over one sentence.

    Attributes:
        text: As it was written.
        lowered: In lower case, runs of blanks as one: what the patterns see.
        origins: Of every character of `lowered`, its place in `text`.
        taken: Which characters of `lowered` belong to something understood.
        found: What was understood, in the order in which it was.
        questions: What was not, and what contradicts.
    """

    text: str
    lowered: str = ""
    origins: list[int] = field(default_factory=list[int])
    taken: list[bool] = field(default_factory=list[bool])
    found: list[Provenance] = field(default_factory=list[Provenance])
    questions: list[Question] = field(default_factory=list[Question])

    def __post_init__(self) -> None:
        kept = [
            (place, character)
            for place, character in enumerate(self.text)
            if not (character.isspace() and place and self.text[place - 1].isspace())
        ]
        self.origins = [place for place, _ in kept]
        # Some letters have a lower case of two characters; places must stay those of the text.
        self.lowered = "".join(" " if c.isspace() else c.lower() if len(c.lower()) == 1 else c for _, c in kept)
        self.taken = [False] * len(kept)

    def matches(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        """Yield the matches none of whose characters has been understood before."""
        for match in pattern.finditer(self.lowered):
            if not any(self.taken[match.start() : match.end()]):
                yield match

    def take(self, match: re.Match[str], name: str | None = None, value: Value | None = None) -> None:
        """Mark a match as understood; with a name, as the value of that field."""
        start, end = match.span()
        while start < end and self.lowered[start] == " ":
            start += 1
        while end > start and self.lowered[end - 1] == " ":
            end -= 1
        self.taken[start:end] = [True] * (end - start)
        if name is not None and value is not None:
            self.say(name, value, start, end)

    def say(self, name: str, value: Value, start: int, end: int) -> None:
        """Note the value of a field; the same value twice is once, another one is a contradiction.

        Args:
            name: The field.
            value: What was read.
            start: Of the words, in `lowered`.
            end: Likewise, exclusive.
        """
        first, last = self.origins[start], self.origins[end - 1] + 1
        known = next((one for one in self.found if one.field == name), None)
        if known is None:
            span = Span(start=first, end=last)
            self.found.append(
                Provenance(field=name, value=value, source=Source.TEXT, span=span, quote=self.text[first:last])
            )
        elif known.value != value:
            quote = self.text[first:last]
            self.ask(name, f"{known.quote!r} and {quote!r} say different things about {name}: which one holds?")

    def ask(self, name: str, message: str, *choices: str) -> None:
        """Note what must be asked; once per field."""
        if not any(question.field == name for question in self.questions if name):
            self.questions.append(Question(field=name, message=message, choices=choices))

    def written(self, match: re.Match[str]) -> str:
        """Return the words of a match as they were written."""
        return self.text[self.origins[match.start()] : self.origins[match.end() - 1] + 1]

    def value(self, name: str) -> Value | None:
        """Return what was read for a field."""
        return next((one.value for one in self.found if one.field == name), None)

    def before(self, match: re.Match[str], characters: int = 32) -> str:
        """Return what stands right before a match."""
        return self.lowered[max(0, match.start() - characters) : match.start()]

    def after(self, match: re.Match[str], characters: int = 32) -> str:
        """Return what stands right after a match."""
        return self.lowered[match.end() : match.end() + characters]

    def clause_before(self, match: re.Match[str], characters: int = 64) -> str:
        """Return what stands before a match, back to punctuation or to what was understood before."""
        start = match.start()
        least = max(0, start - characters)
        while start > least and not self.taken[start - 1] and self.lowered[start - 1] not in CLAUSE_ENDS:
            start -= 1
        return self.lowered[start : match.start()]

    def clause_after(self, match: re.Match[str], characters: int = 40) -> str:
        """Return what stands after a match, up to punctuation or to what was understood before."""
        end = match.end()
        most = min(len(self.lowered), end + characters)
        while end < most and not self.taken[end] and self.lowered[end] not in CLAUSE_ENDS:
            end += 1
        return self.lowered[match.end() : end]

    def negated(self, match: re.Match[str], words: int = 3) -> bool:
        """Return whether a word before a match takes it back: `no MIT licence`, `must not run in an enclave`.

        Args:
            match: What may be negated.
            words: How many may stand between the two.
        """
        found = _NEGATION.search(self.clause_before(match))
        return found is not None and len(found["between"].split()) <= words

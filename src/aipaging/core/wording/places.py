"""Where: the client's access domain, the regions and the jurisdictions of the data.

Names of countries and unions come from a table (ISO 3166-1, EU and EEA membership as of 2026); names of regions and
access domains from the catalogue. An exclusion ("not in the US") is what the catalogue offers less what is excluded:
an intent lists what is allowed, so what nobody knows of is not allowed either.
"""

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from aipaging.core.anchor.intent import LIST_ITEMS_MAX
from aipaging.core.wording.reading import Vocabulary
from aipaging.core.wording.scan import Scan

EU: Final = (
    "at", "be", "bg", "hr", "cy", "cz", "dk", "ee", "fi", "fr", "de", "gr", "hu", "ie",
    "it", "lv", "lt", "lu", "mt", "nl", "pl", "pt", "ro", "sk", "si", "es", "se",
)  # fmt: skip
EEA: Final = (*EU, "is", "li", "no")
UNIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({"eu": EU, "eea": EEA})

_COUNTRIES: Final = MappingProxyType(
    {
        "at": "austria|austrian", "be": "belgium|belgian", "bg": "bulgaria|bulgarian", "hr": "croatia|croatian",
        "cy": "cyprus", "cz": "czechia|czech republic", "dk": "denmark", "ee": "estonia", "fi": "finland",
        "fr": "france|french", "de": "germany|german", "gr": "greece", "hu": "hungary", "ie": "ireland|irish",
        "it": "italy|italian", "lv": "latvia", "lt": "lithuania", "lu": "luxembourg", "mt": "malta",
        "nl": "netherlands|holland|dutch", "pl": "poland|polish", "pt": "portugal|portuguese", "ro": "romania",
        "sk": "slovakia", "si": "slovenia", "es": "spain|spanish", "se": "sweden|swedish", "is": "iceland",
        "li": "liechtenstein", "no": "norway|norwegian", "ch": "switzerland|swiss",
        "gb": "united kingdom|great britain|britain|british|uk", "us": "united states|america|american|u\\.s\\.|usa",
        "ca": "canada|canadian", "jp": "japan|japanese", "in": "india|indian", "sg": "singapore", "cn": "china|chinese",
        "kr": "south korea|korea|korean", "au": "australia|australian", "br": "brazil|brazilian",
        "ar": "argentina", "cl": "chile", "co": "colombia", "eg": "egypt", "hk": "hong kong", "id": "indonesia",
        "il": "israel|israeli", "ir": "iran|iranian", "ke": "kenya", "ma": "morocco", "mx": "mexico|mexican",
        "my": "malaysia", "ng": "nigeria", "nz": "new zealand", "pe": "peru", "ph": "philippines", "pk": "pakistan",
        "qa": "qatar", "rs": "serbia", "ru": "russia|russian", "sa": "saudi arabia", "th": "thailand",
        "tr": "turkey|turkish", "tw": "taiwan|taiwanese", "ua": "ukraine|ukrainian",
        "ae": "united arab emirates|emirates|uae|dubai", "vn": "vietnam|vietnamese", "za": "south africa",
    }
)  # fmt: skip
_UNION_NAMES: Final = MappingProxyType(
    {"eu": "european union|eu|e\\.u\\.|european soil|europe|european", "eea": "european economic area|eea"}
)

_DEMONYMS: Final = frozenset(
    {
    "austrian", "belgian", "bulgarian", "croatian", "french", "german", "irish", "italian",
    "dutch", "polish", "portuguese", "spanish", "swedish", "norwegian", "swiss", "british",
    "american", "canadian", "japanese", "israeli", "iranian", "mexican", "russian", "turkish", "taiwanese", "ukrainian",
    "vietnamese", "indian", "chinese", "korean", "australian", "brazilian",
    "european",
    }
)  # fmt: skip
_SITE_NOUNS: Final = (
    r"(?:servers?|data\s?cent(?:er|re)s?|soil|law|jurisdiction|cloud|hosting|hosted|sites?|machines|"
    r"territory|borders|providers?|operators?|residency|infrastructure|hardware|locations?)"
)
_SITE: Final = re.compile(rf"^[\s-](?:\w+\s)?(?:{_SITE_NOUNS}|only)\b")
_ONLY: Final = re.compile(rf"^(?:\s{_SITE_NOUNS})?\s(?:only|exclusively)\b")
_US_AS_CODE: Final = re.compile(r"\bUS\b")

_GLUE: Final = (
    r"(?:\s(?:in|the|of|any|to|into|use|used|using|for|by|go|goes|be|is|are|run|running|sent|send|hosted|host|processed|"
    r"process|processing|stored|store|kept|keep|from|reach|touch|via|through|on|at|data|servers?|anywhere|it|them|want|"
    r"allowed|inside|within))*"
)
_NO: Final = (
    r"(?:\b(?:not|no|never|cannot|nowhere|nothing|none|neither|nor|without)\b|n['\u2019]t\b)"
    r"(?!\s(?:only|just|merely)\b)"
)
_AWAY: Final = (
    r"\b(?:except(?:\sfor)?|excluding|exclude|exclusive\sof|avoid(?:ing)?|outside(?:\sof)?|beyond|"
    r"(?:other|rather|elsewhere|else|different)\sthan|apart\sfrom|instead\sof|over|"
    r"(?:any|every|all)(?:where|thing|\s\w+)?\sbut|nowhere\s(?:else\s)?but|nothing\sbut)"
)
_AWAY_FROM: Final = re.compile(rf"{_AWAY}{_GLUE}\s?$")
_NOT_AWAY_FROM: Final = re.compile(
    rf"(?:{_NO}[^.]{{0,40}}\s{_AWAY}|\b(?:nowhere\s(?:else\s)?but|nothing\sbut)){_GLUE}\s?$"
)
_NOT: Final = re.compile(rf"{_NO}{_GLUE}\s?$")
_NON: Final = re.compile(r"\b(?:non|anti|minus|without)[\s-](?:the\s)?$")
_RULED_OUT: Final = re.compile(
    rf"^(?:\s{_SITE_NOUNS})?\s(?:(?:is|are|be|must|should|may|can|to)\s)*(?:excluded|forbidden|prohibited|banned|disallowed|"
    r"ruled\sout|unacceptable|off[\s-]limits|(?:a\s)?no[\s-]go|"
    r"not\s(?:be\s)?(?:allowed|permitted|ok|okay|acceptable|an\soption|possible|used|included|fine))\b"
)
_MAYBE_RULED_OUT: Final = re.compile(
    rf"^(?:\s{_SITE_NOUNS})?\s(?:(?:is|are|be|must|should|may|can|does|do|would)\s?)+(?:not|n['\u2019]t|never)\b"
)
_NOR: Final = re.compile(rf"\bnor{_GLUE}\s?$")
_NOT_FAR: Final = re.compile(rf"{_NO}(?:\s(?!but\b)[\w'-]+){{1,5}}\s?$")
_LEAVE: Final = re.compile(r"\b(?:leav(?:e|es|ing)|exits?|exiting)(?:\s(?:the|of))*\s?$")
_NOT_LEAVE: Final = re.compile(rf"{_NO}[\w\s']{{0,24}}\b(?:leav(?:e|es|ing)|exits?|exiting)(?:\s(?:the|of))*\s?$")
_LINK: Final = re.compile(
    rf"^(?:\s{_SITE_NOUNS})?\s?,?\s?(?:and|or|nor|&|as\swell\sas)\s(?:also\s)?(?:in\s|from\s)?(?:the\s|any\s)?$"
)
_COMMA: Final = re.compile(rf"^(?:\s{_SITE_NOUNS})?\s?[,/]\s?(?:in\s|from\s)?(?:the\s|any\s)?$")
_BUT_ALSO: Final = re.compile(r"^\s?,?\s?but\s(?:also\s)(?:in\s|from\s)?(?:the\s)?$")
_PEOPLE: Final = r"(?:users?|clients?|customers?|devices?|callers?|phones?)"
_CLIENT: Final = re.compile(
    rf"\b(?:from|{_PEOPLE}\s(?:(?:who\s)?(?:are|sit|live)\s)?in|we(?:'re|\sare)\s(?:in|at)|i(?:'m|"
    r"\sam)\s(?:in|at)|office\sin|based\sin|"
    r"located\sin|connected\s(?:to|at|via)|"
    r"calling\sfrom|access|near)(?:\s(?:the|our|my))*\s?$"
)
_CLIENTS: Final = re.compile(rf"^\s(?:{_PEOPLE}|office)\b")


class _Polarity(enum.Enum):
    """What is said of a place."""

    ALLOWED = "allowed"
    EXCLUDED = "excluded"
    UNCLEAR = "unclear"
    CLIENT = "where the client is"


@dataclass(frozen=True, slots=True)
class _Named:
    """A place that is named: jurisdictions, or a region of the catalogue."""

    match: re.Match[str]
    names: tuple[str, ...]
    region: bool


@dataclass(slots=True, kw_only=True)
class _Mention:
    """A place in the sentence.

    Attributes:
        start: Of the words, in the lowered text.
        end: Likewise, exclusive.
        region: Whether it is a region of the catalogue, not a jurisdiction.
        names: The jurisdictions, or the region.
        own: What is said of it alone, or None: then it may be part of a list.
        only: Whether "only" follows.
        ruled_out: Whether that holds for those before it in a list, too: "is excluded" behind it, a "nor" before it.
    """

    start: int
    end: int
    region: bool
    names: tuple[str, ...]
    own: _Polarity | None
    only: bool
    ruled_out: bool


def read_places(scan: Scan, vocabulary: Vocabulary) -> None:
    """Read access domain, regions and jurisdictions."""
    _access_names(scan, vocabulary)
    named = sorted((*_countries(scan, vocabulary), *_region_names(scan, vocabulary)), key=lambda one: one.match.start())
    for one in named:
        scan.take(one.match)
    found = [_mention(scan, one) for one in named]
    said = list(zip(found, _polarities(scan, found), strict=True))
    for mention, polarity in said:
        if polarity is _Polarity.UNCLEAR:
            _ask(scan, vocabulary, mention)
        elif polarity is _Polarity.CLIENT:
            _client_in(scan, vocabulary, mention)
    _say(scan, "jurisdictions", vocabulary.jurisdictions, [one for one in said if not one[0].region])
    _say(scan, "regions", vocabulary.regions, [one for one in said if one[0].region])


def _countries(scan: Scan, vocabulary: Vocabulary) -> Iterator[_Named]:
    seen: set[int] = set()
    for code, pattern in _patterns():
        for match in scan.matches(pattern):
            # "South Africa" and "US" are not looked at twice.
            if _is_place(scan, code, match) and not seen & set(range(*match.span())):
                seen.update(range(*match.span()))
                yield _Named(match, _members(code, vocabulary), region=False)


def _patterns() -> Iterable[tuple[str, re.Pattern[str]]]:
    for code, names in (*_UNION_NAMES.items(), *_COUNTRIES.items()):
        yield code, re.compile(rf"\b(?:{names})(?!\w)")
    yield "us", re.compile(r"\bus\b")


def _region_names(scan: Scan, vocabulary: Vocabulary) -> Iterator[_Named]:
    names = {*vocabulary.regions, *vocabulary.access.values()}
    seen: set[int] = set()
    for name in sorted(names, key=lambda name: (-len(name), name)):
        for match in scan.matches(_word(name)):
            if not seen & set(range(*match.span())):
                seen.update(range(*match.span()))
                yield _Named(match, (name,), region=True)


def _mention(scan: Scan, named: _Named) -> _Mention:
    match = named.match
    own = _own(scan, match)
    if own is None and named.region and (_CLIENT.search(scan.before(match)) or _CLIENTS.search(scan.after(match))):
        own = _Polarity.CLIENT
    return _Mention(
        start=match.start(),
        end=match.end(),
        region=named.region,
        names=named.names,
        own=own,
        only=_ONLY.search(scan.after(match)) is not None,
        ruled_out=any(said.search(scan.clause_after(match)) for said in (_RULED_OUT, _MAYBE_RULED_OUT))
        or _NOR.search(scan.clause_before(match)) is not None,
    )


def _own(scan: Scan, match: re.Match[str]) -> _Polarity | None:
    """Return what the words around a place say of it; None: nothing."""
    before = scan.clause_before(match)
    after = scan.clause_after(match)
    if _RULED_OUT.search(after) or _NON.search(before):
        return _Polarity.EXCLUDED
    if _MAYBE_RULED_OUT.search(after):
        return _Polarity.UNCLEAR
    if _LEAVE.search(before):
        return _Polarity.ALLOWED if _NOT_LEAVE.search(before) else _Polarity.UNCLEAR
    if _NOT_AWAY_FROM.search(before):
        return _Polarity.ALLOWED
    if _AWAY_FROM.search(before) or _NOT.search(before):
        return _Polarity.EXCLUDED
    return _Polarity.UNCLEAR if _NOT_FAR.search(before) else None


def _polarities(scan: Scan, found: Sequence[_Mention]) -> list[_Polarity]:
    """Return what is said of each place; in a list, what is said of the first holds for the others."""
    polarities: list[_Polarity | None] = []
    for place, mention in enumerate(found):
        before = polarities[-1] if polarities else None
        polarities.append(mention.own or (_continued(scan, found, place, before) if before else None))
    _held_back(scan, found, polarities)
    return [polarity or _Polarity.ALLOWED for polarity in polarities]


def _held_back(scan: Scan, found: Sequence[_Mention], polarities: list[_Polarity | None]) -> None:
    """Let what follows the last place of a list hold for those before it: "the US and Ireland are excluded"."""
    listed = False
    for place in range(len(found) - 1, 0, -1):
        link = _link(scan, found, place)
        listed = link == "and" or (listed and link == ",")
        if link is None or not found[place].ruled_out or polarities[place - 1] is not None:
            continue
        # "In France, the US is excluded" is no list.
        polarities[place - 1] = polarities[place] if listed else _Polarity.UNCLEAR
        found[place - 1].ruled_out = listed


def _continued(scan: Scan, found: Sequence[_Mention], place: int, before: _Polarity) -> _Polarity | None:
    """Return what a place is said to be by the list that it continues, or None if it continues none."""
    link = _link(scan, found, place)
    if link is None or before is _Polarity.ALLOWED:
        return None
    if before is _Polarity.CLIENT:
        return before if found[place].region else None
    if link == "and":
        return _Polarity.UNCLEAR if found[place].only else before
    if found[place].only:
        return None
    while (link := _link(scan, found, place + 1)) == ",":
        place += 1
    # "not in the US, Ireland or France" is a list; "not in the US, Ireland" may be one, or not.
    return before if link == "and" else _Polarity.UNCLEAR


def _link(scan: Scan, found: Sequence[_Mention], place: int) -> str | None:
    """Return what stands between a place and the one before it: `and`, `,`, or None for anything else."""
    if place >= len(found):
        return None
    between = scan.lowered[found[place - 1].end : found[place].start]
    return "and" if _LINK.search(between) else "," if _COMMA.search(between) else None


def _is_place(scan: Scan, code: str, match: re.Match[str]) -> bool:
    said = match[0]
    if said == "us" and code == "us":
        # "US" is a country, "us" are the people who ask.
        return bool(_US_AS_CODE.fullmatch(scan.written(match)))
    if said in _DEMONYMS:
        # French servers are a place; French text is a language.
        return bool(_SITE.search(scan.after(match)))
    return True


def _members(code: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the catalogue's jurisdictions that lie in a country or union; its own code if there is none."""
    codes = {code, *UNIONS.get(code, ())}
    known = tuple(name for name in vocabulary.jurisdictions if name.casefold() in codes)
    return known or (code,)


def _access_names(scan: Scan, vocabulary: Vocabulary) -> None:
    for domain in sorted(vocabulary.access, key=len, reverse=True):
        for match in scan.matches(_word(domain)):
            scan.take(match, "place", str(domain))


def _say(scan: Scan, field: str, offered: Sequence[str], said: Sequence[tuple[_Mention, _Polarity]]) -> None:
    """Say what is left of the places that are offered, or ask where nothing is."""
    allowed = [mention for mention, polarity in said if polarity is _Polarity.ALLOWED]
    banned = [mention for mention, polarity in said if polarity is _Polarity.EXCLUDED]
    if not allowed and not banned:
        return
    names = set(offered)
    if allowed:
        # Two that are not one list both hold: "EU only; the data stays in France".
        names = set[str].intersection(*_listed(scan, allowed))
    names -= {name for mention in banned for name in mention.names}
    if not names or len(names) > LIST_ITEMS_MAX:
        scan.ask(field, f"none of the {field} that are offered is left: where may the data be processed?", *offered[:8])
        return
    start, end = min(one.start for one in (*allowed, *banned)), max(one.end for one in (*allowed, *banned))
    scan.say(field, tuple(sorted(names)), start, end)


def _listed(scan: Scan, allowed: Sequence[_Mention]) -> list[set[str]]:
    """Return the names of each list of places, such as "Germany or France"."""
    lists = [set(allowed[0].names)]
    for place in range(1, len(allowed)):
        names = set(allowed[place].names)
        between = scan.lowered[allowed[place - 1].end : allowed[place].start]
        nested = names <= lists[-1] or names >= lists[-1]
        by_comma = _COMMA.search(between) is not None and not nested and not allowed[place].only
        if by_comma or _LINK.search(between) or _BUT_ALSO.search(between):
            lists[-1] |= names
        else:
            lists.append(names)
    return lists


def _ask(scan: Scan, vocabulary: Vocabulary, mention: _Mention) -> None:
    field, offered = ("regions", vocabulary.regions) if mention.region else ("jurisdictions", vocabulary.jurisdictions)
    words = scan.lowered[mention.start : mention.end]
    scan.ask(field, f"may the data be processed in {words!r}, or not? name the {field} that are allowed", *offered[:8])


def _client_in(scan: Scan, vocabulary: Vocabulary, mention: _Mention) -> None:
    (region,) = mention.names
    domains = sorted(domain for domain, where in vocabulary.access.items() if where == region)
    if len(domains) == 1:
        scan.say("place", str(domains[0]), mention.start, mention.end)
    else:
        choices = domains or sorted(vocabulary.access)
        scan.ask("place", f"{region!r}: which access domain is the client in?", *choices[:8])


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-]){re.escape(name.lower())}(?![\w-])")

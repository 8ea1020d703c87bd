"""Where: the client's access domain, the regions and the jurisdictions of the data.

Names of countries and unions come from a table (ISO 3166-1, EU and EEA membership as of 2026); names of regions and
access domains from the catalogue. An exclusion ("not in the US") is what the catalogue offers less what is excluded:
an intent lists what is allowed, so what nobody knows of is not allowed either.
"""

import re
from collections.abc import Iterable, Mapping
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
    }
)  # fmt: skip
_UNION_NAMES: Final = MappingProxyType(
    {"eu": "european union|eu|e\\.u\\.|european soil|europe|european", "eea": "european economic area|eea"}
)

_DEMONYMS: Final = frozenset(
    {
    "austrian", "belgian", "bulgarian", "croatian", "french", "german", "irish", "italian",
    "dutch", "polish", "portuguese", "spanish", "swedish", "norwegian", "swiss", "british",
    "american", "canadian", "japanese", "indian", "chinese", "korean", "australian", "brazilian",
    "european",
    }
)  # fmt: skip
_SITE: Final = re.compile(
    r"^[\s-](?:\w+\s)?(?:servers?|data\s?cent(?:er|re)s?|soil|law|jurisdiction|cloud|hosting|"
    r"hosted|sites?|machines|territory|"
    r"borders|providers?|operators?|territory|only|residency|infrastructure|hardware|locations?)\b"
)
_US_AS_CODE: Final = re.compile(r"\bUS\b")
_WITHOUT: Final = re.compile(
    r"\b(?:not|no|never|except|excluding|exclude|outside(?:\sof)?|but|avoid|without|other\sthan|rather\sthan)"
    r"(?:\s(?:in|the|of|any|to|into|use|for|by|go\sto|be\sin|leave\sto|from|reach|touch))*\s?$"
)
_LEAVE: Final = re.compile(r"\b(?:leav(?:e|es|ing)|outside(?:\sof)?|exits?|exiting)(?:\s(?:the|of))*\s?$")
_NEGATED_LEAVE: Final = re.compile(
    r"\b(?:not|never|n't|no|cannot|without|may\snot|must\snot)\b[\w\s']{0,24}\b(?:leav(?:e|es|"
    r"ing)|outside(?:\sof)?|exits?|exiting)"
    r"(?:\s(?:the|of))*\s?$"
)
_CLIENT: Final = re.compile(
    r"\b(?:from|users?\sin|clients?\sin|customers?\sin|we(?:'re|\sare)\s(?:in|at)|i(?:'m|"
    r"\sam)\s(?:in|at)|office\sin|based\sin|"
    r"located\sin|devices?\sin|callers?\sin|phones?\sin|connected\s(?:to|at|via)|"
    r"calling\sfrom|access|near)(?:\s(?:the|our|my))*\s?$"
)


def read_places(scan: Scan, vocabulary: Vocabulary) -> None:
    """Read access domain, regions and jurisdictions."""
    _access_names(scan, vocabulary)
    allowed: list[tuple[int, int, tuple[str, ...]]] = []
    refused: list[tuple[int, int, tuple[str, ...]]] = []
    for code, pattern in _patterns():
        for match in scan.matches(pattern):
            if not _is_place(scan, code, match):
                continue
            scan.take(match)
            (refused if _excluded(scan, match) else allowed).append((*match.span(), _members(code, vocabulary)))
    _say_jurisdictions(scan, vocabulary, allowed, refused)
    _regions(scan, vocabulary)


def _patterns() -> Iterable[tuple[str, re.Pattern[str]]]:
    for code, names in (*_UNION_NAMES.items(), *_COUNTRIES.items()):
        yield code, re.compile(rf"\b(?:{names})(?!\w)")
    yield "us", re.compile(r"\bus\b")


def _is_place(scan: Scan, code: str, match: re.Match[str]) -> bool:
    said = match[0]
    if said == "us" and code == "us":
        # "US" is a country, "us" are the people who ask.
        return bool(_US_AS_CODE.fullmatch(scan.written(match)))
    if said in _DEMONYMS:
        # French servers are a place; French text is a language.
        return bool(_SITE.search(scan.after(match)))
    return True


def _excluded(scan: Scan, match: re.Match[str]) -> bool:
    before = scan.before(match, 64)
    if _LEAVE.search(before):
        return not _NEGATED_LEAVE.search(before)
    return bool(_WITHOUT.search(before))


def _members(code: str, vocabulary: Vocabulary) -> tuple[str, ...]:
    """Return the catalogue's jurisdictions that lie in a country or union; its own code if there is none."""
    codes = {code, *UNIONS.get(code, ())}
    known = tuple(name for name in vocabulary.jurisdictions if name.casefold() in codes)
    return known or (code,)


def _say_jurisdictions(
    scan: Scan,
    vocabulary: Vocabulary,
    allowed: list[tuple[int, int, tuple[str, ...]]],
    refused: list[tuple[int, int, tuple[str, ...]]],
) -> None:
    banned = {name for _, _, names in refused for name in names}
    if allowed:
        names = {name for _, _, names in allowed for name in names} - banned
    elif refused:
        names = set(vocabulary.jurisdictions) - banned
    else:
        return
    if not names or len(names) > LIST_ITEMS_MAX:
        scan.ask("jurisdictions", "no jurisdiction that is offered is left: where may the data be processed?")
        return
    spans = [*allowed, *refused]
    start, end = min(start for start, _, _ in spans), max(end for _, end, _ in spans)
    scan.say("jurisdictions", tuple(sorted(names)), start, end)


def _access_names(scan: Scan, vocabulary: Vocabulary) -> None:
    for domain in sorted(vocabulary.access, key=len, reverse=True):
        for match in scan.matches(_word(domain)):
            scan.take(match, "place", str(domain))


def _regions(scan: Scan, vocabulary: Vocabulary) -> None:
    """Read names of regions: where the client is, or where the data may be."""
    names = {*vocabulary.regions, *vocabulary.access.values()}
    kept: list[tuple[int, int, str]] = []
    for name in sorted(names, key=lambda name: (-len(name), name)):
        for match in scan.matches(_word(name)):
            scan.take(match)
            if _CLIENT.search(scan.before(match)):
                _client_in(scan, vocabulary, name, match)
            elif _excluded(scan, match):
                rest = tuple(sorted(set(vocabulary.regions) - {name}))
                scan.say("regions", rest, *match.span())
            else:
                kept.append((*match.span(), name))
    if kept:
        allowed = tuple(sorted({name for _, _, name in kept}))
        scan.say("regions", allowed, min(start for start, _, _ in kept), max(end for _, end, _ in kept))


def _client_in(scan: Scan, vocabulary: Vocabulary, region: str, match: re.Match[str]) -> None:
    domains = sorted(domain for domain, where in vocabulary.access.items() if where == region)
    if len(domains) == 1:
        scan.say("place", str(domains[0]), *match.span())
    else:
        choices = domains or sorted(vocabulary.access)
        scan.ask("place", f"{match[0]!r}: which access domain is the client in?", *choices[:8])


def _word(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-]){re.escape(name.lower())}(?![\w-])")

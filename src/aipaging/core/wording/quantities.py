"""Percentiles, delays, rates, bursts, durations and money, by a grammar: the same words give the same numbers.

What is not a field of an intent (availability, spend per month, tokens per second) is asked about, never dropped.
"""

import re
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from aipaging.core.wording.numbers import AMBIGUOUS, NUMBER, value_of
from aipaging.core.wording.scan import Scan

_US: Final = r"us|µs|μs|microseconds?"
_MS: Final = r"ms|msecs?|millis|milliseconds?"
_S: Final = r"s|secs?|seconds?"
_MIN: Final = r"m|mins?|minutes?"
_H: Final = r"h|hrs?|hours?"
_D: Final = r"d|days?"
_W: Final = r"weeks?"

_MS_OF: Final = MappingProxyType(
    {_US: Decimal("0.001"), _MS: Decimal(1), _S: Decimal(1000), _MIN: Decimal(60_000), _H: Decimal(3_600_000),
     _D: Decimal(86_400_000), _W: Decimal(604_800_000)}
)  # fmt: skip
_UNIT: Final = "|".join(_MS_OF)
TIME: Final = (
    rf"(?P<number>{NUMBER})[\s-]?(?P<unit>{_UNIT})\b"
    rf"(?:\s(?:and\s)?(?P<more>{NUMBER})\s?(?P<less>{_MIN}|{_S})\b|\sand\sa\s(?P<part>half|quarter)\b)?"
)
LONE_DELAY_MS_MAX: Final = 60_000
"""A time that stands alone, below a minute, is a delay: nobody pages a session for seconds."""

_REQUESTS: Final = (
    "requests?|reqs?|queries|query|calls?|embeddings?|messages?|sentences?|documents?|docs?|images?|pictures?|photos?|"
    "prompts?|texts?|hits|transactions?|lookups?|inferences?|completions?|answers?|items?|clips?|utterances?"
)
_THESE: Final = rf"(?:\s(?:[a-z]+\s)?(?:{_REQUESTS}))?"
_EACH: Final = r"(?:\s?/\s?|\s(?:per|each|every|an?)\s)"

_PERIODS_S: Final = MappingProxyType(
    {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "m": 60, "h": 3600, "hr": 3600, "hour": 3600, "d": 86400,
     "day": 86400, "week": 604_800}
)  # fmt: skip
_PERIOD: Final = "|".join(sorted(_PERIODS_S, key=len, reverse=True))

_RATE: Final = re.compile(rf"(?P<number>{NUMBER})(?P<what>{_THESE}){_EACH}(?P<period>{_PERIOD})\b")
_PART_OF_ONE: Final = frozenset({"a", "an", "half", "quarter"})
"""Half a second is a time, half a request a second is a rate."""
_SHORT_RATE: Final = re.compile(rf"(?P<number>{NUMBER})\s?(?P<unit>rps|qps|tps|rpm|qpm|rph)\b")
_SHORT_PERIODS_S: Final = MappingProxyType({"rps": 1, "qps": 1, "tps": 1, "rpm": 60, "qpm": 60, "rph": 3600})
_TOKEN_RATE: Final = re.compile(rf"{NUMBER}\s(?:[a-z]+\s)?tokens?{_EACH}(?:{_PERIOD})\b")
_EACH_OF_THEM: Final = re.compile(
    r"^\s?(?:each|apiece|per\s(?:client|user|tenant|device|person|customer|site)|a\shead)\b"
)
_VAGUE: Final = re.compile(
    rf"\b(?:an?\s)?(?:few|several|couple(?:\sof)?|handful\sof|dozens?\sof|hundreds?\sof|thousands?\sof|lots\sof|many|some)"
    rf"\s(?:(?:dozen|hundred|thousand)s?\s(?:of\s)?)?"
    rf"(?:(?P<unit>{_UNIT})\b|(?:[a-z]+\s)?(?:{_REQUESTS}){_EACH}(?:{_PERIOD})\b)"
)
_BURST: Final = re.compile(
    rf"\bbursts?\s?(?:of|up\sto|to|size|=|:|is)?\s?(?:up\sto\s)?(?P<a>{NUMBER})\b{_THESE}"
    rf"|(?P<b>{NUMBER}){_THESE}\s(?:at\sonce|at\sa\stime|in\sa\sburst|in\sone\sburst|"
    rf"back\sto\sback|simultaneously|concurrently|in\sparallel)"
    rf"|(?P<c>{NUMBER})\s(?:concurrent|simultaneous|parallel){_THESE}"
    rf"|spikes?\sof\s(?:up\sto\s)?(?P<d>{NUMBER}){_THESE}"
)

_NINES: Final = re.compile(rf"(?P<number>{NUMBER})\snines\b")
_PERCENTILE: Final = re.compile(
    r"\bp\s?(?P<p>[5-9]\d(?:[.,]\d+)?|9{3,9}5?|95|99)\b"
    rf"|(?P<th>{NUMBER})(?:th|st|nd|rd)?[\s-]percentile\b"
    r"|\bpercentile\s?(?P<after>\d+(?:[.,]\d+)?)"
    r"|\b(?P<median>median)\b"
)
_ONE_IN: Final = re.compile(
    rf"\b(?P<few>{NUMBER}|once)\s(?:request\s|call\s|times?\s|cases?\s)?(?:in|out\sof)\s(?:every\s)?"
    rf"(?P<many>{NUMBER})\b(?!\s?(?:{_UNIT})\b|[\s-]{NUMBER})(?:\s(?:times|cases)\b|{_THESE})"
)
"""A share of requests; "one request in 10 seconds" is a rate."""
_PERCENT: Final = re.compile(
    rf"(?P<number>{NUMBER})\s?(?:%|percent\b|per\scent\b)(?:\sof\s(?:the\s|all\s|my\s)?[a-z]+)?"
)
_MISSED: Final = re.compile(
    r"\b(?:slower|exceed\w*|miss\w*|violat\w*|late|longer|above|over|fail\w*|lost|loss|breach\w*)\b"
)
_NOT_OURS: Final = re.compile(r"\b(?:uptime|availability|available|discount|accuracy|accurate)\b")
_AVERAGE: Final = re.compile(
    r"\b(?:average|mean|avg|typical(?:ly)?|usually|mostly|most\sof\sthe\stime|(?:almost|nearly)\salways)\b"
)
_OTHER_PERCENTILE: Final = re.compile(r"(?<![\w.])p\s?\d+(?:[.,]\d+)?(?![\w.])")
_NO_PERCENT: Final = re.compile(r"^\s?(?:%|percent\b|per\scent\b|(?:th|st|nd|rd)\b|[\s-]percentile\b)")
_PERCENTILE_BEFORE: Final = re.compile(r"\bp(?:ercentile)?\s$")
_NEVER: Final = re.compile(
    r"\b(?:never(?!\s(?:outside|leav|in\s|go|to\s))|always|worst[\s-]case|guaranteed?|"
    r"hard\sreal[\s-]?time|without\sexception)\b"
)

_RATE_BEFORE: Final = re.compile(rf"(?:/\s?|per\s|an?\s)(?:{_PERIOD})\s(?:on\s)?$|\d\s?(?:rps|qps|rpm|qpm)\s(?:on\s)?$")

_TIME: Final = re.compile(TIME)
_DURATION_BEFORE: Final = re.compile(
    r"\b(?:for|during|over|lasting|lasts?|next|session\sof|need\sit|keep\sit|run\sfor|duration(?:\sof|:|\sis)?)"
    r"(?:\s(?:the|about|at\sleast|around|next|coming|another|up\sto))*\s?$"
)
_DURATION_AFTER: Final = re.compile(r"^[\s-]?(?:session|long\b|window|from\snow|in\stotal)")
_DELAY_BEFORE: Final = re.compile(
    r"(?:\b(?:under|below|within|in|than|most|max(?:imum)?|latency|delay|time|respond\w*|"
    r"answer\w*|reply|replies|to|of|is|by|"
    r"stay|budget|target|ttft|beyond|exceed\w*|above|over|cap(?:ped)?|limit|tail|median|"
    r"percentile|at)|[<≤=:]|p\s?\d+(?:[.,]\d+)?)\s?$"
)
_DELAY_AFTER: Final = re.compile(
    r"^[\s-]?(?:latency|delay|response|or\s(?:less|faster|better|below)|max\b|maximum|tops|"
    r"at\smost|tail|at\sp|at\sthe|p\s?\d\d|\(p|"
    r"to\sfirst|budget|limit|deadline|for\s\d)"
)
_AT_LEAST: Final = re.compile(
    r"(?:\bat\sleast|\b(?:not?|never)\s(?:less|faster|sooner|earlier|quicker|lower|below|under)(?:\sthan)?|"
    r"\bminimum(?:\sof)?|\bmin\.?|≥|>=)\s?$"
)
_FIRST_TOKEN: Final = re.compile(r"\b(?:first[\s-]tokens?|ttft|time[\s-]to[\s-]first[\s-]token)\b")
_ALL_DAY: Final = re.compile(r"\b(?:all\sday(?:\slong)?|the\swhole\sday|a\sfull\sday|around\sthe\sclock|24/7)\b")

_CURRENCIES: Final = MappingProxyType(
    {"€": "EUR", "$": "USD", "£": "GBP", "eur": "EUR", "euro": "EUR", "euros": "EUR", "usd": "USD", "dollar": "USD",
     "dollars": "USD", "bucks": "USD", "gbp": "GBP", "pound": "GBP", "pounds": "GBP", "chf": "CHF", "franc": "CHF",
     "francs": "CHF"}
)  # fmt: skip
_AMOUNT: Final = (
    rf"(?:(?P<sign>[€$£])\s?(?P<signed>{NUMBER})|(?P<plain>{NUMBER})\s?(?P<name>euros?|eur|usd|"
    rf"dollars?|bucks|gbp|pounds?|chf|"
    r"francs?|€|\$|£)(?!\w)"
    rf"|(?P<cents>{NUMBER})\s?(?P<cent>(?:euro\s)?cents?\b|cts?\b|¢))"
)
_MONEY: Final = re.compile(
    rf"{_AMOUNT}(?:(?:\s?/\s?|\s(?:per|for|a|an|each|"
    rf"every)\s)(?P<times>{NUMBER})?\s?(?P<scale>thousand|million|k|m)?\s?"
    rf"(?P<what>{_REQUESTS}|tokens?|month|week|{_PERIOD}|session|user)?\b)?"
)


def read_quantities(scan: Scan, currency: str) -> None:
    """Read every number with its unit; what is no field of an intent becomes a question."""
    _unclear(scan)
    _money(scan, currency)
    for match in scan.matches(_TOKEN_RATE):
        scan.ask("rate_rps", f"{match[0]!r}: rates are reserved in requests, not tokens: how many requests a second?")
        scan.take(match)
    _rates(scan)
    _risk(scan)
    for match in scan.matches(_BURST):
        number = match["a"] or match["b"] or match["c"] or match["d"]
        scan.take(match, "burst", int(value_of(number).to_integral_value(rounding="ROUND_CEILING")))
    for match in scan.matches(_FIRST_TOKEN):
        scan.take(match, None if scan.negated(match) else "delay_scope", "FIRST_TOKEN")
    _times(scan)


def _unclear(scan: Scan) -> None:
    """Ask about numbers that may be two, and about those that are none."""
    for match in scan.matches(AMBIGUOUS):
        after, before = scan.after(match, 12), scan.before(match, 12)
        if _NO_PERCENT.search(after) or _PERCENTILE_BEFORE.search(before):
            continue
        written = scan.written(match)
        point, thousands = written.rstrip("0").rstrip("."), written.replace(".", "")
        scan.ask("", f"does {written!r} mean {point} or {thousands}?", point, thousands)
        scan.take(match)
    for match in scan.matches(_VAGUE):
        field, what = ("delay_ms", "which time") if match["unit"] else ("rate_rps", "which rate")
        scan.ask(field, f"{scan.written(match)!r} is not a number: {what} is meant?")
        scan.take(match)


def _rates(scan: Scan) -> None:
    for match in scan.matches(_RATE):
        if not match["what"] and set(match["number"].split()) <= _PART_OF_ONE:
            continue
        _rate(scan, match, float(value_of(match["number"]) / _PERIODS_S[match["period"]]))
    for match in scan.matches(_SHORT_RATE):
        _rate(scan, match, float(value_of(match["number"]) / _SHORT_PERIODS_S[match["unit"]]))


def _rate(scan: Scan, match: re.Match[str], rate_rps: float) -> None:
    scan.take(match, "rate_rps", rate_rps)
    if _EACH_OF_THEM.search(scan.after(match)):
        scan.ask("rate_rps", f"{scan.written(match)!r} is of each: how many requests a second are they together?")


def _risk(scan: Scan) -> None:
    for match in scan.matches(_NINES):
        scan.take(match, "epsilon", float(Decimal(10) ** -int(value_of(match["number"]))))
    for match in scan.matches(_PERCENTILE):
        percentile = _percentile(match)
        if 50 <= percentile < 100:
            scan.take(match, "epsilon", float((100 - percentile) / 100))
    for match in scan.matches(_ONE_IN):
        few = Decimal(1) if match["few"] == "once" else value_of(match["few"])
        many = value_of(match["many"])
        if 0 < few < many:
            # Few of many are late; nine out of ten are in time.
            share = few / many
            scan.take(match, "epsilon", float(min(share, 1 - share)))
    for match in scan.matches(_PERCENT):
        _percent(scan, match)
    _other_risk(scan)


def _other_risk(scan: Scan) -> None:
    """Ask about percentiles that cannot be promised and, where no other is named, about what stands for one."""
    for match in scan.matches(_OTHER_PERCENTILE):
        scan.ask("epsilon", f"{scan.written(match)!r}: a percentile from p50 up to below p100 can be promised")
        scan.take(match)
    if scan.value("epsilon") is None:
        _vague_risk(scan)


def _percentile(match: re.Match[str]) -> Decimal:
    if match["median"]:
        return Decimal(50)
    if match["p"]:
        digits = match["p"].replace(",", ".")
        # p999 is written for 99.9: nobody means the 999th percentile.
        return Decimal(f"{digits[:2]}.{digits[2:]}") if "." not in digits and len(digits) > 2 else Decimal(digits)
    return value_of(match["th"]) if match["th"] else Decimal(match["after"].replace(",", "."))


def _percent(scan: Scan, match: re.Match[str]) -> None:
    # A share has no thousands: 99,999 % is written for 99.999 %.
    share = value_of(match["number"].replace(",", ".")) / 100
    around = scan.before(match, 24) + " " + scan.after(match, 24)
    if _NOT_OURS.search(around):
        scan.ask("", f"{match[0].strip()!r}: that is not something an intent can ask for; leave it out?")
        scan.take(match)
    elif Decimal("0.5") <= share < 1:
        scan.take(match, "epsilon", float(1 - share))
    elif 0 < share < Decimal("0.5") and _MISSED.search(scan.lowered):
        scan.take(match, "epsilon", float(share))


def _vague_risk(scan: Scan) -> None:
    for pattern, message in (
        (_AVERAGE, "an average is not promised: at which percentile must the delay target hold?"),
        (_NEVER, "a delay is promised up to a probability, never for certain: how often may the target be missed?"),
    ):
        found = pattern.search(scan.lowered)
        # "40 requests/s on average" is about the rate.
        if found and not _RATE_BEFORE.search(scan.before(found)):
            scan.ask("epsilon", f"{found[0]!r}: {message}", "p99", "p99.9", "p99.99")


def _times(scan: Scan) -> None:
    for match in scan.matches(_TIME):
        kind = _kind(scan, match, _length_ms(match))
        if kind is not None:
            _time(scan, match, kind)
    for match in scan.matches(_ALL_DAY):
        scan.take(match, "duration_s", 86_400)
    if scan.value("delay_ms") is None:
        for match in scan.matches(_TIME):
            if not match["more"] and _length_ms(match) < LONE_DELAY_MS_MAX:
                _time(scan, match, "delay_ms")


def _time(scan: Scan, match: re.Match[str], kind: str) -> None:
    milliseconds = _length_ms(match)
    if kind == "duration_s":
        scan.take(match, kind, int((milliseconds / 1000).to_integral_value(rounding="ROUND_CEILING")))
    elif _AT_LEAST.search(scan.before(match)):
        scan.ask(kind, f"'at least {scan.written(match)}': a delay has a largest value: which one?")
        scan.take(match)
    else:
        scan.take(match, kind, float(milliseconds))


def _length_ms(match: re.Match[str]) -> Decimal:
    """Return a time such as 250 ms, 1 h 30 min, or an hour and a half."""
    length = _milliseconds(match["number"], match["unit"])
    if match["more"]:
        length += _milliseconds(match["more"], match["less"])
    if match["part"]:
        length += _milliseconds(match["part"], match["unit"])
    return length


def _milliseconds(number: str, unit: str) -> Decimal:
    scale = next(scale for units, scale in _MS_OF.items() if re.fullmatch(units, unit))
    return value_of(number) * scale


def _kind(scan: Scan, match: re.Match[str], milliseconds: Decimal) -> str | None:
    """Return whether a time is a delay or a duration; None where nothing says so."""
    before, after = scan.before(match), scan.after(match)
    if _DURATION_AFTER.search(after) or (_DURATION_BEFORE.search(before) and milliseconds >= 1000):
        return "duration_s"
    if milliseconds < 1000 or _DELAY_BEFORE.search(before) or _DELAY_AFTER.search(after):
        return "delay_ms"
    return None


def _money(scan: Scan, currency: str) -> None:
    for match in scan.matches(_MONEY):
        scan.take(match)
        said = _CURRENCIES.get(match["sign"] or match["name"] or "", currency)
        if match["cents"] and match["cent"].startswith("euro"):
            said = "EUR"
        if said != currency:
            scan.ask("cost_max", f"{match[0].strip()!r}: prices here are in {currency}: how much is that?")
            continue
        amount = value_of(match["cents"]) / 100 if match["cents"] else value_of(match["signed"] or match["plain"])
        per = _per_requests(match)
        if per is None:
            scan.ask("cost_max", f"{match[0].strip()!r}: a price is per requests: how much per 1,000 requests?")
            continue
        if _AT_LEAST.search(scan.before(match)):
            scan.ask("cost_max", f"'at least {match[0].strip()}': a price has a largest value: which one?")
            continue
        scan.say("cost_max", int(amount * 1_000_000 * 1000 / per), match.start(), match.end())


def _per_requests(match: re.Match[str]) -> Decimal | None:
    """Return the number of requests that an amount is for, or None if it is for something else."""
    what, scale = match["what"] or "", match["scale"] or ""
    counted = bool(re.fullmatch(_REQUESTS, what))
    if not counted and (what or not (match["times"] or scale)):
        return None
    times = value_of(match["times"]) if match["times"] else Decimal(1)
    if not times:
        return None
    return times * {"thousand": 1000, "k": 1000, "million": 1_000_000, "m": 1_000_000}.get(scale, 1)

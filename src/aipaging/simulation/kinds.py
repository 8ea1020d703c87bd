"""Every table of a scenario file: its fields, what each may be, and what it means.

The reader checks against these tables and `aipaging simulate kinds` prints them, so neither can say what the other does
not know.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

PACKETS_MAX: Final = 10**12
"""More would run for half a day on one core; a mistyped number should not."""

REPLICATIONS: Final = 20
"""Student's t with 19 degrees of freedom makes intervals 7 % wider than the normal law; more runs, more warm-ups."""

REPLICATIONS_MAX: Final = 10_000
MODES_MAX: Final = 64

LEAST: Final = 1e-15
MOST: Final = 1e15
"""Of every number of a scenario but 0: beyond them clocks and sums of work lose their digits; no unit needs them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a value may be.

    Attributes:
        text: In words.
        accepts: Whether a value is one.
    """

    text: str
    accepts: Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _list_of(accepts: Callable[[Any], bool], least: int = 1) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(accepts, value))


def _positive(value: Any) -> bool:
    return _number(value) and LEAST <= value <= MOST


def _non_negative(value: Any) -> bool:
    return _number(value) and (value == 0 or _positive(value))


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _rate_or_rates(value: Any) -> bool:
    return _positive(value) or (isinstance(value, dict) and bool(value) and all(map(_positive, value.values())))


def _square(value: Any) -> bool:
    return _list_of(_list_of(_non_negative), 2)(value) and all(len(row) == len(value) for row in value)


def one_of(*names: str) -> Allowed:
    """Allow one of several words."""
    return Allowed(text="one of " + ", ".join(names), accepts=lambda value: value in names)


def up_to(most: int) -> Allowed:
    """Allow a whole number from 1."""
    return Allowed(
        text=f"a whole number from 1 to {most}", accepts=lambda value: _integer(value) and 1 <= value <= most
    )


POSITIVE: Final = Allowed(text=f"a number above 0 ({LEAST:g} to {MOST:g})", accepts=_positive)
NON_NEGATIVE: Final = Allowed(text="a number, at least 0", accepts=_non_negative)
PROBABILITY: Final = Allowed(text="a number from 0 to 1", accepts=lambda v: _non_negative(v) and v <= 1)
BELOW_ONE: Final = Allowed(text="a number from 0 to below 1", accepts=lambda v: _non_negative(v) and v < 1)
INTEGER: Final = Allowed(text="a whole number", accepts=_integer)
TEXT: Final = Allowed(text="a text that is not empty", accepts=_text)
FLAG: Final = Allowed(text="true or false", accepts=lambda v: isinstance(v, bool))
TABLE: Final = Allowed(text="a table", accepts=lambda v: isinstance(v, dict))
NAMES: Final = Allowed(text="a list of names, one at least", accepts=_list_of(_text))
POSITIVES: Final = Allowed(text="a list of numbers above 0", accepts=_list_of(_positive, 0))
WORKS: Final = Allowed(text="a list of numbers above 0, one at least", accepts=_list_of(_positive))
RATES: Final = Allowed(text="a list of numbers, at least 0, one per mode", accepts=_list_of(_non_negative, 2))
JUMPS: Final = Allowed(text="a square matrix of numbers, at least 0, one row per mode", accepts=_square)
UNITS: Final = one_of("us", "ms", "s")
RATE_OR_RATES: Final = Allowed(text="a number above 0, or a table from domain to number", accepts=_rate_or_rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a table.

    Attributes:
        allowed: What its value may be.
        meaning: What it says.
        default: What it is where it is absent.
        required: Whether it must be there.
    """

    allowed: Allowed
    meaning: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of something: what it is, and its keys beside `kind`."""

    meaning: str
    fields: Mapping[str, Field]


def _needed(allowed: Allowed, meaning: str) -> Field:
    return Field(allowed=allowed, meaning=meaning, required=True)


def _may(allowed: Allowed, meaning: str, default: Any = None) -> Field:
    return Field(allowed=allowed, meaning=meaning, default=default)


def _amount(meaning: str) -> Field:
    return _needed(POSITIVE, meaning)


def _rates(meaning: str) -> Field:
    return _needed(RATES, meaning)


def _kind(meaning: str, **fields: Field) -> Kind:
    return Kind(meaning=meaning, fields=MappingProxyType(fields))


_PROBABILITIES: Final = _needed(WORKS, "their probabilities, which add up to 1")
_JUMPS: Final = _needed(JUMPS, "rates of the jumps from each mode (row) to each other (column)")

ARRIVALS: Final[dict[str, Kind]] = {
    "poisson": _kind("independent exponential gaps", rate_per_ms=_amount("packets per ms")),
    "periodic": _kind("equal gaps from a random phase", interval_ms=_amount("the gap")),
    "on-off": _kind(
        "Poisson packets during exponential on-times, none during exponential off-times",
        rate_per_ms=_amount("packets per ms while on"),
        mean_on_ms=_amount("mean on-time"),
        mean_off_ms=_amount("mean off-time"),
    ),
    "mmpp": _kind(
        "Poisson packets whose rate follows a Markov chain of the tenant's own",
        rates_per_ms=_rates("packets per ms in each mode"),
        jumps_per_ms=_JUMPS,
    ),
    "modulated": _kind(
        "Poisson packets whose rate follows a [[modulator]] that tenants share: bursts that come together",
        modulator=_needed(TEXT, "name of the modulator"),
        rates_per_ms=_rates("packets per ms in each of its modes"),
    ),
    "correlated": _kind(
        "Poisson packets whose rate is drawn anew in every slot of a [[copula]] that tenants share: bursts that depend",
        copula=_needed(TEXT, "name of the copula"),
        rates_per_ms=_rates("packets per ms, one of which a slot has"),
        probabilities=_PROBABILITIES,
    ),
    "trace": _kind(
        "recorded packets, replayed in a circle; each replication begins at a random packet",
        file=_needed(TEXT, "the file, beside the scenario; `.gz` is unpacked"),
        format=_may(one_of("csv", "json-lines", "azure-llm", "mooncake", "servegen"), "how it is written", "csv"),
        time_column=_may(TEXT, "column of the instants, which never decrease; known for the named formats"),
        time_unit=_may(
            one_of("us", "ms", "s"), "their unit; without it what the column's name ends in (`_us`, `_ms`, `_s`), or ms"
        ),
        work_column=_may(TEXT, "column of the work; without it the tenant's `work` is drawn"),
        prompt_column=_may(TEXT, "column of the tokens of the prompt, for `batching`"),
        gap_max_ms=_may(POSITIVE, "refuse the trace if two packets are further apart: a hole in the record"),
    ),
}

WORK: Final[dict[str, Kind]] = {
    "exponential": _kind("P(X > x) = exp(-x / mean)", mean=_amount("mean work")),
    "constant": _kind("every packet brings the same", value=_amount("the work")),
    "uniform": _kind(
        "equally likely between two ends",
        low=_needed(NON_NEGATIVE, "least work"),
        high=_amount("most work"),
    ),
    "log-normal": _kind(
        "min(X, cap) with ln X normal: tokens under a max_tokens guardrail",
        median=_amount("median of X"),
        sigma=_amount("standard deviation of ln X"),
        cap=_amount("most work"),
    ),
    "pareto": _kind(
        "min(X, cap) with P(X > x) = (minimum / x)**alpha",
        minimum=_amount("least work"),
        alpha=_amount("index of the tail"),
        cap=_amount("most work"),
    ),
    "discrete": _kind(
        "one of several values",
        values=_needed(WORKS, "the values"),
        probabilities=_PROBABILITIES,
    ),
}

_NAME: Final = _needed(TEXT, "its name")
_LATENCY: Final = _may(NON_NEGATIVE, "ms added to every packet after its service", 0.0)
_RATE: Final = _amount("work per ms")

DISCIPLINES: Final[dict[str, Kind]] = {
    "fifo": _kind(
        "in the order of the arrivals",
        name=_NAME,
        rate_per_ms=_amount("work per ms of each server"),
        latency_ms=_LATENCY,
        servers=_may(up_to(4096), "servers that share one queue", 1),
        buffer_packets=_may(up_to(10**6), "most packets in the domain, those in service included; more are lost"),
        buffer_work=_may(POSITIVE, "most work in the domain; a packet that would exceed it is lost"),
        impairment=_may(TABLE, "how the link fails; see impairment"),
        retry=_may(TABLE, "service that ends in errors and is asked for again; see retry"),
    ),
    "priority": _kind(
        "the waiting packet of the tenant with the lowest `priority`; none is interrupted",
        name=_NAME,
        rate_per_ms=_RATE,
        latency_ms=_LATENCY,
    ),
    "reserved": _kind(
        "every tenant has its `reserved_rate_per_ms` at least: fluid processor sharing (GPS), simulated exactly",
        name=_NAME,
        rate_per_ms=_RATE,
        latency_ms=_LATENCY,
        work_conserving=_may(
            FLAG, "true: what nobody uses is shared in proportion; false: every tenant has its own server", default=True
        ),
    ),
    "fair": _kind(
        "whole packets by self-clocked fair queueing, weights are `reserved_rate_per_ms`",
        name=_NAME,
        rate_per_ms=_RATE,
        latency_ms=_LATENCY,
    ),
    "round-robin": _kind(
        "deficit round robin, every tenant has its `quantum` of work per turn",
        name=_NAME,
        rate_per_ms=_RATE,
        latency_ms=_LATENCY,
    ),
    "batching": _kind(
        "a language model with continuous batching; work is the number of tokens, rounded up",
        name=_NAME,
        latency_ms=_LATENCY,
        slots=_needed(up_to(4096), "requests that get a token in each iteration"),
        iteration_ms=_amount("time of an iteration whatever it holds"),
        per_slot_ms=_may(NON_NEGATIVE, "time that each slot in use adds", 0.0),
        prefill_ms=_may(NON_NEGATIVE, "time that a request adds to its first iteration", 0.0),
        prefill_ms_per_token=_may(NON_NEGATIVE, "time that every token of its `prompt` adds to it", 0.0),
        retry=_may(TABLE, "inference that ends in errors and is asked for again; see retry"),
    ),
    "delay": _kind(
        "recorded delays, given to packets one after another, whatever is sent: a link that was measured",
        name=_NAME,
        latency_ms=_LATENCY,
        file=_needed(TEXT, "CSV file with a heading, beside the scenario; `.gz` is unpacked"),
        delay_column=_needed(TEXT, "column of the delays"),
        delay_unit=_may(UNITS, "their unit; without it what the column's name ends in (`_us`, `_ms`, `_s`), or ms"),
        sequence_column=_may(TEXT, "column of sequence numbers; a packet whose number is missing was lost"),
    ),
}

IMPAIRMENTS: Final[dict[str, Kind]] = {
    "on-off": _kind(
        "exponential good and bad times; a packet in service meets both; in a bad time it is slower, or stopped",
        mean_good_ms=_amount("mean length of a good time"),
        mean_bad_ms=_amount("mean length of a bad time"),
        bad_rate_per_ms=_may(NON_NEGATIVE, "work per ms in a bad time", 0.0),
        loss_good=_may(PROBABILITY, "probability that a packet is lost whose service ends in a good time", 0.0),
        loss_bad=_may(PROBABILITY, "the same in a bad time", 0.0),
    ),
    "gilbert-elliott": _kind(
        "exponential good and bad times at the same rate; in a bad time more packets are lost",
        mean_good_ms=_amount("mean length of a good time"),
        mean_bad_ms=_amount("mean length of a bad time"),
        loss_good=_may(PROBABILITY, "probability that a packet is lost whose service ends in a good time", 0.0),
        loss_bad=_needed(PROBABILITY, "the same in a bad time"),
    ),
}

RETRIES: Final[dict[str, Kind]] = {
    "": _kind(
        "a service that ends in an error took its time; the packet asks again at the end of the queue",
        error_probability=_needed(BELOW_ONE, "probability that a service ends in an error"),
        backoff_ms=_may(NON_NEGATIVE, "wait before it asks again", 0.0),
        attempts_max=_may(up_to(8), "attempts in all; a packet whose last one fails is lost", 3),
    ),
}

COPULAS: Final[dict[str, Kind]] = {
    "gaussian": _kind(
        "normal law with one common factor",
        name=_NAME,
        slot_ms=_amount("how long a rate holds"),
        correlation=_needed(PROBABILITY, "of the normal numbers of any two tenants"),
    ),
    "student": _kind(
        "Student's law with one common factor: extremes come together more than normal ones",
        name=_NAME,
        slot_ms=_amount("how long a rate holds"),
        correlation=_needed(PROBABILITY, "of the underlying normal numbers of any two tenants"),
        degrees=_amount("degrees of freedom; fewer, stronger"),
    ),
}

REGULATORS: Final[dict[str, Kind]] = {
    kind: _kind(
        meaning,
        rate_per_ms=_amount("work per ms that may pass"),
        burst=_amount("work that may pass at once"),
    )
    for kind, meaning in {
        "policer": "a leaky bucket that loses packets which do not conform",
        "shaper": "a leaky bucket that holds packets until they conform; the wait counts as delay",
    }.items()
}

SCENARIO: Final = _kind(
    "the file",
    packets=_may(up_to(PACKETS_MAX), "packets to count, all tenants and replications together", 1_000_000),
    replications=_may(up_to(REPLICATIONS_MAX), "independent runs that they are divided into, 2 at least", REPLICATIONS),
)

TENANT: Final = _kind(
    "a stream of packets",
    name=_NAME,
    route=_needed(NAMES, "domains in order"),
    arrivals=_needed(TABLE, "when packets are sent; see arrivals"),
    work=_may(TABLE, "how much work each brings, the same at every domain; see work"),
    prompt=_may(TABLE, "tokens of the prompt of each, for `batching` with a time per token; a law of work"),
    work_at=_may(
        TABLE, "by domain of the route, after the first: a law of work drawn anew there and kept from there on"
    ),
    priority=_may(INTEGER, "for `priority`, lower first", 0),
    reserved_rate_per_ms=_may(RATE_OR_RATES, "work per ms, for `reserved` and `fair`"),
    quantum=_may(POSITIVE, "work per turn, for `round-robin`"),
    targets_ms=_may(POSITIVES, "delays whose exceedance is counted exactly", []),
    regulator=_may(TABLE, "what stands at its entrance; see regulator"),
)

MODULATOR: Final = _kind("a Markov chain that tenants share", name=_NAME, jumps_per_ms=_JUMPS)

ALL: Final[dict[str, dict[str, Kind]]] = {
    "scenario": {"": SCENARIO},
    "tenant": {"": TENANT},
    "modulator": {"": MODULATOR},
    "copula": COPULAS,
    "arrivals": ARRIVALS,
    "work": WORK,
    "discipline": DISCIPLINES,
    "impairment": IMPAIRMENTS,
    "regulator": REGULATORS,
    "retry": RETRIES,
}
"""All tables, by part of the file; the only kind of a part has the name ''."""


def document() -> dict[str, Any]:
    """Return all tables as plain values."""
    return {
        part: {
            name: {
                "help": kind.meaning,
                "fields": {
                    key: {
                        "allowed": field.allowed.text,
                        "help": field.meaning,
                        "required": field.required,
                        "default": field.default,
                    }
                    for key, field in kind.fields.items()
                },
            }
            for name, kind in kinds.items()
        }
        for part, kinds in ALL.items()
    }

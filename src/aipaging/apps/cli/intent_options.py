"""The options that an intent is made of, and the intent that file and options say together."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import click

from aipaging.apps.cli.quantities import Duration, Percentile, whole_seconds
from aipaging.core.foundation.errors import InvalidInputError

INTENT_BYTES_MAX: Final = 65_536
"""An intent is a page of text at most."""

_OPTIONS: Final = (
    click.option("--task", help="What is wanted, such as embeddings or chat."),
    click.option("--place", help="The access domain that the client is in."),
    click.option("--delay", "delay_ms", type=Duration(), help="Delay target, such as 250ms."),
    click.option("--epsilon", type=click.FloatRange(0, 0.5, min_open=True), help="How often it may be missed."),
    click.option("--percentile", type=Percentile(), help="The same, as the percentile that meets it: p99.9."),
    click.option("--first-token", is_flag=True, help="The delay is to the first token, not to the whole response."),
    click.option("--rate", "rate_per_second", type=float, help="Requests/s that are reserved."),
    click.option("--burst", type=int, help="Requests that may come at once."),
    click.option("--duration", "duration_ms", type=Duration(), help="How long, such as 10m."),
    click.option("--modality", help="On what; text by default."),
    click.option("--quality", metavar="BENCHMARK=SCORE", help="A least score on a named benchmark."),
    click.option("--language", help="ISO 639 code."),
    click.option("--region", "regions", multiple=True, help="Where data may be processed; may be repeated."),
    click.option("--jurisdiction", "jurisdictions", multiple=True, help="Likewise; may be repeated."),
    click.option("--licence", "licences", multiple=True, help="Acceptable model licence (SPDX); may be repeated."),
    click.option("--trust", "trust_min", type=click.IntRange(0, 5), help="Least trust level of every domain."),
    click.option(
        "--data-class",
        type=click.Choice(["public", "internal", "confidential", "restricted"]),
        help="What every domain must be cleared for.",
    ),
    click.option("--cost", "cost_max", type=int, help="Most per 1,000 requests, millionths of the currency."),
    click.option("--prefer", type=click.Choice(["cost", "delay", "quality"]), help="What ranks first."),
    click.option("--intent", "intent_file", type=click.Path(path_type=Path), help="Intent as JSON; flags override it."),
)


def intent_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that an intent is made of."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _quality(text: str) -> dict[str, Any]:
    benchmark, _, score = text.rpartition("=")
    try:
        least = float(score)
    except ValueError:
        least = None
    if not benchmark or least is None:
        raise InvalidInputError(
            f"--quality {text!r}: expected BENCHMARK=SCORE, such as sts-benchmark=80", field="quality"
        )
    return {"benchmark": benchmark, "scoreMin": least}


_PROPERTIES: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "task": ("task", str),
    "place": ("place", str),
    "delay_ms": ("delayMs", float),
    "epsilon": ("epsilon", float),
    "percentile": ("epsilon", float),
    "first_token": ("delayScope", lambda _: "FIRST_TOKEN"),
    "rate_per_second": ("ratePerSecond", float),
    "burst": ("burst", int),
    "duration_ms": ("durationS", whole_seconds),
    "modality": ("modality", str),
    "quality": ("quality", _quality),
    "language": ("language", str),
    "regions": ("regions", list),
    "jurisdictions": ("jurisdictions", list),
    "licences": ("licences", list),
    "trust_min": ("trustMin", int),
    "data_class": ("dataClass", str.upper),
    "cost_max": ("costMax", int),
    "prefer": ("prefer", str.upper),
}
"""By option: the property of the intent, and how its value gets there."""


def intent_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the intent that file and flags say together; a flag overrides the file.

    Raises:
        InvalidInputError: The file is not an intent, or flags contradict one another.
    """
    if options.get("epsilon") is not None and options.get("percentile") is not None:
        raise InvalidInputError("--epsilon and --percentile say the same: give one of them", field="epsilon")
    intent = _from_file(options.get("intent_file"))
    for option, (name, convert) in _PROPERTIES.items():
        value = options.get(option)
        if value is not None and value is not False and value != ():
            intent[name] = convert(value)
    missing = [
        flag for flag, name in (("task", "task"), ("place", "place"), ("delay", "delayMs")) if name not in intent
    ]
    if missing:
        said = ", ".join(f"--{flag}" for flag in missing)
        raise InvalidInputError(f"the intent lacks {said} (or an --intent that says it)", field=missing[0])
    return intent


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        if file.stat().st_size > INTENT_BYTES_MAX:
            raise InvalidInputError(f"{file} is larger than {INTENT_BYTES_MAX:,} bytes", field="intent")
        document: Any = json.loads(file.read_text())
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}", field="intent") from error
    except ValueError as error:
        raise InvalidInputError(f"{file} is not JSON: {error}", field="intent") from error
    if isinstance(document, dict) and set(document) == {"intent"}:
        document = document["intent"]
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} holds no intent: an object is expected", field="intent")
    return document

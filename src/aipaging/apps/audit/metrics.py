"""Verdicts from histograms that a collector exported, and telemetry exported as histograms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.telemetry.otlp import Point, domain_attributes, read_points, write_points
from aipaging.adapters.telemetry.prometheus import to_openmetrics
from aipaging.adapters.telemetry.prometheus_text import is_scrape, read_scrape
from aipaging.adapters.telemetry.semantic_conventions import (
    CLIENT,
    DOMAIN,
    DOMAIN_DURATION,
    ERROR_TYPE,
    REQUEST_DURATIONS,
    TENANT,
)
from aipaging.adapters.telemetry.source import open_telemetry
from aipaging.apps.audit.contract_file import read_contracts
from aipaging.apps.audit.document import verdict_document
from aipaging.apps.audit.progress import Shown
from aipaging.core.audit.aggregate import judge_counts
from aipaging.core.audit.continuous import NOTHING, Counts
from aipaging.core.audit.contract import END_TO_END, Contract
from aipaging.core.audit.histogram import ExponentialHistogram, exponential_histogram
from aipaging.core.audit.period import audit_period
from aipaging.core.foundation.errors import InvalidInputError

EFFECTS: Final[Mapping[str, str]] = {
    "straddling_points": "they began before the contract's period, or ended after it: all their requests may have "
    "exceeded, and none for certain",
    "points_without_time": "they do not say when they counted: all their requests may have exceeded, none for certain",
    "points_outside_period": "not counted",
    "other_metrics": "durations of something that no contract is about: not counted",
    "superseded_points": "cumulative: a later point of the series counts their requests again",
}


@dataclass(slots=True, kw_only=True)
class _Found:
    counts: Counts = NOTHING
    flaws: dict[str, int] = field(default_factory=dict[str, int])

    def flaw(self, name: str) -> None:
        self.flaws[name] = self.flaws.get(name, 0) + 1


def judge_histograms(path: Path, contract_file: Path, *, alpha: float) -> dict[str, Any]:
    """Return the verdicts about the histograms of an OTLP export, or of a scrape of Prometheus.

    Raises:
        InvalidInputError: A file cannot be read, or holds no metrics.
    """
    contracts = read_contracts(contract_file).contracts
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"cannot read {path}: {error.strerror}", field="metrics") from error
    read = list(read_scrape(content) if is_scrape(content) else read_points(content))
    points = _latest(read)
    flaws: dict[str, Any] = {}
    if len(points) < len(read):
        flaws["superseded_points"] = len(read) - len(points)
    strange = sum(_domain_of(point) is None for point in points)
    if strange:
        flaws["other_metrics"] = strange
    verdicts: list[dict[str, Any]] = []
    for contract in contracts:
        found = _Found()
        for point in points:
            _take(contract, point, found)
        verdicts.append(verdict_document(judge_counts(contract, found.counts, alpha=alpha)))
        name = contract.domain if contract.tenant is None else f"{contract.domain}@{contract.tenant}"
        flaws |= {f"{flaw}:{name}": count for flaw, count in found.flaws.items()}
    named = {name: {"count": count, "effect": EFFECTS[name.partition(":")[0]]} for name, count in flaws.items()}
    return {"verdicts": verdicts, "data_quality": {"points": len(read), "flaws": named}}


def _latest(points: Sequence[Point]) -> list[Point]:
    """Return the points without those that a later one of the same cumulative series counts again."""
    latest: dict[tuple[Any, ...], Point] = {}
    kept: list[Point] = []
    for point in points:
        if not point.cumulative:
            kept.append(point)
            continue
        series = (point.metric, tuple(sorted(point.attributes.items())), point.start_us)
        if series not in latest or latest[series].end_us <= point.end_us:
            latest[series] = point
    return kept + list(latest.values())


def _domain_of(point: Point) -> str | None:
    if point.metric == DOMAIN_DURATION:
        return point.attributes.get(DOMAIN)
    return END_TO_END if point.metric in REQUEST_DURATIONS else None


def _take(contract: Contract, point: Point, found: _Found) -> None:
    if _domain_of(point) != contract.domain or contract.tenant not in {None, point.attributes.get(TENANT)}:
        return
    counts = point.histogram.counts_above(contract)
    if contract.domain == END_TO_END and ERROR_TYPE in point.attributes:
        # Who went away by itself may have been served in time, or not: whatever was late by then is in the buckets.
        certain = counts.certain if point.attributes[ERROR_TYPE] == CLIENT else counts.requests
        counts = Counts(requests=counts.requests, certain=certain, possible=counts.requests)
    if contract.has_period:
        place = _place(contract, point)
        if place == "points_outside_period":
            found.flaw(place)
            return
        if place:
            found.flaw(place)
            counts = Counts(requests=counts.requests, certain=0, possible=counts.requests)
    found.counts += counts


def _place(contract: Contract, point: Point) -> str:
    """Return what is wrong with when a point was counted, empty where nothing is."""
    begin, end = contract.period_start_us, contract.period_end_us
    if point.end_us <= 0 or (point.start_us <= 0 and begin is not None):
        return "points_without_time"
    if (begin is not None and point.end_us <= begin) or (end is not None and point.start_us >= end):
        return "points_outside_period"
    if (begin is not None and point.start_us < begin) or (end is not None and point.end_us > end):
        return "straddling_points"
    return ""


def export_histograms(telemetry: Path, contract_file: Path, *, form: str) -> str:
    """Return the delays of every contract as histograms, in OTLP's JSON or as OpenMetrics text.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    contracts = read_contracts(contract_file).contracts
    with Shown(open_telemetry(telemetry), "counting") as table:
        audit = audit_period(table, contracts, alpha=0.05)
    points = [
        Point(
            metric=DOMAIN_DURATION,
            attributes=domain_attributes(tally.contract.domain, tally.contract.tenant),
            # Requests of unknown delay, or without an answer, are in no bucket, as NaN is in native histograms.
            histogram=replace(exponential_histogram(tally.sketch), count=tally.requests),
            start_us=audit.layout.first_us,
            end_us=audit.layout.last_us + 1,
        )
        for tally in audit.scan.tallies
    ]
    return write_points(points, service="aipaging").decode() if form == "otlp" else _openmetrics(points)


def _openmetrics(points: Sequence[Point]) -> str:
    name = DOMAIN_DURATION.replace(".", "_") + "_microseconds"
    lines = [f"# TYPE {name} histogram", f"# UNIT {name} microseconds"]
    for point in points:
        if not isinstance(point.histogram, ExponentialHistogram):
            continue
        labels = ",".join(f'{key.replace(".", "_")}="{_escaped(value)}"' for key, value in point.attributes.items())
        lines.append(f"{name}{{{labels}}} {to_openmetrics(point.histogram)}")
    return "\n".join([*lines, "# EOF", ""])


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

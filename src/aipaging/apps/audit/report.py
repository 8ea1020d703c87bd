"""The report: one HTML file with its plots in it, no script, nothing fetched."""

import html
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from aipaging.apps.audit.plots import blame_bars, flaw_bars, share_over_time, tail_plot, verdict_over_time
from aipaging.apps.audit.run import Audited, Request, audited

WORDS: Final = ("violated", "insufficient_evidence", "compliant")
"""The verdicts, the gravest first."""

STYLE: Final = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, 'DejaVu Sans', sans-serif; max-width: 1140px; margin: 2rem auto;
  padding: 0 1.5rem; color: #1f2933; background: #fff }
h1 { margin: 0 } h2 { margin: 2.4rem 0 .6rem; border-bottom: 2px solid #e4e7eb; padding-bottom: .2rem }
h3 { margin: 1.6rem 0 .2rem } .lead { color: #52606d; margin: .2rem 0 1.2rem } .scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .8rem 0; font-size: 14px } th { color: #52606d; font-weight: 600 }
td, th { padding: .28rem .9rem .28rem 0; text-align: left; vertical-align: top }
td:not(:last-child) { white-space: nowrap }
tr + tr td { border-top: 1px solid #e4e7eb }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
.violated { color: #c8102e; font-weight: 600 } .compliant { color: #00704f; font-weight: 600 }
.insufficient_evidence { color: #8a5a00; font-weight: 600 } .badge { font-size: 14px; margin-left: .6rem }
.pair { display: flex; flex-wrap: wrap; gap: 0 1.2rem } figure { margin: .4rem 0 }
.pair figure { max-width: 620px } .pair div figure { max-width: 440px }
svg { display: block; max-width: 100%; height: auto }
.legend { color: #52606d; font-size: 13px; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem;
  margin: .1rem 0 0 72px } .legend i { display: inline-block; width: 14px; height: 4px; margin: 0 .4rem .22rem 0 }
code { font-size: 12.5px; overflow-wrap: anywhere }
@media print { body { max-width: none } h2, h3, figure { break-inside: avoid; break-after: avoid } }
"""


def audit_report(telemetry: Path, contract_file: Path, *, alpha: float, seed: int) -> str:
    """Return the page.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    found = audited(telemetry, contract_file, Request(alpha=alpha, seed=seed))
    document = found.document
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'><title>Audit</title>",
        f"<style>{STYLE}</style></head><body><h1>Audit of {html.escape(telemetry.name)}</h1>",
        f"<p class='lead'>{_lead(document)}</p>",
        "<h2>Verdicts</h2>",
        _verdicts(document),
        f"<p>Correction for several verdicts: {html.escape(document['multiplicity']['statement'])}.</p>",
        "<h2>Tails and time</h2>",
        *_plots(found),
        "<h2>Attribution</h2>",
        *[_account(one) for one in document["attributions"]],
        "<h2>Estimates</h2><p>Reports only: no verdict uses them. Each names what it assumes.</p>",
        _estimates(document),
        "<h2>Quality of the telemetry</h2>",
        _quality(document),
        "<h2>To do it again</h2>",
        _table(("", ""), [(name, "" if one is None else one) for name, one in document["provenance"].items()]),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _lead(document: dict[str, Any]) -> str:
    said = [one["verdict"] for one in document["verdicts"]]
    counts = ", ".join(f"{said.count(word)} {word.replace('_', ' ')}" for word in WORDS if word in said)
    quality = document["data_quality"]
    begun, ended = (_instant(quality[name]) for name in ("first_start_us", "last_start_us"))
    return f"{quality['rows']:,} records from {begun} to {ended}. {len(said)} verdicts: {counts}."


def _instant(wall_us: int) -> str:
    try:
        return datetime.fromtimestamp(wall_us / 1e6, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{wall_us} us"


def _plots(found: Audited) -> list[str]:
    parts: list[str] = []
    for verdict, tally in zip(found.audit.verdicts, found.audit.scan.tallies, strict=True):
        contract, word = verdict.contract, verdict.outcome.value
        name = contract.domain if contract.tenant is None else f"{contract.domain} of {contract.tenant}"
        estimates = [
            one
            for one in found.document["estimates"]
            if (one["domain"], one["tenant"]) == (contract.domain, contract.tenant) and one["low_ms"] is not None
        ]
        layout = found.audit.layout
        parts += [
            f"<h3>{html.escape(name)}<span class='badge {word}'>{word.replace('_', ' ')}</span></h3>",
            f"<p class='lead'>{html.escape(verdict.reason)}.</p><div class='pair'>",
            tail_plot(tally, estimates),
            "<div>",
            share_over_time(tally, layout),
            verdict_over_time(tally, verdict, layout),
            "</div></div>",
        ]
    return parts


def _account(attribution: dict[str, Any]) -> str:
    whose = "" if attribution["tenant"] is None else f" for {html.escape(attribution['tenant'])}"
    words = (
        f"Requests later than {attribution['delay_ms']:g} ms end to end{whose}: observed = permitted + blame + "
        "unattributed. Only a domain whose own verdict is violated can be blamed; black lines are 95 % intervals over "
        "windows of time."
    )
    return f"<p>{words}</p>{blame_bars(attribution)}"


def _verdicts(document: dict[str, Any]) -> str:
    rows = [
        (
            one["domain"],
            one["tenant"] or "",
            one["verdict"],
            f"{one['requests']:,}",
            _between(one["exceedances_low"], one["exceedances_high"]),
            f"{one['exceedances_allowed']:,}",
            "" if one["effective_requests"] is None else f"{one['effective_requests']:,.0f}",
            f"{one['delay_ms']:g} ms, {one['epsilon']:g}",
            one["method"],
        )
        for one in document["verdicts"]
    ]
    heads = (
        "domain",
        "tenant",
        "verdict",
        "requests",
        "exceedances",
        "allowed",
        "effective requests",
        "contract",
        "method",
    )
    return _table(heads, rows, classes=set(WORDS), numbers=(3, 4, 5, 6))


def _between(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _estimates(document: dict[str, Any]) -> str:
    rows = [
        (
            one["domain"],
            f"p{100 * one['quantile']:g}",
            one["method"],
            "" if one["refused"] else _delay(one["delay_ms"]),
            "" if one["refused"] else _interval(one["low_ms"], one["high_ms"]),
            "" if one["design_effect"] is None else f"{one['design_effect']:.2f}",
            f"refused: {one['refused']}" if one["refused"] else f"assumes that {one['assumption']}",
        )
        for one in document["estimates"]
    ]
    return _table(("domain", "percentile", "method", "estimate", "95 %", "design effect", ""), rows)


def _interval(low_ms: float | None, high_ms: float | None) -> str:
    return "unbounded" if low_ms is None else f"{_delay(low_ms)} to {_delay(high_ms)}"


def _delay(delay_ms: float | None) -> str:
    return "unbounded" if delay_ms is None else f"{delay_ms:.3f} ms"


def _quality(document: dict[str, Any]) -> str:
    flaws = document["data_quality"]["flaws"]
    if not flaws:
        return f"<p>{document['data_quality']['rows']} rows, nothing wrong with them.</p>"
    rows = [(name, f"{one['count']:,}", one["effect"]) for name, one in flaws.items()]
    return flaw_bars(document["data_quality"]) + _table(("what", "how many", "effect on verdicts"), rows, numbers=(1,))


def _table(
    heads: tuple[str, ...], rows: list[Any], *, classes: set[str] | None = None, numbers: tuple[int, ...] = ()
) -> str:
    head = "".join(f"<th{_number(index in numbers)}>{html.escape(name)}</th>" for index, name in enumerate(heads))
    body = "".join(
        "<tr>"
        + "".join(_cell(str(cell), classes or set(), number=index in numbers) for index, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><tr>{head}</tr>{body}</table></div>"


def _cell(words: str, classes: set[str], *, number: bool) -> str:
    if words in classes:
        return f"<td class='{words}'>{words.replace('_', ' ')}</td>"
    return f"<td{_number(number)}>{html.escape(words)}</td>"


def _number(number: bool) -> str:
    return " class='number'" if number else ""

"""The report: one HTML file with its plots in it, no script, nothing fetched."""

import html
from pathlib import Path
from typing import Any, Final

from aipaging.apps.audit.plots import blame_bars, exceedances_over_time, tail_plot
from aipaging.apps.audit.run import Audited, Request, audited

STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .2rem .8rem; text-align: left }
tr + tr td { border-top: 1px solid #ddd } .violated { color: #b00020; font-weight: 600 }
.compliant { color: #1b6e3c; font-weight: 600 } .insufficient_evidence { color: #8a6d00; font-weight: 600 }
svg { display: block; margin: 1rem 0; max-width: 100% } figcaption { color: #555 }
"""


def audit_report(telemetry: Path, contract_file: Path, *, alpha: float, seed: int) -> str:
    """Return the page.

    Raises:
        InvalidInputError: A file, or what it holds, cannot be audited.
    """
    found = audited(telemetry, contract_file, Request(alpha=alpha, seed=seed))
    document = found.document
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><title>Audit</title>",
        f"<style>{STYLE}</style></head><body><h1>Audit of {html.escape(telemetry.name)}</h1>",
        "<h2>Verdicts</h2>",
        _verdicts(document),
        f"<p>{html.escape(document['multiplicity']['statement'])}.</p>",
        "<h2>Tails and time</h2>",
        *_plots(found),
        "<h2>Blame</h2>",
        *[blame_bars(one) for one in document["attributions"]],
        "<h2>Estimates</h2><p>Reports only: no verdict uses them.</p>",
        _estimates(document),
        "<h2>Telemetry</h2>",
        _quality(document),
        "<h2>To do it again</h2>",
        _table(("", ""), list(document["provenance"].items())),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _plots(found: Audited) -> list[str]:
    parts: list[str] = []
    for verdict, tally in zip(found.audit.verdicts, found.audit.scan.tallies, strict=True):
        contract = verdict.contract
        name = contract.domain if contract.tenant is None else f"{contract.domain} of {contract.tenant}"
        estimates = [
            one
            for one in found.document["estimates"]
            if (one["domain"], one["tenant"]) == (contract.domain, contract.tenant) and one["low_ms"] is not None
        ]
        parts += [f"<h3>{html.escape(name)}</h3>", tail_plot(tally, estimates), exceedances_over_time(tally)]
    return parts


def _verdicts(document: dict[str, Any]) -> str:
    rows = [
        (
            one["domain"],
            one["tenant"] or "",
            one["verdict"],
            one["requests"],
            f"{one['exceedances_low']} to {one['exceedances_high']}",
            one["exceedances_allowed"],
            f"{one['delay_ms']:g} ms, {one['epsilon']:g}",
            one["method"],
        )
        for one in document["verdicts"]
    ]
    heads = ("domain", "tenant", "verdict", "requests", "exceedances", "allowed", "contract", "method")
    return _table(heads, rows, classes={"compliant", "violated", "insufficient_evidence"})


def _estimates(document: dict[str, Any]) -> str:
    rows = [
        (
            one["domain"],
            f"p{100 * one['quantile']:g}",
            one["method"],
            "" if one["refused"] else _delay(one["delay_ms"]),
            "" if one["refused"] else f"{_delay(one['low_ms'])} to {_delay(one['high_ms'])}",
            f"refused: {one['refused']}" if one["refused"] else f"assumes that {one['assumption']}",
        )
        for one in document["estimates"]
    ]
    return _table(("domain", "percentile", "method", "estimate", "95 %", ""), rows)


def _delay(delay_ms: float | None) -> str:
    return "unbounded" if delay_ms is None else f"{delay_ms:.3f} ms"


def _quality(document: dict[str, Any]) -> str:
    flaws = document["data_quality"]["flaws"]
    if not flaws:
        return f"<p>{document['data_quality']['rows']} rows, nothing wrong with them.</p>"
    return _table(("what", "how many", "effect"), [(name, one["count"], one["effect"]) for name, one in flaws.items()])


def _table(heads: tuple[str, ...], rows: list[Any], classes: set[str] | None = None) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(_cell(str(cell), classes or set()) for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(text: str, classes: set[str]) -> str:
    return f"<td class='{text}'>{text}</td>" if text in classes else f"<td>{html.escape(text)}</td>"

"""The report: one HTML file that needs nothing else, and the document of all results.

The picture of an experiment that did not run says so: the report always has a place for every claim.
"""

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.terminal.picture import picture
from aipaging.apps.evaluate.experiment import Experiment, Finding, Measured, write_whole

WIDTH: Final = 9.0

CONFIRMED, REFUTED, NOT_RUN, FAILED = "confirmed", "not confirmed", "not run", "failed"

_STYLE: Final = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #0f172a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .3rem; }
.verdict { font-size: .8rem; font-weight: 600; border-radius: 1rem; padding: .15rem .7rem; color: #fff;
  white-space: nowrap; vertical-align: middle; }
.confirmed { background: #047857; } .not-confirmed, .failed { background: #be123c; }
.not-run { background: #475569; }
.claim { color: #475569; font-style: italic; margin: .2rem 0 .6rem; }
figure { margin: .8rem 0; } figure svg { width: 100%; height: auto; }
figcaption { background: #f1f5f9; border-left: 4px solid #1d4ed8; padding: .6rem .9rem; }
.method, .made { color: #475569; font-size: .87rem; } code { font-size: .85em; background: #f1f5f9; padding: .1em .3em;
  overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: 1rem 0 2rem; }
td, th { text-align: left; padding: .35rem .5rem; border-bottom: 1px solid #e2e8f0; vertical-align: top; }
a { color: #1d4ed8; } @media print { h2 { break-before: page; } }
"""


def verdict_of(result: Mapping[str, Any], finding: Finding | None) -> str:
    """Return the word for a result."""
    if finding is None:
        return FAILED if "failed" in result else NOT_RUN
    return CONFIRMED if finding.confirmed else REFUTED


def missing(result: Mapping[str, Any]) -> str:
    """Return why there are no numbers; empty if there are."""
    if "failed" in result:
        return f"Failed: {result['failed']}"
    return f"Not run: {result['not_run']}" if "not_run" in result else ""


def figures(out: Path, experiment: Experiment, result: Mapping[str, Any]) -> None:
    """Write the figure of an experiment as SVG and PNG."""
    measured: Measured | None = result.get("measured")
    for kind in ("svg", "png"):
        file = out / "figures" / f"{experiment.name}.{kind}"
        file.parent.mkdir(parents=True, exist_ok=True)
        with picture(file, width=WIDTH, height=experiment.height) as figure:
            if measured is None:
                text = textwrap.fill(missing(result), 90)
                figure.text(0.5, 0.5, f"{experiment.name}\n{text}", ha="center", va="center")
            else:
                experiment.draw(figure, measured)


def entry(experiment: Experiment, result: Mapping[str, Any]) -> tuple[dict[str, Any], Finding | None]:
    """Return what `results.json` says of an experiment, and its finding if it ran."""
    finding = experiment.conclude(result["measured"]) if "measured" in result else None
    said = asdict(finding) if finding is not None else {"sentence": missing(result), "numbers": {}}
    document = {
        "experiment": experiment.name,
        "title": experiment.title,
        "claim": experiment.claim,
        "verdict": verdict_of(result, finding),
        "sentence": said["sentence"],
        "numbers": said["numbers"],
        "figures": [f"figures/{experiment.name}.svg", f"figures/{experiment.name}.png"],
        "made": result["made"],
        "seconds": result["seconds"],
        "measured": result.get("measured"),
    }
    return document, finding


def write_report(
    out: Path, made: Mapping[str, Any], entries: Sequence[dict[str, Any]], methods: Mapping[str, str]
) -> None:
    """Write `results.json` and `report.html`."""
    write_whole(out / "results.json", {"made": made, "experiments": list(entries)})
    sections = "".join(_section(out, one, methods[one["experiment"]]) for one in entries)
    counts = {word: sum(one["verdict"] == word for one in entries) for word in (CONFIRMED, REFUTED, NOT_RUN, FAILED)}
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    rows = "".join(
        f'<tr><td><a href="#{one["experiment"]}">{one["experiment"]}</a></td><td>{html.escape(one["title"])}</td>'
        f"<td>{html.escape(one['claim'])}</td><td>{_badge(one['verdict'])}</td></tr>"
        for one in entries
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation of aipaging</title><style>{_STYLE}</style></head><body>\n"
        f"<h1>Evaluation of aipaging</h1><p>{len(entries)} experiments: {told}. {_made(made)}</p>\n"
        "<table><thead><tr><th></th><th>experiment</th><th>claim</th><th>verdict</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>\n{sections}</body></html>\n"
    )
    partial = out / ".report.html.partial"
    partial.write_text(page, encoding="utf-8")
    partial.replace(out / "report.html")


def _section(out: Path, one: Mapping[str, Any], method: str) -> str:
    name = one["experiment"]
    return (
        f'<section id="{name}"><h2>{name}: {html.escape(one["title"])} {_badge(one["verdict"])}</h2>\n'
        f'<p class="claim">Claim: {html.escape(one["claim"])}</p>\n'
        f"<figure>{_inline(out / 'figures' / f'{name}.svg', name)}"
        f"<figcaption>{html.escape(one['sentence'])} <strong>{_judged(one['verdict'])}</strong></figcaption>"
        f'</figure>\n<p class="method">{html.escape(method)}</p>\n'
        f'<p class="made">{_made(one["made"])} {one["seconds"]:.1f} s.</p></section>\n'
    )


def _judged(verdict: str) -> str:
    return f"The claim is {verdict}." if verdict in {CONFIRMED, REFUTED} else "The claim is neither confirmed nor not."


def _badge(verdict: str) -> str:
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def _made(made: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"Made by <code>{html.escape(made['command'])}</code>, seed {made['seed']}, with {html.escape(versions)}."


def _inline(file: Path, name: str) -> str:
    """Return a picture as part of the page; its ids get the experiment's name, for all pictures share the page."""
    text = file.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    if 'id="' in text:
        for old, new in (('id="', f'id="{name}-'), ('"#', f'"#{name}-'), ("url(#", f"url(#{name}-")):
            text = text.replace(old, new)
    return text

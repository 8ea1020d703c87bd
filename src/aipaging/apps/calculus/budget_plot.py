"""Budgets as pictures: who gets how much of the delay and of the risk, and what can be promised at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.terminal.picture import COLOURS, picture
from aipaging.apps.calculus.budget import Budget, document_of

LEAST: Final = 1e-14
"""Nobody measures below; the axis ends there."""


def plot_budget(budget: Budget, path: Path) -> None:
    """Draw the parts as bars: delay, risk, and rate where one is bought."""
    document = document_of(budget)
    parts = document["parts"]
    names = [part["name"] for part in parts]
    columns = [
        (label, [part.get(member) for part in parts], logarithmic)
        for label, member, logarithmic in (
            ("delay of the part (ms)", "delay_ms", False),
            ("risk of the part", "epsilon", True),
            ("reserved rate", "rate", False),
        )
        if parts[0].get(member) is not None
    ]
    offsets = [part.offset_ms for part in budget.question.domains]
    with picture(path, width=3.2 * len(columns) + 1.0, height=0.42 * len(parts) + 1.8) as figure:
        axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
        for axis, (label, values, logarithmic), colour in zip(axes, columns, COLOURS, strict=False):
            _bars(axis, names, values, colour=colour, logarithmic=logarithmic)
            axis.set_xlabel(label)
            if label.startswith("delay"):
                axis.barh(names, offsets, color="#94a3b8", height=0.6)
                axis.text(0.99, 1.0, "grey: offset", transform=axis.transAxes, ha="right", va="bottom", fontsize=8)
        axes[0].invert_yaxis()
        figure.suptitle(_title(document), fontsize=11)


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], *, colour: str, logarithmic: bool) -> None:
    shown = [max(value, LEAST) for value in values] if logarithmic else values
    axis.barh(names, shown, color=colour, height=0.6)
    if logarithmic:
        axis.set_xscale("log")
        axis.set_xlim(min(shown) / 10.0, max(shown) * 30.0)
    else:
        axis.set_xlim(0.0, max(shown) * 1.3)
    for name, at, value in zip(names, shown, values, strict=True):
        axis.annotate(f"{value:.3g}", (at, name), xytext=(4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.grid(visible=False, axis="y")


def _title(document: dict[str, Any]) -> str:
    said = f"P(delay > {document['delay_ms']:.4g} ms) ≤ {document['epsilon']:.3g}, {document['dependence']} dependence"
    return f"{said}, cost {document['cost']:.4g}" if "cost" in document else said


def plot_frontier(curves: Sequence[dict[str, Any]], path: Path, *, asked: tuple[float, float] | None) -> None:
    """Draw what can be promised: the region above a curve is feasible, the one below is not.

    Args:
        curves: Of `budget.frontier`.
        path: Where to.
        asked: A (delay, epsilon) to mark.
    """
    factors = sorted({curve["rate_factor"] for curve in curves})
    least = min(point["epsilon"] for curve in curves for point in curve["points"])
    with picture(path) as figure:
        axis = figure.subplots()
        for curve in curves:
            factor = curve["rate_factor"]
            at = [point["delay_ms"] for point in curve["points"]]
            axis.semilogy(
                at,
                [max(point["epsilon"], LEAST) for point in curve["points"]],
                color=COLOURS[factors.index(factor) % len(COLOURS)],
                linestyle="-" if curve["dependence"] == "any" else "--",
                label=f"{factor:g}x rates, {curve['dependence']}" if len(factors) > 1 else curve["dependence"],
            )
        if asked is not None:
            axis.plot(*asked, marker="o", color="#0f172a", linestyle="none", label="asked", clip_on=False)
        axis.set_ylim(max(least / 3.0, LEAST), 1.5)
        axis.set_xlim(0.0, max(point["delay_ms"] for point in curves[0]["points"]))
        axis.set_xlabel("end-to-end delay d (ms)")
        axis.set_ylabel("least provable P(delay > d)")
        axis.set_title("feasible above the curve", fontsize=10)
        axis.legend(title="dependence")

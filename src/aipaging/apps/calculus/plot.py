"""A question as a picture: the bound over the delay, fast and sharp, every rung, against what simulation says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np

from aipaging.adapters.terminal.picture import COLOURS, picture
from aipaging.apps.calculus.question import answer
from aipaging.apps.calculus.simulated import Point, simulated
from aipaging.core.calculus.bound import RungClass

POINTS: Final = 48
SIMULATED_POINTS: Final = 16
LEAST: Final = 1e-14
"""Nobody measures below; the curve is clipped there."""

Curve: TypeAlias = list[tuple[float, float, str, dict[str, float]]]
_LINES: Final = {RungClass.FAST: (COLOURS[1], "--"), RungClass.SHARP: (COLOURS[0], "-")}


def curve(question: Mapping[str, Any], delay_max: float, rung_class: RungClass) -> Curve:
    """Return (delay, bound, rung, bound of every rung) at evenly spaced delays up to `delay_max`.

    Raises:
        InvalidInputError: The question is not one.
        RefusedError: Unstable, or nothing is proven for it.
    """
    points: Curve = []
    for i in range(POINTS + 1):
        delay = delay_max * i / POINTS
        found = answer(dict(question) | {"query": {"delay": delay}}, rung_class)
        points.append((delay, float(found["epsilon"]), str(found["rung"]), dict(found.get("ladder", {}))))
    return points


def overlay(question: Mapping[str, Any], delay_max: float, *, seed: int) -> list[Point]:
    """Return the simulated tail at evenly spaced delays, where there is a simulation of the question."""
    return simulated(question, [delay_max * i / SIMULATED_POINTS for i in range(SIMULATED_POINTS + 1)], seed=seed)


def plot_bounds(
    question: Mapping[str, Any], curves: Mapping[RungClass, Curve], points: Sequence[Point], path: Path
) -> None:
    """Draw bounds and simulation on a logarithmic scale.

    Args:
        question: As `aipaging calculus bound` takes it.
        curves: Of both classes.
        points: Simulated, or none.
        path: Where to: .svg or .png.
    """
    positive = [p for at in curves.values() for _, p, _, _ in at if p > 0.0]
    least = max(min([*positive, *(point.low for point in points)], default=1.0), LEAST)
    with picture(path) as figure:
        axis = figure.subplots()
        for of, at in curves.items():
            colour, style = _LINES[of]
            rungs = ", ".join(dict.fromkeys(rung for _, p, rung, _ in at if rung != "trivial" and p < 1.0))
            shown = [(delay, p) for delay, p, _, _ in at if p >= least / 3.0]
            line = axis.semilogy(*zip(*shown, strict=True), color=colour, linestyle=style, linewidth=1.8)[0]
            line.set_label(f"{of.value}: {rungs or 'nothing is promised'}")
            line.set_gid(of.value)
        for i, (rung, steps) in enumerate(_above(curves[RungClass.SHARP], least / 3.0).items()):
            grey = str(0.45 + 0.35 * (i % 4) / 4.0)
            step = axis.semilogy(*zip(*steps, strict=True), color=grey, linestyle=":", linewidth=1.2)[0]
            step.set_label(f"{rung}, not the least")
            step.set_gid(f"rung-{rung}")
        if points:
            middle = np.array([point.probability for point in points])
            reach = np.array([[p.probability - p.low, p.high - p.probability] for p in points]).T
            axis.errorbar(
                [point.delay for point in points],
                middle,
                yerr=reach,
                fmt="o",
                markersize=3.5,
                capsize=2,
                color="#0f172a",
                label="simulated, 95 % interval",
            )
        unit = str(question.get("time_unit", "")).strip()
        axis.set_xlabel(f"delay d ({unit})" if unit else "delay d")
        axis.set_ylabel("P(delay > d)")
        axis.set_xlim(left=0.0)
        axis.set_ylim(least / 3.0, 2.0)
        axis.legend()


def _above(at: Curve, least: float) -> dict[str, list[tuple[float, float]]]:
    """Return the curves of the rungs that apply beside the least one, where they promise something."""
    names = dict.fromkeys(rung for *_, ladder in at for rung in ladder if rung != "trivial")
    curves = {
        name: [(delay, ladder[name]) for delay, _, _, ladder in at if least <= ladder.get(name, 0.0) < 1.0]
        for name in names
    }
    # A rung that is the least everywhere is the sharp curve itself.
    return {
        name: points
        for name, points in curves.items()
        if points and any(rung != name and name in ladder for _, _, rung, ladder in at)
    }

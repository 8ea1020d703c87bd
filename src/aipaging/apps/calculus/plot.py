"""A question as a picture: the bound over the delay, fast and sharp, on a logarithmic scale, as SVG.

Drawn by hand, so that a plot needs no plotting library.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from aipaging.apps.calculus.question import answer
from aipaging.core.calculus.bound import RungClass

WIDTH: Final = 640
HEIGHT: Final = 420
MARGIN: Final = 64
POINTS: Final = 48
DECADES_MAX: Final = 14
"""Below 1e-14 nobody measures; the curve is clipped there."""

COLOURS: Final = {RungClass.FAST: "#b45309", RungClass.SHARP: "#1d4ed8"}


def curve(question: Mapping[str, Any], delay_max: float, rung_class: RungClass) -> list[tuple[float, float, str]]:
    """Return (delay, bound, rung) at evenly spaced delays up to `delay_max`.

    Raises:
        InvalidInputError: The question is not one.
        RefusedError: Unstable, or nothing is proven for it.
    """
    points: list[tuple[float, float, str]] = []
    for i in range(POINTS + 1):
        delay = delay_max * i / POINTS
        found = answer(dict(question) | {"query": {"delay": delay}}, rung_class)
        points.append((delay, float(found["epsilon"]), str(found["rung"])))
    return points


def draw(question: Mapping[str, Any], delay_max: float) -> str:
    """Return the SVG of a question.

    Args:
        question: As `aipaging calculus bound` takes it; its query is ignored.
        delay_max: Right end of the axis.
    """
    curves = {of: curve(question, delay_max, of) for of in RungClass}
    least = min((p for points in curves.values() for _, p, _ in points if p > 0.0), default=1.0)
    decades = min(DECADES_MAX, max(1, math.ceil(-math.log10(least))))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<style>text { font: 12px sans-serif }</style>",
        "<title>Bound on the probability that the delay is exceeded</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        *_axes(delay_max, decades, str(question.get("time_unit", ""))),
    ]
    for row, (of, points) in enumerate(curves.items()):
        at = " ".join(f"{_x(d, delay_max):.1f},{_y(p, decades):.1f}" for d, p, _ in points if p > 0.0)
        parts.append(f'<polyline fill="none" stroke="{COLOURS[of]}" stroke-width="2" points="{at}"/>')
        rungs = ", ".join(dict.fromkeys(rung for _, _, rung in points if rung != "trivial"))
        legend = escape(f"{of.value}: {rungs}")
        parts.append(
            f'<text x="{WIDTH - MARGIN}" y="{MARGIN + 16 * row}" text-anchor="end" fill="{COLOURS[of]}">{legend}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _axes(delay_max: float, decades: int, unit: str) -> Sequence[str]:
    left, right, top, bottom = MARGIN, WIDTH - 24, 24, HEIGHT - MARGIN
    lines = [f'<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#444"/>']
    step = max(1, decades // 7)
    for decade in range(0, decades + 1, step):
        y = _y(10.0**-decade, decades)
        lines.append(f'<path d="M{left} {y:.1f}H{right}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">1e-{decade}</text>')
    for i in range(6):
        delay = delay_max * i / 5
        lines.append(f'<text x="{_x(delay, delay_max):.1f}" y="{bottom + 18}" text-anchor="middle">{delay:g}</text>')
    label = escape(f"delay {unit}".strip())
    lines.append(f'<text x="{(left + right) / 2}" y="{bottom + 42}" text-anchor="middle">{label}</text>')
    middle = (top + bottom) / 2
    lines.append(
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">P(delay exceeded)</text>'
    )
    return lines


def _x(delay: float, delay_max: float) -> float:
    return MARGIN + (WIDTH - 24 - MARGIN) * delay / delay_max


def _y(probability: float, decades: int) -> float:
    height = HEIGHT - MARGIN - 24
    return 24 + height * min(1.0, -math.log10(min(1.0, probability)) / decades)

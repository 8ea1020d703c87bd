"""Plots of an audit as SVG, drawn by hand: three pictures are not worth a plotting library."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from aipaging.core.audit.dependence import WINDOWS
from aipaging.core.audit.sketch import upper_edge_us
from aipaging.core.audit.tally import SKETCH_WINDOWS, Tally

WIDTH: Final = 760
HEIGHT: Final = 260
LEFT: Final = 70
BOTTOM: Final = 36
BAR: Final = 26


def tail_plot(tally: Tally, estimates: Sequence[dict[str, Any]]) -> str:
    """Return P(delay > d) over d, both logarithmic, with the contract and the intervals of the estimates."""
    counts = tally.sketch.counts.sum(axis=0)
    used = np.flatnonzero(counts)
    if not used.size:
        return "<p>No delay is known.</p>"
    requests = tally.sketch.requests
    delays = upper_edge_us(used - 1) / 1e3
    beyond = (requests - np.cumsum(counts[used])) / requests
    contract = tally.contract
    ends = [one[name] for one in estimates for name in ("low_ms", "high_ms") if one[name]]
    right = max([float(delays[-1]), contract.delay_ms, *ends])
    left = max(min(float(delays[0]), contract.delay_ms), right / 1e4)
    bottom = min(0.5 / requests, contract.epsilon / 2)

    def x(delay_ms: float) -> float:
        return LEFT + (WIDTH - LEFT - 10) * math.log(max(delay_ms, left) / left) / math.log(right / left * 1.0001)

    def y(probability: float) -> float:
        return 10 + (HEIGHT - BOTTOM - 10) * math.log(max(probability, bottom)) / math.log(bottom)

    kept = [(x(d), y(p)) for d, p in zip(delays.tolist(), beyond.tolist(), strict=True) if d >= left]
    marks = [_line(x(contract.delay_ms), y(1.0), x(contract.delay_ms), y(contract.epsilon), "#b00020")]
    marks.append(_line(x(contract.delay_ms), y(contract.epsilon), x(right), y(contract.epsilon), "#b00020"))
    for index, one in enumerate(estimates):
        level = y(1 - one["quantile"]) + 3 * (index % 3)
        high = right if one["high_ms"] is None else one["high_ms"]
        marks.append(_line(x(one["low_ms"]), level, x(high), level, ("#1f77b4", "#2ca02c", "#9467bd")[index % 3]))
    ticks = [_text(LEFT - 6, y(10.0**-k) + 4, f"1e-{k}", "end") for k in range(math.ceil(-math.log10(bottom)) + 1)]
    ticks += [_text(x(d), HEIGHT - 16, f"{d:.3g} ms", "middle") for d in np.geomspace(left, right, 6).tolist()[:-1]]
    caption = "Fraction of requests later than a delay. Red: the contract. Bars: 95 % intervals of the estimates."
    return _figure([_path(kept), *marks, *ticks], HEIGHT, caption)


def exceedances_over_time(tally: Tally) -> str:
    """Return the fraction of late requests over the period, with what the contract allows."""
    requests, late = (column.reshape(-1, WINDOWS // SKETCH_WINDOWS).sum(axis=1) for column in tally.by_window)
    share = late / np.maximum(requests, 1)
    allowed = tally.contract.epsilon
    top = max(float(share.max()), allowed) * 1.1
    step = (WIDTH - LEFT - 10) / SKETCH_WINDOWS

    def y(fraction: float) -> float:
        return 10 + (HEIGHT - BOTTOM - 10) * (1 - fraction / top)

    bars = [
        f"<rect x='{LEFT + index * step:.1f}' y='{y(one):.1f}' width='{step * 0.9:.1f}' "
        f"height='{y(0.0) - y(one):.1f}' fill='{'#b00020' if one > allowed else '#7f8fa6'}'/>"
        for index, one in enumerate(share.tolist())
    ]
    line = _line(LEFT, y(allowed), WIDTH - 10, y(allowed), "#b00020")
    marks = [_text(LEFT - 6, y(allowed) + 4, f"{allowed:g}", "end"), _text(LEFT - 6, 18, f"{top:.2g}", "end")]
    return _figure([*bars, line, *marks], HEIGHT, "Fraction of late requests in 64 windows of the period, and epsilon.")


def blame_bars(attribution: dict[str, Any]) -> str:
    """Return the account as bars that add up to what was observed."""
    rows: list[tuple[str, float, float, float]] = [("permitted", attribution["permitted"], 0.0, 0.0)]
    rows += [(name, one["blame"], one["low"], one["high"]) for name, one in attribution["domains"].items()]
    rows.append(("unattributed", attribution["unattributed"], 0.0, 0.0))
    top = max([attribution["observed"], *(row[3] for row in rows), 1e-12])
    scale = (WIDTH - 220) / top
    parts: list[str] = []
    for index, (name, value, low, high) in enumerate(rows):
        middle = 10 + index * BAR + BAR / 2
        parts.append(_text(140, middle + 4, name, "end"))
        parts.append(
            f"<rect x='150' y='{middle - 8:.1f}' width='{value * scale:.1f}' height='16' fill='#7f8fa6'/>"
            f"<text x='{160 + max(value, high) * scale:.1f}' y='{middle + 4:.1f}'>{value:.3e}</text>"
        )
        if high > 0:
            parts.append(_line(150 + low * scale, middle, 150 + high * scale, middle, "#222"))
    caption = f"Observed {attribution['observed']:.3e} = permitted + blame + unattributed."
    return _figure(parts, 20 + BAR * len(rows), caption)


def _figure(parts: Iterable[str], height: int, caption: str) -> str:
    return (
        f"<figure><svg viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' font-size='12' role='img'>"
        f"{''.join(parts)}</svg><figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f"<polyline points='{joined}' fill='none' stroke='#222' stroke-width='1.5'/>"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:  # noqa: PLR0917 - two points
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='2'/>"


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{html.escape(text)}</text>"

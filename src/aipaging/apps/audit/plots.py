"""The pictures of an audit, drawn by hand as SVG: a plotting library is not worth five of them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from aipaging.apps.audit.svg import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    RED,
    Axes,
    Scale,
    legend,
    line,
    picture,
    text,
)
from aipaging.core.audit.betting import WindowAlarm
from aipaging.core.audit.dependence import WINDOWS
from aipaging.core.audit.layout import Layout
from aipaging.core.audit.sketch import upper_edge_us
from aipaging.core.audit.tally import SKETCH_WINDOWS, Tally
from aipaging.core.audit.verdict import Verdict

WIDE: Final = 620
NARROW: Final = 440
TALL: Final = 380
LOW: Final = 190
BAR: Final = 30
SHADE: Final = "rgba(200,16,46,.07)"

METHODS: Final[Mapping[str, tuple[str, str]]] = {
    "order-statistics": (BLUE, "order statistics"),
    "block-bootstrap": (GREEN, "block bootstrap"),
    "session-bootstrap": (ORANGE, "session bootstrap"),
    "generalised-pareto": (PURPLE, "generalised Pareto"),
}
"""Colour and words of an estimate."""

ALARM_WINDOWS: Final = 256
"""Windows of the period that the alarm is shown over."""


def tail_plot(tally: Tally, estimates: Sequence[dict[str, Any]]) -> str:
    """Return P(delay > d) over d, both logarithmic, with the contract and the intervals of the estimates."""
    counts = tally.sketch.counts.sum(axis=0)
    used = np.flatnonzero(counts)
    if not used.size:
        return "<p>No delay is known.</p>"
    requests, contract = tally.sketch.requests, tally.contract
    delays = (upper_edge_us(used - 1) / 1e3).tolist()
    beyond = ((requests - np.cumsum(counts[used])) / requests).tolist()
    ends = [one[name] for one in estimates for name in ("low_ms", "high_ms") if one[name]]
    right = 1.15 * max([delays[-1], contract.delay_ms, *ends])
    left = max(min(delays[0], contract.delay_ms), right / 1e4)
    bottom = min(0.4 / requests, contract.epsilon / 4)
    axes = Axes(
        width=WIDE,
        height=TALL,
        x=Scale(low=left, high=max(right, left * 1.2), log=True),
        y=Scale(low=bottom, high=1.0, log=True),
        x_title="delay, ms",
        y_title="fraction of requests later",
    )
    corner = (contract.delay_ms, contract.epsilon)
    axes.area(corner, (right, 1.0), SHADE)
    _permitted(axes, tally, bottom)
    axes.curve(zip(delays, [max(one, bottom) for one in beyond], strict=True), INK)
    axes.segment((contract.delay_ms, 1.0), corner, RED)
    axes.segment(corner, (right, contract.epsilon), RED)
    axes.note((contract.delay_ms, 1.0), f"{contract.delay_ms:g} ms, {contract.epsilon:g}", RED, shift=(6, 16))
    shown = [one for one in estimates if one["low_ms"] is not None]
    for one in shown:
        _interval(axes, one, right)
    entries = [(INK, "measured"), (RED, "contract: the curve must pass below the corner")]
    entries += [(GREY, "permitted by the envelope's tail")] * (contract.tail is not None)
    entries += [METHODS[name] for name in METHODS if any(one["method"] == name for one in shown)]
    return f"<figure>{axes.svg('Tail of the delays')}{legend(entries)}</figure>"


def _permitted(axes: Axes, tally: Tally, bottom: float) -> None:
    tail = tally.contract.tail
    if tail is None:
        return
    levels = np.geomspace(min(1.0, tail.prefactor), bottom, 60)
    delays = (tail.quantile_us(levels) / 1e3).tolist()
    inside = [(d, p) for d, p in zip(delays, levels.tolist(), strict=True) if axes.x.low <= d <= axes.x.high]
    axes.curve(inside, GREY, width=1.2)


def _interval(axes: Axes, one: dict[str, Any], right: float) -> None:
    names = list(METHODS)
    colour = METHODS[one["method"]][0]
    level = 1 - one["quantile"]
    lift = 0.84 ** (1 + names.index(one["method"]))  # one below the other, and below a contract at that level
    high = right if one["high_ms"] is None else one["high_ms"]
    low_y, ends = level * lift, (one["low_ms"], high)
    axes.segment((ends[0], low_y), (ends[1], low_y), colour)
    for end in ends if one["high_ms"] is not None else ends[:1]:
        axes.segment((end, low_y * 0.88), (end, low_y * 1.14), colour)


def share_over_time(tally: Tally, layout: Layout) -> str:
    """Return the fraction of late requests over the period, with what the contract allows."""
    requests, late = (column.reshape(SKETCH_WINDOWS, -1).sum(axis=1) for column in tally.by_window)
    share = (late / np.maximum(requests, 1)).tolist()
    allowed = tally.contract.epsilon
    length, unit = _length(layout)
    axes = Axes(
        width=NARROW,
        height=LOW,
        x=Scale(low=0.0, high=length),
        y=Scale(low=0.0, high=1.15 * max([*share, allowed])),
        x_title=f"time, {unit}",
        y_title="late, by window",
    )
    step = length / SKETCH_WINDOWS
    for index, one in enumerate(share):
        if one > 0:
            axes.area((index * step, 0.0), ((index + 0.85) * step, one), RED if one > allowed else GREY)
    axes.segment((0.0, allowed), (length, allowed), RED, dashed=True)
    return f"<figure>{axes.svg('Late requests over time')}</figure>"


def verdict_over_time(tally: Tally, verdict: Verdict, layout: Layout) -> str:
    """Return how exceedances grew towards what is allowed, when the period was lost, and when an alarm would come."""
    requests, late = (column.reshape(ALARM_WINDOWS, -1).sum(axis=1) for column in tally.by_window)
    grown = np.cumsum(late)
    length, unit = _length(layout)
    step = length / ALARM_WINDOWS
    doubt = max(0, verdict.exceedances_high - int(grown[-1]))
    axes = Axes(
        width=NARROW,
        height=LOW,
        x=Scale(low=0.0, high=length),
        y=Scale(low=0.0, high=1.2 * max(verdict.allowed, int(grown[-1]) + doubt, 1)),
        x_title=f"time, {unit}",
        y_title="exceedances so far",
        y_name=_counted,
    )
    axes.area((0.0, verdict.allowed), (length, axes.y.high), SHADE)
    if doubt:
        axes.area((length * 0.985, float(grown[-1])), (length, float(grown[-1] + doubt)), GREY)
    axes.curve([(0.0, 0.0), *(((index + 1) * step, float(one)) for index, one in enumerate(grown.tolist()))], INK)
    axes.segment((0.0, verdict.allowed), (length, verdict.allowed), RED, dashed=True)
    lost = np.flatnonzero(grown > verdict.allowed)
    if lost.size:
        axes.segment(((lost[0] + 1) * step, 0.0), ((lost[0] + 1) * step, verdict.allowed), RED)
        axes.note(((lost[0] + 1) * step, verdict.allowed), "lost", RED, shift=(5, 14))
    raised = _alarmed(tally, requests.tolist(), late.tolist())
    if raised is not None:
        axes.segment((raised * step, 0.0), (raised * step, axes.y.high), BLUE, dashed=True)
        axes.note((raised * step, axes.y.high), "alarm", BLUE, shift=(5, 12))
    entries = [(INK, "late for certain"), (RED, "allowed in the period"), (BLUE, "alarm by window betting")]
    entries += [(GREY, "may be late, too")] * bool(doubt)
    return f"<figure>{axes.svg('Verdict over time')}{legend(entries)}</figure>"


def _alarmed(tally: Tally, requests: Sequence[int], late: Sequence[int]) -> int | None:
    alarm = WindowAlarm(epsilon=tally.contract.epsilon, alpha=0.05)
    for index, (count, exceeding) in enumerate(zip(requests, late, strict=True)):
        if count:
            alarm = alarm.seen(exceeding, count)
        if alarm.raised_at is not None:
            return index + 1
    return None


def blame_bars(attribution: dict[str, Any]) -> str:
    """Return the account as steps that add up to what was observed."""
    rows: list[tuple[str, float, tuple[float, float] | None, str]] = [
        ("permitted by contracts", attribution["permitted"], None, GREY)
    ]
    for name, one in attribution["domains"].items():
        interval = (one["low"], one["high"]) if one["may_be_blamed"] else None
        rows.append((f"blame of {name}", one["blame"], interval, RED))
    rows += [("unattributed", attribution["unattributed"], None, PURPLE)]
    width, left = WIDE + NARROW, 190
    begins = np.cumsum([0.0, *(row[1] for row in rows)]).tolist()
    ends = [begin + row[2][1] for begin, row in zip(begins, rows, strict=False) if row[2] is not None]
    top = max([attribution["observed"], *ends, 1e-12])
    scale = (width - left - 240) / top
    parts: list[str] = []
    begun = 0.0
    for index, (name, value, interval, colour) in enumerate(rows):
        y = 8 + index * BAR
        parts.append(text((left - 10, y + 15), name, anchor="end", colour=INK))
        x = left + begun * scale
        parts.append(
            f"<rect x='{x:.1f}' y='{y + 3}' width='{max(value * scale, 1):.1f}' height='{BAR - 12}' fill='{colour}'/>"
        )
        end, words = begun + value, f"{value:.3e}"
        if interval is not None:
            low, high = (begun + one for one in interval)
            parts.append(line((left + low * scale, y + 12), (left + high * scale, y + 12), INK))
            end, words = max(end, high), f"{value:.3e}  ({interval[0]:.2e} to {interval[1]:.2e})"
        parts.append(text((left + end * scale + 8, y + 16), words, anchor="start", colour=INK))
        begun += value
    y = 8 + len(rows) * BAR
    parts.append(text((left - 10, y + 15), "observed", anchor="end", colour=INK))
    parts.append(
        f"<rect x='{left}' y='{y + 3}' width='{attribution['observed'] * scale:.1f}' height='18' fill='{INK}'/>"
    )
    words = f"{attribution['observed']:.3e}"
    parts.append(text((left + attribution["observed"] * scale + 8, y + 16), words, anchor="start", colour=INK))
    return f"<figure>{picture(parts, width, y + BAR + 4, 'Attribution')}</figure>"


def flaw_bars(quality: dict[str, Any]) -> str:
    """Return the flaws of the telemetry as bars, on a logarithmic scale up to all rows."""
    flaws: dict[str, Any] = quality["flaws"]
    width, left = WIDE + NARROW, 270
    scale = (width - left - 90) / math.log10(1 + max([quality["rows"], *(one["count"] for one in flaws.values())]))
    parts: list[str] = []
    for index, (name, one) in enumerate(flaws.items()):
        y = 8 + index * BAR
        length = max(2.0, scale * math.log10(1 + one["count"]))
        parts.append(text((left - 10, y + 15), name.replace("_", " "), anchor="end", colour=INK))
        parts.append(f"<rect x='{left}' y='{y + 3}' width='{length:.1f}' height='{BAR - 12}' fill='{BLUE}'/>")
        parts.append(text((left + length + 8, y + 16), f"{one['count']:,}", anchor="start", colour=INK))
    return f"<figure>{picture(parts, width, 16 + BAR * len(flaws), 'Flaws of the telemetry')}</figure>"


def _length(layout: Layout) -> tuple[float, str]:
    """Return how long the period is, in a unit that gives small numbers."""
    seconds = (layout.last_us - layout.first_us + 1) / 1e6
    units = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "s"), (1e-3, "ms"))
    size, name = next(((size, name) for size, name in units if seconds >= 2 * size), units[-1])
    return seconds / size, name


def _counted(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}"


if WINDOWS % ALARM_WINDOWS or WINDOWS % SKETCH_WINDOWS:
    raise AssertionError("windows of the pictures are joined from whole windows of the count")

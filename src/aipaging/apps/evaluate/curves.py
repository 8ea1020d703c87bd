"""What figures of the evaluation have in common: curves with intervals, axes of probabilities, numbers in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from aipaging.adapters.terminal.picture import COLOURS

DASHES: Final = ("-", "--", "-.", ":")
"""By these too, not by colour alone, are lines without markers told apart."""

MARKERS: Final = ("o", "s", "^", "D", "v", "P")
LEAST: Final = 1e-300


def curve(axes: Any, x: Sequence[float], estimates: Sequence[Mapping[str, float]], place: int, *, label: str) -> None:
    """Draw estimates with their 95 % intervals as a band, in the colour and with the marker of a place."""
    colour = COLOURS[place % len(COLOURS)]
    axes.fill_between(
        x, [max(one["low"], LEAST) for one in estimates], [one["high"] for one in estimates],
        color=colour, alpha=0.18, linewidth=0,
    )  # fmt: skip
    axes.plot(
        x, [one["value"] for one in estimates],
        color=colour, marker=MARKERS[place % len(MARKERS)], markersize=4.5, linewidth=1.6, label=label,
    )  # fmt: skip


def limit(axes: Any, value: float, text: str, *, colour: str = "#0f172a") -> None:
    """Draw a horizontal line at a value, with its name above its right end."""
    axes.axhline(value, color=colour, linestyle="--", linewidth=1.2)
    axes.annotate(
        text, xy=(1.0, value), xycoords=("axes fraction", "data"), xytext=(-2, 3), textcoords="offset points",
        ha="right", va="bottom", fontsize=8.5, color=colour,
    )  # fmt: skip


def bars(
    axes: Any,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    text: str = "{:.3g}",
) -> None:
    """Draw grouped bars with their values above them; no text, no values."""
    width = 0.8 / len(series)
    for place, (label, values) in enumerate(series.items()):
        at = [group + (place - (len(series) - 1) / 2) * width for group in range(len(groups))]
        drawn = axes.bar(at, values, width=width * 0.92, color=COLOURS[place % len(COLOURS)], label=label)
        axes.bar_label(drawn, labels=[text.format(value) for value in values], fontsize=7.5, padding=1.5)
    axes.set_xticks(range(len(groups)), groups)
    axes.grid(visible=False, axis="x")


def steps(axes: Any, values: Sequence[float], place: int, label: str) -> None:
    """Draw the empirical distribution function of some values."""
    ranked = sorted(values)
    shares = [(rank + 1) / len(ranked) for rank in range(len(ranked))]
    colour = COLOURS[place % len(COLOURS)]
    axes.step(
        [ranked[0], *ranked], [0.0, *shares],
        where="post", color=colour, linestyle=DASHES[place % len(DASHES)], linewidth=1.6, label=label,
    )  # fmt: skip


def quantile(values: Sequence[float], level: float) -> float:
    """Return an order statistic; of nothing, nan."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(level * len(ranked)))] if ranked else float("nan")

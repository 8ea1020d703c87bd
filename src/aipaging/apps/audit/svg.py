"""Axes, lines and words of a plot as SVG: what the pictures of a report share."""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

INK: Final = "#1f2933"
FAINT: Final = "#e4e7eb"
GREY: Final = "#7b8794"
BLUE: Final = "#0072b2"
GREEN: Final = "#009e73"
PURPLE: Final = "#aa4499"
ORANGE: Final = "#b35900"
RED: Final = "#c8102e"
"""Told apart by people who see colours differently, and on a black and white print by their place."""

LEFT: Final = 72
RIGHT: Final = 14
TOP: Final = 12
BOTTOM: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """An axis: where its values lie, linear or logarithmic.

    Attributes:
        low: Value at the beginning.
        high: Value at the end.
        log: Whether it is logarithmic; then both are positive.
    """

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, from 0 to 1; what is outside lies on the edge."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = (math.log(max(one, 1e-300)) for one in (value, low, high))
        return min(1.0, max(0.0, (value - low) / (high - low))) if high > low else 0.0

    def ticks(self) -> list[float]:
        """Return round values inside."""
        if not self.log:
            step = _round_step((self.high - self.low) / 4)
            first = math.ceil(self.low / step - 1e-9)
            return [step * number for number in range(first, math.floor(self.high / step + 1e-9) + 1)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        factors = (1, 2, 5) if self.high / self.low < 300 else (1,)
        values = [factor * 10.0**decade for decade in decades for factor in factors]
        inside = [value for value in values if self.low * 0.999 <= value <= self.high * 1.001]
        if len(inside) >= 2:
            return inside
        return [value for value in Scale(low=self.low, high=self.high).ticks() if value > 0]


def _round_step(step: float) -> float:
    if step <= 0:
        return 1.0
    decade = 10.0 ** math.floor(math.log10(step))
    return decade * next(factor for factor in (1, 2, 5, 10) if factor * decade >= step * 0.999)


@dataclass(slots=True, kw_only=True)
class Axes:
    """A plot with its axes.

    Attributes:
        width: Of the picture.
        height: Of the picture.
        x: The horizontal axis.
        y: The vertical axis.
        x_title: What the horizontal axis says.
        y_title: What the vertical axis says.
        x_name: Writes a horizontal tick.
        y_name: Writes a vertical tick.
        marks: What is drawn, in order.
    """

    width: int
    height: int
    x: Scale
    y: Scale
    x_title: str
    y_title: str
    x_name: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    y_name: Callable[[float], str] = field(default=lambda value: f"{value:g}")
    marks: list[str] = field(default_factory=list[str])

    def at_x(self, value: float) -> float:
        """Return the place of a horizontal value."""
        return LEFT + (self.width - LEFT - RIGHT) * self.x.share(value)

    def at_y(self, value: float) -> float:
        """Return the place of a vertical value."""
        return TOP + (self.height - TOP - BOTTOM) * (1 - self.y.share(value))

    def curve(self, points: Iterable[tuple[float, float]], colour: str, *, width: float = 2.0) -> None:
        """Draw a line through values."""
        joined = " ".join(f"{self.at_x(x):.1f},{self.at_y(y):.1f}" for x, y in points)
        self.marks.append(
            f"<polyline points='{joined}' fill='none' stroke='{colour}' stroke-width='{width}' "
            "stroke-linejoin='round'/>"
        )

    def segment(
        self, start: tuple[float, float], end: tuple[float, float], colour: str, *, dashed: bool = False
    ) -> None:
        """Draw a straight line between two values."""
        (x1, y1), (x2, y2) = (self.place(start), self.place(end))
        dash = " stroke-dasharray='5 4'" if dashed else ""
        self.marks.append(line((x1, y1), (x2, y2), colour, more=dash))

    def area(self, corner: tuple[float, float], opposite: tuple[float, float], colour: str) -> None:
        """Shade a rectangle of values."""
        (x1, y1), (x2, y2) = self.place(corner), self.place(opposite)
        self.marks.append(
            f"<rect x='{min(x1, x2):.1f}' y='{min(y1, y2):.1f}' width='{abs(x2 - x1):.1f}' "
            f"height='{abs(y2 - y1):.1f}' fill='{colour}'/>"
        )

    def note(self, where: tuple[float, float], words: str, colour: str, *, shift: tuple[float, float]) -> None:
        """Write words beside a value, turned back from the right edge."""
        x, y = self.place(where)
        anchor = "end" if x > self.width * 0.66 else "start"
        across = -shift[0] if anchor == "end" else shift[0]
        self.marks.append(text((x + across, y + shift[1]), words, anchor=anchor, colour=colour))

    def place(self, value: tuple[float, float]) -> tuple[float, float]:
        """Return the place of a pair of values."""
        return self.at_x(value[0]), self.at_y(value[1])

    def svg(self, title: str) -> str:
        """Return the picture; the title is read out where nothing is seen."""
        ground = TOP + self.height - TOP - BOTTOM
        parts: list[str] = []
        for tick in self.y.ticks():
            y = self.at_y(tick)
            parts.append(line((LEFT, y), (self.width - RIGHT, y), FAINT, width=1))
            parts.append(text((LEFT - 8, y + 4), self.y_name(tick), anchor="end", colour=GREY))
        for tick in self.x.ticks():
            x = self.at_x(tick)
            parts.append(line((x, TOP), (x, ground), FAINT, width=1))
            parts.append(text((x, ground + 16), self.x_name(tick), anchor="middle", colour=GREY))
        parts += self.marks
        parts.append(line((LEFT, ground), (self.width - RIGHT, ground), GREY, width=1))
        parts.append(text((self.width - RIGHT, self.height - 6), self.x_title, anchor="end", colour=INK))
        middle = (TOP + ground) / 2
        words = html.escape(self.y_title)
        parts.append(
            f"<text x='14' y='{middle:.1f}' text-anchor='middle' fill='{INK}' "
            f"transform='rotate(-90 14 {middle:.1f})'>{words}</text>"
        )
        return picture(parts, self.width, self.height, title)


def picture(parts: Sequence[str], width: int, height: int, title: str) -> str:
    """Return parts as a picture."""
    return (
        f"<svg viewBox='0 0 {width} {height}' width='{width}' height='{height}' font-size='12' role='img'>"
        f"<title>{html.escape(title)}</title>{''.join(parts)}</svg>"
    )


def line(start: tuple[float, float], end: tuple[float, float], colour: str, *, width: float = 2, more: str = "") -> str:
    """Return a line between two places."""
    return (
        f"<line x1='{start[0]:.1f}' y1='{start[1]:.1f}' x2='{end[0]:.1f}' y2='{end[1]:.1f}' "
        f"stroke='{colour}' stroke-width='{width:g}'{more}/>"
    )


def text(place: tuple[float, float], words: str, *, anchor: str, colour: str) -> str:
    """Return words at a place."""
    return (
        f"<text x='{place[0]:.1f}' y='{place[1]:.1f}' text-anchor='{anchor}' fill='{colour}'>"
        f"{html.escape(words)}</text>"
    )


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return a legend of (colour, words)."""
    keys = "".join(f"<span><i style='background:{colour}'></i>{html.escape(words)}</span>" for colour, words in entries)
    return f"<figcaption class='legend'>{keys}</figcaption>"

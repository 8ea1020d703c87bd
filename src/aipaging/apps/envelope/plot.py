"""Pictures of an envelope: what is promised, what was measured, and what of the risk is not delay."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.adapters.terminal.picture import COLOURS, picture
from aipaging.core.envelope.calibration import Band
from aipaging.core.envelope.document import EnvelopeDocument, envelope_of
from aipaging.core.envelope.envelope import Envelope

_POINTS: Final = 400
_STEPS_MAX: Final = 2_000
"""Steps of the measured tail that are drawn: more make a picture of megabytes that looks the same."""


def plot_envelope(
    document: EnvelopeDocument,
    path: Path,
    *,
    band: Sequence[Band] = (),
    delays_ms: NDArray[np.float64] | None = None,
    requests: int = 0,
) -> None:
    """Draw the bound against the measured tail on a logarithmic scale, and the floor, loss and error under it.

    Args:
        document: The envelope.
        path: The file to write, .svg or .png.
        band: The upper confidence band that it was fitted to.
        delays_ms: Measured delays.
        requests: All measured requests, answered or not.

    Raises:
        UnavailableError: matplotlib is not installed.
        InvalidInputError: The file is no picture, or cannot be written.
    """
    envelope = envelope_of(document, "")
    error = float(document.impairment.error)
    floor = float(document.calibration.epsilon_floor) if document.calibration is not None else 0.0
    # The band is that of answered requests; those that were not are late at every delay.
    unanswered = float(document.impairment.loss) + error
    least = envelope.loss + envelope.error
    with picture(path, width=9.0, height=4.0) as figure:
        tail, budget = figure.subplots(1, 2, width_ratios=(3, 1))
        _draw_promise(tail, envelope, last_ms=max([corner.delay_ms for corner in band], default=0.0))
        if band:
            corners = sorted((corner.delay_ms, min(1.0, corner.probability + unanswered)) for corner in band)
            tail.step(
                *zip(*corners, strict=True),
                where="post",
                color=COLOURS[1],
                linewidth=1.2,
                label="upper confidence band",
            )
        if delays_ms is not None:
            least = min(least, _draw_measured(tail, delays_ms, requests))
        if floor > 0.0:
            tail.axhspan(1e-30, floor + unanswered, color="#e2e8f0", zorder=0)
            tail.annotate("below the floor: nothing is promised", (0.02, 0.03), xycoords="axes fraction", fontsize=8)
        tail.set_ylim(max(0.5 * (least or floor or 1e-9), 1e-12), 1.5)
        tail.set_xlim(left=0.0)
        tail.set_xlabel("delay d (ms)")
        tail.set_ylabel("P(later than d, lost or failed)")
        tail.set_title(f"{document.domain} {document.segment}".strip() + f", sequence {document.sequence}", fontsize=10)
        tail.legend(loc="upper right")
        _draw_lines(budget, [("floor", floor), ("loss", envelope.loss), ("error", error)])


def _draw_promise(axes: Any, envelope: Envelope, *, last_ms: float) -> None:
    contract = envelope.contract
    failure = envelope.loss + envelope.error
    grid = np.linspace(0.0, max(last_ms, contract.offset_ms + 10.0 / contract.decay_per_ms), _POINTS)
    promised = [min(1.0, contract.exceedance(float(delay_ms)) + failure) for delay_ms in grid]
    axes.semilogy(grid, promised, color=COLOURS[0], linewidth=1.8, label="promised")


def _draw_measured(axes: Any, delays_ms: NDArray[np.float64], requests: int) -> float:
    """Draw the share of requests later than each delay, those without an answer included; return the least."""
    ordered = np.sort(delays_ms)
    later = np.arange(len(ordered) - 1, -1, -1) + (requests - len(ordered))
    # All of the tail, every so many of the body.
    places = np.unique(len(ordered) - np.geomspace(1, len(ordered), _STEPS_MAX).astype(np.int64))
    shown = places[later[places] > 0]
    share = later[shown] / requests
    axes.step(ordered[shown], share, where="post", color="#0f172a", linewidth=1.2, label="measured, failed included")
    return float(share[-1]) if len(share) else 1.0


def _draw_lines(axes: Any, lines: Sequence[tuple[str, float]]) -> None:
    names, values = zip(*lines, strict=True)
    axes.bar(names, values, color=(COLOURS[5], COLOURS[3], COLOURS[4]), width=0.6)
    for name, value in lines:
        axes.annotate(f"{value:.2g}", (name, value), xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8)
    axes.set_ylim(0.0, max(1.25 * max(values), 1e-9))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes.grid(visible=False, axis="x")
    axes.set_title("risk that is there at every delay", fontsize=9)

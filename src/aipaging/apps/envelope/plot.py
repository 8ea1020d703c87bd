"""Pictures of an envelope; they need matplotlib, which the extra `plot` brings."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from aipaging.core.envelope.calibration import Band
from aipaging.core.envelope.document import EnvelopeDocument, envelope_of
from aipaging.core.envelope.envelope import Envelope
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

_POINTS: Final = 400


def plot_envelope(
    document: EnvelopeDocument,
    path: Path,
    *,
    band: Sequence[Band] = (),
    delays_ms: NDArray[np.float64] | None = None,
    requests: int = 0,
) -> None:
    """Draw the bound against the measured tail, and what of the risk is delay, loss and error, as SVG.

    Args:
        document: The envelope.
        path: The file to write.
        band: The upper confidence band that it was fitted to.
        delays_ms: Measured delays.
        requests: All measured requests, answered or not.

    Raises:
        UnavailableError: matplotlib is not installed.
        InvalidInputError: The file cannot be written.
    """
    figure_type = _figure_type()
    envelope = envelope_of(document, "")
    figure = figure_type(figsize=(9, 4), layout="constrained")
    tail, budget = figure.subplots(1, 2, width_ratios=(3, 1))
    # The band is that of answered requests; those that were not are late at every delay.
    unanswered = float(document.impairment.loss) + float(document.impairment.error)
    _draw_tail(tail, envelope, [(corner.delay_ms, min(1.0, corner.probability + unanswered)) for corner in band])
    if delays_ms is not None:
        ordered = np.sort(delays_ms)
        failed = requests - len(ordered)
        late = (len(ordered) - 1 - np.arange(len(ordered)) + failed) / requests
        tail.step(ordered[late > 0], late[late > 0], where="post", label="measured, failed requests included")
    tail.legend(fontsize="small")
    budget.bar(["floor of delay", "loss", "error"], [_floor(document), envelope.loss, float(document.impairment.error)])
    budget.set_title("not promised below", fontsize="medium")
    budget.tick_params(axis="x", rotation=30)
    try:
        figure.savefig(path, format="svg")
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}", field="plot") from None


def _draw_tail(axes: Any, envelope: Envelope, band: Sequence[tuple[float, float]]) -> None:
    contract = envelope.contract
    last_ms = max([contract.offset_ms + 10.0 / contract.decay_per_ms, *(delay_ms for delay_ms, _ in band)])
    grid = np.linspace(0.0, last_ms, _POINTS)
    failure = envelope.loss + envelope.error
    axes.semilogy(grid, [min(1.0, contract.exceedance(float(d)) + failure) for d in grid], label="promised")
    if band:
        delays_ms, probabilities = zip(*sorted(band), strict=True)
        axes.step(delays_ms, probabilities, where="post", label="upper confidence band")
    axes.set_xlabel("delay d (ms)")
    axes.set_ylabel("P(later than d, lost or failed)")


def _floor(document: EnvelopeDocument) -> float:
    return float(document.calibration.epsilon_floor) if document.calibration is not None else 0.0


def _figure_type() -> Any:
    try:
        module: Any = importlib.import_module("matplotlib.figure")  # optional, and slow to import
    except ModuleNotFoundError:
        raise UnavailableError(
            "the package 'matplotlib' is not installed: pip install 'aipaging[plot]' brings it", code="EXTRA_MISSING"
        ) from None
    return module.Figure

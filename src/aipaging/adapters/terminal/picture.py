"""Pictures: the same bytes for the same numbers, as SVG or PNG. They need matplotlib (extra `plot`)."""

import importlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from aipaging.core.foundation.errors import InvalidInputError, UnavailableError

COLOURS: Final = ("#1d4ed8", "#b45309", "#047857", "#7c3aed", "#be123c", "#475569")
"""Blue, amber, green, violet, red, slate: apart for colour-blind readers, and in grey by their order of lightness."""

_STYLE: Final = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e2e8f0",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.hashsalt": "aipaging",
    "svg.fonttype": "none",
}
_FORMATS: Final = (".svg", ".png")


@contextmanager
def picture(path: Path, *, width: float = 7.0, height: float = 4.2) -> Generator[Any]:
    """Hand out a figure, and write it when the block ends.

    Raises:
        UnavailableError: matplotlib is not installed.
        InvalidInputError: The file is neither .svg nor .png, or cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise InvalidInputError(f"{path} is no picture: .svg or .png is expected", field="plot")
    try:
        matplotlib: Any = importlib.import_module("matplotlib")  # optional, and slow to import
        figures: Any = importlib.import_module("matplotlib.figure")
    except ModuleNotFoundError:
        raise UnavailableError(
            "the package 'matplotlib' is not installed: pip install 'aipaging[plot]' brings it", code="EXTRA_MISSING"
        ) from None
    with matplotlib.rc_context(_STYLE):
        figure = figures.Figure(figsize=(width, height), layout="constrained")
        yield figure
        # Neither the day nor the version of the library: equal numbers are equal files.
        metadata = {"Date": None, "Creator": "aipaging"} if path.suffix.lower() == ".svg" else {"Software": "aipaging"}
        try:
            figure.savefig(path, dpi=160, metadata=metadata)
        except OSError as error:
            raise InvalidInputError(f"{path} cannot be written: {error.strerror}", field="plot") from None

"""What goes where: results to stdout, everything else to stderr; colour only where a person looks.

What a server or a file said is shown with its control characters made visible, so that it cannot move the cursor of
whoever reads it.
"""

import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

PIPE_WIDTH: Final = 200
"""Columns of a table that no terminal bounds: wide enough for a sentence, so that nothing wraps in a log."""


def write_json(document: Any) -> None:
    """Print one JSON document on one line of stdout, at once."""
    sys.stdout.write(msgspec.json.encode(document).decode() + "\n")
    sys.stdout.flush()


def say(text: str = "", *, style: str = "") -> None:
    """Print a line for people on stdout, in a `rich` style where a terminal shows it."""
    _print(text, style, to_stderr=False)


def note(text: str, *, style: str = "") -> None:
    """Print a line on stderr: progress, warnings, whatever is not the result."""
    _print(text, style, to_stderr=True)


def visible(text: str) -> str:
    """Return the text with control characters made visible; line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = (), indent: int = 0
) -> None:
    """Print an aligned table on stdout.

    Args:
        headings: One per column.
        rows: Cells; None is an empty one.
        right: Indices of the columns that are aligned to the right.
        indent: Spaces before each row.
    """
    from rich.console import Console  # noqa: PLC0415 - 40 ms that commands without a table do not pay
    from rich.padding import Padding  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    aligned_right = set(right)
    for index, heading in enumerate(headings):
        grid.add_column(Text(heading), justify="right" if index in aligned_right else "left")
    for row in rows:
        grid.add_row(*(Text("" if cell is None else visible(str(cell))) for cell in row))
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    with console.capture() as captured:
        console.print(Padding(grid, (0, 0, 0, indent)))
    # rich pads every line to its column's width: trailing blanks are noise in a diff.
    sys.stdout.write("\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n")


def _print(text: str, style: str, *, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    shown = visible(text)
    if style and stream.isatty():
        from rich.console import Console  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        Console(file=stream, highlight=False).print(Text(shown, style=style), soft_wrap=True)
        return
    stream.write(shown + "\n")
    stream.flush()

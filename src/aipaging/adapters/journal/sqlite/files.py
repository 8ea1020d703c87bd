"""The files of one journal: their names, and which of them are there.

A journal goes on in another file when one is large. The first keeps the journal's name, each later one has the number
of its first record behind it, so that names sort as records do. The *head*, which is written, is the one with the
highest; the others are *sealed*, and may be moved away. No file is ever renamed while it is in use: SQLite names the
write-ahead log after it.

Every file but the first begins with copies of the records before it, back to the border of their tile, so that the
head can be opened, checked and continued with no other file there.
"""

import os
import re
import sqlite3
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from aipaging.core.evidence.tiles import TILE_WIDTH

DIGITS: Final = 16
"""Of the first record in a file's name: more than the integers that every JSON reader holds exactly."""

USUAL: Final = "journal.db"
"""The name of a controller's journal, unless its configuration says otherwise."""

_LATER: Final = re.compile(rf"(.+)\.(\d{{{DIGITS}}})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The records of one file.

    Attributes:
        first: Its first record of its own.
        end: The first record of the next file; None for the last.
        present: Whether the file is there.
    """

    first: int
    end: int | None
    present: bool


class JournalFiles:
    """Names of the files of one journal.

    Args:
        path: The name of any of them.
    """

    def __init__(self, path: Path) -> None:
        later = _LATER.fullmatch(path.name)
        self.base = path.with_name(later.group(1)) if later else path
        self._name = re.compile(rf"{re.escape(self.base.name)}\.(\d{{{DIGITS}}})", re.ASCII)

    def path_of(self, first: int) -> Path:
        """Return the path of the file that begins with a record."""
        return self.base.with_name(f"{self.base.name}.{first:0{DIGITS}}") if first else self.base

    @property
    def unfinished(self) -> Path:
        """Where the next file is made before it has its name."""
        return self.base.with_name(self.base.name + ".next")

    def present(self) -> list[int]:
        """Return the first records of the files that are there, in order.

        Raises:
            OSError: The folder cannot be read.
        """
        names = os.listdir(self.base.parent)  # noqa: PTH208 - names are all that is needed
        found = {int(later.group(1)) for later in map(self._name.fullmatch, names) if later} - {0}
        return sorted(found | ({0} if self.base.name in names else set()))

    def sync_folder(self) -> None:
        """Make the names of the files durable.

        Raises:
            OSError: They are not.
        """
        descriptor = os.open(self.base.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def journal_in(folder: Path) -> Path | None:
    """Return the journal in a folder, where there is exactly one of several files, or one that has the usual name.

    Raises:
        OSError: The folder cannot be read.
    """
    there = {path.name for path in folder.iterdir()}
    names = {match.group(1) for match in map(_LATER.fullmatch, there) if match} | ({USUAL} & there)
    return folder / names.pop() if len(names) == 1 else None


def log_bytes(path: Path) -> int:
    """Return how much is in the write-ahead log of a file."""
    try:
        return path.with_name(path.name + "-wal").stat().st_size
    except FileNotFoundError:
        return 0


def carried_from(first: int) -> int:
    """Return the first record that a file holds a copy of: the one before the tile in which its own begin."""
    return max(0, first // TILE_WIDTH * TILE_WIDTH - 1)


def files_named(connection: sqlite3.Connection) -> list[int]:
    """Return the first records of a file and of all before it, as the file itself knows them."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'files'").fetchone()
    return [int(first) for first in str(row[0]).split()] if row else [0]


def successor_named(connection: sqlite3.Connection) -> int | None:
    """Return the first record of the file that goes on from this one, if it was sealed."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'successor'").fetchone()
    return int(row[0]) if row else None


def spans(ever: list[int], present: list[int]) -> list[Span]:
    """Return the spans of the files that there are or were, in order; the last has no end."""
    firsts = sorted({*ever, *present})
    there = frozenset(present)
    ended = [Span(first=first, end=end, present=first in there) for first, end in pairwise(firsts)]
    return [*ended, Span(first=firsts[-1], end=None, present=firsts[-1] in there)]

"""The files of one journal, open for reading, wherever a record stands.

Which files there are is looked up whenever their folder has changed: the head goes on in another file, or an operator
moves an old one away, or back.
"""

import sqlite3
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final

from aipaging.adapters.journal.errors import journal_file_missing, journal_io
from aipaging.adapters.journal.sqlite.files import JournalFiles, Span, carried_from, files_named, spans
from aipaging.adapters.journal.sqlite.schema import reader_connection
from aipaging.core.foundation.errors import UnavailableError

OPEN_MAX: Final = 16
"""Files kept open at a time: three descriptors each."""

SETTLED_NS: Final = 1_000_000_000
"""A folder that changed less than so long before it was listed is listed again: file systems tick in milliseconds, and
what changes within the same tick cannot be told."""


class StandingFiles:
    """Connections for reading to the files that are there; used from one thread at a time.

    Args:
        path: The name of any of the files.
        head: A connection to the last file, where there is one already; it is left open.
    """

    def __init__(self, path: Path, head: sqlite3.Connection | None = None) -> None:
        self.files = JournalFiles(path)
        self._head = head
        self._open: OrderedDict[int, sqlite3.Connection] = OrderedDict()
        self._listed_ns = -1
        self._present: list[int] = []
        self._spans: list[Span] = []

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()
        self._listed_ns = -1

    def spans(self) -> list[Span]:
        """Return the spans of all files that there are or were, in order; the last is there.

        Raises:
            UnavailableError: No file is there (JOURNAL_IO).
            sqlite3.DatabaseError: The last one is no journal.
        """
        folder = self.files.base.parent
        try:
            changed_ns = folder.stat().st_mtime_ns
            if changed_ns != self._listed_ns:
                settled = time.time_ns() - changed_ns > SETTLED_NS
                self._take(self.files.present())
                self._listed_ns = changed_ns if settled else -1
        except OSError as error:
            raise journal_io(str(self.files.base), error.strerror or "its folder cannot be read") from error
        return self._spans

    def present(self) -> list[Span]:
        """Return the spans of the files that are there, in order."""
        return [span for span in self.spans() if span.present]

    def missing(self) -> list[Span]:
        """Return the spans of the files that are not there, in order."""
        return [span for span in self.spans() if not span.present]

    def nearest(self, seq: int) -> tuple[Span, list[Span]]:
        """Return the span of the file that a record belongs to, or that of the next one that is there.

        Returns:
            The span, and those before it, from the record's on, whose files are not there.
        """
        lacking: list[Span] = []
        for span in self.spans():
            if span.end is not None and span.end <= seq:
                continue
            if span.present:
                return span, lacking
            lacking.append(span)
        raise AssertionError("the last file is always there")

    def holding(self, seq: int) -> Span:
        """Return the span of a file that holds a record, be it a copy.

        Raises:
            UnavailableError: It is in a file that is not there (JOURNAL_FILE_MISSING).
        """
        span, lacking = self.nearest(seq)
        if lacking and seq < carried_from(span.first):
            raise self.lost(lacking)
        return span

    def lost(self, lacking: list[Span]) -> UnavailableError:
        """Return the error for records of files that are not there."""
        names = [self.files.path_of(span.first).name for span in lacking]
        first, end = lacking[0].first, lacking[-1].end
        records = f"records {first} to {end - 1}" if end is not None else f"the records from {first} on"
        # Readers' errors are answered to callers, who need not know where the files lie.
        where = self.files.base.name if self._head is None else str(self.files.base)
        return journal_file_missing(where, names, records)

    def connection(self, span: Span) -> sqlite3.Connection:
        """Return a connection to a file that is there.

        Raises:
            UnavailableError: It is not there any more (JOURNAL_FILE_MISSING).
            sqlite3.DatabaseError: It cannot be opened.
        """
        if span.end is None and self._head is not None:
            return self._head
        known = self._open.get(span.first)
        if known is not None:
            self._open.move_to_end(span.first)
            return known
        try:
            made = reader_connection(self.files.path_of(span.first))
        except sqlite3.OperationalError:
            if self.files.path_of(span.first).exists():
                raise
            self._listed_ns = -1
            raise self.lost([span]) from None
        self._open[span.first] = made
        if len(self._open) > OPEN_MAX:
            self._open.popitem(last=False)[1].close()
        return made

    def _take(self, present: list[int]) -> None:
        """Take note of the files that are there; those that are not are closed."""
        if not present:
            raise journal_io(str(self.files.base), "there is no such file")
        if present == self._present:
            return
        for first in set(self._open) - set(present):
            self._open.pop(first).close()
        last = Span(first=present[-1], end=None, present=True)
        self._spans = spans(files_named(self.connection(last)), present)
        self._present = present

"""The port to a log that also knows which records belong to whom."""

from typing import Protocol

from aipaging.core.foundation.names import SessionId
from aipaging.ports.journal import EvidenceReader


class EvidenceLog(EvidenceReader, Protocol):
    """An `EvidenceReader` beside the writer, where sessions are told apart."""

    def session_records(self, session: SessionId) -> list[tuple[int, bytes]]:
        """Return (seq, record) of the session's own records (renewals in batches are not among them).

        Raises:
            UnavailableError: Some may stand in a file that was moved away (JOURNAL_FILE_MISSING).
        """
        ...

    def first_seq(self) -> int:
        """Return the first record from which on all can be read; older ones were moved away."""
        ...

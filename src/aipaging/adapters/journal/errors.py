"""The ways in which a journal fails, worded alike by every adapter."""

from collections.abc import Sequence
from typing import Final

from aipaging.core.foundation.errors import AipagingError, UnavailableError, Who

FILE_MISSING: Final = "JOURNAL_FILE_MISSING"
"""The code of the error for records that were moved away."""


def journal_full(where: str, *, restrictive: bool = False) -> UnavailableError:
    """Return the error for an append that found no space; `restrictive` ones found none kept aside either."""
    aside = "not even in the space kept aside" if restrictive else "revocations go into the space kept aside"
    return UnavailableError(
        f"{where}: no space left, {aside}. Nothing is admitted until the operator frees space; leases already granted "
        "run out by themselves",
        code="JOURNAL_FULL",
    )


def journal_locked(where: str, holder: str) -> UnavailableError:
    """Return the error for a journal that another process writes."""
    return UnavailableError(
        f"{where} is being written by {holder}: one controller writes a journal. The operator must stop that process "
        "or give this one a data directory of its own",
        code="JOURNAL_LOCKED",
    )


def journal_io(where: str, what: str) -> UnavailableError:
    """Return the error for storage that failed, after which only opening anew shows what was kept."""
    return UnavailableError(
        f"{where}: storage failed ({what}). Nothing more is written; the operator must look at the disk and restart",
        code="JOURNAL_IO",
    )


def journal_corrupt(where: str, what: str) -> UnavailableError:
    """Return the error for stored bytes that are not what was appended."""
    return UnavailableError(
        f"{where} is damaged or was altered: {what}. It is not written to; the operator must run "
        "`aipaging evidence verify` on it and restore a backup",
        code="JOURNAL_CORRUPT",
    )


def journal_file_missing(where: str, names: Sequence[str], records: str) -> UnavailableError:
    """Return the error for records in files of the journal that were moved away; `names` are those files."""
    verb = "stands" if len(names) == 1 else "stand"
    return UnavailableError(
        f"{records} cannot be read: {', '.join(names)} no longer {verb} beside the other files of {where}. The "
        "operator must put back what was moved away",
        code=FILE_MISSING,
    )


def snapshot_damaged(where: str, what: str) -> UnavailableError:
    """Return the error for a snapshot that is gone or altered: the journal is replayed instead."""
    return UnavailableError(f"{where} is not the snapshot that was written ({what})", code="SNAPSHOT_DAMAGED")


def journal_gap(seq: int, place: int) -> AipagingError:
    """Return the error for entries that do not continue the log."""
    return AipagingError(f"entry {seq} was to be stored at place {place}", code="JOURNAL_GAP", who=Who.BUG)


def session_erased(session: str) -> AipagingError:
    """Return the error for a payload of a session whose key is gone for good."""
    return AipagingError(f"session {session} was erased: nothing more is kept", code="SESSION_ERASED", who=Who.BUG)

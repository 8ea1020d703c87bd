"""Snapshots as files beside the journal: one each, encrypted under a key of its own.

A snapshot is megabytes, and written while the journal goes on: in its file it costs the journal nothing, and each
megabyte is synced by itself, so that a sync of the journal never waits for much of it. What makes a file the newest
snapshot is a row in the journal, with its key: until the row is there the file is nothing, and without the row it is
noise. Deleting the row erases the snapshot.
"""

import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aipaging.adapters.journal.errors import journal_full, snapshot_damaged
from aipaging.ports.journal import WrittenSnapshot

KEY_BYTES: Final = 32
"""AES-256. A key is of one file, so its parts' numbers can be the nonces."""

NONCE_BYTES: Final = 12
LENGTH_BYTES: Final = 4

SYNC_BYTES: Final = 1 << 20
"""What is written before it is synced: some milliseconds of a disk that the journal wants too."""

MODE: Final = 0o600


class SnapshotFiles:
    """The files of one journal.

    Args:
        journal: The journal's path; the files stand beside it.
        spare_bytes: Space that has to stay free: a snapshot must not be what fills the disk.
    """

    def __init__(self, journal: Path, *, spare_bytes: int) -> None:
        self._journal = journal
        self._spare_bytes = spare_bytes

    def write(self, parts: Iterable[bytes]) -> WrittenSnapshot:
        """Return parts written and synced, under a new name.

        Raises:
            OSError: The file cannot be written; nothing is left of it.
            UnavailableError: There is too little space (JOURNAL_FULL); likewise.
        """
        name, key = f"{self._journal.name}.snapshot-{secrets.token_hex(8)}", secrets.token_bytes(KEY_BYTES)
        path, cipher, count, unsynced = self._journal.with_name(name), AESGCM(key), 0, 0
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE)
        try:
            with os.fdopen(descriptor, "wb", buffering=SYNC_BYTES) as file:
                for part in parts:
                    sealed = cipher.encrypt(_nonce(count), part, None)
                    unsynced += file.write(len(sealed).to_bytes(LENGTH_BYTES, "big") + sealed)
                    count += 1
                    if unsynced >= SYNC_BYTES:
                        self._check_space()
                        file.flush()
                        os.fdatasync(descriptor)
                        unsynced = 0
                file.flush()
                os.fsync(descriptor)
            self._sync_folder()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return WrittenSnapshot(name=name, key=key, parts=count)

    def read(self, written: WrittenSnapshot) -> Iterator[bytes]:
        """Yield the parts of a snapshot.

        Raises:
            UnavailableError: It is not there, or not as it was written (SNAPSHOT_DAMAGED).
        """
        path, cipher = self._journal.with_name(Path(written.name).name), AESGCM(written.key)
        try:
            with path.open("rb", buffering=SYNC_BYTES) as file:
                size_bytes = os.fstat(file.fileno()).st_size
                for number in range(written.parts):
                    length = int.from_bytes(file.read(LENGTH_BYTES), "big")
                    sealed = file.read(length) if length <= size_bytes - file.tell() else b""
                    yield cipher.decrypt(_nonce(number), sealed, None)
        except (OSError, InvalidTag, ValueError) as error:
            raise snapshot_damaged(str(path), str(error) or type(error).__name__) from error

    def exists(self, written: WrittenSnapshot) -> bool:
        """Whether the file is there."""
        return self._journal.with_name(written.name).is_file()

    def keep_only(self, name: str) -> None:
        """Delete all files but one; with an empty name, all."""
        for path in self._journal.parent.glob(f"{self._journal.name}.snapshot-*"):
            if path.name != name:
                path.unlink(missing_ok=True)

    def _check_space(self) -> None:
        free = os.statvfs(self._journal.parent)
        if free.f_bavail * free.f_frsize < self._spare_bytes:
            raise journal_full(str(self._journal))

    def _sync_folder(self) -> None:
        descriptor = os.open(self._journal.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _nonce(number: int) -> bytes:
    return number.to_bytes(NONCE_BYTES, "big")

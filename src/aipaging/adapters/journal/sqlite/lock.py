"""One controller per journal file, held by the kernel for the life of the process."""

import fcntl
import os
from pathlib import Path

from aipaging.adapters.journal.errors import journal_locked


class FileLock:
    """An exclusive lock on a file of its own; it dies with the process, however that ends.

    `flock` and not POSIX record locks: closing any other descriptor of the file would drop those.
    The file itself stays: deleting it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            UnavailableError: Another process has it (JOURNAL_LOCKED); the message names it.
        """
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise journal_locked(str(self._path.with_suffix("")), f"process {holder or '(unknown)'}") from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up; doing so twice does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

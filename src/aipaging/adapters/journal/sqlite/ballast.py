"""Space kept aside, so that revocations and expiries are still recorded on a full disk."""

import os
from pathlib import Path
from typing import Final

BALLAST_BYTES: Final = 32 * 1024 * 1024
"""10,000 sessions ending at once: revoke, remove, expire and release of about 0.6 kB each, and the write-ahead log."""

MODE: Final = 0o600


class Ballast:
    """A preallocated file that is deleted when the disk is full; of zero bytes, no file.

    Attributes:
        held: Whether the space is kept; while it is not, only restrictive records are taken.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self.held = False

    def hold(self, *, spare_factor: int = 1) -> bool:
        """Keep the space if the disk has it `spare_factor` times over; tell whether it is kept."""
        if self.held or not self._size_bytes:
            self.held = True
            return True
        free = os.statvfs(self._path.parent)
        if free.f_bavail * free.f_frsize < spare_factor * self._size_bytes and not self._stored():
            return False
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
            os.ftruncate(descriptor, self._size_bytes)
            self.held = True
        except OSError:
            self._path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        return self.held

    def release(self) -> None:
        """Give the space to the journal."""
        self._path.unlink(missing_ok=True)
        self.held = False

    def _stored(self) -> bool:
        return self._path.exists() and self._path.stat().st_blocks * 512 >= self._size_bytes

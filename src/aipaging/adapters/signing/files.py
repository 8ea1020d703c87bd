"""Files that hold keys: created whole or not at all, and refused when others could read them.

Creation is exclusive (a hard link of a finished file), so two processes that start on one empty directory agree on
one key instead of each keeping its own.
"""

import os
import secrets
import stat
from pathlib import Path
from typing import Final

from aipaging.core.foundation.errors import AipagingError, Who

KEY_FILE_BYTES_MAX: Final = 64 * 1024
"""A PEM key or chain is a few kilobytes; more is a wrong file, not a bigger key."""

PRIVATE_MODE: Final = 0o600
"""Mode of a file with private material."""

PUBLIC_MODE: Final = 0o644
"""Mode of a certificate: it is shown to every peer anyway."""


def private_directory(directory: Path) -> None:
    """Create `directory` with mode 0700, or check that nobody but its owner may change what it holds.

    Raises:
        AipagingError: Others may write there: they could put their own keys in place of ours.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(directory.stat().st_mode)
    except OSError as error:
        raise _unusable(directory, error) from error
    if mode & 0o022:
        raise AipagingError(
            f"{directory} has mode {mode:03o}: others may replace the keys in it. Run: chmod 700 {directory}",
            code="KEY_FILE_PERMISSIONS",
            who=Who.OPERATOR,
        )


def read_private(path: Path) -> bytes:
    """Return the bytes of a file with private material.

    Raises:
        AipagingError: It cannot be read, is too long, or its mode lets its group or the world at it.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            content = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unusable(path, error) from error
    if mode & 0o077:
        raise AipagingError(
            f"{path} has mode {mode:03o}: a private key must be its owner's alone. Run: chmod 600 {path} "
            "(and make a new key if others may have read it)",
            code="KEY_FILE_PERMISSIONS",
            who=Who.OPERATOR,
        )
    if len(content) > KEY_FILE_BYTES_MAX:
        raise unreadable_key(path)
    return content


def create_once(path: Path, content: bytes, *, mode: int = PRIVATE_MODE) -> bool:
    """Put `content` at `path` unless a file is there already, durably; return whether it was put.

    Raises:
        AipagingError: The directory cannot be written.
    """
    try:
        temporary = _written(path, content, mode)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        _flush_directory(path.parent)
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def replace(path: Path, content: bytes, *, mode: int) -> None:
    """Put `content` at `path` whatever was there; a reader sees the old bytes or the new ones, never a mixture.

    Raises:
        AipagingError: The directory cannot be written.
    """
    try:
        _written(path, content, mode).replace(path)
        _flush_directory(path.parent)
    except OSError as error:
        raise _unusable(path, error) from error


def remove(path: Path) -> None:
    """Remove a file, durably; one that is not there is removed already.

    Raises:
        AipagingError: The directory cannot be written.
    """
    try:
        path.unlink(missing_ok=True)
        _flush_directory(path.parent)
    except OSError as error:
        raise _unusable(path, error) from error


def unreadable_key(path: Path) -> AipagingError:
    """Return the error for a file that should hold a key of ours and does not."""
    return AipagingError(
        f"{path} does not hold a key of the expected kind; restore it from a backup, or move it away to have a new "
        "one made (what the old key signed is then no longer accepted)",
        code="KEY_FILE_UNREADABLE",
        who=Who.OPERATOR,
    )


def _written(path: Path, content: bytes, mode: int) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        # A full disk: half a key must not stay behind under any name.
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _flush_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(path: Path, error: OSError) -> AipagingError:
    return AipagingError(
        f"{path} cannot be used for keys: {error.strerror}", code="KEY_FILE_UNUSABLE", who=Who.OPERATOR
    )

"""Checks of what a controller was given: configuration, data directory, ports, journal, policies."""

import contextlib
import fcntl
import os
import shutil
import socket
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.journal.sqlite.files import JournalFiles, successor_named
from aipaging.adapters.journal.sqlite.sealing import movable
from aipaging.adapters.journal.sqlite.standing import StandingFiles
from aipaging.apps.doctor.finding import Finding, Situation, doubtful, fine, wrong
from aipaging.core.foundation.errors import AipagingError

SPACE_BYTES_MIN: Final = 256 * 2**20
"""Below it the journal is full within a day of a busy controller."""

SPACE_BYTES_GOOD: Final = 2 * 2**30

_TCP_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENING: Final = "0A"


def configuration(situation: Situation) -> Iterator[Finding]:
    """Tell what `aipaging config check` found."""
    if situation.config_file is None:
        yield doubtful(
            "no configuration was named: what depends on it was not looked at",
            fix="aipaging doctor --config aipaging.toml",
            who="caller",
        )
        return
    for problem in situation.config_problems:
        yield wrong(
            f"{_place(problem, situation)}: {problem['message']}",
            fix="correct that line; `aipaging config keys` tells what is allowed"
            if problem.get("line")
            else "`aipaging config check` says the same; `aipaging config keys` tells what is allowed",
        )
    for warning in situation.config_warnings:
        yield doubtful(f"{_place(warning, situation)}: {warning['message']}", fix="see whether that is what you mean")
    if situation.config:
        yield fine(f"{situation.config_file} has no mistakes")


def _place(problem: Mapping[str, Any], situation: Situation) -> str:
    """Return the file of a problem, and its line where it has one."""
    file, line = problem.get("file") or situation.config_file, problem.get("line")
    return f"{file}:{line}" if line else str(file)


def data_directory(situation: Situation) -> Iterator[Finding]:
    """Look at the directory that keys and journal lie in."""
    directory = situation.data_dir
    if directory is None:
        return
    if not directory.exists():
        parent = _existing(directory)
        if os.access(parent, os.W_OK | os.X_OK):
            yield fine(f"{directory} will be made by the first start")
        else:
            yield wrong(
                f"{directory} cannot be made: {parent} is not writable", fix=f"make it, or give rights on {parent}"
            )
        return
    yield from _permissions(directory)
    for key in sorted((*directory.glob("keys/*"), *directory.glob("*/*key.pem"))):
        if key.is_file() and stat.S_IMODE(key.stat().st_mode) & 0o077:
            yield wrong(f"others may read {key}", fix=f"chmod 600 {key}, and make a new key if others may have read it")


def _permissions(directory: Path) -> Iterator[Finding]:
    found = directory.stat()
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.geteuid():
        yield doubtful(
            f"{directory} belongs to user {found.st_uid}, not to you", fix="run doctor as the controller's user"
        )
    if mode & 0o077:
        yield wrong(f"{directory} has mode {mode:03o}: others get at keys and journal", fix=f"chmod 700 {directory}")
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield wrong(f"{directory} is not writable", fix=f"chown it to the controller's user and chmod 700 {directory}")
    else:
        yield fine(f"{directory} is its owner's alone")


def disk_space(situation: Situation) -> Iterator[Finding]:
    """Look at the space for the journal."""
    if not situation.config:
        return
    where = _existing(Path(situation.config["journal"]["path"]).parent)
    free = shutil.disk_usage(where).free
    reserve = int(situation.config["journal"]["reserve_bytes"])
    said = f"{free / 2**30:,.1f} GiB are free for the journal at {where}"
    if free < SPACE_BYTES_MIN + reserve:
        yield wrong(said, fix="free space: when it is full, nothing is admitted and leases run out")
    elif free < SPACE_BYTES_GOOD:
        yield doubtful(said, fix="free space before it is full")
    else:
        yield fine(said)


def ports(situation: Situation) -> Iterator[Finding]:
    """Look whether the ports can be listened on, and who has them."""
    if not situation.config:
        return
    ours = _journal_holder(situation)
    for section, key in (
        ("northbound", "listen"),
        ("southbound", "listen"),
        ("southbound", "ads_listen"),
        ("gateway", "listen"),
    ):
        host, _, port = str(situation.config[section][key]).rpartition(":")
        where = f"{section}.{key} {host}:{port}"
        if int(port) == 0 or _free(host.strip("[]"), int(port)):
            yield fine(f"{where} is free")
            continue
        holder, name = _listener(int(port))
        if ours is not None and (holder == ours or name == "envoy"):
            yield fine(f"{where} is used by the running controller ({name or 'process'} {holder})")
        else:
            who = f"{name} (process {holder})" if holder else "a process of another user"
            yield wrong(f"{where} is taken by {who}", fix=f"stop it, or choose another address for {section}.{key}")


def journal(situation: Situation) -> Iterator[Finding]:
    """Look whether the journal is in use, whole as a database, and which of its files may be moved away."""
    if not situation.config:
        return
    files = JournalFiles(Path(situation.config["journal"]["path"]))
    present = files.present() if files.base.parent.is_dir() else []
    if not present:
        yield fine(f"{files.base} will be made by the first start")
        return
    path = files.path_of(present[-1])
    holder = _journal_holder(situation)
    if holder is not None:
        yield fine(f"process {holder} writes {path}: a controller is running")
    begun = False
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            begun = bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'meta'").fetchall())
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        yield wrong(
            f"{path} is damaged: {said}",
            fix=f"restore a backup; `aipaging evidence verify {path}` tells how far it is good",
        )
    else:
        yield fine(f"{path} is whole as a database (`aipaging evidence verify` proves the rest)")
        if begun:
            yield from _older_files(files)


def _older_files(files: JournalFiles) -> Iterator[Finding]:
    """Tell which older files of the journal there are, and which of them may be moved away."""
    with contextlib.closing(StandingFiles(files.base)) as standing:
        try:
            *older, head = standing.present()
            away, paths = standing.missing(), movable(standing)
            successor = successor_named(standing.connection(head))
        except (AipagingError, sqlite3.Error) as error:
            yield wrong(
                f"an older file of {files.base} cannot be read: {error}",
                fix=f"restore it from a backup; `aipaging evidence verify {files.base}` tells how far it is good",
            )
            return
    if successor is not None:
        yield wrong(
            f"the journal goes on in {files.path_of(successor).name}, which is not there: no controller starts",
            fix=f"put it back beside {files.base}",
        )
    if away:
        names = ", ".join(files.path_of(span.first).name for span in away)
        yield fine(f"moved away: {names}; what they hold cannot be asked here")
    if older:
        names = ", ".join(path.name for path in paths) or "none yet"
        yield fine(f"{len(older)} older files of {files.base}; those that may be moved away: {names}")


def policies(situation: Situation) -> Iterator[Finding]:
    """Hold the file of policies against the schema, as the controller does before it takes it."""
    if not situation.config or not situation.config.get("policies"):
        return
    from aipaging.adapters.policy.cedar import CedarPolicies  # noqa: PLC0415 - 100 ms

    file = Path(situation.config["policies"])
    try:
        found = CedarPolicies(file.read_text())
    except (AipagingError, OSError, UnicodeDecodeError) as error:
        yield wrong(
            f"{file} cannot be taken: {error}",
            fix=f"aipaging policies check {file}; those in force stay, but no controller starts with it",
        )
        return
    yield fine(f"{file} holds {len(found.ids)} policies that fit the schema")


def _journal_holder(situation: Situation) -> int | None:
    """Return the process that holds the journal's lock."""
    path = Path(situation.config["journal"]["path"])
    lock = path.with_name(path.name + ".lock")
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else -1
    else:
        return None
    finally:
        os.close(descriptor)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _free(host: str, port: int) -> bool:
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(where)
    except OSError:
        return False
    return True


def _listener(port: int) -> tuple[int, str]:
    """Return the process that listens on a port, and its name; (0, "") where that is hidden from us."""
    inodes = {
        fields[9]
        for table in _TCP_TABLES
        if Path(table).exists()
        for fields in (line.split() for line in Path(table).read_text().splitlines()[1:])
        if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port
    }
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    link = os.readlink(descriptor)  # noqa: PTH115 - "socket:[1]" is no path
                    if link.startswith("socket:[") and link[8:-1] in inodes:
                        return int(process.name), (process / "comm").read_text().strip()
    return 0, ""

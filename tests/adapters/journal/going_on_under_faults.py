"""A program for the tests: goes on in another file again and again, and is stopped one call later every time.

Run with `stopping.c` loaded before the C library. Prints, for each call, what became of it; ends when no call is left.
"""

import contextlib
import itertools
import mmap
import os
import shutil
import struct
import sys
from pathlib import Path

from aipaging.adapters.journal.sqlite.files import JournalFiles, successor_named
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.sqlite.schema import reader_connection
from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.core.evidence.log import Sealer
from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.journal import moved, sealed, unsigned

KEY = bytes(range(32))
NOW = sealed.__globals__["_NOW"]
RECORDS = 20
"""In each of the three batches: before, after, and after the journal was opened anew."""

WHOLE, STOPPED = 0, 7
"""How a process ends that no call stopped, or that went on after one had failed."""


class Stopping:
    """What `stopping.c` is told."""

    def __init__(self, number: int, ever: int) -> None:
        self._told = mmap.mmap(os.open(os.environ["STOPPING"], os.O_RDWR), 12)
        self._rest = (number, ever)

    def set(self, calls: int) -> int:
        """Stop at the so many-eth call from now on, or with 0 at none; return what was left, 1 if it was stopped."""
        (left,) = struct.unpack_from("i", self._told)
        self._told[:] = struct.pack("3i", calls + 1 if calls else 0, *self._rest)
        return left


def batch(sealer: Sealer) -> tuple[list, str]:
    entries = sealer.seal([moved(payload=b"private", salt=b"s" * 16)] * RECORDS, term=1, now=NOW)
    return entries, unsigned(sealer)


def begun(path: Path) -> tuple[SqliteJournal, Sealer]:
    journal = SqliteJournal(path, KEY, ballast_bytes=0)
    return journal, Sealer("node-1", "boot-1", journal.open())


def killed(path: Path, arm, _: Stopping, acknowledge) -> int:
    """Go on in another file, store a batch there, and close; nothing is caught."""
    journal, sealer = begun(path)
    arm()
    journal.go_on()
    journal.append(*batch(sealer))
    acknowledge(sealer.head.seq)
    journal.close()
    return WHOLE


def failed(path: Path, arm, stopping: Stopping, acknowledge) -> int:
    """Go on in another file while a call fails; whatever comes of it, service goes on, if need be after reopening."""
    journal, sealer = begun(path)
    journal.save(RECORDS, "aa" * 32, journal.write([b"snapshot"]))
    arm()
    went_on = journal.go_on()
    journal._sealing.close()
    stopped = STOPPED if stopping.set(0) < 2 else WHOLE
    entries, note = batch(sealer)
    assert went_on or journal.failures or journal._broken, "it neither goes on nor says why not"
    if journal._broken:
        with contextlib.suppress(UnavailableError):
            journal.append(entries, note)
            raise AssertionError("a journal that is to be opened anew took records")
        journal.close()
        assert journal.open().seq == entries[0].seq
    else:
        assert went_on == (journal.first_seq == entries[0].seq)
    journal.append(entries, note)
    assert journal.newest() is not None, "the snapshot is lost"
    acknowledge(sealer.head.seq)
    assert went_on or journal.first_seq or journal.go_on(), "later it does not go on either"
    journal.close()
    return stopped


def check(path: Path, acknowledged: int) -> str:
    """Open what is left, as a new process would; return how many files there are."""
    journal, sealer = begun(path)
    stored = sealer.head.seq
    assert stored in {acknowledged, acknowledged + RECORDS}, f"{acknowledged} acknowledged, {stored} there"
    files = JournalFiles(path)
    assert not files.unfinished.exists()
    journal.append(*batch(sealer))
    journal.go_on()
    entries = list(journal.read(0))
    assert [entry.seq for entry in entries] == list(range(stored + RECORDS))
    assert {(entry.payload, entry.salt) for entry in entries} == {(b"private", b"s" * 16)}
    journal.close()
    reader = SqliteEvidenceReader(path)
    assert [stored.record for stored in reader.records(0)] == [entry.record for entry in entries]
    reader.close()
    present = files.present()
    for first, successor in itertools.pairwise(present):
        with contextlib.closing(reader_connection(files.path_of(first))) as connection:
            assert successor_named(connection) == successor, "a file is not sealed"
            assert connection.execute("SELECT count(*) FROM snapshots").fetchone() == (0,)
    return f"{len(present)} files"


def tried(work, path: Path, stopping: Stopping, calls: int) -> tuple[int, int]:
    """Do the work in a process of its own; return how it ended, and how many records it was told are stored."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ended = work(path, lambda: stopping.set(calls), stopping, lambda seq: os.write(send, f"{seq} ".encode()))
        except BaseException:  # noqa: BLE001 - it is told, and nothing of this process may go on
            sys.excepthook(*sys.exc_info())
            ended = 1
        os._exit(ended)
    os.close(send)
    with os.fdopen(receive) as said:
        acknowledged = int([str(RECORDS), *said.read().split()][-1])
    _, status = os.waitpid(child, 0)
    stopping.set(0)
    return os.waitstatus_to_exitcode(status), acknowledged


def main(folder: Path, number: int, ever: int) -> None:
    template = folder / "template"
    template.mkdir()
    journal, sealer = begun(template / "journal.db")
    journal.append(*batch(sealer))
    journal.close()
    stopping = Stopping(number, ever)
    for calls in itertools.count(1):
        place = folder / "stopped" / str(calls)
        shutil.copytree(template, place)
        code, acknowledged = tried(failed if number else killed, place / "journal.db", stopping, calls)
        assert code in {WHOLE, STOPPED, -9}, f"call {calls}: it ended with {code}"
        print(calls, "whole" if code == WHOLE else "stopped", check(place / "journal.db", acknowledged), flush=True)
        shutil.rmtree(place)
        if code == WHOLE:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Conformance kit of journals: what every adapter of `ports.journal` must do, seen through the port alone.

Wrap the adapter in a `JournalRig` and call `check_journal(make_rig)`, or give each of `JOURNAL_CHECKS` to the test
runner. Each check gets a rig on storage of its own.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from aipaging.core.evidence.log import EMPTY_LOG, LogHead, Sealer
from aipaging.core.evidence.record import Draft, Fields, SealedEntry, commitment
from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.ports.journal import Eraser, Journal, SnapshotStore

SESSION: Final = SessionId("00000000-0000-4000-8000-000000000001")
OTHER: Final = SessionId("00000000-0000-4000-8000-000000000002")
_NOW: Final = Now(boot_us=BootUs(1_000_000), wall_us=WallUs(1_790_000_000_000_000))


class StoredJournal(Journal, SnapshotStore, Eraser, Protocol):
    """What an adapter offers in one object."""


class JournalRig(Protocol):
    """One piece of storage, and the faults that a test can bring upon it."""

    def journal(self) -> StoredJournal:
        """Return a new journal object on the storage, as a new process would have it; not opened."""
        ...

    def crash(self, journal: StoredJournal) -> None:
        """Drop an open journal as a killed process would: locks go, nothing is flushed."""
        ...

    def fill(self) -> None:
        """Let the storage run out of space for ordinary records."""
        ...

    def alter(self, seq: int, record: bytes) -> None:
        """Replace the stored bytes of a record behind the adapter's back."""
        ...


def sealed(head: LogHead, *drafts: Draft) -> tuple[list[SealedEntry], Sealer]:
    """Return the drafts sealed from `head`, and the sealer after them."""
    sealer = Sealer("node-1", "boot-1", head)
    return sealer.seal(drafts, term=1, now=_NOW), sealer


def moved(session: SessionId = SESSION, payload: bytes | None = None, salt: bytes | None = None) -> Draft:
    """Return a draft with a private part."""
    fields = {"session": str(session), "place_commitment": commitment(salt or b"salt", payload or b"")}
    return Draft(type="CLIENT_MOVED", fields=fields, payload=payload, salt=salt)


def unsigned(sealer: Sealer) -> str:
    """Return a checkpoint note; the journal does not judge its signature."""
    return sealer.checkpoint_text("test.example/log") + "\n\u2014 test.example/log AAAA\n"


def expect(code: str, action: Callable[[], object]) -> AipagingError:
    """Return the error with this code that `action` raises; fail if it does not."""
    try:
        action()
    except AipagingError as error:
        caught = error
    else:
        raise AssertionError(f"{code} was expected, nothing was raised")
    assert caught.code == code, f"{caught.code} instead of {code}: {caught}"
    return caught


def starts_empty(rig: JournalRig) -> None:
    """A new journal has no records, no checkpoint and no snapshot."""
    journal = rig.journal()
    assert journal.open() == EMPTY_LOG
    assert list(journal.read(0)) == []
    assert journal.checkpoint() is None
    assert journal.newest() is None


def keeps_what_it_acknowledged(rig: JournalRig) -> None:
    """After a crash everything that append returned from is there, byte for byte, and the head goes on."""
    journal = rig.journal()
    salt = b"0123456789abcdef"
    leaves: tuple[Fields, ...] = ({"session": SESSION, "epoch_term": 1, "epoch_n": 1, "renewal": 1, "lease_ms": 5_000},)
    first, sealer = sealed(journal.open(), moved(payload=b"here", salt=salt), moved(OTHER, payload=b""))
    journal.append(first, unsigned(sealer))
    batch = Draft(type="LEASES_RENEWED", fields={}, leaves=leaves, payload=b"about nobody in particular")
    second = sealer.seal([batch, moved()], term=1, now=_NOW)
    journal.append(second, None)
    note = journal.checkpoint()
    rig.crash(journal)
    again = rig.journal()
    assert again.open() == sealer.head
    assert list(again.read(0)) == [*first, *second]
    assert list(again.read(2)) == second
    assert again.checkpoint() == note
    third = sealer.seal([moved()], term=1, now=_NOW)
    again.append(third, unsigned(sealer))
    assert list(again.read(4)) == third
    assert again.checkpoint() == unsigned(sealer)


def goes_on_across_many_batches(rig: JournalRig) -> None:
    """Heads agree with the sealer at every reopening while the tree grows over tile borders."""
    journal = rig.journal()
    sealer = Sealer("node-1", "boot-1", journal.open())
    for batch in (1, 254, 1, 1, 255, 256, 300):
        entries = sealer.seal([moved()] * batch, term=1, now=_NOW)
        journal.append(entries, unsigned(sealer) if batch % 2 else None)
        rig.crash(journal)
        journal = rig.journal()
        assert journal.open() == sealer.head
    assert sum(1 for _ in journal.read(0)) == sealer.head.seq


def refuses_a_second_writer(rig: JournalRig) -> None:
    """While one journal is open, another on the same storage is refused; afterwards it is not."""
    first, second = rig.journal(), rig.journal()
    first.open()
    expect("JOURNAL_LOCKED", second.open)
    first.close()
    first.close()
    second.open()


def refuses_a_gap(rig: JournalRig) -> None:
    """Entries that do not continue the log are refused, and nothing of them is stored."""
    journal = rig.journal()
    entries, sealer = sealed(journal.open(), moved(), moved())
    expect("JOURNAL_GAP", lambda: journal.append(entries[1:], None))
    journal.append(entries, None)
    expect("JOURNAL_GAP", lambda: journal.append(entries, None))
    rig.crash(journal)
    assert rig.journal().open() == sealer.head


def keeps_space_aside(rig: JournalRig) -> None:
    """On a full disk nothing half-written remains, ordinary records are refused, restrictive ones stored."""
    journal = rig.journal()
    entries, sealer = sealed(journal.open(), moved(payload=b"x" * 200))
    journal.append(entries, unsigned(sealer))
    rig.fill()
    before = sealer.head
    ordinary = sealer.seal([moved(payload=b"y" * 20_000)] * 600, term=1, now=_NOW)
    error = expect("JOURNAL_FULL", lambda: journal.append(ordinary, unsigned(sealer)))
    assert isinstance(error, UnavailableError)
    ended = Draft(type="SESSION_ENDED", fields={"session": SESSION, "status_info": "NETWORK_TERMINATED"})
    restrictive, after = sealed(before, *[ended] * 20)
    journal.append(restrictive, unsigned(after), restrictive=True)
    rig.crash(journal)
    again = rig.journal()
    assert again.open() == after.head
    assert list(again.read(0)) == [*entries, *restrictive]


def refuses_altered_records(rig: JournalRig) -> None:
    """A tail that does not fit its chain or checkpoint is never used: the journal does not open."""
    journal = rig.journal()
    entries, sealer = sealed(journal.open(), moved(), moved(), moved())
    journal.append(entries[:2], None)
    journal.append(entries[2:], unsigned(sealer))
    rig.crash(journal)
    for entry in entries:
        rig.alter(entry.seq, entry.record.replace(b'"term":1', b'"term":2'))
        expect("JOURNAL_CORRUPT", rig.journal().open)
        rig.alter(entry.seq, entry.record)
    assert rig.journal().open() == sealer.head


def erases_a_session(rig: JournalRig) -> None:
    """Erasure takes the session's payloads, leaves the records, and lasts; it says whether there was such a session."""
    journal = rig.journal()
    everybody = Draft(type="SERVICE_REMOVED", fields={"aisi": "aisi://a/b/c"}, payload=b"everybody's")
    entries, sealer = sealed(
        journal.open(), moved(payload=b"mine", salt=b"s" * 16), moved(OTHER, payload=b"theirs"), everybody
    )
    journal.append(entries, None)
    assert journal.erase(SESSION)
    assert journal.erase(SESSION)
    assert not journal.erase(SessionId("00000000-0000-4000-8000-00000000000f"))
    _assert_erased(journal, entries)
    rig.crash(journal)
    again = rig.journal()
    assert again.open() == sealer.head
    _assert_erased(again, entries)
    late = sealed(sealer.head, moved(payload=b"again"))[0]
    expect("SESSION_ERASED", lambda: again.append(late, None))


def _assert_erased(journal: StoredJournal, entries: Sequence[SealedEntry]) -> None:
    stored = list(journal.read(0))
    assert [entry.payload for entry in stored] == [None, b"theirs", b"everybody's"]
    assert [entry.salt for entry in stored] == [None, None, None]
    assert [entry.record for entry in stored] == [entry.record for entry in entries]


def erases_snapshots_that_may_hold_the_session(rig: JournalRig) -> None:
    """A snapshot taken after the session's last record holds nothing of it and stays; an older one goes, for good."""
    journal = rig.journal()
    entries, sealer = sealed(journal.open(), moved(payload=b"1"), moved(OTHER, payload=b"2"), moved(payload=b"3"))
    journal.append(entries, None)
    journal.save(2, sealer.head.tree.root().hex(), journal.write([b"state of the first two"]))
    assert journal.erase(OTHER)
    newest = journal.newest()
    assert newest is not None
    assert list(newest[2]) == [b"state of the first two"]
    assert journal.erase(SESSION)
    assert journal.newest() is None
    rig.crash(journal)
    again = rig.journal()
    again.open()
    assert again.newest() is None


def keeps_the_newest_snapshot(rig: JournalRig) -> None:
    """The newest snapshot survives a crash, one that is not saved changes nothing; discarding leaves none."""
    journal = rig.journal()
    journal.open()
    journal.save(1, "aa" * 32, journal.write([b"one"]))
    journal.save(2, "bb" * 32, journal.write([b"two", b"", b"parts" * 1_000]))
    journal.write([b"never saved"])
    rig.crash(journal)
    again = rig.journal()
    again.open()
    newest = again.newest()
    assert newest is not None
    assert newest[:2] == (2, "bb" * 32)
    assert list(newest[2]) == [b"two", b"", b"parts" * 1_000]
    written = again.write([b"three"])
    again.discard()
    assert again.newest() is None
    expect("SNAPSHOT_DAMAGED", lambda: again.save(3, "cc" * 32, written))
    assert again.newest() is None


def leaves_nothing_of_half_a_snapshot(rig: JournalRig) -> None:
    """A snapshot whose parts cannot be had is given up, and the older one stays."""
    journal = rig.journal()
    journal.open()
    journal.save(1, "aa" * 32, journal.write([b"one"]))

    def half() -> Iterator[bytes]:
        yield b"half"
        raise ValueError("no more")

    with contextlib.suppress(ValueError):
        journal.write(half())
        raise AssertionError("a snapshot was written whose parts could not be had")
    newest = journal.newest()
    assert newest is not None
    assert list(newest[2]) == [b"one"]


JOURNAL_CHECKS: Final[tuple[Callable[[JournalRig], None], ...]] = (
    starts_empty,
    keeps_what_it_acknowledged,
    goes_on_across_many_batches,
    refuses_a_second_writer,
    refuses_a_gap,
    keeps_space_aside,
    refuses_altered_records,
    erases_a_session,
    erases_snapshots_that_may_hold_the_session,
    keeps_the_newest_snapshot,
    leaves_nothing_of_half_a_snapshot,
)
"""Every check of the kit; each takes a fresh rig."""


def check_journal(make_rig: Callable[[], JournalRig]) -> None:
    """Run every check, each on a rig of its own.

    Raises:
        AssertionError: The adapter does not conform; the message says how.
    """
    for check in JOURNAL_CHECKS:
        check(make_rig())

"""The reference journal passes its own kit."""

import pytest
from msgspec import structs

from aipaging.adapters.journal.memory import MemoryDisk, MemoryJournal
from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing.journal import JOURNAL_CHECKS, check_journal, moved, sealed


class MemoryRig:
    def __init__(self) -> None:
        self.disk = MemoryDisk()

    def journal(self) -> MemoryJournal:
        return MemoryJournal(self.disk)

    def crash(self, journal: MemoryJournal) -> None:
        journal.close()

    def fill(self) -> None:
        self.disk.full = True

    def alter(self, seq: int, record: bytes) -> None:
        self.disk.entries[seq] = structs.replace(self.disk.entries[seq], record=record)


@pytest.mark.parametrize("check", JOURNAL_CHECKS, ids=lambda check: check.__name__)
def test_conformance(check) -> None:
    check(MemoryRig())


def test_the_kit_catches_a_journal_that_forgets() -> None:
    class Forgetful(MemoryRig):
        def crash(self, journal: MemoryJournal) -> None:
            journal.close()
            del self.disk.entries[-1:]

    with pytest.raises(AssertionError):
        check_journal(Forgetful)


def test_an_ordered_failure_stores_nothing_and_stops_the_journal() -> None:
    journal = MemoryJournal()
    entries, _ = sealed(journal.open(), moved())
    journal.disk.failing = True
    for _ in range(2):
        with pytest.raises(UnavailableError, match="storage failed"):
            journal.append(entries, None)
    assert journal.disk.entries == []


def test_a_closed_journal_is_not_used() -> None:
    with pytest.raises(UnavailableError, match="not open"):
        MemoryJournal().append([], None)

"""Notifications: at least once, in order, nobody waits for a sink that hangs; what is given up is listed."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aipaging.adapters.notification import courier as courier_module
from aipaging.adapters.notification.courier import RETRY_S_MAX, Courier, CourierWork
from aipaging.adapters.notification.ledger import SqliteLedger
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.names import SessionId
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.ports.journal import StoredRecord
from aipaging.ports.notification import DeadLetter, Destination, Taken
from aipaging.runtime.events.event import event_of
from aipaging.runtime.events.hub import EventHub, Told
from aipaging.testing.world import World


class Log:
    """The public part of a journal in memory."""

    def __init__(self, entries: Sequence[SealedEntry] = ()) -> None:
        self.entries = list(entries)

    def records(self, first_seq: int, end_seq: int | None = None) -> Iterator[StoredRecord]:
        for entry in self.entries[first_seq:end_seq]:
            yield StoredRecord(record=entry.record, leaf_hash=entry.leaf_hash, leaves=())

    def session_records(self, session: SessionId) -> list[tuple[int, bytes]]:
        return [(entry.seq, entry.record) for entry in self.entries if entry.session == session]

    def first_seq(self) -> int:
        return 0

    def hashes(self, level: int, first: int, count: int) -> list[bytes]:
        raise NotImplementedError

    def leaves(self, root: bytes) -> tuple[bytes, ...] | None:
        raise NotImplementedError

    def checkpoints(self, *, newest: bool) -> list[str]:
        raise NotImplementedError

    def verifier_keys(self) -> tuple[str, ...]:
        raise NotImplementedError


class MemoryLedger:
    """Keeps what was saved."""

    def __init__(self) -> None:
        self.settled: int | None = None
        self.ahead: dict[str, int] = {}
        self.dead: list[DeadLetter] = []
        self.dead_process = False

    def progress(self) -> tuple[int | None, Mapping[str, int]]:
        return self.settled, dict(self.ahead)

    def save(self, settled: int, ahead: Mapping[str, int], dead: Sequence[DeadLetter]) -> None:
        if self.dead_process:
            return
        self.settled, self.ahead = settled, dict(ahead)
        self.dead += dead

    def dead_letters(self, first: int, count: int) -> tuple[int, Sequence[DeadLetter]]:
        return len(self.dead), self.dead[::-1][first : first + count]


class Sink:
    """Notes what it is posted; answers as it is told to."""

    def __init__(self, answer: Callable[[str, int], Taken] = lambda _key, _attempt: Taken(status=204)) -> None:
        self.answer = answer
        self.attempts: list[tuple[str, str]] = []
        self.taken: list[tuple[str, str]] = []
        self.hung: set[str] = set()
        self.urls: list[str] = []

    async def post(self, destination: Destination, body: bytes) -> Taken:
        event = msgspec.json.decode(body)["id"]
        self.attempts.append((destination.key, event))
        self.urls.append(destination.url)
        if destination.key in self.hung:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        answer = self.answer(destination.key, self.attempts.count((destination.key, event)))
        if 200 <= answer.status < 300:
            self.taken.append((destination.key, event))
        return answer


class Rig:
    """A log, a hub, a virtual clock and a courier with two sinks for every event."""

    def __init__(self, entries: Sequence[SealedEntry], ledger: MemoryLedger, sink: Sink) -> None:
        self.log = Log(entries)
        self.hub = EventHub(lambda: self.log, owner_of=lambda _: None, wall_us=lambda: 1)
        self.hub.recovered(len(entries))
        self.now_s = 0.0
        self.waits: list[float] = []
        self.ledger = ledger
        self.keys = ["sink:one", "sink:two"]
        self.domain = "example"
        self.courier = Courier(
            self.hub,
            CourierWork(
                notifier=sink,
                ledger=ledger,
                sinks=self.sinks,
                heard=lambda _: True,
                source="https://control.example",
                wall_us=lambda: int(self.now_s * 1e6),
                clock_s=lambda: self.now_s,
                sleep=self.sleep,
            ),
        )

    def sinks(self, _told: Told) -> Sequence[Destination]:
        return [
            Destination(key=key, tenant=key, url=f"https://{key[5:]}.{self.domain}/", expires_us=0) for key in self.keys
        ]

    async def sleep(self, seconds: float) -> None:
        if seconds == courier_module.SAVE_S:
            await asyncio.Event().wait()  # saved by hand
        self.waits.append(seconds)
        self.now_s += seconds
        await asyncio.sleep(0)

    def append(self, entries: Sequence[SealedEntry]) -> None:
        self.log.entries += entries
        self.hub.appended(entries, 0.0)


def history() -> list[SealedEntry]:
    world = World.started()
    sessions = [world.paged().session for _ in range(3)]
    for session in sessions:
        world.do(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    return world.entries


HISTORY = history()
IDS = [str(event.id) for entry in HISTORY if (event := event_of(entry.seq, entry.record, entry.leaf_hash))]


async def run(rig: Rig) -> None:
    async with asyncio.timeout(60):
        while rig.courier.read_to < rig.hub.end - 1 or rig.courier.destinations:
            await asyncio.sleep(0)


async def test_every_event_reaches_every_sink_once_and_in_order() -> None:
    sink, rig = Sink(), None
    rig = Rig([], MemoryLedger(), sink)
    await rig.courier.start()
    rig.append(HISTORY)
    await run(rig)
    await rig.courier.stop()
    for key in rig.keys:
        assert [event for to, event in sink.taken if to == key] == IDS
    assert rig.ledger.settled == len(HISTORY) - 1
    assert rig.ledger.ahead == {}


async def test_a_hung_sink_delays_nobody_and_is_sent_to_again_after_a_restart() -> None:
    ledger, sink = MemoryLedger(), Sink()
    sink.hung = {"sink:one"}
    rig = Rig([], ledger, sink)
    await rig.courier.start()
    rig.append(HISTORY)
    async with asyncio.timeout(60):
        while [event for to, event in sink.taken if to == "sink:two"] != IDS:
            await asyncio.sleep(0)
    await rig.courier.stop()
    assert ledger.settled is not None
    assert ledger.settled < int(IDS[0].split("-")[0])
    sink.hung = set()
    again = Rig(HISTORY, ledger, sink)
    await again.courier.start()
    await run(again)
    await again.courier.stop()
    assert [event for to, event in sink.taken if to == "sink:one"] == IDS
    assert [event for to, event in sink.taken if to == "sink:two"] == IDS, "what was settled is not sent again"


@settings(max_examples=40, deadline=None)
@given(
    stops=st.lists(st.integers(0, len(HISTORY)), max_size=4),
    crashes=st.lists(st.booleans(), min_size=5, max_size=5),
    failing=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    steps=st.integers(0, 60),
)
def test_nothing_is_lost_whatever_stops_when(
    stops: list[int], crashes: list[bool], failing: list[int], steps: int
) -> None:
    """A controller that stops or dies at any moment, with sinks that fail now and then, delivers all, in order."""

    async def history_told() -> Sink:
        ledger = MemoryLedger()
        ledger.settled = 0
        sink = Sink(lambda key, attempt: Taken(status=503 if attempt <= failing[len(key) % 4] else 200))
        done: list[SealedEntry] = HISTORY[:1]
        for place, stop in enumerate([*sorted(stops), len(HISTORY)]):
            rig = Rig(done, ledger, sink)
            await rig.courier.start()
            rig.append(HISTORY[len(done) : stop]) if stop > len(done) else None
            done = HISTORY[: max(stop, len(done))]
            if place == len(stops):
                await run(rig)
            else:
                for _ in range(steps):
                    await asyncio.sleep(0)
            ledger.dead_process = crashes[place]  # a crash: nothing more reaches the ledger
            await rig.courier.stop()
            ledger.dead_process = False
        return sink

    sink = asyncio.run(history_told())
    wanted = [event for event in IDS if int(event.split("-")[0]) > 0]
    for key in ("sink:one", "sink:two"):
        heard = [event for to, event in sink.taken if to == key]
        assert list(dict.fromkeys(heard)) == wanted


@pytest.mark.parametrize(
    ("answer", "reason", "attempts"),
    [
        (Taken(status=302, final=True), "HTTP_302", 1),
        (Taken(status=400, final=True), "HTTP_400", 1),
        (Taken(reason="ADDRESS_FORBIDDEN", final=True), "ADDRESS_FORBIDDEN", 1),
    ],
)
async def test_what_is_refused_for_good_is_a_dead_letter_at_once(answer: Taken, reason: str, attempts: int) -> None:
    rig = Rig([], MemoryLedger(), Sink(lambda key, _: answer if key == "sink:one" else Taken(status=200)))
    await rig.courier.start()
    rig.append(HISTORY)
    await run(rig)
    await rig.courier.stop()
    assert {(dead.destination, dead.reason, dead.attempts) for dead in rig.ledger.dead} == {
        ("sink:one", reason, attempts)
    }
    assert [dead.event_id for dead in rig.ledger.dead] == IDS
    assert rig.courier.given_up == {reason: len(IDS)}


async def test_backoff_grows_with_jitter_and_ends() -> None:
    rig = Rig([], MemoryLedger(), Sink(lambda _key, _: Taken(status=503)))
    rig.keys = ["sink:one"]
    await rig.courier.start()
    rig.append(HISTORY[:1])
    await run(rig)
    await rig.courier.stop()
    dead = rig.ledger.dead[0]
    assert dead.reason == "HTTP_503"
    assert dead.attempts >= 8
    assert sum(rig.waits) <= RETRY_S_MAX
    for place, wait_s in enumerate(rig.waits):
        assert 0 <= wait_s <= min(0.5 * 2**place, 60.0)
    assert len({round(wait_s, 6) for wait_s in rig.waits}) > 3


async def test_retry_after_is_heeded() -> None:
    sink = Sink(lambda _key, attempt: Taken(status=429, retry_after_s=7.0) if attempt == 1 else Taken(status=200))
    rig = Rig([], MemoryLedger(), sink)
    rig.keys = ["sink:one"]
    await rig.courier.start()
    rig.append(HISTORY[:1])
    await run(rig)
    await rig.courier.stop()
    assert rig.waits == [7.0]


async def test_a_sink_that_is_gone_is_not_asked_again() -> None:
    sink = Sink(lambda _key, _: Taken(status=410, final=True))
    rig = Rig([], MemoryLedger(), sink)
    rig.keys = ["sink:one"]
    await rig.courier.start()
    rig.append(HISTORY)
    await run(rig)
    await rig.courier.stop()
    assert len(sink.attempts) == 1
    assert [dead.reason for dead in rig.ledger.dead] == ["HTTP_410", *["SINK_GONE"] * (len(IDS) - 1)]


async def test_a_full_queue_drops_into_the_list_and_never_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "QUEUE_EVENTS_MAX", 3)
    sink = Sink()
    sink.hung = {"sink:one"}
    rig = Rig([], MemoryLedger(), sink)
    await rig.courier.start()
    rig.append(HISTORY)
    async with asyncio.timeout(60):
        while rig.courier.given_up["QUEUE_FULL"] < len(IDS) - 3:
            await asyncio.sleep(0)
    assert rig.courier.waiting <= 3 + 3
    await rig.courier.stop()
    assert [dead.event_id for dead in rig.ledger.dead if dead.destination == "sink:one"] == IDS[3:]


def test_the_ledger_outlives_its_process_and_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipaging.adapters.notification.ledger.DEAD_LETTERS_MAX", 3)
    dead = [
        DeadLetter(
            destination="sink:a", tenant="t", event_id=f"{n}-00000000", event_type="x", session="", reason="HTTP_400",
            attempts=n, wall_us=n,
        )
        for n in range(5)
    ]  # fmt: skip
    ledger = SqliteLedger(tmp_path / "ledger.db")
    assert ledger.progress() == (None, {})
    ledger.save(7, {"sink:a": 9, "sink:b": 8}, dead)
    ledger.save(8, {"sink:a": 11}, [])
    ledger.close()
    again = SqliteLedger(tmp_path / "ledger.db")
    assert again.progress() == (8, {"sink:a": 11})
    assert again.dead_letters(0, 10) == (3, [dead[4], dead[3], dead[2]])
    assert again.dead_letters(1, 1) == (3, [dead[3]])
    again.close()


async def test_what_waits_goes_to_the_address_that_was_corrected() -> None:
    def answer(_key: str, attempt: int) -> Taken:
        if attempt == 2:
            rig.domain = "corrected"
        return Taken(status=204) if rig.domain == "corrected" and attempt > 2 else Taken(status=503)

    sink = Sink(answer)
    rig = Rig([], MemoryLedger(), sink)
    rig.keys = ["sink:one"]
    await rig.courier.start()
    rig.append(HISTORY[:3])
    await run(rig)
    await rig.courier.stop()
    assert sink.urls[:2] == ["https://one.example/"] * 2
    assert set(sink.urls[2:]) == {"https://one.corrected/"}
    assert rig.courier.given_up == {}

"""The engine loop over the reference journal and a user plane that does as told."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence

import pytest

from aipaging.adapters.journal.errors import journal_io
from aipaging.adapters.journal.memory import MemoryJournal
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.evidence.record import SealedEntry
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import AnchorId, ClientId, SessionId, TenantId
from aipaging.core.foundation.time import BootUs, Now, WallUs
from aipaging.core.identity.claims import AistClaims, CommitClaims
from aipaging.core.lease.expiry import Due
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.due import RENEWALS_MAX
from aipaging.core.paging.events import Event, LeasesRenewed
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.snapshot import encode_state
from aipaging.core.paging.state import State
from aipaging.core.steering.grant import AnchorEndpoint, Fence, SteeringGrant, SteeringRenewal
from aipaging.runtime import engine as engine_module
from aipaging.runtime.effects import SteeringEffects
from aipaging.runtime.engine import Engine
from aipaging.runtime.tokens import SessionTokens
from aipaging.simulation.system.governance import Denied
from aipaging.testing.world import WALL_START_US, catalogue_commands, intent

SETTINGS = Settings(lease=LeaseTerms(lease_ms=60_000, drift_ppm=500, grace_ms=100, drain_ms_max=100))


class StillClock:
    """Stands still until moved."""

    def __init__(self) -> None:
        self.boot_us = 1_000_000
        self.suspended_us = 0
        self.wall_step_us = 0

    def now(self) -> Now:
        return Now(boot_us=BootUs(self.boot_us), wall_us=WallUs(WALL_START_US + self.boot_us + self.wall_step_us))

    def slept_us(self) -> int:
        return self.suspended_us


class UserPlane:
    """Notes what it is asked, in order."""

    lease_ms_min = 1

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []
        self.broken = False

    async def place_anchors(self, anchors: Sequence[AnchorEndpoint]) -> None:
        self.asked.append(("place", tuple(anchor.anchor for anchor in anchors)))

    async def install(self, grants: Sequence[SteeringGrant]) -> None:
        if self.broken:
            raise UnavailableError("no gateway answers")
        self.asked += [("install", (grant.session, grant.anchor, grant.epoch)) for grant in grants]

    async def renew(self, renewals: Sequence[SteeringRenewal]) -> None:
        self.asked += [("renew", renewal.session) for renewal in renewals]

    async def revoke(self, fences: Sequence[Fence]) -> None:
        self.asked += [("revoke", (fence.session, fence.epoch)) for fence in fences]

    async def reconcile(self, term: int, grants: Sequence[SteeringGrant]) -> None:
        self.asked.append(("reconcile", (term, tuple(grant.session for grant in grants))))


class Signer:
    key_name = "example/log"

    def sign_note(self, text: str) -> str:
        return f"{text}\n— {self.key_name} AAAA\n"

    def sign_aist(self, claims: AistClaims) -> str:
        return f"aist {claims.session}"

    def sign_commit(self, claims: CommitClaims) -> str:
        return f"commit {claims.session} {claims.epoch}"


class ReadyAnchors:
    async def prepare(self, anchor: AnchorEndpoint, session: SessionId, epoch: Epoch) -> None:
        return


class Rig:
    def __init__(self, journal: MemoryJournal) -> None:
        self.journal = journal
        self.clock = StillClock()
        self.plane = UserPlane()
        self.engine = Engine(
            journal=journal, snapshots=None, signer=Signer(), clock=self.clock, writer=("node-1", "boot-1")
        )
        self.signer = Signer()
        self.tokens = SessionTokens(self.signer)
        self.effects = SteeringEffects(self.engine, self.plane, ReadyAnchors(), self.tokens)
        self.pages = 0

    async def start(self) -> None:
        await self.engine.recover()
        await self.engine.start(self.effects, SETTINGS, software="test")
        for command in catalogue_commands():
            await self.engine.submit(command)

    async def stop(self) -> None:
        await self.effects.stop()
        await self.engine.stop()

    async def page(self, **changes: object) -> SessionId:
        self.pages += 1
        command = c.Page(
            session=SessionId(f"00000000-0000-4000-8000-{self.pages:012x}"),
            tenant=TenantId("t"),
            client=ClientId("c"),
            token_id=f"token-{self.pages}",
            salt=bytes(16),
            intent=intent(**changes),
        )
        reply = await self.engine.submit(command)
        assert isinstance(reply, c.Admitted)
        return reply.session

    def lease_end_us(self, session: SessionId) -> int:
        lease = self.engine.state.sessions[session].lease
        return 0 if lease is None else lease.deadline_us


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig(MemoryJournal())
    await rig.start()
    yield rig
    await rig.stop()


async def test_the_user_plane_is_reconciled_before_anything_is_admitted(rig: Rig) -> None:
    assert [what for what, _ in rig.plane.asked[:2]] == ["place", "reconcile"]


async def test_a_page_is_answered_when_it_is_durable_and_steered(rig: Rig) -> None:
    session = await rig.page()
    stored = [entry.record for entry in rig.journal.read(0)]
    assert any(b"COMMIT_GRANTED" in record and session.encode() in record for record in stored)
    assert ("install", (session, "a", Epoch(1, 1))) in rig.plane.asked


async def test_a_page_whose_steering_fails_is_taken_back(rig: Rig) -> None:
    rig.plane.broken = True
    with pytest.raises(UnavailableError) as failed:
        await rig.page()
    assert failed.value.code == "STEERING_FAILED"
    (session,) = rig.engine.state.sessions.values()
    assert session.status_info is StatusInfo.NETWORK_TERMINATED


async def test_a_lone_page_is_signed_while_the_journal_writes_and_steered_when_it_has_written(rig: Rig) -> None:
    signed: list[str] = []
    signer = rig.signer

    def aist(claims: AistClaims) -> str:
        signed.append(claims.token_id)
        return f"aist {claims.session}"

    signer.sign_aist = aist  # type: ignore[method-assign]
    installs = len(rig.plane.asked)
    with held_up(rig.journal):
        page = asyncio.ensure_future(rig.page())
        await until(lambda: signed == ["token-1"])
        assert not page.done()
        assert rig.plane.asked[installs:] == [], "nothing is steered before the COMMIT is durable"
    session = rig.engine.state.sessions[await page]
    assert [kind for kind, _ in rig.plane.asked[installs:]] == ["install"]
    assert rig.tokens.aist(session) == f"aist {session.session}"
    assert signed == ["token-1"], "what is ready is not signed again"
    assert rig.tokens.aist(session) == f"aist {session.session}"
    assert signed == ["token-1", "token-1"], "and not kept"


async def test_many_pages_share_appends(rig: Rig) -> None:
    appended = 0
    append = rig.journal.append

    def counted(*args: object, **kwargs: object) -> None:
        nonlocal appended
        appended += 1
        append(*args, **kwargs)  # type: ignore[arg-type]

    rig.journal.append = counted  # type: ignore[method-assign]
    await asyncio.gather(*(rig.page(rate_rps=0.1) for _ in range(100)))
    assert appended < 50


async def test_an_extension_that_is_answered_has_its_lease(rig: Rig) -> None:
    """Were its renewal in the next append, a slow disk could leave a gap between the old end and the renewal."""
    session = await rig.page(duration_s=30)
    before_us = rig.lease_end_us(session)
    appends: list[list[bytes]] = []
    append = rig.journal.append

    def noted(entries: Sequence[SealedEntry], *args: object, **kwargs: object) -> None:
        appends.append([entry.record for entry in entries])
        append(entries, *args, **kwargs)  # type: ignore[arg-type]

    rig.journal.append = noted  # type: ignore[method-assign,assignment]
    await rig.engine.submit(c.Extend(session=session, additional_s=10))
    assert rig.lease_end_us(session) > before_us
    (together,) = [batch for batch in appends if any(b"SESSION_EXTENDED" in record for record in batch)]
    assert any(b"LEASES_RENEWED" in record for record in together)
    await until(lambda: ("renew", session) in rig.plane.asked)


async def test_an_extension_has_its_lease_although_many_renewals_are_due(rig: Rig) -> None:
    others = [await rig.page(duration_s=600, rate_rps=0.5, burst=1) for _ in range(3 * RENEWALS_MAX)]
    short = await rig.page(duration_s=40, rate_rps=0.5, burst=1)
    before_us = rig.lease_end_us(short)
    rig.clock.boot_us += SETTINGS.lease.lease_ms * 1000 * 2 // 5
    state = rig.engine.state
    for session in others:
        lease = state.sessions[session].lease
        assert lease is not None
        state.queue.add(BootUs(rig.clock.boot_us - 1), Due.RENEW, session, epoch=lease.epoch)
    asked = asyncio.ensure_future(rig.engine.submit(c.Extend(session=short, additional_s=100)))
    await asyncio.sleep(0)
    assert state.queue.next_us() == rig.clock.boot_us - 1, "others are still due"
    assert rig.lease_end_us(short) > before_us
    await asked


async def test_a_read_waits_for_what_it_saw(rig: Rig) -> None:
    waiting = asyncio.ensure_future(rig.page())
    await asyncio.sleep(0)
    seen = await rig.engine.view(lambda state, _: len(state.sessions))
    assert seen == 1
    assert any(b"SESSION_REQUESTED" in entry.record for entry in rig.journal.read(0))
    await waiting


@contextlib.contextmanager
def held_up(journal: MemoryJournal) -> Generator[threading.Event]:
    """Have the journal take nothing until the event is set."""
    free, append = threading.Event(), journal.append

    def held(*args: object, **kwargs: object) -> None:
        assert free.wait(30)
        append(*args, **kwargs)  # type: ignore[arg-type]

    journal.append = held  # type: ignore[method-assign]
    try:
        yield free
    finally:
        free.set()


async def until_renewal(rig: Rig) -> None:
    """Let time pass, with heartbeats, until a lease that was granted before is due for renewal."""
    for _ in range(13):
        rig.clock.boot_us += 2_000_000
        if rig.clock.boot_us < 26_000_000:
            for anchor in ("a", "b"):
                await rig.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))


def read(rig: Rig, session: SessionId) -> asyncio.Task[bool]:
    return asyncio.create_task(rig.engine.view(lambda state, _: state.sessions[session].available, session))


async def test_a_read_of_one_session_waits_for_that_session_only(rig: Rig) -> None:
    settled, ending = await rig.page(), await rig.page()
    with held_up(rig.journal) as free:
        over = asyncio.create_task(rig.engine.submit(c.End(session=ending, status_info=StatusInfo.DELETE_REQUESTED)))
        await asyncio.sleep(0)
        seen = read(rig, ending)
        assert await read(rig, settled)
        assert not over.done()
        assert not seen.done(), "what it saw is not durable"
        free.set()
        assert not await seen
        await over


@pytest.mark.parametrize("renewal", [True, False], ids=["a renewal", "a change of the catalogue"])
async def test_a_read_of_one_session_waits_for_what_concerns_many(rig: Rig, *, renewal: bool) -> None:
    session = await rig.page(duration_s=600)
    if renewal:
        await until_renewal(rig)
    with held_up(rig.journal) as free:
        command = c.EntitleClients(clients=(ClientId("c"),)) if renewal else c.RemoveAnchor(anchor=AnchorId("b"))
        asked = asyncio.create_task(rig.engine.submit(command))
        await asyncio.sleep(0)
        seen = read(rig, session)
        await asyncio.sleep(0)
        assert not seen.done(), "what it saw is not durable"
        free.set()
        assert await seen
        await asked


async def test_what_was_read_and_is_lost_is_not_answered(rig: Rig) -> None:
    session = await rig.page()
    with held_up(rig.journal) as free:
        over = asyncio.create_task(rig.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED)))
        await asyncio.sleep(0)
        seen = read(rig, session)
        await asyncio.sleep(0)
        rig.journal.disk.failing = True
        free.set()
        for waiting in (seen, over):
            with pytest.raises(UnavailableError):
                await waiting


async def test_renewals_share_the_sync_of_what_comes_next(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed = await rig.page(duration_s=600)
    batches: list[list[bytes]] = []
    append = rig.journal.append

    def noted(entries: Sequence[SealedEntry], *args: object, **kwargs: object) -> None:
        batches.append([entry.record for entry in entries])
        append(entries, *args, **kwargs)  # type: ignore[arg-type]

    await until_renewal(rig)
    monkeypatch.setattr(rig.journal, "append", noted)
    await rig.page()
    assert len(batches) == 1, "renewal and page are one batch"
    assert any(b"LEASES_RENEWED" in record for record in batches[0])
    assert ("renew", renewed) in rig.plane.asked


@pytest.mark.parametrize(
    ("append_ms", "lease_ms", "wait_ms"), [(0.1, 60_000, 2), (5, 60_000, 20), (900, 60_000, 50), (900, 600, 25)]
)
async def test_renewals_wait_longer_where_the_journal_is_slow(
    rig: Rig, append_ms: float, lease_ms: int, wait_ms: float
) -> None:
    terms = LeaseTerms(lease_ms=lease_ms, drift_ppm=500, grace_ms=100, drain_ms_max=100)
    await rig.engine.begin_term(Settings(lease=terms))
    rig.engine._append_ms = append_ms
    assert rig.engine._patience_ms() == wait_ms


async def test_renewals_alone_become_durable_by_themselves(rig: Rig) -> None:
    renewed = await rig.page(duration_s=600)
    await until_renewal(rig)
    await rig.engine.submit(c.EntitleClients(clients=(ClientId("c"),)))
    for _ in range(400):
        if ("renew", renewed) in rig.plane.asked:
            break
        await asyncio.sleep(0.01)
    assert ("renew", renewed) in rig.plane.asked


async def test_ending_a_session_revokes_before_it_answers(rig: Rig) -> None:
    session = await rig.page()
    await rig.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    assert rig.plane.asked[-1] == ("revoke", (session, Epoch(1, 1)))


async def test_a_relocation_runs_to_the_switch_by_itself(rig: Rig) -> None:
    session = await rig.page()
    await rig.engine.submit(c.Relocate(session=session, cause=c.RelocationCause.OPERATOR))

    def switched() -> bool:
        lease = rig.engine.state.sessions[session].lease
        return lease is not None and lease.anchor == "b"

    await until(switched)
    assert ("install", (session, "b", Epoch(1, 2))) in rig.plane.asked


async def test_a_restart_grants_live_sessions_anew_and_ends_the_others(rig: Rig) -> None:
    long, short = await rig.page(duration_s=600), await rig.page(duration_s=5)
    before = encode_state(rig.engine.state)
    again = Rig(MemoryJournal(rig.journal.disk))
    rig.journal.close()
    again.clock.boot_us = rig.clock.boot_us + 10_000_000
    await again.engine.recover()
    await again.engine.start(again.effects, SETTINGS, software="test")
    assert encode_state(again.engine.state) != before
    lease = again.engine.state.sessions[long].lease
    assert lease is not None
    assert lease.epoch == Epoch(2, 2)
    assert again.engine.state.sessions[short].status_info is StatusInfo.DURATION_EXPIRED
    assert again.plane.asked[1] == ("reconcile", (2, (long,)))
    await again.stop()


async def test_a_suspended_machine_begins_a_new_term(rig: Rig) -> None:
    session = await rig.page()
    rig.clock.suspended_us = 3_600_000_000
    await until(lambda: rig.engine.state.term == 2)
    lease = rig.engine.state.sessions[session].lease
    assert lease is not None
    assert lease.epoch.term == 2


@pytest.mark.parametrize("looks_first", ["a heartbeat", "the loop"])
@pytest.mark.parametrize("periods", [0.9, 10])
async def test_a_controller_that_stood_still_hears_its_anchors_before_it_gives_them_up(
    rig: Rig, looks_first: str, periods: float
) -> None:
    def states() -> set[AnchorState]:
        return {anchor.state for anchor in rig.engine.state.catalogue.anchors.values()}

    assert states() == {AnchorState.READY}
    rig.clock.boot_us += int(periods * SETTINGS.anchor_lost_ms * 1000)
    if looks_first == "a heartbeat":
        await rig.engine.submit(c.Heartbeat(anchor=AnchorId("a"), state=AnchorState.READY))
    else:
        await until(lambda: set(rig.engine.state.heard_us.values()) == {rig.clock.boot_us})
    await asyncio.sleep(0.02)
    assert states() == {AnchorState.READY}, "their heartbeats wait in sockets that nobody has read"
    async with asyncio.timeout(60):
        while states() != {AnchorState.LOST}:  # time passes, it listens, and nobody is heard
            rig.clock.boot_us += 100_000
            await rig.engine.submit(c.EntitleClients(clients=(ClientId("c"),)))  # the loop looks at its clocks
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("days", [-400, -1, 1], ids=["a year back", "a day back", "a day ahead"])
async def test_a_step_of_the_wall_clock_neither_prolongs_nor_ends_anything(rig: Rig, days: int) -> None:
    session = await rig.page(duration_s=150)
    before = rig.engine.state.sessions[session].lease
    assert before is not None
    rig.clock.wall_step_us = days * 86_400_000_000
    await rig.engine.submit(c.EntitleClients(clients=(ClientId("c"),)))  # the loop looks at its clocks
    await asyncio.sleep(0.02)
    assert rig.engine.state.sessions[session].lease == before, "nothing is due, whatever the wall clock says"
    for _ in range(4):  # renewals at the boot clock's times: 60 s each, and not beyond the end of the session
        rig.clock.boot_us += 25_000_000
        for anchor in ("a", "b"):
            await rig.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))
        await until(lambda: rig.lease_end_us(session) > rig.clock.boot_us + 26_000_000)  # whatever was due is renewed
    after = rig.engine.state.sessions[session].lease
    assert after is not None
    assert after.epoch == before.epoch
    assert before.deadline_us < after.deadline_us <= 1_000_000 + 150_000_000
    rig.clock.boot_us += 60_000_000
    await rig.engine.submit(c.EntitleClients(clients=(ClientId("c"),)))
    await until(lambda: rig.engine.state.sessions[session].status_info is StatusInfo.DURATION_EXPIRED)


async def test_a_failed_append_acknowledges_nothing_stops_admission_and_heals(rig: Rig) -> None:
    kept = await rig.page()
    rig.journal.disk.full = True
    with pytest.raises(UnavailableError) as failed:
        await rig.page()
    assert failed.value.code == "JOURNAL_UNAVAILABLE"
    assert list(rig.engine.state.sessions) == [kept], "what was not durable is gone"
    assert not rig.engine.healthy
    with pytest.raises(UnavailableError):
        await rig.page()
    await rig.engine.submit(c.End(session=kept, status_info=StatusInfo.DELETE_REQUESTED))
    rig.journal.disk.full = False
    rig.clock.boot_us += 3_000_000
    await until(lambda: rig.engine.healthy)
    assert await rig.page()


@pytest.mark.parametrize("before", [None, Denied("someone", "nowhere")])
async def test_policies_whose_record_is_lost_are_not_in_force(rig: Rig, before: Denied | None) -> None:
    """They were loaded before their record was: nothing may be decided by what the journal does not know."""
    await rig.engine.submit(c.ForcePolicies(policies=before, count=1))
    rig.journal.disk.full = True
    with pytest.raises(UnavailableError):
        await rig.engine.submit(c.ForcePolicies(policies=Denied("t", "a-1"), count=1))
    rig.journal.disk.full = False
    rig.clock.boot_us += 3_000_000
    await until(lambda: rig.engine.healthy)
    assert rig.engine.state.tenancy.policies == before
    assert await rig.page()


async def let_pass(rig: Rig, milliseconds: int) -> None:
    """Move the clock, and let the loop look at it and do what follows."""
    rig.clock.boot_us += milliseconds * 1000
    await rig.engine.submit(c.EntitleClients(clients=(ClientId("c"),)))
    for _ in range(2):
        await asyncio.sleep(0.003)


async def healed(rig: Rig) -> None:
    """Let time pass until the engine grants again."""
    async with asyncio.timeout(60):
        while not rig.engine.healthy:
            await let_pass(rig, 100)


async def test_a_disk_that_goes_on_failing_is_tried_seldom(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.page(duration_s=30)
    failed_at_ms: list[int] = []

    def failing(*_args: object, **_kwargs: object) -> None:
        failed_at_ms.append(rig.clock.boot_us // 1000)
        raise journal_io("the journal", "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(rig.journal, "append", failing)
        rig.clock.boot_us += 30_000_000  # the session is over, which the journal is to be told
        for _ in range(100):
            await let_pass(rig, 100)
    gaps_ms = [after - before for before, after in itertools.pairwise(failed_at_ms)]
    assert 5 <= len(failed_at_ms) <= 20, "in ten seconds: often at first, then about every second"
    assert max(gaps_ms[-3:]) >= 500
    await healed(rig)
    assert await rig.page()


async def test_the_loop_goes_on_after_a_decision_that_could_not_be_applied(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await rig.page(duration_s=600)
    evolve = engine_module.evolve

    def broken(state: State, event: Event) -> None:
        if isinstance(event, LeasesRenewed):
            raise KeyError("a bug")
        evolve(state, event)

    with monkeypatch.context() as planted:
        planted.setattr(engine_module, "evolve", broken)
        rig.clock.boot_us += 26_000_000
        await until(lambda: not rig.engine.healthy)
        with pytest.raises(UnavailableError):
            await rig.page()
    before_us = rig.lease_end_us(session)
    await healed(rig)
    await until(lambda: rig.lease_end_us(session) > before_us)
    assert await rig.page()


async def test_what_is_durable_is_answered_and_told_to_the_others_though_one_who_watches_has_a_bug(rig: Rig) -> None:
    class Watcher:
        def __init__(self, *, bug: bool) -> None:
            self.bug = bug
            self.told = 0

        def appended(self, entries: Sequence[SealedEntry], seconds: float) -> None:
            del seconds
            self.told += len(entries)
            if self.bug:
                raise KeyError("a bug")

        def append_failed(self, code: str) -> None:
            raise AssertionError(code)

    deaf, other = Watcher(bug=True), Watcher(bug=False)
    rig.engine.watch(deaf)  # type: ignore[arg-type]
    rig.engine.watch(other)  # type: ignore[arg-type]
    before = rig.engine.head.seq
    assert await rig.page()
    await until(lambda: other.told == rig.engine.head.seq - before)
    assert deaf.told == other.told > 0
    assert rig.engine.healthy


async def test_the_writer_goes_on_after_a_bug_of_its_own(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_args: object) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as planted:
        planted.setattr(engine_module, "note_append", broken)
        session = await rig.page()  # durable, and therefore answered
        await until(lambda: not rig.engine.healthy)
    await healed(rig)
    assert session in rig.engine.state.sessions
    assert await rig.page()


async def test_a_refused_command_leaves_no_record(rig: Rig) -> None:
    session = await rig.page()
    await rig.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    before = rig.engine.head.seq
    with pytest.raises(RefusedError):
        await rig.engine.submit(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    assert rig.engine.head.seq == before

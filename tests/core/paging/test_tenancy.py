"""Quotas and kill switches: what they stop, what they leave, and that nothing races past them."""

import contextlib

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from msgspec import structs

from aipaging.core.anchor.intent import Intent
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import AipagingError, RefusedError
from aipaging.core.foundation.names import AnchorId, ClientId, GatewayId, SessionId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.identity.tenant import Quotas, Tenant, cost_of
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging.records import RESTRICTIVE, event_of
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.step import evolve
from aipaging.core.paging.tenancy import Account
from aipaging.core.paging.tenancy_events import SwitchKilled, SwitchKind
from aipaging.testing.world import EMBED, World, intent

ACME, OTHER = TenantId("acme"), TenantId("other")


def register(world: World, tenant: TenantId = ACME, **quotas: int) -> None:
    world.do(c.RegisterTenant(tenant=Tenant(tenant=tenant, quotas=Quotas(**quotas))))


def ask(world: World, wanted: Intent | None = None, *, tenant: TenantId = ACME) -> c.Admitted | c.Refused:
    world.sessions_made += 1
    number = world.sessions_made
    command = c.Page(
        session=SessionId(f"00000000-0000-4000-8000-{number:012x}"),
        tenant=tenant,
        client=ClientId(f"{tenant}-client"),
        token_id=f"token-{number}",
        salt=number.to_bytes(16, "big"),
        intent=wanted or intent(rate_rps=1.0, burst=1),
    )
    reply = world.do(command).reply
    world.settle()
    assert isinstance(reply, c.Admitted | c.Refused)
    return reply


def admitted(world: World, wanted: Intent | None = None, *, tenant: TenantId = ACME) -> Session:
    reply = ask(world, wanted, tenant=tenant)
    assert isinstance(reply, c.Admitted), reply
    return world.state.sessions[reply.session]


def refused(world: World, wanted: Intent | None = None, *, tenant: TenantId = ACME) -> c.Refused:
    reply = ask(world, wanted, tenant=tenant)
    assert isinstance(reply, c.Refused), reply
    return reply


def audited(world: World) -> None:
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    assert verifier.verdict().first_bad is None


def test_a_quota_of_sessions_names_what_is_used_and_left() -> None:
    world = World.started()
    register(world, sessions_max=2)
    first = admitted(world)
    admitted(world)
    no = refused(world)
    assert no.constraint == "QUOTA"
    assert "may have 2 sessions: 2 are used, 0 are left, 1 are asked for" in no.message
    assert no.retry_after_s == 60, "the oldest session ends then"
    admitted(world, tenant=OTHER)
    world.do(c.End(session=first.session, status_info=StatusInfo.DELETE_REQUESTED))
    admitted(world)
    audited(world)


def test_what_an_ended_session_still_holds_counts_as_reserved_and_not_as_requests() -> None:
    world = World.started()
    register(world, reserved_mrps_max=2_000)
    first = admitted(world)
    admitted(world)
    world.do(c.End(session=first.session, status_info=StatusInfo.DELETE_REQUESTED))
    assert "2 reserved requests/s: 2 are used" in refused(world).message
    register(world, requests_mrps_max=2_000)
    admitted(world)
    assert "2 requests/s: 2 are used" in refused(world).message
    audited(world)


def test_what_is_spent_is_given_back_for_the_time_not_used_and_begins_anew_with_a_period() -> None:
    world = World.started()
    cost = cost_of(1_000, 60_000, 20)
    assert cost == 2, "60 requests at 20 per 1,000, rounded up"
    register(world, spend_max=1_500, period_s=3_600)
    wanted = intent(rate_rps=10.0, duration_s=5_000)  # 50,000 requests at 20 per 1,000
    session = admitted(world, wanted)
    assert world.state.tenancy.accounts[ACME].spent == 1_000
    no = refused(world, wanted)
    assert "1000 are spent or promised, 500 are left, the session costs 1000" in no.message
    assert no.retry_after_s is not None
    assert 0 < no.retry_after_s <= 3_600
    world.do(c.End(session=session.session, status_info=StatusInfo.DELETE_REQUESTED))
    assert world.state.tenancy.accounts[ACME].spent == 0
    admitted(world, wanted)
    world.now = structs.replace(world.now, wall_us=WallUs(world.now.wall_us + no.retry_after_s * 1_000_000))
    admitted(world, wanted)
    audited(world)


def test_an_extension_is_paid_for_too() -> None:
    world = World.started()
    register(world, spend_max=1_500, period_s=3_600)
    session = admitted(world, intent(rate_rps=10.0, duration_s=5_000))
    world.do(c.Extend(session=session.session, additional_s=2_500))
    with pytest.raises(RefusedError) as error:
        world.do(c.Extend(session=session.session, additional_s=1_000))
    assert error.value.code == "QUOTA_EXCEEDED"
    assert error.value.retry_after_s
    audited(world)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (SwitchKind.TENANT, "acme"),
        (SwitchKind.SERVICE, EMBED),
        (SwitchKind.ANCHOR, "a"),
        (SwitchKind.ALL, ""),
    ],
)
def test_a_kill_ends_and_fences_at_once_and_refuses_with_the_reason(kind: SwitchKind, name: str) -> None:
    world = World.started()
    mine = admitted(world, intent(regions=("eu",)))
    assert mine.lease is not None
    assert mine.lease.anchor == "a"
    decision = world.do(c.Kill(kind=kind, name=name, reason="a leak"))
    fences = [fence for effect in decision.effects if isinstance(effect, x.RevokeSteering) for fence in effect.fences]
    assert [(fence.session, fence.epoch) for fence in fences] == [(mine.session, mine.lease.epoch)]
    assert all(type(event) in RESTRICTIVE for event in decision.events), "a full journal takes it"
    assert not world.state.sessions[mine.session].available
    no = refused(world, intent(regions=("eu",)))
    assert (no.constraint, "a leak" in no.message) == ("KILLED", True)
    with pytest.raises(RefusedError):
        world.do(
            c.ConfirmInstalled(
                session=mine.session, anchor=AnchorId("a"), epoch=mine.lease.epoch, gateway=GatewayId("g")
            )
        )
    assert world.do(c.Kill(kind=kind, name=name, reason="again")).events == []
    world.do(c.Restore(kind=kind, name=name, reason="repaired"))
    world.advance(12_000)
    admitted(world, intent(regions=("eu",)))
    audited(world)


def test_others_stay_when_one_is_killed() -> None:
    world = World.started()
    mine, other = admitted(world), admitted(world, tenant=OTHER)
    world.do(c.Kill(kind=SwitchKind.TENANT, name="acme", reason="unpaid"))
    assert [session.available for session in (world.state.sessions[s.session] for s in (mine, other))] == [False, True]
    world.do(c.Kill(kind=SwitchKind.ANCHOR, name="b", reason="fire"))
    assert world.state.sessions[other.session].available
    admitted(world, tenant=OTHER)
    audited(world)


def test_a_kill_survives_a_restart_and_a_snapshot() -> None:
    world = World.started()
    admitted(world)
    world.do(c.Kill(kind=SwitchKind.TENANT, name="acme", reason="unpaid"))
    register(world, OTHER, sessions_max=1, spend_max=100)
    rebuilt = State()
    for entry in world.entries:
        event = event_of(entry, rebuilt.sessions.__contains__)
        assert event is not None
        evolve(rebuilt, event)
    restored = decode_state(encode_state(rebuilt))
    assert restored is not None
    for state in (rebuilt, restored):
        world.state = state
        assert refused(world).constraint == "KILLED"
        assert state.tenancy.tenants[OTHER].quotas.sessions_max == 1
    world.do(c.StartTerm(settings=world.settings, software="test"))
    assert refused(world).constraint == "KILLED"


def test_a_term_that_begins_grants_nothing_that_was_killed() -> None:
    """The kill became durable, and the controller died before the ends did."""
    world = World.started()
    session = admitted(world)
    killed = world.do(c.Kill(kind=SwitchKind.TENANT, name="acme", reason="unpaid")).events[0]
    assert isinstance(killed, SwitchKilled)
    alone = World.started()
    admitted(alone)
    evolve(alone.state, killed)
    alone.do(c.StartTerm(settings=alone.settings, software="test"))
    assert not alone.state.sessions[session.session].available


def test_more_sessions_than_end_at_once_end_in_the_wakes_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipaging.core.paging.switching.KILLED_AT_ONCE_MAX", 2)
    world = World.started()
    sessions = [admitted(world) for _ in range(5)]
    world.do(c.Kill(kind=SwitchKind.ALL, name="", reason="test"))
    left = [each for each in sessions if world.state.sessions[each.session].available]
    assert len(left) == 3
    for each in left:
        assert each.lease is not None
        with pytest.raises(RefusedError):
            world.do(
                c.ConfirmInstalled(
                    session=each.session, anchor=each.lease.anchor, epoch=each.lease.epoch, gateway=GatewayId("g")
                )
            )
    world.do(c.Wake())
    assert not any(world.state.sessions[each.session].available for each in sessions)


def test_an_account_that_nobody_uses_any_more_is_as_before() -> None:
    account = Account()
    account.count(500, 1)
    account.count(1_000, 1)
    account.count(500, -1)
    assert account.sizes == {10: 1}
    account.count(1_000, -1)
    assert account == Account()


class QuotaWalk(RuleBasedStateMachine):
    """Pages of two tenants in any order, ends, time, kills, restarts: no quota is ever exceeded."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @initialize(sessions=st.integers(1, 4), rate=st.integers(1, 6), spend=st.integers(5, 60))
    def start(self, sessions: int, rate: int, spend: int) -> None:
        self.world = World.started()
        register(self.world, sessions_max=sessions, requests_mrps_max=rate * 1_000, spend_max=spend, period_s=30)
        register(self.world, OTHER, reserved_mrps_max=rate * 1_000)

    @rule(
        tenant=st.sampled_from([ACME, OTHER]), rate=st.sampled_from([0.5, 1.0, 3.0]), s=st.sampled_from([5, 100, 900])
    )
    def page(self, tenant: TenantId, rate: float, s: int) -> None:
        ask(self.world, intent(rate_rps=rate, burst=1, duration_s=s), tenant=tenant)

    @rule(pick=st.integers(0, 20), extend=st.booleans())
    def touch(self, pick: int, extend: bool) -> None:
        sessions = sorted(self.world.state.sessions)
        if sessions:
            session = sessions[pick % len(sessions)]
            command: c.Command = c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED)
            with contextlib.suppress(AipagingError):
                self.world.do(c.Extend(session=session, additional_s=60) if extend else command)

    @rule(name=st.sampled_from(["acme", "other"]), thrown=st.booleans())
    def throw(self, name: str, thrown: bool) -> None:
        kind = SwitchKind.TENANT
        if thrown:
            self.world.do(c.Kill(kind=kind, name=name, reason="test"))
        elif (kind, name) in self.world.state.tenancy.switches:
            self.world.do(c.Restore(kind=kind, name=name, reason="test"))

    @rule(ms=st.sampled_from([100, 4_000, 40_000]))
    def pass_time(self, ms: int) -> None:
        self.world.advance(ms)

    @rule()
    def restart(self) -> None:
        restored = decode_state(encode_state(self.world.state))
        assert restored is not None
        assert restored.ledger.by_tenant == self.world.state.ledger.by_tenant
        accounts = {name: each for name, each in self.world.state.tenancy.accounts.items() if each.sessions}
        assert {name: each for name, each in restored.tenancy.accounts.items() if each.sessions} == accounts
        self.world.state = restored
        self.world.do(c.StartTerm(settings=self.world.settings, software="test"))

    @invariant()
    def quotas_hold(self) -> None:
        tenancy, live = self.world.state.tenancy, {ACME: 0, OTHER: 0}
        for session in self.world.state.sessions.values():
            if session.available:
                live[session.tenant] += 1
                assert (SwitchKind.TENANT, session.tenant) not in tenancy.switches
        for tenant, count in live.items():
            if tenant not in tenancy.tenants:
                continue
            quotas, account = tenancy.tenants[tenant].quotas, tenancy.accounts.get(tenant)
            if account is not None:
                assert count == len(account.sessions) <= (quotas.sessions_max or 1_000)
                assert account.requests_mrps <= (quotas.requests_mrps_max or 10**9)
                assert account.spent <= (quotas.spend_max or 10**9)
            assert self.world.state.ledger.tenant_mrps(tenant) <= (quotas.reserved_mrps_max or 10**9)

    def teardown(self) -> None:
        audited(self.world)


TestQuotaWalk = QuotaWalk.TestCase
TestQuotaWalk.settings = profile(max_examples=40, stateful_step_count=30, deadline=None)


@given(rate=st.integers(1, 10**6), ms=st.integers(1, 10**8), price=st.integers(0, 10**6), cut=st.integers(0, 10**8))
def test_a_refund_is_never_more_than_was_paid(rate: int, ms: int, price: int, cut: int) -> None:
    assert cost_of(rate, min(cut, ms), price) <= cost_of(rate, ms, price)


def test_the_auditor_sees_a_session_beyond_its_quota() -> None:
    world = World.started()
    admitted(world)
    register(world, sessions_max=1)
    verifier = Verifier()
    cheat = World.started()
    register(cheat, sessions_max=1)
    cheat.state.tenancy.tenants.clear()  # the engine forgets, the evidence does not
    admitted(cheat)
    admitted(cheat)
    for entry in cheat.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    bad = verifier.verdict().first_bad
    assert bad is not None
    assert "sessions_max is 1" in bad.what


def test_the_auditor_sees_steering_of_what_was_killed() -> None:
    world = World.started()
    world.do(c.Kill(kind=SwitchKind.SERVICE, name=EMBED, reason="test"))
    world.state.tenancy.switches.clear()
    session = admitted(world)
    assert session.n == Epoch(1, 1).n
    verifier = Verifier()
    for entry in world.entries:
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    bad = verifier.verdict().first_bad
    assert bad is not None
    assert "was killed" in bad.what

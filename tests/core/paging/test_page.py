import pytest

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.envelope.refusals import EnvelopeRolledBackError
from aipaging.core.foundation.errors import InvalidInputError, RefusedError
from aipaging.core.foundation.names import AnchorId, ClientId
from aipaging.core.paging import commands as c
from aipaging.core.paging.page import resolve
from aipaging.core.paging.session_machine import SessionPhase, StatusInfo
from aipaging.testing.world import ACCESS_TWO, World, accept, envelope, intent


def rejections(world: World, **changes: object) -> dict[str, str | None]:
    found = resolve(world.state, intent(**changes), world.now)
    return {candidate.anchor: candidate.rejection.constraint if candidate.rejection else None for candidate in found}


def test_an_admitted_session_carries_its_bound_and_budget() -> None:
    session = World.started().paged()
    assert session.phase is SessionPhase.AVAILABLE
    lease = session.lease
    assert lease is not None
    assert lease.anchor == "a"
    assert lease.domains == ("access-eu", "metro", "edge-one")
    assert 0 < lease.bound.epsilon_bound <= session.intent.epsilon
    assert sum(part.delay_ms for part in lease.bound.budget) <= session.intent.delay_ms
    assert sum(part.epsilon + part.failure for part in lease.bound.budget) <= lease.bound.epsilon_bound


@pytest.mark.parametrize(
    ("changes", "anchor", "constraint"),
    [
        ({"task": "chat"}, "a", "TASK"),
        ({"modality": "image"}, "a", "MODALITY"),
        ({"licences": ("MIT",)}, "a", "LICENCE"),
        ({"cost_max": 3}, "a", "COST"),
        ({"regions": ("eu",)}, "b", "PLACE"),
        ({"jurisdictions": ("us",)}, "a", "PLACE"),
        ({"trust_min": 4}, "a", "TRUST"),
        ({"place": "nowhere"}, "a", "PATH"),
        ({"rate_rps": 101.0}, "a", "GUARDRAIL"),
        ({"burst": 101}, "a", "GUARDRAIL"),
        ({"rate_rps": 51.0}, "a", "CAPACITY"),
        ({"delay_ms": 40.0}, "a", "DELAY"),
        ({"epsilon": 1e-6}, "a", "DELAY"),
    ],
)
def test_every_hard_constraint_rejects_by_name(changes: dict[str, object], anchor: str, constraint: str) -> None:
    assert rejections(World.started(), **changes)[anchor] == constraint


def test_a_refusal_holds_nothing_and_names_the_furthest_constraint() -> None:
    world = World.started()
    reply = world.page(intent(delay_ms=40.0)).reply
    assert isinstance(reply, c.Refused)
    assert reply.constraint == "DELAY"
    assert len(reply.candidates) == 3
    assert not world.state.sessions
    assert not world.state.ledger.held
    assert b"SESSION_REFUSED" in world.entries[-1].record


def test_capacity_is_sold_once_then_the_next_anchor_then_nobody() -> None:
    world = World.started()
    anchors = [world.paged(intent(rate_rps=20.0)).lease for _ in range(4)]
    assert [lease.anchor for lease in anchors if lease] == ["a", "a", "b", "b"]
    reply = world.page(intent(rate_rps=20.0)).reply
    assert isinstance(reply, c.Refused)
    assert reply.constraint == "CAPACITY"


def test_an_unheard_or_draining_anchor_takes_nothing() -> None:
    world = World.started()
    world.do(c.SetAnchorState(anchor=AnchorId("a"), state=AnchorState.DRAINING, cause="OPERATOR"))
    assert rejections(world)["a"] == "HEALTH"
    world.advance(5_000, beating=())
    assert rejections(world)["b"] == "HEALTH"
    assert world.state.catalogue.anchors[AnchorId("b")].state is AnchorState.LOST


def test_tightening_never_adds_a_candidate() -> None:
    world = World.started()
    loose = {anchor for anchor, why in rejections(world).items() if why is None}
    for changes in ({"delay_ms": 100.0}, {"epsilon": 1e-5}, {"regions": ("eu",)}, {"rate_rps": 60.0}, {"trust_min": 3}):
        assert {anchor for anchor, why in rejections(world, **changes).items() if why is None} <= loose


def test_the_same_session_id_twice_is_refused_and_changes_nothing() -> None:
    world = World.started()
    session = world.paged()
    before = len(world.entries)
    world.sessions_made -= 1
    with pytest.raises(RefusedError) as refused:
        world.page()
    assert refused.value.code == "ALREADY_EXISTS"
    assert len(world.entries) == before
    assert world.state.sessions[session.session] == session


def test_an_unentitled_client_is_refused_and_its_sessions_end_at_their_renewal() -> None:
    world = World.started()
    session = world.paged()
    world.do(c.EntitleClients(clients=(ClientId("somebody-else"),)))
    with pytest.raises(RefusedError):
        world.page()
    world.advance(world.settings.lease.lease_ms / 2)
    ended = world.state.sessions[session.session]
    assert ended.status_info is StatusInfo.NETWORK_TERMINATED


def test_a_rolled_back_envelope_is_refused() -> None:
    world = World.started()
    world.do(accept(envelope("metro", sequence=5)))
    with pytest.raises(EnvelopeRolledBackError) as refused:
        world.do(accept(envelope("metro", sequence=4)))
    assert refused.value.code == "ENVELOPE_ROLLED_BACK"


@pytest.mark.parametrize(
    "changes",
    [{"delay_ms": 0.0}, {"delay_ms": float("nan")}, {"epsilon": 0.0}, {"epsilon": 0.9}, {"rate_rps": -1.0},
     {"burst": 0}, {"duration_s": 10**9}, {"regions": tuple("abcdefghijklmnopqrstuvwxyzabcdefgh")}],
)  # fmt: skip
def test_impossible_intents_name_the_field(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError) as bad:
        intent(**changes)
    assert bad.value.field is not None
    assert bad.value.field.startswith("intent.")


def test_a_client_can_only_move_to_an_access_domain() -> None:
    world = World.started()
    session = world.paged()
    with pytest.raises(InvalidInputError):
        world.do(c.MoveClient(session=session.session, place=ACCESS_TWO + "x"))  # type: ignore[arg-type]


def test_a_refusal_names_the_nearest_intent_and_that_one_is_admitted() -> None:
    world = World.started()
    for changes, repaired in (
        ({"delay_ms": 60.0}, lambda near: {"delay_ms": near.delay_ms}),
        ({"delay_ms": 60.0}, lambda near: {"delay_ms": 60.0, "epsilon": near.epsilon}),
        ({"rate_rps": 101.0}, lambda near: {"rate_rps": min(near.rate_rps, 50.0)}),
        ({"rate_rps": 60.0}, lambda near: {"rate_rps": near.rate_rps}),
        ({"burst": 101}, lambda near: {"burst": near.burst}),
    ):
        refused = next(one for one in resolve(world.state, intent(**changes), world.now) if one.anchor == "a")
        assert refused.rejection is not None
        assert refused.rejection.nearest is not None
        assert rejections(world, **repaired(refused.rejection.nearest))["a"] is None


def test_where_losses_alone_exceed_epsilon_no_delay_is_near() -> None:
    world = World.started()
    looked = resolve(world.state, intent(epsilon=1e-6), world.now)
    refused = next(one for one in looked if one.anchor == "a")
    assert refused.rejection is not None
    assert refused.rejection.nearest is not None
    assert refused.rejection.nearest.delay_ms is None

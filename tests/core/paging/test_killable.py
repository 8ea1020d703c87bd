"""A kill of what nobody knows stops nothing, and says so; one that was taken stands whatever becomes of its name."""

import pytest
from tests.core.paging.test_tenancy import ACME, admitted, register

from aipaging.core.foundation.errors import InvalidInputError, Who
from aipaging.core.foundation.names import AnchorId, TenantId
from aipaging.core.paging import commands as c
from aipaging.core.paging import killable
from aipaging.core.paging.kill_check import CheckKill, KillChecked
from aipaging.core.paging.step import step
from aipaging.core.paging.tenancy_events import SwitchKind
from aipaging.testing.world import EMBED, World, intent

ANCHOR, SERVICE, TENANT, ALL = SwitchKind.ANCHOR, SwitchKind.SERVICE, SwitchKind.TENANT, SwitchKind.ALL


def checked(world: World, kind: SwitchKind, name: str, *tenants: str) -> str:
    """Return the note; that nothing changes is checked along the way."""
    command = CheckKill(kind=kind, name=name, tenants=tuple(map(TenantId, tenants)))
    decision = step(world.state, command, world.now)
    assert (decision.events, decision.effects) == ([], [])
    assert isinstance(decision.reply, KillChecked)
    return decision.reply.note


def unknown(world: World, kind: SwitchKind, name: str) -> str:
    with pytest.raises(InvalidInputError) as error:
        checked(world, kind, name)
    assert (error.value.code, error.value.field, error.value.who) == ("NOT_FOUND", "name", Who.CALLER)
    return error.value.message


def test_a_slip_is_refused_and_names_what_is_like_it_and_what_is_known() -> None:
    world = World.started()
    for anchor in ("edge-one", "edge-two"):
        known = world.state.catalogue.anchors[AnchorId("a")]
        world.state.catalogue.anchors[AnchorId(anchor)] = known
    assert unknown(world, ANCHOR, "edge-onr") == (
        "nothing is stopped: no anchor edge-onr is registered, and no session is on one. Is edge-one or edge-two "
        "meant? Registered are a, b, edge-one, edge-two, t."
    )
    assert f"Is {EMBED} meant?" in unknown(world, SERVICE, f"{EMBED[:-1]}x")
    message = unknown(world, ANCHOR, "quite-another-name")
    assert "meant" not in message
    assert "Registered are a, b" in message
    assert unknown(World(), ANCHOR, "a").endswith("None is registered.")


@pytest.mark.parametrize(("kind", "name"), [(ANCHOR, "a"), (SERVICE, EMBED), (ALL, "")])
def test_what_is_registered_is_known(kind: SwitchKind, name: str) -> None:
    assert checked(World.started(), kind, name) == ""


def test_what_only_a_session_has_is_known_and_only_while_it_has_it() -> None:
    world = World.started()
    session = admitted(world, intent(regions=("eu",)))
    assert session.lease is not None
    world.state.catalogue.anchors.clear()
    world.state.catalogue.services.clear()
    assert session.lease.anchor == "a"
    assert checked(world, ANCHOR, "a") == checked(world, SERVICE, EMBED) == ""
    unknown(world, ANCHOR, "b")
    world.do(c.Kill(kind=ANCHOR, name="a", reason="compromised"))
    assert not world.state.sessions[session.session].available
    assert checked(world, ANCHOR, "a") == "", "the switch is thrown"
    world.do(c.Restore(kind=ANCHOR, name="a", reason="reinstalled"))
    unknown(world, ANCHOR, "a")
    unknown(world, SERVICE, EMBED)


def test_a_tenant_may_be_killed_before_it_comes_and_it_is_said_that_nobody_knows_it() -> None:
    world = World.started()
    register(world)
    admitted(world, tenant=TenantId("guest"))
    for known in (ACME, "guest", "configured"):
        assert checked(world, TENANT, known, "configured") == ""
    note = checked(world, TENANT, "configurde", "configured")
    assert note.startswith("no tenant configurde is registered")
    assert note.endswith("Is configured meant?")
    assert checked(world, TENANT, "x").endswith("and nothing else.")
    nobody_says = step(world.state, CheckKill(kind=TENANT, name="x"), world.now)
    assert nobody_says.reply == KillChecked()


def test_a_kill_itself_is_taken_and_taken_back_whatever_becomes_of_the_name() -> None:
    world = World.started()
    world.do(c.Kill(kind=ANCHOR, name="gone", reason="its record was lost with the journal"))
    assert checked(world, ANCHOR, "gone") == ""
    world.do(c.Restore(kind=ANCHOR, name="gone", reason="found"))
    assert not world.state.tenancy.switches


def test_a_full_register_of_switches_is_told_before_anything_is_thrown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aipaging.core.paging.switching.SWITCHES_MAX", 1)
    world = World.started()
    world.do(c.Kill(kind=ANCHOR, name="a", reason="fire"))
    assert checked(world, ANCHOR, "a") == ""
    for kind, name in ((ANCHOR, "b"), (TENANT, "acme"), (ALL, "")):
        with pytest.raises(InvalidInputError) as error:
            checked(world, kind, name)
        assert error.value.code == "OUT_OF_RANGE"


def test_of_very_many_names_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killable, "NAMES_COMPARED_MAX", 3)
    assert killable._near("tenant-x", ["a-name-too-long-for-it", "tenant-1", "b", "tenant-2"]).count("tenant") == 2
    assert killable._near("tenant-x", ["other-1", "other-2", "other-3", "tenant-1"]) == ""

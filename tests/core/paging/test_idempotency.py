"""The same client and key again: the same session, whatever happened to the first answer."""

from dataclasses import replace

import pytest

from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import ClientId, SessionId, TenantId
from aipaging.core.paging import commands as c
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.snapshot import decode_state, encode_state
from aipaging.testing.world import World, intent

KEY = "k" * 64


def page(number: int, *, client: str = "client-1", key: str = KEY, rate_rps: float = 1.0) -> c.Page:
    return c.Page(
        session=SessionId(f"00000000-0000-4000-8000-{number:012x}"),
        tenant=TenantId("tenant-1"),
        client=ClientId(client),
        token_id=f"token-{number}",
        salt=number.to_bytes(16, "big"),
        intent=intent(rate_rps=rate_rps),
        key=key,
    )


def admitted(world: World, command: c.Page) -> SessionId:
    reply = world.do(command).reply
    assert isinstance(reply, c.Admitted)
    world.settle()
    return reply.session


def test_a_repeated_page_gives_the_same_session_and_leaves_no_record() -> None:
    world = World.started()
    first = admitted(world, page(1))
    records = len(world.entries)
    assert admitted(world, page(2)) == first
    assert len(world.entries) == records
    assert world.state.live == 1


def test_another_client_or_key_gives_another_session() -> None:
    world = World.started()
    sessions = {
        admitted(world, page(1)),
        admitted(world, page(2, client="client-2")),
        admitted(world, page(3, key="other")),
        admitted(world, page(4, key="")),
        admitted(world, page(5, key="")),
    }
    assert len(sessions) == 5


def test_a_key_with_another_intent_is_refused() -> None:
    world = World.started()
    admitted(world, page(1))
    with pytest.raises(RefusedError) as error:
        world.do(page(2, rate_rps=2.0))
    assert (error.value.code, error.value.field) == ("IDEMPOTENCY_KEY_REUSED", "idempotency-key")


def test_the_key_outlives_a_snapshot_and_dies_with_the_session() -> None:
    world = World.started()
    first = admitted(world, page(1))
    restored = decode_state(encode_state(world.state))
    assert restored is not None
    assert restored.keyed == world.state.keyed
    world.do(c.End(session=first, status_info=StatusInfo.DELETE_REQUESTED))
    world.settle()
    assert admitted(world, page(2)) == first, "an ended session is still what the key stands for"
    world.advance(world.settings.kept_ms + 120_000)
    assert world.state.keyed == {}
    assert admitted(world, page(3)) != first


def test_a_refusal_is_tried_again() -> None:
    world = World.started()
    refused = world.do(replace(page(1), intent=intent(delay_ms=1.0))).reply
    assert isinstance(refused, c.Refused)
    assert world.state.keyed == {}

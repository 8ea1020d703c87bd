"""Erasing a session over HTTP: an operator's, of a session that is over, and on record."""

import httpx
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import SECOND
from aipaging.core.paging import commands as c

STRANGER = "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"


async def forgotten(rig: Rig) -> None:
    """Let the time pass for which ended sessions are kept."""
    for _ in range(40):
        rig.clock.passed_us += 10 * SECOND
        for anchor in ("a", "b"):
            await rig.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))
    await rig.settled()


def told(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_an_operator_erases_what_is_over_and_nothing_else(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
    erase = f"sessions/{session}/erase"
    assert told(await app_one.post(erase)) == (403, "PERMISSION_DENIED")
    assert told(await noc.post(erase)) == (409, "INCOMPATIBLE_STATE")
    await app_one.delete(f"sessions/{session}")
    assert told(await noc.post(erase)) == (409, "INCOMPATIBLE_STATE")
    await forgotten(rig)
    assert (await noc.post(erase)).status_code == 204
    assert (await noc.post(erase)).status_code == 204
    assert told(await noc.post(f"sessions/{STRANGER}/erase")) == (404, "NOT_FOUND")
    assert told(await noc.post("sessions/not-a-session/erase")) == (400, "INVALID_ARGUMENT")


async def test_its_records_stay_and_say_that_it_was_erased_and_by_whom(
    rig: Rig, app_one: httpx.AsyncClient, noc: httpx.AsyncClient
) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
    await app_one.delete(f"sessions/{session}")
    await forgotten(rig)
    before = [entry.record for entry in rig.journal.read(0)]
    assert (await noc.post(f"sessions/{session}/erase")).status_code == 204
    await rig.settled()
    entries = list(rig.journal.read(0))
    assert [entry.record for entry in entries][: len(before)] == before
    assert {entry.payload for entry in entries if entry.session == session} == {None}
    added = b"".join(entry.record for entry in entries[len(before) :])
    assert b'"type":"SESSION_ERASED"' in added
    assert f'"for_session":"{session}"'.encode() in added
    assert b'"operation":"eraseSession"' in added
    assert b'"client":"noc"' in added

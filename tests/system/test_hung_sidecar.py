"""A sidecar that stands still for good: whoever waits for it is told, and the session is served elsewhere."""

import asyncio
import signal
from typing import Any

import pytest
from tests.system.living import Living

pytestmark = [pytest.mark.real, pytest.mark.soak, pytest.mark.asyncio(loop_scope="module")]

IDLE_S = 2


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    return {"idle_s": IDLE_S}


async def test_who_waits_for_a_sidecar_that_never_goes_on_is_told(mortal: Living) -> None:
    session = await mortal.page()
    assert (await mortal.ask(session["aist"])).served  # over a connection that is kept
    source = session["anchorId"]
    process = mortal.processes.children[source].process
    process.send_signal(signal.SIGSTOP)
    try:
        waited = await asyncio.gather(*(mortal.ask(session["aist"]) for _ in range(3)))
        await mortal.until_served(session["aist"])
        assert (await mortal.session(session))["anchorId"] != source
    finally:
        process.send_signal(signal.SIGCONT)
    # One over the kept connection; for the others new ones were begun, with handshakes that nobody answered.
    assert sorted(each.status for each in waited) == [503, 503, 504]
    await mortal.until_ready()
    await mortal.end(session)

"""Settings that were changed while a controller runs outlive a new term and give way to a restart."""

from dataclasses import replace
from pathlib import Path

from tests.adapters.northbound.conftest import SETTINGS, Rig

from aipaging.core.paging.settings import ChangeSettings


async def test_what_was_changed_holds_over_terms_and_until_the_next_start(tmp_path: Path) -> None:
    wanted = replace(SETTINGS, lease=replace(SETTINGS.lease, lease_ms=100), sessions_max=7)
    rig = Rig(tmp_path)
    await rig.start()
    await rig.engine.submit(ChangeSettings(settings=wanted))
    await rig.engine.begin_term()  # as after a suspend, and after a journal that failed
    assert rig.engine.state.settings == wanted
    await rig.stop()
    again = Rig(tmp_path)
    await again.engine.recover()
    assert again.engine.state.settings == wanted, "replay decides alike"
    await again.engine.start(again.effects, SETTINGS, software="test")
    assert again.engine.state.settings == SETTINGS, "the file decides"
    await again.stop()

"""The Envoy driver conforms, watching real traffic."""

from pathlib import Path

import pytest

from aipaging.testing.envoy_rig import envoy_rig
from aipaging.testing.steering import check_steering_driver

pytestmark = pytest.mark.real


async def test_conforms(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        await check_steering_driver(rig)

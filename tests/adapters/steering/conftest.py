"""One real Envoy for the tests of a module that leave it as they found it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from aipaging.testing.envoy_rig import EnvoyRig, envoy_rig


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    async with envoy_rig(tmp_path_factory.mktemp("envoy")) as shared:
        yield shared


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tls_rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EnvoyRig]:
    async with envoy_rig(tmp_path_factory.mktemp("envoy-tls"), tls=True) as shared:
        yield shared

"""Systems of real processes: one shared by all tests that leave it whole, one for each module that breaks its own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.system.living import Living


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def living(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Living]:
    system = Living.prepared(tmp_path_factory.mktemp("living"))
    try:
        await system.start()
        yield system
    finally:
        system.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Living]:
    system = Living.prepared(tmp_path_factory.mktemp("mortal"))
    try:
        await system.start()
        yield system
    finally:
        system.stop()

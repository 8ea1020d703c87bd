"""Systems of real processes: one shared by all tests that leave it whole, one for each module that breaks its own."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from tests.system.living import Living


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def living_of_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Living]:
    async with Living.running(tmp_path_factory.mktemp("living")) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="session")
async def living(living_of_all: Living) -> AsyncIterator[Living]:
    yield living_of_all
    await living_of_all.heal()


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    """In what a module's own system differs, as arguments of `Living.running`: for modules to override."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortal_of_module(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> AsyncIterator[Living]:
    async with Living.running(tmp_path_factory.mktemp("mortal"), **changes) as system:
        yield system


@pytest_asyncio.fixture(loop_scope="module")
async def mortal(mortal_of_module: Living) -> AsyncIterator[Living]:
    yield mortal_of_module
    await mortal_of_module.heal()

"""Fixtures that every test may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[1] / ".." / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference cases, traces and specifications beside the checkout, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder of cases, traces and specifications is not beside this checkout")
    return SHARED.resolve()

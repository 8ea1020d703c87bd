"""Fixtures that every test may use."""

import gc
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

# How long an example takes says how busy the machine is. And what `make test` says must not depend on the day: its
# examples are drawn from the text of each test, and `make soak` searches anew.
settings.register_profile("fixed", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("fixed")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Draw the same examples whichever tests ran before: Hypothesis mixes in constants of what is imported so far."""
    if settings.default.derandomize:
        providers._get_local_constants = providers.Constants


def pytest_collection_finish() -> None:
    """Spare the half million objects of modules and tests, which all stay, every later search for garbage."""
    gc.collect()
    gc.freeze()


SHARED = Path(__file__).parents[1] / ".." / "shared"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of reference cases, traces and specifications beside the checkout, where there is one."""
    if not SHARED.is_dir():
        pytest.skip("the shared folder of cases, traces and specifications is not beside this checkout")
    return SHARED.resolve()

"""Garbage in cycles is looked for seldom, and found all the same."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from aipaging.runtime.garbage import YOUNG_OBJECTS, collect_seldom


class Knot:
    """Holds itself."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def _as_before() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.mark.usefixtures("_as_before")
def test_knots_made_afterwards_are_still_found() -> None:
    collect_seldom()
    knot = Knot()
    seen = weakref.ref(knot)
    del knot
    assert seen() is not None
    kept = [Knot() for _ in range(2 * YOUNG_OBJECTS)]  # other threads may give objects back meanwhile
    assert seen() is None
    assert kept

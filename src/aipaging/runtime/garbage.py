"""When cyclic garbage is looked for in a process that holds much and throws little away in cycles.

Sessions are hundreds of thousands of objects that live for minutes and are freed by their reference counts. CPython
looks at the youngest after every 700 allocations more than frees, and now and then at all of them: a pause that grows
with the number of sessions. Here the young are looked at seldom, and all only after forty million allocations, so that
what is garbage in cycles (exceptions with their frames, connections) is still found.
"""

import gc
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""Allocations more than frees before the youngest are looked at: some megabytes, a millisecond."""

MIDDLE_ROUNDS: Final = 20
"""Looks at the youngest before one at those that survived."""

ALL_ROUNDS: Final = 100
"""Looks at those before one at everything."""


def collect_seldom() -> None:
    """Look for garbage in cycles seldom, and never again among what is there now: code, configuration, the state."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, MIDDLE_ROUNDS, ALL_ROUNDS)

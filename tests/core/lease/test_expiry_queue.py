"""The agenda gives back what was put in, in order, wherever in time it lies."""

import heapq

from hypothesis import given
from hypothesis import strategies as st

from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.time import SECOND, BootUs
from aipaging.core.lease.expiry import Due, ExpiryQueue

WHENS_US = st.one_of(
    st.integers(0, 4 * SECOND), st.integers(0, 10**5 * SECOND), st.sampled_from([0, SECOND, SECOND - 1])
)
ENTRIES = st.tuples(
    WHENS_US, st.sampled_from(Due), st.sampled_from(["a", "b"]), st.builds(Epoch, st.just(1), st.integers(0, 2))
)
STEPS = st.lists(st.one_of(ENTRIES, WHENS_US), max_size=60)


@given(STEPS)
def test_it_is_a_queue_by_time_reason_subject_and_epoch(steps: list[tuple[int, Due, str, Epoch] | int]) -> None:
    queue, plain = ExpiryQueue(), list[tuple[int, Due, str, Epoch]]()
    for step in steps:
        if isinstance(step, tuple):
            when_us, due, subject, epoch = step
            queue.add(BootUs(when_us), due, subject, epoch=epoch)
            heapq.heappush(plain, step)
        else:
            expected = heapq.heappop(plain) if plain and plain[0][0] <= step else None
            assert queue.pop_due(BootUs(step)) == expected
        assert queue.next_us() == (plain[0][0] if plain else None)
        assert len(queue) == len(plain)


def test_what_is_due_long_after_everything_else_waits_apart() -> None:
    """An entry of tomorrow does not draw those before it into the heap; they still come first."""
    queue = ExpiryQueue()
    queue.add(BootUs(86_400 * SECOND), Due.SESSION_END, "tomorrow")
    assert queue.next_us() == 86_400 * SECOND
    assert queue.pop_due(BootUs(SECOND)) is None
    queue.add(BootUs(60 * SECOND), Due.EXPIRE, "soon")
    assert queue.next_us() == 60 * SECOND
    due = [queue.pop_due(BootUs(90_000 * SECOND)) for _ in range(3)]
    assert [entry and entry[2] for entry in due] == ["soon", "tomorrow", None]

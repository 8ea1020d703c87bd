"""Erasing what is private of a session: when it may be, and that it was.

The deed is the journal's (`ports.journal.Eraser`) and comes first: the record never says more than is true.
"""

from aipaging.core.foundation.errors import RefusedError
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import Now
from aipaging.core.paging.acting import RecordErasure, SessionErased
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.state import State


def record_erasure(state: State, command: RecordErasure, _now: Now) -> Decision:
    """Put on record that a session was erased.

    Raises:
        RefusedError: It is not forgotten: what it did is still worked with.
    """
    check_forgotten(state, command.session)
    return Decision(events=[SessionErased(for_session=command.session)])


def check_forgotten(state: State, session: SessionId) -> None:
    """Check that a session may be erased.

    Raises:
        RefusedError: It is live, or ended a short while ago.
    """
    found = state.sessions.get(session)
    if found is None:
        return
    what = "is live: end it first" if found.available else "ended a short while ago and is still worked with"
    raise RefusedError(
        f"session {session} {what}; it can be erased {state.settings.kept_ms // 1000} s after its end",
        code="INCOMPATIBLE_STATE",
        field="sessionId",
    )

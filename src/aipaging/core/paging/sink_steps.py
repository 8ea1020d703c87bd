"""Setting a session's sink: decision, state and record."""

from msgspec.structs import replace

from aipaging.core.evidence.record import Fields, commitment
from aipaging.core.foundation.time import Now
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.sinks import SetSink, SinkSet
from aipaging.core.paging.state import State


def set_sink(state: State, command: SetSink, _now: Now) -> Decision:
    """Set the sink of a session; the same again changes nothing.

    Raises:
        InvalidInputError: There is no such session.
        RefusedError: It has ended.
    """
    if state.available(command.session).sink == command.sink:
        return Decision()
    return Decision(events=[SinkSet(session=command.session, sink=command.sink)])


def sink_set(state: State, event: SinkSet) -> None:
    """Apply it."""
    session = state.sessions[event.session]
    state.sessions[event.session] = replace(session, sink=event.sink)


def sink_fields(event: SinkSet, state: State) -> Fields:
    """Return the public fields: that there is a sink, bound to which one it is."""
    salt, sink = state.sessions[event.session].salt, event.sink
    committed = b"" if sink is None else b"\x00".join((sink.url.encode(), sink.token.encode()))
    return {"session": event.session, "sinks": int(sink is not None), "sink_commitment": commitment(salt, committed)}

"""Whether there is anything that a kill would stop: a switch on a mistyped name stops nothing, and looks as if it did.

This is asked before a kill is thrown, and not by the kill itself: one that was taken stands whatever becomes of the
catalogue, and is thrown anew when the journal lost its record. An anchor or a service is known where it is registered,
or where a live COMMIT is of it. A tenant need not be: it comes into being with its first request, whose token may be of
an issuer elsewhere, and is stopped before it; that nobody knows it is said.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from itertools import islice
from typing import Final, TypeAlias

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import AnchorId, TenantId
from aipaging.core.foundation.time import Now
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.kill_check import CheckKill, KillChecked
from aipaging.core.paging.state import Session, State
from aipaging.core.paging.switching import check_room
from aipaging.core.paging.tenancy_events import SwitchKind

NAMES_SHOWN_MAX: Final = 8
"""Of what is known: enough to see what names look like."""

NAMES_COMPARED_MAX: Final = 2_000
"""Of about the same length, for near misses: some milliseconds, in which nothing else is decided."""

ALIKE_MIN: Final = 0.75
"""One letter of four may differ: so much of the names of services is the same that less would name them all."""

LENGTHS_APART_MAX: Final = 3
"""A name whose length differs by more is not a slip of the hand."""


def check_kill(state: State, command: CheckKill, _now: Now) -> Decision:
    """Say whether a kill would be about anything that is known; nothing changes.

    Raises:
        InvalidInputError: No anchor or service of that name is known (`NOT_FOUND`), or too many switches are thrown.
    """
    kind, name = command.kind, command.name
    if (kind, name) in state.tenancy.switches:
        return Decision(reply=KillChecked())
    check_room(state)
    if kind is SwitchKind.ALL:
        return Decision(reply=KillChecked())
    if kind is SwitchKind.TENANT:
        return Decision(reply=KillChecked(note=_of_tenant(state, command)))
    what, known, used = _SOUGHT[kind]
    names = known(state)
    if name not in names and all(name not in used(state, each) for each in state.sessions.values() if each.available):
        raise InvalidInputError(
            f"nothing is stopped: no {what} {name} is registered, and no session is on one.{_near(name, names)} "
            f"{_known(names)}",
            code="NOT_FOUND",
            field="name",
        )
    return Decision(reply=KillChecked())


def _anchors_of(_state: State, session: Session) -> Iterator[AnchorId]:
    return (lease.anchor for lease in session.leases if lease.live)


def _services_of(state: State, session: Session) -> Iterator[str]:
    yield session.aisi
    for anchor in _anchors_of(state, session):
        found = state.catalogue.anchors.get(anchor)
        if found is not None:
            yield found.aisi


_Sought: TypeAlias = tuple[str, Callable[[State], Collection[str]], Callable[[State, Session], Iterator[str]]]
_SOUGHT: Final[Mapping[SwitchKind, _Sought]] = {
    SwitchKind.ANCHOR: ("anchor", lambda state: state.catalogue.anchors, _anchors_of),
    SwitchKind.SERVICE: ("service", lambda state: state.catalogue.services, _services_of),
}


def _of_tenant(state: State, command: CheckKill) -> str:
    """Return what is to be said of a tenant that is not known; "" of one that is."""
    if command.tenants is None:
        return ""
    known = {*state.tenancy.tenants, *state.tenancy.accounts, *command.tenants}
    if TenantId(command.name) in known:
        return ""
    return (
        f"no tenant {command.name} is registered, and none has had a session or has a client here: it is stopped "
        f"should it come, and nothing else.{_near(command.name, known)}"
    )


def _near(name: str, known: Iterable[str]) -> str:
    alike = (each for each in known if abs(len(each) - len(name)) <= LENGTHS_APART_MAX)
    close = get_close_matches(name, islice(alike, NAMES_COMPARED_MAX), cutoff=ALIKE_MIN)
    return f" Is {' or '.join(close)} meant?" if close else ""


def _known(known: Iterable[str]) -> str:
    names = sorted(known)
    shown = ", ".join(names[:NAMES_SHOWN_MAX])
    more = f", and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    return f"Registered are {shown}{more}." if names else "None is registered."

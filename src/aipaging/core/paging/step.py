"""The engine: `step` decides, `evolve` changes, `wake_at` says when to look again.

    step(state, command, now) -> Decision(events, effects, reply)
    evolve(state, event) -> state
    wake_at(state) -> when

A step reads the state and changes nothing but the agenda; a command that cannot be done raises, with the state as it
was. The caller appends the events to the journal, evolves the state, and runs the effects: restrictive ones at once,
permissive ones when the events are durable.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from aipaging.core.foundation.time import BootUs, Now
from aipaging.core.paging import commands as c
from aipaging.core.paging.acting import RecordAction, RecordErasure
from aipaging.core.paging.auditing import record_finding
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.due import wake
from aipaging.core.paging.ending import end, steering_failed
from aipaging.core.paging.erasing import record_erasure
from aipaging.core.paging.evolve import evolve
from aipaging.core.paging.kill_check import CheckKill
from aipaging.core.paging.killable import check_kill
from aipaging.core.paging.metering import meter
from aipaging.core.paging.operate import (
    accept_envelope,
    clear_envelope,
    confirm_installed,
    entitle_clients,
    heartbeat,
    record_action,
    register_anchor,
    register_domain,
    register_keys,
    register_path,
    register_service,
    remove_anchor,
    set_anchor_state,
    start_term,
    suspect_envelope,
)
from aipaging.core.paging.page import extend, page
from aipaging.core.paging.relocation import broken, move_client, relocate, switch_confirmed, target_prepared
from aipaging.core.paging.settings import ChangeSettings
from aipaging.core.paging.settings_steps import change_settings
from aipaging.core.paging.sink_steps import set_sink
from aipaging.core.paging.sinks import SetSink
from aipaging.core.paging.standing import RecordFinding
from aipaging.core.paging.state import State
from aipaging.core.paging.switching import force_policies, kill, register_tenant, restore


def _wake(state: State, command: c.Wake, now: Now) -> Decision:
    return wake(state, now, restrictive=command.restrictive)


_STEPS: Final[Mapping[type[c.Command], Callable[[State, Any, Now], Decision]]] = MappingProxyType(
    {
        c.StartTerm: start_term,
        ChangeSettings: change_settings,
        c.Page: page,
        c.Extend: extend,
        c.End: end,
        c.Relocate: relocate,
        c.MoveClient: move_client,
        c.TargetPrepared: target_prepared,
        c.SwitchConfirmed: switch_confirmed,
        c.RelocationBroken: broken,
        c.SteeringFailed: steering_failed,
        c.ConfirmInstalled: confirm_installed,
        c.RegisterService: register_service,
        c.RegisterDomain: register_domain,
        c.RegisterPath: register_path,
        c.AcceptEnvelope: accept_envelope,
        c.SuspectEnvelope: suspect_envelope,
        c.ClearEnvelope: clear_envelope,
        RecordFinding: record_finding,
        c.RegisterKeys: register_keys,
        c.RegisterAnchor: register_anchor,
        c.RemoveAnchor: remove_anchor,
        c.SetAnchorState: set_anchor_state,
        c.Heartbeat: heartbeat,
        c.EntitleClients: entitle_clients,
        RecordAction: record_action,
        RecordErasure: record_erasure,
        c.RegisterTenant: register_tenant,
        CheckKill: check_kill,
        c.Kill: kill,
        c.Restore: restore,
        c.ForcePolicies: force_policies,
        c.MeterSessions: meter,
        SetSink: set_sink,
        c.Wake: _wake,
    }
)


def step(state: State, command: c.Command, now: Now) -> Decision:
    """Decide about one command.

    Raises:
        InvalidInputError: It names something that does not exist.
        RefusedError: It is not possible in the present state.
        UnavailableError: A limit of the controller is reached.
    """
    return _STEPS[type(command)](state, command, now)


def wake_at(state: State) -> BootUs | None:
    """Return when something is due next, or None."""
    return state.queue.next_us()


__all__ = ["evolve", "step", "wake_at"]

"""Changing the settings of a term: decision and state."""

from aipaging.core.foundation.time import MS, BootUs, Now
from aipaging.core.paging.decision import Decision
from aipaging.core.paging.settings import ChangeSettings, SettingsChanged, within_term
from aipaging.core.paging.state import State


def change_settings(state: State, command: ChangeSettings, now: Now) -> Decision:
    """Take what may change within the term; the same again changes nothing."""
    settings = within_term(state.settings, command.settings)
    if settings == state.settings:
        return Decision()
    return Decision(events=[SettingsChanged(settings=settings, boot_us=now.boot_us)])


def settings_changed(state: State, event: SettingsChanged) -> None:
    """Apply it."""
    sooner_ms = state.settings.anchor_lost_ms - event.settings.anchor_lost_ms
    state.settings = event.settings
    if sooner_ms > 0:
        # Sidecars hear how often to report with the answer to their next report: until then the earlier time holds.
        spared_us = BootUs(event.boot_us + sooner_ms * MS)
        for anchor, heard_us in state.heard_us.items():
            state.heard_us[anchor] = max(heard_us, spared_us)

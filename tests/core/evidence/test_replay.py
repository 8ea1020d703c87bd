"""The verifier accepts every valid history and names the invariant that each mutation of one breaks."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from aipaging.core.evidence.finding import Invariant, Verdict
from aipaging.core.evidence.log import Checkpoint
from aipaging.core.evidence.record import RECORD_TYPES, Draft, Fields
from aipaging.core.evidence.replay_world import ENDED_SESSIONS_MAX, World
from aipaging.core.evidence.verify import Verifier
from aipaging.core.foundation.time import BootUs, Now
from aipaging.testing.evidence import DRAIN_MS, LEASE_MS_MAX, History, Plan, Step, sealed_history

PLAN = Plan(sessions_per_second=2.0, duration_s=25.0, anchors=3, anchor_sessions=22, restart_s=45.0)
SEEDS = (1, 2, 3)

A, B, C, D, E, F, G = (
    Invariant.STEERING,
    Invariant.RELOCATION,
    Invariant.EPOCHS,
    Invariant.CAPACITY,
    Invariant.RELEASE,
    Invariant.SESSION,
    Invariant.ORDER,
)


@lru_cache
def history(seed: int) -> tuple[Step, ...]:
    return tuple(History(seed, PLAN).take(1_800))


def verified(steps: list[Step]) -> Verdict:
    verifier = Verifier()
    for entry in sealed_history(steps):
        verifier.feed(entry.record, stored_hash=entry.leaf_hash, leaves=entry.leaves)
    return verifier.verdict()


def test_histories_show_everything() -> None:
    shown = {step.draft.type for seed in SEEDS for step in history(seed)}
    # Envelopes that end, and what becomes of sessions then, have histories of their own.
    of_promises = {"ENVELOPE_SUSPECTED", "ENVELOPE_CLEARED", "KEYS_REGISTERED", "COMMIT_REBOUND"}
    of_promises |= {"SINK_SET", "AUDIT_ALARM", "AUDIT_VERDICT", "TRUST_CHANGED"}
    of_promises |= {"TENANT_REGISTERED", "SWITCH_KILLED", "SWITCH_RESTORED", "SPEND_CHARGED", "SPEND_REFUNDED"}
    of_promises |= {
        "OPERATOR_ACTION",
        "POLICIES_IN_FORCE",
        "POLICY_APPLIED",
        "ROOM_CLAIMED",
        "ROOM_LET_GO",
        "SESSION_PREEMPTED",
        "SESSIONS_METERED",
        "SETTINGS_CHANGED",
    }
    assert shown == set(RECORD_TYPES) - {"SERVICE_REMOVED", "SESSION_DEGRADED", "SESSION_RESTORED"} - of_promises


@given(st.integers(10, 10_000))
@settings(max_examples=10, deadline=None)
def test_a_valid_history_is_accepted(seed: int) -> None:
    verdict = verified(History(seed, PLAN).take(900))
    assert verdict.ok, verdict.first_bad
    assert verdict.first_bad is None
    assert (verdict.records, verdict.sessions > 0) == (900, True)


class Mutation:
    """A history to change, and the places to change it at."""

    def __init__(self, seed: int, draw: Callable[[st.SearchStrategy], object]) -> None:
        self.steps = list(history(seed))
        self.draw = draw

    def pick(self, record_type: str, where: Callable[[int, Fields], bool] = lambda place, fields: True) -> int:
        """Return a place of a record of this type."""
        places = [
            place
            for place, step in enumerate(self.steps)
            if step.draft.type == record_type and where(place, self[place])
        ]
        assert places, f"the history shows no such {record_type}"
        return self.draw(st.sampled_from(places))

    def __getitem__(self, place: int) -> Fields:
        return self.steps[place].draft.fields

    def next(self, place: int, *record_types: str) -> int | None:
        """Return the next place with a record of one of these types about the same session."""
        session = self[place]["session"]
        for later in range(place + 1, len(self.steps)):
            if self.steps[later].draft.type in record_types and self[later].get("session") == session:
                return later
        return None

    def drop(self, place: int) -> None:
        del self.steps[place]

    def edit(self, place: int, **fields: str | int) -> None:
        draft = self.steps[place].draft
        self.steps[place] = replace(self.steps[place], draft=structs.replace(draft, fields={**draft.fields, **fields}))

    def insert(self, after: int, record_type: str, leaves: tuple[Fields, ...] = (), **fields: str | int) -> None:
        """Put a record behind another, written at the same instant."""
        draft = Draft(type=record_type, fields=fields, leaves=leaves)
        self.steps.insert(after + 1, replace(self.steps[after], draft=draft))

    def epoch(self, place: int) -> dict[str, int]:
        return {"epoch_term": self[place]["epoch_term"], "epoch_n": self[place]["epoch_n"]}

    def steer(self, after: int, grant: int, **changes: str | int) -> None:
        """Put a STEER_INSTALLED under the COMMIT granted at `grant` behind `after`."""
        fields = {"session": self[grant]["session"], "anchor": self[grant]["anchor"], **self.epoch(grant)}
        self.insert(after, "STEER_INSTALLED", **{**fields, "gateway": "gateway-2", **changes})

    def at(self, place: int, boot_us: int) -> None:
        now = self.steps[place].now
        self.steps[place] = replace(self.steps[place], now=Now(boot_us=BootUs(boot_us), wall_us=now.wall_us))


def paged(m: Mutation) -> int:
    return m.pick("COMMIT_GRANTED", lambda place, fields: fields["cause"] == "PAGED")


def relocated(m: Mutation) -> int:
    """Return the place of the grant to the target of a relocation that was switched in order."""

    def switched(place: int, fields: Fields) -> bool:
        if fields["cause"] != "RELOCATION":
            return False
        prepared = m.next(place, "RELOCATION_TARGET_PREPARED", "RELOCATION_FAILED", "SESSION_ENDED")
        if prepared is None or m.steps[prepared].draft.type != "RELOCATION_TARGET_PREPARED":
            return False
        after = m.next(prepared, "RELOCATION_SWITCHED", "RELOCATION_FAILED", "SESSION_ENDED")
        return after is not None and m.steps[after].draft.type == "RELOCATION_SWITCHED"

    return m.pick("COMMIT_GRANTED", switched)


def source_grant(m: Mutation, target: int) -> dict[str, str | int]:
    """Return session and epoch of the source of the relocation whose target was granted at `target`."""
    switched = m.next(target, "RELOCATION_SWITCHED")
    draining = m.next(switched, "COMMIT_DRAINING")
    return {"session": m[target]["session"], **m.epoch(draining)}


def restarted(m: Mutation) -> int:
    def regrants_follow(place: int) -> bool:  # they do not where the history ends with the term
        return any(step.draft.type == "LEASES_REGRANTED" for step in m.steps[place + 1 :])

    return m.pick("TERM_STARTED", lambda place, fields: place > 0 and regrants_follow(place))


def drop_grant(m: Mutation) -> set[Invariant]:
    place = m.pick("COMMIT_GRANTED", lambda p, f: m.next(p, "STEER_INSTALLED") is not None)
    relocation = m[place]["cause"] == "RELOCATION"
    m.drop(place)
    return {B, C} if relocation else {A, F}


def drop_request(m: Mutation) -> set[Invariant]:
    m.drop(m.pick("SESSION_REQUESTED"))
    return {F}


def request_twice(m: Mutation) -> set[Invariant]:
    place = m.pick("SESSION_REQUESTED")
    m.insert(min(len(m.steps) - 1, place + m.draw(st.integers(0, 400))), "SESSION_REQUESTED", **m[place])
    return {F}


def request_a_refused_session(m: Mutation) -> set[Invariant]:
    refused = m.pick("SESSION_REFUSED")
    request = m.pick("SESSION_REQUESTED")
    m.insert(refused, "SESSION_REQUESTED", **{**m[request], "session": m[refused]["session"]})
    return {F}


def refuse_an_available_session(m: Mutation) -> set[Invariant]:
    refused, grant = m.pick("SESSION_REFUSED"), paged(m)
    m.insert(grant, "SESSION_REFUSED", **{**m[refused], "session": m[grant]["session"]})
    return {F}


def grant_to_another_tenant(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("COMMIT_GRANTED"), tenant="somebody")
    return {F}


def page_twice(m: Mutation) -> set[Invariant]:
    grant = paged(m)
    m.insert(grant, "COMMIT_GRANTED", **{**m[grant], "epoch_n": 77})
    return {F}


def extend_after_the_end(m: Mutation) -> set[Invariant]:
    place = m.pick("SESSION_ENDED")
    m.insert(place, "SESSION_EXTENDED", session=m[place]["session"], duration_ms=1)
    return {F}


def end_twice(m: Mutation) -> set[Invariant]:
    place = m.pick("SESSION_ENDED")
    m.insert(place, "SESSION_ENDED", **m[place])
    return {F}


def forget_a_live_session(m: Mutation) -> set[Invariant]:
    place = paged(m)
    m.insert(place, "SESSION_FORGOTTEN", session=m[place]["session"])
    return {F}


def erase_a_live_session(m: Mutation) -> set[Invariant]:
    place = paged(m)
    m.insert(place, "SESSION_ERASED", for_session=m[place]["session"])
    return {F}


def renew_after_the_end(m: Mutation) -> set[Invariant]:
    place = m.pick("SESSION_ENDED")
    leaf = {"session": m[place]["session"], "epoch_term": 1, "epoch_n": 1, "renewal": 99, "lease_ms": 1}
    m.insert(place, "LEASES_RENEWED", (leaf,))
    return {F}


def steer_after_the_end(m: Mutation) -> set[Invariant]:
    grant = m.pick("COMMIT_GRANTED", lambda p, f: m.next(p, "SESSION_ENDED") is not None)
    m.steer(m.next(grant, "SESSION_ENDED"), grant)
    return {A}


def steer_after_expiry(m: Mutation) -> set[Invariant]:
    def steered_next(place: int, fields: Fields) -> bool:
        steered = m.next(place, "STEER_INSTALLED", "RELOCATION_DETECTED", "SESSION_ENDED", "COMMIT_REVOKED")
        return fields["cause"] == "PAGED" and steered is not None and "gateway" in m[steered]

    m.edit(m.pick("COMMIT_GRANTED", steered_next), lease_ms=0)
    return {A}


def steer_after_revocation(m: Mutation) -> set[Invariant]:
    def ends(place: int, fields: Fields) -> bool:
        revoked = m.next(place, "COMMIT_REVOKED")
        return revoked is not None and m.epoch(revoked) == m.epoch(place)

    grant = m.pick("COMMIT_GRANTED", ends)
    m.steer(m.next(grant, "COMMIT_REVOKED"), grant)
    return {A}


def steer_elsewhere(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("STEER_INSTALLED"), anchor="anchor-elsewhere")
    return {A}


def steer_by_an_epoch_never_granted(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("STEER_INSTALLED"), epoch_n=99)
    return {A}


def steer_a_stranger(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("STEER_INSTALLED"), session="00000000-0000-4000-8000-000000000000")
    return {A}


def steer_by_the_last_term(m: Mutation) -> set[Invariant]:
    term = restarted(m)
    grants = [p for p in range(term) if m.steps[p].draft.type == "COMMIT_GRANTED"]
    grant = m.draw(st.sampled_from(grants[-10:]))
    m.steer(term, grant)
    return {A}


def grant_anew_what_was_revoked(m: Mutation) -> set[Invariant]:
    term = restarted(m)
    live = m.steps[term + 1 :]
    batch = next(term + 1 + p for p, step in enumerate(live) if step.draft.type == "LEASES_REGRANTED")
    leaf = m.steps[batch].draft.leaves[0]
    old = max(
        p for p in range(term) if m.steps[p].draft.type == "STEER_INSTALLED" and m[p]["session"] == leaf["session"]
    )
    m.insert(term, "COMMIT_REVOKED", session=leaf["session"], **m.epoch(old), cause="KILLED")
    # Where the newest steering was of another epoch, the reservation is another one.
    return {A, C}


def grant_anew_elsewhere(m: Mutation) -> set[Invariant]:
    place = m.pick("LEASES_REGRANTED")
    draft = m.steps[place].draft
    leaf = {**draft.leaves[0], "anchor": "anchor-elsewhere"}
    m.steps[place] = replace(m.steps[place], draft=structs.replace(draft, leaves=(leaf, *draft.leaves[1:])))
    return {D}


def miss_renewals(m: Mutation) -> set[Invariant]:
    """Renew a COMMIT whose deadline has passed."""
    renewals: dict[tuple[object, ...], list[int]] = {}
    for place, step in enumerate(m.steps):
        for leaf in step.draft.leaves:
            if step.draft.type == "LEASES_RENEWED":
                renewals.setdefault((leaf["session"], leaf["epoch_term"], leaf["epoch_n"]), []).append(place)
    long = sorted(key for key, places in renewals.items() if len(places) >= 4)
    session, _, _ = key = m.draw(st.sampled_from(long))
    for place in renewals[key][1:3]:
        draft = m.steps[place].draft
        kept = tuple(leaf for leaf in draft.leaves if leaf["session"] != session)
        empty = Draft(type="SERVICE_REMOVED", fields={"aisi": "aisi://op.example/none/none"})
        m.steps[place] = replace(m.steps[place], draft=structs.replace(draft, leaves=kept) if kept else empty)
    return {A, B}


def renew_with_an_old_count(m: Mutation) -> set[Invariant]:
    place = m.pick("LEASES_RENEWED")
    draft = m.steps[place].draft
    leaf = {**draft.leaves[0], "renewal": 0}
    m.steps[place] = replace(m.steps[place], draft=structs.replace(draft, leaves=(leaf, *draft.leaves[1:])))
    return {C}


def lower_an_epoch(m: Mutation) -> set[Invariant]:
    place = m.pick("COMMIT_GRANTED", lambda p, f: f["cause"] == "RELOCATION")
    m.edit(place, epoch_n=m[place]["epoch_n"] - 1)
    return {C}


def grant_in_another_term(m: Mutation) -> set[Invariant]:
    place = m.pick("COMMIT_GRANTED")
    m.edit(place, epoch_term=m[place]["epoch_term"] + m.draw(st.sampled_from([-1, 1])))
    return {C}


def start_a_term_that_was(m: Mutation) -> set[Invariant]:
    term = restarted(m)
    for place in range(term, len(m.steps)):
        m.steps[place] = replace(m.steps[place], term=m.steps[place].term - 1)
    return {C}


def start_a_term_after_another(m: Mutation) -> set[Invariant]:
    m.edit(restarted(m), previous_term=0)
    return {C}


def write_in_the_last_term(m: Mutation) -> set[Invariant]:
    place = m.draw(st.integers(restarted(m) + 1, len(m.steps) - 1))
    if m.steps[place].draft.type == "TERM_STARTED":
        place -= 1
    m.steps[place] = replace(m.steps[place], term=m.steps[place].term - 1)
    return {C}


def drop_a_term(m: Mutation) -> set[Invariant]:
    m.drop(restarted(m))
    return {C}


def end_an_epoch_that_is_none(m: Mutation) -> set[Invariant]:
    place = m.pick(m.draw(st.sampled_from(["COMMIT_REVOKED", "COMMIT_EXPIRED", "COMMIT_DRAINING"])))
    m.edit(place, epoch_n=99)
    return {C}


def sell_capacity_twice(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("COMMIT_GRANTED"), rate_mrps=PLAN.anchor_sessions * 1_000 + 1)
    return {D}


def sell_an_anchor_that_filled_up(m: Mutation) -> set[Invariant]:
    place = m.pick("ANCHOR_REGISTERED")
    m.edit(place, capacity_mrps=20_000)
    return {D}


def sell_a_domain_that_filled_up(m: Mutation) -> set[Invariant]:
    place = m.pick("DOMAIN_REGISTERED", lambda p, f: f["capacity_mrps"] > 0)
    m.edit(place, capacity_mrps=60_000)
    return {D}


def grant_where_nothing_is(m: Mutation) -> set[Invariant]:
    field = m.draw(st.sampled_from(["anchor", "domains"]))
    m.edit(m.pick("COMMIT_GRANTED", lambda p, f: f["cause"] == "PAGED"), **{field: "nowhere"})
    return {D}


def grant_at_a_removed_anchor(m: Mutation) -> set[Invariant]:
    place = paged(m)
    m.insert(place - 1, "ANCHOR_STATE_CHANGED", anchor=m[place]["anchor"], state="REMOVED", cause="")
    return {D}


def report_on_an_anchor_that_is_none(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("ANCHOR_STATE_CHANGED"), anchor="anchor-elsewhere")
    return {D}


def release_early(m: Mutation) -> set[Invariant]:
    ended = m.pick("COMMIT_REVOKED", lambda p, f: m.next(p, "RESERVATION_RELEASED") is not None)
    places = [
        p
        for p in range(ended, len(m.steps))
        if m.steps[p].draft.type == "RESERVATION_RELEASED" and m[p]["session"] == m[ended]["session"]
    ]
    release = next((p for p in places if m.epoch(p) == m.epoch(ended)), places[0])
    fields = m[release]
    m.drop(release)
    m.insert(ended, "RESERVATION_RELEASED", **fields)
    return {E}


def release_a_microsecond_early(m: Mutation) -> set[Invariant]:
    """The release is moved behind the record before it that is too early for it by as little as the history has."""
    release = m.pick("RESERVATION_RELEASED", lambda p, f: m.steps[p - 1].now.boot_us < m.steps[p].now.boot_us)
    m.at(release, m.steps[release].now.boot_us - 1)
    return {E}


def release_twice(m: Mutation) -> set[Invariant]:
    place = m.pick("RESERVATION_RELEASED")
    m.insert(place, "RESERVATION_RELEASED", **m[place])
    return {E, F}


def release_elsewhere(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("RESERVATION_RELEASED"), anchor="anchor-elsewhere")
    return {E}


def grant_too_long(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("COMMIT_GRANTED"), lease_ms=LEASE_MS_MAX + 1)
    return {E}


def drop_a_phase(m: Mutation) -> set[Invariant]:
    phase = m.draw(st.sampled_from(["DETECTED", "DECIDED", "TARGET_PREPARED", "SWITCHED"]))
    place = m.pick(f"RELOCATION_{phase}", lambda p, f: m.next(p, "RELOCATION_SOURCE_RELEASED") is not None)
    m.drop(place)
    return {B}


def swap_phases(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    prepared = m.next(target, "RELOCATION_TARGET_PREPARED")
    switched = m.next(prepared, "RELOCATION_SWITCHED")
    first, second = m.steps[prepared], m.steps[switched]
    m.steps[prepared] = replace(first, draft=second.draft)
    m.steps[switched] = replace(second, draft=first.draft)
    return {B}


def change_the_course(m: Mutation) -> set[Invariant]:
    phase = m.draw(st.sampled_from(["TARGET_PREPARED", "SWITCHED", "SOURCE_RELEASED"]))
    field = m.draw(st.sampled_from(["source", "target", "relocation"]))
    m.edit(m.pick(f"RELOCATION_{phase}"), **{field: "elsewhere"})
    return {B}


def relocate_twice_at_once(m: Mutation) -> set[Invariant]:
    place = m.pick("RELOCATION_DETECTED")
    m.insert(place, "RELOCATION_DETECTED", **{**m[place], "relocation": "99"})
    return {B}


def fail_after_the_switch(m: Mutation) -> set[Invariant]:
    place = m.pick("RELOCATION_SOURCE_RELEASED")
    m.steps[place] = replace(m.steps[place], draft=structs.replace(m.steps[place].draft, type="RELOCATION_FAILED"))
    return {B}


def grant_another_target(m: Mutation) -> set[Invariant]:
    place = m.pick("RELOCATION_DECIDED")
    m.edit(place, target="anchor-elsewhere")
    return {B}


def grant_a_target_of_nothing(m: Mutation) -> set[Invariant]:
    place = paged(m)
    m.insert(place, "COMMIT_GRANTED", **{**m[place], "epoch_n": m[place]["epoch_n"] + 50, "cause": "RELOCATION"})
    return {B}


def lose_cause(m: Mutation, target: int) -> None:
    """Give every record of the relocation a cause that does not excuse a lost source."""
    for place in range(target - 3, len(m.steps)):
        fields = m[place]
        if m.steps[place].draft.type.startswith("RELOCATION_") and fields["session"] == m[target]["session"]:
            m.edit(place, cause="OPERATOR")


def break_before_make(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    lose_cause(m, target)
    source = source_grant(m, target)
    m.insert(target - 1, "COMMIT_REVOKED", **source, cause="TOO_EARLY")
    return {B, A}  # (a) where the dead source is renewed before the switch is recorded


def break_while_making(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    lose_cause(m, target)
    source = source_grant(m, target)
    m.insert(m.next(target, "RELOCATION_TARGET_PREPARED"), "COMMIT_REVOKED", **source, cause="TOO_EARLY")
    return {B, A}


def switch_to_a_dead_target(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    prepared = m.next(target, "RELOCATION_TARGET_PREPARED")
    revoked = {"session": m[target]["session"], **m.epoch(target), "cause": "TOO_EARLY"}
    m.insert(m.draw(st.sampled_from([target, prepared])), "COMMIT_REVOKED", **revoked)
    return {B, A}  # (a) where a gateway had taken it up before the switch was recorded


def switch_below_a_newer_epoch(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    again = {**m[target], "anchor": m[m.next(target, "RELOCATION_TARGET_PREPARED")]["source"], "cause": "RECOVERY"}
    m.insert(target, "COMMIT_GRANTED", **{**again, "epoch_n": m[target]["epoch_n"] + 1})
    return {C, D}  # (d) where the source has no room for its own rate any more: never, it holds it


def steer_to_an_unprepared_target(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    m.steer(target, target)
    return {B}


def steer_to_the_source_after_the_switch(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    switched = m.next(target, "RELOCATION_SWITCHED")
    m.insert(
        switched + m.draw(st.integers(0, 1)),
        "STEER_INSTALLED",
        **source_grant(m, target),
        anchor=m[switched]["source"],
        gateway="gateway-2",
    )
    return {B}


def renew_the_source_after_the_switch(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    leaf = {**source_grant(m, target), "renewal": 99, "lease_ms": 10_000}
    m.insert(m.next(target, "RELOCATION_SWITCHED") + m.draw(st.integers(0, 1)), "LEASES_RENEWED", (leaf,))
    return {B}


def drain_for_ever(m: Mutation) -> set[Invariant]:
    m.edit(m.pick("COMMIT_DRAINING"), drain_ms=DRAIN_MS + 1)
    return {B}


def drain_what_has_ended(m: Mutation) -> set[Invariant]:
    target = relocated(m)
    draining = m.next(m.next(target, "RELOCATION_SWITCHED"), "COMMIT_DRAINING")
    m.insert(draining - 1, "COMMIT_REVOKED", session=m[target]["session"], **m.epoch(draining), cause="TOO_EARLY")
    return {B}


def turn_the_clock_back(m: Mutation) -> set[Invariant]:
    place = m.pick("STEER_INSTALLED")
    m.at(place, m.steps[place - 1].now.boot_us - 1)
    return {G}


def write_from_another_boot(m: Mutation) -> set[Invariant]:
    place = m.pick("STEER_INSTALLED")
    m.steps[place] = replace(m.steps[place], boot="boot-elsewhere")
    return {G}


MUTATIONS = (
    drop_grant, drop_request, request_twice, request_a_refused_session, refuse_an_available_session,
    grant_to_another_tenant, page_twice, extend_after_the_end, end_twice, forget_a_live_session, erase_a_live_session,
    renew_after_the_end,
    steer_after_the_end, steer_after_expiry, steer_after_revocation, steer_elsewhere, steer_by_an_epoch_never_granted,
    steer_a_stranger, steer_by_the_last_term, grant_anew_what_was_revoked, grant_anew_elsewhere, miss_renewals,
    renew_with_an_old_count, lower_an_epoch, grant_in_another_term, start_a_term_that_was, start_a_term_after_another,
    write_in_the_last_term, drop_a_term, end_an_epoch_that_is_none, sell_capacity_twice, sell_an_anchor_that_filled_up,
    sell_a_domain_that_filled_up, grant_where_nothing_is, grant_at_a_removed_anchor, report_on_an_anchor_that_is_none,
    release_early, release_a_microsecond_early, release_twice, release_elsewhere, grant_too_long, drop_a_phase,
    swap_phases, change_the_course, relocate_twice_at_once, fail_after_the_switch, grant_another_target,
    grant_a_target_of_nothing, break_before_make, break_while_making, switch_to_a_dead_target,
    switch_below_a_newer_epoch, steer_to_an_unprepared_target, steer_to_the_source_after_the_switch,
    renew_the_source_after_the_switch, drain_for_ever, drain_what_has_ended, turn_the_clock_back,
    write_from_another_boot,
)  # fmt: skip


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
@given(data=st.data(), seed=st.sampled_from(SEEDS))
@settings(max_examples=3, deadline=None)
def test_a_mutation_is_caught_by_name(mutate: Callable[[Mutation], set[Invariant]], data, seed: int) -> None:
    mutation = Mutation(seed, data.draw)
    expected = mutate(mutation)
    verdict = verified(mutation.steps)
    assert verdict.chain_ok, "a resealed log has a whole chain"
    assert not verdict.invariants_ok, f"{mutate.__name__} survived"
    assert verdict.first_bad is not None
    assert verdict.first_bad.invariant in expected, verdict.first_bad


def test_what_ended_long_ago_is_forgotten() -> None:
    world = World()
    for number in range(ENDED_SESSIONS_MAX + 5):
        world.remember(str(number))
    assert len(world.ended) == ENDED_SESSIONS_MAX
    assert "4" not in world.ended


def test_memory_follows_the_live_sessions() -> None:
    verifier = Verifier()
    for entry in sealed_history(History(7, PLAN).take(4_000)):
        verifier.feed(entry.record, leaves=entry.leaves)
    world = verifier._replay._world
    assert verifier.verdict().ok
    assert len(world.sessions) < verifier.verdict().sessions / 3


def test_a_checkpoint_of_nothing_is_agreed_with() -> None:
    assert Verifier([("it", Checkpoint(origin="o", size=0, root=Verifier()._tree.root()))]).verdict().ok
    assert not Verifier([("it", Checkpoint(origin="o", size=0, root=b"r" * 32))]).verdict().tree_ok

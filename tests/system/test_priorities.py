"""Who gives way to whom, on real processes: room for a higher class, and the order in which a dead domain is left."""

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from tests.system.living import ANCHORS, CLIENTS, INTENT, Asked, Living

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("system-priorities")]

CAPACITY_MRPS = 100_000
CLASSES = {"user": "background", "stranger": "urgent", "rescuer": "emergency"}
LOWEST_FIRST = tuple(CLASSES)

EXPLICIT = {401, 403, 409, 503}
"""How a request is refused: never by a connection that breaks, or by silence."""


@pytest.fixture(scope="module")
def changes() -> dict[str, Any]:
    tenants = [
        f'[[tenant]]\nname = "{tenant}"\npriority = "{CLASSES[name]}"\npreempts = {str(name == "rescuer").lower()}\n'
        for name, _, tenant in CLIENTS
        if name in CLASSES
    ]
    return {"access_rps": 400, "last": "\n".join(tenants)}


def reserved_mrps(records: Iterable[Mapping[str, Any]], anchor: str) -> list[int]:
    """Return what was reserved at an anchor from record to record, by nobody's arithmetic but this."""
    held: dict[tuple[str, int, int], int] = {}
    sums = [0]
    for record in records:
        if record.get("anchor") != anchor or "epoch_n" not in record:
            continue
        holder = (record["session"], record["epoch_term"], record["epoch_n"])
        if record["type"] == "COMMIT_GRANTED":
            held[holder] = record["rate_mrps"]
        elif record["type"] == "RESERVATION_RELEASED":
            del held[holder]
        sums.append(sum(held.values()))
    return sums


async def until_empty(system: Living) -> None:
    """Return when nothing is reserved any more, of what tests before this one ended."""
    async with asyncio.timeout(60):
        while any(reserved_mrps(system.records(), anchor)[-1] for anchor in ANCHORS):
            await asyncio.sleep(0.1)


def of_type(records: Iterable[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Return the last record of a type for each session."""
    return {record["session"]: record for record in records if record["type"] == kind}


async def until_all_asked(asked: list[Asked], sessions: Iterable[Mapping[str, Any]]) -> None:
    """Return when each session has been served once: gateway and sidecar know it."""
    async with asyncio.timeout(60):
        while not {session["aist"] for session in sessions} <= {each.token for each in asked if each.served}:
            await asyncio.sleep(0.02)


def check_nothing_beyond(system: Living, records: list[dict[str, Any]], asked: list[Asked], *sessions: Any) -> None:
    """Capacity was never sold twice, and nobody was served without a lease, or left without an answer."""
    for anchor in ANCHORS:
        assert max(reserved_mrps(records, anchor)) <= CAPACITY_MRPS
    for session in sessions:
        assert system.outside_leases(session, asked) == []
    assert {each.status for each in asked} <= {200, *EXPLICIT}


async def test_room_for_a_higher_class_is_free_before_it_is_used(mortal: Living) -> None:
    await until_empty(mortal)
    low = [await mortal.page(ratePerSecond=20, burst=2) for _ in range(5)]
    assert {session["anchorId"] for session in low} == {"one"}, "one anchor is full of them"
    beside = await mortal.page(who="stranger", ratePerSecond=40, burst=2, regions=["site-two"])
    wanted = {"intent": INTENT | {"ratePerSecond": 100, "burst": 2, "regions": ["site-one"]}}
    async with mortal.load(*low, beside) as asked:
        await until_all_asked(asked, [*low, beside])
        status, high = await mortal.call("POST", "/sessions", wanted, who="rescuer", key="rescue")
        assert (status, high["code"]) == (503, "AI_PAGING.PREEMPTING"), high
        async with asyncio.timeout(60):
            while status != 201:
                await asyncio.sleep(0.1)
                status, high = await mortal.call("POST", "/sessions", wanted, who="rescuer", key="rescue")
        mortal.opened[high["sessionId"]] = "rescuer"
        async with mortal.load(high) as rescued:
            await until_all_asked(rescued, [high])
            await asyncio.sleep(1)  # whoever is still let in at the anchor would be seen there
    shown = {session["sessionId"]: await mortal.session(session) for session in low}
    moved = [session for session in low if shown[session["sessionId"]]["status"] == "AVAILABLE"]
    ended = [session for session in low if session not in moved]

    # The high one is served, and where it was to be; who made room is not there any more.
    assert [each for each in rescued if not each.served] == []
    assert {each.mark for each in rescued} <= {each.mark for each in mortal.upstreams["one"].reached}
    records = mortal.verified()
    free_us = of_type(records, "COMMIT_GRANTED")[high["sessionId"]]["boot_us"]
    others = {each.mark for each in asked}
    assert [each for each in mortal.upstreams["one"].reached if each.mark in others and each.at_us >= free_us] == []
    check_nothing_beyond(mortal, records, [*asked, *rescued], *low, beside, high)

    # Who could go elsewhere went there, and missed nothing; nobody else was touched.
    assert set(of_type(records, "SESSION_PREEMPTED")) == set(shown)
    assert (len(moved), len(ended)) == (3, 2), "the other anchor has room for three"
    assert {shown[session["sessionId"]]["anchorId"] for session in moved} == {"two"}
    spared = {session["aist"] for session in (*moved, beside)}
    assert [each for each in asked if each.token in spared and not each.served] == []

    # Who could not was told, and is refused.
    for session in ended:
        assert shown[session["sessionId"]]["statusInfo"] == "PREEMPTED"
        last = [each for each in asked if each.token == session["aist"]][-1]
        assert last.status in EXPLICIT, last
    told = await mortal.heard()
    for session in low:
        heard = [each for each in told if each.get("subject") == session["sessionId"]]
        words = [each["type"].rpartition(".")[2] for each in heard]
        after = words[words.index("session-preempted") :]
        assert ("relocation-switched" if session in moved else "session-ended") in after, words


@pytest.mark.soak  # a quarter of a minute; the line is tried in virtual time in every run (test_mass_relocation.py)
async def test_a_dead_domain_is_left_in_the_order_of_classes(mortal: Living) -> None:
    """Forty sessions must move and thirty find room: the higher classes first, then the older sessions."""
    await until_empty(mortal)
    await mortal.page(who="stranger", ratePerSecond=40, burst=1, regions=["site-two"])  # this much is taken there
    order = ["user"] * 13 + ["stranger"] * 13 + ["rescuer"] * 14
    random.Random(4).shuffle(order)
    sessions = [await mortal.page(who=who, ratePerSecond=2, burst=2) for who in order]
    assert {session["anchorId"] for session in sessions} == {"one"}
    rank = {
        session["sessionId"]: (-LOWEST_FIRST.index(who), age)
        for age, (session, who) in enumerate(zip(sessions, order, strict=True))
    }
    line = sorted(rank, key=rank.__getitem__)
    by_name = {session["sessionId"]: session for session in sessions}
    watched = [by_name[line[place]] for place in (0, 14, 29, 30)]
    async with mortal.load(*watched, pause_s=0.6) as asked:
        await until_all_asked(asked, watched)
        mortal.upstreams["one"].die()
        mortal.kill("one")
        async with asyncio.timeout(60):
            while len(of_type(mortal.records(), "SESSION_ENDED").keys() & set(line)) < 10:
                await asyncio.sleep(0.2)
        for session in watched[:3]:
            await mortal.until_served(session["aist"])
    records = mortal.verified()
    lost = max(
        record["seq"] for record in records if record["type"] == "ANCHOR_STATE_CHANGED" and record["anchor"] == "one"
    )
    granted = [
        record["session"]
        for record in records
        if record["type"] == "COMMIT_GRANTED" and record["seq"] > lost and record["anchor"] == "two"
    ]
    assert granted == line[:30], "the line was not kept"
    check_nothing_beyond(mortal, records, asked, *watched)
    for name in line[30:]:
        shown = await mortal.session(by_name[name])
        assert (shown["status"], shown["statusInfo"]) == ("UNAVAILABLE", "ANCHOR_LOST")
    last = [each for each in asked if each.token == watched[3]["aist"]][-1]
    assert last.status in EXPLICIT, last

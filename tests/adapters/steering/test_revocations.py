"""The list of the gateways and the feed of the sidecars."""

import asyncio

import pytest

from aipaging.adapters.steering.envoy.revocations import (
    FEED_ENTRIES_MAX,
    LIST_ENTRIES_MAX,
    RevocationFeed,
    RevocationList,
)
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import SessionId
from aipaging.core.foundation.time import BootUs
from aipaging.core.steering.grant import Fence

NOW = BootUs(1_000)


def fence(number: int, *, n: int = 1, keep_until_us: int = 2_000) -> Fence:
    return Fence(session=SessionId(f"s{number}"), epoch=Epoch(1, n), keep_until_us=BootUs(keep_until_us))


def begun() -> RevocationList:
    revoked = RevocationList()
    revoked.begin(1)
    return revoked


def test_an_empty_list_still_names_its_term_and_generation() -> None:
    assert begun().encoded() == "1.0|"


def test_the_highest_epoch_of_a_session_is_listed() -> None:
    revoked = begun()
    assert revoked.add([fence(1, n=3), fence(2)], NOW)
    assert not revoked.add([fence(1, n=2)], NOW)
    assert revoked.encoded() == "1.0|s1=1.3,s2=1.1"


def test_an_entry_stays_until_every_gateway_has_outlived_it() -> None:
    revoked = begun()
    revoked.add([fence(1, keep_until_us=2_000)], NOW)
    assert not revoked.add([], BootUs(1_999))
    assert revoked.add([], BootUs(2_000))
    assert revoked.encoded() == "1.0|"


def test_a_fence_that_nobody_can_hold_any_more_is_not_listed() -> None:
    assert not begun().add([fence(1, keep_until_us=1_000)], NOW)


def test_overflow_raises_the_generation_and_starts_empty() -> None:
    revoked = begun()
    revoked.add([fence(number) for number in range(LIST_ENTRIES_MAX)], NOW)
    assert revoked.generation == "1.0"
    assert revoked.add([fence(LIST_ENTRIES_MAX)], NOW)
    assert revoked.encoded() == "1.1|"


def test_a_term_starts_a_list_of_its_own() -> None:
    revoked = begun()
    revoked.add([fence(1)], NOW)
    revoked.begin(2)
    assert revoked.encoded() == "2.0|"


def test_the_feed_gives_what_followed() -> None:
    feed = RevocationFeed()
    feed.begin(1)
    feed.add([fence(1), fence(2)])
    feed.add([fence(3)])
    page = feed.page(1, 1)
    assert ([entry.session for entry in page.entries], page.sequence, page.reset) == (["s2", "s3"], 3, False)
    assert feed.page(1, 3).entries == ()


def test_the_feed_resets_who_is_of_another_term_too_far_behind_or_ahead() -> None:
    feed = RevocationFeed()
    feed.begin(2)
    feed.add([fence(number) for number in range(FEED_ENTRIES_MAX + 1)])
    assert feed.page(1, 0).reset
    assert feed.page(2, 0).reset
    assert not feed.page(2, 1).reset
    assert feed.page(2, FEED_ENTRIES_MAX + 2).reset


async def test_a_waiting_sidecar_is_woken() -> None:
    feed = RevocationFeed()
    feed.begin(1)
    waiting = asyncio.create_task(feed.since(1, 0, wait_s=30))
    await asyncio.sleep(0)
    feed.add([fence(7, n=4)])
    assert [(entry.session, entry.epoch) for entry in (await waiting).entries] == [("s7", Epoch(1, 4))]


async def test_a_wait_ends_without_news() -> None:
    feed = RevocationFeed()
    feed.begin(1)
    page = await feed.since(1, 0, wait_s=0)
    assert (page.entries, page.sequence, page.reset) == ((), 0, False)


async def test_a_sidecar_that_leaves_is_let_go_although_news_come_with_it() -> None:
    feed = RevocationFeed()
    feed.begin(1)
    waiting = asyncio.create_task(feed.since(1, 0, wait_s=30))
    await asyncio.sleep(0)
    feed.add([fence(7)])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

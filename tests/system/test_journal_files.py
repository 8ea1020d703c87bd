"""A controller whose journal goes on in another file under load: nobody notices, and both are one verified log."""

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.system.living import HOST, Living

from aipaging.adapters.journal.sqlite.files import JournalFiles

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="function"), pytest.mark.xdist_group("system-disk")]


async def test_a_journal_goes_on_in_another_file_under_load(tmp_path: Path) -> None:
    async with Living.running(tmp_path, file_mb=1) as system:
        files = JournalFiles(system.journal)
        steady = await system.page(ratePerSecond=5)
        paged: list[str] = []

        async def lives() -> None:
            while len(files.present()) == 1:
                session = await system.page(ratePerSecond=0.1)  # which raises unless it is admitted
                paged.append(session["sessionId"])
                await system.end(session)

        async with system.load(steady) as asked, asyncio.timeout(100):
            await asyncio.gather(*(lives() for _ in range(4)))
        assert all(each.served for each in asked)
        metrics = await scraped(system)
        assert f"aipaging_journal_file_first_record {float(files.present()[-1])}" in metrics
        assert "aipaging_journal_file_failures_total 0.0" in metrics
        await system.end(await system.page(ratePerSecond=0.1))
        requested = {record["session"] for record in system.verified() if record["type"] == "SESSION_REQUESTED"}
        assert {steady["sessionId"], *paged} <= requested, "an acknowledged page is not in the journal"
        assert system.outside_leases(steady, asked) == []


async def scraped(system: Living) -> str:
    async with httpx.AsyncClient(trust_env=False) as client:
        headers = {"authorization": f"Bearer {system.secrets['root']}"}
        return (await client.get(f"http://{HOST}:{system.ports.northbound}/metrics", headers=headers)).text

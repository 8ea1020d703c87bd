"""The controller's own certificates: issued by who holds the journal, and renewed wherever they are used."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path
from typing import Any

import pytest

from aipaging.apps.server import identities as identities_module
from aipaging.apps.server.config import load_config
from aipaging.apps.server.config_reference import example
from aipaging.apps.server.identities import Identities
from aipaging.core.foundation.time import SECOND, WallUs

TODAY = dt.datetime.now(dt.UTC).date()
NOW_US = WallUs(int(dt.datetime.now(dt.UTC).timestamp()) * SECOND)
DAY_US = 86_400 * SECOND


class NotedContext:
    """Notes what it is told to load."""

    def __init__(self) -> None:
        self.loaded: list[Path] = []

    def load_cert_chain(self, certificate: Path, key: Path) -> None:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        self.loaded.append(certificate)


async def test_every_context_of_the_controller_takes_up_a_renewed_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identities_module, "RENEWAL_CHECK_S", 0.001)
    path = tmp_path / "aipaging.toml"
    path.write_text(example(today=TODAY, operator_secret="o" * 20, client_secret="c" * 20))
    config = load_config(path, wall_us=NOW_US)
    now_us = NOW_US
    identities = Identities.open(config, lambda: now_us)
    assert not (identities.controller / "cert.pem").exists(), "opening keys must not touch what another one uses"
    identities.issue(config)
    first = (identities.controller / "cert.pem").read_bytes()
    contexts: list[Any] = [NotedContext(), NotedContext()]
    keeping = asyncio.create_task(identities.keep_renewed(config, contexts, lambda: now_us))
    await asyncio.sleep(0.02)
    assert not contexts[0].loaded
    now_us = WallUs(NOW_US + DAY_US)
    async with asyncio.timeout(60):
        while not all(context.loaded for context in contexts):
            await asyncio.sleep(0.001)
    keeping.cancel()
    assert (identities.controller / "cert.pem").read_bytes() != first

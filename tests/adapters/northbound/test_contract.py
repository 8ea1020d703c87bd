"""The description of the interface against the interface: generated requests, good and bad, over a real socket."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.adapters.northbound.conftest import SECRETS, Rig
from tests.adapters.northbound.test_oauth_server import basic, opened

from aipaging.apps.server.config import load_config
from aipaging.apps.server.domain_keys import KeySources
from aipaging.apps.server.reloading import Reloading
from aipaging.apps.server.stated_envelopes import StatedEnvelopes
from aipaging.runtime.http.rates import RateLimit

EXAMPLES: Final = 12
"""Per operation; `make soak` runs more."""

CONFIGURATION: Final = """
operator = { name = "contract", trust_domain = "contract.example", data_dir = "data" }
[[client]]
client_id = "noc"
tenant = "operator"
role = "operator"
secret_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"""

CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


def whole(rig: Rig, directory: Path) -> None:
    """Give the interface its authorization server and a configuration file that can be read anew."""
    opened(rig, directory)
    file = directory / "aipaging.toml"
    file.write_text(CONFIGURATION)
    wall_us = rig.clock.now().wall_us
    reloading = Reloading(
        load_config(file, wall_us=wall_us),
        rig.engine,
        (),
        envelopes=StatedEnvelopes(lambda: rig.engine.state, rig.service.envelopes, lambda: wall_us),
        key_sources=KeySources(rig.service.envelopes, {}),
        wall_us=lambda: wall_us,
    )
    rig.service = replace(rig.service, configuration=reloading)
    rig.app = rig.rebuilt()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the real interface from a thread of its own; yields its address."""
    directory: Path = tmp_path_factory.mktemp("contract")
    started, stop = threading.Event(), threading.Event()
    address: list[str] = []

    async def serve() -> None:
        rig = Rig(directory)
        await rig.start()
        whole(rig, directory)
        # Thousands of generated requests in seconds are to reach what they ask for.
        of_operators = rig.service.operator_rates
        for rates in (of_operators.reads, of_operators.changes, of_operators.protection):
            rates.limit = RateLimit(per_second=0.0, burst=1)
        config = uvicorn.Config(rig.app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
        running = uvicorn.Server(config)
        running.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        task = asyncio.create_task(running.serve())
        while not running.started:
            await asyncio.sleep(0.01)
        address.append(f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}")
        started.set()
        await asyncio.to_thread(stop.wait)
        running.should_exit = True
        await task
        await rig.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(60)
    yield address[0]
    stop.set()
    thread.join(60)


def operations(server: str) -> list[Any]:
    document = httpx.get(f"{server}/openapi.json").json()
    document["servers"] = [{"url": server}]
    found = schemathesis.openapi.from_dict(document).get_all_operations()
    return [operation.ok() for operation in found]


def failures_of(operation: Any, server: str, examples: int) -> list[str]:
    """Return what generated requests to one operation showed, each failure once."""
    failures: list[str] = []

    @given(case=operation.as_strategy())
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: schemathesis.Case) -> None:
        secret, checks = SECRETS["noc"][0], CHECKS
        oauth = "/oauth2/" in operation.label and "client_secret" not in str(case.body)
        headers = {"authorization": basic("noc", secret) if oauth else f"Bearer {secret}"}
        if operation.label.endswith("/events"):
            case.query = {**(case.query or {}), "follow": "false"}  # a stream that goes on is no answer to compare
            checks = [check for check in CHECKS if check is not response_schema_conformance]  # it is bytes to OpenAPI
        try:
            case.call_and_validate(base_url=server, headers=headers, checks=checks, timeout=60)
        except (schemathesis.errors.SchemathesisError, AssertionError, BaseExceptionGroup) as error:
            failures.append(f"{operation.label}: {error}")

    ask()
    return failures[:1]


def test_what_is_described_is_what_happens(server: str) -> None:
    found = operations(server)
    names = {operation.definition.raw["operationId"] for operation in found}
    assert names > {"getToken", "revokeToken", "introspectToken", "rotateTokenKeys", "reloadConfiguration", "getUsage"}
    failures = [failure for operation in found for failure in failures_of(operation, server, EXAMPLES)]
    assert not failures, "\n\n".join(failures)


@pytest.mark.soak
def test_what_is_described_is_what_happens_at_length(server: str) -> None:
    failures = [failure for operation in operations(server) for failure in failures_of(operation, server, 400)]
    assert not failures, "\n\n".join(failures)

"""What goes wrong around a real Envoy: death of either side, foreign peers, refused configuration, broken scripts."""

import asyncio
import dataclasses
import os
import signal
import ssl
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography import x509

from aipaging.adapters.signing.peer import client_context, server_context
from aipaging.adapters.steering.envoy import bootstrap as bootstrap_module
from aipaging.adapters.steering.envoy import supervisor as supervisor_module
from aipaging.adapters.steering.envoy.bootstrap import Listener, filter_source
from aipaging.adapters.steering.envoy.supervisor import EnvoySupervisor
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError
from aipaging.core.foundation.names import AnchorId
from aipaging.core.foundation.time import MS
from aipaging.core.steering.grant import AnchorEndpoint, Fence
from aipaging.testing.envoy_rig import envoy_rig
from aipaging.testing.recording_anchor import HOST, RecordingAnchor

pytestmark = pytest.mark.real

MINUTE_MS = 60_000


async def test_a_killed_envoy_is_started_again_and_refilled(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        assert await rig.request(session) == rig.anchors[0]
        before = await rig.supervisor.health()
        assert before.pid is not None
        os.kill(before.pid, signal.SIGKILL)
        while (after := await rig.supervisor.health()).restarts == 0 or not after.live:
            await asyncio.sleep(0.02)
        await rig.connected()
        assert await rig.request(session) == rig.anchors[0]
        assert after.pid != before.pid


async def test_a_new_controller_adopts_the_envoy_and_removes_what_it_does_not_know(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        kept, unknown, revoked = rig.session(), rig.session(), rig.session()
        await rig.driver.install(
            [rig.grant(each, rig.anchors[0], Epoch(1, 1), MINUTE_MS) for each in (kept, unknown, revoked)]
        )
        for session in (kept, unknown, revoked):
            assert await rig.request(session) == rig.anchors[0]
        keep_until_us = rig.now().after(MINUTE_MS * MS)
        await rig.driver.revoke([Fence(session=revoked, epoch=Epoch(1, 1), keep_until_us=keep_until_us)])
        first = await rig.supervisor.health()

        await rig.kill_controller()
        await rig.supervisor.release()
        assert await rig.request(kept) == rig.anchors[0], "steering must survive the controller"
        await rig.restart_controller()
        successor = EnvoySupervisor(rig.gateway, drain_timeout_s=1.0)
        await successor.start()
        try:
            health = await successor.health()
            assert (health.pid, health.adopted, health.restarts) == (first.pid, True, 0)
            await rig.place()
            await rig.driver.reconcile(2, [rig.grant(kept, rig.anchors[1], Epoch(2, 1), MINUTE_MS)])
            while not rig.driver.gateways:
                await asyncio.sleep(0.02)
            await rig.driver.reconcile(3, [rig.grant(kept, rig.anchors[1], Epoch(3, 1), MINUTE_MS)])
            assert await rig.request(kept) == rig.anchors[1]
            assert await rig.request(unknown) is None
            assert await rig.request(revoked) is None, "an empty list revived a revoked session"
        finally:
            await successor.release()


async def test_another_configuration_replaces_the_running_envoy(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        first = await rig.supervisor.health()
        await rig.supervisor.release()
        rig.gateway = dataclasses.replace(rig.gateway, workers=2)
        rig.supervisor = EnvoySupervisor(rig.gateway, drain_timeout_s=0.2)
        await rig.supervisor.start()
        second = await rig.supervisor.health()
        assert (second.adopted, second.running) == (False, True)
        assert second.pid != first.pid
        await rig.supervisor.stop()


async def test_streams_finish_before_a_clean_stop(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        streaming = asyncio.create_task(rig.send(session, "/stream"))
        while not any(each.path == "/stream" for each in rig.anchor_servers[rig.anchors[0]].received):
            await asyncio.sleep(0.01)
        await rig.supervisor.stop()
        reply = await streaming
        assert reply.text.count("data:") == 10
        assert not (await rig.supervisor.health()).running


def deaf_at_first(supervisor: EnvoySupervisor, times: int) -> None:
    """Let the first questions to the admin interface go unanswered, as a busy machine does."""
    admin = supervisor._admin
    unanswered = iter(range(times))

    async def deaf(method: str, path: str) -> str | None:
        if method == "GET" and next(unanswered, None) is not None:
            return None
        return await admin(method, path)

    supervisor._admin = deaf  # type: ignore[method-assign]


async def test_streams_finish_although_a_slow_envoy_does_not_say_that_there_are_any(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        streaming = asyncio.create_task(rig.send(session, "/stream"))
        while not any(each.path == "/stream" for each in rig.anchor_servers[rig.anchors[0]].received):
            await asyncio.sleep(0.01)
        deaf_at_first(rig.supervisor, 3)
        await rig.supervisor.stop()
        assert (await streaming).text.count("data:") == 10


async def test_a_slow_envoy_is_adopted_and_not_replaced(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        first = await rig.supervisor.health()
        await rig.supervisor.release()
        successor = EnvoySupervisor(rig.gateway, drain_timeout_s=1.0)
        deaf_at_first(successor, 2)
        await successor.start()
        try:
            health = await successor.health()
            assert (health.pid, health.adopted) == (first.pid, True)
        finally:
            await successor.release()


async def test_a_refused_configuration_is_reported(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        broken = AnchorEndpoint(anchor=AnchorId("broken"), host=HOST, port=70_000, tls=False, in_flight_max=1)
        with pytest.raises(UnavailableError, match="refused its configuration"):
            await rig.driver.place_anchors([broken])
        session = rig.session()
        await rig.place()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        assert await rig.request(session) == rig.anchors[0]


async def test_a_silent_gateway_is_named(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        assert await rig.request(session) == rig.anchors[0]
        health = await rig.supervisor.health()
        assert health.pid is not None
        os.kill(health.pid, signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError, match="gateway-1 did not confirm"):
                await rig.driver.install([rig.grant(session, rig.anchors[1], Epoch(1, 2), MINUTE_MS)])
        finally:
            os.kill(health.pid, signal.SIGCONT)
        await rig.driver.install([rig.grant(session, rig.anchors[1], Epoch(1, 3), MINUTE_MS)])
        assert await rig.request(session) == rig.anchors[1]


async def test_an_error_in_the_script_steers_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = filter_source().replace("local token = headers:get", "error('planted') local token = headers:get")
    monkeypatch.setattr(bootstrap_module, "filter_source", lambda: broken)
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        reply = await rig.send(session, headers={"x-aipaging-anchor": "anchor:anchor-1"})
        assert (reply.status_code, reply.json()["code"]) == (503, "UNAVAILABLE")
        assert not rig.anchor_servers[rig.anchors[0]].received


async def test_a_full_cache_forgets_and_asks_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = filter_source().replace("ENTRIES_PER_GENERATION_MAX = 16384", "ENTRIES_PER_GENERATION_MAX = 4")
    monkeypatch.setattr(bootstrap_module, "filter_source", lambda: small)
    async with envoy_rig(tmp_path) as rig:
        sessions = [rig.session() for _ in range(20)]
        await rig.driver.install([rig.grant(each, rig.anchors[0], Epoch(1, 1), MINUTE_MS) for each in sessions])
        for _ in range(2):
            for session in sessions:
                assert await rig.request(session) == rig.anchors[0]
        assert rig.controller.look_ups == 40
        for _ in range(3):
            for session in sessions[-4:]:
                assert await rig.request(session) == rig.anchors[0]
        assert rig.controller.look_ups == 40, "what is used stays"


async def test_an_anchor_is_reached_by_its_identity_only(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        servers: dict[str, RecordingAnchor] = {}
        for name, identity in (("right", "right"), ("wrong", "somebody-else")):
            rig.authority.write_identity(tmp_path / name, "anchor", identity, addresses=[HOST])
            servers[name] = RecordingAnchor(AnchorId(name))
            await servers[name].start(server_context(tmp_path / name))
        endpoints = [
            AnchorEndpoint(anchor=AnchorId(name), host=HOST, port=server.port, tls=True, in_flight_max=10)
            for name, server in servers.items()
        ]
        await rig.driver.place_anchors(endpoints)
        for name, status in (("right", 200), ("wrong", 503)):
            session = rig.session()
            await rig.driver.install([rig.grant(session, AnchorId(name), Epoch(1, 1), MINUTE_MS)])
            assert (await rig.send(session)).status_code == status
            assert len(servers[name].received) == (status == 200)
            servers[name].stop()


async def test_only_an_enrolled_gateway_may_look_up_or_subscribe(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        url = f"https://{HOST}:{rig.controller.look_up_port}/steering/v1/look-up"
        headers = {"authorization": f"Bearer {rig.tokens[session]}"}
        rig.authority.write_identity(tmp_path / "anchor-1", "anchor", "anchor-1")
        for directory, status in ((tmp_path / "anchor-1", 403), (tmp_path / "gateway", 200)):
            async with httpx.AsyncClient(verify=client_context(directory), trust_env=False) as client:
                assert (await client.get(url, headers=headers)).status_code == status
                assert (await client.post(url, headers=headers)).status_code == 405
        anonymous = ssl.create_default_context(cafile=str(tmp_path / "gateway" / "ca.pem"))
        async with httpx.AsyncClient(verify=anonymous, trust_env=False) as client:
            with pytest.raises((httpx.TransportError, ssl.SSLError)):  # by when the alert comes
                await client.get(url, headers=headers)

        credentials = grpc.ssl_channel_credentials(
            *((tmp_path / "anchor-1" / name).read_bytes() for name in ("ca.pem", "key.pem", "cert.pem"))
        )
        async with grpc.aio.secure_channel(f"{HOST}:{rig.controller.xds.port}", credentials) as channel:
            call = channel.stream_stream(
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            )()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_renewed_certificate_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path, tls=True) as rig:

        async def serial() -> int:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            _, writer = await asyncio.open_connection(HOST, rig.gateway.listener.port, ssl=context)
            der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return x509.load_der_x509_certificate(der).serial_number

        before = await serial()
        rig.authority.write_identity(rig.gateway.identity, "gateway", rig.gateway.gateway, addresses=[HOST])
        async with asyncio.timeout(60):
            while await serial() == before:
                await asyncio.sleep(0.02)
        assert (await rig.supervisor.health()).restarts == 0


async def test_a_controller_that_is_not_ready_yet_tells_gateways_nothing(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        session = rig.session()
        await rig.driver.install([rig.grant(session, rig.anchors[0], Epoch(1, 1), MINUTE_MS)])
        assert await rig.request(session) == rig.anchors[0]
        await rig.kill_controller()
        await rig.restart_controller()
        await rig.place()  # must not wait for gateways that are not served yet
        while not rig.driver.gateways:
            await asyncio.sleep(0.02)
        assert await rig.request(session) == rig.anchors[0], "steering that is granted goes on until it expires"


def test_envoy_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match=r"aipaging\[envoy\]"):
        supervisor_module.envoy_binary()


async def test_plain_text_beyond_this_machine_is_refused(tmp_path: Path) -> None:
    async with envoy_rig(tmp_path) as rig:
        everywhere = Listener(host="0.0.0.0", port=1, certificate=None, key=None)
        gateway = dataclasses.replace(rig.gateway, listener=everywhere)
        with pytest.raises(InvalidInputError, match="loopback"):
            bootstrap_module.bootstrap(gateway)
        far = AnchorEndpoint(anchor=AnchorId("far"), host="192.0.2.1", port=80, tls=False, in_flight_max=1)
        with pytest.raises(InvalidInputError, match="loopback"):
            await rig.driver.place_anchors([far])

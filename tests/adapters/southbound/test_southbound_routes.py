"""What sidecars and gateways ask, over a world on virtual time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aipaging.adapters.signing.ca import CertificateAuthority, private_key, signing_request
from aipaging.adapters.southbound.app import Southbound, southbound_app
from aipaging.adapters.steering.envoy.revocations import RevocationFeed
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.names import AnchorId, DomainName, SessionId
from aipaging.core.foundation.time import BootUs, Now
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging import effects as x
from aipaging.core.paging.metering import requests_max
from aipaging.core.paging.relocation_machine import RelocationCause
from aipaging.core.paging.session_machine import StatusInfo
from aipaging.core.paging.settings import Settings
from aipaging.core.paging.state import State
from aipaging.core.paging.tenancy_events import SessionsMetered
from aipaging.core.steering.grant import Fence
from aipaging.runtime.http.exchange import Receive, Scope, Send
from aipaging.testing.world import World, intent

T = TypeVar("T")
SETTINGS = Settings(lease=LeaseTerms(lease_ms=10_000, drift_ppm=1_000, grace_ms=200, drain_ms_max=30_000))
SOME_SESSION = "3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"


class Control:
    """The port to the engine, over a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.healthy = True
        self.fails_while_reading = False

    @property
    def ill(self) -> str:
        return "" if self.healthy else "the journal cannot be written"

    async def submit(self, command: c.Command) -> c.Reply:
        return self.world.do(command).reply

    async def view(self, read: Callable[[State, Now], T], of: SessionId | None = None) -> T:
        seen = read(self.world.state, self.world.now)
        if self.fails_while_reading:
            self.healthy = False
        return seen


class Rig:
    def __init__(self, directory: Path) -> None:
        self.world = World.started(SETTINGS)
        self.control = Control(self.world)
        self.feed = RevocationFeed()
        self.feed.begin(1)
        self.directory = directory
        self.authority = CertificateAuthority.open(directory / "ca", "operator.example")
        self.looked_up: list[Scope] = []
        self.app = southbound_app(
            Southbound(
                control=self.control,
                feed=self.feed,
                renew=self.authority.renew_from_csr,
                jwks=lambda: {"keys": [{"kid": "k"}]},
                look_up=self._look_up,
                heartbeat_ms=lambda: 700,
            )
        )

    async def _look_up(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.looked_up.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-aipaging-term", b"1")]})
        await send({"type": "http.response.body", "body": b""})

    def client(self, role: str | None, name: str = "a") -> httpx.AsyncClient:
        async def identified(scope: Scope, receive: Receive, send: Send) -> None:
            scope["extensions"] = {} if role is None else {"aipaging.identity": (role, name)}
            await self.app(scope, receive, send)

        return httpx.AsyncClient(transport=httpx.ASGITransport(app=identified), base_url="http://test")

    async def ask(self, anchor: str, session: str, epoch: str) -> tuple[str, int, str]:
        """Return (state, remaining ms, current epoch) as the anchor is told."""
        term, n = epoch.split(".")
        async with self.client("anchor", anchor) as client:
            answer = await client.post(
                "/steering/v1/remaining", json={"leases": [{"session": session, "term": int(term), "n": int(n)}]}
            )
        (lease,) = answer.json()["leases"]
        assert (lease["session"], f"{lease['term']}.{lease['n']}") == (session, epoch)
        return lease["state"], lease["remaining_ms"], f"{lease['current_term']}.{lease['current_n']}"


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
async def anchor(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    async with rig.client("anchor", "a") as client:
        yield client


CALLS = [
    ("POST", "/steering/v1/remaining", {"anchor"}),
    ("GET", "/steering/v1/revocations?after=1.0", {"anchor"}),
    ("PUT", "/anchors/a/heartbeat", {"anchor"}),
    ("POST", "/identity/v1/renew", {"anchor", "gateway"}),
    ("GET", "/identity/v1/keys", {"anchor", "gateway"}),
]


@pytest.mark.parametrize(("method", "path", "allowed"), CALLS)
@pytest.mark.parametrize("role", [None, "controller", "gateway", "anchor"])
async def test_only_the_right_role_may_ask(
    rig: Rig, method: str, path: str, allowed: set[str], role: str | None
) -> None:
    async with rig.client(role) as client:
        answer = await client.request(method, path)
    assert (answer.status_code == 403) == (role not in allowed)
    if answer.status_code == 403:
        assert answer.json()["code"] == "PERMISSION_DENIED"


async def test_look_ups_go_to_the_drivers_endpoint(rig: Rig) -> None:
    async with rig.client("gateway", "g") as client:
        answer = await client.get("/steering/v1/look-up", headers={"authorization": "Bearer x"})
    assert (answer.status_code, answer.headers["x-aipaging-term"]) == (200, "1")
    assert rig.looked_up[0]["extensions"]["aipaging.identity"] == ("gateway", "g")


async def test_a_live_lease_is_active_for_less_than_is_left(rig: Rig) -> None:
    session = rig.world.paged().session
    rig.world.sleep(2_500)
    assert await rig.ask("a", session, "1.1") == ("ACTIVE", 7_492, "1.1")


async def test_a_lease_has_ended_at_its_deadline_and_not_before(rig: Rig) -> None:
    session = rig.world.paged().session
    rig.world.sleep(9_900)
    assert (await rig.ask("a", session, "1.1"))[0] == "ACTIVE"
    rig.world.sleep(100)
    assert await rig.ask("a", session, "1.1") == ("ENDED", 0, "1.1")


async def test_nothing_is_granted_elsewhere_to_strangers_or_for_the_future(rig: Rig) -> None:
    session = rig.world.paged().session
    assert (await rig.ask("b", session, "1.1"))[0] == "ENDED"
    assert (await rig.ask("a", SOME_SESSION, "1.1"))[0] == "ENDED"
    assert await rig.ask("a", session, "1.2") == ("ENDED", 0, "1.2")
    assert (await rig.ask("a", session, "2.0"))[0] == "ENDED"


async def test_an_ended_session_has_nothing_left(rig: Rig) -> None:
    session = rig.world.paged().session
    rig.world.do(c.End(session=session, status_info=StatusInfo.DELETE_REQUESTED))
    assert await rig.ask("a", session, "1.1") == ("ENDED", 0, "1.1")


async def test_a_relocation_grants_the_target_and_drains_the_source(rig: Rig) -> None:
    session = rig.world.paged().session
    rig.world.do(c.Relocate(session=session, cause=RelocationCause.OPERATOR))
    assert await rig.ask("a", session, "1.1") == ("ACTIVE", 9_990, "1.1")
    assert await rig.ask("b", session, "1.2") == ("ACTIVE", 9_990, "1.2")
    assert (await rig.ask("b", session, "1.1"))[0] == "ENDED"
    rig.world.settle()
    assert await rig.ask("a", session, "1.1") == ("DRAINING", 29_970, "1.1")
    assert (await rig.ask("a", session, "1.2"))[0] == "ENDED"
    assert await rig.ask("b", session, "1.2") == ("ACTIVE", 9_990, "1.2")
    rig.world.advance(31_000)
    assert (await rig.ask("a", session, "1.1"))[0] == "ENDED"
    assert (await rig.ask("b", session, "1.2"))[0] == "ACTIVE"


async def test_a_failed_relocation_has_the_source_adopt_the_higher_epoch(rig: Rig) -> None:
    session = rig.world.paged().session
    rig.world.do(c.Relocate(session=session, cause=RelocationCause.OPERATOR))
    rig.world.carry_out(rig.world.effects.pop())
    rig.world.do(c.RelocationBroken(session=session, number=1, message="no gateway answered"))
    assert await rig.ask("a", session, "1.1") == ("ACTIVE", 9_990, "1.3")
    assert (await rig.ask("b", session, "1.2"))[0] == "ENDED"


async def test_mobility_on_the_spot_lifts_work_only_after_the_switch(rig: Rig) -> None:
    session = rig.world.paged(intent(regions=("eu",))).session
    rig.world.do(c.MoveClient(session=session, place=DomainName("access-us")))
    rig.world.do(c.Wake())
    while not isinstance(rig.world.effects[-1], x.SwitchSteering):
        rig.world.carry_out(rig.world.effects.pop())
    assert (await rig.ask("a", session, "1.1"))[2] == "1.1"
    assert (await rig.ask("a", session, "1.2"))[::2] == ("ACTIVE", "1.2")
    rig.world.settle()
    assert (await rig.ask("a", session, "1.1"))[::2] == ("ACTIVE", "1.2")


async def test_after_a_recovery_the_new_term_is_adopted(rig: Rig) -> None:
    session = rig.world.paged().session
    rig.world.do(c.StartTerm(settings=SETTINGS, software="test"))
    assert await rig.ask("a", session, "1.1") == ("ACTIVE", 9_990, "2.2")


async def test_no_time_is_granted_by_an_ill_controller(rig: Rig, anchor: httpx.AsyncClient) -> None:
    rig.control.fails_while_reading = True
    for _ in range(2):
        answer = await anchor.post("/steering/v1/remaining", json={"leases": []})
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")


async def test_many_questions_at_once(rig: Rig, anchor: httpx.AsyncClient) -> None:
    sessions = [rig.world.paged(intent(rate_rps=0.001)).session for _ in range(5)]
    asked = [{"session": session, "term": 1, "n": 1} for session in sessions for _ in range(200)]
    answer = await anchor.post("/steering/v1/remaining", json={"leases": asked})
    assert [lease["session"] for lease in answer.json()["leases"]] == [one["session"] for one in asked]
    too_many = await anchor.post("/steering/v1/remaining", json={"leases": asked[:25] + asked})
    assert (too_many.status_code, too_many.json()["field"]) == (400, "leases")


QUESTION = {"session": SOME_SESSION, "term": 1, "n": 1}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "leases"),
        ({"leases": [{**QUESTION, "n": -1}]}, "leases[0].n"),
        ({"leases": [QUESTION, {**QUESTION, "session": "x"}]}, "leases[1].session"),
        ({"leases": [{**QUESTION, "session": SOME_SESSION[:-1] + "\n"}]}, "leases[0].session"),
        ({"leases": [{**QUESTION, "more": 1}]}, "leases[0].more"),
    ],
)
async def test_a_malformed_question_is_refused(anchor: httpx.AsyncClient, body: object, field: str) -> None:
    answer = await anchor.post("/steering/v1/remaining", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_a_long_poll_ends_with_the_revocation(rig: Rig, anchor: httpx.AsyncClient) -> None:
    waiting = asyncio.create_task(anchor.get("/steering/v1/revocations?after=1.0&wait_ms=20000"))
    await asyncio.sleep(0)
    rig.feed.add([Fence(session=SessionId(SOME_SESSION), epoch=Epoch(1, 4), keep_until_us=BootUs(9))])
    said = (await waiting).json()
    assert said == {
        "term": 1,
        "sequence": 1,
        "entries": [{"session": SOME_SESSION, "term": 1, "n": 4}],
        "reset": False,
    }
    nothing = (await anchor.get("/steering/v1/revocations?after=1.1&wait_ms=0")).json()
    assert (nothing["entries"], nothing["reset"]) == ([], False)
    assert (await anchor.get("/steering/v1/revocations?after=0.7")).json()["reset"] is True


@pytest.mark.parametrize(
    "query",
    ["", "?after=1", "?after=1.", "?after=a.b", "?after=-1.0", "?after=1.0&wait_ms=x", "?after=1.0&wait_ms=30001",
     f"?after={'9' * 20}.0", "?after=1.0&else=1", "?after=١.٢"],  # noqa: RUF001
)  # fmt: skip
async def test_a_malformed_place_is_refused(anchor: httpx.AsyncClient, query: str) -> None:
    answer = await anchor.get(f"/steering/v1/revocations{query}")
    assert answer.status_code == 400


def beat(state: str = "READY", sequence: int = 1, boot: str = "boot-1") -> dict[str, Any]:
    return {"state": state, "boot": boot, "sequence": sequence, "in_flight": 3, "queued": 0}


async def test_a_heartbeat_is_heard(rig: Rig, anchor: httpx.AsyncClient) -> None:
    rig.world.sleep(2_000)
    answer = await anchor.put("/anchors/a/heartbeat", json=beat())
    assert answer.json() == {"interval_ms": 700}
    assert rig.world.state.heard_us[AnchorId("a")] == rig.world.now.boot_us


@pytest.mark.parametrize(("said", "state"), [("DRAINING", AnchorState.DRAINING), ("UNHEALTHY", AnchorState.LOST)])
async def test_an_anchor_says_how_it_is(rig: Rig, anchor: httpx.AsyncClient, said: str, state: AnchorState) -> None:
    await anchor.put("/anchors/a/heartbeat", json=beat(said))
    assert rig.world.state.catalogue.anchors[AnchorId("a")].state is state


async def test_who_drains_is_told_how_many_sessions_it_serves_still(rig: Rig, anchor: httpx.AsyncClient) -> None:
    rig.world.paged()
    here = rig.world.state.on_anchor[AnchorId("a")]
    assert len(here) == 1
    assert (await anchor.put("/anchors/a/heartbeat", json=beat("DRAINING"))).json()["sessions"] == 1
    here.clear()
    assert (await anchor.put("/anchors/a/heartbeat", json=beat("DRAINING", 2))).json()["sessions"] == 0


async def test_an_overtaken_heartbeat_changes_nothing(rig: Rig, anchor: httpx.AsyncClient) -> None:
    await anchor.put("/anchors/a/heartbeat", json=beat("UNHEALTHY", 7))
    assert (await anchor.put("/anchors/a/heartbeat", json=beat("READY", 6))).status_code == 200
    assert rig.world.state.catalogue.anchors[AnchorId("a")].state is AnchorState.LOST
    await anchor.put("/anchors/a/heartbeat", json=beat("READY", 0, "boot-2"))
    assert rig.world.state.catalogue.anchors[AnchorId("a")].state is AnchorState.READY


async def test_an_anchor_speaks_of_itself_only(rig: Rig, anchor: httpx.AsyncClient) -> None:
    answer = await anchor.put("/anchors/b/heartbeat", json=beat("UNHEALTHY"))
    assert (answer.status_code, answer.json()["field"]) == (403, "anchorId")
    assert rig.world.state.catalogue.anchors[AnchorId("b")].state is AnchorState.READY


async def test_an_unregistered_anchor_is_told_so(rig: Rig) -> None:
    async with rig.client("anchor", "stranger") as client:
        answer = await client.put("/anchors/stranger/heartbeat", json=beat())
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_a_certificate_is_renewed_for_the_peer_and_nobody_else(rig: Rig, anchor: httpx.AsyncClient) -> None:
    private_key(rig.directory / "key.pem")
    answer = await anchor.post("/identity/v1/renew", content=signing_request(rig.directory))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-pem-file"
    assert answer.content.startswith(b"-----BEGIN CERTIFICATE-----")
    wrong = await anchor.post("/identity/v1/renew", content=b"nonsense")
    assert (wrong.status_code, wrong.json()["code"]) == (400, "AI_PAGING.CSR_MALFORMED")
    huge = await anchor.post("/identity/v1/renew", content=b"x" * 20_000)
    assert huge.status_code == 413


async def test_keys_are_for_the_enrolled(anchor: httpx.AsyncClient) -> None:
    assert (await anchor.get("/identity/v1/keys")).json() == {"keys": [{"kid": "k"}]}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["leases", "session", "term", "n"]), inner),
        max_leaves=8,
    ),
    path=st.sampled_from(["/steering/v1/remaining", "/anchors/a/heartbeat", "/anchors/a/usage"]),
)
async def test_no_json_whatever_is_a_bug(anchor: httpx.AsyncClient, body: object, path: str) -> None:
    method = "PUT" if path.startswith("/anchors") else "POST"
    answer = await anchor.request(method, path, content=json.dumps(body))
    assert answer.status_code in {200, 400}


def counts(session: str, requests: int, tokens: int = 0, *, batch: int = 1, boot: str = "first") -> dict[str, object]:
    used = [{"session": session, "requests": requests, "tokens": tokens}]
    return {"boot": boot, "batch": batch, "used": used}


def metered(rig: Rig) -> list[tuple[str, int, int]]:
    events = [event for event in rig.world.events if isinstance(event, SessionsMetered)]
    return [(each.anchor, each.requests, each.tokens) for event in events for each in event.metered]


async def test_a_batch_of_counts_is_recorded_once(rig: Rig, anchor: httpx.AsyncClient) -> None:
    session = rig.world.paged().session
    for _ in range(2):
        answer = await anchor.put("/anchors/a/usage", json=counts(session, 3, 40))
        assert (answer.status_code, answer.json()) == (200, {"refused": []})
    assert metered(rig) == [("a", 3, 40)]
    await anchor.put("/anchors/a/usage", json=counts(session, 2, batch=2))
    await anchor.put("/anchors/a/usage", json=counts(session, 1, boot="second"))
    await anchor.put("/anchors/a/usage", json=counts(session, 2, batch=2))  # a straggler of the boot before
    assert metered(rig) == [("a", 3, 40), ("a", 2, 0), ("a", 1, 0)]


async def test_a_count_that_cannot_be_true_is_refused_by_name_and_the_others_are_taken(
    rig: Rig, anchor: httpx.AsyncClient
) -> None:
    liar, honest = rig.world.paged().session, rig.world.paged().session
    most = requests_max(rig.world.state.sessions[liar])
    body = counts(liar, most + 1)
    body["used"] = [*body["used"], *counts(honest, 1, 7)["used"]]  # type: ignore[misc]
    (refused,) = (await anchor.put("/anchors/a/usage", json=body)).json()["refused"]
    assert (refused["session"], refused["code"]) == (liar, "USAGE_IMPLAUSIBLE")
    assert metered(rig) == [("a", 1, 7)]
    for tokens in (0, 1):
        # The whole of what its contract holds is believed once, and no request without one carries tokens.
        body = counts(liar, most * (1 - tokens), tokens, batch=2 + tokens)
        said = (await anchor.put("/anchors/a/usage", json=body)).json()["refused"]
        assert [each["code"] for each in said] == ["USAGE_IMPLAUSIBLE"] * tokens


async def test_an_anchor_counts_for_itself_and_for_sessions_that_are_there(rig: Rig, anchor: httpx.AsyncClient) -> None:
    session = rig.world.paged().session
    answer = await anchor.put("/anchors/b/usage", json=counts(session, 1))
    assert (answer.status_code, answer.json()["field"]) == (403, "anchorId")
    async with rig.client("anchor", "b") as other:
        (refused,) = (await other.put("/anchors/b/usage", json=counts(session, 1))).json()["refused"]
    assert refused["code"] == "USAGE_NOT_HERE"
    assert metered(rig) == []

"""A client that pages over mutual TLS gets a token that is of use to nobody else, over restarts and renewals."""

import base64
import json
import ssl
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.system.living import BASE, HOST, INTENT, Living

from aipaging.client import AsyncClient
from aipaging.testing.stack import CONTROLLER

pytestmark = [
    pytest.mark.real,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("system-certificates"),
]


class Secured(Living):
    """A system whose API is HTTPS and asks clients for certificates."""

    async def start(self) -> None:
        self.secure()
        await super().start()

    def secure(self) -> None:
        api = self.enrol("controller", "api")
        self.certificate("one")  # the authority is there from now on
        before = f'northbound = {{ listen = "{HOST}:{self.ports.northbound}" }}'
        files = {
            "certificate": api / "cert.pem",
            "key": api / "key.pem",
            "client_ca": self.folder / "clients" / "ca.pem",
        }
        told = ", ".join(f"{key} = {json.dumps(str(path))}" for key, path in files.items())
        text = self.config.read_text()
        assert before in text
        self.config.write_text(text.replace(before, f"{before[:-2]}, {told} }}"))

    def certificate(self, name: str) -> Path:
        return self.enrol("anchor", name, authority=self.folder / "clients")

    async def _request(self, method: str, path: str, who: str, body: Any, key: str = "") -> tuple[int, Any]:
        return await self.over_tls(method, path, body, who=who, key=key)

    async def over_tls(
        self, method: str, path: str, body: Any = None, *, who: str = "user", shown: Path | None = None, key: str = ""
    ) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.secrets[who]}"} | ({"idempotency-key": key} if key else {})
        url = f"https://{HOST}:{self.ports.northbound}{path}"
        async with httpx.AsyncClient(verify=self.trusting(shown), timeout=60, trust_env=False) as client:
            response = await client.request(method, url, json=body, headers=headers)
        return response.status_code, response.json() if response.content else {}

    async def served(self, token: str, shown: Path | None) -> int:
        """Return the status of a request that shows a certificate to the gateway, or none."""
        async with httpx.AsyncClient(
            base_url=self.gateway_url, verify=self.trusting(shown), timeout=60, trust_env=False
        ) as client:
            return (await self.ask(token, client=client)).status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mortal_of_module(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Secured]:
    async with Secured.running(tmp_path_factory.mktemp("secured")) as system:
        yield system


@pytest.fixture
def secured(mortal: Secured) -> Secured:
    return mortal


def bound_to(token: str) -> str | None:
    payload = token.split(".")[1]
    said = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return said.get("cnf", {}).get("x5t#S256")


def thumbprint(folder: Path) -> str:
    pem = (folder / "cert.pem").read_text()
    end = "-----END CERTIFICATE-----"
    der = ssl.PEM_cert_to_DER_cert(pem[: pem.index(end) + len(end)])
    return base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()


async def test_a_token_is_bound_to_the_certificate_that_its_session_was_paged_with(secured: Secured) -> None:
    own, other = secured.certificate("one"), secured.certificate("two")
    status, session = await secured.over_tls(
        "POST", f"{BASE}/sessions", {"intent": INTENT}, shown=own, key="the same page"
    )
    assert status == 201, session
    assert bound_to(session["aist"]) == thumbprint(own)
    assert [await secured.served(session["aist"], shown) for shown in (own, None, other, own)] == [200, 401, 401, 200]

    path = f"{BASE}/sessions/{session['sessionId']}/extend"
    status, extended = await secured.over_tls("POST", path, {"additionalDurationS": 60}, shown=other)
    assert status == 200, extended
    assert bound_to(extended["aist"]) == thumbprint(own), "an extension is no way around it"

    secured.kill(CONTROLLER)
    await secured.start_controller()
    await secured.until_ready()
    status, again = await secured.over_tls(
        "POST", f"{BASE}/sessions", {"intent": INTENT}, shown=other, key="the same page"
    )
    assert (status, again["sessionId"]) == (201, session["sessionId"])
    assert bound_to(again["aist"]) == thumbprint(own), "nor is a repetition, after a restart"
    assert [await secured.served(again["aist"], shown) for shown in (own, other)] == [200, 401]
    secured.verified()
    await secured.end(session)


async def test_the_python_client_shows_its_certificate_to_both(secured: Secured) -> None:
    openai = pytest.importorskip("openai")
    own = secured.certificate("one")
    trusted = secured.data_dir / "ca" / "ca.pem"
    url = f"https://{HOST}:{secured.ports.northbound}"
    async with AsyncClient(
        url, credential=secured.secrets["user"], ca=trusted, certificate=(own / "cert.pem", own / "key.pem")
    ) as client:
        session = await client.page(
            task="embeddings", place="access", delay_ms=400, epsilon=0.001, rate_per_second=5, burst=64, duration_s=600
        )
        token = await session.token()
        assert bound_to(token) == thumbprint(own)
        models = await session.openai().get("/models", cast_to=object)
        assert models == {"upstream": session.document.anchor_id}
        bare = openai.AsyncOpenAI(
            base_url=f"{session.gateway_url}/v1",
            api_key=token,
            http_client=openai.DefaultAsyncHttpxClient(verify=secured.trusting(None)),
        )
        with pytest.raises(openai.AuthenticationError, match="bound to the client certificate"):
            await bare.get("/models", cast_to=object)
        await session.end()


async def test_a_client_that_shows_none_gets_a_token_that_is_bound_to_nothing(secured: Secured) -> None:
    session = await secured.page()
    assert bound_to(session["aist"]) is None
    assert [await secured.served(session["aist"], shown) for shown in (None, secured.certificate("one"))] == [200, 200]
    await secured.end(session)


async def test_a_certificate_that_nobody_vouches_for_is_refused_by_the_api(secured: Secured) -> None:
    stranger = secured.enrol("anchor", "stranger", authority=secured.folder / "strangers")
    with pytest.raises((httpx.TransportError, ssl.SSLError)):  # by when the alert comes
        await secured.over_tls("POST", f"{BASE}/sessions", {"intent": INTENT}, shown=stranger)

"""The authorization server over the real engine: who gets a token, what it opens, and how it is taken back."""

import asyncio
import json
import secrets
import threading
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests.adapters.northbound.conftest import INTENT, ISSUER, SECRETS, SETTINGS, Rig

from aipaging.adapters.northbound.credentials import ClientCredential, StaticCredentials
from aipaging.adapters.northbound.oauth.access import Access
from aipaging.adapters.northbound.oauth.clients import ASSERTION_ALGORITHMS, Clients, RegisteredClient
from aipaging.adapters.northbound.oauth.doorkeeper import Doorkeeper
from aipaging.adapters.northbound.oauth.endpoints import audiences_of
from aipaging.adapters.northbound.oauth.entitlement import Entitlement
from aipaging.adapters.northbound.oauth.failures import FAILURES_MAX, WINDOW_S
from aipaging.adapters.northbound.oauth.foreign import IssuerPlan, JwksIssuer
from aipaging.adapters.northbound.oauth.issuer import ASSERTION_TYPE, Issuer
from aipaging.adapters.northbound.oauth.public_keys import keys_of
from aipaging.adapters.northbound.oauth.revocations import TOKENS_OF_CLIENT_MAX, Revocations
from aipaging.adapters.northbound.rate_limits import OPERATOR_READS
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.rotation import RotatingVerifier, TokenKeyRing
from aipaging.adapters.signing.tokens import JwtSigner
from aipaging.core.anchor.catalogue import AnchorState
from aipaging.core.foundation.errors import RefusedError, UnavailableError
from aipaging.core.foundation.names import AnchorId, ClientId, TenantId
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import ACCESS_AUDIENCE, AccessClaims
from aipaging.core.paging import commands as c
from aipaging.core.paging.settings import ChangeSettings
from aipaging.runtime.http.rates import RateLimit
from aipaging.runtime.tokens import SessionTokens

TOKEN_S = 300
AHEAD_US = 660 * SECOND
KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


@dataclass
class Server:
    rig: Rig
    ring: TokenKeyRing
    signer: JwtSigner
    path: Path
    doorkeeper: Doorkeeper
    access: Access

    def client(self, token: str | None = None) -> httpx.AsyncClient:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.rig.app), base_url="http://test", headers=headers
        )

    async def post(self, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
        async with self.client() as client:
            return await client.post(path, data=form, headers=headers)

    async def reads(self, token: str) -> int:
        async with self.client(token) as client:
            return (await client.post("/ai-paging/v0.1/retrieve-sessions", json={})).status_code

    async def token(self, name: str = "app-one", **form: str) -> str:
        answer = await self.post(
            "/oauth2/token",
            {"grant_type": "client_credentials", "client_id": name, "client_secret": SECRETS[name][0], **form},
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def page(self, token: str, **changes: Any) -> httpx.Response:
        async with self.client(token) as client:
            return await client.post("/ai-paging/v0.1/sessions", json={"intent": INTENT | changes})

    def signed(self, key: Any = KEY, algorithm: str = "ES256", **changes: Any) -> str:
        now_s = self.rig.clock.now().wall_us // SECOND
        claims: dict[str, Any] = {
            "iss": "app-keys",
            "sub": "app-keys",
            "aud": ISSUER,
            "iat": now_s,
            "exp": now_s + 60,
            "jti": secrets.token_urlsafe(8),
            **changes,
        }
        return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)

    async def asserted(self, assertion: str, **form: str) -> httpx.Response:
        return await self.post(
            "/oauth2/token",
            {
                "grant_type": "client_credentials",
                "client_assertion_type": ASSERTION_TYPE,
                "client_assertion": assertion,
                **form,
            },
        )


def opened(rig: Rig, path: Path, *, static: bool = True) -> Server:
    def wall() -> WallUs:
        return rig.clock.now().wall_us

    ring = TokenKeyRing(KeyStore.open(path / "keys"), wall, ahead_us=AHEAD_US)
    signer, verifier = JwtSigner(ring, ISSUER), RotatingVerifier(ring, ISSUER, wall)
    revocations = Revocations(path / "oauth" / "revocations.json", wall)
    registered = [
        RegisteredClient.of_role(ClientId(name), TenantId(tenant), role, secret_sha256=sha256(secret.encode()).digest())
        for name, (secret, tenant, role) in SECRETS.items()
    ]
    keys = keys_of(public_pem(KEY), allowed=ASSERTION_ALGORITHMS) + keys_of(
        public_pem(ED_KEY), allowed=ASSERTION_ALGORITHMS
    )
    registered.append(RegisteredClient.of_role(ClientId("app-keys"), TenantId("tenant-keys"), "client", keys=keys))
    clients = Clients(registered, audiences=audiences_of(ISSUER, rig.service.public_url), clock=wall)
    credentials = [
        ClientCredential(
            client_id=ClientId(name),
            tenant=TenantId(tenant),
            role=role,
            secret_sha256=sha256(secret.encode()).hexdigest(),
        )
        for name, (secret, tenant, role) in SECRETS.items()
    ]
    doorkeeper = Doorkeeper(
        clients, verifier, revocations, static=StaticCredentials(credentials) if static else None, clock=wall
    )
    access = Access(
        issuer=Issuer(clients, signer, verifier, revocations, clock=wall, token_s=TOKEN_S),
        clients=clients,
        revocations=revocations,
        entitlement=Entitlement(rig.engine, revocations, configured=[each.client for each in registered]),
        keys=ring,
        clock=wall,
    )
    rig.service = replace(
        rig.service,
        authenticator=doorkeeper,
        access=access,
        tokens=SessionTokens(signer),
        jwks=ring.jwks,
    )
    rig.app = rig.rebuilt()
    return Server(rig=rig, ring=ring, signer=signer, path=path, doorkeeper=doorkeeper, access=access)


@pytest.fixture
async def server(rig: Rig, tmp_path: Path) -> Server:
    server = opened(rig, tmp_path)
    await server.access.entitlement.begin()
    return server


async def beat(rig: Rig) -> None:
    for anchor in ("a", "b"):
        await rig.engine.submit(c.Heartbeat(anchor=AnchorId(anchor), state=AnchorState.READY))


def basic(name: str, secret: str) -> str:
    return f"Basic {b64encode(f'{name}:{secret}'.encode()).decode()}"


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]


# -- getting a token


async def test_a_secret_in_the_header_or_in_the_form_gets_a_token_of_rfc_9068(server: Server) -> None:
    grant = {"grant_type": "client_credentials"}
    secret = SECRETS["app-one"][0]
    for form, header in (
        (grant, {"authorization": basic("app-one", secret)}),
        (grant | {"client_id": "app-one", "client_secret": secret}, {}),
    ):
        answer = await server.post("/oauth2/token", form, **header)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        document = answer.json()
        assert (document["token_type"], document["expires_in"]) == ("Bearer", TOKEN_S)
        head = jwt.get_unverified_header(document["access_token"])
        assert (head["typ"], head["alg"], head["kid"]) == ("at+jwt", "ES256", server.ring.signing_key.kid)
        claims = jwt.decode(document["access_token"], options={"verify_signature": False})
        assert (claims["iss"], claims["aud"]) == (ISSUER, ACCESS_AUDIENCE)
        assert claims["sub"] == claims["client_id"] == "app-one"
        assert 0 < claims["exp"] - claims["iat"] <= TOKEN_S + 1
        assert claims["scope"] == document["scope"]
        assert (await server.page(document["access_token"])).status_code == 201


@pytest.mark.parametrize(("key", "algorithm"), [(KEY, "ES256"), (ED_KEY, "EdDSA")])
async def test_a_signed_assertion_gets_a_token_once(server: Server, key: Any, algorithm: str) -> None:
    assertion = server.signed(key, algorithm)
    answer = await server.asserted(assertion)
    assert answer.status_code == 200
    assert (await server.page(answer.json()["access_token"])).status_code == 201
    assert error(await server.asserted(assertion)) == (401, "invalid_client")


def forged(server: Server) -> Iterator[tuple[str, str]]:
    now_s = server.rig.clock.now().wall_us // SECOND
    public = public_pem(KEY)
    yield "another key", server.signed(ec.generate_private_key(ec.SECP256R1()))
    yield "another audience", server.signed(aud="https://elsewhere.example")
    yield "an audience too many", server.signed(aud=[ISSUER, "https://elsewhere.example"])
    yield "expired", server.signed(iat=now_s - 120, exp=now_s - 60)
    yield "never expires", server.signed(exp=None)
    yield "too long", server.signed(exp=now_s + 3_600)
    yield "from the future", server.signed(iat=now_s + 200, exp=now_s + 250)
    yield "before the start", server.signed(iat=now_s - 100, exp=now_s + 60)
    yield "no id", server.signed(jti=None)
    yield "a long id", server.signed(jti="x" * 300)
    yield "another's name", server.signed(iss="app-one")
    yield "for another client", server.signed(iss="app-one", sub="app-one")
    yield "nobody", server.signed(iss="nobody", sub="nobody")
    yield "half a second", server.signed(exp=now_s + 60.5)
    yield "no algorithm", f"{encoded({'alg': 'none'})}.{encoded({'iss': 'app-keys', 'sub': 'app-keys'})}."
    yield "the public key as a secret", hmac_signed(public, {"iss": "app-keys", "sub": "app-keys", "aud": ISSUER})
    yield "no JWT", "a.b.c"
    yield "cut", server.signed()[:-4]


def encoded(document: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def hmac_signed(key: bytes, claims: dict[str, Any]) -> str:
    import hmac

    body = f"{encoded({'alg': 'HS256', 'typ': 'at+jwt'})}.{encoded(claims)}"
    return f"{body}.{urlsafe_b64encode(hmac.digest(key, body.encode(), 'sha256')).rstrip(b'=').decode()}"


async def test_an_assertion_that_proves_nothing_gets_nothing(server: Server) -> None:
    for number, (what, assertion) in enumerate(forged(server)):
        if number % 10 == 0:
            server.rig.clock.passed_us += (WINDOW_S + 1) * SECOND
        presented = dict(forged(server))[what] if number % 10 == 0 else assertion
        answer = await server.asserted(presented)
        assert error(answer) == (401, "invalid_client"), what
        assert presented not in answer.text


@pytest.mark.parametrize(
    ("form", "headers", "expected"),
    [
        ({"scope": "x"}, {}, (400, "invalid_request")),
        ({"grant_type": "password"}, {}, (400, "unsupported_grant_type")),
        ({"grant_type": "client_credentials"}, {}, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, {"authorization": basic("app-one", "wrong")}, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, {"authorization": basic("nobody", "x")}, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, {"authorization": "Basic ***"}, (401, "invalid_client")),
        ({"grant_type": "client_credentials"}, {"authorization": basic("app-keys", "")}, (401, "invalid_client")),
        (
            {"grant_type": "client_credentials", "client_id": "app-two"},
            {"authorization": basic("app-one", SECRETS["app-one"][0])},
            (400, "invalid_request"),
        ),
        (
            {"grant_type": "client_credentials", "client_secret": "x"},
            {"authorization": basic("app-one", SECRETS["app-one"][0])},
            (400, "invalid_request"),
        ),
        (
            {"grant_type": "client_credentials", "scope": "ai-paging:anchors:create"},
            {"authorization": basic("app-one", SECRETS["app-one"][0])},
            (400, "invalid_scope"),
        ),
    ],
)
async def test_what_is_no_request_is_refused_in_the_words_of_oauth(
    server: Server, form: dict[str, str], headers: dict[str, str], expected: tuple[int, str]
) -> None:
    answer = await server.post("/oauth2/token", form, **headers)
    assert error(answer) == expected
    assert {"error_description", "code", "message", "status"} <= answer.json().keys()
    if expected[0] == 401:
        assert answer.headers["www-authenticate"].startswith("Basic")


async def test_a_field_twice_or_another_body_is_refused(server: Server) -> None:
    async with server.client() as client:
        twice = await client.post(
            "/oauth2/token",
            content="grant_type=client_credentials&grant_type=client_credentials",
            headers={"content-type": "application/x-www-form-urlencoded"},
        )
        as_json = await client.post("/oauth2/token", json={"grant_type": "client_credentials"})
        large = await client.post("/oauth2/token", data={"client_assertion": "x" * 20_000})
    assert error(twice) == (400, "invalid_request")
    assert (as_json.status_code, large.status_code) == (415, 413)


# -- using it


async def test_a_token_opens_what_it_says_and_no_more(server: Server) -> None:
    token = await server.token(scope="ai-paging:sessions:read")
    refused = await server.page(token)
    assert (refused.status_code, refused.json()["code"]) == (403, "PERMISSION_DENIED")
    assert refused.headers["www-authenticate"] == (
        'Bearer realm="aipaging", error="insufficient_scope", scope="ai-paging:sessions:create"'
    )
    async with server.client(token) as client:
        assert (await client.post("/ai-paging/v0.1/retrieve-sessions", json={})).status_code == 200
        assert (await client.get("/ai-paging/v0.1/clients")).status_code == 403


async def test_a_client_sees_and_touches_only_its_own_sessions(server: Server) -> None:
    mine = (await server.page(await server.token())).json()["sessionId"]
    async with server.client(await server.token("app-two")) as other:
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/extend"), ("POST", "/relocate")):
            document = {"additionalDurationS": 60} if path == "/extend" else {}
            answer = await other.request(method, f"/ai-paging/v0.1/sessions/{mine}{path}", json=document)
            assert answer.status_code in {403, 404}, (method, path)
    async with server.client(await server.token("noc")) as noc:
        assert (await noc.get(f"/ai-paging/v0.1/sessions/{mine}")).status_code == 200


def token_of(server: Server, head: dict[str, Any] | None = None, **changes: Any) -> str:
    now_s = server.rig.clock.now().wall_us // SECOND
    claims = {
        "iss": ISSUER,
        "sub": "app-one",
        "client_id": "app-one",
        "aud": ACCESS_AUDIENCE,
        "iat": now_s,
        "exp": now_s + 60,
        "jti": "1",
        "scope": "ai-paging:sessions:create",
        **changes,
    }
    key = server.ring.signing_key
    return jwt.encode(claims, key.private, "ES256", headers={"typ": "at+jwt", "kid": key.kid, **(head or {})})


async def test_every_door_is_shut(server: Server) -> None:
    now_s = server.rig.clock.now().wall_us // SECOND
    kid = server.ring.signing_key.kid
    public = public_pem(server.ring.signing_key.private)
    session = (await server.page(await server.token())).json()
    body = {"iss": ISSUER, "sub": "app-one", "client_id": "app-one", "aud": ACCESS_AUDIENCE, "exp": now_s + 60}
    body |= {"iat": now_s, "jti": "1", "scope": "ai-paging:sessions:create"}
    doors = {
        "alg none": f"{encoded({'alg': 'none', 'typ': 'at+jwt', 'kid': kid})}.{encoded(body)}.",
        "key confusion": hmac_signed(public, body),
        "wrong audience": token_of(server, aud="aipaging-gateway"),
        "audience list": token_of(server, aud=[ACCESS_AUDIENCE]),
        "wrong issuer": token_of(server, iss="https://elsewhere.example"),
        "wrong type": token_of(server, {"typ": "JWT"}),
        "a receipt's type": token_of(server, {"typ": "ai-commit+jwt"}),
        "expired": token_of(server, exp=now_s - 1),
        "unknown key": token_of(server, {"kid": "x"}),
        "crit": token_of(server, {"crit": ["b64"], "b64": True}),
        "unknown client": token_of(server, sub="nobody", client_id="nobody"),
        "two clients": token_of(server, client_id="noc"),
        "the session's own token": session["aist"],
        "cut": token_of(server)[:-3],
        "foreign signature": token_of(server).rpartition(".")[0] + "." + "A" * 86,
    }
    assert (await server.page(token_of(server))).status_code == 201
    for what, token in doors.items():
        answer = await server.page(token)
        assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHENTICATED"), what
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


async def test_a_token_ends_on_time_also_when_it_is_remembered(server: Server) -> None:
    token = await server.token()
    assert (await server.page(token)).status_code == 201
    server.rig.clock.passed_us += (TOKEN_S + 1) * SECOND
    assert (await server.page(token)).status_code == 401


async def test_an_access_token_opens_no_gateway_and_a_session_token_no_interface(server: Server) -> None:
    token = await server.token()
    with pytest.raises(Exception, match="audience"):
        server.rig.verifier.verify_aist(token)


async def test_static_secrets_can_be_switched_off(rig: Rig, tmp_path: Path) -> None:
    server = opened(rig, tmp_path, static=False)
    await server.access.entitlement.begin()
    assert (await server.page(SECRETS["app-one"][0])).status_code == 401
    assert (await server.page(await server.token())).status_code == 201


async def test_who_fails_too_often_waits_and_nobody_else_does(server: Server) -> None:
    wrong = {"grant_type": "client_credentials", "client_id": "app-one", "client_secret": "wrong"}
    statuses = [(await server.post("/oauth2/token", wrong)).status_code for _ in range(FAILURES_MAX + 1)]
    assert statuses == [401] * FAILURES_MAX + [429]
    last = await server.post("/oauth2/token", wrong)
    assert 0 < int(last.headers["retry-after"]) <= WINDOW_S
    await server.token()  # a right secret always passes
    server.rig.clock.passed_us += (WINDOW_S + 1) * SECOND
    assert (await server.post("/oauth2/token", wrong)).status_code == 401
    bearer = [(await server.page("wrong")) for _ in range(FAILURES_MAX + 1)]
    assert [answer.status_code for answer in bearer] == [401] * FAILURES_MAX + [429]
    assert int(bearer[-1].headers["retry-after"]) > 0


# -- taking it back


async def test_a_revoked_token_is_refused_at_once_and_after_a_restart(server: Server) -> None:
    token, other = await server.token(), await server.token()
    assert (await server.page(token)).status_code == 201
    proof = {"client_id": "app-one", "client_secret": SECRETS["app-one"][0]}
    assert (await server.post("/oauth2/revoke", proof | {"token": token})).status_code == 200
    assert (await server.post("/oauth2/revoke", proof | {"token": token})).status_code == 200
    assert (await server.post("/oauth2/revoke", proof | {"token": "nonsense"})).status_code == 200
    again = opened(server.rig, server.path)
    for each in (server, again):
        assert (await each.page(token)).status_code == 401
        assert (await each.page(other)).status_code == 201
    kept = (server.path / "oauth" / "revocations.json").read_text()
    assert token not in kept


async def test_nobody_takes_back_or_looks_into_what_is_another_s(server: Server) -> None:
    token = await server.token("app-two")
    proof = {"client_id": "app-one", "client_secret": SECRETS["app-one"][0], "token": token}
    assert error(await server.post("/oauth2/revoke", proof)) == (400, "unauthorized_client")
    assert error(await server.post("/oauth2/revoke", {"token": token})) == (401, "invalid_client")
    assert error(await server.post("/oauth2/introspect", {"token": token})) == (401, "invalid_client")
    assert (await server.post("/oauth2/introspect", proof)).json() == {"active": False}
    assert (await server.page(token)).status_code == 201
    mine = await server.post("/oauth2/introspect", proof | {"token": await server.token()})
    assert (mine.json()["active"], mine.json()["client_id"]) == (True, "app-one")
    noc = await server.post("/oauth2/introspect", {"token": token}, authorization=f"Bearer {await server.token('noc')}")
    assert (noc.json()["active"], noc.json()["client_id"]) == (True, "app-two")
    spy = await server.post("/oauth2/introspect", {"token": token}, authorization=f"Bearer {await server.token()}")
    assert spy.json() == {"active": False}


async def test_a_client_that_revokes_without_end_fills_nothing(tmp_path: Path) -> None:
    revocations = Revocations(tmp_path / "r.json", lambda: WallUs(5 * SECOND))

    def claims(number: int, issued_us: int = SECOND) -> AccessClaims:
        return AccessClaims(
            client=ClientId("app"),
            scopes=frozenset(),
            token_id=str(number),
            issued_us=WallUs(issued_us),
            expires_us=WallUs(300 * SECOND),
        )

    for number in range(TOKENS_OF_CLIENT_MAX * 3):
        await revocations.take_back_token(claims(number))
    assert all(revocations.covers(claims(number)) for number in range(TOKENS_OF_CLIENT_MAX * 3))
    assert not revocations.covers(claims(10_000, issued_us=6 * SECOND))
    assert (tmp_path / "r.json").stat().st_size < 8_192


async def test_a_client_that_is_shut_out_loses_tokens_and_sessions_until_it_is_reinstated(server: Server) -> None:
    token = await server.token()
    session = (await server.page(token)).json()["sessionId"]
    async with server.client(await server.token("noc")) as noc:
        answer = await noc.post("/ai-paging/v0.1/clients/app-one/shut-out")
        assert (answer.status_code, answer.json()) == (200, {"clientId": "app-one", "sessionsEnded": 1})
        ended = (await noc.get(f"/ai-paging/v0.1/sessions/{session}")).json()
        assert (ended["status"], ended["statusInfo"]) == ("UNAVAILABLE", "NETWORK_TERMINATED")
        assert (await server.page(token)).status_code == 401
        assert (await server.page(SECRETS["app-one"][0])).status_code == 401
        form = {"grant_type": "client_credentials", "client_id": "app-one", "client_secret": SECRETS["app-one"][0]}
        assert error(await server.post("/oauth2/token", form)) == (401, "invalid_client")
        assert opened(server.rig, server.path).access.revocations.covers_client("app-one")
        listed = (await noc.get("/ai-paging/v0.1/clients")).json()
        assert listed["shutOut"] == ["app-one"]
        assert (await noc.post("/ai-paging/v0.1/clients/noc/shut-out")).status_code == 409
        assert (await noc.post("/ai-paging/v0.1/clients/nobody/shut-out")).status_code == 404


async def test_a_reinstated_client_comes_back_with_new_tokens_only(server: Server) -> None:
    token = await server.token()
    async with server.client(await server.token("noc")) as noc:
        await noc.post("/ai-paging/v0.1/clients/app-one/shut-out")
        assert (await noc.post("/ai-paging/v0.1/clients/app-one/reinstate")).status_code == 204
    assert (await server.page(token)).status_code == 401
    assert (await server.page(await server.token())).status_code == 201


# -- keys


async def test_a_reinstated_client_of_another_issuer_comes_back_with_new_tokens_only(server: Server) -> None:
    clock, revocations = server.rig.clock, server.access.revocations

    def wall() -> WallUs:
        return clock.now().wall_us

    async def published() -> bytes:
        return public_pem(KEY)

    plan = IssuerPlan(
        name="idp",
        issuer="https://idp.example",
        audience=ACCESS_AUDIENCE,
        algorithms=frozenset({"ES256"}),
        tenant="tenant-one",
        grants={"ai-user": frozenset({"client"})},
    )
    idp = JwksIssuer(plan, published, wall, server.access.entitlement.came)
    tokens = RotatingVerifier(server.ring, ISSUER, wall)
    doorkeeper = Doorkeeper(server.access.clients, tokens, revocations, static=None, foreign=[idp], clock=wall)

    def issued(**changes: Any) -> str:
        now_s = wall() // SECOND
        claims = {"iss": plan.issuer, "aud": plan.audience, "client_id": "app", "scope": "ai-user", "iat": now_s}
        claims |= {"exp": now_s + 3_600} | changes
        said = {name: value for name, value in claims.items() if value is not None}
        return f"Bearer {jwt.encode(said, KEY, 'ES256', {'typ': 'at+jwt'})}"

    used, unused, undated = issued(), issued(jti="kept-for-later"), issued(iat=None)
    assert (await doorkeeper.caller(used)).client == "idp.app"
    assert (await doorkeeper.caller(undated)).client == "idp.app"
    assert await server.access.entitlement.shut_out(ClientId("idp.app")) == 0
    for out in (used, unused, issued()):
        with pytest.raises(RefusedError, match="shut out by the operator"):
            await doorkeeper.caller(out)
    clock.passed_us += 2 * SECOND
    await server.access.entitlement.reinstate(ClientId("idp.app"))
    for old in (used, unused, undated):
        with pytest.raises(RefusedError) as refused:
            await doorkeeper.caller(old)
        assert refused.value.code == "UNAUTHENTICATED"
    assert (await doorkeeper.caller(issued())).client == "idp.app"
    for odd in (float("nan"), float("inf")):
        with pytest.raises(RefusedError):
            await doorkeeper.caller(issued(iat=odd))


async def test_keys_rotate_under_live_sessions_and_nobody_is_refused(server: Server) -> None:
    token = await server.token()
    session = (await server.page(token)).json()
    aist = session["aist"]
    first = server.ring.signing_key.kid
    async with server.client(await server.token("noc")) as noc:
        server.rig.clock.passed_us += AHEAD_US + SECOND  # the first key has been known for long
        rotated = await noc.post(
            "/ai-paging/v0.1/keys/rotate", headers={"authorization": f"Bearer {SECRETS['noc'][0]}"}
        )
        assert rotated.status_code == 201
        noc.headers["authorization"] = f"Bearer {SECRETS['noc'][0]}"
        assert [key["signs"] for key in rotated.json()["keys"]] == [True, False]
        assert (await noc.post("/ai-paging/v0.1/keys/rotate")).status_code == 409, "one at a time"
        published = (await noc.get("/.well-known/jwks.json")).json()["keys"]
        assert len(published) == 2
        assert server.ring.signing_key.kid == first
        server.rig.clock.passed_us += AHEAD_US
        assert server.ring.signing_key.kid != first
        verifier = RotatingVerifier(server.ring, ISSUER, lambda: server.rig.clock.now().wall_us)
        assert await server.reads(await server.token()) == 200
        assert verifier.verify_commit(session["commit"]["receipt"])
        await beat(server.rig)
        assert (await server.page(await server.token(), durationS=SETTINGS.duration_s_max)).status_code == 201
        await server.rig.engine.submit(ChangeSettings(settings=replace(SETTINGS, duration_s_max=1)))
        server.rig.clock.passed_us += (
            2 * SECOND
        )  # longer than a session may last now, shorter than this one was promised
        early = await noc.post(f"/ai-paging/v0.1/keys/{first}/retire")
        assert (early.status_code, early.json()["code"]) == (409, "INCOMPATIBLE_STATE")
        forced = await noc.post(f"/ai-paging/v0.1/keys/{first}/retire", json={"force": True})
        assert (forced.status_code, len(forced.json()["keys"])) == (200, 1)
        only = forced.json()["keys"][0]["keyId"]
        assert (await noc.post(f"/ai-paging/v0.1/keys/{only}/retire", json={"force": True})).status_code == 409
        with pytest.raises(Exception, match="key"):
            verifier.verify_aist(aist)


async def test_a_retired_key_takes_remembered_tokens_with_it(server: Server) -> None:
    server.rig.clock.passed_us += AHEAD_US + SECOND
    token = await server.token()
    assert await server.reads(token) == 200
    first = server.ring.signing_key.kid
    server.ring.rotate()
    server.ring.retire(first, needed_us=0, force=True)
    assert await server.reads(token) == 401


# -- describing itself, and leaving evidence


async def test_the_metadata_names_what_answers(server: Server) -> None:
    async with server.client() as client:
        metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
        for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
            path = metadata[name].removeprefix("https://control.example")
            assert (await client.post(path, data={"token": "x"})).status_code in {400, 401}, name
        described = (await client.get("/openapi.json")).json()
    assert metadata["issuer"] == ISSUER
    assert metadata["token_endpoint_auth_signing_alg_values_supported"] == ["ES256", "EdDSA"]
    body = described["paths"]["/oauth2/token"]["post"]["requestBody"]["content"]
    assert list(body) == ["application/x-www-form-urlencoded"]


async def test_the_metadata_says_how_clients_prove_themselves_and_nothing_else(server: Server) -> None:
    async with server.client() as client:
        metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    grant, secret = {"grant_type": "client_credentials"}, SECRETS["app-one"][0]
    posted = {"client_id": "app-one", "client_secret": secret}
    asserted = {"client_assertion_type": ASSERTION_TYPE}
    proofs: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "client_secret_basic": ({}, {"authorization": basic("app-one", secret)}),
        "client_secret_post": (posted, {}),
        "private_key_jwt": (asserted | {"client_assertion": server.signed()}, {}),
        "tls_client_auth": ({"client_id": "app-one"}, {}),
        "none": ({"client_id": "app-one"}, {}),
    }
    named = set(metadata["token_endpoint_auth_methods_supported"])
    for method, (form, header) in proofs.items():
        answer = await server.post("/oauth2/token", grant | form, **header)
        assert (answer.status_code == 200) == (method in named), method
    assert named <= proofs.keys()
    for endpoint in ("revocation", "introspection"):
        assert set(metadata[f"{endpoint}_endpoint_auth_methods_supported"]) - {"Bearer"} == named
        algorithms = metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
        assert algorithms == metadata["token_endpoint_auth_signing_alg_values_supported"]
        assert algorithms == ["ES256", "EdDSA"], "RFC 8414: required beside private_key_jwt"
    for algorithm, key in (("ES256", KEY), ("EdDSA", ED_KEY)):
        proof = asserted | {"client_assertion": server.signed(key, algorithm)}
        assert (await server.post("/oauth2/token", grant | proof)).status_code == 200
        assert (await server.post("/oauth2/revoke", {"token": "x"} | proof)).status_code == 401, "each is good once"
    assert "tls_client_certificate_bound_access_tokens" not in metadata, "access tokens are bearer tokens"
    everything = {"scope": " ".join(metadata["scopes_supported"])}
    asked = await server.post("/oauth2/token", grant | posted | everything)
    assert asked.json()["error"] == "invalid_scope", "all scopes are those of operators"
    operator = {"client_id": "noc", "client_secret": SECRETS["noc"][0]}
    everything = await server.post(
        "/oauth2/token", grant | operator | {"scope": " ".join(metadata["scopes_supported"])}
    )
    assert sorted(everything.json()["scope"].split()) == metadata["scopes_supported"]


async def test_what_an_operator_does_or_tries_is_evidence_and_holds_no_secret(server: Server) -> None:
    secret = SECRETS["noc"][0]
    async with server.client(secret) as noc:
        await noc.get("/ai-paging/v0.1/clients", headers={"x-correlator": "case-6"})
        await noc.get("/metrics")
        await noc.post("/ai-paging/v0.1/anchors/nowhere/drain", headers={"x-correlator": "case-7"})
        await noc.post("/ai-paging/v0.1/clients/app-two/shut-out", headers={"x-correlator": "case-8"})
    await server.page(await server.token())
    records = [json.loads(entry.record) for entry in server.rig.journal.read(0)]
    acted = [each for each in records if each["type"] == "OPERATOR_ACTION"]
    assert [(each["client"], each["operation"], each["status"], each["correlator"]) for each in acted] == [
        ("noc", "getClients", 200, "case-6"),
        ("noc", "drainAnchor", 404, "case-7"),
        ("noc", "shutClientOut", 200, "case-8"),
    ]
    assert secret not in json.dumps(records)
    assert secret not in repr(server.doorkeeper)


async def test_what_an_operator_may_not_do_is_evidence_and_what_a_client_may_not_is_none(server: Server) -> None:
    narrow = await server.token("noc", scope="ai-paging:anchors:read")
    for token in (narrow, await server.token("app-one")):
        async with server.client(token) as client:
            kill = {"kind": "ALL", "reason": "to see what happens"}
            refused = await client.post("/ai-paging/v0.1/switches/kill", json=kill, headers={"x-correlator": "case-9"})
            assert (refused.status_code, refused.json()["code"]) == (403, "PERMISSION_DENIED")
            read = await client.get("/ai-paging/v0.1/policies", headers={"x-correlator": "case-10"})
            assert read.status_code == 403
    await server.page(await server.token())
    records = [json.loads(entry.record) for entry in server.rig.journal.read(0)]
    assert [
        (each["client"], each["operation"], each["status"], each["correlator"])
        for each in records
        if each["type"] == "OPERATOR_ACTION"
    ] == [("noc", "kill", 403, "case-9"), ("noc", "getPolicies", 403, "case-10")]


async def test_an_operator_reads_while_nothing_can_be_recorded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    gone, hung = UnavailableError("the disk is gone", code="JOURNAL_IO"), threading.Event()

    def append(*_: object, **__: object) -> None:
        hung.wait(30.0)
        raise gone

    monkeypatch.setattr(server.rig.journal, "append", append)
    async with server.client(SECRETS["noc"][0]) as noc:
        for _ in range(3):
            assert (await noc.get("/ai-paging/v0.1/anchors")).status_code == 200, "the journal hangs"
        hung.set()
        while server.rig.engine.healthy:
            await asyncio.sleep(0)
        assert (await noc.get("/ai-paging/v0.1/anchors")).status_code == 200, "the journal failed"


async def test_tokens_count_as_requests_of_their_client_and_not_of_operators(server: Server) -> None:
    server.rig.service.rates.limit = RateLimit(per_second=0.001, burst=3)
    form = {"grant_type": "client_credentials", "client_id": "app-one", "client_secret": SECRETS["app-one"][0]}
    answers = [await server.post("/oauth2/token", form) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert answers[-1].json()["error"] == "temporarily_unavailable"
    assert int(answers[-1].headers["retry-after"]) > 1
    assert await server.reads(answers[0].json()["access_token"]) == 429, "of the same requests"
    await server.token("app-two")
    for _ in range(4):
        await server.token("noc")


def actions_of(server: Server) -> list[tuple[str, str, int]]:
    records = [json.loads(entry.record) for entry in server.rig.journal.read(0)]
    acted = [each for each in records if each["type"] == "OPERATOR_ACTION"]
    return [(each["client"], each["operation"], each["status"]) for each in acted]


async def test_what_an_operator_reads_too_often_leaves_one_record_and_holds_up_no_kill_switch(server: Server) -> None:
    server.rig.service.operator_rates.reads.limit = RateLimit(per_second=0.001, burst=3)
    narrow = await server.token("noc", scope="ai-paging:anchors:read ai-paging:metrics:read")
    kill = {"kind": "TENANT", "name": "tenant-one", "reason": "its credentials leaked"}
    base = "/ai-paging/v0.1"
    async with server.client(SECRETS["noc"][0]) as noc, server.client(narrow) as reading:
        assert (await noc.get(f"{base}/anchors")).status_code == 200
        assert (await noc.post(f"{base}/intents/resolve", json={"intent": INTENT})).status_code == 200
        assert (await reading.post(f"{base}/switches/kill", json=kill)).status_code == 403, (
            "it is recorded, so it counts"
        )
        for request in (
            noc.get(f"{base}/anchors"),
            reading.post(f"{base}/switches/kill", json=kill),
            server.post("/oauth2/introspect", {"token": narrow}, authorization=f"Bearer {SECRETS['noc'][0]}"),
        ):
            answer = await request
            assert answer.status_code == 429, answer.text
            assert int(answer.headers["retry-after"]) > 1
        for _ in range(5):
            for path in ("/metrics", "/healthz", "/readyz"):
                assert (await reading.get(path)).status_code == 200, path
        for _ in range(5):
            assert (await noc.post(f"{base}/switches/kill", json=kill)).status_code < 500
        assert (await noc.get(f"{base}/switches")).status_code == 429
    await server.token("app-one")
    await server.page(await server.token("app-two"))
    actions = actions_of(server)
    assert actions[:3] == [("noc", "getAnchors", 200), ("noc", "resolveIntent", 200), ("noc", "kill", 403)]
    assert actions[3] == ("noc", "getAnchors", 429), "the first that was refused, and no other in this minute"
    assert [operation for _, operation, _ in actions[4:]] == ["kill"] * 5


async def test_an_operator_reads_as_often_as_a_console_does_without_a_setting(server: Server) -> None:
    limit = server.rig.service.operator_rates.reads.limit
    assert limit == OPERATOR_READS
    async with server.client(SECRETS["noc"][0]) as noc:
        answers = [(await noc.get("/ai-paging/v0.1/switches")).status_code for _ in range(100)]
    assert answers == [200] * 100


async def test_who_looks_into_tokens_as_an_operator_is_on_record_however_it_proves_itself(server: Server) -> None:
    token, secret = await server.token("app-two"), SECRETS["noc"][0]
    form = {"client_id": "noc", "client_secret": secret, "token": token}
    for explained in (
        await server.post("/oauth2/introspect", {"token": token}, authorization=f"Bearer {secret}"),
        await server.post("/oauth2/introspect", {"token": token}, authorization=basic("noc", secret)),
        await server.post("/oauth2/introspect", form),
    ):
        assert (explained.json()["active"], explained.json().get("client_id")) == (True, "app-two")
    await server.post("/oauth2/introspect", {"token": token}, authorization=basic("app-two", SECRETS["app-two"][0]))
    await server.page(token)
    assert actions_of(server) == [("noc", "introspectToken", 200)] * 3


@pytest.mark.parametrize("path", ["/oauth2/revoke", "/oauth2/introspect"])
async def test_a_form_that_names_no_token_is_refused_and_not_answered_as_if_one_were_gone(
    server: Server, path: str
) -> None:
    token, proof = await server.token(), {"authorization": basic("app-one", SECRETS["app-one"][0])}
    for slip in ({"access_token": token}, {"token": ""}, {"token_type_hint": "access_token"}):
        assert error(await server.post(path, slip, **proof)) == (400, "invalid_request"), slip
    assert await server.reads(token) == 200
    for known in ({"token": "never-issued"}, {"token": token}):
        assert (await server.post(path, known, **proof)).status_code == 200


async def test_taking_back_and_looking_into_tokens_count_as_requests(server: Server) -> None:
    token, proof = await server.token(), {"authorization": basic("app-one", SECRETS["app-one"][0])}
    for path in ("/oauth2/revoke", "/oauth2/introspect"):
        server.rig.service.rates.limit = RateLimit(per_second=0.001, burst=3)
        answers = [await server.post(path, {"token": "never-issued"}, **proof) for _ in range(4)]
        assert answers[-1].status_code == 429
        assert error(answers[-1]) == (429, "temporarily_unavailable")
        assert int(answers[-1].headers["retry-after"]) > 1
    assert await server.reads(token) == 429, "of the same requests"


async def test_what_a_token_lacks_is_told_as_what_the_token_lacks(server: Server) -> None:
    async with server.client(await server.token(scope="ai-paging:sessions:read")) as client:
        refused = await client.post("/ai-paging/v0.1/sessions", json={"intent": INTENT})
    assert refused.status_code == 403
    assert "the credential of client app-one lacks the scope ai-paging:sessions:create" in refused.json()["message"]
    assert "fetch a token with it" in refused.json()["message"], "the client may have it"


async def test_a_token_of_an_issuer_that_is_not_configured_is_told_as_one(server: Server) -> None:
    stray = jwt.encode(
        {"iss": "https://idp.example/realm/", "aud": ACCESS_AUDIENCE}, KEY, "ES256", {"typ": "at+jwt", "kid": "theirs"}
    )
    async with server.client(stray) as client:
        refused = await client.get("/ai-paging/v0.1/services")
    assert refused.status_code == 401
    assert "its iss is not, letter by letter, that of an issuer in the configuration" in refused.json()["message"]


async def test_many_pages_with_one_token_verify_it_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    token = await server.token()
    verified = 0
    real = RotatingVerifier.verify_access

    def counted(verifier: RotatingVerifier, token: str) -> AccessClaims:
        nonlocal verified
        verified += 1
        return real(verifier, token)

    monkeypatch.setattr(RotatingVerifier, "verify_access", counted)
    answers = await asyncio.gather(*(server.doorkeeper.caller(f"Bearer {token}") for _ in range(200)))
    assert {caller.client for caller in answers} == {"app-one"}
    assert verified == 1


ODD_ASSERTIONS = [
    "..",
    "a.b.c",
    "=.=.=",
    f"{encoded({'alg': 'ES256', 'kid': ['x']})}.{encoded({'sub': 'app-keys'})}.AAAA",
    f"{encoded({'alg': 'ES256', 'kid': {'a': 1}})}.{encoded({'sub': 'app-keys'})}.AAAA",
    f"{encoded({'alg': ['ES256']})}.{encoded({'sub': 'app-keys'})}.AAAA",
    f"{encoded({'alg': 'ES256'})}.{encoded({'sub': ['app-keys']})}.AAAA",
    f"{encoded({'alg': 'ES256', 'b64': False})}.{encoded({'sub': 'app-keys'})}.AAAA",
    f"{encoded({'alg': 'ES256'})}.{urlsafe_b64encode(b'[' * 3000).decode()}.AAAA",
    f"{urlsafe_b64encode(b'[' * 3000).decode()}.e30.AAAA",
    f"{encoded({'alg': 'ES256'})}.{urlsafe_b64encode(b'[1]').decode()}.AAAA",
    f"{encoded({'alg': 'ES256'})}.{urlsafe_b64encode(bytes([255, 254])).decode()}.AAAA",
    "\x00" * 10,
    "é.ü.ö",
]


@pytest.mark.parametrize("odd", ODD_ASSERTIONS, ids=range(len(ODD_ASSERTIONS)))
async def test_odd_bytes_are_a_refusal_and_never_our_bug(server: Server, odd: str) -> None:
    assert (await server.asserted(odd)).status_code in {400, 401}
    proof = {"client_id": "app-one", "client_secret": SECRETS["app-one"][0], "token": odd}
    assert (await server.post("/oauth2/introspect", proof)).json() == {"active": False}
    assert (await server.post("/oauth2/revoke", proof)).status_code == 200
    async with server.client() as client:
        bearer = odd.encode("utf-8", "replace").replace(b"\x00", b"")
        answer = await client.get("/ai-paging/v0.1/services", headers={b"authorization": b"Bearer " + bearer})
    assert answer.status_code == 401


async def test_odd_bodies_are_a_refusal_and_never_our_bug(server: Server) -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with server.client() as client:
        for body in (b"", b"&&&", b"=", b"\xff\xfe", b"a=%ff&b=%00", b"a=1&" * 50, b"%", b"grant_type"):
            for path in ("/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"):
                answer = await client.post(path, content=body, headers=form)
                assert answer.status_code in {400, 401, 429}, (path, body)

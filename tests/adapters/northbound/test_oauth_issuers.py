"""Issuers that are elsewhere: whose tokens open, how slow or lying ones are borne, and what their words mean here."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from aipaging.adapters.northbound.credentials import CLIENT_SCOPES, OPERATOR_SCOPES
from aipaging.adapters.northbound.oauth.foreign import (
    AGAIN_S,
    FRESH_S,
    KEEP_S,
    WAITING_MAX,
    IssuerPlan,
    JwksIssuer,
    client_of,
)
from aipaging.adapters.northbound.oauth.public_keys import keys_of
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError, UnverifiedError
from aipaging.core.foundation.names import ClientId, checked_name
from aipaging.core.foundation.time import SECOND, WallUs

ISSUER = "https://login.example.com/realms/ai/"
KEYS: dict[str, Any] = {
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "small": rsa.generate_private_key(public_exponent=65537, key_size=1024),
    "ed": ed25519.Ed25519PrivateKey.generate(),
    "later": ec.generate_private_key(ec.SECP256R1()),
}
PARSERS: dict[str, Any] = {
    "ec": ECAlgorithm,
    "rsa": RSAAlgorithm,
    "small": RSAAlgorithm,
    "ed": OKPAlgorithm,
    "later": ECAlgorithm,
}


def published(*names: str) -> bytes:
    keys = [dict(PARSERS[name].to_jwk(KEYS[name].public_key(), as_dict=True)) | {"kid": name} for name in names]
    return msgspec.json.encode({"keys": keys})


class Elsewhere:
    """An issuer, and where its keys are."""

    def __init__(self, **changes: Any) -> None:
        self.now_s = 1_800_000_000
        self.fetches = 0
        self.came: list[ClientId] = []
        self.answer: Callable[[], Awaitable[bytes]] = self.keys
        self.names: tuple[str, ...] = ("ec", "rsa", "small", "ed")
        plan: dict[str, Any] = {
            "name": "idp",
            "issuer": ISSUER,
            "audience": "aipaging-api",
            "algorithms": frozenset({"ES256", "RS256"}),
            "tenant_claim": "tenant",
            "role_claim": "realm_access.roles",
            "grants": {"ai-user": frozenset({"client"}), "noc": frozenset({"operator"})},
        }
        self.known = JwksIssuer(
            IssuerPlan(**(plan | changes)), self.fetch, lambda: WallUs(self.now_s * SECOND), self.note
        ).known

    async def note(self, client: ClientId) -> None:
        self.came.append(client)

    async def fetch(self) -> bytes:
        self.fetches += 1
        return await self.answer()

    async def keys(self) -> bytes:
        return published(*self.names)

    async def hung(self) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def broken(self) -> bytes:
        raise UnavailableError("refused", code="KEY_SET_UNREACHABLE")

    def token(self, key: str = "ec", algorithm: str = "ES256", **changes: Any) -> str:
        head = {"typ": "at+jwt", "kid": key} | changes.pop("head", {})
        claims: dict[str, Any] = {
            "iss": ISSUER,
            "aud": ["account", "aipaging-api"],
            "client_id": "app",
            "tenant": "acme",
            "iat": self.now_s,
            "exp": self.now_s + 300,
            "realm_access": {"roles": ["ai-user"]},
            **changes,
        }
        return jwt.encode({k: v for k, v in claims.items() if v is not None}, KEYS[key], algorithm, headers=head)


async def test_a_token_of_a_trusted_issuer_opens_what_its_roles_mean_here() -> None:
    idp = Elsewhere()
    known = await idp.known(idp.token())
    assert (known.caller.client, known.caller.tenant, known.caller.operator) == ("idp.app", "acme", False)
    assert known.caller.scopes == CLIENT_SCOPES
    assert known.expires_us == (idp.now_s + 300) * SECOND
    assert idp.came == ["idp.app"]
    noc = await idp.known(idp.token("rsa", "RS256", realm_access={"roles": ["noc"]}))
    assert noc.caller.operator
    assert noc.caller.scopes == OPERATOR_SCOPES
    narrow = await idp.known(idp.token(scope="openid ai-paging:sessions:read ai-paging:anchors:create"))
    assert narrow.caller.scopes == {"ai-paging:sessions:read"}
    nothing = await idp.known(idp.token(realm_access={"roles": ["other"]}, scope="ai-paging:anchors:create"))
    assert nothing.caller.scopes == frozenset()
    assert idp.fetches == 1


async def test_what_is_not_for_us_does_not_open() -> None:
    idp = Elsewhere()
    await idp.known(idp.token())
    doors: dict[str, str] = {
        "TOKEN_AUDIENCE": idp.token(aud="account"),
        "TOKEN_ISSUER": idp.token(iss=ISSUER.rstrip("/")),
        "TOKEN_TYPE": idp.token(head={"typ": "JWT"}),
        "TOKEN_EXPIRED": idp.token(exp=idp.now_s),
        "TOKEN_TOO_LONG": idp.token(exp=idp.now_s + 10**6),
        "TOKEN_NOT_YET_VALID": idp.token(nbf=idp.now_s + 3_600),
        "TOKEN_CLAIMS": idp.token(exp=None),
        "TOKEN_KEY_UNKNOWN": idp.token("later"),
        "TOKEN_SIGNATURE": idp.token("later", head={"kid": "ec"}),
    }
    for code, token in doors.items():
        with pytest.raises(UnverifiedError) as refusal:
            await idp.known(token)
        assert refusal.value.code == code
        assert token not in str(refusal.value)
    for odd in (
        idp.token("ed", "EdDSA"),  # a key of theirs, an algorithm that the operator does not allow
        idp.token("small", "RS256"),
        idp.token("rsa", "RS256", head={"kid": "ec"}),
        idp.token(tenant=None),
        idp.token(tenant="No Such Name"),
        idp.token(tenant=["acme"]),
        idp.token(client_id=None),
        jwt.encode({"iss": ISSUER}, b"public" * 8, "HS256", headers={"typ": "at+jwt", "kid": "ec"}),
        "x" * 9_000,
        "",
    ):
        with pytest.raises(UnverifiedError):
            await idp.known(odd)


async def test_a_storm_of_unknown_keys_is_one_fetch_every_half_minute() -> None:
    idp = Elsewhere()
    await idp.known(idp.token())
    idp.now_s += AGAIN_S
    for _ in range(3):
        answers = await asyncio.gather(
            *(idp.known(idp.token("later", head={"kid": f"made-up-{n}"})) for n in range(100)), return_exceptions=True
        )
        assert all(isinstance(answer, UnverifiedError) for answer in answers)
    assert idp.fetches == 2
    await idp.known(idp.token())


async def test_a_new_key_is_found_when_a_token_names_it() -> None:
    idp = Elsewhere()
    await idp.known(idp.token())
    idp.names = ("ec", "later")
    with pytest.raises(UnverifiedError, match="does not publish"):
        await idp.known(idp.token("later"))
    idp.now_s += AGAIN_S
    assert (await idp.known(idp.token("later"))).caller.client == "idp.app"


async def test_a_hung_issuer_holds_up_nobody_who_is_known() -> None:
    idp = Elsewhere()
    await idp.known(idp.token())
    idp.answer = idp.hung
    idp.now_s += FRESH_S + 1
    waiting = [asyncio.create_task(idp.known(idp.token("later"))) for _ in range(WAITING_MAX + 50)]
    for _ in range(20):
        await idp.known(idp.token())
    await asyncio.sleep(0)
    refused = [task for task in waiting if task.done()]
    # Whoever had waited for the fetch would wait still: it hangs until the test is over.
    assert len(refused) == 50, "no more than a few wait, the others are told at once"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_the_last_good_keys_are_kept_for_a_day_and_no_longer() -> None:
    idp = Elsewhere()
    idp.answer = idp.broken
    with pytest.raises(UnavailableError):
        await idp.known(idp.token())
    idp.answer = idp.keys
    idp.now_s += 10
    await idp.known(idp.token())
    for answer in (idp.broken, idp.hung):
        idp.answer = answer
        idp.now_s += KEEP_S // 3
        await idp.known(idp.token())
        await asyncio.sleep(0)
    idp.answer = idp.broken
    idp.now_s += KEEP_S
    patience = asyncio.timeout(0.05)
    with pytest.raises((UnavailableError, TimeoutError)):
        async with patience:
            await idp.known(idp.token())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "x"}]}',
        b"[" * 100_000,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
        published("small"),
        msgspec.json.encode({"keys": [ECAlgorithm.to_jwk(KEYS["ec"], as_dict=True)]}),
        msgspec.json.encode({"keys": [{"kty": "EC"}] * 65}),
    ],
    ids=range(12),
)
def test_what_is_no_set_of_public_keys_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidInputError) as refusal:
        keys_of(raw, allowed=frozenset({"ES256", "RS256"}))
    assert refusal.value.code == "KEY_SET_INVALID"


@given(st.text(min_size=1, max_size=200))
def test_every_client_there_has_one_name_here(client: str) -> None:
    name = client_of("idp", client)
    assert checked_name(name, field="client") == name
    assert name.startswith("idp.")

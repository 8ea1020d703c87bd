"""What a token must be to open the gateway, and what it never opens: nothing else reaches an upstream."""

import base64
import json
import time
from collections.abc import Mapping
from typing import Any

import httpx
import jwt
import pytest
from tests.system.living import Living

from aipaging.adapters.signing.keys import KeyStore

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("system-doors")]


def parts_of(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = token.split(".")
    return tuple(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (header, payload))  # type: ignore[return-value]


def unsigned(header: Mapping[str, Any], payload: Mapping[str, Any], signature: str = "") -> str:
    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, payload))
    return f"{'.'.join(encoded)}.{signature}"


def minted(living: Living, token: str, *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    """Return the token with other claims, signed by the controller's own key: what a broken issuer would give."""
    key = KeyStore.open(living.data_dir / "keys").signing_key
    old_header, payload = parts_of(token)
    named = {name: value for name, value in (payload | claims).items() if value is not None}
    return jwt.encode(named, key.private, algorithm="ES256", headers={**old_header, **(header or {})})


def stolen_key_forgery(token: str) -> str:
    """Return the token signed by a key of somebody else, under the same key id."""
    from cryptography.hazmat.primitives.asymmetric import ec

    header, payload = parts_of(token)
    return jwt.encode(payload, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=header)


def hmac_with_the_public_key(living: Living, token: str) -> str:
    """Return the token as HS256 over the public key: the classical confusion of algorithms."""
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = KeyStore.open(living.data_dir / "keys").signing_key
    pem = key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header, payload = parts_of(token)
    signed = unsigned(header | {"alg": "HS256"}, payload).rstrip(".")
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


async def test_a_token_that_is_not_exactly_ours_opens_nothing(living: Living) -> None:
    session = await living.page()
    aist, receipt = session["aist"], session["commit"]["receipt"]
    header, payload = parts_of(aist)
    now = int(time.time())
    bad = {
        "expired": minted(living, aist, exp=now - 1),
        "without exp": minted(living, aist, exp=None),
        "exp as text": minted(living, aist, exp=str(now + 600)),
        "foreign audience": minted(living, aist, aud="somebody-else"),
        "several audiences": minted(living, aist, aud=["aipaging-gateway", "somebody-else"]),
        "foreign issuer": minted(living, aist, iss="https://foreign.example"),
        "wider scope": minted(living, aist, scope="ai-paging:session:use ai-paging:session:admin"),
        "no session": minted(living, aist, sid=None),
        "session of nobody": minted(living, aist, sid="00000000-0000-4000-8000-000000000000"),
        "alg none": unsigned(header | {"alg": "none"}, payload),
        "alg None, signature kept": unsigned(header | {"alg": "None"}, payload, aist.rpartition(".")[2]),
        "alg HS256 over the public key": hmac_with_the_public_key(living, aist),
        "signed by somebody else": stolen_key_forgery(aist),
        "signature cut": aist[:-4],
        "signature empty": aist.rpartition(".")[0] + ".",
        "payload changed": ".".join([aist.split(".")[0], receipt.split(".")[1], aist.split(".")[2]]),
        "receipt as token": receipt,
        "receipt typed as token": minted(living, receipt, header={"typ": "at+jwt"}),
        "unknown key": minted(living, aist, header={"kid": "nobody"}),
        "critical header": minted(living, aist, header={"crit": ["exp"]}),
        "northbound secret": living.secrets["user"],
        "huge": "a." + "b" * 6000 + ".c",
    }
    answers = {name: await living.ask(token) for name, token in bad.items()}
    assert {name: asked for name, asked in answers.items() if asked.status not in {401, 403}} == {}
    assert living.reached_by(asked.mark for asked in answers.values()) == []
    assert (await living.ask(aist)).served, "the refused ones must not have harmed the true one"
    await living.end(session)


async def test_the_token_of_an_ended_session_is_dead_at_once_and_opens_no_other(living: Living) -> None:
    ended, alive = await living.page(), await living.page()
    assert (await living.ask(ended["aist"])).served
    await living.end(ended)
    replays = [await living.ask(ended["aist"]) for _ in range(5)]
    assert {each.status for each in replays} == {403}
    assert living.reached_by(each.mark for each in replays) == []
    assert (await living.ask(alive["aist"])).served
    await living.end(alive)


async def test_a_token_is_not_believed_beside_another(living: Living) -> None:
    session = await living.page()
    async with living.user() as client:
        for values in ((session["aist"], "garbage"), ("garbage", session["aist"]), (session["aist"], session["aist"])):
            headers = [("authorization", f"Bearer {value}") for value in values]
            response = await client.post("/v1/echo", headers=[*headers, ("x-mark", "two-tokens")])
            assert response.status_code in {400, 401, 403}, values
    assert living.reached_by(["two-tokens"]) == []
    await living.end(session)


async def test_a_token_in_any_other_place_opens_nothing(living: Living) -> None:
    session = await living.page()
    aist = session["aist"]
    async with living.user() as client:
        answers = [
            await client.get(f"/v1/echo?access_token={aist}", headers={"x-mark": "elsewhere"}),
            await client.get("/v1/echo", headers={"cookie": f"authorization=Bearer {aist}", "x-mark": "elsewhere"}),
            await client.get("/v1/echo", headers={"x-authorization": f"Bearer {aist}", "x-mark": "elsewhere"}),
            await client.get("/v1/echo", headers={"proxy-authorization": f"Bearer {aist}", "x-mark": "elsewhere"}),
        ]
    assert {answer.status_code for answer in answers} == {401}
    assert living.reached_by(["elsewhere"]) == []
    await living.end(session)


async def test_the_sidecar_wants_a_gateway_and_a_receipt_not_a_token(living: Living) -> None:
    session = await living.page()
    aist, receipt = session["aist"], session["commit"]["receipt"]
    anchor = (await living.session(session))["anchorId"]
    other = next(name for name in living.upstreams if name != anchor)
    gateway = living.enrol("gateway", "gateway-1")
    cases = {
        "token only": (anchor, {"authorization": f"Bearer {aist}"}, 403),
        "token as receipt": (anchor, {"x-aipaging-commit": aist}, 403),
        "token typed as receipt": (
            anchor,
            {"x-aipaging-commit": minted(living, aist, header={"typ": "ai-commit+jwt"})},
            403,
        ),
        "receipt as bearer token": (anchor, {"authorization": f"Bearer {receipt}"}, 403),
        "receipt of another anchor": (other, {"x-aipaging-commit": receipt}, 403),
        "receipt renamed to the anchor": (
            other,
            {"x-aipaging-commit": minted(living, receipt, anchor=other)},
            403,
        ),
        "forged": (anchor, {"x-aipaging-commit": stolen_key_forgery(receipt)}, 403),
        "the true one": (anchor, {"x-aipaging-commit": receipt}, 200),
        "receipt of an epoch that was never granted": (
            anchor,
            {"x-aipaging-commit": minted(living, receipt, n=99)},
            403,
        ),
    }
    async with httpx.AsyncClient(verify=living.trusting(gateway), trust_env=False, timeout=60) as client:
        for name, (where, headers, status) in cases.items():
            url = f"{living.sidecar_url(where)}/v1/echo"
            response = await client.post(url, headers={**headers, "x-mark": f"sidecar {name}"})
            assert response.status_code == status, (name, response.text)
    assert [each.mark for each in living.reached if each.mark.startswith("sidecar ")] == ["sidecar the true one"]
    await living.end(session)
    async with httpx.AsyncClient(verify=living.trusting(gateway), trust_env=False, timeout=60) as client:
        response = await client.post(
            f"{living.sidecar_url(anchor)}/v1/echo", headers={"x-aipaging-commit": receipt, "x-mark": "sidecar replay"}
        )
    assert response.status_code in {403, 409}, "a receipt outlived its session at the second enforcement point"
    assert living.reached_by(["sidecar replay"]) == []

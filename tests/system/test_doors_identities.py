"""Who may speak southbound, at the sidecar and to the discovery service: its certificate decides, and nothing else."""

import asyncio
import ssl
from pathlib import Path

import grpc
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import CertificateSigningRequestBuilder, DNSName, Name, NameAttribute, SubjectAlternativeName
from cryptography.x509 import UniformResourceIdentifier as Uri
from cryptography.x509.oid import NameOID
from tests.system.living import TRUST_DOMAIN, Living
from tests.system.upstream import HOST

from aipaging.adapters.signing.ca import signing_request

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="session"), pytest.mark.xdist_group("system-doors")]

BEAT = {"state": "DRAINING", "boot": "evil", "sequence": 2**40, "in_flight": 0, "queued": 0}


def identities(living: Living) -> dict[str, Path | None]:
    """Return who comes: nobody, a foreign authority's, and ours in every role."""
    foreign = living.folder / "foreign-authority"
    return {
        "nobody": None,
        "foreign anchor": living.enrol("anchor", "one", authority=foreign),
        "foreign gateway": living.enrol("gateway", "gateway-1", authority=foreign),
        "foreign controller": living.enrol("controller", "controller", authority=foreign),
        "anchor two": living.enrol("anchor", "two"),
        "unregistered anchor": living.enrol("anchor", "three"),
        "gateway": living.enrol("gateway", "gateway-1"),
        "controller": living.enrol("controller", "controller"),
    }


async def asked(
    living: Living, identity: Path | None, method: str, url: str, **more: object
) -> tuple[int, httpx.Response | None]:
    """Return the status; 0 where the handshake or the first read fails."""
    verify = living.trusting(identity)
    async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=60) as client:
        try:
            response = await client.request(method, url, **more)  # type: ignore[arg-type]
        except (httpx.TransportError, ssl.SSLError):  # by when the alert comes
            return 0, None
        return response.status_code, response


REFUSED = {0, 403}


async def test_a_heartbeat_is_believed_from_the_anchor_itself_only(living: Living) -> None:
    session = await living.page()
    url = f"{living.southbound_url}/anchors/one/heartbeat"
    statuses = {
        name: (await asked(living, identity, "PUT", url, json=BEAT))[0] for name, identity in identities(living).items()
    }
    assert {name: status for name, status in statuses.items() if status not in REFUSED} == {}
    assert statuses["nobody"] == statuses["foreign anchor"] == 0, "the handshake let it in"
    for _ in range(5):
        assert (await living.ask(session["aist"])).served
    assert (await living.session(session)).get("relocation") is None, "a foreign heartbeat moved a session"
    await living.end(session)


async def test_remaining_time_is_told_to_anchors_and_about_themselves_only(living: Living) -> None:
    session = await living.page()
    anchor, epoch = session["anchorId"], session["commit"]["epoch"]
    question = {"leases": [{"session": session["sessionId"], "term": epoch["term"], "n": epoch["n"]}]}
    url = f"{living.southbound_url}/steering/v1/remaining"
    others = identities(living) | {"anchor two": living.enrol("anchor", "two" if anchor == "one" else "one")}
    for name, identity in others.items():
        status, response = await asked(living, identity, "POST", url, json=question)
        if status in REFUSED:
            continue
        assert name in {"anchor two", "unregistered anchor"}, (name, status)
        assert response is not None
        (lease,) = response.json()["leases"]
        assert (lease["state"], lease["remaining_ms"]) == ("ENDED", 0), name
    status, response = await asked(living, living.enrol("anchor", anchor), "POST", url, json=question)
    assert response is not None
    (lease,) = response.json()["leases"]
    assert lease["state"] == "ACTIVE"
    await living.end(session)


async def test_identities_are_renewed_for_those_who_have_them_and_as_what_they_are(living: Living) -> None:
    url = f"{living.southbound_url}/identity/v1/renew"
    key = ec.generate_private_key(ec.SECP256R1())
    ambitious = (
        CertificateSigningRequestBuilder()
        .subject_name(Name([NameAttribute(NameOID.COMMON_NAME, "controller")]))
        .add_extension(
            SubjectAlternativeName([Uri(f"spiffe://{TRUST_DOMAIN}/controller/controller"), DNSName("controller")]),
            critical=False,
        )
    )
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    csr = ambitious.sign(key, SHA256()).public_bytes(Encoding.PEM)
    for name, identity in identities(living).items():
        own = signing_request(identity) if identity is not None else csr
        allowed = name in {"anchor two", "gateway"}
        status, response = await asked(living, identity, "POST", url, content=own)
        assert (status == 200) is (allowed or name == "unregistered anchor"), (name, status)
        status, response = await asked(living, identity, "POST", url, content=csr)
        if status == 200 and response is not None:
            assert b"controller/controller" not in ssl.PEM_cert_to_DER_cert(_first(response.text)), name
    status, _ = await asked(living, living.enrol("anchor", "two"), "POST", url, content=b"x" * 20_000)
    assert status == 413


def _first(pem: str) -> str:
    return pem[: pem.index("-----END CERTIFICATE-----")] + "-----END CERTIFICATE-----\n"


async def test_look_ups_are_answered_to_gateways_only(living: Living) -> None:
    session = await living.page()
    headers = {"authorization": f"Bearer {session['aist']}"}
    url = f"{living.southbound_url}/steering/v1/look-up"
    statuses = {
        name: (await asked(living, identity, "GET", url, headers=headers))[0]
        for name, identity in identities(living).items()
    }
    assert statuses.pop("gateway") == 200
    assert set(statuses.values()) <= REFUSED, statuses
    await living.end(session)


async def test_only_an_enrolled_gateway_is_told_where_anchors_are(living: Living) -> None:
    ca = (living.data_dir / "ca" / "ca.pem").read_bytes()
    for name, identity in identities(living).items():
        if name == "gateway":
            continue
        pair = (None, None) if identity is None else tuple((identity / f).read_bytes() for f in ("key.pem", "cert.pem"))
        credentials = grpc.ssl_channel_credentials(ca, *pair)
        async with grpc.aio.secure_channel(f"{HOST}:{living.ports.ads}", credentials) as channel:
            call = channel.stream_stream(
                "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            )()
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                async with asyncio.timeout(60):
                    await call.read()
        assert refused.value.code() in {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}, name


async def test_the_data_path_of_a_sidecar_takes_gateways_only(living: Living) -> None:
    session = await living.page()
    url = f"{living.sidecar_url(session['anchorId'])}/v1/echo"
    receipt = session["commit"]["receipt"]
    for name, identity in identities(living).items():
        headers = {"x-aipaging-commit": receipt, "x-mark": f"data path {name}"}
        status, _ = await asked(living, identity, "POST", url, headers=headers)
        assert (status == 200) is (name == "gateway"), (name, status)
    arrived = [each.mark for each in living.reached if each.mark.startswith("data path ")]
    assert arrived == ["data path gateway"]
    await living.end(session)


async def test_a_gateway_may_not_prepare_and_a_stranger_may_not_look(living: Living) -> None:
    body = {"session": "00000000-0000-4000-8000-000000000000", "term": 1, "n": 1}
    url = f"{living.sidecar_url('one')}/aipaging/v1/"
    who = identities(living)
    prepared = {name: (await asked(living, who[name], "POST", url + "prepare", json=body))[0] for name in who}
    assert prepared.pop("controller") == 204
    assert set(prepared.values()) <= REFUSED, prepared
    for name in ("nobody", "foreign gateway", "anchor two"):
        assert (await asked(living, who[name], "GET", url + "metrics"))[0] in REFUSED


async def test_a_certificate_that_is_about_to_expire_or_has_is_judged_by_the_handshake(living: Living) -> None:
    from aipaging.adapters.signing.ca import CertificateAuthority
    from aipaging.core.foundation.time import WallUs

    authority = CertificateAuthority.open(living.data_dir / "ca", TRUST_DOMAIN, clock=lambda: WallUs(10**15))
    folder = living.folder / "identities" / "expired"
    authority.write_identity(folder, "anchor", "one", addresses=(HOST,))
    status, _ = await asked(living, folder, "PUT", f"{living.southbound_url}/anchors/one/heartbeat", json=BEAT)
    assert status == 0

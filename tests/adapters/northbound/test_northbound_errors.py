"""Whatever is sent, the answer is a document that says what was wrong, and never a 500."""

import json
import logging
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.adapters.northbound.conftest import INTENT, SECRETS, Rig

from aipaging.core.foundation.errors import UnavailableError

GUARDED = [
    ("POST", "intents/resolve"),
    ("POST", "sessions"),
    ("GET", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"),
    ("POST", "retrieve-sessions"),
    ("DELETE", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11"),
    ("POST", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11/extend"),
    ("POST", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11/relocate"),
    ("POST", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11/move"),
    ("GET", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11/evidence"),
    ("GET", "services"),
    ("GET", "domains"),
    ("GET", "anchors"),
    ("POST", "anchors"),
    ("DELETE", "anchors/a"),
    ("POST", "anchors/a/drain"),
    ("POST", "anchors/a/ready"),
    ("GET", "envelopes"),
    ("POST", "envelopes"),
    ("GET", "evidence/checkpoint"),
    ("GET", "evidence/proofs/inclusion"),
    ("GET", "evidence/proofs/consistency"),
    ("GET", "/metrics"),
]
OPERATORS_ONLY = [
    *[call for call in GUARDED if "anchors" in call[1] or "envelopes" in call[1] or call[1].startswith("evidence")],
    ("POST", "sessions/3f1c2a54-7f0e-4c5e-9b1d-0a4f6d2b8e11/move"),
    ("GET", "/metrics"),
]


def at(path: str) -> str:
    return f"http://test{path}" if path.startswith("/") else path


def fault(answer: httpx.Response) -> tuple[int, str, str | None]:
    document = answer.json()
    assert document["status"] == answer.status_code
    assert document["message"]
    assert document["who"] in {"caller", "operator", "partner", "bug"}
    return answer.status_code, document["code"], document.get("field")


def changed(**changes: Any) -> dict[str, Any]:
    return {"intent": {**INTENT, **changes}}


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic c2VjcmV0", f"bearer {'x' * 5000}", "Bearer \xff"],
    ids=lambda text: str(text)[:16],
)
async def test_nothing_is_told_or_done_without_a_credential(
    nobody: httpx.AsyncClient, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    for method, path in GUARDED:
        answer = await nobody.request(method, at(path), headers=headers)
        assert fault(answer) == (401, "UNAUTHENTICATED", None), path
        # RFC 6750, section 3.1: who shows no credential at all is told no error.
        error = ', error="invalid_token"' if authorization else ""
        assert answer.headers["www-authenticate"] == f'Bearer realm="aipaging"{error}'


async def test_a_client_is_no_operator(app_one: httpx.AsyncClient) -> None:
    for method, path in OPERATORS_ONLY:
        answer = await app_one.request(method, at(path))
        assert fault(answer) == (403, "PERMISSION_DENIED", None), path
        assert "insufficient_scope" in answer.headers["www-authenticate"]


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/openapi.json", "/.well-known/jwks.json", "/.well-known/ai-paging"]
)
async def test_everybody_may_find_out_what_this_is(nobody: httpx.AsyncClient, path: str) -> None:
    assert (await nobody.get(at(path))).status_code == 200


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, "INVALID_ARGUMENT", "intent"),
        ({"intent": {}}, "INVALID_ARGUMENT", "intent.task"),
        ({**changed(), "sink": "https://x"}, "INVALID_SINK", "sink"),
        (changed(anchor="a"), "INVALID_ARGUMENT", "intent.anchor"),
        (changed(delayMs="fast"), "INVALID_ARGUMENT", "intent.delayMs"),
        (changed(delayMs=0), "OUT_OF_RANGE", "intent.delayMs"),
        (changed(delayMs=1e30), "OUT_OF_RANGE", "intent.delayMs"),
        (changed(epsilon=0.9), "OUT_OF_RANGE", "intent.epsilon"),
        (changed(burst=0), "OUT_OF_RANGE", "intent.burst"),
        (changed(burst=1.5), "INVALID_ARGUMENT", "intent.burst"),
        (changed(durationS=86_401), "OUT_OF_RANGE", "intent.durationS"),
        (changed(place="Access EU"), "INVALID_ARGUMENT", "intent.place"),
        (changed(task="x" * 65), "INVALID_ARGUMENT", "intent.task"),
        (changed(task="em\u00e9"), "INVALID_ARGUMENT", "intent.task"),
        (changed(regions=["eu"] * 33), "INVALID_ARGUMENT", "intent.regions"),
        (changed(regions=["eu", 5]), "INVALID_ARGUMENT", "intent.regions[1]"),
        (changed(quality={"benchmark": "MTEB"}), "INVALID_ARGUMENT", "intent.quality.scoreMin"),
        (changed(quality={"benchmark": "MTEB", "scoreMin": 1e10}), "OUT_OF_RANGE", "intent.quality.scoreMin"),
        (changed(dataClass="SECRET"), "INVALID_ARGUMENT", "intent.dataClass"),
        (changed(prefer="LUCK"), "INVALID_ARGUMENT", "intent.prefer"),
        (changed(trustMin=6), "OUT_OF_RANGE", "intent.trustMin"),
        ([], "INVALID_ARGUMENT", None),
        (None, "INVALID_ARGUMENT", None),
    ],
)
async def test_a_misfit_names_its_field_and_what_is_allowed(
    app_one: httpx.AsyncClient, body: object, code: str, field: str | None
) -> None:
    answer = (
        await app_one.post("sessions", json=body)
        if body is not None
        else await app_one.post("sessions", content=b"null", headers={"content-type": "application/json"})
    )
    assert fault(answer) == (400, code, field)
    assert field is None or field in answer.json()["message"]


async def test_a_misfit_says_what_was_wrong_and_what_is_allowed(app_one: httpx.AsyncClient) -> None:
    answer = await app_one.post("sessions", json=changed(epsilon=0.9))
    assert answer.json()["message"] == "intent.epsilon is 0.9: expected `float` <= 0.5"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"intent":' * 30_000,
        b"[" * 60_000,
        b'{"intent": "\xff"}',
        b'{"intent":{"delayMs":1e999}}',
        b'{"intent":{"task":"\\ud800"}}',
        b"\x00",
        b"\xef\xbb\xbf{}",
    ],
    ids=range(10),
)
async def test_what_is_not_a_document_is_refused(app_one: httpx.AsyncClient, raw: bytes) -> None:
    answer = await app_one.post("sessions", content=raw, headers={"content-type": "application/json"})
    assert fault(answer)[:2] in {(400, "INVALID_ARGUMENT"), (413, "AI_PAGING.PAYLOAD_TOO_LARGE")}


async def test_the_media_type_must_be_json(app_one: httpx.AsyncClient) -> None:
    for headers in ({}, {"content-type": "text/plain"}):
        answer = await app_one.post("sessions", content=json.dumps(changed()), headers=headers)
        assert fault(answer) == (415, "UNSUPPORTED_MEDIA_TYPE", "content-type")
    charset = {"content-type": "application/json; charset=utf-8"}
    assert (await app_one.post("sessions", content=json.dumps(changed()), headers=charset)).status_code == 201


async def test_a_compressed_body_and_one_that_says_a_thing_twice_are_refused(app_one: httpx.AsyncClient) -> None:
    as_json = {"content-type": "application/json"}
    answer = await app_one.post("sessions", content=b"{}", headers={**as_json, "content-encoding": "gzip"})
    assert fault(answer) == (415, "UNSUPPORTED_MEDIA_TYPE", "content-encoding")
    once = json.dumps(changed())
    twice = once.replace('"delayMs"', '"delayMs": 1, "delayMs"')
    answer = await app_one.post("sessions", content=twice, headers=as_json)
    assert fault(answer) == (400, "INVALID_ARGUMENT", "delayMs")


async def test_a_huge_body_is_refused_announced_or_not(app_one: httpx.AsyncClient) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b" " * 1000

    announced = await app_one.post("sessions", content=b" " * 70_000, headers={"content-type": "application/json"})
    trickled = await app_one.post("sessions", content=pieces(), headers={"content-type": "application/json"})
    assert fault(announced) == fault(trickled) == (413, "AI_PAGING.PAYLOAD_TOO_LARGE", None)


@pytest.mark.parametrize(
    "path", ["nothing", "/", "/ai-paging/v0.1", "sessions/", "sessions//extend", "anchors/a/b/c", "x" * 2000]
)
async def test_nothing_is_there(noc: httpx.AsyncClient, path: str) -> None:
    assert fault(await noc.get(at(path)))[:2] == (404, "NOT_FOUND")


async def test_a_wrong_method_is_told_the_right_ones(noc: httpx.AsyncClient) -> None:
    answer = await noc.put("anchors")
    assert fault(answer)[:2] == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "GET, HEAD, POST"


async def test_head_is_a_get_without_a_body(nobody: httpx.AsyncClient) -> None:
    answer = await nobody.head("http://test/healthz")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("session", ["abc", "3F1C2A54-7F0E-4C5E-9B1D-0A4F6D2B8E11", "%00", "..", "'"])
async def test_a_malformed_session_id_is_refused(app_one: httpx.AsyncClient, session: str) -> None:
    answer = await app_one.get(f"sessions/{session}/evidence")
    assert fault(answer)[0] in {400, 404}


@pytest.mark.parametrize("correlator", ["abc-123", "a" * 256, "a_b:c;d.e/f<g>{h}"])
async def test_the_correlator_is_echoed(app_one: httpx.AsyncClient, correlator: str) -> None:
    assert (await app_one.get("services", headers={"x-correlator": correlator})).headers["x-correlator"] == correlator
    failed = await app_one.get("nothing", headers={"x-correlator": correlator})
    assert failed.headers["x-correlator"] == correlator


@pytest.mark.parametrize("correlator", ["a b", "a" * 257, "\u00e9", "a\tb"])
async def test_a_malformed_correlator_is_refused_and_replaced(app_one: httpx.AsyncClient, correlator: str) -> None:
    answer = await app_one.get("services", headers={"x-correlator": correlator.encode()})
    assert fault(answer) == (400, "INVALID_ARGUMENT", "x-correlator")
    assert answer.headers["x-correlator"] not in {"", correlator}


async def test_a_correlator_is_made(app_one: httpx.AsyncClient) -> None:
    made = {(await app_one.get("services")).headers["x-correlator"] for _ in range(3)}
    assert len(made) == 3


@pytest.mark.parametrize(
    "query", ["?x=1", "?x", "?a=1&a=2", "?%zz=1", "?&&", "?" + "&".join(f"a{i}=1" for i in range(40))]
)
async def test_an_unknown_query_is_refused(app_one: httpx.AsyncClient, query: str) -> None:
    assert fault(await app_one.get(f"services{query}"))[:2] == (400, "INVALID_ARGUMENT")


async def test_a_bug_tells_nothing(rig: Rig, app_one: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_read: object) -> None:
        raise ValueError("a secret detail")

    rig.engine.view = broken  # type: ignore[assignment,method-assign]
    answer = await app_one.get("services", headers={"x-correlator": "find-me"})
    assert fault(answer) == (500, "INTERNAL", None)
    assert "detail" not in answer.text
    assert "find-me" in answer.json()["message"]
    assert any(getattr(record, "correlator", "") == "find-me" and record.exc_info for record in caplog.records)


async def test_an_ill_journal_is_503(rig: Rig, app_one: httpx.AsyncClient) -> None:
    async def ill(_command: object) -> None:
        raise UnavailableError("the journal cannot be written: no space", code="JOURNAL_UNAVAILABLE")

    rig.engine.submit = ill  # type: ignore[assignment,method-assign]
    answer = await app_one.post("sessions", json=changed())
    assert fault(answer) == (503, "AI_PAGING.JOURNAL_UNAVAILABLE", None)
    assert answer.json()["who"] == "operator"


async def test_logs_hold_the_session_and_no_secret(
    app_one: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        session = (await app_one.post("sessions", json=changed(), headers={"x-correlator": "c-1"})).json()
    (line,) = [record for record in caplog.records if record.name == "aipaging.http"]
    assert (line.__dict__["correlator"], line.__dict__["session"]) == ("c-1", session["sessionId"])
    assert (line.__dict__["operation"], line.__dict__["status"], line.__dict__["client"]) == (
        "createSession",
        201,
        "app-one",
    )
    everything = "\n".join(str(record.__dict__) for record in caplog.records)
    for secret in (session["aist"], session["commit"]["receipt"], SECRETS["app-one"][0]):
        assert secret not in everything


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["task", "place", "delayMs", "ratePerSecond", "modality", "epsilon", "delayScope", "burst", "durationS", "quality",
     "language", "regions", "jurisdictions", "trustMin", "dataClass", "licences", "costMax", "prefer"]
)  # fmt: skip
INTENTS = st.dictionaries(FIELDS, JSON, max_size=4).map(lambda changes: {"intent": {**INTENT, **changes}})
ENVELOPES = st.dictionaries(
    st.sampled_from(["domain", "sequence", "contract", "validFrom", "validUntil", "loss", "capacityPerSecond"]), JSON
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=JSON | INTENTS | ENVELOPES,
    path=st.sampled_from(
        ["sessions", "intents/resolve", "retrieve-sessions", "anchors", "envelopes", "anchors/a/drain"]
    ),
)
async def test_no_json_whatever_is_a_bug(noc: httpx.AsyncClient, body: object, path: str) -> None:
    raw = json.dumps(body).encode("utf-8", "surrogatepass")
    answer = await noc.post(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in {200, 201, 400, 404, 409, 413, 422}
    if answer.status_code >= 400:
        fault(answer)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200), path=st.sampled_from(["sessions", "envelopes", "retrieve-sessions"]))
async def test_no_bytes_whatever_are_a_bug(noc: httpx.AsyncClient, raw: bytes, path: str) -> None:
    answer = await noc.post(path, content=raw, headers={"content-type": "application/json"})
    assert answer.status_code in {200, 400}

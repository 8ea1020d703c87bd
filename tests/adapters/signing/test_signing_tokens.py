import base64
import hashlib
import hmac
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from msgspec import structs

from aipaging.adapters.signing import tokens
from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.tokens import JwtSigner, JwtVerifier
from aipaging.core.foundation.epoch import Epoch
from aipaging.core.foundation.errors import UnverifiedError
from aipaging.core.foundation.names import AnchorId, ClientId, TenantId, service_uri, session_id
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import AistClaims, CommitClaims
from aipaging.ports.signing import TokenSigner, TokenVerifier

ISSUER = "https://controller.example"
NOW = 1_800_000_000
SESSION = session_id("3f2b0c1e-8f3a-4f0e-9a76-0d9e2c1b4a55")
AIST = AistClaims(
    session=SESSION,
    tenant=TenantId("acme"),
    client=ClientId("client-1"),
    aisi=service_uri("aisi://operator.example/embed/minilm"),
    token_id="token-id-1",
    issued_us=WallUs(NOW * SECOND),
    expires_us=WallUs((NOW + 60) * SECOND),
)
COMMIT = CommitClaims(
    session=SESSION,
    tenant=TenantId("acme"),
    aisi=AIST.aisi,
    anchor=AnchorId("edge-1"),
    epoch=Epoch(3, 7),
    lease_ms=10_000,
    rate_mrps=5_000,
    burst=4,
    delay_us=120_000,
    epsilon="0.001",
    epsilon_bound="0.00042",
    token_id_sha256=hashlib.sha256(b"token-id-1").hexdigest(),
    commit_id="commit-1",
    issued_us=WallUs(NOW * SECOND),
    expires_us=WallUs((NOW + 60) * SECOND),
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    return KeyStore.open(tmp_path_factory.mktemp("token-keys"))


@pytest.fixture
def signer(keys):
    return JwtSigner(keys, ISSUER)


@pytest.fixture
def verifier(keys):
    return JwtVerifier(keys.jwks(), ISSUER, lambda: WallUs(NOW * SECOND))


def refusal(verify, token):
    with pytest.raises(UnverifiedError) as caught:
        verify(token)
    for part in token.split("."):
        assert len(part) < 8 or part not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.code


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def payload_of(token):
    return jwt.decode(token, options={"verify_signature": False})


def resigned(keys, token, *, changes=None, header=None):
    payload = {**payload_of(token), **(changes or {})}
    payload = {claim: value for claim, value in payload.items() if value is not None}
    headers = {"typ": "at+jwt", "kid": keys.signing_key.kid, **(header or {})}
    return jwt.encode(payload, keys.signing_key.private, algorithm="ES256", headers=headers)


def test_the_classes_are_the_ports(signer, verifier):
    as_signer: TokenSigner = signer
    as_verifier: TokenVerifier = verifier
    assert as_verifier.verify_aist(as_signer.sign_aist(AIST)) == AIST
    assert as_verifier.verify_commit(as_signer.sign_commit(COMMIT)) == COMMIT


def test_the_same_claims_give_the_same_receipt_under_one_key_and_never_that_of_another_key(tmp_path):
    before = KeyStore.open(tmp_path)

    class Rotating:
        signing_key = before.signing_key

    keys = Rotating()
    signer = JwtSigner(keys, ISSUER)
    receipt = signer.sign_commit(COMMIT)
    assert signer.sign_commit(structs.replace(COMMIT)) == receipt
    renewed = structs.replace(COMMIT, epsilon_bound="0.0005")
    assert payload_of(signer.sign_commit(renewed))["epsilon_bound"] == "0.0005"
    keys.signing_key = before.rotated().signing_key
    assert jwt.get_unverified_header(signer.sign_commit(COMMIT))["kid"] == keys.signing_key.kid


def test_only_so_many_receipts_are_remembered(signer, verifier, monkeypatch):
    monkeypatch.setattr(tokens, "RECEIPTS_KEPT", 2)
    many = [structs.replace(COMMIT, commit_id=f"commit-{i}") for i in range(5)]
    assert [verifier.verify_commit(signer.sign_commit(claims)) for claims in many] == many
    last, first = signer.sign_commit(many[-1]), signer.sign_commit(many[0])
    assert signer.sign_commit(many[0]) == first
    assert signer.sign_commit(many[-1]) == last


def test_the_wire_form_is_the_agreed_one(keys, signer):
    aist = signer.sign_aist(AIST)
    assert jwt.get_unverified_header(aist) == {"alg": "ES256", "typ": "at+jwt", "kid": keys.signing_key.kid}
    assert payload_of(aist) == {
        "iss": ISSUER,
        "sub": "acme/client-1",
        "aud": "aipaging-gateway",
        "iat": NOW,
        "exp": NOW + 60,
        "jti": "token-id-1",
        "client_id": "client-1",
        "scope": "ai-paging:session:use",
        "sid": SESSION,
        "aisi": AIST.aisi,
    }
    receipt = signer.sign_commit(COMMIT)
    assert jwt.get_unverified_header(receipt)["typ"] == "ai-commit+jwt"
    assert set(payload_of(receipt)) == {
        *("iss", "sub", "jti", "iat", "exp", "aisi", "anchor", "term", "n", "lease_ms", "tenant", "rate_mrps"),
        *("burst", "aist_jti_sha256", "delay_us", "epsilon", "epsilon_bound", "rung", "assumptions", "envelopes"),
    }


def test_exp_rounds_up_and_iat_down(signer, verifier):
    claims = structs.replace(AIST, issued_us=WallUs(NOW * SECOND + 700_000), expires_us=WallUs(NOW * SECOND + 900_000))
    back = verifier.verify_aist(signer.sign_aist(claims))
    assert (back.issued_us, back.expires_us) == (NOW * SECOND, (NOW + 1) * SECOND)


def test_a_token_dies_at_its_exp_without_leeway(keys, signer):
    token = signer.sign_aist(AIST)
    last = JwtVerifier(keys.jwks(), ISSUER, lambda: WallUs((NOW + 60) * SECOND - 1))
    over = JwtVerifier(keys.jwks(), ISSUER, lambda: WallUs((NOW + 60) * SECOND))
    assert last.verify_aist(token) == AIST
    assert refusal(over.verify_aist, token) == "TOKEN_EXPIRED"


def test_a_receipt_is_not_judged_by_time(keys, signer):
    late = JwtVerifier(keys.jwks(), ISSUER, lambda: WallUs((NOW + 9_999) * SECOND))
    assert late.verify_commit(signer.sign_commit(COMMIT)) == COMMIT


def test_neither_token_passes_for_the_other(signer, verifier):
    assert refusal(verifier.verify_aist, signer.sign_commit(COMMIT)) == "TOKEN_TYPE"
    assert refusal(verifier.verify_commit, signer.sign_aist(AIST)) == "TOKEN_TYPE"


def test_unsigned_tokens_are_refused(keys, signer, verifier):
    payload = payload_of(signer.sign_aist(AIST))
    header = {"alg": "none", "typ": "at+jwt", "kid": keys.signing_key.kid}
    for algorithm in ("none", "None", "NONE", ""):
        token = f"{encoded({**header, 'alg': algorithm})}.{encoded(payload)}."
        assert refusal(verifier.verify_aist, token) == "TOKEN_ALGORITHM"


def test_the_public_key_as_an_hmac_secret_is_refused(keys, signer, verifier):
    public = keys.signing_key.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    header = encoded({"alg": "HS256", "typ": "at+jwt", "kid": keys.signing_key.kid})
    signing_input = f"{header}.{encoded(payload_of(signer.sign_aist(AIST)))}"
    digest = hmac.new(public, signing_input.encode(), hashlib.sha256).digest()
    token = f"{signing_input}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
    assert refusal(verifier.verify_aist, token) == "TOKEN_ALGORITHM"


def test_a_forger_with_our_key_id_is_refused(keys, signer, verifier):
    forged = jwt.encode(
        payload_of(signer.sign_aist(AIST)),
        ec.generate_private_key(ec.SECP256R1()),
        algorithm="ES256",
        headers={"typ": "at+jwt", "kid": keys.signing_key.kid},
    )
    assert refusal(verifier.verify_aist, forged) == "TOKEN_SIGNATURE"


def test_a_changed_payload_is_refused(signer, verifier):
    header, _, signature = signer.sign_aist(AIST).split(".")
    changed = {**payload_of(signer.sign_aist(AIST)), "exp": NOW + 10**6}
    assert refusal(verifier.verify_aist, f"{header}.{encoded(changed)}.{signature}") == "TOKEN_SIGNATURE"


@pytest.mark.parametrize("kid", ["somebody-else", None])
def test_an_unknown_key_is_refused(keys, signer, verifier, kid):
    header = {"typ": "at+jwt"} if kid is None else {"typ": "at+jwt", "kid": kid}
    token = jwt.encode(payload_of(signer.sign_aist(AIST)), keys.signing_key.private, algorithm="ES256", headers=header)
    assert refusal(verifier.verify_aist, token) == "TOKEN_KEY_UNKNOWN"


@pytest.mark.parametrize("typ", ["JWT", "AT+JWT", "application/at+jwt", "", None])
def test_other_types_are_refused(keys, signer, verifier, typ):
    token = resigned(keys, signer.sign_aist(AIST), header={"typ": typ})
    assert refusal(verifier.verify_aist, token) == "TOKEN_TYPE"


def test_critical_extensions_are_refused(keys, signer, verifier):
    token = resigned(keys, signer.sign_aist(AIST), header={"crit": ["b64"], "b64": True})
    # Newer PyJWT refuses the header itself; older ones leave it to us.
    assert refusal(verifier.verify_aist, token) in {"TOKEN_MALFORMED", "TOKEN_ALGORITHM"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://other.example"}, "TOKEN_ISSUER"),
        ({"iss": None}, "TOKEN_ISSUER"),
        ({"aud": "https://bank.example"}, "TOKEN_AUDIENCE"),
        ({"aud": ["aipaging-gateway", "https://bank.example"]}, "TOKEN_AUDIENCE"),
        ({"aud": None}, "TOKEN_AUDIENCE"),
        ({"scope": "ai-paging:session:use admin"}, "TOKEN_SCOPE"),
        ({"scope": None}, "TOKEN_SCOPE"),
        ({"exp": None}, "TOKEN_CLAIMS"),
        ({"exp": "1900000000"}, "TOKEN_CLAIMS"),
        ({"exp": NOW + 60.5}, "TOKEN_CLAIMS"),
        ({"exp": True}, "TOKEN_CLAIMS"),
        ({"iat": -1}, "TOKEN_CLAIMS"),
        ({"sid": "not-a-session"}, "TOKEN_CLAIMS"),
        ({"sid": 7}, "TOKEN_CLAIMS"),
        ({"jti": ""}, "TOKEN_CLAIMS"),
        ({"jti": "x" * 300}, "TOKEN_CLAIMS"),
        ({"client_id": "client-2"}, "TOKEN_CLAIMS"),
        ({"sub": "acme"}, "TOKEN_CLAIMS"),
        ({"sub": "ACME/client-1"}, "TOKEN_CLAIMS"),
        ({"aisi": "http://10.0.0.1/"}, "TOKEN_CLAIMS"),
    ],
)
def test_claims_of_another_shape_are_refused(keys, signer, verifier, changes, code):
    assert refusal(verifier.verify_aist, resigned(keys, signer.sign_aist(AIST), changes=changes)) == code


@pytest.mark.parametrize(
    "claim", ["sub", "anchor", "term", "n", "lease_ms", "tenant", "rate_mrps", "burst", "delay_us", "epsilon", "jti"]
)
@pytest.mark.parametrize("value", [None, [], -1.5])
def test_a_receipt_with_a_bad_claim_is_refused(keys, signer, verifier, claim, value):
    token = resigned(keys, signer.sign_commit(COMMIT), changes={claim: value}, header={"typ": "ai-commit+jwt"})
    with pytest.raises(UnverifiedError) as caught:
        verifier.verify_commit(token)
    assert (caught.value.code, caught.value.field) == ("TOKEN_CLAIMS", claim)


def test_a_header_that_verified_once_opens_nothing_else(keys, signer, verifier):
    good = signer.sign_aist(AIST)
    assert verifier.verify_aist(good) == AIST
    header, payload, signature = good.split(".")
    assert refusal(verifier.verify_commit, good) == "TOKEN_TYPE"
    assert refusal(verifier.verify_aist, f"{header}.{payload}.{signature[::-1]}") in {
        "TOKEN_SIGNATURE",
        "TOKEN_MALFORMED",
    }
    assert refusal(verifier.verify_aist, resigned(keys, good, changes={"aud": "other"})) == "TOKEN_AUDIENCE"
    assert verifier.verify_aist(good) == AIST


def test_every_truncation_is_refused(signer, verifier):
    token = signer.sign_aist(AIST)
    assert verifier.verify_aist(token) == AIST
    for length in range(len(token)):
        with pytest.raises(UnverifiedError):
            verifier.verify_aist(token[:length])


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é.é.é", "\ud800", "x" * 5_000, "e30.e30.e30"])
def test_garbage_is_refused(verifier, token):
    with pytest.raises(UnverifiedError):
        verifier.verify_aist(token)


def test_rotation_keeps_old_tokens_and_an_old_set_knows_no_new_key(keys, signer, tmp_path):
    store = KeyStore.open(tmp_path / "keys")
    before = JwtSigner(store, ISSUER).sign_aist(AIST)
    rotated = store.rotated()
    after = JwtSigner(rotated, ISSUER).sign_aist(AIST)
    both = JwtVerifier(rotated.jwks(), ISSUER, lambda: WallUs(NOW * SECOND))
    old = JwtVerifier(store.jwks(), ISSUER, lambda: WallUs(NOW * SECOND))
    assert both.verify_aist(before) == both.verify_aist(after) == AIST
    assert refusal(old.verify_aist, after) == "TOKEN_KEY_UNKNOWN"


def test_a_key_set_with_a_private_or_foreign_key_is_refused(keys):
    (jwk,) = keys.jwks()["keys"]
    for bad in ({**jwk, "d": jwk["x"]}, {**jwk, "crv": "P-384"}, {**jwk, "x": "AA"}, {**jwk, "kty": "oct", "k": "AA"}):
        with pytest.raises(UnverifiedError) as caught:
            JwtVerifier({"keys": [bad]}, ISSUER, lambda: WallUs(0))
        assert caught.value.code == "KEY_SET_INVALID"


def test_text_forms_hold_no_key(signer, verifier):
    assert "kid" in repr(signer)
    assert "object at" not in f"{signer!r} {verifier!r}"


BOUND = structs.replace(AIST, certificate=hashlib.sha256(b"a certificate").hexdigest())


def test_a_bound_token_says_so_as_rfc_8705_has_it(signer, verifier):
    token = signer.sign_aist(BOUND)
    said = base64.urlsafe_b64encode(hashlib.sha256(b"a certificate").digest()).rstrip(b"=").decode()
    assert payload_of(token)["cnf"] == {"x5t#S256": said}
    assert verifier.verify_aist(token) == BOUND
    assert "cnf" not in payload_of(signer.sign_aist(AIST))


@pytest.mark.parametrize(
    "cnf",
    [
        "x5t#S256",
        {},
        [],
        {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"},
        {"x5t#S256": ""},
        {"x5t#S256": 7},
        {"x5t#S256": "A" * 42},
        {"x5t#S256": "A" * 42 + "B"},
        {"x5t#S256": "A" * 43 + "\n"},
        {"x5t#S256": "A" * 43, "jkt": "A" * 43},
    ],
)
def test_a_binding_that_is_not_understood_opens_nothing(keys, signer, verifier, cnf):
    token = resigned(keys, signer.sign_aist(AIST), changes={"cnf": cnf})
    assert refusal(verifier.verify_aist, token) == "TOKEN_CLAIMS"

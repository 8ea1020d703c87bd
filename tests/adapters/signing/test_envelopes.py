"""Signed envelopes: both algorithms, rotation, and every way in which bytes are not what they claim."""

import base64
import json
from pathlib import Path

import jwt
import pytest

from aipaging.adapters.signing.envelopes import (
    ALGORITHMS,
    ENVELOPE_TYPE,
    KEYS_MAX,
    SIGNED_BYTES_MAX,
    EnvelopeKeys,
    EnvelopeSignatures,
    key_set_from,
    unverified_payload,
)
from aipaging.adapters.signing.keys import KeyStore
from aipaging.core.envelope.document import (
    DelayContractModel,
    EnvelopeDocument,
    Guardrails,
    canonical_bytes,
)
from aipaging.core.envelope.refusals import (
    EnvelopeAlgorithmError,
    EnvelopeKeyUnknownError,
    EnvelopeNotSignedError,
    EnvelopeSignatureError,
    EnvelopeTooLargeError,
)
from aipaging.core.envelope.trust import SignedEnvelope
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, UnverifiedError
from aipaging.core.foundation.names import DomainName

DOCUMENT = EnvelopeDocument(
    version=1,
    domain="transport-fr",
    sequence=1,
    not_before="2026-11-22T00:00:00Z",
    not_after="2026-11-30T00:00:00Z",
    guardrails=Guardrails(rate_rps="10", burst=5),
    model=DelayContractModel(offset_ms="1", prefactor="1", decay_per_ms="0.5"),
)
TRANSPORT = DomainName("transport-fr")


def b64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def with_header(signed: SignedEnvelope, header: object) -> SignedEnvelope:
    _, payload, signature = signed.raw.split(b".")
    return SignedEnvelope(raw=b".".join((b64(json.dumps(header).encode()), payload, signature)))


def header_of(signed: SignedEnvelope) -> dict[str, str]:
    return jwt.get_unverified_header(signed.raw)


@pytest.fixture(params=ALGORITHMS)
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> EnvelopeKeys:
    return EnvelopeKeys.open(tmp_path / "keys", algorithm=request.param)


def test_what_is_signed_is_the_canonical_document(keys: EnvelopeKeys) -> None:
    signed = keys.signed(DOCUMENT)
    assert header_of(signed) == {"alg": keys.keys[-1].algorithm, "typ": ENVELOPE_TYPE, "kid": keys.keys[-1].kid}
    checked = EnvelopeSignatures({TRANSPORT: keys.jwks()}).checked(signed)
    assert checked.payload == canonical_bytes(DOCUMENT) == unverified_payload(signed)
    assert checked.signers == {TRANSPORT}
    assert keys == EnvelopeKeys.open(keys.directory) or EnvelopeKeys.open(keys.directory).jwks() == keys.jwks()


def test_keys_are_the_owners_alone_and_in_no_text(keys: EnvelopeKeys) -> None:
    (file,) = keys.directory.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Private" not in repr(keys)
    assert "d" not in keys.jwks()["keys"][0]
    file.chmod(0o644)
    with pytest.raises(AipagingError, match="chmod 600"):
        EnvelopeKeys.open(keys.directory)


def test_a_rotation_keeps_the_old_key_until_it_is_removed(keys: EnvelopeKeys) -> None:
    old = keys.signed(DOCUMENT)
    for algorithm in ALGORITHMS:
        rotated = keys.rotated(algorithm=algorithm)
        new = rotated.signed(DOCUMENT)
        assert header_of(new)["kid"] != header_of(old)["kid"]
        assert header_of(new)["alg"] == algorithm
        signatures = EnvelopeSignatures({TRANSPORT: rotated.jwks()})
        assert signatures.checked(old).payload == signatures.checked(new).payload
    (keys.directory / "envelope-0001.pem").unlink()
    with pytest.raises(EnvelopeKeyUnknownError):
        EnvelopeSignatures({TRANSPORT: EnvelopeKeys.open(keys.directory).jwks()}).checked(old)


def test_the_signer_is_whose_key_it_is(keys: EnvelopeKeys, tmp_path: Path) -> None:
    mallory = EnvelopeKeys.open(tmp_path / "mallory")
    squatting = {"keys": [{**mallory.jwks()["keys"][0], "kid": keys.keys[-1].kid}]}
    signatures = EnvelopeSignatures({DomainName("mallory"): squatting, TRANSPORT: keys.jwks()})
    assert signatures.checked(keys.signed(DOCUMENT)).signers == {TRANSPORT}
    forged = with_header(mallory.signed(DOCUMENT), header_of(keys.signed(DOCUMENT)))
    with pytest.raises((EnvelopeSignatureError, EnvelopeAlgorithmError)):
        EnvelopeSignatures({TRANSPORT: keys.jwks()}).checked(forged)


def test_every_bit_of_it_is_signed(keys: EnvelopeKeys) -> None:
    header, payload, signature = keys.signed(DOCUMENT).raw.split(b".")
    signatures = EnvelopeSignatures({TRANSPORT: keys.jwks()})
    changed = b64(canonical_bytes(DOCUMENT).replace(b'"sequence":1', b'"sequence":2'))
    other = bytes([signature[0] ^ 1]) if chr(signature[0] ^ 1).isalnum() else b"A" if signature[:1] != b"A" else b"B"
    for raw in ((header, changed, signature), (header, payload, other + signature[1:])):
        with pytest.raises(EnvelopeSignatureError):
            signatures.checked(SignedEnvelope(raw=b".".join(raw)))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"alg": "none"}, EnvelopeAlgorithmError),
        ({"alg": "HS256"}, EnvelopeAlgorithmError),
        ({"alg": "ES384"}, EnvelopeAlgorithmError),
        ({"typ": "ai-commit+jwt"}, EnvelopeNotSignedError),
        ({"typ": "at+jwt"}, EnvelopeNotSignedError),
        ({"kid": "another"}, EnvelopeKeyUnknownError),
        ({"crit": ["exp"]}, EnvelopeNotSignedError),
        ({"jku": "https://mallory.example/keys"}, EnvelopeNotSignedError),
        ({"kid": 7}, EnvelopeNotSignedError),
    ],
)
def test_a_header_that_is_not_ours_is_refused(keys: EnvelopeKeys, change, error) -> None:
    signed = keys.signed(DOCUMENT)
    with pytest.raises(error):
        EnvelopeSignatures({TRANSPORT: keys.jwks()}).checked(with_header(signed, {**header_of(signed), **change}))


def test_the_key_decides_about_the_algorithm(keys: EnvelopeKeys) -> None:
    signed = keys.signed(DOCUMENT)
    (other,) = set(ALGORITHMS) - {header_of(signed)["alg"]}
    with pytest.raises(EnvelopeAlgorithmError):
        EnvelopeSignatures({TRANSPORT: keys.jwks()}).checked(with_header(signed, {**header_of(signed), "alg": other}))


@pytest.mark.parametrize("raw", [b"", b"a.b", b"a.b.c.d", b"!.b.c", b"..", b"e30.e30.e30", b"a" * 600 + b".b.c"])
def test_bytes_that_are_no_jws_are_refused(raw: bytes) -> None:
    with pytest.raises(EnvelopeNotSignedError):
        EnvelopeSignatures({}).checked(SignedEnvelope(raw=raw))
    with pytest.raises(EnvelopeTooLargeError):
        EnvelopeSignatures({}).checked(SignedEnvelope(raw=b"a" * (SIGNED_BYTES_MAX + 1)))


def test_keys_of_tokens_do_not_sign_envelopes_by_accident(tmp_path: Path) -> None:
    store = KeyStore.open(tmp_path / "tokens")
    token = jwt.encode(
        {"iss": "x"}, store.signing_key.private, algorithm="ES256", headers={"kid": store.signing_key.kid}
    )
    with pytest.raises(EnvelopeNotSignedError):
        EnvelopeSignatures({TRANSPORT: store.jwks()}).checked(SignedEnvelope(raw=token.encode()))


def test_key_sets_are_checked(keys: EnvelopeKeys) -> None:
    raw = json.dumps(keys.jwks()).encode()
    assert key_set_from(raw) == keys.jwks()
    for bad in (b"", b"[]", b'{"keys": 1}', b"{}"):
        with pytest.raises(InvalidInputError):
            key_set_from(bad)
    jwk = keys.jwks()["keys"][0]
    with pytest.raises(UnverifiedError, match="not a public key"):
        EnvelopeSignatures({TRANSPORT: {"keys": [{**jwk, "x": "AAAA"}]}})
    with pytest.raises(UnverifiedError, match="more than"):
        EnvelopeSignatures({TRANSPORT: {"keys": [jwk] * (KEYS_MAX + 1)}})
    with pytest.raises(EnvelopeKeyUnknownError):
        EnvelopeSignatures({TRANSPORT: {"keys": [{**jwk, "use": "enc"}]}}).checked(keys.signed(DOCUMENT))


def test_a_document_that_contradicts_itself_is_not_signed(keys: EnvelopeKeys) -> None:
    from msgspec.structs import replace

    with pytest.raises(InvalidInputError):
        keys.signed(replace(DOCUMENT, not_after=DOCUMENT.not_before))

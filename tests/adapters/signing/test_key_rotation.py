"""Token keys change while everything runs: published ahead of use, and nobody is refused on the way."""

import uuid
from pathlib import Path

import pytest

from aipaging.adapters.signing.keys import KeyStore
from aipaging.adapters.signing.rotation import PUBLISHED_AHEAD_US, RotatingVerifier, TokenKeyRing
from aipaging.adapters.signing.tokens import JwtSigner, JwtVerifier
from aipaging.core.foundation.errors import UnverifiedError
from aipaging.core.foundation.names import ClientId, ServiceUri, SessionId, TenantId
from aipaging.core.foundation.time import SECOND, WallUs
from aipaging.core.identity.claims import AistClaims

ISSUER = "https://operator.example"
FETCHED_EVERY_US = 300 * SECOND


class Wall:
    def __init__(self) -> None:
        self.now_us = 1_800_000_000 * SECOND

    def __call__(self) -> WallUs:
        return WallUs(self.now_us)


def claims(now_us: int) -> AistClaims:
    return AistClaims(
        session=SessionId(str(uuid.uuid4())),
        tenant=TenantId("acme"),
        client=ClientId("app"),
        aisi=ServiceUri("aisi://op/svc/v1"),
        token_id=str(uuid.uuid4()),
        issued_us=WallUs(now_us),
        expires_us=WallUs(now_us + 3_600 * SECOND),
    )


def test_no_token_is_refused_by_whoever_fetches_the_keys_at_the_agreed_pace(tmp_path: Path) -> None:
    wall = Wall()
    ring = TokenKeyRing(KeyStore.open(tmp_path / "keys"), wall)
    signer, own = JwtSigner(ring, ISSUER), RotatingVerifier(ring, ISSUER, wall)
    first = ring.signing_key.kid
    fetched = JwtVerifier(ring.jwks(), ISSUER, wall)
    kids: list[str] = []
    for second in range(0, 2_000, 7):
        wall.now_us += 7 * SECOND
        if second == 70:
            KeyStore.open(tmp_path / "keys").rotated()
        if second % 300 < 7:
            fetched = JwtVerifier(ring.jwks(), ISSUER, wall)
        token = signer.sign_aist(claims(wall.now_us))
        kids.append(ring.signing_key.kid)
        fetched.verify_aist(token)
        own.verify_aist(token)
    assert kids[0] == first
    assert len(set(kids)) == 2, "the new key came into use"
    assert kids == sorted(kids, key=lambda kid: kid != first), "and the old one never again"
    assert PUBLISHED_AHEAD_US > 2 * FETCHED_EVERY_US


def test_a_restart_neither_shortens_nor_forgets_the_wait(tmp_path: Path) -> None:
    wall = Wall()
    ring = TokenKeyRing(KeyStore.open(tmp_path), wall)
    first = ring.signing_key.kid
    wall.now_us += 2 * PUBLISHED_AHEAD_US
    fresh = KeyStore.open(tmp_path).rotated().signing_key.kid
    for _ in range(3):  # the controller was down when the key came, and starts again and again
        wall.now_us += PUBLISHED_AHEAD_US // 4
        assert TokenKeyRing(KeyStore.open(tmp_path), wall).signing_key.kid == first
    wall.now_us += PUBLISHED_AHEAD_US
    assert TokenKeyRing(KeyStore.open(tmp_path), wall).signing_key.kid == fresh


def test_a_retired_key_verifies_until_its_file_is_removed(tmp_path: Path) -> None:
    wall = Wall()
    ring = TokenKeyRing(KeyStore.open(tmp_path), wall, ahead_us=0)
    signer, own = JwtSigner(ring, ISSUER), RotatingVerifier(ring, ISSUER, wall)
    old = signer.sign_aist(claims(wall.now_us))
    KeyStore.open(tmp_path).rotated()
    wall.now_us += 10 * SECOND
    assert signer.sign_aist(claims(wall.now_us)) != old
    own.verify_aist(old)
    (tmp_path / "token-0001.pem").unlink()
    wall.now_us += 10 * SECOND
    with pytest.raises(UnverifiedError):
        own.verify_aist(old)


def test_a_key_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    wall = Wall()
    ring = TokenKeyRing(KeyStore.open(tmp_path), wall)
    before = ring.jwks()
    broken = tmp_path / "token-0002.pem"
    broken.write_text("not a key")
    broken.chmod(0o600)
    wall.now_us += 10 * SECOND
    assert ring.jwks() == before
    broken.unlink()
    KeyStore.open(tmp_path).rotated()
    wall.now_us += 10 * SECOND
    assert len(ring.jwks()["keys"]) == 2

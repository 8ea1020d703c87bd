import os
import stat
import threading

import pytest

from aipaging.adapters.signing import files
from aipaging.adapters.signing.keys import KeyStore
from aipaging.core.foundation.errors import AipagingError, Who


def test_first_use_makes_private_files_and_the_second_loads_the_same_keys(tmp_path):
    directory = tmp_path / "made" / "keys"
    first = KeyStore.open(directory)
    second = KeyStore.open(directory)
    assert first.jwks() == second.jwks()
    assert first.checkpoint_key.private_bytes_raw() == second.checkpoint_key.private_bytes_raw()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "token-0001.pem": 0o600,
        "checkpoint.pem": 0o600,
    }


def test_rotation_signs_with_the_newest_and_keeps_the_older_in_the_set(tmp_path):
    old = KeyStore.open(tmp_path / "keys")
    new = old.rotated()
    assert new.signing_key.kid != old.signing_key.kid
    assert [key["kid"] for key in new.jwks()["keys"]] == [old.signing_key.kid, new.signing_key.kid]


def test_the_key_set_holds_public_members_only(tmp_path):
    (key,) = KeyStore.open(tmp_path / "keys").jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "alg", "use"}
    assert len(key["kid"]) == 43


@pytest.mark.parametrize("name", ["token-0001.pem", "checkpoint.pem"])
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_others_may_read_is_refused_naming_file_and_fix(tmp_path, name, mode):
    KeyStore.open(tmp_path / "keys")
    path = tmp_path / "keys" / name
    path.chmod(mode)
    with pytest.raises(AipagingError, match=f"chmod 600 {path}") as caught:
        KeyStore.open(tmp_path / "keys")
    assert (caught.value.code, caught.value.who) == ("KEY_FILE_PERMISSIONS", Who.OPERATOR)


def test_a_directory_that_others_may_write_is_refused(tmp_path):
    KeyStore.open(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o770)
    with pytest.raises(AipagingError, match="chmod 700"):
        KeyStore.open(tmp_path / "keys")


@pytest.mark.parametrize("name", ["token-0001.pem", "checkpoint.pem"])
def test_a_file_that_is_no_key_is_refused_and_not_quoted(tmp_path, name):
    KeyStore.open(tmp_path / "keys")
    (tmp_path / "keys" / name).write_text("-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n")
    with pytest.raises(AipagingError) as caught:
        KeyStore.open(tmp_path / "keys")
    assert caught.value.code == "KEY_FILE_UNREADABLE"
    assert "secret" not in caught.value.message
    assert caught.value.__cause__ is None


def test_a_key_of_the_wrong_kind_is_refused(tmp_path):
    KeyStore.open(tmp_path / "keys")
    checkpoint = (tmp_path / "keys" / "checkpoint.pem").read_bytes()
    (tmp_path / "keys" / "token-0001.pem").write_bytes(checkpoint)
    with pytest.raises(AipagingError) as caught:
        KeyStore.open(tmp_path / "keys")
    assert caught.value.code == "KEY_FILE_UNREADABLE"


def test_no_text_form_shows_private_material(tmp_path):
    store = KeyStore.open(tmp_path / "keys")
    pem = (tmp_path / "keys" / "token-0001.pem").read_text()
    body = "".join(pem.splitlines()[1:-1])
    shown = f"{store} {store!r} {store.signing_key!r} {store.jwks()}"
    private_number = store.signing_key.private.private_numbers().private_value
    assert body[40:60] not in shown
    assert str(private_number) not in shown
    assert f"{private_number:x}" not in shown
    assert "PRIVATE KEY" not in shown


def test_starts_at_the_same_time_agree_on_one_key(tmp_path):
    barrier = threading.Barrier(4)
    seen = []

    def start():
        barrier.wait()
        seen.append(KeyStore.open(tmp_path / "keys").jwks()["keys"][-1]["kid"])

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seen)) == 1
    assert len(list((tmp_path / "keys").iterdir())) == 2


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AipagingError, match="No space left") as caught:
        files.create_once(tmp_path / "key.pem", b"secret")
    assert caught.value.code == "KEY_FILE_UNUSABLE"
    assert list(tmp_path.iterdir()) == []

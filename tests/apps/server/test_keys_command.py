"""The command `aipaging keys` on a directory of keys, without a controller."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aipaging.adapters.signing.keys import thumbprint
from aipaging.adapters.terminal.guard import run
from aipaging.apps.server.keys_command import keys

CONFIGURATION = """
operator = { name = "o", trust_domain = "o.example", data_dir = "data" }
"""
KEYS_MAX = 10_000  # one in 64 begins with a hyphen: none of so many does once in 1e68


def hyphened() -> ec.EllipticCurvePrivateKey:
    made = (ec.generate_private_key(ec.SECP256R1()) for _ in range(KEYS_MAX))
    return next(key for key in made if thumbprint(key.public_key()).startswith("-"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "aipaging.toml"
    path.write_text(CONFIGURATION)
    folder = tmp_path / "data" / "keys"
    folder.mkdir(parents=True, mode=0o700)
    (tmp_path / "data").chmod(0o700)
    for number, key in enumerate((ec.generate_private_key(ec.SECP256R1()), hyphened()), start=1):
        file = folder / f"token-{number:04d}.pem"
        file.touch(mode=0o600)
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


@pytest.mark.parametrize(
    "order",
    [("{config}", "{key}", "--force"), ("--force", "{key}", "{config}"), ("--force", "{config}", "--", "{key}")],
)
def test_a_key_whose_id_begins_with_a_hyphen_can_be_named(
    config: Path, capsys: pytest.CaptureFixture[str], order: tuple[str, ...]
) -> None:
    assert run(keys, ["list", str(config), "--json"]) == 0
    first, second = (key["kid"] for key in json.loads(capsys.readouterr().out)["keys"])
    assert second.startswith("-")
    arguments = [each.format(config=config, key=second) for each in order]
    assert run(keys, ["retire", "--json", *arguments]) == 0
    assert [key["kid"] for key in json.loads(capsys.readouterr().out)["keys"]] == [first]


def test_a_mistyped_option_is_still_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(keys, ["retire", "--json", str(config), "--forse"]) == 2
    assert "--forse" in json.loads(capsys.readouterr().out)["error"]["message"]

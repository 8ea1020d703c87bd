import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aipaging.adapters.signing.notes import NoteSigner, NoteVerifier, verified_text
from aipaging.core.foundation.errors import InvalidInputError, UnverifiedError
from aipaging.ports.signing import CheckpointSigner

TEXT = "log.example/demo\n3\nFokSJ1xLBoZc5mcDLpK9dOcTLSRwJLGvxJ1EPzvw8fk=\n"
# The example of the format's own specification (c2sp.org/signed-note), signed by an implementation that is not ours.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)


@pytest.fixture
def signer():
    return NoteSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "log.example/demo")


def code(note, verifiers):
    with pytest.raises(UnverifiedError) as caught:
        verified_text(note, verifiers)
    return caught.value.code


def test_the_example_of_the_specification_verifies():
    verifier = NoteVerifier.from_text(SPEC_KEY)
    assert verifier.text == SPEC_KEY
    assert verified_text(SPEC_NOTE, [verifier]) == "This is an example message.\n"


def test_a_note_that_we_sign_has_the_specified_bytes(signer):
    port: CheckpointSigner = signer
    note = port.sign_note(TEXT)
    body, _, line = note.removesuffix("\n").rpartition("\n")
    assert body == TEXT
    dash, name, encoded = line.split(" ")
    raw = base64.b64decode(encoded)
    public = Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
    expected_hash = hashlib.sha256(b"log.example/demo\n\x01" + public.public_bytes_raw()).digest()[:4]
    assert (dash, name, raw[:4]) == ("—", port.key_name, expected_hash)
    public.verify(raw[4:], TEXT.encode())
    assert signer.verifier.text.split("+")[:2] == ["log.example/demo", expected_hash.hex()]


def test_round_trip_through_the_text_of_the_verifier(signer):
    verifier = NoteVerifier.from_text(signer.verifier.text + "\n")
    assert verified_text(signer.sign_note(TEXT), [verifier]) == TEXT


def test_any_changed_character_is_refused(signer):
    note = signer.sign_note(TEXT)
    for position in range(len(note)):
        changed = note[:position] + ("A" if note[position] != "A" else "B") + note[position + 1 :]
        with pytest.raises(UnverifiedError):
            verified_text(changed, [signer.verifier])


def test_other_signers_are_ignored_but_do_not_count(signer):
    witness = NoteSigner(Ed25519PrivateKey.generate(), "witness.example/w")
    note = signer.sign_note(TEXT) + witness.sign_note(TEXT).rpartition("\n\n")[2]
    assert verified_text(note, [signer.verifier]) == TEXT
    assert verified_text(note, [witness.verifier]) == TEXT
    stranger = NoteSigner(Ed25519PrivateKey.generate(), "log.example/demo")
    assert code(note, [stranger.verifier]) == "NOTE_UNSIGNED"
    assert code(note, []) == "NOTE_UNSIGNED"


def test_a_wrong_signature_of_a_known_key_refuses_the_note_even_beside_a_right_one(signer):
    witness = NoteSigner(Ed25519PrivateKey.generate(), "witness.example/w")
    note = signer.sign_note(TEXT) + witness.sign_note("other\n").rpartition("\n\n")[2]
    assert code(note, [signer.verifier, witness.verifier]) == "NOTE_SIGNATURE"


@pytest.mark.parametrize(
    "note",
    ["", "text\n", "text\n\n", "text\n\n\n", "text\n\n- dash a AAAAAAA=\n", "text\n\n— a AAAA\n", "text\n\n— a b c\n"],
)
def test_malformed_notes_are_refused(note, signer):
    assert code(note, [signer.verifier]) == "NOTE_MALFORMED"


def test_too_many_signatures_or_too_long_is_refused(signer):
    line = signer.sign_note(TEXT).rpartition("\n\n")[2]
    assert code(TEXT + "\n" + line * 101, [signer.verifier]) == "NOTE_MALFORMED"
    assert code("x" * 1_000_001, [signer.verifier]) == "NOTE_MALFORMED"


@pytest.mark.parametrize("text", ["no newline", "tab\there\n", "return\r\n", ""])
def test_texts_that_cannot_be_notes_are_refused(text, signer):
    with pytest.raises(InvalidInputError):
        signer.sign_note(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", " a", "a\n"])
def test_names_that_cannot_be_key_names_are_refused(name):
    with pytest.raises(InvalidInputError):
        NoteSigner(Ed25519PrivateKey.generate(), name)


@pytest.mark.parametrize(
    "text",
    ["", "name", SPEC_KEY.replace("530d903a", "530d903b"), SPEC_KEY.replace("+Aek", "+Bek"), SPEC_KEY[:-8], "a+b+c"],
)
def test_verifier_keys_that_are_altered_are_refused(text):
    with pytest.raises(InvalidInputError):
        NoteVerifier.from_text(text)


def test_the_signer_shows_its_public_half_only(signer):
    assert signer.verifier.text in repr(signer)
    assert base64.b64encode(bytes(range(32))).decode() not in repr(signer)

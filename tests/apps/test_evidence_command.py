"""`aipaging evidence` as its user sees it: documents, exit statuses, and what a forger achieves."""

import http.server
import json
import sqlite3
import threading
from base64 import b64decode
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aipaging.adapters.journal.sqlite.writer import SqliteJournal
from aipaging.adapters.signing.notes import NoteSigner
from aipaging.adapters.terminal.guard import run
from aipaging.apps.evidence.command import evidence
from aipaging.apps.evidence.verification import split_notes
from aipaging.core.evidence.log import EMPTY_LOG, Checkpoint
from aipaging.core.evidence.merkle import Frontier, leaf_hash, verify_inclusion
from aipaging.core.evidence.record import SealedEntry
from aipaging.testing.evidence import History, Plan, sealed_history

PLAN = Plan(sessions_per_second=3.0, duration_s=20.0)
SIGNER = NoteSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))), "log.example")
KEY = SIGNER.verifier.text


class Log:
    """A journal with a signed checkpoint every 64 records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = SqliteJournal(path, bytes(32), ballast_bytes=0, verifier_keys=(KEY,))
        assert self.journal.open() == EMPTY_LOG
        self.tree = Frontier()
        self.entries = sealed_history(History(5, PLAN))

    def grow(self, batches: int) -> str:
        note = ""
        for _ in range(batches):
            batch = list(islice(self.entries, 64))
            self.tree = self.tree.extended(entry.leaf_hash for entry in batch)
            text = Checkpoint(origin="log.example", size=self.tree.size, root=self.tree.root()).text()
            note = SIGNER.sign_note(text)
            self.journal.append(batch, note)
        return note


@pytest.fixture
def log(tmp_path: Path):
    made = Log(tmp_path / "journal.db")
    made.grow(10)
    yield made
    made.journal.close()


def call(*arguments: object) -> tuple[int, str]:
    """Return exit status and stdout, as the command line would give them."""
    runner = CliRunner()
    status = 0

    class Captured:
        @staticmethod
        def main(*, args: list[str], prog_name: str, standalone_mode: bool) -> object:
            return evidence.main(args=args, prog_name=prog_name, standalone_mode=standalone_mode)

    import click

    @click.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
    @click.pass_context
    def wrapped(ctx: click.Context) -> None:
        nonlocal status
        try:
            status = run(evidence, ctx.args)
        except SystemExit as left:
            status = int(left.code or 0)

    result: Result = runner.invoke(wrapped, [str(argument) for argument in arguments], standalone_mode=False)
    assert result.exception is None, result.exception
    return status, result.stdout


def verified(*arguments: object) -> tuple[int, dict]:
    status, out = call("verify", *arguments, "--json")
    return status, json.loads(out)


def sql(path: Path, statement: str, *arguments: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, arguments)
    connection.close()


def edit(path: Path, seq: int, old: str = '"wall_us":17', new: str = '"wall_us":18') -> None:
    sql(
        path,
        "UPDATE entries SET record = CAST(replace(CAST(record AS TEXT), ?, ?) AS BLOB) WHERE seq = ?",
        old,
        new,
        seq,
    )


def test_an_honest_log_is_verified_while_its_controller_runs(log: Log) -> None:
    status, document = verified(log.path)
    assert status == 0
    assert document.pop("sessions") > 10
    assert document == {
        "records": 640, "chain_ok": True, "tree_ok": True, "signatures_ok": True, "invariants_ok": True,
        "first_bad": None,
    }  # fmt: skip
    log.grow(1)
    assert verified(log.path)[1]["records"] == 704


@pytest.mark.parametrize("seq", [0, 100, 638, 639])
def test_an_edited_record_is_named(log: Log, seq: int) -> None:
    edit(log.path, seq)
    status, document = verified(log.path, "--key", KEY)
    assert status == 1
    assert not document["tree_ok"]
    assert document["first_bad"]["seq"] == seq
    assert document["first_bad"]["type"]
    assert document["first_bad"]["what"]


def test_a_deleted_record_is_named(log: Log) -> None:
    sql(log.path, "DELETE FROM entries WHERE seq = 300")
    status, document = verified(log.path)
    assert (status, document["chain_ok"], document["first_bad"]["seq"]) == (1, False, 300)


def test_a_forged_log_of_another_key_is_not_believed(log: Log, tmp_path: Path) -> None:
    other = NoteSigner(Ed25519PrivateKey.generate(), "log.example").verifier.text
    status, document = verified(log.path, "--key", other)
    assert (status, document["signatures_ok"], document["tree_ok"]) == (1, False, True)
    assert document["first_bad"]["invariant"] == "checkpoint signature"
    (tmp_path / "key").write_text(KEY + "\n")
    assert verified(log.path, "--key", tmp_path / "key")[0] == 0


def forged(log: Log, entries: list[SealedEntry]) -> None:
    """Put other records into the file, with hashes, tree and checkpoints to match, signed with the log's own key."""
    for table in ("entries", "subtrees", "checkpoints", "leaves"):
        sql(log.path, f"DELETE FROM {table}")
    log.journal.close()
    log.journal.open()
    tree = Frontier().extended(entry.leaf_hash for entry in entries)
    note = SIGNER.sign_note(Checkpoint(origin="log.example", size=tree.size, root=tree.root()).text())
    log.journal.append(entries, note)


def test_a_witness_catches_a_cut_log(log: Log, tmp_path: Path) -> None:
    witness = tmp_path / "witness.txt"
    with witness.open("a") as kept:
        for _ in range(3):
            kept.write(call("checkpoint", log.path)[1])
            log.grow(1)
    assert verified(log.path, "--witness", witness)[0] == 0
    forged(log, list(islice(sealed_history(History(5, PLAN)), 700)))
    assert verified(log.path)[0] == 0, "without a witness a cut log looks whole"
    status, document = verified(log.path, "--witness", witness)
    assert (status, document["tree_ok"], document["first_bad"]["seq"]) == (1, False, 700)
    assert str(witness) in document["first_bad"]["what"]


def test_a_witness_catches_a_rewritten_log(log: Log, tmp_path: Path) -> None:
    witness = tmp_path / "witness.txt"
    witness.write_text(call("checkpoint", log.path)[1])
    log.grow(1)
    forged(log, list(islice(sealed_history(History(6, PLAN)), 704)))
    assert verified(log.path)[0] == 0
    status, document = verified(log.path, "--witness", witness)
    assert (status, document["tree_ok"], document["chain_ok"]) == (1, False, True)


def test_checkpoints_are_all_compared(log: Log) -> None:
    sql(log.path, "UPDATE checkpoints SET note = (SELECT note FROM checkpoints WHERE size = 64) WHERE size = 640")
    assert verified(log.path)[0] == 0, "an older checkpoint twice is no lie"
    signed = SIGNER.sign_note(Checkpoint(origin="log.example", size=128, root=bytes(32)).text())
    sql(log.path, "UPDATE checkpoints SET note = ? WHERE size = 128", signed)
    status, document = verified(log.path)
    assert (status, document["tree_ok"], document["first_bad"]["seq"]) == (1, False, 64)


def test_stored_hashes_above_the_records_are_compared(log: Log) -> None:
    sql(log.path, "UPDATE subtrees SET hash = zeroblob(32) WHERE place = 1")
    status, document = verified(log.path)
    assert (status, document["tree_ok"], document["first_bad"]["seq"]) == (1, False, 256)


def test_a_log_without_checkpoints_is_not_signed(log: Log) -> None:
    sql(log.path, "DELETE FROM checkpoints")
    status, document = verified(log.path)
    assert (status, document["signatures_ok"]) == (1, False)


def test_an_exported_directory_is_verified_and_its_tampering_named(log: Log, tmp_path: Path) -> None:
    directory = tmp_path / "tiles"
    assert json.loads(call("export", log.path, directory, "--json")[1])["size"] == 640
    assert verified(directory)[1]["records"] == 640
    bundle = directory / "tile/entries/001"
    raw = bundle.read_bytes()
    bundle.write_bytes(raw.replace(b'"wall_us":17', b'"wall_us":18', 1))
    status, document = verified(directory)
    assert (status, document["first_bad"]["seq"]) == (1, 256)
    bundle.write_bytes(raw[:-1])
    assert verified(directory)[0] == 1
    bundle.unlink()
    status, document = verified(directory)
    assert (status, document["tree_ok"], document["first_bad"]["seq"]) == (1, False, 256)
    bundle.write_bytes(raw)
    leaves = next((directory / "leaves").iterdir())
    leaves.write_bytes(leaves.read_bytes().replace(b'"lease_ms":1', b'"lease_ms":9'))
    status, document = verified(directory)
    assert (status, document["invariants_ok"], document["first_bad"]["type"]) == (1, False, "LEASES_RENEWED")
    leaves.unlink()
    assert verified(directory)[1]["first_bad"]["type"] == "LEASES_RENEWED"


@pytest.fixture
def served(log: Log, tmp_path: Path):
    directory = tmp_path / "tiles"
    call("export", log.path, directory)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers["authorization"] != "Bearer secret":
                self.send_error(401)
            else:
                super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_url_is_verified_with_a_token(served: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    status, document = verified(served, "--token-file", token)
    assert (status, document["records"], document["signatures_ok"]) == (0, 640, True)
    status, out = call("verify", served, "--json")
    assert (status, json.loads(out)["error"]["code"]) == (3, "REFUSED")


@pytest.fixture
def busy(tmp_path: Path, log: Log) -> Iterator[tuple[str, list[str]]]:
    """A URL that answers every other request that it comes too often, and what it was asked for."""
    directory, asked = tmp_path / "busy", list[str]()
    assert call("export", log.path, directory)[0] == 0

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if len(asked) % 2 == 0:
                super().do_GET()
                return
            self.send_response(429)
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_who_verifies_by_url_waits_where_a_controller_says_so(busy: tuple[str, list[str]]) -> None:
    url, asked = busy
    status, document = verified(url)
    assert (status, document["records"], document["signatures_ok"]) == (0, 640, True)
    assert len(asked) >= 6
    assert asked[::2] == asked[1::2], "what was put off is asked for again"


def test_what_cannot_be_reached_is_not_available() -> None:
    status, out = call("verify", "http://127.0.0.1:9/", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (4, "NOT_REACHABLE")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["verify", "/nowhere"], 2), (["verify"], 2), (["proof", "/nowhere", "-1"], 2), (["show", "/etc/hostname"], 4)],
)
def test_bad_input_is_told_apart(arguments: list[str], status: int) -> None:
    got, out = call(*arguments, "--json")
    assert got == status
    assert json.loads(out)["error"]["message"]


@pytest.mark.parametrize("content", ["", "nonsense\n", "a\nb\nc\n\n\u2014 x AAAA\n"])
def test_a_witness_file_of_something_else_is_refused(log: Log, tmp_path: Path, content: str) -> None:
    (tmp_path / "witness").write_text(content)
    status, out = call("verify", log.path, "--witness", tmp_path / "witness", "--json")
    assert (status, json.loads(out)["error"]["code"]) == (2, "WITNESS_MALFORMED")


def test_show_filters_and_reads_batches(log: Log) -> None:
    lines = [json.loads(line) for line in call("show", log.path, "--type", "commit-granted", "--json")[1].splitlines()]
    assert {line["type"] for line in lines} == {"COMMIT_GRANTED"}
    session = lines[0]["session"]
    own = [json.loads(line) for line in call("show", log.path, "--session", session, "--json")[1].splitlines()]
    assert [line["type"] for line in own[:3]] == ["SESSION_REQUESTED", "COMMIT_GRANTED", "STEER_INSTALLED"]
    assert all(session in (line.get("session"), line.get("leaf", {}).get("session")) for line in own)
    assert any("leaf" in line for line in own)
    status, text = call("show", log.path, "--first", 3, "--count", 2)
    assert (status, len(text.splitlines())) == (0, 2)


def test_a_proof_leads_from_the_record_to_the_signed_root(log: Log) -> None:
    document = json.loads(call("proof", log.path, 300, "--json")[1])
    path = [bytes.fromhex(node) for node in document["proof"]]
    hashed = leaf_hash(document["record"].encode())
    root = b64decode(document["checkpoint"].split("\n")[2])
    assert verify_inclusion(hashed, 300, size=640, proof=path, root=root)
    text = call("proof", log.path, 300)[1]
    assert text.startswith("c2sp.org/tlog-proof@v1\nindex 300\n")
    assert text.endswith(document["checkpoint"])
    assert call("proof", log.path, 640, "--json")[0] == 2
    edit(log.path, 300)
    assert json.loads(call("proof", log.path, 300, "--json")[1])["error"]["code"] == "EVIDENCE_ALTERED"


def test_people_are_told_in_words(log: Log) -> None:
    status, text = call("verify", log.path)
    assert status == 0
    assert "640 records" in text
    edit(log.path, 100)
    status, text = call("verify", log.path)
    assert status == 1
    assert "first bad record: 100" in text
    assert "BROKEN" in text


def test_notes_of_several_signatures_stay_together() -> None:
    one = "o\n1\nr\n\n\u2014 a AAAA\n\u2014 b BBBB\n"
    assert split_notes(one + one + "\n" + one) == [one] * 3
    assert split_notes("") == []


@pytest.fixture
def spread(tmp_path: Path):
    """A journal of four files."""
    made = Log(tmp_path / "journal.db")
    for batches in (5, 3, 3, 3):
        made.grow(batches)
        assert made.journal.go_on()
    made.grow(1)
    made.journal._sealing.wait()
    yield made
    made.journal.close()


def test_a_journal_of_many_files_is_one_log_by_whatever_name(spread: Log, tmp_path: Path) -> None:
    assert len(list(tmp_path.glob("journal.db.0*[0-9]"))) == 4
    call("export", spread.path, tmp_path / "public")
    for source in (spread.path, tmp_path, spread.path.with_name(f"journal.db.{320:016}"), tmp_path / "public"):
        status, document = verified(source, "--key", KEY)
        assert (status, document["records"], document["first_bad"]) == (0, 960, None), source
    status, out = call("show", tmp_path, "--first", "318", "--count", "5", "--json")
    assert (status, [json.loads(line)["seq"] for line in out.splitlines()]) == (0, [318, 319, 320, 321, 322])
    assert call("proof", spread.path, "10")[0] == 0


def test_what_was_moved_away_is_named_and_nothing_is_said_to_be_verified(spread: Log, tmp_path: Path) -> None:
    call("export", spread.path, tmp_path / "public")
    away = tmp_path / "away"
    away.mkdir()
    spread.path.rename(away / "journal.db")
    for source in (spread.path, tmp_path, spread.path.with_name(f"journal.db.{896:016}")):
        status, document = verified(source)
        assert status == 4
        assert document["error"]["code"] == "JOURNAL_FILE_MISSING"
        assert "not verified: records 0 to 319" in document["error"]["message"]
        assert document["error"]["who"] == "operator"
    status, document = verified(tmp_path / "public", "--key", KEY)
    assert (status, document["records"]) == (0, 960)
    spread.grow(5)
    assert call("export", spread.path, tmp_path / "public")[0] == 0
    status, document = verified(tmp_path / "public", "--key", KEY)
    assert (status, document["records"]) == (0, 1_280)
    assert call("proof", spread.path, "1000")[0] == 0
    assert call("proof", spread.path, "10")[0] == 4
    assert call("show", spread.path)[0] == 4
    assert call("show", spread.path, "--first", "320", "--count", "1")[0] == 0
    status, document = verified(away)
    assert (status, document["records"], document["first_bad"]) == (0, 320, None)


@pytest.mark.parametrize("seq", [5, 319, 320, 700])
def test_an_edited_record_of_an_old_file_is_named(spread: Log, seq: int) -> None:
    first = max(place for place in (0, 320, 512, 704) if place <= seq)
    edit(spread.path.with_name(f"journal.db.{first:016}") if first else spread.path, seq)
    status, document = verified(spread.path, "--key", KEY)
    assert (status, document["first_bad"]["seq"], document["tree_ok"]) == (1, seq, False)


def test_an_old_file_that_is_cut_is_seen(spread: Log) -> None:
    sql(spread.path, "DELETE FROM entries WHERE seq > 150")
    status, document = verified(spread.path, "--key", KEY)
    assert (status, document["chain_ok"], document["first_bad"]["seq"]) == (1, False, 151)

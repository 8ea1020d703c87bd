"""`aipaging evidence`: verify, export, show, checkpoint, proof."""

import functools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from aipaging.adapters.journal.errors import FILE_MISSING
from aipaging.adapters.journal.sqlite.reader import SqliteEvidenceReader
from aipaging.adapters.journal.tiles import export as export_tiles
from aipaging.adapters.signing.notes import NoteVerifier
from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import note, say, write_json
from aipaging.apps.evidence.proof import inclusion, proof_document, proof_text
from aipaging.apps.evidence.source import Source, evidence_reader
from aipaging.apps.evidence.verification import Noted, verdict_document, verify, witnessed_checkpoints
from aipaging.core.evidence.finding import Verdict
from aipaging.core.evidence.log import noted_checkpoint
from aipaging.core.evidence.record import COMMON
from aipaging.core.foundation.errors import UnavailableError, UnverifiedError, Who
from aipaging.core.foundation.time import SECOND
from aipaging.ports.journal import EvidenceReader

PROGRESS_FROM: Final = 50_000
"""Shorter logs are verified before a progress bar could be read."""

_KEY_PLUSES: Final = 2
"""A verifier key is `<name>+<hash>+<key>`; anything else is looked for as a file."""

_file = click.Path(path_type=Path, exists=True, dir_okay=False)


def reads_log(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument SOURCE and its options, as an opened `reader`."""

    @functools.wraps(command)
    def opened(*, source: Source, **options: Any) -> None:
        command(reader=source.reader(), **options)

    return names_source(opened)


def names_source(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the argument SOURCE and its options, as one `source`."""

    @functools.wraps(command)
    def named(*, source: str, token_file: Path | None, ca_file: Path | None, **options: Any) -> None:
        command(source=Source(where=source, token_file=token_file, ca_file=ca_file), **options)

    with_token = click.option("--token-file", type=_file, help="For a URL: a file with the access token.")
    with_trust = click.option("--ca-file", type=_file, help="For a URL: the certificates to trust.")
    return click.argument("source")(with_token(with_trust(named)))


@click.group(
    epilog=examples(
        "aipaging evidence verify journal.db",
        "aipaging evidence checkpoint journal.db >> witness.txt     keep it on another machine",
        "aipaging evidence verify journal.db --witness witness.txt",
        "aipaging evidence export journal.db /var/www/evidence",
        "aipaging evidence show journal.db --session 6f1e…",
    )
)
def evidence() -> None:
    """Verify and read evidence logs: journals, exported directories, or a controller's /evidence/ URL."""


@evidence.command(
    "verify",
    epilog=examples(
        "aipaging evidence verify journal.db --key keys.json",
        "aipaging evidence verify https://control.example --token-file auditor.token --witness witness.txt --json",
    ),
)
@reads_log
@click.option("--witness", "witnesses", type=_file, multiple=True, help="Checkpoints that were kept elsewhere.")
@click.option("--key", "keys", multiple=True, help="The log's verifier key, as text or in a file.")
@json_option
def verify_command(
    *, reader: EvidenceReader, witnesses: tuple[Path, ...], keys: tuple[str, ...], as_json: bool
) -> None:
    """Check chain, tree and signatures of the log at SOURCE, and replay its invariants.

    SOURCE is a journal (any of its files, or their folder; also while its controller runs), an exported directory, or a
    URL. Exit status 1: something is wrong; the first bad record is named. 4: a file of the journal was moved away, so
    that nothing can be said; an export of the log has what was in it.
    """
    trusted = _trusted(reader, keys)
    witnessed = [noted for path in witnesses for noted in _witnessed(path)]
    try:
        with _progress(reader) as report:
            verdict = verify(reader, trusted, witnessed, report)
    except UnavailableError as error:
        if error.code != FILE_MISSING:
            raise
        what = f"the log was not verified: {error.message}; or verify an export of the log, which holds them too"
        raise UnavailableError(what, code=error.code) from error
    if isinstance(reader, SqliteEvidenceReader) and (successor := reader.continued_in()) is not None:
        note(f"the log goes on in {successor}, which is not there: what follows is not verified", style="yellow")
    if as_json:
        write_json(verdict_document(verdict))
    else:
        _show_verdict(verdict)
    if not verdict.ok:
        failed()


@evidence.command("export", epilog=examples("aipaging evidence export journal.db /var/www/evidence"))
@click.argument("journal", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@json_option
def export_command(*, journal: Path, directory: Path, as_json: bool) -> None:
    """Write the log of JOURNAL as static files (C2SP tlog-tiles) into DIRECTORY, adding to what is there."""
    done = export_tiles(evidence_reader(str(journal)), directory)
    if as_json:
        write_json({"old_size": done.old_size, "size": done.size, "files": done.files, "directory": str(directory)})
    else:
        say(f"{done.size} records in {directory} ({done.size - done.old_size} new, {done.files} files written)")


@evidence.command(
    "show",
    epilog=examples(
        "aipaging evidence show journal.db --type COMMIT_GRANTED --first 100 --count 20",
        "aipaging evidence show journal.db --session SESSION --json | jq .type",
    ),
)
@reads_log
@click.option("--session", help="Only records about this session, its lines of batches included.")
@click.option("--type", "types", multiple=True, help="Only records of this type; may be given several times.")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="The first record.")
@click.option("--count", "most", type=click.IntRange(min=1), help="At most so many.")
@json_option
def show_command(
    *, reader: EvidenceReader, session: str | None, types: tuple[str, ...], first: int, most: int | None, as_json: bool
) -> None:
    """Print records of the log at SOURCE, unverified; with --json one JSON line each."""
    for record in islice(_chosen(reader, session=session, types=types, first=first), most):
        if as_json:
            write_json(record)
        else:
            say(_line(record))


@evidence.command(
    "checkpoint",
    epilog=examples("aipaging evidence checkpoint journal.db >> witness.txt     keep it on another machine"),
)
@reads_log
@json_option
def checkpoint_command(*, reader: EvidenceReader, as_json: bool) -> None:
    """Print the newest signed checkpoint of SOURCE, for a witness to keep."""
    newest = _newest_note(reader)
    if as_json:
        said = noted_checkpoint(newest)
        write_json({"origin": said.origin, "size": said.size, "root": said.root.hex(), "note": newest})
    else:
        click.echo(newest, nl=False)


@evidence.command("proof", epilog=examples("aipaging evidence proof journal.db 46 --json"))
@reads_log
@click.argument("seq", type=click.IntRange(min=0))
@json_option
def proof_command(*, reader: EvidenceReader, seq: int, as_json: bool) -> None:
    """Print the proof that record SEQ is in the log of the newest checkpoint (C2SP tlog-proof)."""
    proof = inclusion(reader, seq, _newest_note(reader))
    if as_json:
        write_json(proof_document(proof))
    else:
        click.echo(proof_text(proof), nl=False)


def _trusted(reader: EvidenceReader, keys: Sequence[str]) -> list[NoteVerifier]:
    """Return the keys that are given, or those that the log names, saying what that is worth."""
    texts = [line for key in keys for line in _key_lines(key)]
    if not texts:
        texts = list(reader.verifier_keys())
        if texts:
            note("checked with the key that the log names itself: give --key to know who signed it", style="yellow")
        else:
            note("no key to check signatures with: give --key", style="yellow")
    return [NoteVerifier.from_text(text) for text in texts]


def _key_lines(key: str) -> list[str]:
    if key.count("+") < _KEY_PLUSES and Path(key).is_file():
        return Path(key).read_text(errors="replace").split()
    return [key]


def _witnessed(path: Path) -> list[Noted]:
    return witnessed_checkpoints(path.read_text(errors="replace"), str(path))


def _newest_note(reader: EvidenceReader) -> str:
    newest = next(iter(reader.checkpoints(newest=True)), None)
    if newest is None:
        raise UnavailableError("the log has no checkpoint yet", code="NO_CHECKPOINT")
    return newest


def _chosen(
    reader: EvidenceReader, *, session: str | None, types: Sequence[str], first: int
) -> Iterator[dict[str, Any]]:
    wanted = {record_type.upper().replace("-", "_") for record_type in types}
    for stored in reader.records(first):
        record = _decoded(stored.record)
        if wanted and record.get("type") not in wanted:
            continue
        if session is None or record.get("session") == session:
            yield record
        else:
            leaves = map(_decoded, stored.leaves or ())
            yield from ({**record, "leaf": leaf} for leaf in leaves if leaf.get("session") == session)


def _decoded(raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnverifiedError(
            "a record cannot be read: run `verify`", code="RECORD_MALFORMED", who=Who.OPERATOR
        ) from error


def _line(record: dict[str, Any]) -> str:
    """Return a record on one line for people."""
    when = datetime.fromtimestamp(record.get("wall_us", 0) / SECOND, tz=UTC).isoformat(timespec="milliseconds")
    fields = {**record, **record.get("leaf", {})}
    said = " ".join(f"{name}={value}" for name, value in fields.items() if name not in {*COMMON, "leaf"})
    return f"{record.get('seq', '?'):>8} {when} {record.get('type', '?'):<26} {said}"


def _show_verdict(verdict: Verdict) -> None:
    checks = {
        "hash chain": verdict.chain_ok,
        "Merkle tree": verdict.tree_ok,
        "signatures": verdict.signatures_ok,
        "invariants": verdict.invariants_ok,
    }
    say(f"{verdict.records} records, {verdict.sessions} sessions")
    for name, ok in checks.items():
        say(f"  {name:<12} {'ok' if ok else 'BROKEN'}", style="" if ok else "red")
    bad = verdict.first_bad
    if bad is not None:
        say(f"first bad record: {bad.seq} {bad.type}".rstrip())
        say(f"  {bad.what}")
        say(f"  breaks: {bad.invariant.value}")


@contextmanager
def _progress(reader: EvidenceReader) -> Generator[Callable[[int], None], None, None]:
    """Show a bar on stderr for long logs, where a person looks."""
    from rich.console import Console  # noqa: PLC0415 - 40 ms that short logs do not pay
    from rich.progress import Progress  # noqa: PLC0415

    newest = next(iter(reader.checkpoints(newest=True)), None)
    total = noted_checkpoint(newest).size if newest is not None else 0
    console = Console(stderr=True)
    if total < PROGRESS_FROM or not console.is_terminal:
        yield lambda _records: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("verifying", total=total)
        yield lambda records: bar.update(task, completed=records)

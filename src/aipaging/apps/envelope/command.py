"""`aipaging envelope`: fit, sign, verify, show, compose, diff, schema, keys."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from aipaging.adapters.signing.envelopes import ALGORITHMS, ES256, EnvelopeKeys
from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import note, say, table, write_json
from aipaging.apps.envelope.files import (
    read_any,
    read_draft,
    read_signed,
    remember,
    remembered,
    signatures_of,
)
from aipaging.apps.envelope.fit import FitRequest, draft_of, remarks
from aipaging.apps.envelope.plot import plot_envelope
from aipaging.apps.envelope.shown import differences, reference, schema, show, summary, weaker_at
from aipaging.apps.envelope.telemetry import measured
from aipaging.core.envelope.composition import Composite, Stage, published
from aipaging.core.envelope.document import EnvelopeDocument, canonical_bytes, digest_of, wall_us_of
from aipaging.core.envelope.refusals import EnvelopeRefusedError
from aipaging.core.envelope.trust import TrustedEnvelopes, VerifiedEnvelope
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import DomainName, checked_name
from aipaging.core.foundation.time import WallUs

_file = click.Path(path_type=Path, allow_dash=True)
_folder = click.Path(path_type=Path, file_okay=False)

out_option = click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
keys_option = click.option(
    "--keys", "key_sets", multiple=True, required=True, metavar="DOMAIN=FILE", help="Key set (JWKS) of a domain."
)
at_option = click.option("--at", help="Judge validity at this instant (UTC, 2026-01-31T12:00:00Z); default: now.")


@click.group(
    epilog=examples(
        "aipaging envelope fit delays.csv --domain transport-fr --out draft.json",
        "aipaging envelope sign draft.json --key-dir keys --out transport.jws",
        "aipaging envelope keys keys > transport.jwks",
        "aipaging envelope verify transport.jws --keys transport-fr=transport.jwks",
        "aipaging envelope show transport.jws",
    )
)
def envelope() -> None:
    """Tail-Risk Envelopes: measure one, sign it, verify it, put several together."""


@envelope.command(
    "fit",
    epilog=examples(
        "aipaging envelope fit delays.csv --domain transport-fr --out draft.json",
        "aipaging envelope fit delays.jsonl --domain transport-fr --confidence 0.99 --rate 20 --burst 10",
    ),
)
@click.argument("telemetry", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--domain", help="Whose delays; default: the only domain in the file, or end-to-end.")
@click.option("--segment", default="", help="The AISI that it is about; default: all traffic.")
@click.option("--sequence", type=click.IntRange(min=1), default=1, show_default=True, help="Its sequence number.")
@click.option(
    "--confidence",
    type=click.FloatRange(min=0.5, max=0.9999999),
    default=0.95,
    show_default=True,
    help="Probability that the promise holds.",
)
@click.option("--rate", type=float, help="Requests/s of one session; default: the mean rate of a tenant.")
@click.option("--burst", type=click.IntRange(min=1), default=1, show_default=True, help="Burst of one session.")
@click.option("--capacity", type=float, help="Requests/s of all sessions; default: the mean rate in the file.")
@click.option(
    "--days", type=click.IntRange(min=1, max=400), default=30, show_default=True, help="How long it is valid."
)
@click.option("--start", help="Begin of validity (UTC, 2026-01-31T12:00:00Z); default: now.")
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw bound and measurements (.svg or .png)."
)
@out_option
@json_option
def fit(*, start: str | None, plot: Path | None, out: Path | None, as_json: bool, **options: Any) -> None:
    """Fit an unsigned draft to the measured delays in TELEMETRY (.csv, .jsonl, .parquet).

    Conservative by construction: the draft lies above an upper confidence band of the measured tail, requests that were
    lost, failed, timed out or whose delay is unknown count, and correlated measurements count for less.
    """
    document, found, seen = draft_of(FitRequest(start=_instant(start), **options))
    if plot is not None:
        plot_envelope(document, plot, band=found.band, delays_ms=seen.delays_ms, requests=seen.requests)
    write_draft(document, out, as_json=as_json)
    for remark in remarks(found, seen):
        note(remark)


@envelope.command("sign", epilog=examples("aipaging envelope sign draft.json --key-dir keys --out transport.jws"))
@click.argument("draft", type=_file)
@click.option("--key-dir", type=_folder, required=True, help="The domain's keys; made on first use.")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default=ES256, show_default=True, help="Of a first key.")
@out_option
@json_option
def sign(*, draft: Path, key_dir: Path, algorithm: str, out: Path | None, as_json: bool) -> None:
    """Sign the document in DRAFT with the newest key of a directory."""
    document = read_draft(draft)
    keys = EnvelopeKeys.open(key_dir, algorithm=algorithm)
    signed = keys.signed(document)
    if out is not None:
        _write(out, signed.raw + b"\n")
    if as_json:
        write_json({"envelope": signed.raw.decode(), "digest": digest_of(document), "kid": keys.keys[-1].kid})
    elif out is None:
        click.echo(signed.raw)
    else:
        say(f"{out}: {document.domain} {document.sequence}, digest {digest_of(document)}")


@envelope.command("keys", epilog=examples("aipaging envelope keys keys --rotate > transport.jwks"))
@click.argument("directory", type=_folder)
@click.option("--rotate", is_flag=True, help="Add a key first; publish the new set before signing with it.")
@click.option("--algorithm", type=click.Choice(ALGORITHMS), default=ES256, show_default=True, help="Of a new key.")
@json_option
def keys_command(*, directory: Path, rotate: bool, algorithm: str, as_json: bool) -> None:
    """Print the public keys in DIRECTORY as a key set (JWKS), making a first key if there is none."""
    del as_json  # A key set is JSON in any case.
    keys = EnvelopeKeys.open(directory, algorithm=algorithm)
    write_json((keys.rotated(algorithm=algorithm) if rotate else keys).jwks())


@envelope.command(
    "verify",
    epilog=examples("aipaging envelope verify transport.jws --keys transport-fr=transport.jwks --state seen.json"),
)
@click.argument("signed", type=_file)
@keys_option
@click.option(
    "--state", type=click.Path(path_type=Path, dir_okay=False), help="Remember sequence numbers in this file."
)
@at_option
@json_option
def verify(*, signed: Path, key_sets: tuple[str, ...], state: Path | None, at: str | None, as_json: bool) -> None:
    """Check the signature, the domain, the validity and, with --state, the sequence number of SIGNED.

    Exit status 1: it is refused; the reason is a code of its own. The memory then stays as it was.
    """
    signatures = signatures_of(key_sets)
    trusted = remembered(state)
    now = _instant(at)
    try:
        trusted, verified = trusted.accepting(signatures.checked(read_signed(signed)), now)
    except EnvelopeRefusedError as error:
        if as_json:
            write_json({"verified": False, "code": error.code, "message": error.message, "field": error.field})
        else:
            say(f"REFUSED {error.code}: {error.message}", style="red")
        failed()
    remember(state, trusted)
    document = verified.document
    if as_json:
        write_json(
            {
                "verified": True,
                "domain": document.domain,
                "segment": document.segment,
                "sequence": document.sequence,
                "digest": verified.digest,
                "kid": verified.key_id,
                "notAfter": document.not_after,
            }
        )
    else:
        say(f"verified: {document.domain} {document.sequence}, valid until {document.not_after}", style="green")
        say(f"digest {verified.digest}")


@envelope.command("show", epilog=examples("aipaging envelope show transport.jws"))
@click.argument("file", type=_file)
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw bound and budget (.svg or .png).")
@click.option(
    "--telemetry", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Draw these delays too."
)
@json_option
def show_command(*, file: Path, plot: Path | None, telemetry: Path | None, as_json: bool) -> None:
    """Print the envelope in FILE, signed or not, and what it promises. Its signature is not checked."""
    document, signed = read_any(file)
    if plot is not None:
        seen = measured(telemetry, document.domain) if telemetry is not None else None
        plot_envelope(
            document,
            plot,
            delays_ms=seen.delays_ms if seen is not None else None,
            requests=seen.requests if seen is not None else 0,
        )
    if as_json:
        write_json(summary(document, signed=signed))
        return
    show(document, signed=signed)
    if signed:
        note("the signature was not checked: run `aipaging envelope verify`", style="yellow")


@envelope.command(
    "compose",
    epilog=examples(
        "aipaging envelope compose access.jws compute.jws --keys access=a.jwks --keys compute=c.jwks --domain op"
    ),
)
@click.argument("signed", type=_file, nargs=-1, required=True)
@keys_option
@click.option("--domain", required=True, help="Who publishes the composite, and will sign it.")
@click.option("--segment", default="", help="The AISI that it is about; default: all traffic.")
@click.option("--sequence", type=click.IntRange(min=1), default=1, show_default=True, help="Its sequence number.")
@click.option(
    "--reshaper", "reshapers", multiple=True, metavar="DOMAIN=MS", help="Delay of a re-shaper before a domain."
)
@at_option
@out_option
@json_option
def compose(**options: Any) -> None:
    """Put the envelopes SIGNED, in the order of the path, into one unsigned document. Each is verified first."""
    _compose(_Composition(**options))


@envelope.command("diff", epilog=examples("aipaging envelope diff old.jws new.jws"))
@click.argument("before", type=_file)
@click.argument("after", type=_file)
@json_option
def diff(*, before: Path, after: Path, as_json: bool) -> None:
    """Print what differs between two envelopes, and where AFTER promises less. Signatures are not checked."""
    one, other = read_any(before)[0], read_any(after)[0]
    found, weaker = differences(one, other), weaker_at(one, other)
    if as_json:
        write_json({"differences": found, "weaker_at": weaker})
        return
    if not found:
        say("no difference")
        return
    table(("member", "before", "after"), ((each["member"], each["before"], each["after"]) for each in found))
    if weaker:
        say("promises a longer delay at P = " + ", ".join(f"{epsilon:g}" for epsilon in weaker), style="yellow")


@envelope.command("schema", epilog=examples("aipaging envelope schema > envelope.schema.json"))
@click.option("--markdown", is_flag=True, help="Every member as a table, for people.")
@json_option
def schema_command(*, markdown: bool, as_json: bool) -> None:
    """Print the JSON Schema of the document."""
    if markdown and not as_json:
        click.echo(reference(), nl=False)
    elif as_json:
        write_json(schema())
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(schema()), indent=2))


def write_draft(document: EnvelopeDocument, out: Path | None, *, as_json: bool) -> None:
    """Print an unsigned document, or write it and say so."""
    canonical = canonical_bytes(document)
    pretty = msgspec.json.format(canonical, indent=2)
    if out is not None:
        _write(out, pretty + b"\n")
        if not as_json:
            say(f"{out}: a draft of {document.domain} {document.sequence}, not signed")
    if as_json:
        click.echo(canonical)
    elif out is None:
        click.echo(pretty)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Composition:
    signed: tuple[Path, ...]
    key_sets: tuple[str, ...]
    domain: str
    segment: str
    sequence: int
    reshapers: tuple[str, ...]
    at: str | None
    out: Path | None
    as_json: bool


def _compose(asked: _Composition) -> None:
    parts = _verified_parts(asked.signed, asked.key_sets, _instant(asked.at))
    delays = dict(map(_reshaper, asked.reshapers))
    unknown = set(delays) - {part.document.domain for part in parts}
    if unknown:
        raise InvalidInputError(f"--reshaper names {min(unknown)}, which is no part", field="reshaper")
    stages = tuple(Stage(verified=part, reshaper_delay_ms=delays.get(part.document.domain, 0.0)) for part in parts)
    document = published(
        Composite(stages=stages),
        domain=DomainName(checked_name(asked.domain, field="domain")),
        sequence=asked.sequence,
        segment=asked.segment,
    )
    write_draft(document, asked.out, as_json=asked.as_json)


def _verified_parts(signed: tuple[Path, ...], key_sets: tuple[str, ...], now: WallUs) -> list[VerifiedEnvelope]:
    signatures, trusted = signatures_of(key_sets), TrustedEnvelopes()
    parts: list[VerifiedEnvelope] = []
    for path in signed:
        trusted, verified = trusted.accepting(signatures.checked(read_signed(path)), now)
        parts.append(verified)
    return parts


def _reshaper(text: str) -> tuple[str, float]:
    domain, _, delay = text.partition("=")
    try:
        return domain, float(delay)
    except ValueError:
        raise InvalidInputError(f"--reshaper is {text!r}: DOMAIN=MS is expected", field="reshaper") from None


def _instant(at: str | None) -> WallUs:
    return WallUs(time.time_ns() // 1_000) if at is None else wall_us_of(at, field="at")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be written: {error.strerror}", field="out") from None

"""`aipaging audit`: verdicts, alarms, estimates and blame, from files."""

from pathlib import Path
from typing import Any, Final

import click

from aipaging.adapters.terminal.guard import examples, failed, json_option
from aipaging.adapters.terminal.output import say, table, write_json
from aipaging.apps.audit import disclosure
from aipaging.apps.audit.metrics import export_histograms, judge_histograms
from aipaging.apps.audit.notary import note_signer, note_verifiers
from aipaging.apps.audit.recheck import recheck_audit
from aipaging.apps.audit.report import audit_report
from aipaging.apps.audit.run import Request, root_only, run_audit
from aipaging.apps.audit.watch import event_line, watch_telemetry
from aipaging.core.audit.accounts import Resampled
from aipaging.core.audit.betting import WINDOW_REQUESTS
from aipaging.core.audit.commitment import PROVEN_MAX, Commitment
from aipaging.core.audit.record import signed_text
from aipaging.core.audit.verdict import Multiplicity
from aipaging.core.foundation.errors import InvalidInputError

SEED_MAX: Final = 2**63 - 1
"""What a beacon gives, and every reader of the document holds."""

telemetry_argument = click.argument("telemetry", type=click.Path(path_type=Path))
contract_option = click.option(
    "--contract", "contract_file", type=click.Path(path_type=Path), required=True, help="Contract file (TOML)."
)
alpha_option = click.option(
    "--alpha",
    type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Error probability of all verdicts together, on each side.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0, max=SEED_MAX),
    default=0,
    show_default=True,
    help="Decides every random choice.",
)
beacon_option = click.option(
    "--beacon",
    type=click.Path(path_type=Path),
    help="File that decides the seed: published after the commitment, and not to be predicted.",
)
commitment_option = click.option(
    "--commitment", "commitment_file", type=click.Path(path_type=Path), help="What the provider committed to."
)
provider_key_option = click.option(
    "--provider-key", "provider_keys", multiple=True, help="Verifier key of the commitment, as text or in a file."
)
key_option = click.option("--key", type=click.Path(path_type=Path), help="Ed25519 key to sign with; made on first use.")
key_name_option = click.option("--key-name", help="Name of the key in the signature, such as auditor.example.")
output_option = click.option("--output", type=click.Path(path_type=Path), required=True, help="File to write.")


@click.group(
    epilog=examples(
        "aipaging audit run telemetry.parquet --contract contract.toml --alpha 0.05",
        "aipaging audit commit telemetry.parquet --origin provider.example/nov --key p.pem --output c.note",
        "aipaging audit open telemetry.parquet --commitment c.note --beacon b.note --sample 9000 --output o.jsonl",
        "aipaging audit run o.jsonl --contract contract.toml --commitment c.note --beacon b.note --json",
        "aipaging audit watch telemetry.jsonl --contract contract.toml --window 5000",
        "aipaging audit report telemetry.parquet --contract contract.toml --output audit.html",
        "aipaging audit histograms metrics.json --contract contract.toml",
        "aipaging audit recheck audit.json telemetry.parquet --contract contract.toml",
    )
)
def audit() -> None:
    """Verdicts about tail delays: complete or sampled, with blame and estimates."""


@audit.command(
    epilog=examples(
        "aipaging audit commit telemetry.parquet --origin provider.example/nov --key provider.pem --output c.note"
    )
)
@telemetry_argument
@click.option("--origin", required=True, help="Name of these records, such as provider.example/2026-11.")
@key_option
@key_name_option
@output_option
@json_option
def commit(telemetry: Path, *, output: Path, as_json: bool, **options: Any) -> None:
    """Commit to the records of TELEMETRY, before anybody knows which of them will be opened.

    The commitment is a checkpoint (origin, number of records, Merkle root), signed with --key. Publish it, or have it
    witnessed; then let a beacon decide the seed.
    """
    document = disclosure.commit(telemetry, output, **options)
    if as_json:
        write_json(document)
        return
    say(f"{document['size']} records, root {document['root']}")
    if document["verifier_key"]:
        say(f"verifier key {document['verifier_key']}")


@audit.command(
    "open",
    epilog=examples(
        "aipaging audit open telemetry.parquet --commitment c.note --beacon beacon.note --sample 9000 --output o.jsonl"
    ),
)
@telemetry_argument
@commitment_option
@provider_key_option
@seed_option
@beacon_option
@click.option("--sample", type=click.IntRange(min=1, max=PROVEN_MAX), required=True, help="How many records to open.")
@output_option
@json_option
def open_command(telemetry: Path, *, commitment_file: Path | None, as_json: bool, **options: Any) -> None:
    """Open the records of TELEMETRY that a seed picks, each with the proof that it was committed to.

    What is written is all that an auditor needs: `run` takes it in place of the telemetry.
    """
    committed = _committed(commitment_file, None, options["provider_keys"])
    if committed is None:
        raise InvalidInputError("give --commitment", field="commitment")
    seed = disclosure.seed_of(options["seed"], options["beacon"])
    document = disclosure.open_records(telemetry, options["output"], committed, seed=seed, count=options["sample"])
    if as_json:
        write_json(document)
    else:
        say(f"opened {document['opened']} of {document['size']} records, seed {document['seed']}")


@audit.command(
    epilog=examples(
        "aipaging audit run telemetry.parquet --contract contract.toml --alpha 0.05",
        "aipaging audit run o.jsonl --contract contract.toml --commitment c.note --beacon beacon.note --json",
    )
)
@telemetry_argument
@contract_option
@alpha_option
@seed_option
@beacon_option
@click.option("--sample", type=click.IntRange(min=1), help="Open so many records at random instead of counting all.")
@commitment_option
@click.option("--root", help="Root of the commitment in hex, where the file is not at hand.")
@provider_key_option
@click.option(
    "--multiplicity",
    type=click.Choice([one.value for one in Multiplicity]),
    default=Multiplicity.SPLIT.value,
    show_default=True,
    help="How several verdicts share alpha.",
)
@key_option
@key_name_option
@json_option
def run(telemetry: Path, *, contract_file: Path, as_json: bool, **options: Any) -> None:
    """Judge TELEMETRY, or opened records, against every contract of a file.

    Exit status 1 if a contract is violated, or if the records are not those that were committed to.
    """
    request = Request(
        alpha=options["alpha"],
        seed=disclosure.seed_of(options["seed"], options["beacon"]),
        sample=options["sample"],
        committed=_committed(options["commitment_file"], options["root"], options["provider_keys"]),
        multiplicity=Multiplicity(options["multiplicity"]),
    )
    document = run_audit(telemetry, contract_file, request)
    if options["key"] is not None:
        signer = note_signer(options["key"], options["key_name"] or "auditor")
        document["notes"] = [signer.sign_note(signed_text(record)) for record in document["records"]]
        document["verifier_key"] = signer.verifier.text
    if as_json:
        write_json(document)
    else:
        _show(document)
    mismatch = document["provenance"]["root_matches"] is False
    if mismatch or any(verdict["verdict"] == "violated" for verdict in document["verdicts"]):
        failed()


def _committed(file: Path | None, root: str | None, keys: tuple[str, ...]) -> Commitment | None:
    if file is not None:
        return disclosure.read_commitment(file, note_verifiers(keys))
    return None if root is None else root_only(root)


@audit.command(epilog=examples("aipaging audit watch telemetry.jsonl --contract contract.toml --window 5000"))
@telemetry_argument
@contract_option
@alpha_option
@click.option(
    "--window",
    type=click.IntRange(min=1),
    default=WINDOW_REQUESTS,
    show_default=True,
    help="Requests per window: long against the dependence.",
)
@json_option
def watch(telemetry: Path, *, contract_file: Path, alpha: float, window: int, as_json: bool) -> None:
    """Raise an alarm as soon as TELEMETRY, in its order, gives evidence of a violation.

    With --json, a line per alarm and a last one per contract. Exit status 1 if there was an alarm.
    """
    alarms = 0
    for event in watch_telemetry(telemetry, contract_file, alpha=alpha, window=window):
        alarms += event["event"] == "alarm"
        if as_json:
            write_json(event)
        else:
            say(event_line(event))
    if alarms:
        failed()


@audit.command(
    epilog=examples("aipaging audit estimate telemetry.parquet --contract contract.toml --json | jq '.estimates'")
)
@telemetry_argument
@contract_option
@seed_option
@json_option
def estimate(telemetry: Path, *, contract_file: Path, seed: int, as_json: bool) -> None:
    """Estimate extreme percentiles of TELEMETRY, with intervals and what they assume."""
    found = run_audit(telemetry, contract_file, Request(seed=seed))["estimates"]
    if as_json:
        write_json({"estimates": found})
        return
    for one in found:
        label = f"{one['domain']} p{100 * one['quantile']:g} by {one['method']}"
        effect = "" if one["design_effect"] is None else f"; design effect {one['design_effect']:.2f}"
        say(f"{label}: {one['refused'] or _interval(one)}{effect}")


@audit.command(
    epilog=examples("aipaging audit attribute telemetry.parquet --contract contract.toml --json | jq '.attribution'")
)
@telemetry_argument
@contract_option
@seed_option
@click.option(
    "--resample",
    type=click.Choice([one.value for one in Resampled]),
    default=Resampled.WINDOWS.value,
    show_default=True,
    help="Over what the intervals are: windows of time, or sessions (a column `session`).",
)
@json_option
def attribute(telemetry: Path, *, contract_file: Path, seed: int, resample: str, as_json: bool) -> None:
    """Say which domain made requests of TELEMETRY late, beyond what its contract permits."""
    request = Request(seed=seed, resampled=Resampled(resample))
    found = run_audit(telemetry, contract_file, request)["attributions"]
    if as_json:
        write_json({"attributions": found})
        return
    for one in found:
        _show_blame(one)


@audit.command(epilog=examples("aipaging audit recheck audit.json telemetry.parquet --contract contract.toml"))
@click.argument("document", type=click.Path(path_type=Path))
@telemetry_argument
@contract_option
@commitment_option
@provider_key_option
@click.option("--verifier-key", "verifier_keys", multiple=True, help="The auditor's key: every verdict must be signed.")
@json_option
def recheck(document: Path, telemetry: Path, *, contract_file: Path, as_json: bool, **options: Any) -> None:
    """Do an audit again from the files alone, and compare with the DOCUMENT that `run --json` wrote.

    Exit status 1 if anything differs, if a signature is wrong, or if a root does not match.
    """
    found = recheck_audit(
        document,
        telemetry,
        contract_file,
        committed=_committed(options["commitment_file"], None, options["provider_keys"]),
        verifiers=note_verifiers(options["verifier_keys"]),
    )
    same = not found.differences
    if as_json:
        write_json({"same": same, "differences": found.differences, "signatures": found.signatures})
    else:
        say("the same" if same else "\n".join(found.differences))
    if not same:
        failed()


@audit.command(epilog=examples("aipaging audit report telemetry.parquet --contract contract.toml --output audit.html"))
@telemetry_argument
@contract_option
@alpha_option
@seed_option
@output_option
@json_option
def report(telemetry: Path, *, contract_file: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Write the audit of TELEMETRY as one HTML file with plots, which needs nothing else."""
    page = audit_report(telemetry, contract_file, **options)
    disclosure.write(output, page.encode())
    if as_json:
        write_json({"output": str(output)})
    else:
        say(f"wrote {output}")


@audit.command(epilog=examples("aipaging audit histograms metrics.json --contract contract.toml"))
@click.argument("metrics", type=click.Path(path_type=Path))
@contract_option
@alpha_option
@json_option
def histograms(metrics: Path, *, contract_file: Path, alpha: float, as_json: bool) -> None:
    """Judge the histograms in METRICS, where there are no records: an OTLP export in JSON, or a scrape of Prometheus.

    A bucket around the contracted delay widens the counts. Exit status 1 if a contract is violated.
    """
    document = judge_histograms(metrics, contract_file, alpha=alpha)
    if as_json:
        write_json(document)
    else:
        _show_verdicts(document)
        _show_flaws(document)
    if any(verdict["verdict"] == "violated" for verdict in document["verdicts"]):
        failed()


@audit.command(
    epilog=examples(
        "aipaging audit export telemetry.parquet --contract contract.toml --format openmetrics --output metrics.txt"
    )
)
@telemetry_argument
@contract_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["otlp", "openmetrics"]),
    default="otlp",
    show_default=True,
    help="OTLP in JSON, or OpenMetrics text.",
)
@output_option
@json_option
def export(telemetry: Path, *, contract_file: Path, form: str, output: Path, as_json: bool) -> None:
    """Write the delays of TELEMETRY as histograms: for OTLP, or as native histograms of Prometheus."""
    disclosure.write(output, export_histograms(telemetry, contract_file, form=form).encode())
    if as_json:
        write_json({"output": str(output)})
    else:
        say(f"wrote {output}")


def _interval(one: dict[str, Any]) -> str:
    ends = ("unbounded" if one[name] is None else f"{one[name]:.3f} ms" for name in ("delay_ms", "low_ms", "high_ms"))
    value, low, high = ends
    return f"{value} ({low} to {high}), assuming that {one['assumption']}"


def _show(document: dict[str, Any]) -> None:
    _show_verdicts(document)
    say()
    say(document["multiplicity"]["statement"])
    if document["attribution"] is not None:
        _show_blame(document["attribution"])
    _show_flaws(document)


def _show_flaws(document: dict[str, Any]) -> None:
    for name, flaw in document["data_quality"]["flaws"].items():
        say(f"{name}: {flaw['count']}; {flaw['effect']}")


def _show_verdicts(document: dict[str, Any]) -> None:
    rows = [
        (
            verdict["domain"],
            verdict["tenant"],
            verdict["verdict"],
            verdict["requests"],
            f"{verdict['exceedances_low']}..{verdict['exceedances_high']}",
            verdict["exceedances_allowed"],
            verdict["method"],
        )
        for verdict in document["verdicts"]
    ]
    headings = ("domain", "tenant", "verdict", "requests", "exceedances", "allowed", "method")
    table(headings, rows, right=(3, 4, 5))


def _show_blame(attribution: dict[str, Any]) -> None:
    say()
    rows = [("permitted by the contracts", f"{attribution['permitted']:.3e}", "", "")]
    rows += [
        (f"blame of {name}", f"{one['blame']:.3e}", f"{one['low']:.3e}", f"{one['high']:.3e}")
        for name, one in attribution["domains"].items()
    ]
    rows += [
        ("unattributed", f"{attribution['unattributed']:.3e}", "", ""),
        ("observed", f"{attribution['observed']:.3e}", "", ""),
    ]
    table(("end to end", "fraction late", "low", "high"), rows, right=(1, 2, 3))

"""`aipaging anchors enrol`: the identity of an anchor's sidecar, issued on the controller's machine."""

import time
from pathlib import Path

import click

from aipaging.adapters.signing.ca import CertificateAuthority
from aipaging.adapters.signing.files import private_directory
from aipaging.adapters.terminal.guard import examples, json_option
from aipaging.adapters.terminal.output import say, write_json
from aipaging.apps.server.config import load_config
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import checked_name
from aipaging.core.foundation.time import WallUs


@click.command(
    "enrol",
    epilog=examples(
        "aipaging anchors enrol embeddings-eu-1 --config aipaging.toml --out identity-1",
        "aipaging anchors enrol embeddings-eu-1 --config aipaging.toml --out identity-1 --lifetime-hours 168 --json",
    ),
)
@click.argument("anchor")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), required=True, help="The controller's configuration."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for cert.pem, key.pem and ca.pem.")
@click.option(
    "--lifetime-hours",
    type=click.IntRange(1, 720),
    default=24,
    show_default=True,
    help="The sidecar must start within it; from then on it renews by itself.",
)
@json_option
def enrol(*, anchor: str, config_file: Path, out: Path, lifetime_hours: int, as_json: bool) -> None:
    """Write the identity of ANCHOR's sidecar: a key, a certificate and whom to trust.

    Runs where the controller's data directory is. Carry the folder to the anchor's host; nobody without an identity
    may heartbeat, ask for leases, or be steered to.
    """
    checked_name(anchor, field="anchor")
    config = load_config(config_file, wall_us=_now_us())
    data_dir = config.operator.data_dir
    if out.resolve().is_relative_to(data_dir / "ca"):
        raise InvalidInputError("--out lies in the authority's own folder", field="out")
    private_directory(data_dir)
    authority = CertificateAuthority.open(data_dir / "ca", config.operator.trust_domain, clock=_now_us)
    authority.write_identity(out, "anchor", anchor, lifetime_s=lifetime_hours * 3600)
    if as_json:
        write_json({"anchorId": anchor, "directory": str(out), "lifetimeHours": lifetime_hours})
        return
    say(f"the identity of {anchor} is in {out} (cert.pem, key.pem, ca.pem), good for {lifetime_hours} hours")


def _now_us() -> WallUs:
    return WallUs(time.time_ns() // 1000)

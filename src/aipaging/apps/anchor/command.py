"""The command `aipaging anchor`."""

import json
import sys
import tomllib
from pathlib import Path
from typing import Any, Final

import click

from aipaging.adapters.sidecar.settings import CONCURRENCY_DEFAULT, QUEUE_DEFAULT, USAGE_S_DEFAULT, Timeouts

_TIMEOUTS: Final = Timeouts()

EXAMPLES: Final = """\b
Examples:
  aipaging anchor --id paris-1 --upstream http://127.0.0.1:8000 \\
    --controller https://controller.example:8444 --identity /etc/aipaging/paris-1 --listen 0.0.0.0:9443
  aipaging anchor --id ollama-1 --upstream http://127.0.0.1:11434 --upstream-health-path / ...
  aipaging anchor --id hosted-1 --upstream https://api.example --upstream-authorization-file key.txt ...
  aipaging anchor --id paris-1 --concurrency 32 --slots acme=8 --slots globex=4 ...
  aipaging anchor --id paris-1 --first-byte-s 60 --gap-s 30 ...
  aipaging anchor --config anchor.toml            options from a file: id = "paris-1", upstream = "http://...", ...
Exit status: 0 drained, 2 invalid input, 4 the address cannot be listened on.
"""


def _options_from_file(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Take defaults from a TOML file whose keys are the names of the options; the command line wins."""
    if value is None:
        return None
    try:
        said = tomllib.loads(value.read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror}", ctx=ctx, param=param) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{value}: {error}", ctx=ctx, param=param) from None
    names = {
        option.removeprefix("--"): (known.name, known.multiple)
        for known in ctx.command.params
        if isinstance(known, click.Option)
        for option in known.opts
        if known.name not in {"config", "as_json", "help"}
    }
    defaults: dict[str, object] = {}
    for key, setting in said.items():
        name, multiple = names.get(key, (None, False))
        if name is None:
            raise click.BadParameter(
                f"{value}: there is no {key!r}; known are {', '.join(names)}", ctx=ctx, param=param
            )
        if multiple and isinstance(setting, list) and all(isinstance(each, str) for each in setting):
            defaults[name] = tuple(setting)
            continue
        if multiple or not isinstance(setting, str | int | float | bool):
            wanted = "a list of texts" if multiple else "a text, a number or a truth"
            raise click.BadParameter(f"{value}: {key} must be {wanted}", ctx=ctx, param=param)
        defaults[name] = setting
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return value


@click.command("anchor", epilog=EXAMPLES)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    is_eager=True,
    expose_value=False,
    callback=_options_from_file,
    help="TOML file with these options; what is given here as well wins.",
)
@click.option("--id", "anchor_id", required=True, help="The anchor's id, as it was enrolled.")
@click.option("--upstream", required=True, help="Base URL of the model server: anything that speaks HTTP.")
@click.option("--controller", required=True, help="https://host:port of the controller's southbound listener.")
@click.option(
    "--identity",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder with cert.pem, key.pem and ca.pem, from `aipaging anchors enrol`.",
)
@click.option("--listen", default="127.0.0.1:9443", show_default=True, help="Address; port 0 takes a free one.")
@click.option("--plaintext", is_flag=True, help="Listen without TLS: on loopback only.")
@click.option(
    "--concurrency",
    default=CONCURRENCY_DEFAULT,
    show_default=True,
    help="Slots: requests at the model server at the same time.",
)
@click.option(
    "--queue", "waiting_max", default=QUEUE_DEFAULT, show_default=True, help="Requests that may wait for a slot."
)
@click.option(
    "--slots",
    metavar="TENANT=COUNT",
    multiple=True,
    help="Slots that are this tenant's own, used by nobody else; may be given for several tenants.",
)
@click.option(
    "--without-reservations",
    is_flag=True,
    help="Enforce no guardrail and serve first come, first served: to measure what reservations are worth.",
)
@click.option(
    "--first-byte-s",
    type=click.FloatRange(min=0, min_open=True),
    default=_TIMEOUTS.first_byte_s,
    show_default=True,
    help="How long the model server may take until its answer begins; then the client is answered 504.",
)
@click.option(
    "--gap-s",
    type=click.FloatRange(min=0, min_open=True),
    default=_TIMEOUTS.gap_s,
    show_default=True,
    help="How long an answer that has begun may stand still; then it is broken off, visibly.",
)
@click.option(
    "--usage-s",
    type=click.FloatRange(min=0.1, max=3600),
    default=USAGE_S_DEFAULT,
    show_default=True,
    help="How often the controller is told what sessions used: what a crash of the sidecar loses at most.",
)
@click.option(
    "--otlp-endpoint",
    help="Where spans go (extra `tracing`): OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces. Off by default.",
)
@click.option(
    "--upstream-authorization-file",
    "authorization_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File whose one line is sent upstream as `authorization`, such as 'Bearer KEY'.",
)
@click.option(
    "--upstream-health-path",
    "health_path",
    default="/health",
    show_default=True,
    help="What to GET to see that the upstream answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line on stdout when ready.")
def anchor(*, as_json: bool, **said: Any) -> None:
    """Run the sidecar of an anchor: the enforcement point before a model server.

    It lets pass what has a valid COMMIT for this anchor, fences old epochs, cuts answers in flight when their lease
    ends, queues fairly by reservation, and tells the controller how it is. SIGTERM drains: the controller moves the
    sessions away, what is under way runs to the end of its lease.
    """
    from aipaging.apps.anchor.program import Options, checked, run  # noqa: PLC0415 - --help stays fast

    program = checked(Options(**said))

    def ready(port: int) -> None:
        if as_json:
            sys.stdout.write(
                json.dumps(
                    {"listening": f"{program.scheme}://{program.host}:{port}", "anchor": program.settings.anchor}
                )
            )
            sys.stdout.write("\n")
            sys.stdout.flush()
        else:
            click.echo(f"anchor {program.settings.anchor} on {program.host}:{port}; Ctrl-C drains", err=True)

    run(program, ready)

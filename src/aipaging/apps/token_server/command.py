"""The command `aipaging token-server`."""

from pathlib import Path
from typing import Any

import click

from aipaging.apps.token_server.fault import FAULT_KINDS

EXAMPLES = """\b
Distributions: 20, constant(20), exponential(mean=20), lognormal(median=200, sigma=0.6),
  gamma(shape=2, scale=10), empirical(FILE), empirical(FILE.csv:COLUMN)

\b
Examples:
  aipaging token-server --listen 127.0.0.1:8102
  aipaging token-server --first-token-ms 'lognormal(median=180, sigma=0.5)' \\
    --gap-ms 'gamma(shape=4, scale=5)' --tokens 'exponential(mean=120)' --seed 7
  aipaging token-server --slots 16 --gap-ms 'batched(fixed=8, per_stream=0.5)'
  aipaging token-server --trace measured.jsonl --json
  aipaging token-server --fault truncate:5 --fault-every 10
"""


@click.command("token-server", epilog=EXAMPLES)
@click.option("--listen", default="127.0.0.1:8102", show_default=True, help="Address; port 0 takes a free one.")
@click.option(
    "--first-token-ms",
    default="lognormal(median=150, sigma=0.4)",
    show_default=True,
    help="Time from the slot to the first token.",
)
@click.option(
    "--gap-ms",
    default="gamma(shape=4, scale=5)",
    show_default=True,
    help="Time between tokens; batched(fixed=8, per_stream=0.5) makes it depend on how many streams run.",
)
@click.option("--tokens", default="exponential(mean=100)", show_default=True, help="Tokens of an answer.")
@click.option(
    "--trace",
    type=click.Path(path_type=Path, dir_okay=False),
    help="CSV with a header, or .jsonl: first_token_ms, gap_ms, tokens; requests take its rows in turn.",
)
@click.option("--seed", default=0, show_default=True, help="Of all dice.")
@click.option(
    "--slots", default=64, show_default=True, type=click.IntRange(1, 100_000), help="Requests served at the same time."
)
@click.option(
    "--queue",
    "queue_max",
    default=1024,
    show_default=True,
    type=click.IntRange(0, 1_000_000),
    help="Requests that may wait for a slot; past that the answer is 429.",
)
@click.option(
    "--fault",
    help=f"{', '.join(FAULT_KINDS)}, after a number of tokens where that can be: truncate:5. For tests.",
)
@click.option(
    "--fault-every", default=1, show_default=True, type=click.IntRange(1), help="Break every n-th answer only."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line on stdout when ready.")
def token_server(*, listen: str, as_json: bool, **options: Any) -> None:
    """Generate load like a language model: its timing, and placeholder words.

    THIS IS NOT A MODEL.

    Answers POST /v1/chat/completions (streaming or not), GET /v1/models and GET /healthz in OpenAI's form, and labels
    every answer. Timing follows distributions or a trace, and is the same for the same seed and order of requests; a
    request's own `seed` fixes its timing whatever its order. A request header `x-load-generator-fault: reset:3` breaks
    that one answer.
    """
    from aipaging.adapters.upstream.listening import parsed_address, run_server  # noqa: PLC0415  --help stays fast
    from aipaging.apps.token_server.distribution import parsed_distribution  # noqa: PLC0415
    from aipaging.apps.token_server.endpoint import TokenService, TransportProtocol  # noqa: PLC0415
    from aipaging.apps.token_server.fault import parsed_fault  # noqa: PLC0415
    from aipaging.apps.token_server.timing import Timing, parsed_gap, read_trace  # noqa: PLC0415

    address = parsed_address(listen)
    timing = Timing(
        first_token_ms=parsed_distribution(options["first_token_ms"], field="--first-token-ms"),
        gap_ms=parsed_gap(options["gap_ms"], field="--gap-ms"),
        tokens=parsed_distribution(options["tokens"], field="--tokens"),
        seed=options["seed"],
        trace=read_trace(options["trace"]) if options["trace"] else (),
    )
    service = TokenService(
        timing,
        slots=options["slots"],
        queue_max=options["queue_max"],
        fault=parsed_fault(options["fault"], field="--fault") if options["fault"] else None,
        fault_every=options["fault_every"],
    )
    announcement = {
        "model": "load-generator",
        "label": "a load generator, not a model",
        "slots": options["slots"],
        "seed": options["seed"],
    }
    run_server(service, address, announcement=announcement, as_json=as_json, protocol=TransportProtocol)

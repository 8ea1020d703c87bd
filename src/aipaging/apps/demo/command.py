"""`aipaging demo`: the main job on embedded defaults, told as it goes."""

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from aipaging.apps.demo.acts import Acts, Story
from aipaging.apps.demo.clients import DemoClients
from aipaging.apps.demo.stack import ANCHORS, Stack

EXAMPLES = """
\b
Examples:
  aipaging demo                 # tell the story, then stay up until Ctrl-C
  aipaging demo --once          # tell the story and end
  aipaging demo --once --json   # one JSON object on stdout; exit status 0 only if every check held
"""


@click.command(epilog=EXAMPLES)
@click.option("--once", is_flag=True, help="End when the story has been told.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout; the story goes to stderr.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-data"),
    show_default=True,
    help="Where keys, the journal and logs of this run lie; emptied first.",
)
def demo(*, once: bool, as_json: bool, folder: Path) -> None:
    """Run controller, Envoy, three sidecars, two real models and a load generator, and put them through it.

    Sends envelopes that every domain signed itself, pages intents (one is refused, with reasons), sends real requests
    with the official openai client through Envoy, moves a session under load, supersedes the envelope that it rests
    on, makes an anchor slow (the audit finds it), kills an anchor, lets a lease expire while a stream runs, kills the
    controller and shows that steering dies on time, restarts it, and verifies the evidence. Everything stays on
    loopback.
    """
    story = asyncio.run(_demo(folder.resolve(), once=once, as_json=as_json))
    held = all(check.ok for check in story.checks)
    if as_json:
        document = {**story.result, "checks": [asdict(check) for check in story.checks]}
        sys.stdout.write(json.dumps(document) + "\n")
    sys.exit(0 if held else 1)


async def _demo(folder: Path, *, once: bool, as_json: bool) -> Story:
    console = Console(stderr=as_json, highlight=False)
    story = Story(say=partial(console.print, soft_wrap=True))
    stack = Stack.prepared(folder)
    clients = DemoClients(stack)
    try:
        with console.status("starting controller, Envoy, three sidecars and their model servers"):
            await stack.start()
            await clients.until_ready(len(ANCHORS))
        await Acts(stack, clients, story).play()
        held = sum(check.ok for check in story.checks)
        console.print(f"[bold]{held} of {len(story.checks)} checks held.[/] Logs, journal and configuration: {folder}")
        if not once:
            await _stay(console, stack)
    finally:
        await clients.close()
        await asyncio.to_thread(stack.stop)
    return story


def environment(stack: Stack) -> dict[str, str]:
    """Return what the commands and programs of the documentation find in their environment."""
    return {
        "AIPAGING_URL": f"http://127.0.0.1:{stack.ports.northbound}",
        "AIPAGING_CREDENTIAL_FILE": str(stack.folder / "client.secret"),
        "PATH": f"{Path(sys.executable).parent}:$PATH",
    }


async def _stay(console: Console, stack: Stack) -> None:
    exports = "\n".join(f'  export {name}="{value}"' for name, value in environment(stack).items())
    console.print(
        f"""
It stays up until Ctrl-C. In another terminal:
{exports}
  aipaging page --task embeddings --place access-paris --delay 250ms --epsilon 0.001 --rate 5
  aipaging sessions list
  aipaging evidence verify {stack.journal}
""",
        markup=False,
        soft_wrap=True,
    )
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, over.set)
    with contextlib.suppress(asyncio.CancelledError):
        await over.wait()
    console.print("stopping")

"""`aipaging serve`: run the controller until told to stop."""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import uvloop

from aipaging.apps.server.config import load_config
from aipaging.apps.server.controller import Controller
from aipaging.runtime.clock import SystemClock
from aipaging.runtime.garbage import collect_seldom
from aipaging.runtime.json_log import log_to_stderr

EXAMPLES = """
\b
Examples:
  aipaging config example > aipaging.toml
  aipaging config check aipaging.toml
  aipaging serve aipaging.toml
  aipaging serve aipaging.toml --json     # one line on stdout when it is ready
"""


@click.command(epilog=EXAMPLES)
@click.argument("config", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout when ready.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="What the log on stderr leaves out: everything less serious.",
)
def serve(config: Path, *, as_json: bool, log_level: str) -> None:
    """Run the controller with its gateway, as CONFIG says, until SIGINT or SIGTERM.

    The configuration is checked completely before anything starts. On SIGTERM the gateway drains: streams finish,
    then everything ends. A controller that is killed leaves the gateway running under its leases. On SIGHUP CONFIG is
    read anew, also on one that came while it started: see `aipaging reload`.
    """
    hang_ups = HangUps()
    signal.signal(signal.SIGHUP, lambda _number, _frame: hang_ups.heard())
    os.umask(0o077)  # journal, keys and sockets are the operator's alone
    log_to_stderr(getattr(logging, log_level.upper()))
    checked = load_config(config, wall_us=SystemClock().now().wall_us)
    uvloop.run(_run(Controller(checked), hang_ups, as_json=as_json))


class HangUps:
    """What SIGHUP does: it reloads, and those that come before there is something to reload are kept as one."""

    def __init__(self) -> None:
        self._act: Callable[[], None] | None = None
        self._kept = False

    def heard(self) -> None:
        """Take a signal."""
        if self._act is None:
            self._kept = True  # an operator's script must not end a controller that is recovering
        else:
            self._act()

    def ready(self, act: Callable[[], None]) -> None:
        """Act from now on, and at once if a signal was kept: what it was about may have been read before it came."""
        self._act = act
        if self._kept:
            act()


async def _run(controller: Controller, hang_ups: HangUps, *, as_json: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, hang_ups.heard)
    reloads: set[asyncio.Task[object]] = set()

    def reload() -> None:
        task: asyncio.Task[object] = asyncio.create_task(controller.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    collect_seldom()  # a recovery makes nothing but what stays
    await controller.start()
    collect_seldom()
    hang_ups.ready(reload)
    ready = {
        "northbound": controller.northbound_url,
        "gateway": controller.gateway_url,
        "dataDir": str(controller.config.operator.data_dir),
        "term": controller.engine.state.term,
    }
    if as_json:
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
    else:
        click.echo(f"API      {ready['northbound']}\ngateway  {ready['gateway']}\nstop with Ctrl-C", err=True)
    await ended.wait()
    await controller.stop()

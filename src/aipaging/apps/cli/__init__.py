"""The `aipaging` command."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line that the process was started with."""
    from aipaging.adapters.terminal.guard import run  # noqa: PLC0415 - importing this package stays free
    from aipaging.apps.cli.registry import aipaging  # noqa: PLC0415

    sys.exit(run(aipaging, sys.argv[1:]))

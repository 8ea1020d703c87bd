"""`python -m aipaging.apps.cli`: the `aipaging` command where no script is on the path."""

from aipaging.apps.cli import main

main()

"""Every block of a page that is marked `run` runs, on one real stack if it needs one, and prints what the page says.

    ```console run        lines after `$ ` are commands, after `> ` their continuation, the rest is their output
    ```python run         a program; a following block ```text output``` is what it prints

All blocks of a page share one shell. Ids, tokens, addresses, instants and counters are compared by kind; a line of
`...` stands for any lines, `...` within a line for anything.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from aipaging.apps.demo.clients import DemoClients
from aipaging.apps.demo.command import environment
from aipaging.apps.demo.configuration import DOMAINS, promise
from aipaging.apps.demo.stack import ANCHORS, Stack
from aipaging.core.foundation.time import WallUs

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(?P<language>\w+) (?P<mark>run|output)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
    if any(found["mark"] == "run" for found in FENCE.finditer(page.read_text()))
]

ALONE = {
    ROOT / "docs" / page
    for page in (
        "how-to/audit-a-period.md",
        "how-to/draw-bounds.md",
        "how-to/events-and-sinks.md",
        "how-to/external-issuer.md",
        "reference/simulation.md",
    )
}
"""Pages whose commands ask no controller: they run without one, and beside other tests."""


@dataclass(frozen=True)
class Command:
    """One command of a page, and what it is said to print."""

    line: int
    script: str
    printed: str


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    prepared = Stack.prepared(tmp_path_factory.mktemp("docs") / "demo-data")

    async def up() -> None:
        clients = DemoClients(prepared)
        try:
            await prepared.start()
            await clients.until_ready(len(ANCHORS), 120.0)
            for name, *_ in DOMAINS:
                status, answer = await clients.promise(promise(name, now=WallUs(time.time_ns() // 1_000)))
                assert status == 201, answer
        finally:
            await clients.close()

    try:
        asyncio.run(up())
        yield prepared
    finally:
        prepared.stop()


def _id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.real
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ALONE], ids=_id)
def test_blocks_print_what_the_page_says(page: Path, stack: Stack, tmp_path: Path) -> None:
    (tmp_path / "demo-data").symlink_to(stack.folder)
    # What the demo tells a reader to export, and nothing else that a page could rest on.
    exported = {name: value.replace("$PATH", os.environ["PATH"]) for name, value in environment(stack).items()}
    _require_what_it_says(page, tmp_path, {**exported, "HOME": str(stack.folder)})


@pytest.mark.parametrize("page", sorted(ALONE), ids=_id)
def test_blocks_that_ask_no_controller_print_what_the_page_says(page: Path, tmp_path: Path) -> None:
    assert page in PAGES
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    _require_what_it_says(page, tmp_path, {"PATH": path, "HOME": str(tmp_path)})


def _require_what_it_says(page: Path, tmp_path: Path, variables: dict[str, str]) -> None:
    """Run all blocks of a page in one shell, and raise unless each printed what stands below it."""
    commands = list(_commands(page.read_text(), tmp_path))
    script = "".join(
        f"{{ {command.script}\n}} > {number}.out 2>&1 < /dev/null\necho $? > {number}.status\n"
        for number, command in enumerate(commands)
    )
    ran = subprocess.run(
        ["bash", "-c", script],
        check=False,
        cwd=tmp_path,
        env={**variables, "LC_ALL": "C.UTF-8", "TERM": "dumb", "COLUMNS": "150"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ran.returncode == 0, ran.stderr
    for number, command in enumerate(commands):
        printed = (tmp_path / f"{number}.out").read_text()
        where = f"{page.relative_to(ROOT)}:{command.line}: {command.script}"
        assert (tmp_path / f"{number}.status").read_text().strip() == "0", f"{where}\n{printed}"
        assert re.fullmatch(_expected(command.printed), _by_kind(printed)), (
            f"{where}\n--- the page says\n{command.printed}\n--- it printed\n{printed}"
        )


def _commands(text: str, folder: Path) -> Iterator[Command]:
    """Yield the commands of a page in order; programs become files beside the shell."""
    blocks = list(FENCE.finditer(text))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        line = text.count("\n", 0, block.start()) + 2
        if block["mark"] == "run" and block["language"] == "python":
            program = folder / f"line_{line}.py"
            program.write_text(block["text"])
            printed = following["text"] if following is not None and following["mark"] == "output" else "...\n"
            yield Command(line, f"python {program.name}", printed)
        elif block["mark"] == "run":
            yield from _of_console(block["text"], line)


def _of_console(text: str, line: int) -> Iterator[Command]:
    script: list[str] = []
    printed: list[str] = []
    begun = line
    for number, row in enumerate(text.splitlines(), line):
        if row.startswith("$ "):
            if script:
                yield Command(begun, "\n".join(script), "".join(printed))
            script, printed, begun = [row[2:]], [], number
        elif row.startswith("> ") and script and not printed:
            script.append(row[2:])
        else:
            printed.append(row + "\n")
    if script:
        yield Command(begun, "\n".join(script), "".join(printed))


KINDS = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "ID"),
    (r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+00:00)", "INSTANT"),
    (r"127\.0\.0\.1:\d+", "ADDRESS"),
    (r"eyJ[\w.-]+", "TOKEN"),
    (r"\b[0-9a-f]{64}\b", "DIGEST"),
    (r"\b[\d,]+ of 4,000 ms", "SOME ms"),
    (r"epoch \d+\.\d+", "epoch E"),
    (r"\b\d+ (records|sessions|new|files)", r"N \1"),
    (r"^ *\d+ (?=INSTANT)", "SEQ "),
    (r"[A-Za-z0-9+/]{43,}=*", "BASE64"),
    (r"log\n\d+\n", "log\nSIZE\n"),
    (r"[ \t]+", " "),
    (r" $", ""),
)


def _by_kind(text: str) -> str:
    for pattern, kind in KINDS:
        text = re.sub(pattern, kind, text, flags=re.MULTILINE)
    return text.strip("\n") + "\n"


def _expected(printed: str) -> str:
    """Return the pattern of what a page says is printed."""
    pattern = re.escape(_by_kind(printed))
    pattern = re.sub(r"(?m)^\\\.\\\.\\\.\\?\n", r"(?:.*\n)*?", pattern)
    return pattern.replace(r"\.\.\.", ".*")


def test_a_page_that_says_something_else_is_found() -> None:
    said = "session  7e94edf1-8d11-4c27-b805-a40f556dd337\n...\nanchor   paris-1\n"
    ran = "session  525a2e1a-169b-48be-9df1-f6226cff0bad\nstatus   AVAILABLE\nanchor   paris-1\n"
    assert re.fullmatch(_expected(said), _by_kind(ran))
    assert not re.fullmatch(_expected(said), _by_kind(ran.replace("paris-1", "dublin-1")))
    assert not re.fullmatch(_expected(said), _by_kind(ran + "more\n"))


def test_there_is_bash() -> None:
    assert shutil.which("bash"), "the pages are written for bash"

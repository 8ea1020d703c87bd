"""What pages say about the rest of the repository is so: links, folders, commands, targets, generated pages."""

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import click
import pytest

from aipaging.adapters.southbound.app import LOOK_UP_PATH, SouthboundRoutes
from aipaging.apps.cli.registry import COMMANDS, aipaging
from aipaging.apps.server.config_schema import sections
from aipaging.ports.steering import SteeringDriver
from aipaging.testing.steering import STEERING_CHECKS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "changelog.d").glob("*.md")])
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SOURCES = {".py", ".lua"}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text())
    for link in LINK.findall(prose):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in _anchors(path), f"{link}: there is no such heading"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    reached, open_pages = {index}, [index]
    while open_pages:
        page = open_pages.pop()
        for link in LINK.findall(page.read_text()):
            target = (page.parent / link.partition("#")[0]).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                open_pages.append(target)
    lost = [str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in reached]
    assert not lost


def test_architecture_names_every_folder_and_no_other() -> None:
    table = re.findall(
        r"^\| `((?:src|tests)(?:/[^`]*)?)/` \| (.+) \|$", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
    named = {folder for folder, _ in table}
    there = {str(folder.relative_to(ROOT)) for folder in _folders(ROOT / "src" / "aipaging")}
    # Below its first level, the tests mirror the source: see the next test.
    tests = {"/".join(folder.relative_to(ROOT).parts[:2]) for folder in _folders(ROOT / "tests")}
    assert named == there | tests
    assert all(sentence.endswith(".") for _, sentence in table)


def _folders(top: Path) -> Iterator[Path]:
    """Yield every folder below `top` that holds source, and those on the way to it."""
    found = {path.parent for path in top.rglob("*") if path.suffix in SOURCES and "__pycache__" not in path.parts}
    for folder in sorted(found):
        yield folder
        yield from (parent for parent in folder.parents if parent.is_relative_to(top) and parent not in found)


def test_tests_mirror_the_source() -> None:
    for folder in (ROOT / "tests").glob("*/*/"):
        if any(folder.glob("test_*.py")):
            assert (ROOT / "src" / "aipaging" / folder.relative_to(ROOT / "tests")).is_dir(), folder


@pytest.mark.parametrize("name", ["state-machines", "evidence-records", "limits", "northbound"])
def test_generated_page_is_current(name: str) -> None:
    pages = _generator().pages()
    path = ROOT / "docs" / "reference" / f"{name}.md"
    assert path.read_text() == pages[path], "run `python docs/generate.py` and commit what it wrote"


def test_every_record_type_has_a_meaning() -> None:
    generator = _generator()
    assert set(generator.MEANINGS) == set(generator.evidence.RECORD_TYPES)


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_page
def test_commands_and_options_exist(page: Path) -> None:
    for invocation in _invocations(page.read_text()):
        wrong = _unknown(invocation)
        assert wrong is None, f"{' '.join(invocation)}: {wrong}"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_of_help_exist(name: str) -> None:
    command = aipaging.get_command(click.Context(aipaging), name)
    assert command is not None
    texts = [_epilog(command), aipaging.epilog or ""]
    if isinstance(command, click.Group):
        context = click.Context(command)
        texts += [_epilog(command.get_command(context, sub)) for sub in command.list_commands(context)]
    for text in texts:
        for invocation in _invocations(f"```\n{text}\n```"):
            wrong = _unknown(invocation)
            assert wrong is None, f"{' '.join(invocation)}: {wrong}"


def test_every_command_has_examples_json_and_words_for_its_options() -> None:
    commands = list(_all_commands(aipaging, ("aipaging",)))
    assert len(commands) > 80
    for words, command in commands:
        where = " ".join(words)
        options = [option for option in command.params if isinstance(option, click.Option)]
        assert "--json" in {name for option in options for name in option.opts}, where
        assert "Examples:" in (command.epilog or ""), where
        assert where in _epilog(command), where
        assert [option.name for option in options if not option.help] == [], where


def _all_commands(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if not isinstance(command, click.Group):
        yield words, command
        return
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield from _all_commands(found, (*words, name))


def _epilog(command: click.Command | None) -> str:
    return (command.epilog if command else None) or ""


def _invocations(text: str) -> Iterator[list[str]]:
    """Yield the words of every `aipaging …` in the code of a page, up to where the shell takes over."""
    fences = [found.group() for found in FENCE.finditer(text)]
    for code in [*fences, *INLINE.findall(FENCE.sub("", text))]:
        joined = re.sub(r"\\\n(> )?\s*", " ", code)
        for found in re.finditer(r"(?:^|[\s(/])aipaging ([^\n]*)", joined):
            words = shlex.shlex(re.sub(r"\s{2,}.*|\s#.*", "", found[1]), posix=True, punctuation_chars="|>;&()`")
            words.whitespace_split = True
            words.commenters = ""
            taken: list[str] = []
            try:
                for word in words:
                    if word[0] in "|>;&()`":
                        break
                    taken.append(word)
            except ValueError:  # an apostrophe of prose
                taken = found[1].split()
            yield taken


def _unknown(words: list[str]) -> str | None:
    """Return what of an invocation `--help` does not know."""
    command: click.Command = aipaging
    for word in words:
        if word.startswith("-"):
            name = word.partition("=")[0]
            known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
            if name not in known | {"--help", "-h", "-"}:
                return f"`{command.name}` has no option {name}"
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return f"`{command.name}` has no command {word}"
            command = found
    return None


@pytest.mark.parametrize(
    "words", [["serve", "--config", "x"], ["sessions", "forget"], ["page", "--delay", "1ms", "--colour"]]
)
def test_what_does_not_exist_is_found(words: list[str]) -> None:
    assert _unknown(words) is not None


@each_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = [found.group() for found in FENCE.finditer(page.read_text())] + INLINE.findall(page.read_text())
    for target in re.findall(r"^(?:\$ )?make ([a-z]+)", "\n".join(code), re.MULTILINE):
        assert target in targets


def test_keys_of_the_configuration_exist() -> None:
    known = {section.name: section.fields for section in sections(ROOT)}
    blocks = 0
    for page in (ROOT / "docs" / "how-to").glob("*.md"):
        for text in re.findall(r"^```toml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
            document = tomllib.loads(text)
            if not document.keys() <= known.keys():
                continue  # of another kind of file: scenarios, contracts
            blocks += 1
            for name, tables in document.items():
                for table in tables if isinstance(tables, list) else [tables]:
                    assert table.keys() <= known[name].keys(), f"{page.relative_to(ROOT)}: [{name}]"
    assert blocks >= 8


@each_page
def test_paging_is_called_by_its_name(page: Path) -> None:
    """3GPP paging is something else: in prose ours is AI-Paging."""
    prose = INLINE.sub("", FENCE.sub("", LINK.sub("", page.read_text())))
    alone = re.findall(r".{0,30}(?<!AI-)\b[Pp]aging\b.{0,30}", re.sub(r"3GPP paging|core, paging", "", prose))
    assert not alone


def test_conformance_checks_are_listed() -> None:
    page = (ROOT / "docs" / "reference" / "steering-driver.md").read_text()
    listed = re.findall(r"^\* (.+)$", page.partition("## What is checked")[2], re.MULTILINE)
    assert listed == [(check.__doc__ or "").splitlines()[0] for check in STEERING_CHECKS]


def test_port_of_drivers_is_listed() -> None:
    page = (ROOT / "docs" / "reference" / "steering-driver.md").read_text()
    listed = set(re.findall(r"^\| `(\w+)(?:\([^`]*\))?` \|", page, re.MULTILINE))
    methods = {name for name in vars(SteeringDriver) if not name.startswith("_")}
    assert listed == methods | set(SteeringDriver.__annotations__)


def test_southbound_routes_are_listed() -> None:
    page = (ROOT / "docs" / "reference" / "southbound.md").read_text()
    listed = set(re.findall(r"^## `(\w+) ([^`?]+)", page, re.MULTILINE))
    nothing: Any = SimpleNamespace(control=None)
    there = {(route.method, route.path) for route in SouthboundRoutes(nothing).routes()}
    assert listed == there | {("GET", LOOK_UP_PATH)}


def test_the_demo_says_what_the_readme_shows() -> None:
    acts = (ROOT / "src" / "aipaging" / "apps" / "demo" / "acts.py").read_text()
    shown = (ROOT / "README.md").read_text()
    for check in re.findall(r"^  held  ([^:]+): ", shown, re.MULTILINE):
        assert f'"{check}"' in acts

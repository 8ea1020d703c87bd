"""The page on bad days names tests: each of them is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "bad-days.md").read_text()


def named() -> list[tuple[str, str]]:
    """Return (file, test) of every test that the table names; `::name` alone is in the file named before it."""
    found, file = [], ""
    for path, name in re.findall(r"`((?:tests/[\w/]+\.py)?)::(test_\w+)`", PAGE):
        file = path or file
        found.append((file, name))
    return found


@pytest.mark.parametrize(("file", "name"), named())
def test_what_the_page_names_is_there(file: str, name: str) -> None:
    functions = [node for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "decorator_list")]
    assert name in {getattr(node, "name", "") for node in functions}


def test_the_page_names_tests() -> None:
    assert len(named()) > 20

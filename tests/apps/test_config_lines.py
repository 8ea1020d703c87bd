"""Every key of a TOML file is found on the line on which a person sees it."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from aipaging.apps.server.config_lines import KeyPath, key_lines, line_of

TEXT = '''\
# a comment with "quotes" = [ and brackets
top = "a # not a comment"

[operator]
name = 'x'   # "unclosed
many = [
  "one", # ]
  "two",
]
long = """
[not.a.table]
key = 1
a quote at the end """"
after = 1

[[client]]
"quoted key" = 1
dotted . "x.y" = { inner = [1, 2] }
[[client]]
id = 2
[client.limits]
most = 3
[[client.key]]
id = 4
'''


def test_lines_of_a_crooked_file() -> None:
    tomllib.loads(TEXT)
    assert key_lines(TEXT) == {
        ("top",): 2,
        ("operator",): 4,
        ("operator", "name"): 5,
        ("operator", "many"): 6,
        ("operator", "long"): 10,
        ("operator", "after"): 14,
        ("client",): 16,
        ("client", 0): 16,
        ("client", 0, "quoted key"): 17,
        ("client", 0, "dotted", "x.y"): 18,
        ("client", 1): 19,
        ("client", 1, "id"): 20,
        ("client", 1, "limits"): 21,
        ("client", 1, "limits", "most"): 22,
        ("client", 1, "key"): 23,
        ("client", 1, "key", 0): 23,
        ("client", 1, "key", 0, "id"): 24,
    }


def test_a_missing_key_is_reported_at_its_table() -> None:
    lines = key_lines(TEXT)
    assert line_of(lines, ("client", 1, "limits", "least")) == 21
    assert line_of(lines, ("client", 0, "dotted", "x.y", "inner", 1)) == 18
    assert line_of(lines, ("nowhere",)) is None


VALUES = st.sampled_from(
    ['"a"', "'#'", "1", "[1,\n 2]", '"""\n[x]\n= \\" """', "'''\n'a\n'''", "{ a = 1 }", "true # = x"]
)


@given(st.lists(st.tuples(st.integers(0, 3), VALUES), max_size=12))
def test_whatever_stands_between_them_every_key_is_found(keys: list[tuple[int, str]]) -> None:
    text, expected = "", {}
    for number, (blank, value) in enumerate(keys):
        header = number % 3 == 0
        text += "\n" * blank
        if header:
            text += "[[t]]\n"
        expected[number] = text.count("\n") + 1
        text += f"k{number} = {value}\n"
    lines = key_lines(text)
    found = {path[-1]: line for path, line in lines.items() if str(path[-1]).startswith("k")}
    assert found == {f"k{number}": line for number, line in expected.items()}
    assert all(_at(tomllib.loads(text), path) is not None for path in lines)


def _at(document: Any, path: KeyPath) -> Any:
    for part in path:
        document = document[part]
    return document

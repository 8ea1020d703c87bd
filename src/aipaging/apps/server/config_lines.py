"""On which line of a TOML file a key stands.

The standard library's reader says where a file is not TOML, but not where a value came from, and a mistake without
its line is half a report. The text was parsed before: this only finds the statements and need not judge them.
"""

import tomllib
from collections.abc import Iterator
from typing import Any, Final

KeyPath = tuple[str | int, ...]
"""Keys, and indices where a table is one of an array of tables: `("anchor", 0, "address")`."""

_OPENING: Final = "[{"
_CLOSING: Final = "]}"


def key_lines(text: str) -> dict[KeyPath, int]:
    """Return the line, from 1, of every table header and every key of a valid TOML text.

    Keys inside inline tables and arrays are not listed: look for the nearest key above them.
    """
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, statement in _statements(text):
        if statement.startswith("[["):
            path = _resolved(_keys(statement[2 : statement.rindex("]]")]), counts)
            counts[path] = counts.get(path, 0) + 1
            lines.setdefault(path, number)
            table = (*path, counts[path] - 1)
        elif statement.startswith("["):
            table = _resolved(_keys(statement[1 : statement.rindex("]")]), counts)
        else:
            key = (*table, *_keys(statement[: _key_end(statement)]))
            lines.setdefault(key, number)
            continue
        lines.setdefault(table, number)
    return lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """Return the line of the path, or of the nearest thing above it."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _resolved(keys: tuple[str, ...], counts: dict[KeyPath, int]) -> KeyPath:
    """Return the path of a header: below an array of tables, its latest table is meant."""
    path: KeyPath = ()
    for index, key in enumerate(keys):
        path = (*path, key)
        if path in counts and index < len(keys) - 1:
            path = (*path, counts[path] - 1)
    return path


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield every statement with the line on which it begins; strings and brackets may span lines."""
    begin = at = depth = 0
    cut: int | None = None  # where the first comment behind the statement's key begins
    while at < len(text):
        character = text[at]
        if character in "\"'":
            at = _string_end(text, at)
            continue
        if character == "#":
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            if cut is None and text[begin:at].strip():
                cut = at
            elif cut is None:
                begin = end
            at = end
            continue
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == "\n" and depth == 0:
            yield from _statement(text, begin, at if cut is None else cut)
            begin, cut = at + 1, None
        at += 1
    yield from _statement(text, begin, at if cut is None else cut)


def _statement(text: str, begin: int, end: int) -> Iterator[tuple[int, str]]:
    statement = text[begin:end].strip()
    if statement:
        skipped = len(text[begin:end]) - len(text[begin:end].lstrip())
        yield text.count("\n", 0, begin + skipped) + 1, statement


def _string_end(text: str, at: int) -> int:
    """Return the index behind the string that begins at `at`."""
    quote = text[at]
    marks = quote * 3 if text.startswith(quote * 3, at) else quote
    end = at + len(marks)
    while end < len(text) and not text.startswith(marks, end):
        end += 2 if quote == '"' and text[end] == "\\" else 1
    end += len(marks)
    # A multi-line string may end in up to two quotes of its own.
    while len(marks) > 1 and text.startswith(quote, end):
        end += 1
    return end


def _key_end(statement: str) -> int:
    at = 0
    while at < len(statement) and statement[at] != "=":
        at = _string_end(statement, at) if statement[at] in "\"'" else at + 1
    return at


def _keys(dotted: str) -> tuple[str, ...]:
    """Return the parts of a key; the standard library knows how they may be quoted."""
    parsed: Any = tomllib.loads(f"{dotted} = 0")
    keys: list[str] = []
    while isinstance(parsed, dict):
        key, parsed = next(iter(parsed.items()))
        keys.append(key)
    return tuple(keys)

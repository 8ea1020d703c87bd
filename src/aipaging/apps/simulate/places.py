"""On which line of a scenario file a field stands."""

import re
from typing import Final

_HEADER: Final = re.compile(r"\s*\[\[?\s*([\w.\-]+)\s*\]\]?")
_KEY: Final = re.compile(r"\s*([\w\-]+)\s*=")
_NAME: Final = re.compile(r"""\s*name\s*=\s*(["'])(.*?)\1""")


def field_lines(text: str) -> dict[str, int]:
    """Return the line, from 1, of every table and key of a valid TOML text, by paths such as `tenant[1].work`.

    Tables with a name are there by it too: `tenant.NAME.work`.
    """
    lines: dict[str, int] = {}
    names: dict[str, str] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            name = header[1]
            if line.lstrip().startswith("[["):
                counts[name] = counts.get(name, -1) + 1
                lines.setdefault(name, number)
                name = f"{name}[{counts[name]}]"
            else:
                first, _, rest = name.partition(".")
                name = f"{first}[{counts[first]}].{rest}" if first in counts and rest else name
            table = f"{name}."
            lines.setdefault(name, number)
        elif key := _KEY.match(line):
            lines.setdefault(table + key[1], number)
            if (named := _NAME.match(line)) and table.endswith("]."):
                names[table[:-1]] = f"{table.partition('[')[0]}.{named[2]}"
    for path, number in list(lines.items()):
        first, dot, rest = path.partition(".")
        if first in names:
            lines.setdefault(names[first] + dot + rest, number)
    return lines


def line_of(lines: dict[str, int], field: str) -> int | None:
    """Return the line of a field, or of the nearest thing that holds it."""
    while field:
        if field in lines:
            return lines[field]
        field = field.rpartition(".")[0]
    return None

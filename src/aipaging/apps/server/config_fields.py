"""The kinds of value that a configuration has, and the tables that are made of them.

A table is described, not programmed: the description reads it, words its mistakes and is printed as the reference.
"""

import datetime as dt
import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from aipaging.apps.server.config_lines import KeyPath
from aipaging.core.foundation.errors import InvalidInputError
from aipaging.core.foundation.names import NAME_CHARS_MAX, checked_name, service_uri

TEXT_CHARS_MAX: Final = 256
"""Names of models and benchmarks; longer text in a configuration is a paste gone wrong."""

ITEMS_MAX: Final = 64
"""Items of one list."""

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*")

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_TYPES: Final = {
    str: "text",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    dict: "a table",
    dt.datetime: "a date and time",
}


class HostPort(NamedTuple):
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of value.

    Attributes:
        allowed: What is allowed, in words that complete "expected ...".
        read: Turns the TOML value into ours, or raises ValueError.
        private: Whether a wrong value must not be repeated: it may be a secret in the wrong place.
    """

    allowed: str
    read: Callable[[Any], Any]
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a table.

    Attributes:
        kind: What its value may be.
        about: What it is for, in a sentence.
        default: Its value where it is left out; a `HostPort`, path and so on, not TOML.
        required: Whether it must be there.
    """

    kind: Kind
    about: str
    default: Any = None
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A table, or an array of tables.

    Attributes:
        name: Its key.
        about: What it describes.
        fields: Its keys.
        many: Whether it is an array of tables.
        required: Whether the file must have it.
    """

    name: str
    about: str
    fields: Mapping[str, Field]
    many: bool = False
    required: bool = False


class Mistake(NamedTuple):
    """What is wrong, and where."""

    path: KeyPath
    message: str
    warning: bool = False


@dataclass(slots=True)
class Table:
    """A table that was read; a key whose value was wrong is not in `values`.

    Attributes:
        path: Where it stands.
        values: Its values, defaults filled in.
        given: The keys that the file has.
    """

    path: KeyPath
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    given: frozenset[str] = frozenset()

    def get(self, key: str) -> Any:
        """Return the value, or None if it was wrong or left out."""
        return self.values.get(key)

    def at(self, key: str) -> KeyPath:
        """Return the path of a key."""
        return (*self.path, key)


def read_table(section: Section, document: object, path: KeyPath, mistakes: list[Mistake]) -> Table:
    """Return what the table says; every mistake in it is added to `mistakes`."""
    table = Table(path)
    if not isinstance(document, dict):
        mistakes.append(Mistake(path, f"{shown(path)} is {_typed(document)}: expected a table"))
        return table
    table.given = frozenset(str(key) for key in document)
    mistakes += (
        Mistake((*path, key), f"{shown(path)} has no key {key!r}{_nearest(key, section.fields)}")
        for key in document
        if key not in section.fields
    )
    for key, described in section.fields.items():
        if key not in document:
            if described.required:
                mistakes.append(Mistake(path, f"{shown(path)} lacks {key}: expected {described.kind.allowed}"))
            else:
                table.values[key] = described.default
            continue
        try:
            table.values[key] = described.kind.read(document[key])
        except (ValueError, InvalidInputError) as error:
            value = "the value" if described.kind.private else _said(document[key])
            message = str(error) or f"{value} is not allowed"
            mistakes.append(
                Mistake((*path, key), f"{shown((*path, key))}: {message}: expected {described.kind.allowed}")
            )
    return table


def shown(path: KeyPath) -> str:
    """Return a path as people write it: `anchor[0].address`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _nearest(key: object, known: Mapping[str, object]) -> str:
    close = difflib.get_close_matches(str(key), list(known), n=1)
    return f": did you mean {close[0]}?" if close else f": it has {', '.join(known)}"


def _typed(value: object) -> str:
    return next((words for kind, words in _TYPES.items() if type(value) is kind), type(value).__name__)


def _said(value: object) -> str:
    text = repr(value) if isinstance(value, str | int | float) else _typed(value)
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:60]}…"


def _of_type(value: object, *types: type) -> None:
    if type(value) not in types:
        raise ValueError(f"{_said(value)} is {_typed(value)}")


def text(*, allowed: str = "text", pattern: str = "", empty: bool = False) -> Kind:
    """Return the kind of printable text, matching the whole pattern where there is one."""
    compiled = re.compile(pattern) if pattern else None

    def read(value: Any) -> str:
        _of_type(value, str)
        if (not value and not empty) or len(value) > TEXT_CHARS_MAX or not value.isprintable():
            raise ValueError(f"{_said(value)} is empty, too long or not printable")
        if compiled is not None and not compiled.fullmatch(value):
            raise ValueError("")
        return str(value)

    return Kind(allowed=allowed, read=read)


def name() -> Kind:
    """Return the kind of names that become certificate subjects, headers and file names."""

    def read(value: Any) -> str:
        _of_type(value, str)
        try:
            return checked_name(value, field="")
        except InvalidInputError:
            raise ValueError("") from None

    return Kind(allowed=f"1 to {NAME_CHARS_MAX} lower-case letters, digits, dots and hyphens", read=read)


def aisi() -> Kind:
    """Return the kind of service identities."""

    def read(value: Any) -> str:
        _of_type(value, str)
        try:
            return service_uri(value)
        except InvalidInputError:
            raise ValueError("") from None

    return Kind(allowed="aisi://<operator>/<service>/<variant>", read=read)


def integer(low: int, high: int) -> Kind:
    """Return the kind of integers in a range."""

    def read(value: Any) -> int:
        _of_type(value, int)
        if not low <= value <= high:
            raise ValueError("")
        return int(value)

    return Kind(allowed=f"an integer from {low:,} to {high:,}", read=read)


def number(low: float, high: float, *, above: bool = False) -> Kind:
    """Return the kind of finite numbers in a range; `above` leaves its low end out."""

    def read(value: Any) -> float:
        _of_type(value, int, float)
        if not math.isfinite(value) or not low <= value <= high or (above and value == low):
            raise ValueError("")
        return float(value)

    return Kind(allowed=f"a number {'above' if above else 'from'} {low:g} to {high:g}", read=read)


def boolean() -> Kind:
    """Return the kind of true and false."""

    def read(value: Any) -> bool:
        _of_type(value, bool)
        return bool(value)

    return Kind(allowed="true or false", read=read)


def choice(*words: str) -> Kind:
    """Return the kind of one of some words."""

    def read(value: Any) -> str:
        _of_type(value, str)
        if value not in words:
            raise ValueError("")
        return str(value)

    return Kind(allowed="one of " + ", ".join(f'"{word}"' for word in words), read=read)


def several(item: Kind) -> Kind:
    """Return the kind of lists without repetition."""

    def read(value: Any) -> tuple[Any, ...]:
        _of_type(value, list)
        if len(value) > ITEMS_MAX:
            raise ValueError(f"{len(value)} items")
        items = tuple(item.read(each) for each in value)
        if len(set(items)) < len(items):
            raise ValueError("an item stands there twice")
        return items

    return Kind(allowed=f"a list of at most {ITEMS_MAX}, each {item.allowed}", read=read)


def scores() -> Kind:
    """Return the kind of tables of benchmark = score."""

    def read(value: Any) -> tuple[tuple[str, float], ...]:
        _of_type(value, dict)
        for score in value.values():
            _of_type(score, int, float)
        return tuple((str(benchmark), float(score)) for benchmark, score in value.items())

    return Kind(allowed="a table such as { sts-benchmark = 82.0 }", read=read)


def address() -> Kind:
    """Return the kind of `host:port`."""

    def read(value: Any) -> HostPort:
        _of_type(value, str)
        host, _, port = value.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = str(ipaddress.IPv6Address(host[1:-1]))
        elif not _HOST.fullmatch(host):
            raise ValueError("")
        if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
            raise ValueError("")
        return HostPort(host, int(port))

    return Kind(allowed="host:port, such as 127.0.0.1:8443 or [::1]:8443", read=read)


def digest() -> Kind:
    """Return the kind of SHA-256 digests."""

    def read(value: Any) -> str:
        if type(value) is not str or not _DIGEST.fullmatch(value):
            raise ValueError("")
        return value

    return Kind(allowed="64 hexadecimal digits, as sha256sum prints them", read=read, private=True)


def file(base: Path) -> Kind:
    """Return the kind of paths, relative ones counted from the folder of the configuration."""

    def read(value: Any) -> Path:
        _of_type(value, str)
        if not value or "\0" in value:
            raise ValueError("")
        return (base / Path(value).expanduser()).resolve()

    return Kind(allowed="a path (a relative one counts from the folder of this file)", read=read)


def url() -> Kind:
    """Return the kind of base URLs."""

    def read(value: Any) -> str:
        _of_type(value, str)
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("")
        if parts.username or parts.password:
            raise ValueError("it holds a password")
        _ = parts.port
        return str(value).rstrip("/")

    return Kind(allowed="a URL, such as https://ai.example.net", read=read)


def network() -> Kind:
    """Return the kind of networks, such as 10.0.0.0/8."""

    def read(value: Any) -> str:
        _of_type(value, str)
        return str(ipaddress.ip_network(value))

    return Kind(allowed="a network, such as 10.8.0.0/16", read=read)


def instant() -> Kind:
    """Return the kind of instants, as microseconds since the epoch."""

    def read(value: Any) -> int:
        _of_type(value, dt.datetime)
        if value.tzinfo is None:
            raise ValueError("it says no time zone")
        return int(value.timestamp() * 1_000_000)

    return Kind(allowed="a date and time with a zone, such as 2030-01-31T00:00:00Z (no quotes)", read=read)

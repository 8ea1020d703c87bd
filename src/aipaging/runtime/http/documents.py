"""JSON in: a checked document, or an error that names the field, what was wrong and what is allowed.

Documents are closed types without recursion, so a body nests as deep as its type and no deeper: the first bracket
too many is refused where it stands.
"""

import json
import re
from collections import Counter
from typing import Any, Final, TypeVar

import msgspec
from msgspec import inspect

from aipaging.core.foundation.errors import InvalidInputError

T = TypeVar("T")

PRIVATE: Final = {"private": True}
"""As `extra` of a property's `Meta`: an error never repeats its value, for it may hold a secret."""

SHOWN_CHARS_MAX: Final = 80
"""How much of a wrong value is repeated: enough to find it, too little to be a reflection of the body."""

_NAMES: Final = re.compile(rb'"([^"\\]*)"\s*:')
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_STEPS: Final = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_NAMED: Final = re.compile(r"(?:unknown|required) field `(?P<name>[^`]*)`")
_RANGE: Final = re.compile(r"Expected `(?:int|float)(?: \| null)?` (?:[<>]=?|that's a multiple)")


def decoded(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    """Return the document in `raw`.

    Raises:
        InvalidInputError: It is not JSON, or does not fit; `OUT_OF_RANGE` where a number is beyond its bounds.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise _misfit(str(error), raw, decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error).removeprefix("JSON is malformed: ")
        raise InvalidInputError(f"the body is not JSON: {reason[:160]}") from None


def refuse_repetition(raw: bytes) -> None:
    """Refuse a document, decoded before, in which a property stands twice: who reads it next may take the other one.

    RFC 8259, section 4, leaves open which one holds; RFC 7493, section 2.3, forbids it.

    Raises:
        InvalidInputError: A property stands twice in one object.
    """
    names = _NAMES.findall(raw)
    if b"\\" not in raw and len(set(names)) == len(names):
        return  # Nearly always; names that recur may do so in different objects, and escapes may hide one.
    try:
        json.loads(raw, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {str(error)[:160]}") from None


def _without_repetition(pairs: list[tuple[str, Any]]) -> None:
    ((name, count),) = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
    if count > 1:
        shown = name[:SHOWN_CHARS_MAX]
        raise InvalidInputError(f"{shown} stands {count} times in one object: once is allowed", field=shown)


def _misfit(text: str, raw: bytes, wanted: Any) -> InvalidInputError:
    match = _AT.match(text)
    what, path = (match["what"], match["path"] or "$") if match else (text, "$")
    named = _NAMED.search(what)
    where = path.removeprefix("$").removeprefix(".")
    if named:
        name = named["name"][:SHOWN_CHARS_MAX]
        field = f"{where}.{name}" if where else name
        message = f"{field} is not a property of this document" if "unknown" in what else f"{field} is missing"
        return InvalidInputError(message, field=field)
    code = "OUT_OF_RANGE" if _RANGE.search(what) else "INVALID_ARGUMENT"
    words = _words(wanted, path) if what.startswith("Invalid enum value") else []
    expected = what[0].lower() + what[1:] if what else "another value is expected"
    if words:
        expected = f"expected one of {', '.join(words)}"
    shown = "" if _private(wanted, path) else _shown(raw, path)
    subject = where or "the body"
    message = f"{subject} is {shown}: {expected}" if shown else f"{subject}: {expected}"
    return InvalidInputError(message, code=code, field=where or None)


def _private(wanted: Any, path: str) -> bool:
    """Return whether the value at the path, or what it is part of, is marked `PRIVATE` in a document type."""
    found = inspect.type_info(wanted)
    for name in (*(step for step, _ in _STEPS.findall(path)), None):
        if _marked(found):
            return True
        if name is not None:
            found = _within(_alone(found), name)
    return False


def _marked(found: inspect.Type) -> bool:
    if isinstance(found, inspect.UnionType):
        return any(_marked(each) for each in found.types)
    return isinstance(found, inspect.Metadata) and (found.extra == PRIVATE or _marked(found.type))


def _shown(raw: bytes, path: str) -> str:
    """Return the value at the path as short JSON, or "" if it cannot be had."""
    try:
        value: Any = msgspec.json.decode(raw)
        for step in _STEPS.findall(path):
            value = value[step[0]] if step[0] else value[int(step[1])]
        text = msgspec.json.encode(value).decode()
    except (msgspec.MsgspecError, RecursionError, LookupError, TypeError, ValueError):
        return ""
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}…"


def _words(wanted: Any, path: str) -> list[str]:
    """Return the words that are allowed at the path of a document type, or none if it is not words that are."""
    found = inspect.type_info(wanted)
    for name, _ in _STEPS.findall(path):
        found = _within(_alone(found), name)
    bare = _alone(found)
    if isinstance(bare, inspect.EnumType):
        return [str(member.value) for member in bare.cls]
    return list(map(str, bare.values)) if isinstance(bare, inspect.LiteralType) else []


def _within(found: inspect.Type, name: str) -> inspect.Type:
    """Return the type of a property, or of the items of a list."""
    if isinstance(found, inspect.StructType):
        return next((each.type for each in found.fields if each.encode_name == name), inspect.AnyType())
    if isinstance(found, inspect.ListType | inspect.VarTupleType):
        return found.item_type
    return found.value_type if isinstance(found, inspect.DictType) else inspect.AnyType()


def _alone(found: inspect.Type) -> inspect.Type:
    """Return a type without its annotations, and without the null that may stand for it."""
    while isinstance(found, inspect.Metadata | inspect.UnionType):
        if isinstance(found, inspect.Metadata):
            found = found.type
        else:
            found = next(each for each in found.types if not isinstance(each, inspect.NoneType))
    return found

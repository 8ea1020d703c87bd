"""The contract file: TOML, `[[contract]]` tables. A key that nobody knows is a mistake, not a comment."""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aipaging.core.audit.contract import Contract, EnvelopeTail
from aipaging.core.foundation.errors import InvalidInputError

NUMBERS: Final = ("delay_ms", "epsilon", "clock_error_ms", "offset_ms", "prefactor", "decay_per_ms")
INTEGERS: Final = ("period_start_us", "period_end_us", "expected_requests")
WORDS: Final = ("domain", "tenant")
SWITCHES: Final = ("independent",)
TAIL: Final = ("offset_ms", "prefactor", "decay_per_ms")
REQUIRED: Final = ("domain", "delay_ms", "epsilon")

CONTRACTS_MAX: Final = 200
"""Contracts in one file: each holds windows, a sketch and the latest delays in memory, some 10 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractFile:
    """The contracts, and the bytes that they were read from."""

    contracts: tuple[Contract, ...]
    content: bytes


def read_contracts(path: Path) -> ContractFile:
    """Return the contracts of a file.

    Raises:
        InvalidInputError: It cannot be read, or a contract in it is not one.
    """
    try:
        content = path.read_bytes()
        document = tomllib.loads(content.decode())
    except OSError as error:
        raise InvalidInputError(
            f"cannot read {path}: {error.strerror}", code="FILE_UNREADABLE", field="contract"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not TOML: {error}", code="CONTRACT_INVALID", field="contract") from error
    tables = document.get("contract")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InvalidInputError(f"{path} has no [[contract]]", code="CONTRACT_MISSING", field="contract")
    if len(tables) > CONTRACTS_MAX:
        raise InvalidInputError(f"{len(tables)} contracts; {CONTRACTS_MAX} are allowed", field="contract")
    contracts = tuple(_contract(table, f"contract[{index}]") for index, table in enumerate(tables))
    scopes = [(c.domain, c.tenant, c.delay_ms, c.epsilon, c.period_start_us, c.period_end_us) for c in contracts]
    if len(set(scopes)) < len(scopes):
        raise InvalidInputError("the same contract stands twice", code="CONTRACT_INVALID", field="contract")
    return ContractFile(contracts=contracts, content=content)


def _contract(table: dict[str, Any], place: str) -> Contract:
    for name, value in table.items():
        _check(name, value, f"{place}.{name}")
    for name in REQUIRED:
        if name not in table:
            raise InvalidInputError(f"{place} has no {name}", code="CONTRACT_INVALID", field=f"{place}.{name}")
    given = [name for name in TAIL if name in table]
    if given and len(given) < len(TAIL):
        raise InvalidInputError(
            f"the tail needs {', '.join(TAIL)} together", code="CONTRACT_INVALID", field=f"{place}.{given[0]}"
        )
    plain = {name: value for name, value in table.items() if name not in TAIL}
    try:
        tail = EnvelopeTail(**{name: float(table[name]) for name in TAIL}) if given else None
        return Contract(tail=tail, **plain)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, code="CONTRACT_INVALID", field=f"{place}.{error.field}") from error


def _check(name: str, value: object, place: str) -> None:
    if name in NUMBERS:
        fits, form = isinstance(value, int | float) and not isinstance(value, bool), "a number"
        fits = fits and math.isfinite(float(value))  # type: ignore[arg-type]
    elif name in INTEGERS:
        fits, form = isinstance(value, int) and not isinstance(value, bool), "an integer"
    elif name in SWITCHES:
        fits, form = isinstance(value, bool), "true or false"
    elif name in WORDS:
        fits, form = isinstance(value, str), "a text"
    else:
        known = ", ".join((*WORDS, *NUMBERS, *INTEGERS, *SWITCHES))
        raise InvalidInputError(f"{place} is not known; there are {known}", code="CONTRACT_INVALID", field=place)
    if not fits:
        raise InvalidInputError(f"{place} is {value!r}; it is {form}", code="CONTRACT_INVALID", field=place)

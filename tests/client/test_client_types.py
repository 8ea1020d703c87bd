"""What a strict type checker says of a user's program: nothing, but where it is wrong."""

import re
import sys
from pathlib import Path

import msgspec
import pytest

from aipaging.adapters.northbound.documents.intent import IntentDocument
from aipaging.client.fields import IntentFields

PROGRAM = Path(__file__).parent / "program.py"


def test_the_fields_are_those_of_the_intent() -> None:
    document = {field.name: field.required for field in msgspec.structs.fields(IntentDocument)}
    assert list(IntentFields.__annotations__) == list(document)
    assert [name for name, required in document.items() if required] == ["task", "place", "delay_ms"]


@pytest.mark.timeout(300)
def test_a_strict_checker_finds_the_wrong_lines_and_no_other() -> None:
    api = pytest.importorskip("mypy.api")
    pytest.importorskip("openai")
    # Checked as a user has it: the package is installed, and its own configuration is not read.
    out, err, _ = api.run(["--strict", "--config-file=", "--python-executable", sys.executable, str(PROGRAM)])
    found = {int(line) for line in re.findall(r"program\.py:(\d+): error", out)}
    wrong = {
        number for number, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.rstrip().endswith("# wrong")
    }
    assert found == wrong, out + err

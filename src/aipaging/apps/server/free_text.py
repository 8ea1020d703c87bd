"""What reads free text in this controller: words alone, or with the embeddings of MiniLM where they are installed."""

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.adapters.minilm.embedder import Embedder
from aipaging.core.foundation.errors import UnavailableError
from aipaging.core.wording.tasks import TaskReader, keyword_reader

LOG: Final = logging.getLogger("aipaging.controller")


def task_reader(choice: str) -> TaskReader:
    """Return what tells tasks.

    Args:
        choice: `minilm`, `keywords`, or `auto`: the former where it is installed.

    Raises:
        UnavailableError: `minilm` is asked for and not installed.
    """
    if choice == "keywords":
        return keyword_reader()
    try:
        embedder = Embedder()
    except UnavailableError:
        if choice == "minilm":
            raise
        LOG.info("free text is read by words alone: the extra `anchor` is not installed")
        return keyword_reader()

    def embed(texts: Sequence[str]) -> NDArray[np.float64]:
        return embedder.embed([embedder.pieces(text) for text in texts]).astype(np.float64)

    return TaskReader(embed)

"""What reads free text in this controller: words alone, or with the embeddings of MiniLM where they are installed."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Event, Thread
from typing import Final

import numpy as np
from numpy.typing import NDArray

from aipaging.adapters.minilm.embedder import Embedder, Pieces
from aipaging.core.foundation.errors import AipagingError, UnavailableError
from aipaging.core.wording.tasks import TaskReader, keyword_reader

LOG: Final = logging.getLogger("aipaging.controller")


PIECES_MAX: Final = 256
"""The word pieces that the model was trained on; beyond twice as many it has no positions and fails."""

WARM_UP_AFTER_S: Final = 5.0
"""A start has better things to do: sessions are granted again, gateways connect. Then the model is made ready, which
takes seconds of a processor. A sentence that comes earlier begins it at once."""


def warmed(choice: str) -> Callable[[], TaskReader]:
    """Return what tells tasks, made ready soon after the start, so that the first sentence does not wait for it.

    Args:
        choice: As for `task_reader`. Words alone take no time worth mentioning, and wait for a sentence.
    """
    wanted, made = Event(), Future[TaskReader]()

    def make() -> None:
        wanted.wait(None if choice == "keywords" else WARM_UP_AFTER_S)
        try:
            made.set_result(task_reader(choice))
        except AipagingError as error:
            LOG.warning("free text cannot be read: %s", error.message)
            made.set_exception(error)
        except Exception as error:
            made.set_exception(error)
            raise

    def reader() -> TaskReader:
        wanted.set()
        return made.result()

    # The thread ends with the process: nobody waits for a model in order to stop.
    Thread(target=make, name="wording-warm-up", daemon=True).start()
    return reader


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
        return embedder.embed([_beginning(embedder.pieces(text)) for text in texts]).astype(np.float64)

    return TaskReader(embed)


def _beginning(pieces: Pieces) -> Pieces:
    """Return what the model can take: the task of a text that is longer is told by its beginning, and its n-grams."""
    return pieces if len(pieces.ids) <= PIECES_MAX else Pieces(ids=[*pieces.ids[: PIECES_MAX - 1], pieces.ids[-1]])

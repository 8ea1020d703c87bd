"""The controller: engine, listeners, gateway, composed from one configuration file."""

import os
from typing import Final

_ONE_THREAD: Final = "1"
"""Of linear algebra, of which a controller has little: a second thread spins, for as long as the first works, on a
processor that the gateway needs. Said here, because it is read when numpy is loaded; an operator's own word stands."""

os.environ.setdefault("OPENBLAS_NUM_THREADS", _ONE_THREAD)

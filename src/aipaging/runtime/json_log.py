"""Log lines as JSON objects: one line each, the `extra` fields beside the message.

A line is written for every page: what it costs is a part of what a page costs.
"""

import json
import logging
import sys
import time
from typing import Final

import msgspec

_BUILT_IN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_ENCODER: Final = msgspec.json.Encoder(enc_hook=str)


class JsonFormatter(logging.Formatter):
    """Formats a record as `{"time", "level", "logger", "message", ...extra, "error"?}`, in ASCII."""

    def __init__(self) -> None:
        super().__init__()
        self._second = -1
        self._second_text = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        second = int(record.created)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        line: dict[str, object] = {
            "time": f"{self._second_text}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _BUILT_IN}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return _text(line)


def _text(line: dict[str, object]) -> str:
    try:
        encoded = _ENCODER.encode(line)
    except (TypeError, ValueError, UnicodeEncodeError):  # lone surrogates, numbers of any size
        return json.dumps(line, default=str)
    return encoded.decode() if encoded.isascii() else json.dumps(line, default=str)


def log_to_stderr(level: int) -> None:
    """Send every log record of this process to stderr, as JSON lines."""
    # Where a record was made, and by which thread and process, is in no line: looking takes as long as writing it.
    logging._srcfile = None  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as Python's logging guide has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request belongs to whoever asks for it

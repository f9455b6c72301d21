"""What happens in a run, for programs: one JSON object a line. Off until `--log-json` opens it.

The standard library's logger named `stepconf` carries the events, so that any module can report one, and
a program that embeds stepconf can listen in the usual way. Warnings are for people too: without a listener the
logger prints them on stderr.
"""

import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stepconf.core.printable import printable
from stepconf.stores.places import check_file_place, with_urls

# Progress: `tick(stage, n)`: n more done; a negative n announces so many to do.
Tick = Callable[[str, int], None]
_logger = logging.getLogger("stepconf")


def log(event: str, **facts: Any) -> None:
    """Something happened: its name and plain values."""
    _logger.info(event, extra={"facts": facts})


def warn(event: str, message: str, **facts: Any) -> None:
    """Something happened that a person should know of; `message` is a sentence for them."""
    _logger.warning(printable(with_urls(message)), extra={"event": event, "facts": facts})


@contextmanager
def json_lines(target: Path | None) -> Iterator[None]:
    """Append every event to a file, or write it to stderr where `target` is `-`.

    Warnings go to stderr as sentences, too, unless that has the events.

    Raises:
        StepconfError: it is a folder, or in none.
        OSError: the file cannot be opened.
    """
    handlers: list[logging.Handler] = []
    if target is None or str(target) != "-":
        handlers += [logging.lastResort] if logging.lastResort else []
    if target is not None:
        to_stderr = str(target) == "-"
        if not to_stderr:
            check_file_place(target)
        lines = (
            logging.StreamHandler(sys.stderr) if to_stderr else logging.FileHandler(target, encoding="utf-8")
        )
        lines.setFormatter(_JsonLine())
        handlers.append(lines)
    level, spread = _logger.level, _logger.propagate
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    for handler in handlers:
        _logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            _logger.removeHandler(handler)
            if handler is not logging.lastResort:
                handler.close()
        _logger.setLevel(level)
        _logger.propagate = spread


class _JsonLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.getMessage()),
        }
        if hasattr(record, "event"):
            line["message"] = record.getMessage()
        return json.dumps(line | getattr(record, "facts", {}), default=str)

"""Logs and progress: bars on a terminal, one JSON object a line elsewhere. stdout is data; all of this goes to stderr.

Values whose key looks like a secret are never written.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

_SECRET = re.compile(r"key|token$|secret|password|authorization", re.IGNORECASE)
_stage = "elson"


def configure(stage: str) -> None:
    """Name the stage that the following lines come from."""
    global _stage
    _stage = stage


def event(message: str, **fields: Any) -> None:
    """Log one line. Fields are numbers, texts or small JSON values."""
    _write("INFO", message, fields)


def warning(message: str, **fields: Any) -> None:
    """Log one line that a person should see."""
    _write("WARNING", message, fields)


def error(message: str, **fields: Any) -> None:
    """Log one line that says what failed."""
    _write("ERROR", message, fields)


def _write(severity: str, message: str, fields: dict[str, Any]) -> None:
    shown = {key: "[not shown]" if _SECRET.search(key) else value for key, value in fields.items()}
    if sys.stderr.isatty():
        mark = {"INFO": "·", "WARNING": "!", "ERROR": "✗"}[severity]
        detail = " ".join(f"{key}={value}" for key, value in shown.items())
        print(f"{mark} {_stage:9} {message}{'  ' + detail if detail else ''}", file=sys.stderr, flush=True)
    else:
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "severity": severity, "stage": _stage, "message": message}
        print(json.dumps(row | shown, default=str), file=sys.stderr, flush=True)


@contextmanager
def progress(label: str, total: float, unit: str = "") -> Iterator[Progress]:
    """A bar (terminal) or a line every few seconds (log) that follows ``advance``."""
    meter = Progress(label, total, unit)
    try:
        yield meter
    finally:
        meter.close()


class Progress:
    """Progress of one long piece of work."""

    #: Seconds between two lines when there is no terminal.
    every_s = float(os.environ.get("ELSON_PROGRESS_EVERY_S", "5"))

    def __init__(self, label: str, total: float, unit: str) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, 0.0
        self._begin = self._last = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns = (
                progress.TextColumn(f"  {_stage:9} {label}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn(unit),
                progress.TimeRemainingColumn(),
                progress.TextColumn("{task.fields[note]}"),
            )
            self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(label, total=total, note="")
            self._bar.start()

    def advance(self, amount: float = 1, note: str = "", **fields: Any) -> None:
        """Add to what is done; ``note`` is shown beside the bar, ``fields`` in the log line."""
        self.done += amount
        if self._bar:
            self._bar.update(self._task, completed=int(self.done), note=note)
        elif time.monotonic() - self._last >= self.every_s or self.done >= self.total:
            self._last = time.monotonic()
            event(self.label, done=self.done, total=self.total, unit=self.unit, elapsed_s=round(self._last - self._begin, 1), **fields)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()

"""Logs and progress on stderr: bars and short lines on a terminal, one JSON object a line elsewhere. stdout is data.

What libraries log or warn goes the same way. In a CI log (CI is set) errors are readable lines. ELSON_LOG=json|plain overrides the choice;
ELSON_LOG_FILE names a file that also gets every line as JSON, for `elson view`. Values whose key looks like a secret are never written.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import textwrap
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal

from runners import outside

_SECRET = re.compile(r"key|token$|secret|password|authorization", re.IGNORECASE)
_MARKS = {"INFO": "·", "WARNING": "!", "ERROR": "✗"}
#: Deprecations are for whoever writes the code; progress bars of libraries are drawn over ours.
_QUIET = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}
#: What comes before the text of a line: a mark, a label and what separates it.
_LABEL = re.compile(r"(?:[·!✗] )? *(?:\S+ {2,}|(?:expected|fix|error|warning|refused): +|)")
#: A label that is longer leaves no room beside it.
_DEEPEST = 24
_stage = "elson"


def configure(stage: str) -> None:
    """Name the stage that the following lines come from."""
    global _stage
    _stage = stage


def take_over_libraries() -> None:
    """Send what libraries log (from WARNING on) and warn of through this module. Called once, by the command line."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    logging.captureWarnings(True)
    logging.getLogger().handlers = [_Libraries(logging.WARNING)]
    for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
        warnings.simplefilter("ignore", category)


class _Libraries(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        severity = "ERROR" if record.levelno >= logging.ERROR else "WARNING"
        _write(severity, record.getMessage().strip(), {"library": record.name})


def for_people() -> bool:
    """Whether a person reads stderr: a terminal, or what ELSON_LOG says."""
    chosen = os.environ.get("ELSON_LOG")
    return chosen == "plain" if chosen else sys.stderr.isatty()


def _as_lines() -> bool:
    """Whether what ends a command is for a person: a CI log counts."""
    return for_people() or bool(os.environ.get("CI") and not os.environ.get("ELSON_LOG"))


def event(message: str, **fields: Any) -> None:
    """Log one line. Fields are numbers, texts or small JSON values."""
    _write("INFO", message, fields)


def warning(message: str, **fields: Any) -> None:
    """Log one line that a person should see."""
    _write("WARNING", message, fields)


def result(message: str, *, good: bool, **fields: Any) -> None:
    """Log one line that a person at a terminal reads elsewhere, as sentences or in a report."""
    severity = "INFO" if good else "WARNING"
    (_keep if for_people() else _write)(severity, message, fields)


def error(message: str, **fields: Any) -> None:
    """Log one line that says what failed."""
    _write("ERROR", message, fields)


def failure(message: str) -> None:
    """The error that ends a command: lines on a terminal and in a CI log, one object elsewhere."""
    notice("error", message)


def notice(word: Literal["error", "refused", "warning"], message: str) -> None:
    """An error or a warning of several lines: lines on a terminal and in a CI log, one object elsewhere."""
    severity, colour = ("WARNING", 33) if word == "warning" else ("ERROR", 31)
    if _as_lines():
        text = fit(_shown(f"{word}: {message}"), sys.stderr)
        if sys.stderr.isatty():
            text = text.replace(f"{word}:", f"\x1b[1;{colour}m{word}:\x1b[0m", 1)
        print(text, file=sys.stderr, flush=True)
        _keep(severity, message, {})
    else:
        _write(severity, message, {})


def bug() -> None:
    """The traceback of a fault of our own: as Python prints it for a person, one object elsewhere."""
    if for_people():
        traceback.print_exc()
    else:
        error("this is a fault in elson itself; please report it", traceback=traceback.format_exc())


def relay(line: str) -> None:
    """A line that a child process wrote to its stderr: our own as it is, a library's as a line of ours."""
    line = line.rstrip()
    if line.startswith('{"time"'):
        print(line, file=sys.stderr, flush=True)
    elif line:
        _write("INFO", line, {"library": "output"})


def _write(severity: str, message: str, fields: dict[str, Any]) -> None:
    shown = {key: "[not shown]" if _SECRET.search(key) else value for key, value in fields.items()}
    _keep(severity, message, shown)
    if for_people():
        detail = " ".join(f"{key}={short(value)}" for key, value in shown.items())
        say(_shown(f"{_MARKS[severity]} {_stage:9} {message}{'  ' + detail if detail else ''}"), err=True)
    else:
        print(_line(severity, message, shown), file=sys.stderr, flush=True)


def _shown(text: str) -> str:
    """Lines for a terminal; they may quote what another machine wrote."""
    return "\n".join(outside.printable(line) for line in text.split("\n"))


def _line(severity: str, message: str, fields: dict[str, Any]) -> str:
    row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "severity": severity, "stage": _stage, "message": message}
    return json.dumps(row | fields, default=str)


def _keep(severity: str, message: str, fields: dict[str, Any]) -> None:
    """Append the line to ELSON_LOG_FILE. One write of one line: several processes may share the file."""
    if not (name := os.environ.get("ELSON_LOG_FILE")):
        return
    try:
        with Path(name).open("a", encoding="utf-8") as file:
            file.write(_line(severity, message, fields) + "\n")
    except OSError:
        # A full disk stops the work itself with a clear error; the copy of the log must not.
        return


def fit(text: str, stream: IO[str]) -> str:
    """The text with its long lines broken between words, each part below the text it belongs to.

    A word that is longer than the line (an address, a path) is left to the terminal, so that it can be copied as one. A line ``fix:`` is broken after its
    semicolons where that is enough, so that a command stays in one piece.
    """
    try:
        width = os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        width = 0
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width)) if width >= 2 * _DEEPEST else text


def say(text: str, *, err: bool = False) -> None:
    """Print lines for a person; on stderr where no person reads, they are lines of the log."""
    if err and not _as_lines():
        event(text)
        return
    stream = sys.stderr if err else sys.stdout
    print(fit(text, stream), file=stream, flush=True)


def _broken(line: str, width: int) -> list[str]:
    if len(line) <= width:
        return [line]
    found = _LABEL.match(line)
    label = found[0] if found and len(found[0]) <= _DEEPEST else ""
    indent, rest = " " * len(label), line[len(label) :]
    pieces = re.split(r"(?<=;) ", rest) if label.strip() == "fix:" else [rest]
    lines: list[str] = []
    for piece in pieces:
        together = f"{lines[-1]} {piece}" if lines else f"{label}{piece}"
        if len(together) <= width:
            lines[-1:] = [together]
        else:
            first = indent if lines else label
            lines += textwrap.wrap(piece, width, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines


def short(value: Any) -> str:
    """A value as a person reads it: four significant digits of a fraction."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress(label: str, total: float | None, unit: str = "") -> Iterator[Progress]:
    """A bar (terminal) or a line every few seconds (log) that follows ``advance``. Without a total: the time it has taken, for waiting."""
    meter = Progress(label, total, unit)
    try:
        yield meter
    finally:
        meter.close()


class Progress:
    """Progress of one long piece of work."""

    #: Seconds between two lines when there is no terminal.
    every_s = float(os.environ.get("ELSON_PROGRESS_EVERY_S", "5"))
    #: A terminal shows one bar: work in the background, such as the upload of a checkpoint, draws none over it.
    _screen = threading.Lock()

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit, self.done = label, total, unit, 0.0
        self._begin = self._last = time.monotonic()
        self._bar: Any = None
        self._quiet = sys.stderr.isatty()
        if self._quiet and self._screen.acquire(blocking=False):
            self._bar = _bar(f"  {_stage:9} {label}", total is not None, unit)
            self._task = self._bar.add_task(label, total=total, note="")
            self._bar.start()

    def advance(self, amount: float = 1, note: str = "", **fields: Any) -> None:
        """Add to what is done; ``note`` is shown beside the bar, ``fields`` in the log line."""
        self.done += amount
        if self._bar:
            self._bar.update(self._task, completed=int(self.done), note=note)
        elapsed = time.monotonic() - self._begin
        if time.monotonic() - self._last < self.every_s and (self.total is None or self.done < self.total):
            return
        self._last = time.monotonic()
        row = {
            "done": round(self.done, 3),
            **({} if self.total is None else {"total": self.total}),
            "unit": self.unit,
            "elapsed_s": round(elapsed, 1),
            **fields,
        }
        if self._quiet:
            _keep("INFO", self.label, row)
        else:
            event(self.label, **row)

    def close(self) -> None:
        """Take the bar away."""
        if self._bar:
            self._bar.stop()
            self._bar = None
            self._screen.release()


def _bar(label: str, known: bool, unit: str) -> Any:
    """A bar of rich. It leaves room for the ``^C`` that a terminal writes behind it: on a full line that begins a new line, and the bar would stay."""
    from rich import progress
    from rich.console import Console, Group
    from rich.constrain import Constrain

    console = Console(stderr=True)

    class NarrowBar(progress.Progress):
        def get_renderable(self) -> Constrain:
            return Constrain(Group(*self.get_renderables()), console.width - 3)

    measured = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TextColumn(unit), progress.TimeRemainingColumn())
    waiting = (progress.SpinnerColumn(), progress.TimeElapsedColumn())
    columns = (progress.TextColumn(label), *(measured if known else waiting), progress.TextColumn("{task.fields[note]}"))
    return NarrowBar(*columns, console=console, transient=True)


def read_progress(line: str) -> dict[str, Any] | None:
    """Progress in a line of a runner's log: ``{"message", "done", "total", …}``; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not {"message", "done", "total"} <= row.keys():
        return None
    return {key: value for key, value in row.items() if key not in ("severity", "stage")}

"""A real terminal (tmux) without a window: run a command in it, press keys, read its screen with everything that scrolled away.

with Terminal([".venv/bin/elson", "run"], columns=80) as terminal:
    terminal.wait_for("train")
    terminal.press("C-c")
    assert terminal.status() == 130
"""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
#: Decided by who starts the tests, not by a person at a terminal.
_NOT_A_PERSONS = ("CI", "ELSON_LOG", "ELSON_LOG_FILE", "ELSON_PROGRESS_EVERY_S", "NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TMUX")
_numbers = itertools.count()


def need() -> None:
    """Skip, and say so, where there is no tmux; in CI its absence is a failure."""
    if shutil.which("tmux") is None:
        if os.environ.get("CI"):
            pytest.fail("no terminal here: the set-up installs Debian's `tmux`")
        pytest.skip("no terminal (`make system` installs tmux)")


class Terminal:
    """One command in a terminal of its own."""

    def __init__(self, command: list[str], *, columns: int = 80, rows: int = 40, cwd: Path = ROOT, **env: str) -> None:
        self.columns = columns
        self._name = f"elson-{os.getpid()}-{next(_numbers)}"
        clean = {key: value for key, value in os.environ.items() if key not in _NOT_A_PERSONS}
        self._folder = Path(tempfile.mkdtemp(prefix="elson-terminal-"))
        settings, self._code = self._folder / "tmux.conf", self._folder / "code"
        settings.write_text("set -g status off\nset -g history-limit 9999\n")
        # The shell notes the exit code and stays: of a pane that has ended, tmux 3.3 does not always notice the end.
        shell = f"trap : INT; {shlex.join(command)}; echo $? > {self._code}.part; mv {self._code}.part {self._code}; exec sleep 3600"
        asked = ["tmux", "-L", self._name, "-f", str(settings), "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(cwd), "sh", "-c", shell]
        subprocess.run(asked, env={**clean, **env}, check=True, timeout=20)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self._tmux("kill-server")
        shutil.rmtree(self._folder)

    def lines(self, *, coloured: bool = False) -> list[str]:
        """Every line since the start as it is drawn now, without the empty ones at the end; ``coloured``: with escape sequences."""
        shown = self._tmux("capture-pane", "-p", "-S", "-", *(["-e"] if coloured else []))
        return shown.rstrip().splitlines()

    def broken(self) -> list[str]:
        """Lines that the terminal itself had to break because they are longer than it is wide."""
        whole = self._tmux("capture-pane", "-p", "-J", "-S", "-").rstrip().splitlines()
        return [line.rstrip() for line in whole if len(line.rstrip()) > self.columns]

    def press(self, key: str) -> None:
        """Press a key, in tmux's words: ``C-c``."""
        self._tmux("send-keys", key)

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until a text is on the screen."""
        self._until(lambda: any(text in line for line in self.lines()), f"{text!r} on the screen", seconds)

    def status(self, seconds: float = 60) -> int:
        """The command's exit code, when it has ended."""
        self._until(self._code.exists, "the end of the command", seconds)
        return int(self._code.read_text())

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(["tmux", "-L", self._name, *arguments], check=True, capture_output=True, text=True, timeout=20).stdout

    def _until(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        ends_at = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < ends_at, f"waited {seconds} s for {what}; the screen:\n" + "\n".join(self.lines())
            time.sleep(0.1)

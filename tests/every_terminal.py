"""Pictures of each terminal state, from real commands in a real terminal: 80 and 132 columns, light and dark, as SVG and PNG.

    .venv/bin/python -m tests.every_terminal OUT [NAME …]        all states, or those whose name begins so

States of a run come from one tiny run, stopped by Ctrl-C and started again (about three minutes); the others take seconds. It prints each
line that the terminal had to break. The pages are in ``tests/every_page.py``.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, MONOKAI
from rich.text import Text

from tests.browser import Browser
from tests.terminal import ROOT, Terminal

ELSON = str(ROOT / ".venv" / "bin" / "elson")
COLUMNS = (80, 132)


@dataclass(frozen=True)
class Screen:
    """A state: its name, what was typed, the lines with their colours, and those that are too long."""

    name: str
    typed: str
    lines: list[str]
    broken: list[str]


def seen(name: str, typed: str, terminal: Terminal) -> Screen:
    """What a terminal shows now."""
    return Screen(name, typed, terminal.lines(coloured=True), terminal.broken())


#: Name of a state -> the command that ends in it.
ENDED = {
    "help": "--help",
    "help-group": "data --help",
    "help-run": "run --help",
    "help-up": "up --help",
    "typo-command": "modles ls",
    "typo-option": "plan --stak serve-l4",
    "typo-stack": "plan -s serve-14",
    "typo-profile": "run --profile tinny",
    "stack-file-missing": "plan -s nowhere/Pulumi.mine.yaml",
    "plan-serve": "plan -s serve-l4",
    "plan-serve-verbose": "plan -s serve-l4 --verbose",
    "plan-train": "plan -s train-h100",
    "plan-train-verbose": "plan -s train-h100 --offline --verbose",
    "plan-all": "plan --offline",
    "prices": "prices show",
    "doctor": "doctor",
    "up": "up serve-l4",
    "status": "status serve-l4",
    "models-empty": "models ls --local --home {empty}",
    "data-build": "data build --out {empty}/dataset",
    "data-rejects": "data build {pairs} --out {empty}/dataset",
    "data-check": "data check {pairs}",
    "data-bad-input": "data build {broken} --out {empty}/dataset",
    "data-nowhere": "data check nowhere.jsonl",
    "stats-bad-input": "data stats {pairs}",
    "compare-nothing": "compare nowhere elsewhere",
    "load-no-server": "load --api-url http://127.0.0.1:9 --tokenizer {folder} --out {empty}/load",
    "evaluate-no-server": "evaluate --api-url http://127.0.0.1:9 --dataset none --out {empty}/evaluation",
}


def ended(folder: Path, columns: int, wanted: Callable[[str], bool]) -> Iterator[Screen]:
    """States that a command ends in."""
    places = {"folder": folder, "empty": folder / "empty", "pairs": folder / "pairs.jsonl", "broken": folder / "broken.jsonl"}
    answer = "A marginal rate applies to the last dollar of income; the average rate is tax divided by income. Both appear on the same return."
    rows = [
        {"question": "What is the difference between a marginal and an average tax rate?", "answer": answer, "category": "tax"},
        {"question": "What is the difference between a marginal and an average tax rate?", "answer": answer, "category": "tax"},
        {"question": "How do I file?", "answer": "", "category": "tax"},
        {"question": "Is a bond safer than a share of the same company?", "answer": answer, "category": "gardening"},
    ]
    places["pairs"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    places["broken"].write_text('{"question": "What is a bond?", "answer": \n')
    for name, words in ENDED.items():
        if wanted(name):
            typed = words.format(**places)
            with Terminal([ELSON, *typed.split()], columns=columns, HOME=str(folder)) as terminal:
                code = terminal.status(120)
                shown = words.format(**{key: file.name for key, file in places.items()})
                yield seen(name, f"elson {shown}   # exit {code}", terminal)


def of_a_run(folder: Path, columns: int) -> Iterator[Screen]:
    """A run's states: a bar, a second command, Ctrl-C, the end, done already, what was published."""
    command = [ELSON, "run", "--profile", "tiny"]
    typed = "elson run --profile tiny"

    def other(name: str, arguments: list[str]) -> Screen:
        with Terminal([ELSON, *arguments], columns=columns, cwd=folder) as second:
            code = second.status(60)
            return seen(name, f"elson {' '.join(arguments)}   # exit {code}", second)

    with Terminal(command, columns=columns, cwd=folder) as terminal:
        terminal.wait_for("stage 3 of", 120)
        terminal.wait_for(" steps ", 120)
        yield seen("run-bar", typed, terminal)
        yield other("run-second", ["run", "--profile", "tiny"])
        yield other("run-status", ["status", "--local"])
        terminal.press("C-c")
        code = terminal.status(30)
        yield seen("run-interrupted", f"{typed}   # exit {code}", terminal)
    with Terminal(command, columns=columns, cwd=folder) as terminal:
        terminal.wait_for("stage 6 of", 240)
        terminal.wait_for("first completion", 60)
        yield seen("run-waits", typed, terminal)
        code = terminal.status(400)
        yield seen("run-ended", f"{typed}   # exit {code}", terminal)
    yield other("run-again", ["run", "--profile", "tiny"])
    yield other("models", ["models", "ls", "--local"])


def draw(screen: Screen, columns: int, dark: bool) -> str:
    """The screen as SVG; no font is fetched from elsewhere."""
    console = Console(record=True, width=columns, file=Path(os.devnull).open("w"), force_terminal=True)  # noqa: SIM115 - rich writes until the process ends
    console.print(Text(f"$ {screen.typed}", style="bold"), overflow="fold")
    console.print(Text.from_ansi("\n".join(screen.lines)), soft_wrap=True)
    return console.export_svg(title="elson", theme=MONOKAI if dark else DEFAULT_TERMINAL_THEME)


def main(out: Path, names: list[str]) -> int:
    """Draw every state in every form; returns how many lines are too wide."""
    out.mkdir(parents=True, exist_ok=True)
    wide = 0
    for columns in COLUMNS:
        with tempfile.TemporaryDirectory(prefix="elson-terminal-") as name, Browser() as browser:
            folder = Path(name)
            screens: list[Screen] = list(ended(folder, columns, lambda state: not names or any(state.startswith(one) for one in names)))
            if not names or any(one.startswith("run") for one in names):
                screens += of_a_run(folder, columns)
            for screen in screens:
                wide += len(screen.broken)
                for line in screen.broken:
                    print(f"{screen.name}, {columns} columns: {line}")
                for dark in (False, True):
                    file = out / f"{screen.name}-{columns}-{'dark' if dark else 'light'}.svg"
                    file.write_text(draw(screen, columns, dark))
                    width, height = (math.ceil(float(size)) for size in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', file.read_text())[0])
                    browser.open(file, width=width, height=height, dark=dark)
                    browser.picture(file.with_suffix(".png"))
    return wide


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""Ctrl-C in a real terminal: one sentence, no bar left behind, exit code 130; text that fits the width."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

import pytest

from runners import environments, log
from tests import terminal
from tests.terminal import ROOT, Terminal

SENTENCE = "interrupted: nothing is half-published; the same command goes on where it stopped"
#: A stage with a bar, as `elson run` starts one; `{deaf}` for one that a library keeps from hearing Ctrl-C.
STAGE = (
    "import signal, sys, time; from runners import __main__, log; from runners.commands import cli\n"
    "def main():\n"
    "    {deaf}\n"
    "    with log.progress('train', 90, 'steps of a name so long that the bar fills the line of the terminal') as bar:\n"
    "        for n in range(900): bar.advance(0.1, note='loss 2.345'); time.sleep(0.1)\n"
    "cli.main = main; __main__.main()\n"
)
#: Starts it and waits, as ``elson run`` does.
RUN = (
    "import sys; from pathlib import Path; from runners import __main__, environments; from runners.commands import cli\n"
    "from runners.commands import run as command; from runners.local import run\n"
    "from runners.spec import Spec\n"
    "environments.python = lambda stage: Path({program!r})\n"
    "command_run = lambda *_, **__: run.process(run.Run(Spec(), Path()), 'train', 'train', [])\n"
    "run.run = command_run\n"
    "sys.argv = ['elson', 'run', '--profile', 'tiny']; __main__.main()\n"
)


@pytest.fixture(autouse=True)
def _needs_tmux() -> None:
    terminal.need()


def one_sentence(lines: list[str]) -> None:
    """It was said once, and nothing of a bar, a traceback or the ^C is left."""
    text = " ".join(" ".join(lines).split())
    assert text.count("interrupted") == 1 and SENTENCE in text, lines
    for left in ("━", "steps", "^C", "Traceback", "KeyboardInterrupt", "Exception ignored"):
        assert left not in text, lines
    assert "" not in lines, lines


@pytest.mark.parametrize("columns", [60, 80, 132])
@pytest.mark.parametrize("deaf", ["pass", "signal.signal(signal.SIGINT, signal.SIG_IGN)"], ids=["hears", "deaf"])
def test_ctrl_c_while_a_stage_draws_a_bar(tmp_path: Path, columns: int, deaf: str) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n" + STAGE.format(deaf=deaf))
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(stage))}\n")
    program.chmod(0o755)
    with Terminal([sys.executable, "-c", RUN.format(program=str(program))], columns=columns) as run:
        run.wait_for("steps", 20)
        time.sleep(0.3)
        run.press("C-c")
        assert run.status(20) == 130
        one_sentence(run.lines())


def test_ctrl_c_while_a_command_draws_its_own_bar() -> None:
    program = (
        "import sys, time; from runners import __main__, log; from runners.commands import cli, run\n"
        "from runners.local import run as local\n"
        "def work(*_, **__):\n"
        "    with log.progress('waiting for the first completion', None) as bar:\n"
        "        while True: bar.advance(0); time.sleep(0.1)\n"
        "local.run = work; sys.argv = ['elson', 'run', '--profile', 'tiny']; __main__.main()\n"
    )
    with Terminal([sys.executable, "-c", program]) as run:
        run.wait_for("waiting for", 20)
        run.press("C-c")
        assert run.status(20) == 130
        lines = run.lines()
        one_sentence(lines)
        assert not any("waiting" in line for line in lines), lines


def test_one_bar_at_a_time_and_none_is_left() -> None:
    """A checkpoint is uploaded in the background while the training draws its bar."""
    program = (
        "import threading, time; from runners import log; log.configure('train')\n"
        "def upload():\n"
        "    with log.progress('upload', 90, 'MiB') as bar:\n"
        "        for n in range(9): bar.advance(10); time.sleep(0.12)\n"
        "with log.progress('train', 10, 'steps') as bar:\n"
        "    bar.advance(5, note='loss 6.742'); time.sleep(0.3)\n"
        "    thread = threading.Thread(target=upload); thread.start()\n"
        "    for n in range(5): bar.advance(1, note='loss 6.742'); time.sleep(0.15)\n"
        "    log.event('held-out loss', step=10)\n"
        "    thread.join()\n"
        "with log.progress('after', 2) as bar: bar.advance(); time.sleep(0.5)\n"
    )
    with Terminal([sys.executable, "-c", program]) as run:
        run.wait_for("after ", 20)
        assert run.status(20) == 0
        assert run.lines() == ["· train     held-out loss  step=10"]


def test_ctrl_c_that_python_drops_comes_again() -> None:
    """An interrupt inside a finalizer or an import's clean-up is printed and forgotten by Python."""
    program = (
        "import signal, time; from runners import processes; processes.keep_interrupts()\n"
        "class Dropped:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "value = Dropped(); del value\n"
        "time.sleep(20); print('went on')\n"
    )
    with Terminal([sys.executable, "-c", program]) as run:
        assert run.status(15) == 130
        assert "Exception ignored" not in "\n".join(run.lines()) and "went on" not in "\n".join(run.lines())


def test_ctrl_c_while_the_command_line_loads_is_no_traceback() -> None:
    program = "import signal; from runners import __main__; import sys\nclass Slow:\n    def find_spec(self, name, *_):\n"
    program += "        if name == 'click': signal.raise_signal(signal.SIGINT)\nsys.meta_path.insert(0, Slow()); __main__.main()\n"
    with Terminal([sys.executable, "-c", program]) as run:
        assert run.status(15) == 130 and run.lines() == []


def test_the_console_script_starts_that_way() -> None:
    import tomllib

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"] == {"elson": "runners.__main__:main"}
    assert "runners.__main__" in (environments.ROOT / ".venv" / "bin" / "elson").read_text()


@pytest.mark.parametrize(
    ("typed", "code"),
    [
        ("plan -s serve-14", 1),
        ("plan -s serve-l4", 0),
        ("plan -s train-h100 --offline", 0),
        ("plan -s serve-l4 --offline --verbose", 0),
        ("data check {home}/nowhere.jsonl", 1),
        ("models ls --local --home {home}", 0),
        ("doctor", 1),
        ("--help", 0),
    ],
)
def test_nothing_is_wider_than_the_terminal(tmp_path: Path, typed: str, code: int) -> None:
    """A single word may be: an address or a path is left in one piece, to be copied."""
    with Terminal([sys.executable, "-m", "runners", *typed.format(home=tmp_path).split()], HOME=str(tmp_path)) as run:
        assert run.status(30) == code
        assert [line for line in run.broken() if len(line.split()[-1]) < run.columns - 24] == []


def test_a_command_to_copy_stays_in_one_line() -> None:
    fix = "export GOOGLE_CLOUD_PROJECT=my-project; or pass --models-bucket and --scratch-bucket; or --local for the embedded bucket"
    lines = log._broken(f"  fix:      {fix}", 80)
    assert [line.strip() for line in lines] == [
        "fix:      export GOOGLE_CLOUD_PROJECT=my-project;",
        "or pass --models-bucket and --scratch-bucket;",
        "or --local for the embedded bucket",
    ]
    assert log.fit("x" * 300, sys.__stdout__) == "x" * 300

"""A build beside another one, and a build that is killed."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runners.corpus.build import build
from runners.errors import UserError
from tests.corpus.projects import project, rows, spec


def test_two_builds_into_one_folder_do_not_meet(tmp_path: Path) -> None:
    root = project(tmp_path / "in", rows(5))
    first = tmp_path / "out.partial"
    first.mkdir()
    (first / "half").write_text("of another build")
    handle = os.open(first, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another build is writing"):
        build(spec(), root, tmp_path / "out")
    assert (first / "half").exists()
    os.close(handle)  # killed: what it left is cleared, and nothing of it comes in
    build(spec(), root, tmp_path / "out")
    assert not (tmp_path / "out" / "half").exists() and not first.exists()


_ENDLESS = """
import itertools, json, sys
from runners.corpus import prepare
from runners.corpus.checks import Checker
from runners.corpus.formats import Raw
from runners.corpus.sources import Source
prepare._ALONE_ROWS = 1
row = Raw("f", 1, {"question": "What is it?", "answer": "It is what it is, and no more than that.", "category": "tax"})
batch = prepare.Batch(Source(name="s", kind="qa", path="x", licence="MIT"), 0, (row,))
settings = prepare.PrepareSettings(Checker(500, 20, 2000), None, True, frozenset())
if __name__ == "__main__":
    for number, _ in enumerate(prepare.prepared(itertools.repeat(batch), settings, 2)):
        if number == 5:
            print("running", flush=True)
"""


def test_no_worker_outlives_a_build_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(_ENDLESS)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    build_process = subprocess.Popen([sys.executable, str(tmp_path / "endless.py")], stdout=subprocess.PIPE, env=environment)
    assert build_process.stdout is not None and build_process.stdout.readline() == b"running\n"
    children = [int(pid) for pid in Path(f"/proc/{build_process.pid}/task/{build_process.pid}/children").read_text().split()]
    assert children
    build_process.kill()
    build_process.wait()
    build_process.stdout.close()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and any(_lives(pid) for pid in children):
        time.sleep(0.1)
    assert not [pid for pid in children if _lives(pid)]


_DEAD_AT_START = """
import itertools, multiprocessing, sys
from runners.corpus import prepare
from runners.errors import UserError
multiprocessing.set_executable(sys.argv[1])
SETTINGS = prepare.PrepareSettings(prepare.Checker(500, 20, 2000), None, True, frozenset(map(str, range(100_000))))
batch = prepare.Batch(prepare.Source(name="s", kind="qa", path="x", licence="MIT"), 0, ())
prepare._ALONE_ROWS = 0
try:
    list(prepare.prepared(itertools.repeat(batch, 50), SETTINGS, 2))
except UserError as error:
    print(error)
"""


def test_a_build_whose_processes_die_at_their_start_says_so(tmp_path: Path) -> None:
    (tmp_path / "dead.py").write_text(_DEAD_AT_START)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TMPDIR": str(tmp_path)}
    dies = tmp_path / "dies"
    dies.write_text(f'#!/bin/sh\ncase "$*" in *resource_tracker*) exec {shlex.quote(sys.executable)} "$@";; esac\nexit 1\n')
    dies.chmod(0o755)
    ended = subprocess.run([sys.executable, str(tmp_path / "dead.py"), str(dies)], capture_output=True, text=True, env=environment, timeout=60)
    assert "a process that reads pairs for this build has died" in ended.stdout and not ended.stderr, ended
    assert not list(tmp_path.glob("elson-build-*"))


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False

"""The whole job on the tiny model, as its own process, so that it can be killed like one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Ended:
    """How a job ended: exit code (negative: a signal), its data, its log lines."""

    code: int
    stdout: str
    log: list[dict] = field(default_factory=list)
    stderr: str = ""

    @property
    def summary(self) -> dict:
        return json.loads(self.stdout)

    @property
    def error(self) -> str:
        return "\n".join(line["message"] for line in self.log if line.get("severity") == "ERROR")


Watch = Callable[[dict], bool]


def job(
    home: Path,
    *arguments: str,
    command: str = "run",
    profile: str = "tiny",
    kill_when: Watch | None = None,
    act_when: tuple[Watch, Callable[[int], None]] | None = None,
    env: dict | None = None,
) -> Ended:
    """``elson run`` (or another ``command``) in a process group of its own; SIGKILL to all of it at the first log line that ``kill_when`` accepts."""
    called = [sys.executable, "-m", "runners", command, "--profile", profile, "--home", str(home), "--json", *arguments]
    environment = {**os.environ, "ELSON_PROGRESS_EVERY_S": "0", "ELSON_STORAGE_RETRY_S": "3", "OMP_NUM_THREADS": "1", **(env or {})}
    process = subprocess.Popen(called, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    ended, acted = Ended(0, ""), False
    assert process.stderr
    assert process.stdout
    for line in process.stderr:
        ended.stderr += line
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict):
            continue
        ended.log.append(row)
        if kill_when and kill_when(row):
            os.killpg(process.pid, signal.SIGKILL)
            break
        if act_when and not acted and act_when[0](row):
            acted = True
            act_when[1](process.pid)
    ended.stdout = process.stdout.read()
    ended.code = process.wait()
    return ended


def profile(folder: Path, **changes: object) -> str:
    """The tiny profile with other values."""
    values = yaml.safe_load((ROOT / "runners" / "profiles" / "tiny.yaml").read_text())
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(values))
    return str(file)


def left_behind(home: Path) -> list[str]:
    """Processes that still work on a home folder."""
    found = []
    for _ in range(40):
        found = []
        for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(home) in text and str(os.getpid()) != cmdline.parent.name and "pytest" not in text:
                found.append(text)
        if not found:
            return []
        time.sleep(0.25)
    return found


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """One uninterrupted run of everything, for the tests that only look (others copy it). The workers of pytest-xdist share it: the first makes it."""
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "whole"
    kept = home.with_suffix(".json")
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            ended = job(home)
            assert ended.code == 0, ended.stderr[-4000:]
            kept.write_text(json.dumps(asdict(ended)))
    return home, Ended(**json.loads(kept.read_text()))


@pytest.fixture(scope="session")
def prepared(whole: tuple[Path, Ended]) -> Path:
    """Home folder of the finished run, to copy from."""
    return whole[0]

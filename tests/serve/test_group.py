"""Nothing of a server is left when its owner is killed: not the server that swallows SIGTERM (as vLLM does while its engine starts), not its engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runners.serving import group

ROOT = Path(__file__).parents[2]
#: A server with an engine, which hears no signal of the server's death. The server writes both their ids.
SERVER = """
import os, signal, subprocess, sys, time
if sys.argv[2] == "deaf":
    signal.signal(signal.SIGTERM, lambda *_: None)
engine = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
open(sys.argv[1], "w").write(f"{os.getpid()} {engine.pid}")
while True: time.sleep(1)
"""
OWNER = """
import sys
from pathlib import Path
from runners.serving import group
with group.running([sys.executable, "-c", sys.argv[1], *sys.argv[2:4]], {}, Path(sys.argv[2]).with_suffix(".log")) as server: server.wait()
"""


def until(what: str, true: Callable[[], bool], within_s: float = 20) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(params=["deaf", "hearing"])
def owner(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[subprocess.Popen[bytes], list[int]]:
    ids = tmp_path / "ids"
    process = subprocess.Popen([sys.executable, "-c", OWNER, SERVER, str(ids), request.param], cwd=ROOT)
    until("the server starts", lambda: ids.exists() and len(ids.read_text().split()) == 2)
    return process, [int(one) for one in ids.read_text().split()]


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_is_left_of_a_server_whose_owner_is_killed(owner: tuple[subprocess.Popen[bytes], list[int]], sign: signal.Signals) -> None:
    process, ids = owner
    process.send_signal(sign)
    process.wait()
    until(f"{ids} end with their owner", lambda: not any(alive(one) for one in ids), group.GRACE_S + 20)


def test_nothing_is_left_of_a_server_that_was_stopped_and_its_exit_code_is_told(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    with group.running([sys.executable, "-c", SERVER, str(ids), "hearing"], {}, tmp_path / "log") as server:
        until("the server starts", lambda: ids.exists() and len(ids.read_text().split()) == 2)
    until("both end", lambda: not any(alive(int(one)) for one in ids.read_text().split()))
    assert server.returncode == 128 + signal.SIGTERM
    with group.running([sys.executable, "-c", "raise SystemExit(7)"], {}, tmp_path / "log") as server:
        assert server.wait(20) == 7


def test_an_engine_is_not_left_when_its_server_dies_alone(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    with group.running([sys.executable, "-c", SERVER, str(ids), "deaf"], {}, tmp_path / "log") as server:
        until("the server starts", lambda: ids.exists() and len(ids.read_text().split()) == 2)
        os.kill(int(ids.read_text().split()[0]), signal.SIGKILL)
        assert server.wait(20) == 128 + signal.SIGKILL
    until("the engine ends", lambda: not alive(int(ids.read_text().split()[1])))

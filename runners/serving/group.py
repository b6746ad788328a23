"""A server with all its processes as one group, of which nothing is left when it is stopped or when whoever started it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Stays beside the server as the leader of its group. A signal to the server alone is not enough: while its engine starts, vLLM swallows a SIGTERM,
#: and an engine whose server was killed waits for ever, with the weights in memory.
_LEADER = """
import ctypes, os, signal, sys
parent, grace = int(sys.argv[1]), int(sys.argv[2])

def asked(*_):
    if os.getppid() != parent:  # else the whole group was asked, by ``stop``
        os.kill(child, signal.SIGTERM)
        signal.alarm(grace)

child = os.fork()
if not child:
    os.execvp(sys.argv[3], sys.argv[3:])
signal.signal(signal.SIGTERM, asked)
signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGKILL))
ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG: prctl(2)
asked()
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if os.getppid() != parent:
    os.killpg(0, signal.SIGKILL)
os._exit(code if code >= 0 else 128 - code)
"""
#: Seconds a server whose owner is gone has to end by itself.
GRACE_S = 5


def led(command: list[str]) -> list[str]:
    """The command below a leader of its group. On a system without prctl: the command itself."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-S", "-c", _LEADER, str(os.getpid()), str(GRACE_S), *command]


@contextmanager
def running(command: list[str], environment: dict[str, str], log_file: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the server as a process group of its own; ends all of it when the block ends, or when this process does, however it dies."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("wb") as output:
        server = subprocess.Popen(led(command), env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            yield server
        finally:
            stop(server)


def stop(server: subprocess.Popen[bytes], grace_s: float = 20) -> None:
    """Ask the process group to end, then make it."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, sign)
        except ProcessLookupError:
            break
        try:
            server.wait(grace_s)
        except subprocess.TimeoutExpired:
            continue
    server.wait()

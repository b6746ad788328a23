"""Child processes that never outlive their parent, however it dies (SIGKILL included)."""

from __future__ import annotations

import signal
import sys

#: prctl(PR_SET_PDEATHSIG, signal), then become the program: see prctl(2). Without it a killed run would leave a server behind.
_BOUND = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)
if os.getppid() != int(sys.argv[2]): sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def bound(command: list[str], sign: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command, wrapped so that the kernel sends it ``sign`` when this process ends. On a system without prctl: the command itself."""
    import os

    if sys.platform != "linux":
        return command
    return [sys.executable, "-S", "-c", _BOUND, str(int(sign)), str(os.getpid()), *command]


def end_with(parent: int) -> None:
    """Called in a worker process: end when the process ``parent``, which started it, does, however that dies."""
    import ctypes
    import os

    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)

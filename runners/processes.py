"""Child processes that never outlive their parent, however it dies (SIGKILL included), and threads that do not busy-wait."""

from __future__ import annotations

import os
import signal
import sys

#: OpenMP workers sleep instead of busy-waiting: on a loaded machine, spinning cost a small training 74 s instead of 4 s.
#: libgomp (torch) reads the first, libiomp (vLLM) the second.
QUIET_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
#: Set for the stages of `elson run`, whose parent speaks for them when a person interrupts.
CHILD = "ELSON_CHILD"
#: prctl(PR_SET_PDEATHSIG, signal), then become the program: see prctl(2). Without it a killed run would leave a server behind.
_BOUND = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, int(sys.argv[1]), 0, 0, 0)
if os.getppid() != int(sys.argv[2]): sys.exit(1)
os.execvp(sys.argv[3], sys.argv[3:])
"""


def bound(command: list[str], sign: signal.Signals = signal.SIGTERM) -> list[str]:
    """The command, wrapped so that the kernel sends it ``sign`` when this process ends. On a system without prctl: the command itself."""
    if sys.platform != "linux":
        return command
    return [sys.executable, "-S", "-c", _BOUND, str(int(sign)), str(os.getpid()), *command]


def end_with(parent: int) -> None:
    """Called in a worker process: end when the process ``parent``, which started it, does, however that dies."""
    import ctypes

    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def keep_interrupts() -> None:
    """Raise a KeyboardInterrupt again that Python dropped because it came while an import or a finalizer was cleaning up."""
    import threading

    def dropped(found: sys.UnraisableHookArgs) -> None:
        if found.exc_type is KeyboardInterrupt:
            # Later, not from here: it would be dropped again. As a signal to the main thread: it may be asleep.
            threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
        else:
            sys.__unraisablehook__(found)

    sys.unraisablehook = dropped


def quiet_threads() -> None:
    """Let idle OpenMP workers of this process and its children sleep. Must run before torch is imported; what the user set stays."""
    for name, value in QUIET_THREADS.items():
        os.environ.setdefault(name, value)

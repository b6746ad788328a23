"""How much memory and processor time a process and its children take, watched while they run."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_EVERY_S = 0.5
#: What is shared is counted again where the plain sum grew by this: that count walks every page (10 ms a GiB) and stops the process's own mmap meanwhile.
_GROWTH = 1.01


class PeakMemory:
    """Watches the resident memory of a process tree while its block runs; ``mib`` is the largest sum seen."""

    def __init__(self, pid: int) -> None:
        self.pid, self.mib, self._end = pid, 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        largest = 0.0
        while not self._end.wait(_EVERY_S):
            plain = _plain_mib(self.pid)
            if plain > largest * _GROWTH:
                largest, self.mib = plain, max(self.mib, resident_mib(self.pid))


def _plain_mib(pid: int) -> float:
    """The resident memory of a process and its children, pages that they share counted in each; from counters, so at no cost."""
    pages = 0
    for process in _tree(pid):
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def resident_mib(pid: int) -> float:
    """Proportional resident memory of a process and its children now, in MiB; 0 when it is gone or the system has no /proc."""
    total = 0.0
    for process in _tree(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) / 1024
    return round(total, 1)


def processor_s() -> float:
    """Processor seconds of this process and of every child it has or had, in user and system mode; running children only where there is a /proc."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for process in _tree(os.getpid())[1:]:
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # utime, stime, cutime, cstime: proc(5).
        total += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return round(total, 2)


def _tree(pid: int) -> list[int]:
    """A process and its descendants now."""
    found = [pid]
    for process in found:
        found += _children(process)
    return found


def _children(pid: int) -> list[int]:
    """The children of each thread, as the kernel lists them: no other process of the machine is read."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, file.read_text().split())
        except OSError:
            continue
    return found

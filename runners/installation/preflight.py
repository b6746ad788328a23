"""What must be so before anything is downloaded: Python, platform, disk, memory, permission. Each in one sentence, all at once.

No compiler is needed: what is built here (autoawq, elson) is pure Python, and vLLM runs without torch.compile on a CPU.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from runners.environments import ROOT, path

PYTHONS = ((3, 11), (3, 12), (3, 13))
#: GB on disk, measured: what an environment adds to an empty cache (torch counted once, below).
ADDED_GB = {"tools": 0.9, "train": 0.7, "quantize": 0.5, "serve": 1.9, "quantize-llmcompressor": 0.7}
TORCH_CPU_GB, TORCH_CUDA_GB = 0.7, 4.7
#: The demo's peak, in training, of the CPUs it ran on: 4.3 to 5.1 GiB.
PEAK_MEMORY_GIB, LEAST_MEMORY_GIB = 5.1, 6.0
#: Of the wheels of the serve lock (llguidance).
LEAST_GLIBC = (2, 31)


def problems(stages: Iterable[str]) -> list[str]:
    """Every reason why these environments cannot be installed here."""
    stages = list(stages)
    heavy = [stage for stage in stages if stage != "tools"]
    return [text for text in (_python(), _venv(), _platform(heavy), _libc(heavy), _writable(stages), _disk(stages), _memory(heavy)) if text]


def needed_gb(stages: Iterable[str], *, cuda: bool) -> float:
    """Disk that environments take, torch counted once."""
    stages = list(stages)
    torch = (TORCH_CUDA_GB if cuda else TORCH_CPU_GB) if any(stage != "tools" for stage in stages) else 0.0
    return round(sum(ADDED_GB[stage] for stage in stages) + torch, 1)


def _python() -> str:
    if sys.version_info[:2] in PYTHONS and platform.python_implementation() == "CPython" and sys.maxsize > 2**32:
        return ""
    found = f"{platform.python_implementation()} {platform.python_version()}, {64 if sys.maxsize > 2**32 else 32} bit"
    return f"this is {found}; elson needs CPython 3.11, 3.12 or 3.13, 64 bit: name one with `make setup PYTHON=python3.12`"


def _venv() -> str:
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return ""
    return "this Python lacks the modules venv and ensurepip: on Debian and Ubuntu, `apt install python3-venv` brings them"


def _platform(heavy: list[str]) -> str:
    system, machine = platform.system(), platform.machine()
    if heavy and (system, machine) != ("Linux", "x86_64"):
        return (
            f"this is {system} on {machine}; training and serving here (`make demo`, `make test`) need Linux on x86-64, for which vLLM has a CPU build: "
            "`make setup` installs the tools that steer the cloud, which work here"
        )
    if (system, machine) not in (("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")):
        return f"this is {system} on {machine}; the tools have locked wheels for Linux on x86-64 and ARM (aarch64), and for macOS 14 and later on Apple silicon"
    return ""


def _libc(heavy: list[str]) -> str:
    name, version = platform.libc_ver()
    if platform.system() != "Linux":
        return ""
    if name != "glibc":
        return "this Linux has no glibc (Alpine?); the locked wheels need it: use Debian, Ubuntu, Fedora or another distribution with glibc"
    if heavy and tuple(int(part) for part in version.split(".")[:2]) < LEAST_GLIBC:
        return f"glibc is {version}; the locked wheels need 2.31 or newer (Debian 11, Ubuntu 20.04)"
    return ""


def _writable(stages: list[str]) -> str:
    folders = [ROOT / ".elson", *(path(stage) for stage in stages)]
    for folder in folders:
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            return f"{there} cannot be written by this user: run it as the owner of the folder, or clone into a folder of your own"
    return ""


def _disk(stages: list[str]) -> str:
    """Refuses what cannot fit even with the small torch; ``install`` checks again once it knows which torch it gets."""
    return disk_problem(stages, cuda=False)


def disk_problem(stages: Iterable[str], *, cuda: bool) -> str:
    """The sentence about a disk that is too small, or nothing."""
    free, needed = shutil.disk_usage(ROOT).free / 1e9, needed_gb(stages, cuda=cuda)
    if free >= needed:
        return ""
    return f"{free:.1f} GB are free at {ROOT}; the environments take {needed:.1f} GB{' with the CUDA build of torch' if cuda else ''}: free some space"


def memory_gib() -> float:
    """Memory of this machine, or of this container if it has less. 0 where it cannot be read."""
    found = []
    with contextlib.suppress(ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(file).read_text()))
        except (OSError, ValueError):
            continue
    return min(found) / 2**30 if found else 0.0


def _memory(heavy: list[str]) -> str:
    found = memory_gib()
    if not heavy or not found or found >= LEAST_MEMORY_GIB:
        return ""
    needed = f"training here takes up to {PEAK_MEMORY_GIB} GiB, so {LEAST_MEMORY_GIB:.0f} GiB are needed"
    return f"this machine has {found:.1f} GiB of memory; {needed}: use a larger machine, or `make setup` for the tools alone"

"""Which build of torch this machine gets.

The default wheel for Linux on PyPI is the CUDA build, which cannot be imported without 4 GB of CUDA packages. So a CPU build is preferred:
from pip's indexes or local wheels, else from PyTorch's public CPU index; only where neither has it, the default wheel with its CUDA packages
from the lock. Whichever it is, its hash is in a lock.
"""

from __future__ import annotations

import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

from runners.environments import ROOT
from runners.installation.uv import Uv

LOCK = ROOT / "images" / "torch-cpu.lock"
#: What only the CUDA build of torch needs.
CUDA_PACKAGES = re.compile(r"^(triton|nvidia-.*|cuda-.*)==")
#: Where it is installed, autoawq takes its kernels without asking for a card, and fails; torch and vLLM do without it on a CPU.
NEEDS_A_CARD = re.compile(r"^triton==")
#: Packages that the CPU build of vLLM names and never imports (or breaks on, next to a CPU torch).
UNUSED = re.compile(r"^(torchvision|torchaudio|torchcodec)==")
PROBE_TIMEOUT_S = 8.0


def split(lock: str) -> list[str]:
    """A lock as requirements, each with its hashes on one line."""
    joined = re.sub(r"\\\n\s*", " ", lock)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith(("#", "-"))]


def choose(uv: Uv, work: Path) -> str:
    """The requirement of a CPU build, or the empty string where only the default build can be had."""
    requirement = split(LOCK.read_text())[0]
    file = work / "torch-cpu.txt"
    file.write_text(requirement + "\n")
    python = str(uv.program.parent / "python")
    # Asked of the Python that environments are made from, so that a wheel for another one does not count.
    if uv.finds(
        "pip", "install", "--quiet", "--dry-run", "--no-deps", "--require-hashes", "--python", python, "--target", str(work / "nowhere"), "-r", str(file)
    ):
        return requirement
    if "no-index" not in uv.settings and answers(url(requirement)):
        return requirement.replace(requirement.split()[0], f"torch @ {url(requirement)}", 1)
    return ""


def url(requirement: str) -> str:
    """Where PyTorch publishes the CPU build for this Python."""
    version = requirement.split()[0].partition("==")[2].replace("+", "%2B")
    tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
    return f"https://download.pytorch.org/whl/cpu/torch-{version}-{tag}-{tag}-manylinux_2_28_x86_64.whl"


def answers(address: str) -> bool:
    """Whether a file can be fetched. Proxies of the environment are used."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PROBE_TIMEOUT_S) as found:
            return bool(found.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def requirements(lock: str, cpu_torch: str, *, card: bool = False) -> list[str]:
    """What to install of a lock: with the CPU torch, nothing of CUDA; with the default torch, what it needs to be imported, and all of it beside a card."""
    kept = []
    for line in split(lock):
        if line.startswith("torch==") and cpu_torch:
            kept.append(cpu_torch)
        elif not UNUSED.match(line) and not (cpu_torch and CUDA_PACKAGES.match(line)) and (card or not NEEDS_A_CARD.match(line)):
            kept.append(line)
    return kept

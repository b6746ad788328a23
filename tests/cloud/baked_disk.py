"""The disk of the VM that a bake makes: the container that brings weights is run for real, as a process of the serve environment's code, into a folder.

As strict as images/bake.sh and docker: words are split at blanks alone, every option is one that docker has, the image is one that was pulled before, and the
folder is the one that a server mounts (infra/startup/disks.sh).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = re.search(r"^readonly WORK=(\S+)$", (ROOT / "infra/startup/disks.sh").read_text(), re.MULTILINE)[1]  # type: ignore[index]
WITH_A_VALUE = {"--network", "--cap-drop", "--security-opt", "--user", "--env", "--volume"}


def brought(folder: Path, text: str, images: list[str]) -> str:
    """Do what the VM does; returns what it says in its guest attribute."""
    words = text.split("\n")[0].split()
    if words == ["nothing"]:
        return "done"
    options: dict[str, str] = {}
    while words and words[0].startswith("--"):
        option = words.pop(0)
        assert option == "--rm" or option in WITH_A_VALUE, option
        options[option] = "" if option == "--rm" else words.pop(0)
    image, command = words[0], words[1:]
    assert image in images, f"Unable to find image {image} locally"
    assert options["--user"] == "10001", "the folder belongs to this user, and a server is no other"
    host, inside = options["--volume"].split(":")
    assert host == WORK and inside == "/scratch" and "--rm" in options
    disk = folder / host.lstrip("/")
    disk.mkdir(parents=True)
    command = [str(disk) if word == "/scratch" else word for word in command]
    environment = {name: os.environ[name] for name in ("PATH", "STORAGE_EMULATOR_HOST") if name in os.environ} | {"HOME": str(disk), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "runners", *command], env=environment, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    (folder / "serial-port.txt").write_text(done.stdout + done.stderr)
    return f"failed at line {line_of('docker run')}" if done.returncode else "done"


def line_of(words: str) -> int:
    """Where the script does that, as its trap says it."""
    return next(number for number, line in enumerate((ROOT / "images/bake.sh").read_text().splitlines(), 1) if line.strip().startswith(words))


def copied(vm: Path, image: Path) -> None:
    """The image of a VM's disk."""
    shutil.rmtree(image, ignore_errors=True)
    if vm.exists():
        shutil.copytree(vm, image)

"""uv, which installs: brought from PyPI with pip into a folder of its own, and told what pip knows.

uv unpacks a package once into a cache and hard-links it into every environment: the packages of ``serve`` took 11 s where pip took three
minutes, and a second environment takes no disk. The cache is ``.elson/cache/uv``: hard links need one file system, and ``make clean`` removes it.
uv does not read pip's configuration, so indexes, local wheels, certificates and proxies are passed on.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

from runners.environments import ROOT
from runners.installation.failure import InstallationError

HOME = ROOT / ".elson" / "uv"
LOCK = ROOT / "images" / "uv.lock"
#: pip's setting -> uv's variable. A variable that the user has set already stays.
SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "proxy": "ALL_PROXY",
}


def interpreter() -> str:
    """The Python that environments are made from: never one inside an environment, which may be replaced."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def program() -> Path:
    """The path of uv; installs the locked version first if it is not there."""
    version = re.search(r"(?m)^uv==(\S+)", LOCK.read_text())
    folder = HOME / (version.group(1) if version else "unknown")
    found = folder / "bin" / "uv"
    if (folder / "complete").exists() and found.exists():
        return found
    run([interpreter(), "-m", "venv", "--clear", str(folder)], "the folder of uv could not be made")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    run([*pip, "--require-hashes", "--requirement", str(LOCK)], "uv could not be installed")
    (folder / "complete").touch()
    return found


def pip_settings(listing: str) -> dict[str, list[str]]:
    """``pip config list`` as setting -> values. The environment outranks the section [install], and that outranks [global]."""
    ranked: dict[str, dict[int, list[str]]] = {}
    for line in listing.splitlines():
        match = re.match(r"(global|install|:env:)\.([\w-]+)=(.*)$", line)
        if match:
            rank = ("global", "install", ":env:").index(match.group(1))
            ranked.setdefault(match.group(2).replace("_", "-"), {})[rank] = str(ast.literal_eval(match.group(3))).split()
    return {name: values[max(values)] for name, values in ranked.items()}


def environment(settings: dict[str, list[str]]) -> dict[str, str]:
    """The variables uv runs with: pip's settings where uv has no setting of its own. Indexes may hold passwords, so nothing goes into arguments."""
    mine = {
        "UV_CACHE_DIR": str(ROOT / ".elson" / "cache" / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        # As pip does: the best version of all indexes. Every file must match a hash of the lock, whichever index it comes from.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_HTTP_RETRIES": "6",
    }
    for name, variable in SETTINGS.items():
        if settings.get(name):
            mine[variable] = " ".join(settings[name])
    if settings.get("find-links"):
        mine["UV_FIND_LINKS"] = ",".join(settings["find-links"])
    if os.environ.get("UV_INDEX_URL") or os.environ.get("UV_DEFAULT_INDEX"):
        mine.pop("UV_DEFAULT_INDEX", None)
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return {**mine, **kept}


class Uv:
    """uv, ready to be called."""

    def __init__(self) -> None:
        self.program = program()
        python = self.program.parent / "python"
        listing = subprocess.run([str(python), "-m", "pip", "config", "list"], capture_output=True, text=True)
        self.settings = pip_settings(listing.stdout)
        self.environment = environment(self.settings)

    def call(self, *arguments: str, failure: str) -> None:
        """Run uv. Raises InstallationError with the reason in one sentence and uv's own last lines."""
        run([str(self.program), *self.completed(arguments)], failure, self.environment)

    def completed(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """uv's arguments, with pip's ``no-index``: uv has no variable for it."""
        return (*arguments, "--no-index") if "no-index" in self.settings and arguments[0] == "pip" else arguments

    def finds(self, *arguments: str) -> bool:
        """Whether uv ends with success."""
        return subprocess.run([str(self.program), *self.completed(arguments)], env=self.environment, cwd=ROOT, capture_output=True).returncode == 0


#: What a failed command says -> (expected, fix).
REASONS = [
    (r"No space left on device|os error 28|Errno 28|Disk quota exceeded", "room on the disk", "free some space"),
    (r"(?i)hash mismatch|do not match the hashes", "files whose hashes are in the lock", "find out who changes files on the way: a mirror, or a proxy"),
    (
        r"(?i)dns error|error sending request|failed to fetch|connection (refused|reset|error)|timed out|Name or service not known|NewConnectionError"
        r"|failed to establish|could not connect|tcp connect error|ProxyError|broken pipe|incompletemessage|error decoding response body",
        "a package index that answers",
        "check the network, and pip's index, proxy and certificate settings (pip config list)",
    ),
    (r"Permission denied|os error 13|Read-only file system|os error 30", "write permission", "run it as the owner of this folder"),
    (
        r"(?i)no matching distribution|no solution found|not found in the package registry",
        "an index with every locked version",
        "check the network, and pip's index (pip config list)",
    ),
    (r"ensurepip", "a Python with venv and pip", "on Debian and Ubuntu: apt install python3-venv"),
]


def run(command: list[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """Run a command quietly. Raises InstallationError; the traceback of a child is cut to its last lines."""
    try:
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    except OSError as error:
        raise InstallationError(f"{failure}: {error}", "a program that runs", "free space or fix permissions") from None
    if not done.returncode:
        return
    text = (done.stdout + "\n" + done.stderr).strip()
    last = "\n    ".join(line for line in text.splitlines()[-6:] if line.strip())
    for pattern, expected, fix in REASONS:
        if re.search(pattern, text):
            raise InstallationError(f"{failure}:\n    {last}", expected, f"{fix}; then run the same command again: it goes on where it stopped")
    raise InstallationError(f"{failure} (code {done.returncode}):\n    {last}", "code 0", "the lines above say why; then run the same command again")

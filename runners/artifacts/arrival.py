"""A model's folder that is used while it arrives: vLLM starts at once, and each shard is loaded when its bytes are those of the manifest.

The small files come first, whole and verified, with the headers of the shards, which vLLM reads for its configuration. The shards then arrive in order,
each in parallel ranges of the generation that was listed, into a file that has its full size from the beginning. ``.arriving/<shard>`` is made when the
CRC32C and the SHA-256 of all bytes on the disk are the manifest's; ``runners/serving/loader.py`` waits for it. The manifest is written last, as by
``storage.download``.

Where the folder is complete, from an earlier start or from the boot image, the shards are held against their CRC32C the same way, behind the start; only one
that is damaged is brought again.

Nothing waits for the disk: the loader reads what the system still has in memory, and the folder is synchronized behind its back.
"""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from runners import log, outside
from runners.artifacts import storage, wire
from runners.artifacts.record import MANIFEST, Manifest, crc32c_of, describe
from runners.errors import UserError

#: Files with weights; everything else is small.
_SHARD = ".safetensors"
ARRIVING = ".arriving"
#: Ranges at once: enough for 16 Gbit/s, and few enough that the first shard is here long before the last.
_PARALLEL = 16
#: A header of the 14B in shards of 1 GB has 20 kB; vLLM refuses none, we refuse one that is no header.
_HEADER_AT_MOST = 100 << 20


class Arrival:
    """A folder on its way. ``rest`` brings the shards, and checks those that are ``here``; ``problem`` says why it ended early."""

    def __init__(self, uri: str, folder: Path, manifest: Manifest, generations: dict[str, int], shards: list[str], here: list[str]) -> None:
        self.uri, self.folder, self.manifest, self.generations, self.shards, self.here = uri, folder, manifest, generations, shards, here
        self.problem: Exception | None = None

    def start(self) -> threading.Thread:
        """Bring the shards in a thread of its own; ``problem`` is set when one of them is not what was published."""

        def bring() -> None:
            try:
                self.rest()
            except Exception as error:  # noqa: BLE001 - whatever it is, whoever looks after the server ends it and says so
                self.problem = error

        thread = threading.Thread(target=bring, name="arrival", daemon=True)
        thread.start()
        return thread

    def rest(self) -> None:
        """Bring every shard, verify it, write the manifest. Raises UserError for bytes that were not published."""
        self._check()
        if (self.folder / MANIFEST).exists():
            shutil.rmtree(self.folder / ARRIVING)
            return
        total = sum(self.manifest.files[path].size for path in self.shards)
        with log.progress("weights", max(1, round(total / 2**20)), "MiB") as meter, ThreadPoolExecutor(_PARALLEL) as pool, ThreadPoolExecutor(2) as verifiers:
            verified: list[Future[None]] = []
            ranges = {
                path: [pool.submit(self._receive, path, start, end) for start, end in storage.ranges(self.manifest.files[path].size)] for path in self.shards
            }
            try:
                for path, parts in ranges.items():
                    for part in as_completed(parts):
                        meter.advance(part.result() / 2**20)
                    verified.append(verifiers.submit(self._verify, path))
                for done in verified:
                    done.result()
            finally:
                for part in (part for parts in ranges.values() for part in parts):
                    part.cancel()
        outside.sync(self.folder)
        outside.write_durably(self.folder / MANIFEST, self.manifest.model_dump_json(indent=1))
        shutil.rmtree(self.folder / ARRIVING)

    def _check(self) -> None:
        """Mark the shards that are here, each when its CRC32C is the manifest's; one that is not has to be brought."""

        def check(path: str) -> bool:
            if right := crc32c_of(self.folder / path) == self.manifest.files[path].crc32c:
                mark(self.folder, path)
            return right

        with ThreadPoolExecutor(2) as pool:
            broken = [path for path, right in zip(self.here, pool.map(check, self.here), strict=True) if not right]
        if broken:
            log.warning("weights on this disk are damaged: they are brought again", files=", ".join(broken))
            (self.folder / MANIFEST).unlink()
            self.shards += broken

    def _receive(self, path: str, start: int, end: int) -> int:
        return wire.receive(f"{self.uri}/{path}", str(self.folder / path), start, end, generation=self.generations[path])

    def _verify(self, path: str) -> None:
        if describe(self.folder / path) != self.manifest.files[path]:
            (self.folder / path).unlink()
            raise UserError(
                f"{self.uri}/{path} arrived damaged",
                f"the SHA-256 {self.manifest.files[path].sha256}, which the manifest names",
                "run it again; if it stays so, restore that object's older version, or publish again",
            )
        if path in self.shards:
            mark(self.folder, path)


def begin(uri: str, folder: Path, check: Callable[[Manifest], None]) -> Arrival:
    """Bring everything but the shards, and the shards' headers. What an earlier start left is kept where it is right.

    Raises UserError when the folder is incomplete or another one, or when the bucket itself says that an object is not the manifest's.
    """
    manifest = storage.checked_manifest(uri, check)
    stored = {item.path: item for item in storage.listing(uri)}
    for path, file in manifest.files.items():
        if path not in stored or (stored[path].crc32c, stored[path].size) != (file.crc32c, file.size):
            raise UserError(
                f"{uri}/{path} is {f'another object ({stored[path].crc32c})' if path in stored else 'gone'}",
                f"{file.crc32c}, which the manifest names",
                "somebody changed it: restore its older version (gcloud storage ls -a), or publish the model again under a new name",
            )
    generations = {path: stored[path].generation for path in manifest.files}
    _remove_others(folder, manifest)
    shutil.rmtree(folder / ARRIVING, ignore_errors=True)
    shards = [path for path in sorted(manifest.files) if path.endswith(_SHARD)]
    was_complete = storage.manifest_here(folder) == manifest and all(_has_its_size(folder, manifest, path) for path in shards)
    if not was_complete:
        (folder / MANIFEST).unlink(missing_ok=True)
    missing = _missing(folder, manifest, [path for path in manifest.files if not (was_complete and path in shards)])
    (folder / ARRIVING).mkdir(parents=True)
    storage.reserve(folder, {path: manifest.files[path] for path in missing})
    arrival = Arrival(uri, folder, manifest, generations, [path for path in shards if path in missing], shards if was_complete else [])
    with ThreadPoolExecutor(_PARALLEL) as pool:
        for done in [pool.submit(_whole, arrival, path) for path in missing if path not in shards]:
            done.result()
        for done in [pool.submit(_header, arrival, path) for path in (*arrival.shards, *arrival.here)]:
            done.result()
    for path in set(shards) - missing - set(arrival.here):
        mark(folder, path)
    return arrival


def mark(folder: Path, path: str) -> None:
    """Say that a shard is here and verified."""
    marker = folder / ARRIVING / path
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.touch()


def is_here(folder: Path, path: str) -> bool:
    """Whether a shard may be read: marked, or in a folder that is complete."""
    return not (folder / ARRIVING).exists() or (folder / ARRIVING / path).exists()


def _remove_others(folder: Path, manifest: Manifest) -> None:
    """vLLM loads every shard that it finds: also one that an earlier model left, or somebody put there."""
    kept = {MANIFEST, *manifest.files}
    for path in [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]:
        name = path.relative_to(folder)
        if name.as_posix() not in kept and name.parts[0] != ARRIVING:
            path.unlink()


def _has_its_size(folder: Path, manifest: Manifest, path: str) -> bool:
    return (folder / path).is_file() and (folder / path).stat().st_size == manifest.files[path].size


def _missing(folder: Path, manifest: Manifest, paths: list[str]) -> set[str]:
    """Which of these files have to be brought. A start that was cut off may have left one that nobody held against its SHA-256."""
    here = [path for path in paths if _has_its_size(folder, manifest, path)]
    with ThreadPoolExecutor(_PARALLEL) as pool:
        found = dict(zip(here, pool.map(lambda path: describe(folder / path), here), strict=True))
    return {path for path in paths if found.get(path) != manifest.files[path]}


def _whole(arrival: Arrival, path: str) -> None:
    arrival._receive(path, 0, arrival.manifest.files[path].size)
    arrival._verify(path)


def _header(arrival: Arrival, path: str) -> None:
    """The header of a safetensors file: 8 bytes of length, then JSON. Its bytes are verified with the rest of the file, before any weight is used."""
    size = arrival.manifest.files[path].size
    arrival._receive(path, 0, min(8, size))
    with (arrival.folder / path).open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
    if not 0 < length <= min(size - 8, _HEADER_AT_MOST):
        raise UserError(f"{arrival.uri}/{path} has a header of {length:,} bytes", "a safetensors file", "publish the model again")
    arrival._receive(path, 8, 8 + length)

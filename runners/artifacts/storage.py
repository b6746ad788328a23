"""Cloud Storage, the only storage: small objects with preconditions, folders with checksums.

One code path everywhere: at home ``STORAGE_EMULATOR_HOST`` points to the embedded emulator. Every write is create-once or
compare-and-swap; who loses a race to the same bytes has won. Folder transfers are parallel, verified against a manifest, and go on where they stopped.

Left out: composing uploads from parts (quantized models are saved in shards of 1 GB, so that files alone fill the link).
"""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runners import log, outside
from runners.artifacts import wire
from runners.artifacts.record import MANIFEST, Manifest, ManifestFile, crc32c_of, describe, manifest_of
from runners.artifacts.wire import Conflict, bucket_there, client, explained, forget_clients, patiently, split
from runners.errors import Temporary, UserError

#: Also the words of the wire that everybody who uses a bucket needs.
__all__ = ["Conflict", "bucket_there", "client", "explained", "forget_clients", "split"]

#: Downloads are cut into ranges of this size, so that one large file uses every worker.
RANGE_BYTES = 64 << 20
#: Rounds against other writers of one file before giving up.
_ROUNDS = 8


@dataclass(frozen=True)
class Stored:
    """An object as listed: path below the listed prefix, bytes, CRC32C (base64), generation."""

    path: str
    size: int
    crc32c: str
    generation: int


def read(uri: str) -> tuple[bytes, int] | None:
    """(content, generation) of an object, or None when it is not there."""
    try:
        return wire.read(uri)
    except FileNotFoundError:
        return None


def read_json(uri: str) -> tuple[Any, int] | None:
    """(value, generation) of a JSON object, or None. Raises UserError when it is not JSON."""
    found = read(uri)
    if found is None:
        return None
    try:
        return outside.parsed_json(found[0], uri), found[1]
    except UserError as error:
        raise UserError(f"{uri} is corrupt: {error.found}", "a JSON object", "restore an older version of it: gcloud storage ls -a " + uri) from None


def write(uri: str, data: bytes | str, *, generation: int) -> int:
    """Write an object if its generation is still ``generation`` (0: if it is not there). Returns the new generation.

    Raises Conflict when another content is there by now. The same content is what was wanted, whoever wrote it.
    """
    try:
        return _write(uri, data, generation)
    except Conflict:
        found = read(uri)
        if found is None or found[0] != (data.encode() if isinstance(data, str) else data):
            raise
        return found[1]


def _write(uri: str, data: bytes | str, generation: int) -> int:
    """Write an object under a condition, once: a write whose answer was lost is known by its mark. Raises Conflict."""
    bucket, path = split(uri)
    mark = {"elson-write": uuid.uuid4().hex}
    kind = "application/json" if path.endswith(".json") else "text/html" if path.endswith(".html") else "application/octet-stream"

    def attempt() -> int:
        blob = client().bucket(bucket).blob(path)
        blob.metadata = mark
        blob.upload_from_string(data, content_type=kind, if_generation_match=generation, checksum="crc32c", retry=None, timeout=wire.SILENT_S)
        return int(blob.generation)

    try:
        with bucket_there(uri), explained(uri):
            return patiently(attempt)
    except Conflict:
        there = _blob(uri)
        if there is None or there.metadata != mark:
            raise
        return int(there.generation)


def write_json(uri: str, value: Any, *, generation: int) -> int:
    """Write a JSON object under the same condition as :func:`write`."""
    return write(uri, _text(value), generation=generation)


def _text(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True)


def update_json(uri: str, change: Callable[[Any | None], Any | None], patience_s: float = 60) -> Any | None:
    """Compare-and-swap loop, so that each change is made exactly once: read, ``change(value or None)``, write.

    None from ``change`` writes nothing. Returns the value that stands.
    """
    begin, failures = time.monotonic(), 0
    while True:
        found = read_json(uri)
        value, generation = found if found else (None, 0)
        wanted = change(value)
        if wanted is None or wanted == value:
            return value
        try:
            _write(uri, _text(wanted), generation)
        except Conflict:
            failures += 1
            if time.monotonic() - begin > patience_s:
                raise Temporary(f"{uri} changes under every attempt to write it", "one writer at a time", "stop the other machines that work on it") from None
            time.sleep(random.uniform(0, min(2.0, 0.01 * 2**failures)))
            continue
        return wanted


def listing(uri: str) -> list[Stored]:
    """Every object below a folder. A name that would leave the folder it is copied to is left out, and said."""
    bucket, prefix = split(uri)
    prefix = f"{prefix}/" if prefix else ""
    try:
        with explained(uri):
            blobs = patiently(lambda: list(client().list_blobs(bucket, prefix=prefix, retry=None, timeout=30)))
    except FileNotFoundError:
        return []
    found = [Stored(blob.name[len(prefix) :], int(blob.size), blob.crc32c or "", int(blob.generation or 0)) for blob in blobs if not blob.name.endswith("/")]
    for stored in found:
        if not outside.is_below(stored.path):
            log.warning("an object with a name that is no path was passed over", object=f"gs://{bucket}/{prefix}{stored.path}"[:300])
    return [stored for stored in found if outside.is_below(stored.path)]


def delete(uri: str) -> None:
    """Delete a folder of the scratch bucket; what is gone already is fine."""
    for stored in listing(uri):
        delete_object(f"{uri.rstrip('/')}/{stored.path}")


def delete_object(uri: str) -> None:
    """Delete one object; what is gone already is fine."""
    bucket, path = split(uri)
    try:
        with explained(uri):
            patiently(lambda: client().bucket(bucket).blob(path).delete(retry=None, timeout=30))
    except FileNotFoundError:
        return


def read_manifest(uri: str) -> Manifest | None:
    """The manifest of a folder, or None when the folder is not complete."""
    found = read_json(f"{uri}/{MANIFEST}")
    if found is None:
        return None
    try:
        manifest = Manifest.model_validate(found[0])
        if not manifest.files:
            raise UserError(f"{uri}/{MANIFEST} lists no file", "a manifest of elson", "remove that folder, and make it again")
        return manifest
    except ValueError as error:
        reason = str(error).splitlines()[2].strip() if len(str(error).splitlines()) > 2 else "another shape"
        raise UserError(
            f"{uri}/{MANIFEST} is corrupt: {reason[:200]}", "a manifest of elson", f"restore an older version of it: gcloud storage ls -a {uri}/{MANIFEST}"
        ) from None


def upload(folder: Path, uri: str, *, label: str = "upload", expected: Manifest | None = None) -> Manifest:
    """Upload a folder; the manifest goes last. Files that are there already with the same content are not sent again.

    Args:
        expected: what the folder must hold.

    Raises UserError when it holds no file, or others than expected.
    """
    manifest = manifest_of(folder)
    if not manifest.files:
        raise UserError(f"{folder} holds no file", "a folder to upload", "look whether the step before this one ended well")
    if expected and manifest != expected:
        raise UserError(f"{folder} does not hold what its {MANIFEST} says", "every file of it, unchanged", "make it again")
    present = {stored.path: stored for stored in listing(uri)}
    todo = {path: file for path, file in manifest.files.items() if path not in present or present[path].crc32c != file.crc32c}
    sends = [
        functools.partial(_send, folder / path, f"{uri}/{path}", file.crc32c, present[path].generation if path in present else 0) for path, file in todo.items()
    ]
    _run(sends, sum(file.size for file in todo.values()), label)
    write_manifest(uri, manifest)
    return manifest


def write_manifest(uri: str, manifest: Manifest) -> None:
    """Write a folder's manifest, last of all."""
    update_json(f"{uri}/{MANIFEST}", lambda _: manifest.model_dump(mode="json"))


def download(uri: str, folder: Path, *, label: str = "download", check: Callable[[Manifest], None] = lambda _: None) -> Manifest:
    """Bring a complete folder here, verified; ``folder`` appears whole or not at all.

    Args:
        check: raises UserError for a manifest that is not the expected one.

    Raises UserError when the folder is incomplete, damaged or another one.
    """
    manifest = checked_manifest(uri, check)
    if complete_here(folder, manifest):
        return manifest
    partial = folder.with_name(folder.name + ".partial")
    missing = {path: manifest.files[path] for path in damaged(partial, manifest)}
    reserve(partial, missing)
    receives = [
        functools.partial(wire.receive, f"{uri}/{path}", str(partial / path), start, end) for path, file in missing.items() for start, end in ranges(file.size)
    ]
    _run(receives, sum(file.size for file in missing.values()), label)
    # By SHA-256 too: the manifest's digest is made of these, and whoever may write there can keep a CRC32C.
    with ThreadPoolExecutor() as pool:
        arrived = dict(zip(manifest.files, pool.map(describe, [partial / path for path in manifest.files]), strict=True))
    broken = [path for path, file in arrived.items() if file != manifest.files[path]]
    if broken:
        for path in broken:
            (partial / path).unlink(missing_ok=True)
        raise UserError(
            f"{uri}/{broken[0]} arrived damaged: its checksum differs from the manifest's",
            "the bytes that were published",
            "run again; if it stays, restore that object's older version or publish again",
        )
    for extra in [path for path in partial.rglob("*") if path.is_file() and path.relative_to(partial).as_posix() not in manifest.files]:
        extra.unlink()
    outside.sync(partial)
    outside.write_durably(partial / MANIFEST, manifest.model_dump_json(indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    outside.sync_folder(folder.parent)
    return manifest


def checked_manifest(uri: str, check: Callable[[Manifest], None]) -> Manifest:
    """The manifest of a folder that has to be complete. Raises UserError when it is not, or what ``check`` raises for another one."""
    manifest = read_manifest(uri)
    if manifest is None:
        raise UserError(f"{uri} is not there, or not complete", f"a folder with {MANIFEST}", "elson models ls")
    check(manifest)
    return manifest


def reserve(folder: Path, files: Mapping[str, ManifestFile]) -> None:
    """Make files of their full size, to be filled range by range. Raises Temporary when the disk has too little room for them."""
    need_disk(folder, sum(file.size for file in files.values()))
    for path, file in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        with (folder / path).open("wb") as handle:
            handle.truncate(file.size)


def ranges(size: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of the parts that a file is downloaded in."""
    return ((start, min(start + RANGE_BYTES, size)) for start in range(0, size, RANGE_BYTES))


def complete_here(folder: Path, manifest: Manifest) -> bool:
    """Whether a folder of this machine has the manifest, and every file that it names."""
    return manifest_here(folder) == manifest and not list(damaged(folder, manifest))


def manifest_here(folder: Path) -> Manifest | None:
    """The manifest of a folder of this machine; None when there is none, or it was cut off by a loss of power."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return None


def damaged(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Paths that are missing in ``folder`` or whose size or checksum differ from the manifest."""
    same_size = [path for path, file in manifest.files.items() if (folder / path).is_file() and (folder / path).stat().st_size == file.size]
    yield from (path for path in manifest.files if path not in set(same_size))
    with ThreadPoolExecutor() as pool:
        found: Iterable[str] = pool.map(crc32c_of, [folder / path for path in same_size])
    yield from (path for path, checksum in zip(same_size, found, strict=True) if checksum != manifest.files[path].crc32c)


def copy(source: str, target: str, manifest: Manifest) -> None:
    """Copy a folder inside Cloud Storage, file by file; what is there with other content is replaced under its generation."""
    present = {stored.path: stored for stored in listing(target)}
    for path, file in manifest.files.items():
        _rewrite(f"{source}/{path}", f"{target}/{path}", file.crc32c, present.get(path))


def _rewrite(source: str, target: str, crc32c: str, there: Stored | None) -> None:
    from_bucket, from_path = split(source)
    bucket, path = split(target)
    for attempt in range(_ROUNDS):
        if there and there.crc32c == crc32c:
            return
        generation, token = there.generation if there else 0, None
        blob, original = client().bucket(bucket).blob(path), client().bucket(from_bucket).blob(from_path)
        try:
            with explained(target):
                while True:
                    part = functools.partial(blob.rewrite, original, token=token, if_generation_match=generation, retry=None, timeout=120)
                    token, *_ = patiently(part)
                    if not token:
                        return
        except Conflict:
            there = _stat(target)
            time.sleep(random.uniform(0, 0.05 * 2**attempt))
        except FileNotFoundError:
            raise UserError(f"{source} is gone", "the staged upload", "run the stage again: it uploads what is missing") from None
    raise Temporary(f"{target} changes under every attempt to write it", "one writer at a time", "stop the other machines that work on it")


def _blob(uri: str) -> Any:
    bucket, path = split(uri)
    with explained(uri):
        return patiently(lambda: client().bucket(bucket).get_blob(path, retry=None, timeout=30))


def _stat(uri: str) -> Stored | None:
    blob, path = _blob(uri), split(uri)[1]
    return Stored(path, int(blob.size), blob.crc32c or "", int(blob.generation or 0)) if blob else None


def _send(path: Path, uri: str, crc32c: str, generation: int) -> int:
    """Upload one file. Another machine that wrote the same bytes first has done our work; other bytes are replaced under their generation."""
    for attempt in range(_ROUNDS):
        try:
            if wire.send(path, uri, generation) == crc32c:
                return path.stat().st_size
        except Conflict:
            pass
        # Somebody else's bytes are there, or ours arrived damaged.
        there = _stat(uri)
        if there and there.crc32c == crc32c:
            return there.size
        generation = there.generation if there else 0
        time.sleep(random.uniform(0, 0.05 * 2**attempt))
    raise Temporary(f"{uri} is not what was sent, again and again", f"the checksum {crc32c}", "run again: only this file is sent again")


def _run(calls: Sequence[Callable[[], int]], total: int, label: str) -> None:
    """Make the calls, which return bytes, in parallel threads (the work is in the kernel, not under the interpreter's lock); the first error ends it."""
    if not calls:
        return
    with log.progress(label, max(1, round(total / 2**20)), "MiB") as meter, ThreadPoolExecutor(min(len(calls), 4 * (os.cpu_count() or 1), 64)) as pool:
        jobs = [pool.submit(call) for call in calls]
        try:
            for job in as_completed(jobs):
                meter.advance(job.result() / 2**20)
        except FileNotFoundError as error:
            raise UserError(f"{error} disappeared during the transfer", "a complete folder", "run again") from None
        finally:
            for job in jobs:
                job.cancel()


def need_disk(folder: Path, size: int) -> None:
    """Raise Temporary when a folder's disk has too little room for a download."""
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < size + (64 << 20):
        raise Temporary(
            f"the disk of {folder} has {free / 1e9:.1f} GB free", f"{size / 1e9:.1f} GB for the download", "free space, or pass another --work folder"
        )

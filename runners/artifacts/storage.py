"""Cloud Storage, the only storage: small objects with preconditions, folders with checksums.

One code path everywhere: at home ``STORAGE_EMULATOR_HOST`` points to the embedded emulator. Every write is create-once or
compare-and-swap. Folder transfers are parallel, verified against a manifest, and go on where they stopped.

Left out: composing uploads from parts (quantized models are saved in shards of 1 GB, so that files alone fill the link).
"""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from runners import log
from runners.artifacts.record import MANIFEST, Manifest, crc32c_of, manifest_of
from runners.errors import UserError

#: Downloads are cut into ranges of this size, so that one large file uses every worker.
RANGE_BYTES = 64 << 20
RETRY_S = float(os.environ.get("ELSON_STORAGE_RETRY_S", "60"))


class Conflict(Exception):
    """Somebody else wrote the object first."""


@dataclass(frozen=True)
class Stored:
    """An object as listed: path below the listed prefix, bytes, CRC32C (base64), generation."""

    path: str
    size: int
    crc32c: str
    generation: int


@functools.cache
def client() -> Any:
    """The Cloud Storage client of this process."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client(project="local", credentials=AnonymousCredentials())
    return storage.Client()


def forget_clients() -> None:
    """Make the next call connect again, after the emulator's address changed."""
    client.cache_clear()
    session.cache_clear()


def split(uri: str) -> tuple[str, str]:
    """``gs://bucket/a/b`` -> (``bucket``, ``a/b``)."""
    bucket, _, path = uri.removeprefix("gs://").partition("/")
    return bucket, path.rstrip("/")


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn what the client library raises for an unreachable or forbidden bucket into one clear error."""
    import requests
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError
    from google.cloud.storage.exceptions import DataCorruption

    bucket = split(uri)[0]
    try:
        yield
    except exceptions.PreconditionFailed as error:
        raise Conflict(uri) from error
    except exceptions.NotFound as error:
        raise FileNotFoundError(uri) from error
    except exceptions.Forbidden as error:
        raise UserError(
            f"no access to {uri}: {error.message}", "read and write access", "gcloud auth application-default login, or ask the project's owner"
        ) from None
    except DataCorruption:
        raise UserError(
            f"{uri} is corrupt: its bytes differ from its checksum", "what was written", f"restore an older version of it: gcloud storage ls -a {uri}"
        ) from None
    except GoogleAuthError as error:
        raise UserError(f"no Google credentials: {error}", "application default credentials", "gcloud auth application-default login") from None
    except (exceptions.RetryError, exceptions.GoogleAPICallError, requests.RequestException) as error:
        reason = str(error).splitlines()[0][:300]
        raise UserError(
            f"the bucket {bucket} does not answer: {reason}",
            "a reachable Cloud Storage",
            "check the network, then run the same command again: it goes on where it stopped",
        ) from None


@contextmanager
def bucket_there(uri: str) -> Iterator[None]:
    """A write that finds nothing finds no bucket."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"the bucket {split(uri)[0]} is not there", "a bucket made by the foundation stack", "pulumi up -s foundation") from None


def read(uri: str) -> tuple[bytes, int] | None:
    """(content, generation) of an object, or None when it is not there."""
    bucket, path = split(uri)
    try:
        with explained(uri):
            blob = client().bucket(bucket).blob(path)
            return blob.download_as_bytes(checksum="crc32c", retry=_retry(), timeout=30), int(blob.generation or 0)
    except FileNotFoundError:
        return None


def read_json(uri: str) -> tuple[Any, int] | None:
    """(value, generation) of a JSON object, or None. Raises UserError when it is not JSON."""
    found = read(uri)
    if found is None:
        return None
    try:
        return json.loads(found[0]), found[1]
    except ValueError:
        raise UserError(f"{uri} is corrupt: it is not JSON", "a JSON object", "restore an older version of it: gcloud storage ls -a " + uri) from None


def write(uri: str, data: bytes | str, *, generation: int) -> int:
    """Write an object if its generation is still ``generation`` (0: if it is not there). Returns the new generation. Raises Conflict."""
    bucket, path = split(uri)
    with bucket_there(uri), explained(uri):
        blob = client().bucket(bucket).blob(path)
        kind = "application/json" if path.endswith(".json") else "text/html" if path.endswith(".html") else "application/octet-stream"
        blob.upload_from_string(data, content_type=kind, if_generation_match=generation, checksum="crc32c", retry=_retry(), timeout=60)
        return int(blob.generation)


def write_json(uri: str, value: Any, *, generation: int) -> int:
    """Write a JSON object under the same condition as :func:`write`."""
    return write(uri, json.dumps(value, indent=1, sort_keys=True), generation=generation)


def update_json(uri: str, change: Callable[[Any | None], Any | None], tries: int = 8) -> Any | None:
    """Compare-and-swap loop: read, ``change(value or None)``, write; None from ``change`` writes nothing. Returns the current value."""
    for _ in range(tries):
        found = read_json(uri)
        value, generation = found if found else (None, 0)
        wanted = change(value)
        if wanted is None or wanted == value:
            return value
        try:
            write_json(uri, wanted, generation=generation)
        except Conflict:
            continue
        return wanted
    raise UserError(f"{uri} changes under every attempt to write it", "one writer at a time", "stop the other machine that works on it")


def listing(uri: str) -> list[Stored]:
    """Every object below a folder."""
    bucket, prefix = split(uri)
    prefix = f"{prefix}/" if prefix else ""
    try:
        with explained(uri):
            blobs = list(client().list_blobs(bucket, prefix=prefix, retry=_retry(), timeout=30))
    except FileNotFoundError:
        return []
    return [Stored(blob.name[len(prefix) :], int(blob.size), blob.crc32c or "", int(blob.generation or 0)) for blob in blobs if not blob.name.endswith("/")]


def delete(uri: str) -> None:
    """Delete a folder of the scratch bucket; what is gone already is fine."""
    bucket, prefix = split(uri)
    for stored in listing(uri):
        try:
            with explained(uri):
                client().bucket(bucket).blob(f"{prefix}/{stored.path}").delete(retry=_retry(), timeout=30)
        except FileNotFoundError:
            continue


def read_manifest(uri: str) -> Manifest | None:
    """The manifest of a folder, or None when the folder is not complete."""
    found = read_json(f"{uri}/{MANIFEST}")
    if found is None:
        return None
    try:
        return Manifest.model_validate(found[0])
    except ValueError:
        raise UserError(
            f"{uri}/{MANIFEST} is corrupt", "a manifest of elson", f"restore an older version of it: gcloud storage ls -a {uri}/{MANIFEST}"
        ) from None


def upload(folder: Path, uri: str, *, label: str = "upload") -> Manifest:
    """Upload a folder; the manifest goes last. Files that stand there already with the same content are not sent again."""
    manifest = manifest_of(folder)
    present = {stored.path: stored for stored in listing(uri)}
    todo = {path: file for path, file in manifest.files.items() if path not in present or present[path].crc32c != file.crc32c}
    sends = [
        (_send, (str(folder / path), f"{uri}/{path}", file.crc32c, present[path].generation if path in present else 0), file.size)
        for path, file in todo.items()
    ]
    _run(sends, sum(file.size for file in todo.values()), label)
    write_manifest(uri, manifest)
    return manifest


def write_manifest(uri: str, manifest: Manifest) -> None:
    """Write a folder's manifest, last of all."""
    update_json(f"{uri}/{MANIFEST}", lambda _: manifest.model_dump(mode="json"))


def download(uri: str, folder: Path, *, label: str = "download") -> Manifest:
    """Bring a complete folder here, verified; ``folder`` appears whole or not at all. Raises UserError when it is incomplete or damaged."""
    manifest = read_manifest(uri)
    if manifest is None:
        raise UserError(f"{uri} is not there, or not complete", f"a folder with {MANIFEST}", "elson models ls")
    if (folder / MANIFEST).exists() and Manifest.model_validate_json((folder / MANIFEST).read_text()) == manifest and not list(damaged(folder, manifest)):
        return manifest
    partial = folder.with_name(folder.name + ".partial")
    missing = {path: manifest.files[path] for path in damaged(partial, manifest)}
    _need_disk(partial, sum(file.size for file in missing.values()))
    for path, file in missing.items():
        target = partial / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as handle:
            handle.truncate(file.size)
    receives = [
        (_receive, (f"{uri}/{path}", str(partial / path), start, min(start + RANGE_BYTES, file.size)), min(RANGE_BYTES, file.size - start))
        for path, file in missing.items()
        for start in range(0, file.size, RANGE_BYTES)
    ]
    _run(receives, sum(file.size for file in missing.values()), label)
    broken = [path for path in damaged(partial, manifest) if path in missing]
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
    (partial / MANIFEST).write_text(manifest.model_dump_json(indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return manifest


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
    bucket, prefix = split(source)
    other, other_prefix = split(target)
    for path, file in manifest.files.items():
        there = present.get(path)
        if there and there.crc32c == file.crc32c:
            continue
        try:
            with explained(target):
                blob = client().bucket(other).blob(f"{other_prefix}/{path}")
                token, *_ = blob.rewrite(
                    client().bucket(bucket).blob(f"{prefix}/{path}"), if_generation_match=there.generation if there else 0, retry=_retry(), timeout=120
                )
                while token:
                    token, *_ = blob.rewrite(client().bucket(bucket).blob(f"{prefix}/{path}"), token=token, timeout=120)
        except FileNotFoundError:
            raise UserError(f"{source}/{path} is gone", "the staged upload", "run the stage again: it uploads what is missing") from None


def _send(path: str, uri: str, crc32c: str, generation: int) -> int:
    """Upload one file in a single streamed request: a third of the CPU time of the client library's own chunked upload (measured)."""
    bucket, name = split(uri)
    size = Path(path).stat().st_size

    def attempt() -> str:
        blob = client().bucket(bucket).blob(name)
        if size == 0:
            blob.upload_from_string(b"", if_generation_match=generation)
            return crc32c
        place = blob.create_resumable_upload_session(size=size, if_generation_match=generation, timeout=60)
        with Path(path).open("rb") as file:
            answer = session().put(place, data=file, timeout=(10, 600))
        raise_for(answer)
        return str(answer.json()["crc32c"])

    with bucket_there(uri), explained(uri):
        arrived = _retry()(attempt)()
    if arrived != crc32c:
        raise UserError(f"{uri} arrived damaged: checksum {arrived}", crc32c, "run again: only this file is sent again")
    return size


def _receive(uri: str, path: str, start: int, end: int) -> int:
    """Download bytes [start, end) of an object into place, streamed to the file: a third of the CPU time of ``download_as_bytes`` (measured)."""
    bucket, name = split(uri)
    url = f"{client().api_endpoint}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"

    def attempt() -> None:
        with session().get(url, stream=True, headers={"Range": f"bytes={start}-{end - 1}", "Accept-Encoding": "identity"}, timeout=(10, 120)) as answer:
            raise_for(answer)
            with Path(path).open("r+b") as file:
                file.seek(start)
                shutil.copyfileobj(answer.raw, file, 1 << 20)
                if file.tell() != end:
                    raise requests_module().ConnectionError(f"{file.tell() - start} of {end - start} bytes arrived")

    if end > start:
        with explained(uri):
            _retry()(attempt)()
    return end - start


@functools.cache
def session() -> Any:
    """An authorized HTTP session for the bytes of large files."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession
    from requests.adapters import HTTPAdapter

    class LargeBlocks(HTTPAdapter):
        """Sends a file in blocks of 1 MiB: http.client's 16 KiB cost 64 times the calls."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options, blocksize=1 << 20)

    emulated = os.environ.get("STORAGE_EMULATOR_HOST")
    credentials = AnonymousCredentials() if emulated else google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])[0]
    made = AuthorizedSession(credentials)
    for scheme in ("http://", "https://"):
        made.mount(scheme, LargeBlocks(pool_maxsize=64))
    return made


def requests_module() -> Any:
    """The requests package, imported when it is needed."""
    import requests

    return requests


def raise_for(answer: Any) -> None:
    """Raise what the client library would raise for a failed answer."""
    from google.api_core.exceptions import from_http_response

    if answer.status_code >= 300:
        raise from_http_response(answer)


def _run(calls: list[tuple[Callable[..., int], tuple[Any, ...], int]], total: int, label: str) -> None:
    """Make the calls in parallel threads (the work is in the kernel, not under the interpreter's lock); the first error ends it."""
    if not calls:
        return
    with log.progress(label, max(1, round(total / 2**20)), "MiB") as meter, ThreadPoolExecutor(min(len(calls), 4 * (os.cpu_count() or 1), 64)) as pool:
        jobs = [pool.submit(call, *arguments) for call, arguments, _ in calls]
        try:
            for job in as_completed(jobs):
                meter.advance(job.result() / 2**20)
        except FileNotFoundError as error:
            raise UserError(f"{error} disappeared during the transfer", "a complete folder", "run again") from None
        finally:
            for job in jobs:
                job.cancel()


def _need_disk(folder: Path, size: int) -> None:
    place = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < size + (64 << 20):
        raise UserError(
            f"the disk of {folder} has {free / 1e9:.1f} GB free", f"{size / 1e9:.1f} GB for the download", "free space, or pass another --work folder"
        )


def _retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_timeout(RETRY_S)

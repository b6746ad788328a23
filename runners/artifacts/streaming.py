"""Bytes from the network into a bucket without touching the disk: read in ranges, hashed on the way, written only if they are the right ones.

An object is finished by its last chunk, and the last chunk is sent only when the SHA-256 of all bytes is what was announced: an object that is there
was verified. Memory is one chunk a file. A connection that breaks on either side goes on at the byte where it broke.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from runners.artifacts import storage, wire
from runners.errors import Temporary, UserError

#: A multiple of 256 KiB, as Cloud Storage asks.
CHUNK_BYTES = 32 << 20
BLOCK_BYTES = 1 << 20
#: Broken connections in a row, without one new byte between them, before giving up.
TRIES = 9

#: ``read(start)`` yields the source's bytes from an offset on; any OSError or ``requests`` error means that the connection broke.
Read = Callable[[int], Iterator[bytes]]


def stream(read: Read, uri: str, size: int, sha256: str, advance: Callable[[float], None] = lambda _: None) -> str:
    """Write ``size`` bytes to a new object. Returns its CRC32C. Raises UserError for wrong bytes, Conflict when the object is there."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum
    crc, sha, sent = checksum(), hashlib.sha256(), 0
    place = _session(uri, size)
    for chunk in _chunks(read, size):
        crc.update(chunk)
        sha.update(chunk)
        if sent + len(chunk) >= size and sha.hexdigest() != sha256:
            wire.session().delete(place, timeout=60)
            raise UserError(f"the bytes for {uri} have the SHA-256 {sha.hexdigest()}", f"{sha256}, which the source announces", "run the same command again")
        _put(place, uri, chunk, sent, size)
        sent += len(chunk)
        advance(len(chunk) / 2**20)
    return base64.b64encode(crc.digest()).decode()


def describe(read: Read, size: int) -> tuple[str, str]:
    """(CRC32C, SHA-256) of a source that announces neither, by reading it once."""
    import google_crc32c

    checksum: Any = google_crc32c.Checksum
    crc, sha = checksum(), hashlib.sha256()
    for chunk in _chunks(read, size):
        crc.update(chunk)
        sha.update(chunk)
    return base64.b64encode(crc.digest()).decode(), sha.hexdigest()


def _session(uri: str, size: int) -> str:
    bucket, name = storage.split(uri)
    with storage.bucket_there(uri), storage.explained(uri):
        return wire.patiently(
            lambda: str(
                storage.client().bucket(bucket).blob(name).create_resumable_upload_session(size=size, if_generation_match=0, timeout=wire.SILENT_S, retry=None)
            )
        )


def _chunks(read: Read, size: int) -> Iterator[bytes]:
    """The source in pieces of CHUNK_BYTES, the last one shorter; an empty source is one empty piece."""
    buffer, got, failures = bytearray(), 0, 0
    while got < size:
        begin, reason = got, "it ended early"
        try:
            for block in read(got):
                buffer += block
                got += len(block)
                while len(buffer) >= CHUNK_BYTES:
                    yield bytes(buffer[:CHUNK_BYTES])
                    del buffer[:CHUNK_BYTES]
        except Exception as error:
            if not wire.is_temporary(error):
                raise
            reason = str(error)[:200]
        failures = 1 if got > begin else failures + 1
        if got < size:
            if failures >= TRIES:
                raise Temporary(f"the source stopped at byte {got:,} of {size:,}: {reason}", "all bytes", "check the network, then run the same command again")
            time.sleep(min(10.0, 0.2 * 2**failures))
    if got > size:
        raise UserError(f"the source sent {got:,} bytes", f"{size:,}, which it announces", "run the same command again")
    if buffer or size == 0:
        yield bytes(buffer)


def _put(place: str, uri: str, chunk: bytes, start: int, size: int) -> None:
    """Send one chunk to an upload session; after an error, the session says from which byte on to send again."""
    import requests

    end, at, reason = start + len(chunk), start, ""
    for attempt in range(TRIES):
        try:
            span = f"bytes {at}-{end - 1}/{size}" if size else "bytes */0"
            answer = wire.session().put(place, data=chunk[at - start :], headers={"Content-Range": span}, timeout=(10, 600))
            if answer.status_code in (200, 201) or (answer.status_code == 308 and wire.committed(answer) >= end):
                return
            if answer.status_code == 412:
                raise storage.Conflict(uri)
            if answer.status_code < 500 and answer.status_code not in (308, 408, 429):
                with storage.explained(uri):
                    wire.raise_for(answer)
            reason = f"HTTP {answer.status_code}"
        except (OSError, requests.RequestException) as error:
            reason = str(error)[:200]
        time.sleep(min(10.0, 0.2 * 2**attempt))
        try:
            asked = wire.session().put(place, headers={"Content-Range": f"bytes */{size}", "Content-Length": "0"}, timeout=60)
            if asked.status_code in (200, 201):
                return
            at = max(start, min(end, wire.committed(asked))) if asked.status_code == 308 else at
        except (OSError, requests.RequestException) as error:
            reason = str(error)[:200]
    raise Temporary(f"the bucket does not take {uri}: {reason}", "a reachable Cloud Storage", "run the same command again: finished files are kept")

"""Calls to Cloud Storage over a network that fails: one way to try again, to read with a minimum rate, to send a file, and to say what went wrong.

A call is tried again with a growing, random pause until nothing has moved for ``RETRY_S`` seconds; then it is temporary trouble (exit code 75).
"""

from __future__ import annotations

import base64
import functools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from runners.errors import Temporary, UserError

T = TypeVar("T")
RETRY_S = float(os.environ.get("ELSON_STORAGE_RETRY_S", "60"))
#: A download that stays slower than this for ``SLOW_S`` is begun again where it stands: another connection usually is not.
MIN_BYTES_PER_S, SLOW_S = 64 << 10, float(os.environ.get("ELSON_STORAGE_SLOW_S", "20"))
#: Answers whose checksum is wrong, in a row, before the object itself is called damaged.
_MISMATCHES = 3
_BLOCK_BYTES = 1 << 20
CONNECT_S, SILENT_S = 10, 60


class Conflict(Exception):
    """Somebody else wrote the object first."""


@functools.cache
def client() -> Any:
    """The Cloud Storage client of this process."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    emulated = os.environ.get("STORAGE_EMULATOR_HOST")
    made = storage.Client(project="local", credentials=AnonymousCredentials()) if emulated else storage.Client()
    _steady(made._http)
    return made


@functools.cache
def session() -> Any:
    """An authorized HTTP session for bytes."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.transport.requests import AuthorizedSession

    emulated = os.environ.get("STORAGE_EMULATOR_HOST")
    credentials = AnonymousCredentials() if emulated else google.auth.default(scopes=["https://www.googleapis.com/auth/devstorage.read_write"])[0]
    made = AuthorizedSession(credentials)
    _steady(made)
    return made


def _steady(session: Any) -> None:
    """Let a session send files in large blocks, and give up on an answer that trickles: a time-out is for silence, and there is none."""
    from io import BytesIO

    from requests.adapters import HTTPAdapter
    from urllib3 import HTTPResponse

    class Steady(HTTPAdapter):
        """Sends a file in blocks of 1 MiB: http.client's 16 KiB cost 64 times the calls. An answer that is not streamed has the minimum rate too."""

        def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
            super().init_poolmanager(*arguments, **options, blocksize=_BLOCK_BYTES)

        def send(self, request: Any, stream: bool = False, *arguments: Any, **options: Any) -> Any:
            answer = super().send(request, stream, *arguments, **options)
            if not stream:
                body, raw = bytearray(), answer.raw
                take(answer, body.extend)
                raw.release_conn()
                answer.raw = HTTPResponse(BytesIO(body), headers=raw.headers, status=raw.status, preload_content=False)
            return answer

    for scheme in ("http://", "https://"):
        session.mount(scheme, Steady(pool_maxsize=64))


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
    """Turn what a call raises into Conflict, FileNotFoundError, or one clear error: Temporary where another try may help."""
    import requests
    import urllib3
    from google.api_core import exceptions
    from google.auth.exceptions import GoogleAuthError, TransportError

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
    except (TransportError, exceptions.RetryError, exceptions.GoogleAPICallError, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, (requests.RequestException, ConnectionError, TimeoutError)):
            raise  # the disk's, not the network's
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        if isinstance(error, exceptions.ClientError) and not is_temporary(error):
            raise UserError(f"the bucket {bucket} refuses {uri}: {reason}", "a request that Cloud Storage takes", "this is a bug of elson: report it") from None
        raise Temporary(
            f"the bucket {bucket} does not answer: {reason}",
            "a reachable Cloud Storage",
            "check the network, then run the same command again: it goes on where it stopped",
        ) from None
    except GoogleAuthError as error:
        raise UserError(f"no Google credentials: {error}", "application default credentials", "gcloud auth application-default login") from None


@contextmanager
def bucket_there(uri: str) -> Iterator[None]:
    """A 404 on a write means that the bucket does not exist."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"the bucket {split(uri)[0]} is not there", "a bucket made by the foundation stack", "pulumi up -s foundation") from None


def is_temporary(error: BaseException) -> bool:
    """Whether another try may bring another answer: lost or slow connections, truncated answers, 408, 429 and 5xx."""
    import requests
    import urllib3
    from google.api_core import exceptions
    from google.auth.exceptions import TransportError

    if isinstance(error, exceptions.GoogleAPICallError):
        return error.code in (408, 429) or (error.code or 0) >= 500
    lost = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError)
    # An answer that is cut off in its JSON, too.
    return isinstance(error, (*lost, requests.JSONDecodeError, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError, TransportError))


def patiently(attempt: Callable[[], T], moved: Callable[[], Any] = lambda: None) -> T:
    """``attempt()`` until it succeeds, or fails for good, or nothing has moved for RETRY_S. Pauses grow and are random, so that many machines spread out."""
    begin, before, failures = time.monotonic(), moved(), 0
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_temporary(error):
                raise
            if (now_at := moved()) != before:
                begin, before, failures = time.monotonic(), now_at, 0
            failures += 1
            pause = random.uniform(0.5, 1) * min(8.0, 0.1 * 2**failures)
            if time.monotonic() + pause - begin > RETRY_S:
                raise
            time.sleep(pause)


def read(uri: str) -> tuple[bytes, int]:
    """(content, generation) of a small object, its checksum verified. Raises FileNotFoundError and UserError."""
    wrong = [0]

    def attempt() -> tuple[bytes, int]:
        content = bytearray()
        with _get(uri) as answer:
            take(answer, content.extend)
            promised = dict(part.split("=", 1) for part in answer.headers.get("x-goog-hash", "").replace(" ", "").split(",") if "=" in part)
            generation = int(answer.headers.get("x-goog-generation") or 0)
        if promised.get("crc32c", (found := crc32c(bytes(content)))) != found:
            wrong[0] += 1
            if wrong[0] >= _MISMATCHES:
                raise UserError(
                    f"{uri} is corrupt: its bytes differ from its checksum", "what was written", f"restore an older version of it: gcloud storage ls -a {uri}"
                )
            raise ConnectionError(f"{uri} arrived damaged")
        return bytes(content), generation

    with explained(uri):
        return patiently(attempt)


def receive(uri: str, path: str, start: int, end: int, generation: int = 0) -> int:
    """Download bytes [start, end) of an object into place, going on where a connection broke. Streamed: a third of the CPU time of ``download_as_bytes``.

    Args:
        generation: of the object; 0 takes the newest.
    """
    at = [start]

    def attempt() -> None:
        with Path(path).open("r+b") as file:
            file.seek(at[0])

            def sink(block: bytes) -> None:
                file.write(block[: end - at[0]])
                at[0] += min(len(block), end - at[0])

            with _get(uri, at[0], end, generation) as answer:
                take(answer, sink)
        if at[0] != end:
            raise ConnectionError(f"{at[0] - start} of {end - start} bytes arrived")

    if end > start:
        with explained(uri):
            patiently(attempt, lambda: at[0])
    return end - start


def send(path: Path, uri: str, generation: int) -> str:
    """Upload a file in one streamed request, going on at the byte where a connection broke; returns the checksum that arrived.

    A third of the CPU time of the client library's chunked upload (measured). Raises Conflict when the object's generation is another.
    """
    bucket, name = split(uri)
    size, place, at = path.stat().st_size, list[str](), [0]

    def attempt() -> str:
        blob = client().bucket(bucket).blob(name)
        if size == 0:
            blob.upload_from_string(b"", if_generation_match=generation, retry=None)
            return crc32c(b"")
        if not place:
            place.append(blob.create_resumable_upload_session(size=size, if_generation_match=generation, timeout=SILENT_S, retry=None))
            at[0] = 0
        else:
            asked = session().put(place[0], headers={"Content-Range": f"bytes */{size}", "Content-Length": "0"}, timeout=SILENT_S)
            if asked.status_code in (200, 201):
                return str(asked.json()["crc32c"])
            if asked.status_code in (404, 410):  # the session is gone: what it wrote is found by the next session's condition
                place.clear()
                raise ConnectionError("the upload session was lost")
            if asked.status_code != 308:
                raise_for(asked)
            at[0] = committed(asked)
        with path.open("rb") as file:
            file.seek(at[0])
            answer = session().put(place[0], data=file, headers={"Content-Range": f"bytes {at[0]}-{size - 1}/{size}"}, timeout=(CONNECT_S, 600))
        if answer.status_code in (404, 410):
            place.clear()
            raise ConnectionError("the upload session was lost")
        raise_for(answer)
        return str(answer.json()["crc32c"])

    with bucket_there(uri), explained(uri):
        return patiently(attempt, lambda: at[0])


def committed(answer: Any) -> int:
    """Bytes that an upload session has, from the Range header of its 308."""
    said = answer.headers.get("Range", "").rpartition("-")[2]
    return int(said) + 1 if said.isdigit() else 0


def crc32c(content: bytes) -> str:
    """CRC32C as Cloud Storage writes it (base64, big-endian)."""
    import google_crc32c

    return base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def take(answer: Any, sink: Callable[[bytes], Any]) -> None:
    """Pass an answer's bytes on. Raises ConnectionError when they come too slowly, and urllib3's errors when they end early."""
    begin, window = time.monotonic(), 0
    while block := answer.raw.read1(_BLOCK_BYTES):
        sink(block)
        window += len(block)
        if (passed := time.monotonic() - begin) > SLOW_S:
            if window < MIN_BYTES_PER_S * passed:
                raise ConnectionError(f"{window:,} bytes in {passed:.0f} s")
            begin, window = time.monotonic(), 0


@contextmanager
def _get(uri: str, start: int = 0, end: int | None = None, generation: int = 0) -> Iterator[Any]:
    """A streamed answer with an object's bytes [start, end), of one generation where it is not 0."""
    bucket, name = split(uri)
    url = f"{client().api_endpoint}/download/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media" + (f"&generation={generation}" if generation else "")
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {})
    with session().get(url, stream=True, headers=headers, timeout=(CONNECT_S, SILENT_S)) as answer:
        raise_for(answer)
        if start and answer.status_code != 206:
            raise ConnectionError(f"HTTP {answer.status_code} instead of a range")
        yield answer


def bytes_from(uri: str, start: int) -> Iterator[bytes]:
    """An object's bytes from an offset on, once: a broken connection is raised as it is, for the caller to go on."""
    try:
        with _get(uri, start) as answer:
            yield from iter(lambda: answer.raw.read1(_BLOCK_BYTES), b"")
    except Exception as error:
        if is_temporary(error):
            raise
        with explained(uri):
            raise


def raise_for(answer: Any) -> None:
    """Raise what the client library would raise for a failed answer."""
    from google.api_core.exceptions import from_http_response

    if answer.status_code >= 300:
        raise from_http_response(answer)

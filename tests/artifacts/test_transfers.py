"""Transfers over a network that breaks: every byte arrives, or one clear error does."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.artifacts import storage, wire
from runners.errors import UserError
from runners.spec import BucketSpec


class Breaking:
    """A TCP proxy in front of the emulator that cuts connections after some bytes of the answer, a number of times."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target, self.cuts, self.cut_after = (host, int(port)), 0, 100_000
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                incoming, _ = self.listener.accept()
            except OSError:
                return
            outgoing = socket.create_connection(self.target)
            threading.Thread(target=self._pump, args=(incoming, outgoing, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(outgoing, incoming, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        passed = 0
        try:
            while data := source.recv(65536):
                passed += len(data)
                if answers and self.cuts and passed > self.cut_after:
                    self.cuts -= 1
                    break
                sink.sendall(data)
        except OSError:
            return
        finally:
            for end in (source, sink):
                shut(end)


def shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@pytest.fixture
def breaking(buckets: BucketSpec, monkeypatch: pytest.MonkeyPatch) -> Iterator[Breaking]:
    proxy = Breaking(os.environ["STORAGE_EMULATOR_HOST"])
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
    storage.forget_clients()
    yield proxy
    proxy.listener.close()
    storage.forget_clients()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "folder"
    made.mkdir()
    for name, size in (("empty", 0), ("small", 10), ("large", 5_000_000)):
        (made / name).write_bytes(os.urandom(size))
    return made


def test_a_download_survives_cut_connections(breaking: Breaking, buckets: BucketSpec, folder: Path, tmp_path: Path) -> None:
    storage.upload(folder, f"{buckets.scratch}/f")
    breaking.cuts = 3
    storage.download(f"{buckets.scratch}/f", tmp_path / "copy")
    assert breaking.cuts == 0, "the connections were cut"
    for file in folder.iterdir():
        assert (tmp_path / "copy" / file.name).read_bytes() == file.read_bytes()


def test_a_network_that_stays_broken_is_one_error_and_nothing_half(
    breaking: Breaking, buckets: BucketSpec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.upload(folder, f"{buckets.scratch}/f")
    monkeypatch.setattr(wire, "RETRY_S", 1.0)
    breaking.cuts, breaking.cut_after = 10_000, 0
    with pytest.raises(UserError, match="does not answer"):
        storage.download(f"{buckets.scratch}/f", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_ranges_put_a_large_file_together(buckets: BucketSpec, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.upload(folder, f"{buckets.scratch}/f")
    monkeypatch.setattr(storage, "RANGE_BYTES", 333_333)
    storage.download(f"{buckets.scratch}/f", tmp_path / "copy")
    assert (tmp_path / "copy" / "large").read_bytes() == (folder / "large").read_bytes()


def test_write_if_unchanged(buckets: BucketSpec) -> None:
    uri = f"{buckets.scratch}/object.json"
    first = storage.write_json(uri, 1, generation=0)
    with pytest.raises(storage.Conflict):
        storage.write_json(uri, 2, generation=0)
    storage.write_json(uri, 2, generation=first)
    assert storage.update_json(uri, lambda value: value + 1) == 3
    assert (storage.read_json(uri) or (None,))[0] == 3

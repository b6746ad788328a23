"""The embedded bucket begins on a port of its own, also where somebody takes the one that it chose."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from runners.artifacts import local_bucket, storage
from runners.errors import UserError
from runners.spec import BucketSpec

BUCKETS = BucketSpec(models="gs://models", scratch="gs://scratch")


def test_a_port_that_was_taken_in_the_meantime_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        offered = [taken.getsockname()[1], local_bucket.free_port()]
        monkeypatch.setattr(local_bucket, "free_port", lambda: offered.pop(0))
        with local_bucket.running(tmp_path, BUCKETS):
            storage.write("gs://models/a", "text", generation=0)
        assert not offered


def test_a_server_that_never_begins_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(local_bucket, "free_port", lambda: port)
        with pytest.raises(UserError, match="already in use"), local_bucket.running(tmp_path, BUCKETS):
            pass


def test_a_free_port_is_below_those_of_connections() -> None:
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(1024 < local_bucket.free_port() < max(first, 32_000) for _ in range(20))

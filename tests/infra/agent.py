"""A VM's agent without a VM: the real ``Context.settle`` and decisions over a bucket in memory, with a clock that a test sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from runners.vm import cloud, state
from runners.vm.cloud import CloudError
from runners.vm.facts import Facts
from runners.vm.state import Context

START = datetime(2026, 3, 1, tzinfo=UTC)


class Bucket(cloud.Cloud):
    """Objects in memory. ``problem`` is raised by every call while it is set."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.written_at_s: dict[str, float] = {}
        self.problem: CloudError | None = None
        self.clock: Callable[[], float] = lambda: 0.0

    def read(self, uri: str) -> tuple[bytes | None, int]:
        if self.problem:
            raise self.problem
        return self.objects.get(uri, (None, 0))

    def write(self, uri: str, content: bytes, generation: int | None = None, kind: str = "application/json") -> None:
        if self.problem:
            raise self.problem
        now = self.objects.get(uri, (b"", 0))[1]
        if generation is not None and generation != now:
            raise CloudError(412, "another generation")
        self.objects[uri] = (content, now + 1)
        self.written_at_s[uri] = self.clock()


def facts(role: str = "train") -> Facts:
    return Facts("p", "us-central1-a", "vm-1", "1", role, "job-1", "elson-group", "us-central1", "gs://scratch/specs/a.json", {})


def spec(**machine: Any) -> dict[str, Any]:
    values = {"max_attempts": 3, "deadline_minutes": 120, "max_run_minutes": 150, **machine}
    return {"buckets": {"models": "gs://models", "scratch": "gs://scratch"}, "machine": values, "serve": {"idle_minutes": 60}}


class Agent:
    """What one VM's units would call, as one object; ``boot`` is another VM on the same bucket."""

    def __init__(self, bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch, role: str = "train", **machine: Any) -> None:
        self.alive_s, self.wall_s, self.boot_number = 0.0, 0.0, 1
        monkeypatch.setattr(state, "RUN", folder)
        monkeypatch.setattr(state, "guest_attribute", lambda *_: None)
        monkeypatch.setattr(state, "alive_s", lambda: self.alive_s)
        monkeypatch.setattr(state, "boot_id", lambda: f"boot-{self.boot_number}")
        monkeypatch.setattr(state, "now", lambda: START + timedelta(seconds=self.wall_s))
        self.context = Context(facts(role), spec(**machine))
        self.context.cloud = bucket
        self.bucket = bucket

    def put(self, content: str) -> None:
        """Write the state's object by other hands."""
        self.bucket.objects[self.context.state_uri] = (content.encode(), self.bucket.objects.get(self.context.state_uri, (b"", 0))[1] + 1)

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.bucket.objects[self.context.state_uri][0])
        return found

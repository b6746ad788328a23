"""A person's machine with `gcloud` and `pulumi` on PATH, an empty project behind them, and Google's APIs as a server answers them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from google.auth.credentials import AnonymousCredentials

from runners.artifacts import layout, local_bucket, registry, storage
from runners.cloud import api_key, deploy, doctor, images, jobs
from runners.commands.cli import cli
from runners.planning import stacks
from runners.spec import BucketSpec
from tests.google_apis import GoogleApis

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
PROJECT = "a-project"
BUCKETS = BucketSpec(models=f"gs://{PROJECT}-elson-models", scratch=f"gs://{PROJECT}-elson-scratch")
DIGEST = "sha256:" + "ab" * 32
BILLING = "012345-6789AB-CDEF01"


class Google(GoogleApis):
    """The APIs that the doctor asks, answering by what the stand-ins have made."""

    def __init__(self, standin: Path) -> None:
        self.standin = standin
        self.limit = 1.0
        self.limits: dict[str, float] = {}
        self.keys = 0
        self.cancelled: dict[str, int] = {}
        self.refuses_cancel = False
        super().__init__()

    def made(self, kind: str) -> list[dict[str, Any]]:
        file = self.standin / "cloud.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [row for row in rows if row["kind"] == kind]

    def answer(self, path: str) -> Any:
        state = json.loads((self.standin / "gcloud.json").read_text())
        services = {row["service"] for row in self.made("Service") if "service" in row} | set(state["projects"][PROJECT]["services"])
        quota = {"limit": self.limit, "usage": 0.0}
        if path.endswith("services:batchGet"):
            names = [f"{name}.googleapis.com" for name in doctor.SERVICES]
            return {"services": [{"name": f"projects/1/services/{name}", "state": "ENABLED" if name in services else "DISABLED"} for name in names]}
        if path.startswith("/compute/") and "compute.googleapis.com" not in services:
            return 403
        if path.endswith("/aggregated/instanceGroupManagers"):
            gone = {row["name"] for row in self.made("deleted")}
            groups = {row["name"]: row for row in self.made("RegionInstanceGroupManager") if row["name"] not in gone}
            items: dict[str, Any] = {}
            for name, row in groups.items():
                part = items.setdefault(f"regions/{row['region']}", {"instanceGroupManagers": []})
                part["instanceGroupManagers"].append({"name": name, "targetSize": row.get("targetSize", 0)})
            return {"items": items}
        if path.endswith("/projects/a-project"):
            return {"quotas": [{"metric": "GPUS_ALL_REGIONS", **quota}]}
        if "/regions/" in path:
            cards = ("PREEMPTIBLE_NVIDIA_H100_GPUS", "PREEMPTIBLE_NVIDIA_A100_80GB_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS", "NVIDIA_L4_GPUS")
            return {"quotas": [{"metric": name, "limit": self.limits.get(name, self.limit), "usage": 0.0} for name in cards]}
        if "/dockerImages/" in path:
            name = path.split("/dockerImages/")[1].split("@")[0]
            return {"uri": "x"} if any(f"/{name}:" in image for image in state["images"]) else None
        if path.startswith("/v2/") and path.endswith("/executions"):
            return self._executions(path.split("/")[-2])
        if path.endswith("/versions"):
            return {"versions": [{"name": f"v{n}"} for n in range(self.keys)]} if self.made("Secret") else None
        return None

    def _executions(self, job: str) -> Any:
        """Of a job that was made with a token. Deleting the job ends nothing (what Google does is not known); cancelling takes two more looks."""
        made = [row for row in self.made("Job") if row["name"] == job]
        if not made or any(row["name"] == job for row in self.made("deleted")):
            return None
        if not made[-1].get("startExecutionToken"):
            return {}
        name = f"projects/{PROJECT}/locations/{made[-1]['location']}/jobs/{job}/executions/{job}-{made[-1]['startExecutionToken']}"
        one = {"name": name, "createTime": "2026-03-01T00:00:00Z", "startTime": "2026-03-01T00:01:00Z", "runningCount": 1}
        if name in self.cancelled:
            self.cancelled[name] += 1
        if self.cancelled.get(name, 0) > 2:
            one = {**one, "runningCount": 0, "cancelledCount": 1, "completionTime": "2026-03-01T00:09:00Z"}
            self._note(kind="ended", name=name)
        return {"executions": [one]}

    def _note(self, **row: Any) -> None:
        with (self.standin / "cloud.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def resize(self, group: str, size: int) -> None:
        """What a VM, the watchdog or a person does to a group; the newest line of a group counts."""
        row = next(row for row in reversed(self.made("RegionInstanceGroupManager")) if row["name"] == group)
        with (self.standin / "cloud.jsonl").open("a") as file:
            file.write(json.dumps({**row, "targetSize": size}) + "\n")

    def size(self, group: str) -> int:
        return int([row for row in self.made("RegionInstanceGroupManager") if row["name"] == group][-1]["targetSize"])

    def change(self, path: str, query: dict[str, list[str]]) -> Any:
        if path.endswith(":cancel"):
            name = path.removeprefix("/v2/").removesuffix(":cancel")
            if self.refuses_cancel:
                return 403
            self.cancelled[name] = 0
            return {"name": "operations/1"}
        if path.endswith("/resize"):
            self.resize(path.split("/")[-2], int(query["size"][0]))
            return {}
        return None


@dataclass
class Machine:
    """What a test sees and changes."""

    folder: Path
    standin: Path
    google: Google
    vms: list[threading.Thread] = field(default_factory=list)
    #: Set when somebody asked Compute what became of the VM.
    asked: threading.Event = field(default_factory=threading.Event)

    def gcloud(self, **changes: Any) -> dict[str, Any]:
        state = {**json.loads((self.standin / "gcloud.json").read_text()), **changes}
        (self.standin / "gcloud.json").write_text(json.dumps(state))
        return state

    def calls(self, *begin: str) -> list[list[str]]:
        return [call for call in self.gcloud()["calls"] if tuple(call[: len(begin)]) == begin]

    def elson(self, *words: str) -> Result:
        return CliRunner(env={"ELSON_LOG": "plain"}).invoke(cli, list(words), prog_name="elson")

    def ok(self, *words: str) -> Result:
        done = self.elson(*words)
        if done.exception:
            raise AssertionError(f"{words}: {done.output}\n{done.exception}") from done.exception
        return done

    def fails(self, *words: str) -> str:
        done = self.elson(*words)
        assert done.exception is not None, done.output
        assert "Traceback" not in str(done.exception)
        return str(done.exception)

    def state(self, stack: str) -> dict[str, Any]:
        (file,) = self.standin.glob(f"backends/*/{stack}.json")
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def mine(self, stack: str) -> str:
        return (self.folder / "infra" / "stacks" / stacks.MINE / f"Pulumi.{stack}.yaml").read_text()

    def vm(self, life: Any) -> None:
        """Start ``life(group)`` when a group appears that asks for a VM, as its VM."""

        def wait() -> None:
            for _ in range(12_000):
                if groups := [row for row in self.google.made("RegionInstanceGroupManager") if row.get("targetSize", 1)]:  # an autoscaler asks for its least
                    life(groups[-1])
                    return
                time.sleep(0.1)

        self.vms.append(threading.Thread(target=wait, daemon=True))
        self.vms[-1].start()


def say(job: str, role: str, status: str, *, reason: str = "", log: str = "", **more: Any) -> None:
    """What a VM writes into the bucket."""
    boots = [{"id": "0123456789ab", "instance": "vm-1", "zone": "us-central1-a", "started_at": "2026-11-26T10:00:00+00:00"}]
    now = f"2026-11-26T10:00:00.{time.monotonic_ns() % 10**9}"
    values = {"job_id": job, "role": role, "status": status, "reason": reason, "attempts": 1, "max_attempts": 5, "boots": boots, "updated_at": now, **more}
    storage.update_json(f"{layout.job(BUCKETS, job)}/state.json", lambda _: values)
    if log:
        name = f"{layout.job(BUCKETS, job)}/logs/vm-1-01234567.log"
        bucket, path = storage.split(name)
        storage.client().bucket(bucket).blob(path).upload_from_string(log)


def tracked(machine: Machine) -> dict[str, bytes]:
    """The stack files that git knows."""
    return {file.name: file.read_bytes() for file in (machine.folder / "infra" / "stacks").glob("*.yaml")}


def publish(folder: Path, name: str, kind: Any, stage_id: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "weights.txt").write_text(name)
    registry.publish(BUCKETS, folder, name=name, stage_id=stage_id, kind=kind)


def command(folder: Path, name: str, script: Path) -> None:
    file = folder / name
    file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what the stand-ins know; `gcloud` and `pulumi` on PATH, an account that is logged in, nobody logged in to Pulumi."""
    standin, path, config = (tmp_path / name for name in ("standin", "bin", "gcloud"))
    for one in (standin, path, config):
        one.mkdir()
    command(path, "gcloud", HERE / "gcloud_command.py")
    command(path, "pulumi", HERE / "pulumi_command.py")
    adc = {"type": "authorized_user", "client_id": "x", "client_secret": "x", "refresh_token": "x"}
    (config / "application_default_credentials.json").write_text(json.dumps(adc))
    projects = {PROJECT: {"lifecycle": "ACTIVE", "billing": BILLING, "services": ["serviceusage.googleapis.com"]}}
    state = {
        "account": "me@example.org",
        "projects": projects,
        "billing_accounts": [BILLING],
        "buckets": [],
        "taken": [],
        "images": [],
        "refused": {},
        "calls": [],
    }
    (standin / "gcloud.json").write_text(json.dumps(state))
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "PULUMI_", "ELSON_", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    here = {"PATH": f"{path}:/usr/bin:/bin", "STANDIN": standin, "PULUMI_HOME": tmp_path / "pulumi", "CLOUDSDK_CONFIG": config, "NO_GCE_CHECK": "true"}
    for name, value in here.items():
        monkeypatch.setenv(name, str(value))
    deploy.command.cache_clear()
    return standin


@pytest.fixture
def machine(standin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A project of one's own, and an empty Google Cloud project with billing."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "Pulumi.yaml", folder)
    shutil.copytree(ROOT / "infra", folder / "infra", ignore=shutil.ignore_patterns("__pycache__", stacks.MINE))
    for name in ("runners", "data", "images", ".venv"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(deploy, "ROOT", folder)
    monkeypatch.setattr(stacks, "FOLDER", folder / "infra" / "stacks")
    bases = images.bases()
    monkeypatch.setattr(images, "bases", lambda *_: {name: {**base, "digest": DIGEST} for name, base in bases.items()})
    google = Google(standin)
    url = f"http://127.0.0.1:{google.server_address[1]}/"
    endpoints = {**dict.fromkeys(("serviceusage", "artifactregistry", "secretmanager"), url), "compute": f"{url}compute/v1/"}
    found = doctor._credentials

    def credentials() -> Any:
        clients, finding = found()
        return (doctor.Clients(AnonymousCredentials(), endpoints) if clients else None), finding  # type: ignore[no-untyped-call]

    monkeypatch.setattr(doctor, "_credentials", credentials)
    made = Machine(folder, standin, google)

    monkeypatch.setattr(jobs, "_COMPUTE", f"{url}compute/v1")
    monkeypatch.setattr(jobs, "_session", requests.Session)

    def waiting(_: Any) -> dict[str, Any]:
        made.asked.set()
        return {"instances": [{"name": "vm", "status": "", "problem": "ZONE_RESOURCE_POOL_EXHAUSTED"}]}

    monkeypatch.setattr(jobs, "machine", waiting)

    def rotate(*_: Any) -> tuple[str, list[str]]:
        google.keys += 1
        return "v1", []

    monkeypatch.setattr(api_key, "rotate", rotate)
    with local_bucket.running(tmp_path, BucketSpec(models="gs://unused", scratch="gs://unused-too")) as emulator:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
        yield made
    google.shutdown()
    google.server_close()

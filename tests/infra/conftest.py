"""Every stack, planned against a real storage emulator and declared to the stand-in engine."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import engine
from engine import Run
from shapes import QWEN_14B

from runners import stages
from runners.artifacts import layout, local_bucket, registry, storage
from runners.planning.stacks import FOLDER
from runners.spec import BucketSpec, Spec, parse

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "a-project"
IMAGE = "us-central1-docker.pkg.dev/a-project/elson/{}@sha256:" + "0123456789abcdef" * 4
IMAGES = {stage: IMAGE.format(stage) for stage in ("train", "quantize", "serve", "gateway")}
MAIL = "{}@a-project.iam.gserviceaccount.com"
COMPUTED: engine.Computed = {
    "gcp:serviceaccount/account:Account": lambda name, inputs: {
        "email": MAIL.format(inputs["accountId"]),
        "name": f"projects/{PROJECT}/serviceAccounts/{name}",
    },
    "gcp:projects/iAMCustomRole:IAMCustomRole": lambda _, inputs: {"name": f"projects/{PROJECT}/roles/{inputs['roleId']}"},
    "gcp:secretmanager/secret:Secret": lambda *_: {"project": PROJECT},
    "gcp:artifactregistry/repository:Repository": lambda _, inputs: {"project": PROJECT, "name": inputs["repositoryId"]},
    "gcp:compute/subnetwork:Subnetwork": lambda _, inputs: {"selfLink": f"https://compute/{inputs['name']}"},
    "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate": lambda _, inputs: {"selfLink": f"https://compute/{inputs['name']}"},
    "gcp:compute/healthCheck:HealthCheck": lambda _, inputs: {"selfLink": f"https://compute/{inputs['name']}"},
    "gcp:cloudfunctionsv2/function:Function": lambda name, inputs: {"serviceConfig": {**inputs["serviceConfig"], "uri": f"https://elson-{name}.a.run.app"}},
    "gcp:cloudrunv2/service:Service": lambda _, inputs: {"project": PROJECT, "uri": f"https://{inputs['name']}-123456789.{inputs['location']}.run.app"},
    "gcp:cloudrunv2/job:Job": lambda *_: {"project": PROJECT},
    "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager": lambda _, inputs: {
        "instanceGroup": f"https://compute/instanceGroups/{inputs['name']}"
    },
    "gcp:compute/forwardingRule:ForwardingRule": lambda _, inputs: {"ipAddress": inputs.get("ipAddress", "10.20.1.9")},
    "gcp:compute/address:Address": lambda *_: {"address": "203.0.113.7"},
    "gcp:monitoring/notificationChannel:NotificationChannel": lambda name, _: {"name": f"projects/{PROJECT}/notificationChannels/{name}"},
}
INVOKES = {"gcp:organizations/getProject:getProject": lambda _: {"number": "123456789", "projectId": PROJECT, "id": "x"}}


def foundation_outputs(buckets: BucketSpec) -> dict[str, Any]:
    return {
        "modelsBucket": buckets.models,
        "scratchBucket": buckets.scratch,
        "scratchBucketName": storage.split(buckets.scratch)[0],
        "region": "us-central1",
        "gatewayPort": 8000,
        "network": "projects/a-project/global/networks/elson",
        "subnets": {name: f"https://compute/elson-{name}" for name in ("train", "serve", "serve-spot")},
        "serviceAccounts": {role: MAIL.format(f"elson-{role}") for role in ("train", "serve", "build")},
        "apiKeySecret": "projects/a-project/secrets/elson-api-key",
        "operators": ["user:me@example.org"],
        "proxies": "",
    }


@dataclass
class Cloud:
    """A project with two buckets, and the program to run on it."""

    buckets: BucketSpec
    url: str

    def values(self, stack: str, **changes: Any) -> dict[str, Any]:
        """The stack file's spec, on this project's buckets and with images, changed section by section."""
        spec = yaml.safe_load((FOLDER / f"Pulumi.{stack}.yaml").read_text())["config"]["elson:spec"]
        spec["buckets"] = self.buckets.model_dump()
        spec["environments"] = dict(IMAGES)
        for section, change in changes.items():
            spec[section] = {**spec[section], **change} if isinstance(change, dict) and isinstance(spec.get(section), dict) else change
        return spec

    def spec(self, stack: str, **changes: Any) -> Spec:
        return parse(self.values(stack, **changes))

    def run(self, stack: str, *, preview: bool = False, stacks: dict[str, Any] | None = None, config: dict[str, str] | None = None, **changes: Any) -> Run:
        if config is None:
            config = {"gcp:project": PROJECT, "elson:spec": json.dumps(self.values(stack, **changes))}
        if stacks is None:
            stacks = {"organization/elson/foundation": foundation_outputs(self.buckets)}
        environment = {"STORAGE_EMULATOR_HOST": self.url, "GOOGLE_CLOUD_PROJECT": "", "GOOGLE_PROJECT": ""}
        return engine.run(ROOT / "infra", stack, config, preview=preview, computed=COMPUTED, invokes=INVOKES, stacks=stacks, environment=environment)


def usual_changes(stack: str) -> dict[str, Any]:
    """What a user writes into the stack file before the first `pulumi up`."""
    if stack != "foundation":
        return {}
    return {"foundation": {"billing_account": "012345-6789AB-CDEF01", "alert_emails": ["me@example.org"], "operators": ["user:me@example.org"]}}


def publish(
    buckets: BucketSpec, folder: Path, name: str, kind: Any, stage_id: str, parents: dict[str, str] | None = None, config: Any = QWEN_14B
) -> registry.Entry:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.txt").write_text(name)
    (folder / "config.json").write_text(json.dumps(config))
    return registry.publish(buckets, folder, name=name, stage_id=stage_id, kind=kind, parents=parents)


def fill(buckets: BucketSpec, folder: Path) -> None:
    """What a user has before a first training, and a model in production."""
    base = folder / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(QWEN_14B))
    stages.publish_base(buckets, base, "elson-finance-trading-14b-final")
    dataset = folder / "dataset"
    dataset.mkdir()
    row = {"id": "x", "question": "q" * 100, "answer": "a" * 614, "category": "tax", "source": "test", "history": []}
    (dataset / "train.jsonl").write_text("\n".join(json.dumps(row) for _ in range(950)))
    stages.publish_dataset(buckets, dataset, "elson-corpus")
    publish(buckets, folder / "q4", "first-q4", "qdora", "qdora-00000000000000aa")
    registry.promote(buckets, "first-q4")


BUCKETS = BucketSpec(models=f"gs://{PROJECT}-elson-models", scratch=f"gs://{PROJECT}-elson-scratch")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a project's buckets, filled once, to copy from."""
    folder = tmp_path_factory.mktemp("filled")
    with local_bucket.running(folder, BUCKETS):
        fill(BUCKETS, folder)
    return folder / "bucket"


@contextmanager
def copied(filled: Path, folder: Path) -> Iterator[Cloud]:
    shutil.copytree(filled, folder / "bucket")
    with local_bucket.running(folder, BUCKETS) as url:
        yield Cloud(BUCKETS, url)


@pytest.fixture(scope="session")
def shared_cloud(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A filled project that no test changes."""
    with copied(filled, tmp_path_factory.mktemp("cloud")) as found:
        yield found


@pytest.fixture
def cloud(filled: Path, tmp_path: Path) -> Iterator[Cloud]:
    """A filled project of one test's own."""
    with copied(filled, tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def runs(shared_cloud: Cloud) -> Callable[[str, bool], Run]:
    """``runs(stack, preview)``: each unchanged stack is run once for all tests."""
    done: dict[tuple[str, bool], Run] = {}

    def get(stack: str, preview: bool = False) -> Run:
        if (stack, preview) not in done:
            done[stack, preview] = shared_cloud.run(stack, preview=preview, **usual_changes(stack))
        return done[stack, preview]

    return get


def job_state(buckets: BucketSpec, job_id: str, **state: Any) -> None:
    storage.update_json(f"{layout.job(buckets, job_id)}/state.json", lambda _: {"job_id": job_id, "role": "train", **state})

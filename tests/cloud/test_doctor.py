"""The doctor, against Google's APIs as a server answers them: each thing that can be missing, and the command it names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.auth.credentials import AnonymousCredentials

from runners import stages
from runners.artifacts import registry, storage
from runners.cloud.doctor import SERVICES, Clients, Finding, examine
from runners.cloud.steps import needed
from runners.fields import ReplicaSpec
from runners.planning.stacks import Stack
from runners.spec import BucketSpec, EnvironmentDigests, MachineSpec, PlaceSpec, ServeSpec, Spec
from tests.google_apis import GoogleApis

DIGEST = "sha256:" + "ab" * 32
IMAGE = "us-central1-docker.pkg.dev/a-project/elson/{}@" + DIGEST


class Google(GoogleApis):
    """Answers by path; ``None`` is a 404, a number that status."""

    def __init__(self) -> None:
        services = [{"name": f"projects/1/services/{name}.googleapis.com", "state": "ENABLED"} for name in SERVICES]
        one = {"limit": 1.0, "usage": 0.0}
        self.answers: dict[str, Any] = {
            "/v1/projects/a-project/services:batchGet": {"services": services},
            "/compute/v1/projects/a-project": {"quotas": [{"metric": "GPUS_ALL_REGIONS", **one}]},
            "/compute/v1/projects/a-project/regions/us-central1": {
                "quotas": [{"metric": "PREEMPTIBLE_NVIDIA_H100_GPUS", **one}, {"metric": "NVIDIA_L4_GPUS", **one}]
            },
            "/v1/projects/a-project/secrets/elson-api-key/versions": {"versions": [{"name": "v1"}]},
        }
        for stage in ("train", "quantize", "serve", "gateway"):
            self.answers[f"/v1/projects/a-project/locations/us-central1/repositories/elson/dockerImages/{stage}@{DIGEST}"] = {"uri": "x"}
        super().__init__()

    def answer(self, path: str) -> Any:
        return self.answers.get(path)

    @property
    def clients(self) -> Clients:
        url = f"http://127.0.0.1:{self.server_address[1]}/"
        apis = ("serviceusage", "artifactregistry", "secretmanager")
        return Clients(AnonymousCredentials(), {**dict.fromkeys(apis, url), "compute": f"{url}compute/v1/"})


@pytest.fixture
def google(standin: Path) -> Iterator[Google]:
    subprocess.run(["pulumi", "login", "file:///state"], check=True, capture_output=True)
    server = Google()
    yield server
    server.close()


def stack(buckets: BucketSpec, role: Any = "train", **spec: Any) -> Stack:
    images = EnvironmentDigests(**{stage: IMAGE.format(stage) for stage in ("train", "quantize", "serve", "gateway")})
    kind, bought = ("a3-highgpu-1g", "SPOT") if role == "train" else ("g2-standard-8", "STANDARD")
    host = MachineSpec(role=role, machine_type=kind, provisioning_model=bought)  # type: ignore[arg-type]
    return Stack("a-stack", "a-project", Spec(**{"buckets": buckets, "machine": host, "environments": images, **spec}))


def fill(buckets: BucketSpec, folder: Path) -> None:
    for name in ("base", "dataset", "q4"):
        (folder / name).mkdir()
        (folder / name / "file.txt").write_text(name)
    stages.publish_base(buckets, folder / "base", "elson-finance-trading-14b-final")
    stages.publish_dataset(buckets, folder / "dataset", "elson-corpus")
    registry.publish(buckets, folder / "q4", name="a-q4", stage_id="qdora-1", kind="qdora")
    registry.promote(buckets, "a-q4")


def missing(findings: list[Finding]) -> dict[str, Finding]:
    assert all(finding.ok or finding.fix or finding.needs for finding in findings)
    return {finding.name: finding for finding in findings if not finding.ok}


@pytest.mark.parametrize("role", ["train", "serve"])
def test_everything_is_there(role: str, google: Google, buckets: BucketSpec, tmp_path: Path) -> None:
    fill(buckets, tmp_path)
    findings = examine(stack(buckets, role), google.clients)
    assert missing(findings) == {}
    names = {finding.name for finding in findings}
    assert {"API compute", "quota GPUS_ALL_REGIONS", "bucket models"} <= names
    assert ("base model's files" in names) == (role == "train")
    assert ("API key" in names) == (role == "serve")


def test_a_new_project_lacks_everything_and_each_has_its_command(google: Google, buckets: BucketSpec) -> None:
    google.answers = {
        "/v1/projects/a-project/services:batchGet": {"services": [{"name": "projects/1/services/compute.googleapis.com", "state": "DISABLED"}]},
        "/compute/v1/projects/a-project": {"quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 0.0, "usage": 0.0}]},
        "/compute/v1/projects/a-project/regions/us-central1": {"quotas": []},
    }
    found = missing(examine(stack(buckets, environments=EnvironmentDigests()), google.clients))
    assert found["API compute"].fix == "gcloud services enable compute.googleapis.com --project a-project"
    # An API that is off answers nothing about quotas.
    assert found["quotas"].state == "not checked" and str(found["quotas"]) == "not checked  quotas (needs the API compute)"
    assert found["image train"].fix == "elson images build train"
    assert found["base model"].fix.startswith("elson base publish elson-finance-trading-14b-final")
    assert found["dataset"].fix.startswith("elson data build --publish")
    on = ("compute", "artifactregistry", "secretmanager")
    services = [{"name": f"projects/1/services/{name}.googleapis.com", "state": "ENABLED"} for name in on]
    google.answers["/v1/projects/a-project/services:batchGet"] = {"services": services}
    quota = missing(examine(stack(buckets), google.clients))
    assert "new projects start at 0" in quota["quota GPUS_ALL_REGIONS"].fix
    assert "PREEMPTIBLE_NVIDIA_H100_GPUS, us-central1" in quota["quota PREEMPTIBLE_NVIDIA_H100_GPUS"].fix
    serve = missing(examine(stack(buckets, "serve"), google.clients))
    assert serve["API key"].fix == "pulumi up -s foundation"
    assert serve["model to serve"].fix == "elson models promote NAME"
    assert "is not in elson" in serve["image gateway"].found


def test_a_used_up_quota(google: Google, buckets: BucketSpec) -> None:
    google.answers["/compute/v1/projects/a-project"] = {"quotas": [{"metric": "GPUS_ALL_REGIONS", "limit": 1.0, "usage": 1.0}]}
    assert "0 free, 1 needed" in missing(examine(stack(buckets), google.clients))["quota GPUS_ALL_REGIONS"].found


def test_several_servers_need_a_quota_of_as_many_cards(google: Google, buckets: BucketSpec) -> None:
    serve = ServeSpec(replicas=ReplicaSpec(min=1, max=3))
    found = missing(examine(stack(buckets, "serve", serve=serve), google.clients))
    assert "1 free, 3 needed" in found["quota GPUS_ALL_REGIONS"].found and "1 free, 3 needed" in found["quota NVIDIA_L4_GPUS"].found


@pytest.mark.parametrize(("role", "kind", "region"), [("train", "run-rtx6000-20", "us-central1"), ("serve", "run-l4-8", "us-east4")])
def test_a_card_of_cloud_run_asks_for_no_quota_of_compute(role: str, kind: str, region: str, google: Google, buckets: BucketSpec, tmp_path: Path) -> None:
    """A new project has no quota of Compute, and train-run is for those."""
    fill(buckets, tmp_path)
    google.answers["/compute/v1/projects/a-project"] = {"quotas": []}
    google.answers["/compute/v1/projects/a-project/regions/us-central1"] = {"quotas": []}
    host = MachineSpec(role=role, machine_type=kind, provisioning_model="RUN", region=region)  # type: ignore[arg-type]
    on_run = stack(buckets, role, machine=host)
    findings = examine(on_run, google.clients)
    (quota,) = [finding for finding in findings if "quota" in finding.name]
    assert quota.state == "not checked" and "iam-admin/quotas?project=a-project&service=run.googleapis.com" in str(quota)
    assert needed(findings, on_run.spec, "a-project", region, unresolved=False).blockers == ()


def test_every_place_has_its_quota_and_one_is_enough_to_go_up(google: Google, buckets: BucketSpec, tmp_path: Path) -> None:
    fill(buckets, tmp_path)
    one = {"limit": 1.0, "usage": 0.0}
    google.answers["/compute/v1/projects/a-project/regions/us-central1"] = {"quotas": [{"metric": "PREEMPTIBLE_NVIDIA_A100_80GB_GPUS", **one}]}
    google.answers["/compute/v1/projects/a-project/regions/us-east4"] = {"quotas": []}
    others = (PlaceSpec(provisioning_model="FLEX_START"), PlaceSpec(machine_type="a2-ultragpu-1g"), PlaceSpec(region="us-east4", zones=("us-east4-a",)))
    host = MachineSpec(role="train", machine_type="a3-highgpu-1g", provisioning_model="SPOT", places=others)
    several = stack(buckets, machine=host)
    findings = examine(several, google.clients)
    quotas = {finding.name: finding.ok for finding in findings if finding.name.startswith("quota")}
    h100 = "quota PREEMPTIBLE_NVIDIA_H100_GPUS"
    assert quotas == {"quota GPUS_ALL_REGIONS": True, h100: False, "quota PREEMPTIBLE_NVIDIA_A100_80GB_GPUS": True, f"{h100} in us-east4": False}
    assert set(missing(findings)) == {h100, f"{h100} in us-east4"}

    def blockers() -> set[str]:
        return {finding.name for finding in needed(examine(several, google.clients), several.spec, "a-project", "us-central1", unresolved=False).blockers}

    assert blockers() == set()
    google.answers["/compute/v1/projects/a-project"] = {"quotas": []}
    assert blockers() == {"quota GPUS_ALL_REGIONS"}, "no place has a card where the project has none"
    google.answers["/compute/v1/projects/a-project/regions/us-central1"] = {"quotas": []}
    assert len(blockers()) == 4


def test_an_api_that_refuses_is_a_finding_and_not_the_end(google: Google, buckets: BucketSpec, tmp_path: Path) -> None:
    fill(buckets, tmp_path)
    google.answers["/v1/projects/a-project/services:batchGet"] = 403
    findings = examine(stack(buckets), google.clients)
    (problem,) = missing(findings).values()
    assert "403: said the server" in problem.found
    assert any(finding.name == "quota GPUS_ALL_REGIONS" for finding in findings)


def test_no_bucket(google: Google, buckets: BucketSpec) -> None:
    other = BucketSpec(models="gs://nobodys-models", scratch="gs://nobodys-scratch")
    assert missing(examine(stack(other), google.clients))["bucket nobodys-models"].fix == "pulumi up -s foundation"


def test_a_base_model_that_lost_a_file(google: Google, buckets: BucketSpec, tmp_path: Path) -> None:
    fill(buckets, tmp_path)
    bucket, _ = storage.split(buckets.models)
    storage.client().bucket(bucket).blob("elson-finance-trading-14b-final/file.txt").delete()
    assert "file.txt is missing" in missing(examine(stack(buckets), google.clients))["base model's files"].found


def test_a_deprecated_base_model(google: Google, buckets: BucketSpec) -> None:
    spec = {"base_model": {"name": "wealth-lora-elson14b-vm1"}}
    assert "deprecated" in missing(examine(stack(buckets, **spec), google.clients))["base model"].found


def test_without_anything_every_check_is_listed_with_what_it_needs(standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (standin.parent / "gcloud" / "application_default_credentials.json").unlink()
    findings = {finding.name: finding for finding in examine(Stack("a-stack", "", Spec(machine=MachineSpec(machine_type="a3-highgpu-1g"))))}
    states = {name: finding.state for name, finding in findings.items()}
    assert [name for name, state in states.items() if state == "missing"] == [
        *("Pulumi command", "gcloud", "project", "credentials", "image train", "image quantize")
    ]
    assert {name for name, state in states.items() if state == "not checked"} == {"Pulumi login", "APIs", "quotas", "buckets", "dataset", "base model"}
    assert findings["buckets"].needs == "a project, credentials" and findings["Pulumi login"].needs == "the Pulumi command"
    assert "GOOGLE_CLOUD_PROJECT" in findings["project"].fix


def test_a_login_that_is_missing_is_told_from_a_command_that_is(standin: Path) -> None:
    found = {finding.name: finding for finding in examine(Stack("a-stack", "", Spec()))}
    assert found["Pulumi command"].ok and found["Pulumi command"].found == "3.272.0"
    assert "pulumi login" in found["Pulumi login"].fix and found["gcloud"].found == "me@example.org"

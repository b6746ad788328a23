"""Who reaches a server, and what is refused before anything is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import IMAGES, PROJECT, Cloud, foundation_outputs, publish

from runners.artifacts import registry
from runners.planning import stacks
from runners.spec import BucketSpec
from runners.vm.containers import HEALTH_PORT
from tests.infra.declared import Runs, content

# --- who reaches the server ------------------------------------------------------------------------------------------------------------


def test_nobody_reaches_the_server_by_default(runs: Runs) -> None:
    run = runs("serve-l4", False)
    assert run.all("Firewall") == []
    assert run.all("Address") == []
    assert len(run.all("RouterNat")) == 1


def test_named_ranges_reach_a_stable_address(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("serve-l4", serve={"allowed_cidrs": ["198.51.100.0/24"]})
    rule = run.only("Firewall").inputs
    assert rule["sourceRanges"] == ["198.51.100.0/24"]
    assert rule["allows"] == [{"protocol": "tcp", "ports": ["8000"]}]
    assert run.only("RegionInstanceTemplate").inputs["networkInterfaces"][0]["accessConfigs"][0]["natIp"] == "203.0.113.7"
    assert run.outputs["address"] == "203.0.113.7"
    assert run.all("RouterNat") == []


def test_the_internet_needs_two_settings_and_a_certificate(shared_cloud: Cloud) -> None:
    refused = shared_cloud.run("serve-l4", serve={"allowed_cidrs": ["0.0.0.0/0"]})
    assert refused.returncode == 1
    assert "open_to_the_internet" in refused.errors
    run = shared_cloud.run("serve-l4", serve={"allowed_cidrs": ["0.0.0.0/0"], "open_to_the_internet": True, "domain": "api.example.org"})
    assert run.only("Firewall").inputs["allows"] == [{"protocol": "tcp", "ports": ["443"]}]
    assert run.only("HealthCheck").inputs["httpHealthCheck"]["port"] == HEALTH_PORT  # by address, where the certificate's name is unknown


# --- refusals --------------------------------------------------------------------------------------------------------------------------


def test_an_adapter_without_a_merged_model_is_merged_by_its_server(cloud: Cloud, tmp_path: Path) -> None:
    base = registry.usable(cloud.buckets, "elson-finance-trading-14b-final")
    publish(cloud.buckets, tmp_path / "adapter", "an-adapter", "dora", "dora-1", {"base_model": base.id})
    two_cards = {"machine_type": "g2-standard-24"}
    served = {"model": "an-adapter", "tensor_parallel": 2}
    full = cloud.run("serve-l4", serve=served, machine=two_cards | {"disk_gb": 80})
    assert full.returncode == 1 and "base model and merged model 59" in full.errors and "machine.disk_gb: 120" in full.errors
    run = cloud.run("serve-l4", serve=served, machine=two_cards | {"disk_gb": 120})
    assert run.returncode == 0, run.errors
    assert run.outputs["model"] == "an-adapter" and run.outputs["model_id"] == "dora-1"


def test_an_adapter_of_an_unknown_base_is_refused_with_what_to_do(cloud: Cloud, tmp_path: Path) -> None:
    publish(cloud.buckets, tmp_path / "adapter", "an-adapter", "dora", "dora-1", {"base_model": "base-of-others"})
    refused = cloud.run("serve-l4", serve={"model": "an-adapter"})
    assert refused.returncode == 1 and "an adapter of base-of-others, which is not published here" in refused.errors


def test_merged_weights_need_two_cards(cloud: Cloud, tmp_path: Path) -> None:
    publish(cloud.buckets, tmp_path / "adapter", "an-adapter", "dora", "dora-1")
    publish(cloud.buckets, tmp_path / "merged", "its-merged", "merged", "merged-1", {"adapter": "dora-1"})
    refused = cloud.run("serve-l4", serve={"model": "an-adapter"})
    assert refused.returncode == 1
    assert "27.5 GiB of bf16 weights" in refused.errors
    assert "g2-standard-24 with serve.tensor_parallel: 2" in refused.errors
    assert refused.custom == []
    served = cloud.run("serve-l4", serve={"model": "an-adapter", "tensor_parallel": 2}, machine={"machine_type": "g2-standard-24"})
    assert served.returncode == 0, served.errors
    assert served.outputs["model"] == "its-merged"


def test_a_stack_without_its_foundation_names_the_command(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("train-h100", stacks={})
    assert run.returncode == 1
    assert "pulumi up -s foundation" in run.errors


def test_a_foundation_of_another_project_is_refused(shared_cloud: Cloud) -> None:
    other = foundation_outputs(BucketSpec(models="gs://theirs", scratch="gs://theirs-too"))
    run = shared_cloud.run("train-h100", stacks={"organization/elson/foundation": other})
    assert run.returncode == 1
    assert "gs://theirs" in run.errors


def test_a_foundation_that_is_older_than_this_program_is_refused(shared_cloud: Cloud) -> None:
    outputs = {key: value for key, value in foundation_outputs(shared_cloud.buckets).items() if key != "subnets"}
    run = shared_cloud.run("train-h100", stacks={"organization/elson/foundation": outputs})
    assert run.returncode == 1
    assert "no output subnets" in run.errors


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("serve", {"port": 9000}, "its gatewayPort is 8000, and this stack's is 9000"),
        ("machine", {"subnet": "nowhere"}, "it has no subnet nowhere (it has serve, serve-spot, train)"),
    ],
)
def test_what_the_foundation_does_not_offer_is_named(section: str, change: dict[str, Any], words: str, shared_cloud: Cloud) -> None:
    run = shared_cloud.run("serve-l4", **{section: change})
    assert run.returncode == 1
    assert words in run.errors
    assert "pulumi up -s foundation" in run.errors


def test_a_bucket_that_is_not_there_names_the_command(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("train-h100", buckets={"models": "gs://nobodys-models", "scratch": "gs://nobodys-scratch"})
    assert run.returncode == 1
    assert "pulumi up -s foundation" in run.errors


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": {"name": "nothing"}}, "elson data build --publish"),
        ({"base_model": {"name": "wealth-lora-elson14b-vm1"}}, "deprecated"),
        ({"environments": {}}, "elson images build"),
        ({"machine": {"disk_gb": 100}}, "machine.disk_gb: 160"),
        ({"train": {"batch_examples": 950}}, "5 optimizer steps"),
        ({"machine": {"provisioning_model": "STANDARD"}}, "not sold as STANDARD"),
        ({"machine": {"machine_typo": 1}}, "machine.machine_typo"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(changes: dict[str, dict[str, object]], words: str, shared_cloud: Cloud) -> None:
    values = shared_cloud.values("train-h100")
    values.update({key: {**values.get(key, {}), **change} if change else {} for key, change in changes.items()})
    run = shared_cloud.run("train-h100", config={"gcp:project": PROJECT, "elson:spec": json.dumps(values)})
    assert run.returncode == 1
    assert words in run.errors
    assert run.custom == []
    assert "Traceback" not in run.errors


def test_missing_config_is_named(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("train-h100", config={"elson:spec": "{}"})
    assert run.returncode == 1
    assert "pulumi config set gcp:project" in run.errors
    run = shared_cloud.run("train-a100", config={"gcp:project": PROJECT})
    assert run.returncode == 1
    assert "infra/stacks/Pulumi.train-a100.yaml" in run.errors


def test_the_tracked_file_is_the_base_and_pulumis_values_lie_over_it(shared_cloud: Cloud) -> None:
    own = {"environments": dict(IMAGES), "buckets": shared_cloud.buckets.model_dump(), "machine": {"max_attempts": 3}}
    run = shared_cloud.run("train-h100", config={"gcp:project": PROJECT, "elson:spec": json.dumps(own)})
    assert run.returncode == 0, run.errors
    spec = content(run.only("BucketObject", "spec"))
    assert (spec["machine"]["max_attempts"], spec["machine"]["machine_type"]) == (3, "a3-highgpu-1g")


def test_the_t4_runs_fp16(cloud: Cloud) -> None:
    run = cloud.run("serve-l4", machine={"machine_type": "n1-standard-8-1xt4"})
    assert run.returncode == 0, run.errors
    template = run.only("RegionInstanceTemplate").inputs
    assert template["machineType"] == "n1-standard-8"
    assert template["guestAccelerators"] == [{"type": "nvidia-tesla-t4", "count": 1}]
    assert content(run.only("BucketObject", "spec"))["serve"]["dtype"] == "float16"
    assert "without Marlin" in run.warnings


def test_a_preview_shows_the_plan(runs: Runs) -> None:
    said = "\n".join(text for severity, text in runs("train-h100", True).logs if severity == "INFO")
    assert "75 optimizer steps" in said
    assert "$" in said
    assert "2,000 ms cannot be reached" in runs("serve-l4", True).warnings


def test_the_stack_files_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    assert {stacks.load(name).role for name in stacks.names()} == {"foundation", "train", "serve"}
    assert stacks.load("serve-l4").spec.buckets.models == f"gs://{PROJECT}-elson-models"

"""Every value and field that a stack sends exists in Google's APIs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Cloud
from discovery import SCHEMAS, problems, regions, schemas
from engine import Run
from inventory import STACKS

from runners.planning import cloud_run
from runners.planning.machines import MACHINES
from runners.spec import Spec

TEMPLATE = "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate"
GROUP = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
#: Types whose inputs are names and texts only.
PLAIN = {
    "Service", "BucketObject", "ManagedFolder", "BucketIAMMember", "IAMMember", "RepositoryIamMember", "SecretIamMember", "ServiceIamMember", "Dashboard",
    "ServiceIamBinding", "JobIamMember",
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS)
def test_every_enum_and_field_exists(stack: str, runs: Callable[[str, bool], Run]) -> None:
    for resource in runs(stack, False).custom:
        kind = resource.type.split(":")[-1]
        assert resource.type in SCHEMAS or kind in PLAIN, f"{resource.type} is checked against nothing"
        if resource.type in SCHEMAS:
            assert not problems(resource.type, resource.inputs)


def test_so_do_the_other_ways_to_buy_and_to_open(shared_cloud: Cloud) -> None:
    flex = shared_cloud.run("train-h100", machine={"provisioning_model": "FLEX_START"})
    opened = shared_cloud.run("serve-l4", serve={"open_to_the_internet": True, "domain": "a.example.org"}, machine={"machine_type": "n1-standard-8-1xt4"})
    for run in (flex, opened):
        assert run.returncode == 0, run.errors
        for resource in run.custom:
            if resource.type in SCHEMAS:
                assert not problems(resource.type, resource.inputs)


@pytest.mark.parametrize(
    ("kind", "inputs"),
    [
        (TEMPLATE, {"scheduling": {"provisioningModel": "SPOTTY"}}),
        (TEMPLATE, {"scheduling": {"onHostMaintenance": "STOP"}}),
        (TEMPLATE, {"scheduling": {"maxRunTime": {"seconds": 1}}}),
        (TEMPLATE, {"disks": [{"mode": "RW"}]}),
        (TEMPLATE, {"networkInterfaces": [{"nicType": "GVNICS"}]}),
        (GROUP, {"updatePolicy": {"type": "PROACTIV"}}),
        (GROUP, {"targetSizePolicies": [{"mode": "BULKY"}]}),
        (GROUP, {"distributionPolicyTargetShape": "SINGLE"}),
        (GROUP, {"instanceLifecyclePolicy": {"onRepair": {"allowChangingZone": "MAYBE"}}}),
        ("gcp:artifactregistry/repository:Repository", {"format": "OCI"}),
        ("gcp:cloudrunv2/service:Service", {"ingress": "INGRESS_TRAFFIC_EVERYBODY"}),
        ("gcp:cloudrunv2/service:Service", {"template": {"containers": [{"startupProbe": {"httpGet": {"url": "/"}}}]}}),
        ("gcp:cloudrunv2/service:Service", {"template": {"nodeSelector": {"gpu": "nvidia-l4"}}}),
        ("gcp:cloudrunv2/job:Job", {"template": {"template": {"maxRetry": 3, "executionEnvironment": "GEN2"}}}),
    ],
)
def test_a_typo_is_found(kind: str, inputs: dict[str, object]) -> None:
    assert problems(kind, inputs)


def test_cloud_runs_limits_are_the_documents() -> None:
    """The document says bounds of probes and regions in words; cards, their cores and time-outs of tasks it does not know (cloud_run.py names the pages)."""
    run = schemas("run.v2")
    probe = run["GoogleCloudRunV2Probe"]["properties"]
    assert f"Maximum value for startup probe is {cloud_run.PROBE_PERIOD_AT_MOST_S}." in probe["periodSeconds"]["description"]
    assert f"Maximum value is {cloud_run.PROBE_TIMEOUT_AT_MOST_S}." in probe["timeoutSeconds"]["description"]
    assert "Must be greater or equal than timeout_seconds" in probe["periodSeconds"]["description"]
    assert "nvidia.com/gpu" in run["GoogleCloudRunV2ResourceRequirements"]["properties"]["limits"]["description"]
    assert "single container" in run["GoogleCloudRunV2TaskTemplate"]["properties"]["containers"]["description"], "else one job could train and quantize"
    everywhere = {region for places in cloud_run.REGIONS.values() for region in places}
    assert everywhere <= regions("run.v2")
    for seconds in (10, 900, cloud_run.STARTUP_AT_MOST_S):
        probes = cloud_run.startup_probe(seconds)
        assert probes["timeout_seconds"] < probes["period_seconds"] <= cloud_run.PROBE_PERIOD_AT_MOST_S
        assert probes["period_seconds"] * probes["failure_threshold"] == seconds
    assert Spec().serve.ready_timeout_s <= cloud_run.STARTUP_AT_MOST_S


def test_instances_have_the_least_that_their_cards_ask_for() -> None:
    on_run = [host for host in MACHINES.values() if host.is_run]
    assert {host.accelerator.type for host in on_run} == set(cloud_run.LEAST) == set(cloud_run.REGIONS) == set(cloud_run.DRIVERS)
    for host in on_run:
        cores, gib = cloud_run.LEAST[host.accelerator.type]
        assert host.vcpus >= cores and host.memory_gb >= gib and host.count == 1


def test_a_group_in_bulk_mode_waits_as_a_resize_request_does() -> None:
    """So flex-start asks with a group's size, which everything that stops it knows; a request would add to that size by itself."""
    compute = schemas("compute.v1")
    mode = compute["InstanceGroupManagerTargetSizePolicy"]["properties"]["mode"]
    bulk = " ".join(dict(zip(mode["enum"], mode["enumDescriptions"], strict=True))["BULK"].split())
    assert "waits until all VMs can be created at the same time" in bulk
    request = compute["InstanceGroupManagerResizeRequest"]["properties"]
    assert "target size will be increased by this number" in " ".join(request["resizeBy"]["description"].split())
    assert "ACCEPTED" in request["state"]["enum"] and "CANCELLED" in request["state"]["enum"], "a wait of its own, ended by a call of its own"

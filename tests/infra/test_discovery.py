"""Every value and field that a stack sends exists in Google's APIs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Cloud
from discovery import SCHEMAS, problems
from engine import Run

TEMPLATE = "gcp:compute/regionInstanceTemplate:RegionInstanceTemplate"
GROUP = "gcp:compute/regionInstanceGroupManager:RegionInstanceGroupManager"
#: Types whose inputs are names and texts only.
PLAIN = {
    "Service", "BucketObject", "ManagedFolder", "BucketIAMMember", "IAMMember", "RepositoryIamMember", "SecretIamMember", "ServiceIamMember", "Dashboard",
}  # fmt: skip


@pytest.mark.parametrize("stack", ["foundation", "train-h100", "serve-l4", "serve-l4-spot"])
def test_every_enum_and_field_exists(stack: str, runs: Callable[[str, bool], Run]) -> None:
    for resource in runs(stack, False).custom:
        kind = resource.type.split(":")[-1]
        assert (resource.type in SCHEMAS) != (kind in PLAIN), f"{resource.type} is checked against nothing"
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
    ],
)
def test_a_typo_is_found(kind: str, inputs: dict[str, object]) -> None:
    assert problems(kind, inputs)

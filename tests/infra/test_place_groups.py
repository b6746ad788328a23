"""``machine.places`` as it is declared: a group for each place, the subnets of other regions, and where the buckets are."""

from __future__ import annotations

import json

import engine
from conftest import Cloud

from tests.infra.declared import Runs

PLACES = [
    {"provisioning_model": "FLEX_START"},
    {"machine_type": "a2-ultragpu-1g", "max_usd_per_hour": 2.4},
    {"machine_type": "a2-ultragpu-1g", "max_usd_per_hour": 3.5},
    {"region": "us-east4", "zones": ["us-east4-a"]},
]


def test_other_places_are_groups_of_size_0_that_the_watchdog_asks(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("train-h100", machine={"places": PLACES})
    assert run.returncode == 0, run.errors
    groups = sorted(run.all("RegionInstanceGroupManager"), key=lambda group: str(group.inputs["name"]))
    first = groups[0].inputs["name"]
    assert [(group.inputs["name"], group.inputs["targetSize"]) for group in groups] == [(first, 1), (f"{first}-2", 0), (f"{first}-4", 0)]
    assert all(list(group.request.ignoreChanges) == ["targetSize"] for group in groups), "a refresh must not ask for a second VM"
    templates = {template.inputs["metadata"]["elson-group"]: template.inputs for template in run.all("RegionInstanceTemplate")}
    asked = [json.loads(template["metadata"]["elson-places"]) for template in templates.values()]
    assert asked[0] == asked[1] == asked[2] and [place["group"] for place in asked[0]] == [first, f"{first}-2", f"{first}-4"]
    bought = {
        name: (template["machineType"], template["scheduling"]["provisioningModel"], template["disks"][0]["diskType"]) for name, template in templates.items()
    }
    assert bought[f"{first}-2"][:2] == ("a3-highgpu-1g", "FLEX_START") and bought[f"{first}-4"] == ("a2-ultragpu-1g", "SPOT", "pd-balanced")
    assert (
        len({json.dumps({key: template["metadata"][key] for key in ("elson-job-id", "elson-max-minutes", "elson-max-vms")}) for template in templates.values()})
        == 1
    )
    assert len({template["metadata"]["elson-spec-uri"] for template in templates.values()}) == 3, "each spec has its own price and plan"
    assert engine.refusals(shared_cloud.run("train-h100"), run) == []


def test_one_place_is_as_before(runs: Runs) -> None:
    (group,) = runs("train-h100", False).all("RegionInstanceGroupManager")
    assert not list(group.request.ignoreChanges)
    (template,) = runs("train-h100", False).all("RegionInstanceTemplate")
    assert "elson-places" not in template.inputs["metadata"]


def test_other_regions_have_the_subnets_and_the_buckets_are_where_they_are_said_to_be(shared_cloud: Cloud) -> None:
    foundation = {"other_regions": ["us-east4", "europe-west4"], "buckets_location": "US"}
    run = shared_cloud.run("foundation", foundation=foundation)
    assert run.returncode == 0, run.errors
    made = {(subnet.inputs["name"], subnet.inputs["region"]): subnet.inputs["ipCidrRange"] for subnet in run.all("Subnetwork")}
    assert len(made) == 9 and made["elson-train", "us-central1"] == "10.20.0.0/24" and made["elson-train", "europe-west4"] == "10.22.0.0/24"
    assert len(set(made.values())) == 9 and set(run.outputs["subnets"]) >= {"train", "train@us-east4", "serve@europe-west4"}
    assert {bucket.inputs["location"] for bucket in run.all("Bucket")} == {"US"}
    refused = shared_cloud.run("serve-l4", machine={"places": PLACES})
    assert refused.returncode == 1 and "machine.places is for trainings" in refused.errors and not refused.custom

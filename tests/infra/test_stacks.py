"""Every stack, in preview and up, as a process against the stand-in engine: what is asked for, with which options, from which inputs."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import engine
import pytest
from conftest import IMAGES, PROJECT, ROOT, Cloud, foundation_outputs, job_state, publish
from engine import UNKNOWN, Run, Secret

from runners.artifacts import registry
from runners.errors import UserError
from runners.planning.stacks import look_up
from runners.spec import parse, spec_digest
from runners.vm.containers import HEALTH_PORT
from tests.infra.declared import ALL, MACHINES, Runs, content


@pytest.mark.parametrize("preview", [True, False], ids=["preview", "up"])
@pytest.mark.parametrize("stack", ALL)
def test_a_stack_is_declared(stack: str, preview: bool, runs: Runs) -> None:
    run = runs(stack, preview)
    assert run.returncode == 0, run.errors
    assert not run.errors
    assert len({r.urn for r in run.resources}) == len(run.resources)


@pytest.mark.parametrize("stack", ALL)
def test_a_preview_asks_for_the_same_as_an_up(stack: str, runs: Runs) -> None:
    assert sorted(r.key for r in runs(stack, True).resources) == sorted(r.key for r in runs(stack, False).resources)


@pytest.mark.parametrize("stack", ALL)
def test_no_value_is_a_secret_or_the_text_of_an_output(stack: str, runs: Runs) -> None:
    def walk(value: object) -> None:
        assert not isinstance(value, Secret)
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str):
            assert "Calling __str__" not in value
            assert value != UNKNOWN

    for resource in runs(stack, False).resources:
        # The provider's SDK calls the content of every object a secret, ours included.
        walk({key: value for key, value in resource.inputs.items() if (resource.type.split(":")[-1], key) != ("BucketObject", "content")})


# --- the group -------------------------------------------------------------------------------------------------------------------------


def test_the_training_vm_is_a_spot_h100_that_the_platform_ends(runs: Runs) -> None:
    template = runs("train-h100", False).only("RegionInstanceTemplate").inputs
    assert template["machineType"] == "a3-highgpu-1g"
    assert "guestAccelerators" not in template or template["guestAccelerators"] == []
    assert template["scheduling"] == {
        "provisioningModel": "SPOT",
        "preemptible": True,
        "automaticRestart": False,
        "onHostMaintenance": "TERMINATE",
        "instanceTerminationAction": "DELETE",
        "maxRunDuration": {"seconds": 150 * 60},
        "preemptionNoticeDuration": {"seconds": 120},
    }
    assert template["disks"][0]["diskType"] == "hyperdisk-balanced"
    assert "accessConfigs" not in template["networkInterfaces"][0] or template["networkInterfaces"][0]["accessConfigs"] == []


def test_flex_start_is_asked_for_as_the_platform_wants_it(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("train-h100", machine={"provisioning_model": "FLEX_START"})
    scheduling = run.only("RegionInstanceTemplate").inputs["scheduling"]
    assert scheduling["provisioningModel"] == "FLEX_START"
    assert (scheduling["automaticRestart"], scheduling["instanceTerminationAction"]) == (False, "DELETE")
    assert not scheduling["preemptible"]
    assert "preemptionNoticeDuration" not in scheduling
    assert run.only("RegionInstanceTemplate").inputs["reservationAffinity"] == {"type": "NO_RESERVATION"}
    group = run.only("RegionInstanceGroupManager").inputs
    assert group["targetSizePolicies"] == [{"mode": "BULK"}]
    assert group["distributionPolicyTargetShape"] == "ANY_SINGLE_ZONE"
    assert group["instanceLifecyclePolicy"]["defaultActionOnFailure"] == "DO_NOTHING"


def test_a_lost_spot_vm_is_made_again_elsewhere(runs: Runs) -> None:
    group = runs("train-h100", False).only("RegionInstanceGroupManager").inputs
    assert group["targetSize"] == 1
    assert group["distributionPolicyTargetShape"] == "ANY"
    assert group["instanceLifecyclePolicy"] == {"defaultActionOnFailure": "REPAIR", "forceUpdateOnRepair": "YES", "onRepair": {"allowChangingZone": "YES"}}
    policy = group["updatePolicy"]
    assert (policy["instanceRedistributionType"], policy["maxSurgeFixed"], policy["maxUnavailableFixed"]) == ("NONE", 0, 3)
    assert policy["type"] == "OPPORTUNISTIC"  # a new commit must not take a running training away
    assert group["waitForInstances"] is False
    assert not group.get("statefulExternalIps")


def test_a_server_heals_on_a_completion(runs: Runs) -> None:
    run = runs("serve-l4", False)
    check = run.only("HealthCheck").inputs
    assert check["httpHealthCheck"] == {"port": HEALTH_PORT, "requestPath": "/health"}
    assert f"http://:{HEALTH_PORT} {{" in (ROOT / "images" / "gateway" / "Caddyfile").read_text()
    assert runs("foundation", False).only("Firewall", "health").inputs["allows"] == [{"protocol": "tcp", "ports": [str(HEALTH_PORT)]}]
    healing = run.only("RegionInstanceGroupManager").inputs["autoHealingPolicies"]
    assert healing["healthCheck"] == f"https://compute/{check['name']}"
    assert healing["initialDelaySec"] == 900 + 460 + 590
    assert check["healthyThreshold"] * check["checkIntervalSec"] > 10 + 5, "by then the load balancer of several servers has seen it too"
    assert run.only("RegionInstanceTemplate").inputs["scheduling"]["provisioningModel"] == "STANDARD"
    assert runs("serve-l4-spot", False).only("RegionInstanceTemplate").inputs["scheduling"]["provisioningModel"] == "SPOT"


@pytest.mark.parametrize("stack", MACHINES)
def test_the_metadata_is_what_the_agent_reads(stack: str, runs: Runs, shared_cloud: Cloud) -> None:
    from runners.vm import facts, payload

    run = runs(stack, False)
    metadata = run.only("RegionInstanceTemplate").inputs["metadata"]
    group = run.only("RegionInstanceGroupManager").inputs
    instance = {"attributes": metadata, "zone": "projects/1/zones/us-central1-a", "name": "vm", "id": 1}
    found = facts.parse({"project": {"projectId": PROJECT}, "instance": instance})
    assert (found.group, found.region) == (group["name"], "us-central1")
    assert found.job_id == run.outputs["job"]
    assert found.images == {stage: IMAGES[stage] for stage in found.images}
    assert {key: metadata[key] for key in payload.metadata()} == payload.metadata()
    assert sum(len(key) + len(value) for key, value in metadata.items()) < 512_000
    assert max(map(len, metadata.values())) < 256 << 10
    assert metadata["enable-guest-attributes"] == metadata["enable-oslogin"] == metadata["block-project-ssh-keys"] == "TRUE"
    uploaded = run.only("BucketObject", "spec").inputs
    assert found.spec_uri == f"{shared_cloud.buckets.scratch}/{uploaded['name']}"
    spec = parse(content(run.only("BucketObject", "spec")))
    assert uploaded["name"] == f"specs/{spec_digest(spec)}.json"


def test_the_training_spec_is_resolved(runs: Runs) -> None:
    spec = parse(content(runs("train-h100", False).only("BucketObject", "spec")))
    assert spec.base_model.id is not None
    assert spec.base_model.id.startswith("base-")
    assert re.fullmatch("data-[0-9a-f]{16}", spec.dataset.id or "")


def test_production_is_resolved_when_the_stack_is_planned(runs: Runs) -> None:
    run = runs("serve-l4", False)
    assert (run.outputs["model"], run.outputs["model_id"]) == ("first-q4", "qdora-00000000000000aa")
    spec = parse(content(run.only("BucketObject", "spec")))
    assert (spec.serve.model, spec.serve.model_id) == ("first-q4", "qdora-00000000000000aa")


# --- the same again, and something else ------------------------------------------------------------------------------------------------


def test_the_same_spec_again_spends_nothing(cloud: Cloud, tmp_path: Path) -> None:
    first = cloud.run("train-h100")
    job = first.outputs["job"]
    assert first.only("RegionInstanceGroupManager").inputs["targetSize"] == 1
    publish(cloud.buckets, tmp_path / "made", "elson-finance-trading-wealth-14b-q4-v2", "qdora", job)
    again = cloud.run("train-h100")
    assert again.returncode == 0, again.errors
    assert again.custom == []  # no group, so neither `up` nor `up --refresh` can start one
    assert again.outputs == {"status": "complete", "job": job, "artifact": "elson-finance-trading-wealth-14b-q4-v2"}


def test_a_job_that_failed_for_good_stays_at_0_until_somebody_says_otherwise(cloud: Cloud) -> None:
    job = cloud.run("train-h100").outputs["job"]
    job_state(cloud.buckets, job, status="failed", reason="attempts used up")
    run = cloud.run("train-h100")
    assert run.only("RegionInstanceGroupManager").inputs["targetSize"] == 0
    assert run.all("RouterNat") == []
    assert f"elson retry {job}" in run.warnings
    assert "attempts used up" in run.warnings


def test_one_training_is_not_started_on_a_second_machine(cloud: Cloud) -> None:
    """A VM and Cloud Run share the job's id, its state and its result."""
    job, now = look_up(cloud.spec("train-h100")).job_id, datetime.now(UTC)
    assert look_up(cloud.spec("train-run")).job_id == job
    of_run, of_group = {"run_job": "elson-train-0b75369b"}, {"group": "elson-train-0b75369b"}
    for stack, other in (("train-h100", of_run), ("train-run", of_group)):
        job_state(cloud.buckets, job, status="running", machine=other, updated_at=(now - timedelta(minutes=5)).isoformat())
        refused = cloud.run(stack)
        assert refused.returncode == 1 and f"{job} is at work on elson-train-0b75369b, 5 minutes ago" in refused.errors and refused.custom == []
    assert cloud.run("train-h100").returncode == 0, "its own machine"
    job_state(cloud.buckets, job, status="running", machine=of_run, updated_at=(now - timedelta(minutes=16)).isoformat())
    assert cloud.run("train-h100").returncode == 0, "silent"


def test_a_server_that_failed_stays_at_0_and_two_stacks_are_two_servers(cloud: Cloud) -> None:
    first = cloud.run("serve-l4")
    assert look_up(cloud.spec("serve-l4", profile="serve-l4-spot")).job_id != first.outputs["job"]
    job_state(cloud.buckets, first.outputs["job"], status="failed", reason="attempts used up")
    again = cloud.run("serve-l4")
    assert again.only("RegionInstanceGroupManager").inputs["targetSize"] == 0
    assert f"elson retry {first.outputs['job']}" in again.warnings


def test_an_fp8_cache_of_production_is_planned_only_when_evaluations_allow_it(cloud: Cloud) -> None:
    fp8 = {"kv_cache_dtype": "fp8"}
    with pytest.raises(UserError, match="nothing shows what first-q4 loses by it"):
        look_up(cloud.spec("serve-l4", serve=fp8))
    refused = cloud.run("serve-l4", serve=fp8)
    assert refused.returncode == 1 and "--fp8-cache AUTO_RUN FP8_RUN" in refused.errors and refused.custom == []
    look_up(cloud.spec("serve-l4", serve={**fp8, "model": "first-q4"}))  # to evaluate it
    registry.promote(cloud.buckets, "first-q4", fp8_cache="none of 100 cases lost")
    assert look_up(cloud.spec("serve-l4", serve=fp8)).spec.serve.kv_cache_dtype == "fp8"


@pytest.mark.parametrize("changed", ["subnets", "serviceAccounts", "apiKeySecret"])
def test_another_subnet_or_account_is_another_template_name(changed: str, shared_cloud: Cloud, runs: Runs) -> None:
    """A template is replaced by a new one that is made first: under the same name the API would refuse it."""
    other = foundation_outputs(shared_cloud.buckets)
    other[changed] = {key: f"{value}-2" for key, value in other[changed].items()} if isinstance(other[changed], dict) else f"{other[changed]}-2"
    after = shared_cloud.run("serve-l4", stacks={"organization/elson/foundation": other})
    assert engine.refusals(runs("serve-l4", False), after) == []
    assert after.only("RegionInstanceTemplate").inputs["name"] != runs("serve-l4", False).only("RegionInstanceTemplate").inputs["name"]


def test_another_model_replaces_a_server_without_a_refusal(shared_cloud: Cloud, runs: Runs) -> None:
    after = shared_cloud.run("serve-l4", serve={"max_sequences": 16})
    assert after.outputs["job"] != runs("serve-l4", False).outputs["job"]
    assert engine.refusals(runs("serve-l4", False), after) == []


def test_the_engine_refuses_what_the_platform_refuses(runs: Runs) -> None:
    """The stand-in's own test: names taken while both are there, and a health check that goes before its group."""
    before = runs("serve-l4", False)

    def changed(kind: str, **inputs: Any) -> Run:
        swap = [replace(r, inputs={**r.inputs, **inputs}) if r.type.endswith(f":{kind}") else r for r in before.resources]
        return replace(before, resources=swap)

    assert "name is taken" in engine.refusals(before, changed("RegionInstanceTemplate", machineType="g2-standard-4"))[0]
    check = before.only("HealthCheck")
    request = type(check.request)()
    request.CopyFrom(check.request)
    request.deleteBeforeReplace = True
    old_way = [replace(r, request=request, inputs={**r.inputs, "name": "other"}) if r is check else r for r in before.resources]
    assert "is used by" in engine.refusals(before, replace(before, resources=old_way))[0]


def test_everything_waits_for_its_service_and_grants_and_the_budget_has_a_quota_project(runs: Runs) -> None:
    assert engine.impatience(runs("foundation", False)) == []
    for stack in MACHINES:
        assert engine.impatience(runs(stack, False), services_are_on=True) == []


def test_the_engine_sees_what_does_not_wait(runs: Runs) -> None:
    run = runs("foundation", False)

    def without(kind: str, dropped: str) -> list[str]:
        resources = []
        for r in run.resources:
            request = type(r.request)()
            request.CopyFrom(r.request)
            if r.type.endswith(f":{kind}"):
                kept = [d for d in request.dependencies if dropped not in d]
                del request.dependencies[:]
                request.dependencies.extend(kept)
                if dropped == "provider":
                    request.provider = ""
            resources.append(replace(r, request=request))
        return engine.impatience(replace(run, resources=resources))

    assert any("monitoring.googleapis.com" in found for found in without("Dashboard", "::"))
    assert any("grant" in found for found in without("Function", "grants-known"))
    assert any("quota project" in found for found in without("Budget", "provider"))


def test_another_spec_is_another_group_that_replaces_the_first(shared_cloud: Cloud, runs: Runs) -> None:
    before = runs("train-h100", False)
    after = shared_cloud.run("train-h100", train={"epochs": 4}, names={"dora": "other-v1", "qdora": "other-q4-v1"})
    one, other = (run.only("RegionInstanceGroupManager") for run in (before, after))
    assert one.urn == other.urn
    assert one.inputs["name"] != other.inputs["name"]
    assert one.inputs["name"] == f"elson-train-{before.outputs['job'].removeprefix('qdora-')[:8]}"
    assert one.request.deleteBeforeReplace  # two H100s at once would need twice the quota
    assert before.only("RegionInstanceTemplate").inputs["name"] != after.only("RegionInstanceTemplate").inputs["name"]


def test_another_serving_never_retrains(cloud: Cloud) -> None:
    job = look_up(cloud.spec("train-h100")).job_id
    assert look_up(cloud.spec("train-h100", serve={"max_sequences": 8}, evaluate={"concurrency": 1})).job_id == job
    assert look_up(cloud.spec("train-h100", machine={"provisioning_model": "FLEX_START"})).job_id == job
    assert look_up(cloud.spec("train-h100", train={"epochs": 4}, names={"dora": "a-v1", "qdora": "b-v1"})).job_id != job


def test_a_name_that_is_anothers_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    publish(cloud.buckets, tmp_path / "other", "elson-finance-trading-wealth-14b-q4-v2", "qdora", "qdora-ffffffffffffffff")
    run = cloud.run("train-h100")
    assert run.returncode == 1
    assert "elson-finance-trading-wealth-14b-q4-v3" in run.errors
    assert run.custom == []

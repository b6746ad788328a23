"""Every stack, in preview and up, as a process against the stand-in engine: what is asked for, with which options, from which inputs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import engine
import pytest
from conftest import IMAGES, PROJECT, ROOT, Cloud, foundation_outputs, job_state, publish
from engine import UNKNOWN, Registered, Run, Secret

from runners.artifacts import registry
from runners.planning import stacks
from runners.planning.stacks import look_up
from runners.spec import BucketSpec, parse, spec_digest
from runners.vm.containers import HEALTH_PORT

Runs = Callable[[str, bool], Run]
MACHINES = ("train-h100", "serve-l4", "serve-l4-spot")
ALL = ("foundation", *MACHINES)


def content(uploaded: Registered) -> Any:
    """What an object will hold."""
    return json.loads(json.loads(uploaded.inputs["content"]))


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
    assert healing["initialDelaySec"] == 900 + 600
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


def test_a_server_that_failed_stays_at_0_and_two_stacks_are_two_servers(cloud: Cloud) -> None:
    first = cloud.run("serve-l4")
    assert look_up(cloud.spec("serve-l4", profile="serve-l4-spot")).job_id != first.outputs["job"]
    job_state(cloud.buckets, first.outputs["job"], status="failed", reason="attempts used up")
    again = cloud.run("serve-l4")
    assert again.only("RegionInstanceGroupManager").inputs["targetSize"] == 0
    assert f"elson retry {first.outputs['job']}" in again.warnings


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


# --- destroy ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stack", MACHINES)
def test_destroy_of_a_machine_leaves_nothing(stack: str, runs: Runs) -> None:
    for resource in runs(stack, False).resources:
        if not resource.type.startswith("gcp:"):
            continue
        assert not resource.request.protect, resource.key
        assert not resource.request.retainOnDelete, resource.key
        assert resource.inputs.get("deletionPolicy") is None, resource.key
        assert resource.inputs.get("deletionProtection") is None, resource.key
        for disk in resource.inputs.get("disks", []):
            assert disk["autoDelete"]


def test_the_foundation_has_nothing_that_is_billed_by_the_hour(runs: Runs) -> None:
    hourly = ("RouterNat", "Address", "RegionInstanceGroupManager", "Instance", "ForwardingRule", "VPNTunnel", "Cluster")
    run = runs("foundation", False)
    assert [r.key for r in run.custom if r.type.split(":")[-1] in hourly] == []
    assert all(function.inputs["serviceConfig"]["minInstanceCount"] == 0 for function in run.all("Function") if function.type.startswith("gcp:"))


def test_models_are_locked_three_times(runs: Runs) -> None:
    bucket = runs("foundation", False).only("Bucket", "models")
    assert bucket.request.protect
    assert bucket.inputs["deletionPolicy"] == "PREVENT"
    assert bucket.inputs["forceDestroy"] is False
    assert bucket.inputs["versioning"] == {"enabled": True}
    assert bucket.inputs["softDeletePolicy"]["retentionDurationSeconds"] == 30 * 86_400
    for folder in runs("foundation", False).all("ManagedFolder"):
        assert folder.request.protect


def test_exclude_protected_keeps_what_the_readme_says(runs: Runs) -> None:
    known = {r.urn: r for r in runs("foundation", False).resources}
    kept, todo = set[str](), [urn for urn, r in known.items() if r.request.protect]
    while todo:
        if (urn := todo.pop()) in known and urn not in kept:
            kept.add(urn)
            todo += known[urn].request.dependencies
    others = {known[urn].key for urn in kept if not known[urn].request.protect and not known[urn].type.startswith("elson:")}
    assert {key for key in others if not key.startswith("Service ")} == {"Bucket scratch", "Sleep services-known"}


def test_checkpoints_are_not_billed_after_they_are_gone(runs: Runs) -> None:
    scratch = runs("foundation", False).only("Bucket", "scratch").inputs
    assert scratch["softDeletePolicy"]["retentionDurationSeconds"] == 0
    gone = {name for name in OBJECTS if any(expires(rule, name, 15) for rule in scratch["lifecycleRules"])}
    assert gone == {"checkpoints/a/step-1/adapter.bin", "staging/a/b", "builds/source.tgz", "access-logs/models", "jobs/serve-1/logs/vm-1-aaaaaaaa.log"}
    assert not any(expires(rule, name, 13) for rule in scratch["lifecycleRules"] for name in OBJECTS)


OBJECTS = (
    *("checkpoints/a/step-1/adapter.bin", "staging/a/b", "builds/source.tgz", "access-logs/models", "jobs/serve-1/logs/vm-1-aaaaaaaa.log"),
    # A running stack names its spec; a job whose state is gone would begin again by itself; the functions are deployed from their sources.
    *("specs/abc.json", "jobs/serve-1/state.json", "functions/stop-1.zip", "watchdog/elson-train-1.json"),
)


def expires(rule: dict[str, Any], name: str, age_days: int) -> bool:
    """Whether a lifecycle rule deletes an object of that age; conditions hold together, prefixes and suffixes each for one of them."""
    when = rule["condition"]
    matches = [name.startswith(tuple(when["matchesPrefixes"])) if "matchesPrefixes" in when else True]
    matches.append(name.endswith(tuple(when["matchesSuffixes"])) if "matchesSuffixes" in when else True)
    return rule["action"]["type"] == "Delete" and all(matches) and age_days >= when["age"]


# --- the foundation --------------------------------------------------------------------------------------------------------------------


def test_the_plans_folders_are_there_and_the_first_versions_marked(runs: Runs, tmp_path: Path) -> None:
    run = runs("foundation", False)
    folders = {r.inputs["name"] for r in run.all("ManagedFolder")}
    assert {"elson-finance-trading-14b-final/", "wealth-dora-elson14b-h100-v2/", "elson-finance-trading-wealth-14b-q4-v2/"} <= folders
    for name in registry.DEPRECATED:
        marked = registry.Entry.model_validate(content(run.only("BucketObject", f"deprecated-{name}")))
        assert (marked.name, marked.status) == (name, "deprecated")
        assert marked.replacement == "wealth-dora-elson14b-h100-v2"


def test_the_key_is_never_in_the_state(runs: Runs) -> None:
    run = runs("foundation", False)
    assert run.all("SecretVersion") == []
    assert "random" not in {r.type.split(":")[0] for r in run.resources}


def test_a_budget_tells_the_function(runs: Runs) -> None:
    run = runs("foundation", False)
    budget = next(r.inputs for r in run.all("Budget") if r.type.startswith("gcp:"))
    assert budget["budgetFilter"]["projects"] == ["projects/123456789"]
    assert budget["allUpdatesRule"]["pubsubTopic"] == "messages-id"
    calls = run.only("Subscription").inputs
    assert calls["topic"] == "messages-id" and calls["pushConfig"]["pushEndpoint"] == "https://elson-stop.a.run.app"
    assert calls["expirationPolicy"] == {"ttl": ""}, "a subscription without messages must not expire"
    assert budget["amount"]["specifiedAmount"] == {"units": "50", "nanos": 0}, "the account's own currency: the API refuses any other"


def test_the_watchdog_is_called_every_five_minutes_by_its_own_account(runs: Runs) -> None:
    job = runs("foundation", False).only("Job").inputs
    assert (job["schedule"], job["httpTarget"]["uri"]) == ("*/5 * * * *", "https://elson-watchdog.a.run.app")
    assert job["httpTarget"]["oidcToken"]["serviceAccountEmail"] == "elson-stop@a-project.iam.gserviceaccount.com"


def test_without_a_billing_account_there_is_no_budget_and_everything_else(shared_cloud: Cloud) -> None:
    run = shared_cloud.run("foundation")
    assert run.returncode == 0, run.errors
    assert [r for r in run.all("Budget") if r.type.startswith("gcp:")] == []
    assert len([r for r in run.all("Function") if r.type.startswith("gcp:")]) == 2
    assert "billing_account" in run.warnings


def test_a_training_vm_may_delete_no_model(runs: Runs) -> None:
    grants = [r.inputs for r in runs("foundation", False).all("BucketIAMMember") if "elson-train" in r.inputs["member"]]
    on_models = [grant for grant in grants if grant["bucket"] == f"{PROJECT}-elson-models"]
    assert {grant["role"] for grant in on_models if "condition" not in grant} == {"roles/storage.objectViewer"}
    (adding,) = [grant for grant in on_models if grant["role"] == "roles/storage.objectCreator"]
    assert "!resource.name.startsWith" in adding["condition"]["expression"] and "production.json" in adding["condition"]["expression"]
    (changing,) = [grant for grant in on_models if grant["role"] == "roles/storage.objectUser"]
    assert changing["condition"]["expression"].count("startsWith") == 2
    assert f"projects/_/buckets/{PROJECT}-elson-models/objects/registry/" in changing["condition"]["expression"]


def test_only_the_server_reads_the_key(runs: Runs) -> None:
    (grant,) = runs("foundation", False).all("SecretIamMember")
    assert grant.inputs["member"] == "serviceAccount:elson-serve@a-project.iam.gserviceaccount.com"


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
    assert "2,000 MS IS NOT REACHABLE" in runs("serve-l4", True).warnings


def test_the_stack_files_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", PROJECT)
    assert {stacks.load(name).role for name in stacks.names()} == {"foundation", "train", "serve"}
    assert stacks.load("serve-l4").spec.buckets.models == f"gs://{PROJECT}-elson-models"

"""The foundation as it is declared, and what is left of every stack after a destroy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT, Cloud

from runners.artifacts import registry
from runners.planning import cloud_run
from tests.infra.declared import MACHINES, Runs, content

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


def test_executions_are_ended_by_the_outside_stops_alone_and_in_every_region_they_may_be_in(runs: Runs) -> None:
    run = runs("foundation", False)
    (role,) = [r.inputs for r in run.all("IAMCustomRole") if "run.executions.cancel" in r.inputs["permissions"]]
    assert {"run.executions.list", "run.executions.cancel"} <= set(role["permissions"]) and not [p for p in role["permissions"] if "run.jobs" in p]
    members = [r.inputs["member"] for r in run.all("IAMMember") if role["roleId"] in r.inputs["role"] or "cancel-role" in r.inputs["role"]]
    assert members == ["serviceAccount:elson-stop@a-project.iam.gserviceaccount.com"]
    watched = {
        r.inputs["name"]: r.inputs["serviceConfig"]["environmentVariables"]["ELSON_RUN_REGIONS"].split() for r in run.all("Function") if r.inputs.get("name")
    }
    assert watched.keys() == {"elson-stop", "elson-watchdog"}
    for watched_regions in watched.values():
        assert {region for regions in cloud_run.REGIONS.values() for region in regions} == set(watched_regions)


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
